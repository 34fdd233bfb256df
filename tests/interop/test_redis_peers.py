"""What channels_redis' layers lose or refuse, and ours does not; each scenario on both."""

from __future__ import annotations

import asyncio
import secrets
from contextlib import suppress

from channels.exceptions import ChannelFull
from channels_redis.core import RedisChannelLayer as Core
from channels_redis.pubsub import RedisPubSubChannelLayer as PubSub
from redis_peers import both, came, ended, ours, theirs

from channels_layers import RedisChannelLayer


def test_direct_messages_over_three_shards(shards):
    """Their `send` hashes the full name, and `receive` the part before the mark."""

    async def arrived(layer):
        count = 0
        for number in range(60):
            channel = await layer.new_channel()
            await layer.send(channel, {"type": "t", "n": number})
            with suppress(TimeoutError):
                await asyncio.wait_for(layer.receive(channel), 0.05 if layer is peer else 30)
                count += 1
        return count

    peer = theirs(Core, shards.hosts)
    mine, lost = both(arrived, ours(shards.hosts), peer)
    assert mine == 60
    assert lost < 60


def test_a_reader_that_is_stuck_fills_only_its_own_channel(redis_server):
    async def refused(layer):
        stuck, sibling = await layer.new_channel(), await layer.new_channel()
        with suppress(ChannelFull):
            for _ in range(20):
                await layer.send(stuck, {"type": "t"})
        try:
            await layer.send(sibling, {"type": "t"})
        except ChannelFull:
            return True
        return False

    url = redis_server.url
    mine, peer = both(refused, ours(url, capacity=5), theirs(Core, [url], capacity=5))
    assert not mine
    assert peer


def test_two_prefixes_of_new_channel_at_once(redis_server):
    """While one of them waits, the other is heard."""

    async def heard(layer):
        quiet, busy = await layer.new_channel("specific"), await layer.new_channel("other")
        waiting = asyncio.create_task(layer.receive(quiet))
        await asyncio.sleep(0.1)
        reading = asyncio.create_task(came(layer, busy))
        await layer.send(busy, {"type": "t"})
        found = len(await reading)
        waiting.cancel()
        with suppress(asyncio.CancelledError):
            await waiting
        return found

    url = redis_server.url
    mine, peer = both(heard, ours(url), theirs(Core, [url]))
    assert mine == 1
    assert peer == 0


def test_what_cannot_be_sent_is_the_senders_error(redis_server):
    async def told(layer):
        channel = await layer.new_channel()
        try:
            await layer.send(channel, {1: "not a str"})
        except TypeError:
            return "told"
        return "taken"

    url = redis_server.url
    mine, peer = both(told, ours(url), theirs(Core, [url]))
    assert mine == "told"
    assert peer == "taken"


def test_several_workers_share_the_messages_of_one_channel(redis_server):
    """Their pub/sub layer gives every message to every worker of its own process or another."""

    async def counted(make):
        layers = [make() for _ in range(3)]
        try:
            reading = [asyncio.create_task(came(layer, "jobs")) for layer in layers]
            await asyncio.sleep(0.1)
            for number in range(30):
                await layers[0].send("jobs", {"type": "t", "n": number})
            got = [message["n"] for task in reading for message in await task]
        finally:
            for layer in layers:
                await ended(layer)
        return sorted(got)

    url, prefix = redis_server.url, f"workers-{secrets.token_hex(4)}"
    mine = asyncio.run(counted(lambda: RedisChannelLayer(url, prefix)))
    address = {"address": url, "socket_timeout": None}
    peer = asyncio.run(counted(lambda: PubSub(hosts=[address], prefix=prefix)))
    assert mine == list(range(30))
    assert len(peer) > 30


def test_a_reader_that_polls_loses_nothing(redis_server):
    async def got(layer):
        channel, numbers = await layer.new_channel(), []

        async def send():
            for number in range(300):
                with suppress(ChannelFull):
                    await layer.send(channel, {"type": "t", "n": number})
                await asyncio.sleep(0.0005)

        sending = asyncio.create_task(send())
        while not sending.done():
            with suppress(TimeoutError):
                async with asyncio.timeout(0.0007 * (1 + len(numbers) % 5)):
                    numbers.append((await layer.receive(channel))["n"])
        numbers += [message["n"] for message in await came(layer, channel)]
        return numbers

    url = redis_server.url
    mine, peer = both(got, ours(url, capacity=1000), theirs(PubSub, [url]))
    assert mine == list(range(300))
    assert len(peer) < 300
