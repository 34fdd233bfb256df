"""What no message may hold: a TypeError at the sender, never a failure at the receiver."""

from __future__ import annotations

import datetime
import enum
import fractions
import types
import uuid
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from typing import Any, Final

from ._check import Layer, LayerMaker, check
from ._tools import drained, member, refused
from .messages import nested

MOMENT: Final = datetime.datetime(2024, 2, 29, 12, 30, tzinfo=datetime.UTC)


class Colour(enum.Enum):
    """A plain enum."""

    RED = "red"


class Level(enum.IntEnum):
    """An enum that is also an int."""

    HIGH = 3


class Word(enum.StrEnum):
    """An enum that is also a str."""

    YES = "yes"


class Bits(enum.IntFlag):
    """A flag that is also an int."""

    ONE = 1


@dataclass
class Point:
    """A value that only looks like a dict."""

    x: int = 0


async def _refuses(layer: Layer, values: Iterable[object]) -> None:
    for value in values:
        for message in ({"a": value}, {"a": [1, {"b": (value,)}]}):
            await _refuses_message(layer, message)


async def _refuses_message(layer: Layer, message: Any) -> None:
    for call in (layer.send, layer.group_send):
        name = getattr(call, "__name__", "call")
        what = f"{name} of {type(message).__name__}"
        await refused(partial(call, "anywhere", message), TypeError, what=what)


@check("words: message")
async def a_message_is_a_dict(make: LayerMaker) -> None:
    """Lists of pairs, texts, None and mappings that are no dicts are no messages."""
    layer = await make()
    for message in (None, "text", b"bytes", 3, [("a", 1)], types.MappingProxyType({"a": 1})):
        await _refuses_message(layer, message)


@check("words: message")
async def keys_are_strings(make: LayerMaker) -> None:
    """At every depth."""
    layer = await make()
    for key in (1, None, b"key", ("a",), 1.5, True):
        await _refuses_message(layer, {key: "value"})
        await _refuses_message(layer, {"a": [{"good": 1, key: "value"}]})


@check("words: message")
async def dates_and_times_are_refused(make: LayerMaker) -> None:
    """Never a silent conversion into text."""
    layer = await make()
    values = (MOMENT, MOMENT.date(), MOMENT.time(), datetime.timedelta(seconds=1))
    await _refuses(layer, values)


@check("words: message")
async def identifiers_and_exact_numbers_are_refused(make: LayerMaker) -> None:
    """UUID, Decimal, fractions and complex numbers are none of the base types."""
    layer = await make()
    await _refuses(layer, (uuid.UUID(int=1), Decimal("1.5"), fractions.Fraction(1, 3), 1j))


@check("words: message")
async def other_containers_are_refused(make: LayerMaker) -> None:
    """Sets, deques, views, iterators and ranges are no lists."""
    layer = await make()
    values = ({1}, frozenset({1}), deque([1]), {"a": 1}.keys(), iter([1]), range(3))
    await _refuses(layer, values)


@check("words: message")
async def other_buffers_are_refused(make: LayerMaker) -> None:
    """A bytearray or a memoryview may change after it was sent."""
    layer = await make()
    await _refuses(layer, (bytearray(b"x"), memoryview(b"x")))


@check("words: message")
async def objects_are_refused(make: LayerMaker) -> None:
    """Classes, functions, dataclasses, exceptions and bare objects."""
    layer = await make()
    await _refuses(layer, (object(), dict, len, Point(), ValueError("x"), NotImplemented, ...))


@check("words: message")
async def enums_are_refused(make: LayerMaker) -> None:
    """Even those that are also an int or a str: the receiver could not tell."""
    layer = await make()
    await _refuses(layer, (Colour.RED, Level.HIGH, Word.YES, Bits.ONE))


@check("words: message")
async def integers_beyond_64_bits_are_refused(make: LayerMaker) -> None:
    """On both ends; an unsigned 64-bit number is too large as well."""
    layer = await make()
    await _refuses(layer, (2**63, -(2**63) - 1, 2**64 - 1, 2**64, 10**100))


@check("words: message")
async def lone_surrogates_are_refused(make: LayerMaker) -> None:
    """Half a character is no text, neither as a value nor as a key."""
    layer = await make()
    await _refuses(layer, ("\ud800", "text \udfff text"))
    await _refuses_message(layer, {"\ud800": 1})


@check("words: message")
async def more_than_128_deep_is_refused(make: LayerMaker) -> None:
    """The 129th container is one too many, and thousands do not break the stack."""
    layer = await make()
    for depth in (129, 130, 5_000):
        for kind in (list, dict):
            await _refuses_message(layer, nested(depth, kind))


@check("words: message")
async def a_cycle_is_refused(make: LayerMaker) -> None:
    """A list or dict that holds itself has no end."""
    layer = await make()
    ring: list[Any] = []
    ring.append(ring)
    message: dict[str, Any] = {"ring": ring}
    await _refuses_message(layer, message)
    message["ring"] = {"message": message}
    await _refuses_message(layer, message)


@check("words: message")
async def the_error_names_the_path(make: LayerMaker) -> None:
    """It says where in the message the value stands, and its type."""
    layer = await make()
    cases = {
        'message["a"][3]: datetime': {"a": [0, 1, 2, MOMENT]},
        'message["a"]["b"][0]: set': {"a": {"b": ({1}, 2)}},
        'message["x"]: UUID': {"ok": 1, "x": uuid.UUID(int=1)},
    }
    for text, message in cases.items():
        for call in (layer.send, layer.group_send):
            error = await refused(partial(call, "x", message), TypeError, what=text)
            assert text in str(error), f"expected {text!r} in {str(error)!r}"


@check("words: message")
async def a_refused_message_changes_nothing(make: LayerMaker) -> None:
    """Neither the channel nor the members of the group get it, and it takes no room."""
    layer = await make(capacity=3)
    channel = await member(layer, "group")
    await layer.send(channel, {"n": 1})
    for bad in ({"a": {1}}, {"a": [1, MOMENT]}, {2: "key"}):
        await refused(partial(layer.send, channel, bad), TypeError, what="send")
        await refused(partial(layer.group_send, "group", bad), TypeError, what="group_send")
    await layer.send(channel, {"n": 2})
    assert await drained(layer, channel) == [{"n": 1}, {"n": 2}]
