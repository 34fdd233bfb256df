"""Threads, loops, forks and ends that channels_redis' layers do not survive, and ours does."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from contextlib import suppress

import pytest
from asgiref.sync import async_to_sync
from channels_redis.core import RedisChannelLayer as Core
from channels_redis.pubsub import RedisPubSubChannelLayer as PubSub
from redis_peers import LIMIT, blocked, both, dropped, ended, ours, patience, theirs

from channels_layers import LayerClosed, RedisChannelLayer
from channels_layers.testing.checks._children import forked

ALARM = int(LIMIT)  # seconds after which a child ends itself


@pytest.mark.parametrize("threads", [1, 10])
def test_calls_from_plain_threads_use_one_set_of_connections(server, threads):
    def made(layer):
        def call():
            for _ in range(100 // threads):
                async_to_sync(layer.group_send)("g", {"type": "t"})

        before = connections(server)
        calling = [threading.Thread(target=call) for _ in range(threads)]
        for thread in calling:
            thread.start()
        for thread in calling:
            thread.join()
        count = connections(server) - before - 1
        async_to_sync(ended)(layer)
        return count

    mine, peer = made(ours(server.url)), made(theirs(Core, [server.url]))
    assert mine <= 3
    assert peer >= 100


def connections(server):
    """Return how many have ever been made."""
    (line,) = (w for w in server.ask("INFO", "stats").split() if w.startswith(b"total_conn"))
    return int(line.partition(b":")[2])


def test_two_event_loops_receive_on_one_layer(server):
    async def scenario(layer):
        here, there = await layer.new_channel(), await layer.new_channel()
        reading = asyncio.create_task(layer.receive(here))
        await blocked(server, 1)
        elsewhere = asyncio.create_task(asyncio.to_thread(asyncio.run, layer.receive(there)))
        while not elsewhere.done():
            await layer.send(there, {"type": "t"})
            await asyncio.wait([elsewhere], timeout=0.1)
        await layer.send(here, {"type": "t"})
        await asyncio.wait([reading], timeout=LIMIT)
        return elsewhere.exception() or (elsewhere.result(), reading.result())

    mine, peer = both(scenario, ours(server.url), theirs(Core, [server.url]))
    assert mine == ({"type": "t"}, {"type": "t"})
    assert isinstance(peer, RuntimeError)


def test_children_of_a_process_that_used_the_layer_have_channels_of_their_own(server):
    """What waits longest is served first: their first child takes what the second should get."""

    async def got(layer):
        await layer.send("jobs", {"type": "t"})
        await layer.receive("jobs")
        before = sum("b" in client["flags"] for client in server.clients())

        async def live(parent):
            channel = await layer.new_channel()
            parent.tell(channel)
            parent.tell(await layer.receive(channel))

        async with forked(live, seconds=ALARM) as first:
            await first.told()
            await blocked(server, before + 1)
            async with forked(live, seconds=ALARM) as second:
                channel = await second.told()
                await blocked(server, before + 2)
                await layer.send(channel, {"type": "t"})
                with suppress(TimeoutError):
                    return await asyncio.wait_for(second.told(), patience(layer))

    core = theirs(Core, [server.url])
    core.brpop_timeout = ALARM  # or the first would wait anew, and so be the last
    mine, peer = both(got, ours(server.url), core)
    assert mine == {"type": "t"}
    assert peer is None


@pytest.mark.long
def test_a_member_that_reads_outlives_its_group_expiry(server):
    async def got(layer):
        channel = await layer.new_channel()
        reading = asyncio.create_task(layer.receive(channel))
        await layer.group_add("g", channel)
        await asyncio.sleep(1.5)
        await layer.group_send("g", {"type": "t"})
        await asyncio.wait([reading], timeout=patience(layer))
        is_there = reading.done()
        await dropped(reading)
        return is_there

    options = {"group_expiry": 1}
    mine, peer = both(got, ours(server.url, **options), theirs(Core, [server.url], **options))
    assert mine
    assert not peer


@pytest.mark.long
def test_a_killed_member_leaves_its_groups(server):
    async def left(layer):
        async def live(parent):
            channel = await layer.new_channel()
            await layer.group_add("g", channel)
            parent.tell(channel)
            await layer.receive(channel)

        async with forked(live) as child:
            channel = await child.told()
            child.kill()
        if isinstance(layer, RedisChannelLayer):
            async with asyncio.timeout(LIMIT):
                while await layer.group_channels("g"):  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            return False
        members = f"{layer.prefix}:group:g"
        return channel.encode() in server.ask("ZRANGE", members, 0, -1) and server.ints(
            "TTL", members
        )

    mine, peer = both(left, ours(server.url, lease=1), theirs(Core, [server.url]))
    assert mine is False
    assert peer > 3600  # seconds


def test_a_worker_that_dies_at_its_message_leaves_no_key_for_ever(server):
    async def left(layer):
        async def work(parent):
            await layer.receive("jobs")
            os.kill(os.getpid(), signal.SIGKILL)

        await layer.send("jobs", {"type": "t"})
        async with forked(work) as child:
            with pytest.raises(AssertionError, match="without a word"):
                await child.told()
        return [key for key in server.keys("*") if server.ints("TTL", key) == -1]

    mine, peer = both(left, ours(server.url), theirs(Core, [server.url]))
    assert not mine
    assert len(peer) == 1


@pytest.mark.parametrize("kind", [Core, PubSub])
def test_closing_ends_the_receivers(server, kind):
    async def outcome(layer):
        channels = [await layer.new_channel() for _ in range(100)]
        reading = [asyncio.create_task(layer.receive(channel)) for channel in channels]
        await asyncio.sleep(0)
        await ended(layer)
        await asyncio.wait(reading, timeout=patience(layer))
        errors = [type(task.exception()) for task in reading if task.done()]
        await dropped(*reading)
        return errors

    mine, peer = both(outcome, ours(server.url), theirs(kind, [server.url]))
    assert mine == [LayerClosed] * 100
    assert len(peer) < 100
