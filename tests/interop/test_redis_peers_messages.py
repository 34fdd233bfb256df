"""Messages that channels_redis' layers reorder, mix up or let grow, and ours does not."""

from __future__ import annotations

import asyncio
import secrets
import time
from contextlib import suppress
from functools import partial

import pytest
from channels.exceptions import ChannelFull
from channels_redis.core import RedisChannelLayer as Core
from channels_redis.pubsub import RedisPubSubChannelLayer as PubSub
from redis_peers import LIMIT, QUIET, both, came, dropped, first, ours, patience, theirs

from channels_layers import RedisChannelLayer


def named(kind, url, *prefixes):
    """Return a layer for each prefix: ours, and theirs."""
    return (
        tuple(ours(url, prefix) for prefix in prefixes),
        tuple(theirs(kind, [url], prefix) for prefix in prefixes),
    )


def test_an_empty_message_comes_to_all_members(redis_server):
    async def got(layer):
        channels = [await layer.new_channel() for _ in range(3)]
        for channel in channels:
            await layer.group_add("g", channel)
        reading = [asyncio.create_task(layer.receive(channel)) for channel in channels]
        await asyncio.sleep(0)
        await layer.group_send("g", {})
        await asyncio.wait(reading, timeout=patience(layer))
        found = [task.result() for task in reading if task.done() and not task.exception()]
        await dropped(*reading)
        return found

    url = redis_server.url
    mine, peer = both(got, ours(url), theirs(Core, [url]))
    assert mine == [{}] * 3
    assert len(peer) < 3


def test_what_cannot_be_decoded_disturbs_no_other_reader(redis_server):
    async def got(layer):
        poisoned, other = await layer.new_channel(), await layer.new_channel()
        reading = asyncio.create_task(layer.receive(other))
        await asyncio.sleep(0)
        if isinstance(layer, RedisChannelLayer):
            await layer._remote.send(poisoned, b"\xc1 no message", 100)
        else:
            key = layer.prefix + layer.non_local_name(poisoned)
            payload = "no message, but longer than the random part of one"
            redis_server.ask("ZADD", key, time.time(), payload)
        with suppress(ChannelFull):
            await layer.send(other, {"type": "t"})
        await asyncio.wait([reading], timeout=patience(layer))
        return reading.exception() or reading.result()

    url = redis_server.url
    mine, peer = both(got, ours(url), theirs(Core, [url]))
    assert mine == {"type": "t"}
    assert isinstance(peer, Exception)


def test_a_flush_ends_at_the_prefix(redis_server):
    """Another prefix begins alike."""

    async def left(layer, longer):
        await longer.send("jobs", {"type": "t"})
        await layer.flush()
        return len(await came(longer, "jobs"))

    prefix = secrets.token_hex(4)
    mine, peer = both(left, *named(Core, redis_server.url, prefix, prefix + "2"))
    assert mine == 1
    assert peer == 0


async def met(layer, other, sent, read):
    """Return whether what one sends to a name comes to the other."""
    reading = asyncio.create_task(other.receive(read))
    is_mine = isinstance(layer, RedisChannelLayer)
    return await first(reading, partial(layer.send, sent), QUIET if is_mine else LIMIT) is not None


@pytest.mark.parametrize(
    ("kind", "more", "sent", "read"),
    [(Core, "s", "s.x", ".x"), (PubSub, "-other", "jobs", "jobs")],
    ids=["run together", "not used"],
)
def test_prefixes_do_not_meet(redis_server, kind, more, sent, read):
    prefix = secrets.token_hex(4)
    scenario = partial(met, sent=sent, read=read)
    mine, peer = both(scenario, *named(kind, redis_server.url, prefix, prefix + more))
    assert not mine
    assert peer


def test_databases_do_not_meet(redis_server):
    prefix, hosts = secrets.token_hex(4), [f"{redis_server.url}/{number}" for number in (0, 5)]
    mine, peer = both(
        partial(met, sent="jobs", read="jobs"),
        tuple(ours(host, prefix) for host in hosts),
        tuple(theirs(PubSub, [host], prefix) for host in hosts),
    )
    assert not mine
    assert peer


@pytest.fixture
def shifted(monkeypatch):
    """Set the wall clock to a moment, so many seconds from the beginning."""
    began = time.time()

    def shift(seconds):
        monkeypatch.setattr(time, "time", lambda: began + seconds)

    return shift


@pytest.mark.parametrize("step", [0, -1], ids=["in one tick", "while it steps back"])
def test_no_clock_of_a_sender_orders_messages(redis_server, shifted, step):
    async def got(layer):
        for number in range(20):
            shifted(number * step)
            await layer.send("jobs", {"type": "t", "n": number})
        return [message["n"] for message in await came(layer, "jobs")]

    url = redis_server.url
    mine, peer = both(got, ours(url), theirs(Core, [url]))
    assert mine == list(range(20))
    assert sorted(peer) == mine
    assert peer != mine


def test_a_sender_whose_clock_is_ahead_deletes_nothing(redis_server, shifted):
    async def got(layer):
        for number in range(10):
            shifted(90 if number == 5 else 0)
            await layer.send("jobs", {"type": "t", "n": number})
        return [message["n"] for message in await came(layer, "jobs")]

    url = redis_server.url
    mine, peer = both(got, ours(url), theirs(Core, [url]))
    assert mine == list(range(10))
    assert len(peer) < 10


def test_an_expiry_of_less_than_a_second(redis_server):
    async def got(layer):
        count = 0
        for _ in range(3):  # on a busy machine, one of them may well expire
            await layer.send("jobs", {"type": "t"})
            count += len(await came(layer, "jobs"))
        return count

    url = redis_server.url
    mine, peer = both(got, ours(url, expiry=0.9), theirs(Core, [url], expiry=0.9))
    assert mine
    assert not peer


def test_a_reader_that_pauses_keeps_no_more_than_its_capacity(redis_server):
    async def kept(layer):
        channel = await layer.new_channel()
        for _ in range(1000):
            with suppress(ChannelFull):
                await layer.send(channel, {"type": "t", "text": "x" * 1000})
        return len(await came(layer, channel))

    url = redis_server.url
    mine, peer = both(kept, ours(url), theirs(PubSub, [url], capacity=100))
    assert mine == 100
    assert peer > 100
