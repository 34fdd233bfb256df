"""Answers, shards and event loops that are not as one would wish."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import AsyncExitStack, ExitStack, suppress

import pytest
from redis_proxy import Proxy
from redis_servers import Cluster, RedisServer
from test_redis_connections import opened

from channels_layers import BackendTimeout, BackendUnavailable, RedisChannelLayer
from channels_layers.errors import BackendError


@pytest.fixture
def server():
    found = RedisServer()
    yield found
    found.close()


@pytest.fixture
def shards():
    found = Cluster(3)
    yield found
    found.close()


def test_a_key_of_a_wrong_type_disturbs_only_what_needs_it(server):
    async def main():
        async with AsyncExitStack() as stack:
            here, there = await opened(stack, server.url, 2, lease=1)
            own = await there.new_channel()
            await there.group_add("g", own)
            await here.send("victim", {})
            (queue,) = (key for key in server.keys("*q:*:victim") if ":rq:" not in key)
            assert await there.receive("victim") == {}
            server.ask("SET", queue, "no list")
            sends = [here.send("victim", {}), *(here.send(own, {"n": n}) for n in range(5))]
            first, *others = await asyncio.gather(*sends, return_exceptions=True)
            assert isinstance(first, BackendError)
            assert others == [None] * 5
            assert [(await there.receive(own))["n"] for _ in range(5)] == list(range(5))
            server.ask("DEL", queue)
            # More than a lease later everybody is still there, and all of it works.
            ends_at = time.monotonic() + 1.5
            while time.monotonic() < ends_at:
                await here.group_send("g", {"n": 1})
                assert await there.receive(own) == {"n": 1}
                await here.send("victim", {"n": 2})
                assert await there.receive("victim") == {"n": 2}
                await asyncio.sleep(0.02)

    asyncio.run(main())


def test_a_server_without_memory_is_a_clear_error_and_comes_back(server):
    async def main():
        async with AsyncExitStack() as stack:
            here, there = await opened(stack, server.url, 2, timeout=1)
            own = await there.new_channel()
            reading = asyncio.create_task(there.receive(own))
            server.ask("CONFIG", "SET", "maxmemory", "1")
            with pytest.raises(BackendUnavailable):
                await here.send(own, {"n": 1})
            assert not reading.done()
            server.ask("CONFIG", "SET", "maxmemory", "0")
            while True:
                with suppress(BackendUnavailable):
                    await here.send(own, {"n": 2})
                    break
            while (await reading) != {"n": 2}:
                reading = asyncio.create_task(there.receive(own))

    asyncio.run(main())


def test_members_are_back_after_everything_was_flushed_by_hand(server):
    async def main():
        async with AsyncExitStack() as stack:
            here, there = await opened(stack, server.url, 2)
            own = await there.new_channel()
            await there.group_add("g", own)
            server.ask("FLUSHALL")
            reading = asyncio.create_task(there.receive(own))
            while not reading.done():
                with suppress(BackendUnavailable):
                    await here.group_send("g", {"n": 1})
                await asyncio.sleep(0.01)
            assert await reading == {"n": 1}

    asyncio.run(main())


def test_all_shards_gone_is_unavailable_and_not_full(shards):
    async def main():
        async with AsyncExitStack() as stack:
            (layer,) = await opened(stack, shards.hosts, 1, timeout=1)
            await layer.send("jobs", {})
            for server in shards.servers:
                await asyncio.to_thread(server.kill)
            for _ in range(3):
                with pytest.raises(BackendUnavailable):
                    await layer.send("jobs", {})
            for server in shards.servers:
                await asyncio.to_thread(server.begin)
            while True:
                with suppress(BackendUnavailable):
                    await layer.send("jobs", {"n": 1})
                    break
            while (await layer.receive("jobs")) != {"n": 1}:
                pass

    asyncio.run(main())


def test_a_client_whose_home_is_down_does_all_that_needs_no_home(shards):
    shards.servers[1].kill()

    async def main():
        for _ in range(8):  # a third of them have their home there
            async with RedisChannelLayer(shards.hosts, "test", timeout=1) as layer:
                await layer.send("jobs", {"n": 1})
                assert await layer.receive("jobs") == {"n": 1}

    asyncio.run(main())


def test_what_is_given_back_during_a_flush_stays_flushed(server):
    async def main():
        async with AsyncExitStack() as stack:
            here, there = await opened(stack, server.url, 2)
            for _ in range(20):
                reading = asyncio.create_task(there.receive("jobs"))
                await asyncio.sleep(0)
                await here.send("jobs", {"n": 1})
                flushing = asyncio.create_task(here.flush())
                await asyncio.sleep(0)
                reading.cancel()
                with suppress(asyncio.CancelledError):
                    await reading
                await flushing
                assert (await here.channel_statistics("jobs"))["messages_pending"] == 0

    asyncio.run(main())


def test_a_layer_can_be_closed_after_its_event_loop_has_ended(server):
    layer = RedisChannelLayer(server.url, "test")

    async def use():
        await layer.open()
        await layer.group_add("g", await layer.new_channel())

    asyncio.run(use())
    asyncio.run(layer.close())
    left = [key for key in server.keys("*") if not key.endswith(("era", "tally"))]
    assert left == []
    assert server.clients() == []


def test_event_loops_that_are_closed_one_after_the_other_keep_no_connections(server):
    layer = RedisChannelLayer(server.url, "test")
    for number in range(10):
        loop = asyncio.new_event_loop()
        loop.run_until_complete(layer.open())
        loop.run_until_complete(layer.send("jobs", {"n": number}))
        assert loop.run_until_complete(layer.receive("jobs")) == {"n": number}
        loop.close()
    assert len(server.clients()) <= 3
    asyncio.run(layer.close())


def test_a_loop_that_is_run_piece_by_piece_gets_each_message_once(server):
    """Meanwhile others call from threads of their own, and so take over."""
    layer, got = RedisChannelLayer(server.url, "test"), []
    loop = asyncio.new_event_loop()
    channel = loop.run_until_complete(layer.new_channel())
    loop.run_until_complete(layer.open())

    def send(number):
        asyncio.run(layer.send(channel, {"n": number}))

    for number in range(5):
        thread = threading.Thread(target=send, args=(number,))
        thread.start()
        thread.join()
        got.append(loop.run_until_complete(layer.receive(channel))["n"])
    loop.run_until_complete(layer.close())
    loop.close()
    assert got == list(range(5))


def test_a_silent_shard_is_an_error_for_the_members_there_alone(shards):
    async def main():
        async with AsyncExitStack() as stack:
            layers = await opened(stack, shards.hosts, 6, timeout=1, lease=30)
            ring = layers[0]._backend._session.ring
            group = next(n for n in (f"g{i}" for i in range(99)) if ring.of(n) == 0)
            channels = {}
            for layer in layers:
                channels[layer] = await layer.new_channel()
                await layer.group_add(group, channels[layer])
            homes = {layer: ring.of(layer._client) for layer in layers}
            silent = next((home for home in homes.values() if home), None)
            if silent is None:
                return  # all have their home where the group is
            shards.servers[silent].stop()
            sender = next((layer for layer in layers if homes[layer] != silent), None)
            if sender is not None:
                with pytest.raises(BackendTimeout):
                    await sender.group_send(group, {"n": 1})
                for layer in layers:
                    if homes[layer] != silent:
                        assert await layer.receive(channels[layer]) == {"n": 1}
            shards.servers[silent].go_on()
            for layer in layers:  # it comes back by itself
                while True:
                    with suppress(BackendUnavailable):
                        await layers[0].send(channels[layer], {"n": 2})
                        break
                while (await layer.receive(channels[layer])) != {"n": 2}:
                    pass

    asyncio.run(main())


def test_a_loop_that_was_closed_while_it_sent_holds_nobody_up(shards):
    """The group message that it sent is over with its time, and does not block what comes after."""
    here = RedisChannelLayer(shards.hosts, "test", timeout=1)

    async def main():
        async with here, RedisChannelLayer(shards.hosts, "test", timeout=1) as there:
            channel = await there.new_channel()
            await there.group_add("g", channel)

            def abandon():
                loop = asyncio.new_event_loop()
                task = loop.create_task(here.group_send("g", {"n": 0}))
                task._log_destroy_pending = False
                loop.run_until_complete(asyncio.sleep(0))
                loop.close()
                return task

            abandoned = await asyncio.to_thread(abandon)
            async with asyncio.timeout(30):
                while True:
                    with suppress(BackendUnavailable):
                        await here.send(channel, {"n": 1})
                        await here.group_send("g", {"n": 2})
                        break
                got = [(await there.receive(channel))["n"]]
                while 2 not in got:
                    got.append((await there.receive(channel))["n"])
            assert got in ([0, 1, 2], [1, 2])
            del abandoned

    asyncio.run(main())


def test_calls_at_one_time_keep_their_order_over_several_shards(shards):
    """Direct messages and those to groups of all shards; the way to one of them is slow."""

    async def main(urls):
        async with (
            RedisChannelLayer(urls, "test", capacity=1000) as here,
            RedisChannelLayer(urls, "test", capacity=1000) as there,
        ):
            channel, groups = await there.new_channel(), [f"group{n}" for n in range(12)]
            for group in groups:
                await here.group_add(group, channel)
            for slow in proxies:
                slow.delay = lambda: 0.005
                calls = [
                    here.send(channel, {"n": n})
                    if n % 3 == 0
                    else here.group_send(groups[n % 12], {"n": n})
                    for n in range(60)
                ]
                await asyncio.gather(*calls)
                assert [(await there.receive(channel))["n"] for _ in calls] == list(range(60))
                slow.delay = lambda: 0.0

    with ExitStack() as stack:
        proxies = [Proxy(server.port) for server in shards.servers]
        for proxy in proxies:
            stack.callback(proxy.close)
        asyncio.run(main([proxy.url for proxy in proxies]))
