"""Statistics: what was sent, what waits, what was refused and what was dropped, and why."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

import anyio

from ._check import Layer, LayerMaker, check
from ._tools import fill, line, member, receive_all, refused, started, until

COUNTS: Final = ("messages_count", "messages_pending", "channel_full_count")
RATES: Final = ("messages_count_per_second", "channel_full_count_per_second", "messages_max_age")
REASONS: Final = ("full", "expired", "undecodable", "gap")

Ask = Callable[[], Awaitable[dict[str, Any]]]


async def _from_now_on(ask: Ask) -> Ask:
    # A layer that outlives the checks has counted others.
    before = await ask()

    async def since() -> dict[str, Any]:
        got = await ask()
        for key in ("messages_count", "channel_full_count"):
            got[key] -= before[key]
        for reason in REASONS:
            got["dropped_count"][reason] -= before["dropped_count"][reason]
        return got

    return since


async def _becomes(ask: Ask, **expected: object) -> None:
    # Statistics may be one beat old.
    async def holds() -> bool:
        got = await ask()
        return bool({key: got[key] for key in expected} == expected)

    await until(holds)


async def _has_all_keys(statistics: dict[str, Any]) -> None:
    for key in COUNTS:
        assert type(statistics[key]) is int, f"{key}: {statistics[key]!r}"
        assert statistics[key] >= 0, key
    for key in RATES:
        assert isinstance(statistics[key], int | float), f"{key}: {statistics[key]!r}"
        assert statistics[key] >= 0, key
    for reason in REASONS:
        assert type(statistics["dropped_count"][reason]) is int, reason


@check("api: statistics")
async def every_key_is_there(make: LayerMaker) -> None:
    """Before and after the first message, for the layer and for one channel."""
    layer = await make()
    for _ in range(2):
        await _has_all_keys(await layer.statistics())
        await _has_all_keys(await layer.channel_statistics("jobs"))
        await layer.send("jobs", {"n": 1})


@check("api: statistics")
async def messages_are_counted_when_sent_and_pending_until_read(make: LayerMaker) -> None:
    """For one channel and for all."""
    layer = await make()
    everything = await _from_now_on(layer.statistics)
    jobs = await _from_now_on(partial(layer.channel_statistics, "jobs"))
    await fill(layer, "jobs", 3)
    await fill(layer, await layer.new_channel(), 2)
    await _becomes(everything, messages_count=5, messages_pending=5)
    await receive_all(layer, "jobs", 2)
    await _becomes(everything, messages_count=5, messages_pending=3)
    await _becomes(jobs, messages_count=3, messages_pending=1)


@check("api: statistics")
async def one_channel_knows_nothing_of_another(make: LayerMaker) -> None:
    """A channel that nobody used has nothing but zeros."""
    layer = await make(capacity=2)
    await fill(layer, "jobs", 2)
    with contextlib.suppress(layer.ChannelFull):
        await layer.send("jobs", {"n": 2})
    got = await layer.channel_statistics("other")
    assert {key: got[key] for key in COUNTS} == dict.fromkeys(COUNTS, 0)
    assert got["messages_max_age"] == 0
    assert set(got["dropped_count"].values()) == {0}


@check("api: statistics", needs=["real time"])
async def the_age_of_the_oldest_message_is_known(make: LayerMaker) -> None:
    """It grows while the message waits and is zero when none does."""
    layer = await make()
    channel = await layer.new_channel()
    await layer.send(channel, {"n": 1})

    async def has_aged() -> bool:
        everything = await layer.statistics()
        alone = await layer.channel_statistics(channel)
        return bool(min(everything["messages_max_age"], alone["messages_max_age"]) >= 0.05)

    began = anyio.current_time()
    await until(has_aged)
    assert (await layer.statistics())["messages_max_age"] < anyio.current_time() - began + 2
    await layer.receive(channel)
    await _becomes(layer.statistics, messages_max_age=0, messages_pending=0)


@check("api: statistics")
async def refused_messages_are_counted(make: LayerMaker) -> None:
    """Every ChannelFull, for one channel and for all; none of them was a message."""
    layer = await make(capacity=1)
    everything = await _from_now_on(layer.statistics)
    channel = await layer.new_channel()
    await layer.send(channel, {"n": 0})
    for _ in range(3):
        await refused(lambda: layer.send(channel, {"n": 1}), layer.ChannelFull, what=channel)
    await _becomes(everything, channel_full_count=3, messages_count=1)
    alone = partial(layer.channel_statistics, channel)
    await _becomes(alone, channel_full_count=3, messages_count=1)


@check("api: statistics", needs=["shared"])
async def what_another_client_was_refused_is_counted(make: LayerMaker) -> None:
    """Each ChannelFull once, for the channel and for all, whoever asks; reading ends no count."""
    here, there = await make(capacity=1), await make(capacity=1)
    everything = [await _from_now_on(layer.statistics) for layer in (here, there)]
    channel, other = await there.new_channel(), await there.new_channel()
    alone = [partial(layer.channel_statistics, channel) for layer in (here, there)]
    asks: list[Ask] = [*everything, *alone]
    for n, layer in enumerate((here, there, here)):
        await layer.send(channel, {"n": n})
        await refused(partial(here.send, channel, {}), here.ChannelFull, what=channel)
        for ask in asks:
            await _becomes(ask, channel_full_count=n + 1, messages_count=n + 1)
        await there.receive(channel)
    for layer in (here, there):
        assert (await layer.channel_statistics(other))["channel_full_count"] == 0


@check("api: statistics", needs=["shared"])
async def many_may_ask_for_a_channel_of_another_client(make: LayerMaker) -> None:
    """At once, for the same and for different ones, and each gets the numbers of its own."""
    here, there = await make(), await make()
    channels = [await there.new_channel() for _ in range(4)]
    for n, channel in enumerate(channels):
        await fill(here, channel, n)
    names = channels * 8
    async with started(*(partial(here.channel_statistics, name) for name in names)) as waiters:
        counts = [(await waiter.result())["messages_count"] for waiter in waiters]
    assert counts == [0, 1, 2, 3] * 8


@check("api: group_send")
async def a_full_member_is_counted(make: LayerMaker) -> None:
    """Each copy that a member missed, by its reason."""
    layer = await make(capacity=1)
    everything = await _from_now_on(layer.statistics)
    full = await member(layer, "group")
    await layer.send(full, {"direct": 1})
    for _ in range(2):
        await layer.group_send("group", {"copy": 1})

    async def counted(ask: Ask) -> bool:
        return bool((await ask())["dropped_count"]["full"] == 2)

    await until(partial(counted, everything))
    await until(partial(counted, partial(layer.channel_statistics, full)))


@check("semantics 2")
async def a_cancelled_receive_resets_no_numbers(make: LayerMaker) -> None:
    """The channel goes on counting, whoever polls it and whatever groups it leaves."""
    layer = await make(capacity=2)
    channel = await member(layer, "group")
    await fill(layer, channel, 2)
    await refused(lambda: layer.send(channel, {"n": 2}), layer.ChannelFull, what=channel)
    await layer.group_send("group", {"copy": 1})
    await receive_all(layer, channel, 2)
    for _ in range(3):
        async with line(layer, channel) as [waiter]:
            waiter.cancel()
            await waiter.end()
    await layer.group_discard("group", channel)
    alone = partial(layer.channel_statistics, channel)
    dropped = dict.fromkeys(REASONS, 0) | {"full": 1}
    await _becomes(alone, messages_count=2, channel_full_count=1, dropped_count=dropped)


@check("api: statistics")
async def rates_follow_the_counts(make: LayerMaker) -> None:
    """Messages that are sent show in the rate; a rate that never moves is none."""
    layer = await make(capacity=1)

    async def moves() -> bool:
        await _send_and_receive(layer)
        got = await layer.statistics()
        rates = got["messages_count_per_second"], got["channel_full_count_per_second"]
        return bool(min(rates) > 0)

    await until(moves)


async def _send_and_receive(layer: Layer) -> None:
    await layer.send("jobs", {"n": 0})
    with contextlib.suppress(layer.ChannelFull):
        await layer.send("jobs", {"n": 1})
    await layer.receive("jobs")


@check("names")
async def channel_statistics_refuses_bad_names(make: LayerMaker) -> None:
    """With a TypeError, like every other call."""
    layer = await make()
    for name in ("no spaces", "a\n", "a?", "", "x" * 101):
        await refused(partial(layer.channel_statistics, name), TypeError, what=repr(name))
