"""Flush: everything is gone, and the layer goes on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from ._check import Layer, LayerMaker, check
from ._tools import client_part, drained, fill, line, member, numbered, settled, waiting


@check("api: flush")
async def all_messages_are_gone(make: LayerMaker) -> None:
    """On every kind of channel."""
    layer = await make()
    channels = ["specific.nobody!x", await layer.new_channel()]
    for channel in (*channels, "jobs"):
        await fill(layer, channel, 3)
    await layer.flush()
    for channel in channels:
        assert await drained(layer, channel) == [], channel
    await layer.send("jobs", {"new": 1})
    assert await layer.receive("jobs") == {"new": 1}


@check("api: flush")
async def all_groups_are_gone(make: LayerMaker) -> None:
    """A channel that was a member gets nothing until it joins again."""
    layer = await make()
    channel = await member(layer, "one", "two")
    await layer.flush()
    for group in ("one", "two"):
        await layer.group_send(group, {"n": 0})
        assert await layer.group_channels(group) == []
    await layer.group_add("one", channel)
    await layer.group_send("one", {"n": 1})
    assert await drained(layer, channel) == [{"n": 1}]


@check("api: flush")
async def waiting_receivers_go_on_waiting(make: LayerMaker) -> None:
    """They are neither ended nor forgotten, and keep their place in the line."""
    layer = await make()
    channel = await layer.new_channel()
    async with line(layer, channel, "jobs", channel) as [first, worker, second]:
        await layer.flush()
        await settled()
        assert [waiter.error for waiter in (first, worker, second)] == [None] * 3
        await fill(layer, channel, 2)
        await layer.send("jobs", {"job": 1})
        got = [await waiter.result() for waiter in (first, second, worker)]
    assert got == [{"n": 0}, {"n": 1}, {"job": 1}]


@check("api: flush")
async def a_receiver_that_was_woken_before_a_flush_waits_on(make: LayerMaker) -> None:
    """It has not run yet: its message is gone, and it hears the next one."""
    layer = await make()
    channel = await layer.new_channel()
    calls: dict[str, Callable[[], Awaitable[Any]]] = {
        "receive": partial(layer.receive, channel),
        "receive of a normal channel": partial(layer.receive, "jobs"),
        "receive of the non-local part": partial(layer.receive, client_part(channel)),
        "receive_from": partial(layer.receive_from, ["other", channel]),
    }
    for what, call in calls.items():
        to = "jobs" if "normal" in what else channel
        await _hears_what_comes_after_a_flush(layer, call, partial(layer.send, to), what)


@check("api: flush")
async def a_member_that_was_woken_before_a_flush_waits_on(make: LayerMaker) -> None:
    """It joins again, and hears the next message of the group."""
    layer = await make()
    channel = await layer.new_channel()

    async def send(message: Any) -> None:
        await layer.group_add("group", channel)
        await layer.group_send("group", message)

    for call in (layer.receive, lambda name: layer.receive_from([name])):
        receive = partial(call, channel)
        await _hears_what_comes_after_a_flush(layer, receive, send, "a member")


async def _hears_what_comes_after_a_flush(
    layer: Layer,
    receive: Callable[[], Awaitable[Any]],
    send: Callable[[Any], Awaitable[None]],
    what: str,
) -> None:
    async with waiting(receive) as [waiter]:
        await send({"n": 1})
        await layer.flush()
        await settled()
        assert waiter.error is None, f"{what}: {waiter.error!r}"
        await send({"n": 2})
        got = await waiter.result()
    message = got[1] if isinstance(got, tuple) else got
    # Where it was faster than the flush it has the first one, and the second one waits.
    assert message in numbered(3)[1:], f"{what}: {message}"
    await layer.flush()


@check("api: flush")
async def flushed_messages_make_room(make: LayerMaker) -> None:
    """A channel that was full accepts as many messages as at first."""
    layer = await make(capacity=3)
    channel = await layer.new_channel()
    for _ in range(2):
        await fill(layer, channel, 3)
        await layer.flush()
    await fill(layer, channel, 3)
    assert [await layer.receive(channel) for _ in range(3)] == numbered(3)


@check("api: flush")
async def nothing_is_pending_after_a_flush(make: LayerMaker) -> None:
    """The statistics know it when flush has returned."""
    layer = await make()
    await fill(layer, "jobs", 3)
    await layer.flush()
    assert (await layer.channel_statistics("jobs"))["messages_pending"] == 0


@check("api: flush")
async def flushing_an_unused_layer_is_no_error(make: LayerMaker) -> None:
    """Nor flushing twice."""
    layer = await make()
    await layer.flush()
    await layer.flush()
    assert await drained(layer, await layer.new_channel()) == []


@check("api: flush")
async def a_name_stays_valid_after_a_flush(make: LayerMaker) -> None:
    """The client is the same one: its old names go on working."""
    layer = await make()
    channel = await layer.new_channel()
    await layer.flush()
    sent = await fill(layer, channel, 3)
    assert await drained(layer, channel) == sent
