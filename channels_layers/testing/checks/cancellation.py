"""Cancelling a receiver: it took nothing and disturbed nobody."""

from __future__ import annotations

import random
from functools import partial
from itertools import combinations
from typing import Any, Final

import anyio
import anyio.lowlevel

from ._check import Layer, LayerMaker, check
from ._tools import (
    Waiter,
    drained,
    fill,
    line,
    member,
    numbered,
    poll,
    receive_all,
    settled,
    started,
    until,
)

WAITERS: Final = 4
SUBSETS: Final = [
    chosen for size in range(WAITERS + 1) for chosen in combinations(range(WAITERS), size)
]


@check("semantics 2")
async def a_cancelled_receive_takes_nothing(make: LayerMaker) -> None:
    """The message goes to the receiver that still waits."""
    layer = await make()
    channel = await layer.new_channel()
    async with line(layer, channel, channel) as [first, second]:
        first.cancel()
        await first.end()
        await layer.send(channel, {"n": 1})
        assert await second.result() == {"n": 1}


@check("semantics 2")
async def a_cancelled_receive_of_a_normal_channel_takes_nothing(make: LayerMaker) -> None:
    """The message goes to the receiver that still waits, or to the next one."""
    layer = await make()
    async with line(layer, "jobs", "jobs") as [first, second]:
        first.cancel()
        await layer.send("jobs", {"n": 1})
        assert await second.result() == {"n": 1}
    async with line(layer, "jobs") as [third]:
        third.cancel()
        await third.end()
    await layer.send("jobs", {"n": 2})
    assert await layer.receive("jobs") == {"n": 2}


@check("semantics 2")
async def a_receiver_cancelled_before_its_message_loses_nothing(make: LayerMaker) -> None:
    """Any of four receivers give up in the tick in which four messages come."""
    layer = await make()
    for chosen in SUBSETS:
        await _cancel_some(layer, chosen, woken=False)


@check("semantics 2")
async def a_receiver_cancelled_after_it_was_woken_loses_nothing(make: LayerMaker) -> None:
    """The messages are there and the receivers about to run when some of them give up."""
    layer = await make()
    for chosen in SUBSETS:
        await _cancel_some(layer, chosen, woken=True)


async def _cancel_some(layer: Layer, chosen: tuple[int, ...], *, woken: bool) -> None:
    channel = await layer.new_channel()
    async with line(layer, *[channel] * WAITERS) as waiters:
        if woken:
            await fill(layer, channel, WAITERS)
        for index in chosen:
            waiters[index].cancel()
        if not woken:
            await fill(layer, channel, WAITERS)
        for waiter in waiters:
            await waiter.end()  # there is a message for each
        got = [waiter.got for waiter in waiters if waiter.got is not None]
    got += await drained(layer, channel)
    assert got == numbered(WAITERS), f"cancelled {chosen}, woken {woken}: {got}"


@check("semantics 2")
async def a_receiver_may_be_cancelled_at_any_moment(make: LayerMaker) -> None:
    """However far it came since it was woken: it has returned the message, or left it there."""
    layer = await make()
    channel = await layer.new_channel()
    for moment in range(12):
        async with line(layer, channel) as [waiter]:
            await layer.send(channel, {"n": moment})
            for _ in range(moment):
                await anyio.lowlevel.checkpoint()
            waiter.cancel()
            await waiter.end()
        kept = [] if waiter.got is None else [waiter.got]
        assert kept + await drained(layer, channel) == [{"n": moment}]


@check("semantics 2")
async def one_message_finds_the_one_receiver_that_stays(make: LayerMaker) -> None:
    """Of many receivers all but one are cancelled as the message comes; that one gets it."""
    layer = await make()
    for woken in (False, True):
        for staying in range(WAITERS):
            channel = await layer.new_channel()
            async with line(layer, *[channel] * WAITERS) as waiters:
                await _cancel_all_but(layer, channel, waiters, staying, woken=woken)
                got = [waiter.got for waiter in waiters if waiter.got is not None]
                assert got == [{"n": 1}], f"staying {staying}, woken {woken}: {got}"


async def _cancel_all_but(
    layer: Layer, channel: str, waiters: list[Waiter], staying: int, *, woken: bool
) -> None:
    if woken:
        await layer.send(channel, {"n": 1})
    for index, waiter in enumerate(waiters):
        if index != staying:
            waiter.cancel()
    if not woken:
        await layer.send(channel, {"n": 1})
    await until(partial(_somebody_got_it, waiters))
    await settled()


async def _somebody_got_it(waiters: list[Waiter]) -> bool:
    return any(waiter.got is not None for waiter in waiters)


@check("semantics 2")
async def a_cancelled_receiver_leaves_the_line_as_it_was(make: LayerMaker) -> None:
    """Those before and behind it are served in their order."""
    layer = await make()
    channel = await layer.new_channel()
    async with line(layer, *[channel] * 5) as waiters:
        waiters[0].cancel()
        waiters[2].cancel()
        await settled()
        sent = await fill(layer, channel, 3)
        assert [await waiters[index].result() for index in (1, 3, 4)] == sent


@check("semantics 2")
async def polling_with_timeouts_loses_nothing(make: LayerMaker) -> None:
    """A reader that gives up again and again gets everything, in order."""
    layer = await make(capacity=1000)
    channel = await layer.new_channel()
    dice = random.Random(7)  # noqa: S311  # the same timing for every layer
    got: list[Any] = []
    async with started(partial(_send_slowly, layer, channel, 200)):
        while len(got) < 200:
            message = await poll(partial(layer.receive, channel), dice.uniform(0, 0.002))
            got += [] if message is None else [message]
    assert got == numbered(200)
    assert await drained(layer, channel) == []


async def _send_slowly(layer: Layer, channel: str, count: int) -> None:
    for n in range(count):
        await layer.send(channel, {"n": n})
        await anyio.sleep(0.0005 * (n % 3))


@check("semantics 2")
async def neighbours_that_come_and_go_disturb_nobody(make: LayerMaker) -> None:
    """A stable member of a group gets every message while others join, poll and leave."""
    layer = await make(capacity=1000)
    stable = await member(layer, "room")

    async def visit() -> None:
        while True:
            channel = await member(layer, "room")
            await poll(partial(layer.receive, channel), 0.001)
            await layer.group_discard("room", channel)

    async with started(partial(receive_all, layer, stable, 100), *[visit] * 7) as [reader, *_]:
        for n in range(100):
            await layer.group_send("room", {"n": n})
            await anyio.sleep(0.001 * (n % 3))  # some visitors give up, others are just served
        assert await reader.result() == numbered(100)


@check("semantics 2")
async def a_cancelled_receive_ends_no_mailbox(make: LayerMaker) -> None:
    """Membership and later messages are there for the next receive."""
    layer = await make()
    channel = await member(layer, "group")
    for n in range(5):
        async with line(layer, channel) as [waiter]:
            waiter.cancel()
            await waiter.end()
        await layer.group_send("group", {"n": n})
        await layer.send(channel, {"direct": n})
        assert await receive_all(layer, channel, 2) == [{"n": n}, {"direct": n}]


@check("semantics 2")
async def cancelling_a_reader_of_the_non_local_part_takes_nothing(make: LayerMaker) -> None:
    """Neither from the reader of the full name nor the other way round."""
    layer = await make()
    channel = await layer.new_channel()
    part = channel[: channel.index("!") + 1]
    for names in ((part, channel), (channel, part)):
        for woken in (False, True):
            async with line(layer, *names) as waiters:
                await _cancel_all_but(layer, channel, waiters, 1, woken=woken)
                assert [w.got for w in waiters if w.got is not None] == [{"n": 1}]
