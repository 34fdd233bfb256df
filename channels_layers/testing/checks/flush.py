"""Flush: everything is gone, and the layer goes on."""

from __future__ import annotations

from ._check import LayerMaker, check
from ._tools import drained, fill, line, member, numbered, settled


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
