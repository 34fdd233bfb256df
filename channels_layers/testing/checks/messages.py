"""What a message may hold, and that it arrives as it was sent."""

from __future__ import annotations

import math
from collections import OrderedDict, defaultdict, namedtuple
from typing import Any, Final

from ._check import Layer, LayerMaker, check
from ._tools import END, exactly, member

EVERY_TYPE: Final[dict[str, Any]] = {
    "none": None,
    "booleans": [True, False],
    "integers": [0, 1, -1, 2**31, 2**53 + 1],
    "floats": [0.0, -0.0, 1.0, 0.1, 1e308, 5e-324],
    "strings": ["", "text", "\u00e4 \u540d \U0001f600", "a\nb\x00c"],
    "bytes": [b"", b"\x00\xff", bytes(range(256))],
    "dicts": [{}, {"a": {"b": [[], {}]}}, {"": "empty key"}],
}

Point = namedtuple("Point", "x y")


class SafeText(str):
    """A text that knows it is safe, as template engines make them."""

    __slots__ = ()


class Metres(float):
    """A number with a unit."""


class Count(int):
    """A number with a meaning."""


class Blob(bytes):
    """Bytes with a meaning."""


def nested(depth: int, kind: type) -> dict[str, Any]:
    """Return a message of `depth` containers, one inside the other; the message is the first."""
    value: Any = kind()
    for _ in range(depth - 2):
        value = [value] if kind is list else {"a": value}
    return {"a": value}


async def arrivals(layer: Layer, message: Any) -> list[Any]:
    """Return what arrives when `message` is sent to a channel and to a group."""
    channel = await member(layer, "group")
    await layer.send(channel, message)
    await layer.group_send("group", message)
    try:
        return [await layer.receive(channel), await layer.receive(channel)]
    finally:
        await layer.group_discard("group", channel)


async def _arrives_as(layer: Layer, message: Any, expected: Any) -> None:
    for got in await arrivals(layer, message):
        assert exactly(got, expected), f"sent {message!r}, received {got!r}"


@check("words: message")
async def every_type_arrives_as_it_was(make: LayerMaker) -> None:
    """None, bool, int, float, str, bytes, list and dict keep value and type."""
    layer = await make()
    await _arrives_as(layer, EVERY_TYPE, EVERY_TYPE)


@check("words: message")
async def an_empty_dict_is_a_message(make: LayerMaker) -> None:
    """`{}` is delivered like any other message."""
    layer = await make()
    await _arrives_as(layer, {}, {})


@check("words: message")
async def no_key_is_required(make: LayerMaker) -> None:
    """A message needs no `type`, and no key is reserved."""
    layer = await make()
    for message in ({"x": 1}, {"type": None}, {"__asgi_channel__": "x"}, {"channel": "y"}):
        await _arrives_as(layer, message, message)


@check("words: message")
async def a_tuple_arrives_as_a_list(make: LayerMaker) -> None:
    """At every depth, named ones included."""
    layer = await make()
    message = {"a": (1, (2, ()), [(3,)]), "point": Point(1, 2)}
    await _arrives_as(layer, message, {"a": [1, [2, []], [[3]]], "point": [1, 2]})


@check("words: message")
async def a_subclass_arrives_as_its_base_type(make: LayerMaker) -> None:
    """Safe texts, ordered dicts and the like are sent as what they are underneath."""
    layer = await make()
    message = {
        "text": SafeText("<b>"),
        "ordered": OrderedDict(b=1, a=2),
        "default": defaultdict(int, a=1),
        "numbers": [Metres(1.5), Count(7)],
        "blob": Blob(b"x"),
        SafeText("key"): [SafeText("value")],
    }
    plain = {
        "text": "<b>",
        "ordered": {"b": 1, "a": 2},
        "default": {"a": 1},
        "numbers": [1.5, 7],
        "blob": b"x",
        "key": ["value"],
    }
    await _arrives_as(layer, message, plain)
    await _arrives_as(layer, OrderedDict(a=1), {"a": 1})


@check("words: message")
async def integers_reach_to_64_bits(make: LayerMaker) -> None:
    """The largest and the smallest signed 64-bit number arrive."""
    layer = await make()
    message = {"a": [2**63 - 1, -(2**63)]}
    await _arrives_as(layer, message, message)


@check("words: message")
async def not_a_number_and_infinity_are_floats(make: LayerMaker) -> None:
    """NaN and both infinities arrive."""
    layer = await make()
    message = {"a": [math.nan, math.inf, -math.inf]}
    await _arrives_as(layer, message, message)


@check("words: message")
async def a_message_may_be_128_deep(make: LayerMaker) -> None:
    """The message itself is the first of 128 containers."""
    layer = await make()
    for kind in (list, dict):
        message = nested(128, kind)
        await _arrives_as(layer, message, message)


@check("words: message")
async def one_value_may_stand_in_two_places(make: LayerMaker) -> None:
    """A value used twice is no cycle."""
    layer = await make()
    shared = ["x"]
    await _arrives_as(layer, {"a": shared, "b": [shared]}, {"a": ["x"], "b": [["x"]]})


@check("api: send")
async def the_sender_may_change_its_message_afterwards(make: LayerMaker) -> None:
    """What was sent is what arrives, whatever the caller does with the object then."""
    layer = await make()
    channel = await member(layer, "group")
    message: dict[str, Any] = {"a": [1], "b": {"c": 2}}
    await layer.send(channel, message)
    message["a"].append("changed")
    await layer.group_send("group", message)
    message["b"].clear()
    message["new"] = 1
    assert await layer.receive(channel) == {"a": [1], "b": {"c": 2}}
    assert await layer.receive(channel) == {"a": [1, "changed"], "b": {"c": 2}}


@check("api: group_send")
async def members_of_a_group_get_independent_copies(make: LayerMaker) -> None:
    """A receiver that changes its message changes nobody else's, not even the sender's."""
    layer = await make()
    first, second = await member(layer, "group"), await member(layer, "group")
    sent: dict[str, Any] = {"a": [1]}
    await layer.group_send("group", sent)
    got = await layer.receive(first)
    got["a"].append("changed")
    got["new"] = 1
    assert await layer.receive(second) == {"a": [1]}
    assert sent == {"a": [1]}


@check("api: send")
async def a_received_message_is_not_the_object_that_was_sent(make: LayerMaker) -> None:
    """A receiver that changes its message does not change the sender's."""
    layer = await make()
    channel = await layer.new_channel()
    sent: dict[str, Any] = {"a": {"b": []}}
    await layer.send(channel, sent)
    (await layer.receive(channel))["a"]["b"].append("changed")
    assert sent == {"a": {"b": []}}


@check("api: send")
async def a_message_that_looks_like_any_other_is_not_swallowed(make: LayerMaker) -> None:
    """Equal messages are separate messages."""
    layer = await make()
    channel = await layer.new_channel()
    for _ in range(3):
        await layer.send(channel, {"same": 1})
    await layer.send(channel, END)
    assert [await layer.receive(channel) for _ in range(4)] == [{"same": 1}] * 3 + [END]
