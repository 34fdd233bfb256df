"""Compares serializers, each as it is and with a walk that makes it strict."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgpack
import msgspec
import ormsgpack
from _harness import main
from _results import OURS, Case, Contender, Figure, Grid, Options, Round, Sample
from _samples import MESSAGES, odd_messages

from channels_layers.codecs import msgpack as ours

QUESTION = "What does it cost to encode and decode a message strictly, and who is strict by itself?"

STRICT = (
    ormsgpack.OPT_PASSTHROUGH_BIG_INT
    | ormsgpack.OPT_PASSTHROUGH_DATACLASS
    | ormsgpack.OPT_PASSTHROUGH_DATETIME
    | ormsgpack.OPT_PASSTHROUGH_ENUM
    | ormsgpack.OPT_PASSTHROUGH_SUBCLASS
    | ormsgpack.OPT_PASSTHROUGH_UUID
)
PARTS = ("encode", "decode", "both")
SCALARS = frozenset({str, bytes, float, bool, type(None)})


@dataclass(frozen=True, slots=True)
class Codec:
    """A pair of functions."""

    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]


def walk(value: Any, room: int = 128) -> None:
    """Raise TypeError unless a message of exactly the base types is all there is in `value`."""
    kind = value.__class__
    if kind in SCALARS:
        return
    if kind is int:
        if not -(2**63) <= value < 2**63:
            raise TypeError("int of more than 64 bits")
    elif not room:
        raise TypeError("nested too deep")
    elif kind is dict:
        for key, item in value.items():
            if key.__class__ is not str:
                raise TypeError("key that is not a str")
            walk(item, room - 1)
    elif kind is list or kind is tuple:
        for item in value:
            walk(item, room - 1)
    else:
        raise TypeError(kind.__name__)


def strictly(codec: Codec) -> Codec:
    """Return `codec` with the walk before it."""

    def encode(message: Any) -> bytes:
        walk(message)
        return codec.encode(message)

    return Codec(encode, codec.decode)


def codecs() -> dict[str, Codec]:
    """Return all that are compared, by name."""
    plain = {
        "ormsgpack": Codec(ormsgpack.packb, ormsgpack.unpackb),
        "ormsgpack, pass-through": Codec(
            partial(ormsgpack.packb, option=STRICT), ormsgpack.unpackb
        ),
        "msgspec": Codec(msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder().decode),
        "msgpack": Codec(msgpack.Packer().pack, msgpack.unpackb),
        "msgpack, strict_types": Codec(msgpack.Packer(strict_types=True).pack, msgpack.unpackb),
        "json": Codec(lambda message: json.dumps(message).encode(), json.loads),
    }
    strict = {f"{name} + walk": strictly(codec) for name, codec in plain.items() if "," not in name}
    return {OURS: Codec(ours.encode, ours.decode), **plain, **strict}


def contender(name: str, codec: Codec, message: Any, repeats: int) -> Contender:
    """Return one that encodes and decodes `message` over and over."""

    @asynccontextmanager
    async def ready() -> AsyncIterator[Round]:
        payload = codec.encode(message)
        again = [None] * repeats

        async def one_round() -> Sample:
            encode, decode = codec.encode, codec.decode
            started = time.perf_counter()
            for _ in again:
                encode(message)
            encoded = time.perf_counter()
            for _ in again:
                decode(payload)
            decoded = time.perf_counter()
            scale = 1e6 / repeats
            return {
                "encode": (encoded - started) * scale,
                "decode": (decoded - encoded) * scale,
                "both": (decoded - started) * scale,
            }

        yield one_round

    return Contender(name, ready)


def takes(codec: Codec, message: Any) -> bool:
    """Say whether `codec` can encode `message` at all."""
    try:
        codec.encode(message)
    except TypeError:
        return False
    return True


def cases(options: Options) -> list[Case]:
    """One table for each kind of message."""
    found = []
    for title, message in MESSAGES.items():
        size = len(ours.encode(message))
        repeats = options.pick(max(20, min(20_000, 10_000_000 // size)), 5)
        found.append(
            Case(
                title=f"{title} message, {size:,} bytes",
                figures=[Figure(name, "µs", less_is_better=True) for name in PARTS],
                contenders=[
                    contender(name, codec, message, repeats)
                    for name, codec in codecs().items()
                    if takes(codec, message)
                ],
                baselines=["ormsgpack", "ormsgpack + walk"],
            )
        )
    return found


def outcome(codec: Codec, message: Any) -> str:
    """Say in a word what becomes of `message`."""
    try:
        result = codec.decode(codec.encode(message))
    except (TypeError, ValueError, OverflowError, RecursionError):
        return "refused"
    if not isinstance(message["v"], dict):
        return f"to {type(result['v']).__name__}"
    return "to dict" if all(isinstance(key, str) for key in result["v"]) else "non-str key"


def who_refuses() -> list[Grid]:
    """One table: what becomes of values that no message may hold."""
    compared = {name: codec for name, codec in codecs().items() if "walk" not in name}
    rows = [
        [name, wanted, *(outcome(codec, message) for codec in compared.values())]
        for name, (message, wanted) in odd_messages().items()
    ]
    return [Grid("What becomes of doubtful values", ["value", "wanted", *compared], rows)]


if __name__ == "__main__":
    main(QUESTION, cases, rounds=9, grids=who_refuses)
