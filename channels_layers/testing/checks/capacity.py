"""How many unread messages a channel holds, and what happens to the next one."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import partial
from typing import Any

import anyio

from ._check import Layer, LayerMaker, check
from ._tools import client_part, drained, fill, line, member, poll, receive_all, refused


async def _is_full(layer: Layer, channel: str) -> None:
    await refused(lambda: layer.send(channel, {"n": -1}), layer.ChannelFull, what=channel)


async def _holds_exactly(layer: Layer, channel: str, count: int) -> None:
    await fill(layer, channel, count)
    await _is_full(layer, channel)


@check("semantics 5")
async def exactly_capacity_messages_are_accepted(make: LayerMaker) -> None:
    """The next one is ChannelFull, on every kind of channel."""
    layer = await make(capacity=3)
    for channel in ("jobs", "specific.nobody!x", await layer.new_channel()):
        await _holds_exactly(layer, channel, 3)
        got = await receive_all(layer, channel, 3)
        assert sorted(message["n"] for message in got) == [0, 1, 2]


@check("classes: common arguments")
async def the_default_capacity_is_100(make: LayerMaker) -> None:
    """As in Django Channels."""
    layer = await make()
    await _holds_exactly(layer, await layer.new_channel(), 100)


@check("semantics 5")
async def a_capacity_of_one_works(make: LayerMaker) -> None:
    """Send and receive take turns."""
    layer = await make(capacity=1)
    channel = await layer.new_channel()
    for n in range(5):
        await layer.send(channel, {"n": n})
        await _is_full(layer, channel)
        assert await layer.receive(channel) == {"n": n}


@check("semantics 5")
async def a_full_channel_never_fills_its_siblings(make: LayerMaker) -> None:
    """One reader that is stuck at capacity leaves the others of its client alone."""
    layer = await make(capacity=2)
    stuck, sibling = await layer.new_channel(), await layer.new_channel()
    await _holds_exactly(layer, stuck, 2)
    await _holds_exactly(layer, sibling, 2)
    assert await receive_all(layer, sibling, 2) == [{"n": 0}, {"n": 1}]
    await _is_full(layer, stuck)


@check("semantics 5")
async def each_received_message_makes_room_for_one(make: LayerMaker) -> None:
    """Neither more nor less, also when the reader takes the non-local part."""
    layer = await make(capacity=3)
    channel = await layer.new_channel()
    await _holds_exactly(layer, channel, 3)
    for name in (channel, client_part(channel)):
        await receive_all(layer, name, 2)
        await _holds_exactly(layer, channel, 2)


@check("semantics 5")
async def a_refused_message_is_not_delivered(make: LayerMaker) -> None:
    """ChannelFull means that nothing happened."""
    layer = await make(capacity=2)
    channel = await layer.new_channel()
    await fill(layer, channel, 2)
    for _ in range(5):
        await _is_full(layer, channel)
    assert await layer.receive(channel) == {"n": 0}
    assert await drained(layer, channel) == [{"n": 1}]


@check("semantics 5")
async def concurrent_senders_share_the_capacity(make: LayerMaker) -> None:
    """However many send at once, exactly `capacity` messages are accepted."""
    layer = await make(capacity=5)
    channel = await layer.new_channel()
    full = []

    async def send(n: int) -> None:
        try:
            await layer.send(channel, {"n": n})
        except layer.ChannelFull:
            full.append(n)

    async with anyio.create_task_group() as tasks:
        for n in range(20):
            tasks.start_soon(send, n)
    assert len(full) == 15
    got = {message["n"] for message in await receive_all(layer, channel, 5)}
    assert got | set(full) == set(range(20))


@check("semantics 5")
async def cancelled_receivers_leave_the_capacity_exact(make: LayerMaker) -> None:
    """A receiver that was woken and gave up has made no room."""
    layer = await make(capacity=2)
    channel = await layer.new_channel()
    for _ in range(5):
        async with line(layer, channel, channel) as waiters:
            for waiter in waiters:
                waiter.cancel()
                await waiter.end()
        assert await poll(partial(layer.receive, channel), 0) is None
    await _holds_exactly(layer, channel, 2)
    assert await receive_all(layer, channel, 2) == [{"n": 0}, {"n": 1}]


@check("semantics 5")
async def waiting_receivers_do_not_use_up_capacity(make: LayerMaker) -> None:
    """What they take counts no longer: the channel holds `capacity` again."""
    layer = await make(capacity=2)
    channel = await layer.new_channel()
    async with line(layer, channel, channel) as waiters:
        await fill(layer, channel, 2)
        assert [await waiter.result() for waiter in waiters] == [{"n": 0}, {"n": 1}]
    await _holds_exactly(layer, channel, 2)


@check("semantics 5")
async def an_accepted_message_is_never_dropped_for_group_copies(make: LayerMaker) -> None:
    """Direct messages stay, however many copies come after them."""
    layer = await make(capacity=3)
    channel = await member(layer, "group")
    await fill(layer, channel, 2)
    for _ in range(10):
        await layer.group_send("group", {"copy": 1})
    await _is_full(layer, channel)
    assert await receive_all(layer, channel, 3) == [{"n": 0}, {"n": 1}, {"copy": 1}]


@check("api: group_send")
async def group_send_never_raises_channel_full(make: LayerMaker) -> None:
    """A full member misses the message; the others get it."""
    layer = await make(capacity=1)
    full, other = await member(layer, "group"), await member(layer, "group")
    await layer.send(full, {"direct": 1})
    await layer.group_send("group", {"copy": 1})
    assert await layer.receive(other) == {"copy": 1}
    assert await layer.receive(full) == {"direct": 1}
    assert await drained(layer, full) == []


Rules = dict[Any, int]


async def _capacities(make: LayerMaker, rules: Rules, expected: Iterable[tuple[str, int]]) -> None:
    layer = await make(capacity=4, channel_capacity=rules)
    for channel, count in expected:
        await _holds_exactly(layer, channel, count)


@check("semantics 5")
async def channel_capacity_takes_globs(make: LayerMaker) -> None:
    """A glob is matched against the whole channel name."""
    rules: Rules = {"http.request": 1, "http.*": 2, "specific.*!*": 3}
    expected = [("http.request", 1), ("http.reply", 2), ("specific.nobody!x", 3)]
    await _capacities(make, rules, [*expected, ("http", 4), ("a.http.x", 4)])


@check("semantics 5")
async def channel_capacity_takes_compiled_patterns(make: LayerMaker) -> None:
    """A pattern matches from the start of the name, as `match` does."""
    rules: Rules = {re.compile(r"job\.\d"): 1, re.compile(r"job"): 2}
    await _capacities(make, rules, [("job.7", 1), ("job.x", 2), ("a.job.7", 4)])


@check("semantics 5")
async def the_first_match_of_channel_capacity_wins(make: LayerMaker) -> None:
    """The order of the mapping decides, whatever the kinds of its keys."""
    await _capacities(make, {"http.*": 2, "http.request": 1}, [("http.request", 2)])
    mixed: Rules = {re.compile("http"): 3, "http.*": 1}
    await _capacities(make, mixed, [("http.reply", 3)])


@check("semantics 5")
async def channel_capacity_holds_for_new_channels(make: LayerMaker) -> None:
    """A rule for a prefix reaches the process-specific channels made with it."""
    layer = await make(capacity=4, channel_capacity={"http.reply.*": 1})
    await _holds_exactly(layer, await layer.new_channel("http.reply"), 1)
    await _holds_exactly(layer, await layer.new_channel(), 4)


@check("semantics 5")
async def capacity_scope_process_counts_the_non_local_part(make: LayerMaker) -> None:
    """The letter of the specification: channels of one client and prefix share it."""
    layer = await make(capacity=3, capacity_scope="process")
    first, second = await layer.new_channel(), await layer.new_channel()
    await fill(layer, first, 2)
    await layer.send(second, {"to": "second"})
    for channel in (first, second):
        await _is_full(layer, channel)
    assert await layer.receive(second) == {"to": "second"}
    await layer.send(first, {"n": 2})
    await _is_full(layer, second)
    await _holds_exactly(layer, "jobs", 3)


@check("semantics 5")
async def capacity_scope_channel_is_the_default(make: LayerMaker) -> None:
    """Naming the default changes nothing."""
    layer = await make(capacity=2, capacity_scope="channel")
    for channel in [await layer.new_channel() for _ in range(3)]:
        await _holds_exactly(layer, channel, 2)
