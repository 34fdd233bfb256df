"""Channels as queues: first in, first out, each message to one reader, at most once."""

from __future__ import annotations

from functools import partial

import anyio
import anyio.lowlevel

from ._check import Layer, LayerMaker, check
from ._tools import (
    END,
    client_part,
    drained,
    fill,
    line,
    member,
    receive_all,
    send_side_by_side,
    started,
)


@check("words: channel")
async def a_message_waits_for_its_reader(make: LayerMaker) -> None:
    """A send needs no receiver; the message is there for the one that comes later."""
    layer = await make()
    for channel in ("thumbnails", "specific.nobody!x", await layer.new_channel()):
        await layer.send(channel, {"to": channel})
        assert await layer.receive(channel) == {"to": channel}


@check("words: channel")
async def a_waiting_reader_gets_the_message(make: LayerMaker) -> None:
    """A receive that began before the send returns with the message."""
    layer = await make()
    for channel in ("thumbnails", "specific.nobody!x", await layer.new_channel()):
        async with line(layer, channel) as [waiter]:
            await layer.send(channel, {"to": channel})
            assert await waiter.result() == {"to": channel}


@check("semantics 4")
async def a_process_specific_channel_keeps_order(make: LayerMaker) -> None:
    """First in, first out."""
    layer = await make()
    channel = await layer.new_channel()
    sent = await fill(layer, channel, 50)
    assert await receive_all(layer, channel, 50) == sent


@check("words: channel", needs=["ordered_channels"])
async def a_normal_channel_keeps_order(make: LayerMaker) -> None:
    """First in, first out, where the layer guarantees it."""
    layer = await make()
    sent = await fill(layer, "thumbnails", 50)
    assert await receive_all(layer, "thumbnails", 50) == sent


@check("semantics 1", needs=["ordered_channels"])
async def many_readers_get_each_message_once(make: LayerMaker) -> None:
    """Ten readers of one channel share the messages, and none is given twice."""
    layer = await make(capacity=1000)
    for channel in ("jobs", await layer.new_channel()):
        got = await _shared_work(layer, channel, readers=10, count=100)
        assert sorted(got) == list(range(100)), f"{channel}: {sorted(got)}"


async def _shared_work(layer: Layer, channel: str, *, readers: int, count: int) -> list[int]:
    got: list[int] = []

    async def read() -> None:
        while (message := await layer.receive(channel)) != END:
            got.append(message["n"])

    async with started(*[read] * readers) as workers:
        await fill(layer, channel, count)
        for _ in workers:
            await layer.send(channel, END)
        for worker in workers:
            await worker.result()
    return got


@check("semantics 1")
async def nothing_is_left_behind_after_the_last_message(make: LayerMaker) -> None:
    """What was received is not received again."""
    layer = await make()
    channel = await layer.new_channel()
    await fill(layer, channel, 3)
    await receive_all(layer, channel, 3)
    assert await drained(layer, channel) == []


@check("semantics 4")
async def concurrent_sends_keep_their_order_of_call(make: LayerMaker) -> None:
    """Tasks of one loop that send at the same time are served in the order of their calls."""
    layer = await make(capacity=1000)
    channel = await layer.new_channel()
    called = []

    async def send(n: int) -> None:
        called.append(n)
        await layer.send(channel, {"n": n})

    async with anyio.create_task_group() as tasks:
        for n in range(100):
            tasks.start_soon(send, n)
    assert [message["n"] for message in await drained(layer, channel)] == called


@check("semantics 4")
async def direct_and_group_messages_share_one_order(make: LayerMaker) -> None:
    """What one writer sends to a channel and to its group arrives as it was sent."""
    layer = await make()
    channel = await member(layer, "group", "other")
    await _send_mixed(layer, channel)
    assert await drained(layer, channel) == [{"n": n} for n in range(60)]


async def _send_mixed(layer: Layer, channel: str) -> None:
    for n in range(0, 60, 3):
        await layer.send(channel, {"n": n})
        await layer.group_send("group", {"n": n + 1})
        await layer.group_send("other", {"n": n + 2})


@check("semantics 4")
async def concurrent_direct_and_group_sends_keep_their_order_of_call(make: LayerMaker) -> None:
    """The same for calls of one loop that run side by side."""
    layer = await make(capacity=1000)
    channel = await member(layer, "group")
    called = await send_side_by_side(layer, channel, "group")
    assert await drained(layer, channel) == called


@check("api: receive")
async def the_non_local_part_takes_the_next_message_of_all(make: LayerMaker) -> None:
    """`receive("specific.CLIENT!")` serves every local part in the order of sending."""
    layer = await make()
    first, second = await layer.new_channel(), await layer.new_channel()
    assert client_part(first) == client_part(second)
    for n, channel in enumerate((second, first, first, second)):
        await layer.send(channel, {"n": n})
    got = await receive_all(layer, client_part(first), 4)
    assert got == [{"n": n} for n in range(4)]


@check("api: receive")
async def the_non_local_part_shares_with_the_full_name(make: LayerMaker) -> None:
    """A message that one of them took is gone for the other."""
    layer = await make()
    channel = await layer.new_channel()
    await fill(layer, channel, 3)
    assert await layer.receive(client_part(channel)) == {"n": 0}
    assert await layer.receive(channel) == {"n": 1}
    assert await layer.receive(client_part(channel)) == {"n": 2}
    assert await drained(layer, channel) == []


@check("api: receive")
async def an_unowned_process_specific_name_is_served_like_a_normal_channel(
    make: LayerMaker,
) -> None:
    """Names that no client owns carry messages, under the full and the non-local name."""
    layer = await make()
    await fill(layer, "specific.nobody!abc", 3)
    assert await layer.receive("specific.nobody!abc") == {"n": 0}
    assert await layer.receive("specific.nobody!") == {"n": 1}
    async with line(layer, "specific.nobody!") as [waiter]:
        assert await waiter.result() == {"n": 2}


@check("api: receive")
async def local_parts_do_not_meet(make: LayerMaker) -> None:
    """A reader of one local part never gets a message for another."""
    layer = await make()
    first, second = await layer.new_channel(), await layer.new_channel()
    async with line(layer, first) as [waiter]:
        await layer.send(second, {"to": "second"})
        await layer.send(first, {"to": "first"})
        assert await waiter.result() == {"to": "first"}
    assert await drained(layer, second) == [{"to": "second"}]


@check("api: send")
async def a_backlog_and_waiting_readers_never_stand_side_by_side(make: LayerMaker) -> None:
    """As long as messages wait, a receive returns one of them, however calls interleave."""
    layer = await make(capacity=1000)
    channel = await layer.new_channel()
    got: list[int] = []

    async def read(count: int) -> None:
        for _ in range(count):
            got.append((await layer.receive(channel))["n"])
            await anyio.lowlevel.checkpoint()

    async with started(*[partial(read, 20)] * 3) as readers:
        for n in range(60):
            await layer.send(channel, {"n": n})
            if n % 7 == 0:
                await anyio.lowlevel.checkpoint()
        for reader in readers:
            await reader.result()
    assert sorted(got) == list(range(60))
