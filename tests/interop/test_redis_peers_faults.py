"""What channels_redis' layers lose when connections and servers fail, and ours does not."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial

import pytest
import redis
from channels_redis.core import RedisChannelLayer as Core
from channels_redis.pubsub import RedisPubSubChannelLayer as PubSub
from redis_peers import LIMIT, blocked, both, dropped, first, ours, pairs, patience, theirs

from channels_layers import BackendUnavailable, RedisChannelLayer


@pytest.mark.long
def test_an_idle_receive_waits_as_long_as_it_takes(server, proxy):
    """With default settings; the end of an idle time is told late, as on a busy machine."""

    async def got(layer, sender):
        waiting = asyncio.create_task(layer.receive("jobs"))
        await asyncio.wait([waiting], timeout=12)
        await sender.send("jobs", {"type": "t"})
        await asyncio.wait([waiting], timeout=LIMIT)
        return waiting.exception() or waiting.result()

    proxy.delay = lambda: 0.2
    urls = (proxy.url, server.url)
    mine = tuple(RedisChannelLayer(url, "ours") for url in urls)
    peer = tuple(Core(hosts=[url], prefix="theirs") for url in urls)
    mine, peer = both(got, mine, peer)
    assert mine == {"type": "t"}
    assert isinstance(peer, redis.TimeoutError)


def test_a_neighbour_that_leaves_takes_nothing_with_it(server, proxy):
    """It leaves while what the group was sent is on its way."""

    async def got(layer, sender):
        stable, neighbour = await layer.new_channel(), await layer.new_channel()
        for channel in (neighbour, stable):
            await layer.group_add("g", channel)
        leaving = asyncio.create_task(layer.receive(neighbour))
        await blocked(server, 1)
        reading = asyncio.create_task(layer.receive(stable))
        await asyncio.sleep(0)
        proxy.delay = lambda: 0.5
        await sender.group_send("g", {"type": "t"})
        await dropped(leaving)
        proxy.delay = lambda: 0.0
        await asyncio.wait([reading], timeout=patience(layer))
        is_there = reading.done()
        await dropped(reading)
        return is_there

    mine, peer = both(got, *pairs(Core, proxy.url, server.url))
    assert mine
    assert not peer


@pytest.mark.parametrize("kind", [Core, PubSub])
def test_a_lost_connection_costs_no_message_and_no_reader(server, proxy, kind):
    async def got(layer, sender):
        channel = await layer.new_channel()
        reading = asyncio.create_task(layer.receive(channel))
        assert await first(reading, partial(sender.send, channel)) == 1
        reading = asyncio.create_task(layer.receive(channel))
        if kind is Core:
            await blocked(server, 1)
        proxy.refuse()
        await sender.send(channel, {"type": "t", "n": 0})
        proxy.refuse(False)
        return await first(reading, partial(sender.send, channel))

    mine, peer = both(got, *pairs(kind, proxy.url, server.url))
    assert mine == 0
    assert peer > 0 if kind is PubSub else isinstance(peer, redis.ConnectionError)


def test_a_member_is_there_again_after_a_restart_empty(server):
    """Their reader tries again whenever it fails."""

    async def got(layer, sender):
        channel = await layer.new_channel()
        await layer.group_add("g", channel)

        async def read():
            while True:
                with suppress(redis.ConnectionError):
                    return await layer.receive(channel)
                await asyncio.sleep(0.01)

        await sender.group_send("g", {"type": "t"})
        await read()
        reading = asyncio.create_task(read())
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.begin)
        return await first(reading, partial(sender.group_send, "g"), patience(layer))

    mine, peer = both(got, *pairs(Core, server.url, server.url))
    assert mine is not None
    assert peer is None


@pytest.mark.parametrize("kind", [Core, PubSub])
def test_a_stalled_server_is_an_error(server, kind):
    """Theirs has no time limit, as it must have for its idle readers."""

    async def told(layer):
        await layer.send("jobs", {"type": "t"})
        server.stop()
        try:
            await asyncio.wait_for(layer.send("jobs", {"type": "t"}), patience(layer))
        except BackendUnavailable:
            return "told"
        except TimeoutError:
            return "not told"
        finally:
            server.go_on()
        return "sent"

    mine, peer = both(told, ours(server.url, timeout=2), theirs(kind, [server.url]))
    assert mine == "told"
    assert peer == "not told"


def test_a_member_is_there_when_group_add_returns(server, proxy):
    """Where the way to the server is slow."""

    async def got(layer, sender):
        channel = await layer.new_channel()
        await sender.group_send("other", {"type": "t"})
        reading = asyncio.create_task(layer.receive(channel))
        proxy.delay = lambda: 0.5
        await layer.group_add("g", channel)
        await sender.group_send("g", {"type": "t", "n": 0})
        proxy.delay = lambda: 0.0
        return await first(reading, partial(sender.group_send, "g"))

    mine, peer = both(got, *pairs(PubSub, proxy.url, server.url))
    assert mine == 0
    assert peer > 0
