"""In which order receivers are served, and that none of them hogs its loop."""

from __future__ import annotations

import anyio
import anyio.lowlevel

from ._check import LayerMaker, check
from ._tools import client_part, fill, line


@check("semantics 8")
async def receivers_are_served_in_order_of_waiting(make: LayerMaker) -> None:
    """Who began to wait first gets the first message, on every kind of channel."""
    layer = await make()
    for channel in ("specific.nobody!x", await layer.new_channel()):
        async with line(layer, *[channel] * 6) as waiters:
            sent = await fill(layer, channel, 6)
            assert [await waiter.result() for waiter in waiters] == sent


@check("semantics 8", needs=["ordered_channels"])
async def workers_are_served_in_order_of_waiting(make: LayerMaker) -> None:
    """The same for the receivers of a normal channel in one process."""
    layer = await make()
    async with line(layer, *["jobs"] * 6) as waiters:
        sent = await fill(layer, "jobs", 6)
        assert [await waiter.result() for waiter in waiters] == sent


@check("semantics 8")
async def one_message_at_a_time_goes_down_the_line(make: LayerMaker) -> None:
    """Also when each message comes long after the one before it."""
    layer = await make()
    channel = await layer.new_channel()
    async with line(layer, *[channel] * 4) as waiters:
        for n, waiter in enumerate(waiters):
            await layer.send(channel, {"n": n})
            assert await waiter.result() == {"n": n}
            assert [later.got for later in waiters[n + 1 :]] == [None] * (3 - n)


@check("semantics 8")
async def a_late_receiver_does_not_overtake_a_waiting_one(make: LayerMaker) -> None:
    """A message that woke somebody is not taken away by who asks a moment later."""
    layer = await make()
    channel = await layer.new_channel()
    async with line(layer, channel) as [waiter]:
        await fill(layer, channel, 2)
        late = await layer.receive(channel)
        assert (await waiter.result(), late) == ({"n": 0}, {"n": 1})


@check("api: receive")
async def readers_of_the_full_and_the_non_local_name_take_turns(make: LayerMaker) -> None:
    """By who waits longest, in both directions."""
    layer = await make()
    channel = await layer.new_channel()
    part = client_part(channel)
    for names in ((part, channel, part, channel), (channel, part, part, channel)):
        async with line(layer, *names) as waiters:
            sent = await fill(layer, channel, 4)
            assert [await waiter.result() for waiter in waiters] == sent


@check("api: receive")
async def a_reader_of_the_non_local_part_waits_for_its_turn_on_each_channel(
    make: LayerMaker,
) -> None:
    """It comes after the older reader of one local part and before the younger of another."""
    layer = await make()
    first, second = await layer.new_channel(), await layer.new_channel()
    async with line(layer, first, client_part(first), second) as waiters:
        await layer.send(second, {"n": 0})
        assert await waiters[1].result() == {"n": 0}
        await layer.send(second, {"n": 1})
        await layer.send(first, {"n": 2})
        assert await waiters[2].result() == {"n": 1}
        assert await waiters[0].result() == {"n": 2}


@check("semantics 8")
async def a_receiver_with_a_backlog_yields(make: LayerMaker) -> None:
    """Another task of the loop runs while hundreds of messages are received."""
    layer = await make(capacity=1000)
    channel = await layer.new_channel()
    ticks = []

    async def tick() -> None:
        while True:
            ticks.append(1)
            await anyio.lowlevel.checkpoint()

    await fill(layer, channel, 500)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(tick)
        for _ in range(500):
            await layer.receive(channel)
        assert len(ticks) >= 2, "500 receives in a row, and no other task ran"
        tasks.cancel_scope.cancel()
