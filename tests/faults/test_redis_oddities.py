"""Answers, shards and event loops that are not as one would wish."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import AsyncExitStack, ExitStack, suppress

import pytest
from redis_layers import opened, repeated
from redis_proxy import Proxy
from redis_traffic import until

from channels_layers import BackendTimeout, BackendUnavailable, RedisChannelLayer
from channels_layers._turns import NoTurn
from channels_layers.errors import BackendError
from channels_layers.redis._errors import ServerUnavailable
from channels_layers.redis._progress import Progress


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


def test_what_one_shard_confirmed_before_a_flush_is_not_delivered_after_it(shards):
    """Its answer comes late, and the flush is told by another shard."""

    async def main():
        async with AsyncExitStack() as stack:
            urls = [server.url for server in shards.servers]
            here, there = await opened(stack, urls, 2)
            session = there._backend._session
            await asyncio.gather(*session.leases.stop(), return_exceptions=True)
            names = (f"body?{number}" for number in range(100))
            channel = next(
                name for name in names if session.route(name).shard != session.home.index
            )
            shard = session.shards[session.route(channel).shard]
            reading = asyncio.create_task(there.receive(channel))
            server = shards.servers[shard.index]
            await until(lambda: server.keys(f"*want:{session.client.id}"), "it waits")
            await until(lambda: not shard.lane.is_busy, "it has heard so")
            transport = shard.lane.link._wire._transport
            transport.pause_reading()
            await here.send(channel, {"n": 1})
            (given,) = await until(lambda: server.keys(f"*sub:{session.client.id}"), "it is given")
            await until(lambda: server.ints("XLEN", given) == 0, "it is confirmed")
            await here.flush()
            transport.resume_reading()
            await until(lambda: not shard.lane.is_busy, "it has heard that")
            await here.send(channel, {"n": 2})
            assert await reading == {"n": 2}

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


def test_a_group_on_a_silent_shard_holds_up_no_direct_message(shards, is_long):
    """Nothing of it is sent later, and what was called after it arrives meanwhile, in order."""

    async def main():
        async with AsyncExitStack() as stack:
            here, there = await opened(stack, shards.hosts, 2, timeout=1, lease=30)
            ring = here._backend._session.ring
            homes = {ring.of(here._client), ring.of(there._client)}
            silent = next(index for index in range(3) if index not in homes)
            names = [f"g{n}" for n in range(99)]
            quiet = [name for name in names if ring.of(name) == silent][:3]
            heard = [name for name in names if ring.of(name) != silent][:3]
            channel = await there.new_channel()
            for group in (*quiet, *heard):
                await here.group_add(group, channel)
            shards.servers[silent].stop()
            count = 300 if is_long else 90
            calls = []
            for number in range(count):
                kind, message = number % 3, {"n": number}
                if kind == 0:
                    call = here.group_send(quiet[number % 2], message)
                elif kind == 1:
                    call = here.send(channel, message)
                else:
                    call = here.group_send(heard[number % 2], message)
                calls.append(asyncio.create_task(call))
                await asyncio.sleep(0.02)
            results = await asyncio.gather(*calls, return_exceptions=True)
            arrived = [number for number in range(count) if number % 3]
            assert {results[number] for number in arrived} == {None}
            # Nothing was done, and they say so.
            assert {type(result) for result in results[::3]} == {ServerUnavailable}
            assert [(await there.receive(channel))["n"] for _ in arrived] == arrived
            shards.servers[silent].go_on()
            await repeated(lambda: here.group_send(quiet[0], {"n": "last"}))
            while (await there.receive(channel)) != {"n": "last"}:
                pass

    asyncio.run(main())


def test_a_group_on_a_shard_that_is_down_holds_up_nobody_who_could_go_on(shards):
    """Alone, its message would be tried for an hour; a direct one that waits for it ends that."""

    async def main():
        async with AsyncExitStack() as stack:
            here, there = await opened(stack, shards.hosts, 2, timeout=3600, lease=7200)
            ring = here._backend._session.ring
            homes = {ring.of(here._client), ring.of(there._client)}
            down = next(index for index in range(3) if index not in homes)
            group = next(name for name in map(str, range(99)) if ring.of(name) == down)
            channel = await there.new_channel()
            await here.group_add(group, channel)
            await asyncio.to_thread(shards.servers[down].kill)
            for _ in range(2):  # while that is news, and when it is known
                calls = here.group_send(group, {}), here.send(channel, {"n": 1})
                failed, sent = await asyncio.gather(*calls, return_exceptions=True)
                assert isinstance(failed, ServerUnavailable)
                assert sent is None
                assert await there.receive(channel) == {"n": 1}
            waiting = asyncio.create_task(here.group_send(group, {"n": 2}))
            await asyncio.to_thread(shards.servers[down].begin)
            await waiting
            await here.group_add(group, channel)
            await here.group_send(group, {"n": 3})
            # Those who live there may have made their memberships known again before the second.
            if (found := await there.receive(channel)) == {"n": 2}:
                found = await there.receive(channel)
            assert found == {"n": 3}

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


@pytest.mark.parametrize("tasks", [1, 5])
def test_a_worker_that_becomes_busy_sits_on_no_message(server, tasks):
    """Its tasks came back at once each time, and so had messages in hand; others get them."""

    async def main():
        async with AsyncExitStack() as stack:
            sender, eager, other = await opened(stack, server.url, 3)
            for round_ in range(20):
                for number in range(30):
                    await sender.send("jobs", {"n": number})
                taken = 10 + round_ % 7
                left, got = iter(range(taken)), []

                async def work(left=left, got=got):
                    for _ in left:
                        got.append((await eager.receive("jobs"))["n"])

                await asyncio.gather(*(work() for _ in range(tasks)))
                rest = [(await other.receive("jobs"))["n"] for _ in range(30 - taken)]
                assert got == list(range(taken))
                assert sorted(rest) == list(range(taken, 30))

    asyncio.run(main())


def test_what_an_eager_worker_had_in_hand_comes_back_when_its_loop_ends(server):
    async def main():
        async with AsyncExitStack() as stack:
            sender, other = await opened(stack, server.url, 2)
            for round_ in range(20):
                for number in range(30):
                    await sender.send("jobs", {"n": number})
                got = await asyncio.to_thread(work_a_while, server.url, 5 + round_)
                rest = [(await other.receive("jobs"))["n"] for _ in range(30 - len(got))]
                assert sorted(got + rest) == list(range(30))

    asyncio.run(main())


def test_what_a_worker_had_in_hand_is_there_for_others_when_its_loop_has_ended(server):
    """Its process lives on, without closing the layer or using it again."""
    layers = []

    async def work(layer, tasks):
        got = []

        async def take():
            got.extend([(await layer.receive("jobs"))["n"] for _ in range(4)])

        await asyncio.gather(*(take() for _ in range(tasks)))
        return got

    async def main():
        async with RedisChannelLayer(server.url, "test") as other:
            for round_ in range(10):
                for number in range(60):
                    await other.send("jobs", {"n": number})
                layers.append(RedisChannelLayer(server.url, "test"))
                got = await asyncio.to_thread(asyncio.run, work(layers[-1], 1 + round_))
                session = layers[-1]._backend._session
                assert session.workers._spares.take_all() == []
                async with asyncio.timeout(60):
                    rest = [(await other.receive("jobs"))["n"] for _ in range(60 - len(got))]
                assert sorted(got + rest) == list(range(60))
        for layer in layers:
            await layer.close()

    asyncio.run(main())


def test_a_reader_that_follows_another_one_finds_all_in_order(server):
    async def main():
        async with AsyncExitStack() as stack:
            sender, one, other = await opened(stack, server.url, 3)
            channel = await sender.new_channel("body?")
            for number in range(90):
                await sender.send(channel, {"n": number})
            readers = [one, other, one, other, one, other]
            got = [(await reader.receive(channel))["n"] for reader in readers for _ in range(15)]
            assert got == list(range(90))

    asyncio.run(main())


def work_a_while(url, messages):
    """Take some messages as fast as possible, and leave without closing, then close elsewhere."""
    layer = RedisChannelLayer(url, "test")

    async def work():
        return [(await layer.receive("jobs"))["n"] for _ in range(messages)]

    got = asyncio.run(work())
    asyncio.run(layer.close())
    return got


@pytest.mark.parametrize("moment", ["asked", "copied"])
def test_a_cancelled_message_to_a_group_is_not_overtaken(shards, moment):
    """What is sent to an own channel afterwards comes after it, even if nobody waits for it."""

    async def main(hosts):
        async with AsyncExitStack() as stack:
            (layer,) = await opened(stack, hosts, 1)
            session = layer._backend._session
            own = await layer.new_channel()
            await layer.group_add("g", own)
            for proxy in proxies:
                proxy.delay = lambda: 0.02
            for number in range(10):
                reading = asyncio.create_task(layer.receive(own))
                sending = asyncio.create_task(layer.group_send("g", {"n": 2 * number}))
                while not is_on_its_way(session):  # noqa: ASYNC110
                    await asyncio.sleep(0)
                sending.cancel()
                await asyncio.wait([sending])
                assert sending.cancelled()
                await layer.send(own, {"n": 2 * number + 1})
                got = [(await reading)["n"], (await layer.receive(own))["n"]]
                assert got == [2 * number, 2 * number + 1]

    def is_on_its_way(session):
        if moment == "copied":
            return not session.copies.is_empty
        sent = [command for command in session.home.lane._pending.batch if command.is_sent]
        return any(command.name == "publish" for command in sent)

    servers = shards.servers if moment == "copied" else shards.servers[:1]
    with ExitStack() as stack:
        proxies = [Proxy(server.port) for server in servers]
        for proxy in proxies:
            stack.callback(proxy.close)
        asyncio.run(main([proxy.url for proxy in proxies]))


def test_own_and_group_messages_on_a_stalled_server_fail_within_one_time(server):
    """They wait for one another, but not each for a time of its own."""

    async def main():
        async with AsyncExitStack() as stack:
            (layer,) = await opened(stack, server.url, 1, timeout=1, lease=60)
            own = await layer.new_channel()
            await layer.group_add("g", own)
            server.stop()
            try:
                calls = [
                    call
                    for _ in range(4)
                    for call in (layer.group_send("g", {}), layer.send(own, {}))
                ]
                outcomes = await asyncio.gather(*calls, return_exceptions=True)
            finally:
                server.go_on()
            assert all(isinstance(outcome, BackendUnavailable) for outcome in outcomes)
            # The first two have tried, and whoever had a moment left. The others' time was over
            # before it was their turn, where each would have tried that has a time of its own.
            assert sum(isinstance(outcome, NoTurn) for outcome in outcomes) >= len(calls) / 2

    asyncio.run(main())


def test_a_group_message_that_waits_for_the_inbox_is_not_overtaken_there():
    class Home:
        position = "1-0"

    heard = []
    progress = Progress(Home())
    progress.after(b"5-0", lambda: heard.append("group"))
    assert not progress.is_idle()
    assert not progress.must_go_on(b"5-0")
    progress.go_on()
    assert heard == []
    assert progress.must_go_on(b"6-0")
    progress.go_on(before=b"6-0")
    assert heard == ["group"]
    assert progress.is_idle()
