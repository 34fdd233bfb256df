"""Servers that restart, forget, go back in time and stall; clients that die."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import AsyncExitStack, suppress

import pytest
from ipc_processes import Process
from ipc_processes import until as at_last
from redis_layers import busy, opened, repeated
from redis_servers import Cluster, RedisServer
from redis_traffic import Traffic, until

from channels_layers import BackendTimeout, BackendUnavailable, RedisChannelLayer

PERSISTED = ("--appendonly", "yes", "--appendfsync", "always")


@pytest.fixture
def server_with():
    found = []

    def make(*options):
        found.append(RedisServer(None, *options))
        return found[-1]

    yield make
    for server in found:
        server.close()


def test_a_restart_with_everything_persisted_loses_and_doubles_nothing(server_with, is_long):
    server = server_with(*PERSISTED)

    async def main():
        async with AsyncExitStack() as stack:
            layers = await opened(stack, server.url, 2)
            traffic = Traffic()
            await busy(layers, traffic)
            for _ in range(10 if is_long else 2):
                before = traffic.count
                await until(lambda before=before: traffic.count > before + 50, "traffic goes on")
                await asyncio.to_thread(server.kill)
                await asyncio.to_thread(server.begin)
            before = traffic.count
            await until(lambda: traffic.count > before + 50, "traffic goes on")
            await traffic.end()

    asyncio.run(main())


def test_after_a_restart_empty_members_are_registered_again_and_readers_are_told(server):
    async def main():
        async with AsyncExitStack() as stack:
            here, there = await opened(stack, server.url, 2, on_gap="my.gap")
            channel = await there.new_channel()
            await there.group_add("g", channel)
            reading = asyncio.create_task(there.receive(channel))
            working = asyncio.create_task(there.receive("jobs"))
            await here.group_send("g", {"n": 1})
            assert await reading == {"n": 1}
            reading = asyncio.create_task(there.receive(channel))
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.begin)
            assert await reading == {"type": "my.gap"}
            assert await working == {"type": "my.gap"}
            assert await repeated(lambda: here.group_channels("g")) == [channel]
            await here.group_send("g", {"n": 2})
            assert await there.receive(channel) == {"n": 2}
            await here.send("jobs", {"n": 3})
            assert await there.receive("jobs") == {"n": 3}

    asyncio.run(main())


def test_after_a_restart_from_an_old_snapshot_nothing_is_doubled(server):
    async def main():
        async with AsyncExitStack() as stack:
            here, there = await opened(stack, server.url, 2, on_gap="my.gap")
            channel = await there.new_channel()
            await there.group_add("g", channel)
            await here.send(channel, {"n": 1})
            await here.send("jobs", {"n": 1})
            await here.send("one?reader", {"n": 1})
            server.ask("SAVE")
            for name in (channel, "jobs", "one?reader"):
                assert await there.receive(name) == {"n": 1}
            for number in range(2, 6):
                await here.send(channel, {"n": number})
                assert await there.receive(channel) == {"n": number}
            await there.group_discard("g", channel)
            await there.group_add("later", channel)
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.begin)
            assert await there.receive(channel) == {"type": "my.gap"}
            assert await repeated(lambda: here.group_channels("later")) == [channel]
            assert await here.group_channels("g") == []
            for name in (channel, "jobs", "one?reader"):
                await repeated(lambda name=name: here.send(name, {"n": 9}))
                while (message := await there.receive(name)) == {"type": "my.gap"}:
                    pass
                assert message == {"n": 9}, name
            dropped = (await here.statistics())["dropped_count"]
            assert dropped["gap"] == 2

    asyncio.run(main())


def test_after_a_restart_from_an_old_snapshot_normal_messages_may_come_again(server):
    """If so chosen; those of a channel with one reader never do."""

    async def main():
        async with AsyncExitStack() as stack:
            here, there = await opened(stack, server.url, 2, after_failover="redeliver")
            channel = await there.new_channel()
            for name in (channel, "jobs", "one?reader"):
                await here.send(name, {"n": 1})
            server.ask("SAVE")
            for name in (channel, "jobs", "one?reader"):
                assert await there.receive(name) == {"n": 1}
            for number in range(2, 6):
                await here.send(channel, {"n": number})
                assert await there.receive(channel) == {"n": number}
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.begin)
            for name in (channel, "one?reader"):
                await repeated(lambda name=name: here.send(name, {"n": 9}))
                assert await there.receive(name) == {"n": 9}, name
            assert await there.receive("jobs") == {"n": 1}

    asyncio.run(main())


def test_shards_that_forget_at_one_time_are_one_gap(shards):
    async def main():
        async with AsyncExitStack() as stack:
            (layer,) = await opened(stack, shards.hosts, 1, on_gap="my.gap")
            channel = await layer.new_channel()
            reading = asyncio.create_task(layer.receive(channel))
            await layer.group_channels("g")
            await until(
                lambda: all(shard.is_connected for shard in layer._backend._session.shards), "shown"
            )
            for server in shards.servers:
                server.ask("FLUSHALL")
            assert await reading == {"type": "my.gap"}
            await repeated(lambda: layer.send(channel, {"n": 1}))
            assert await layer.receive(channel) == {"n": 1}

    asyncio.run(main())


@pytest.mark.parametrize(
    ("stall", "lease"), [(1.5, 10), (2.5, 1)], ids=["shorter than the lease", "longer"]
)
def test_a_stalled_server_is_one_clear_error_and_evicts_nobody(server, stall, lease):
    async def main():
        async with AsyncExitStack() as stack:
            here, there, third = await opened(stack, server.url, 3, timeout=1, lease=lease)
            channel = await there.new_channel()
            await there.group_add("g", channel)
            reading = asyncio.create_task(there.receive(channel))
            await here.send("jobs", {})
            server.stop()
            ends_at = time.monotonic() + stall
            errors = 0
            while time.monotonic() < ends_at:
                with pytest.raises(BackendUnavailable):
                    await here.group_send("g", {"n": "unsure"})
                errors += 1
                await asyncio.sleep(0.01)
            assert errors
            assert not reading.done()
            server.go_on()
            await repeated(lambda: third.group_send("g", {"n": 1}))
            got = await reading
            while got["n"] != 1:
                got = await there.receive(channel)
            await repeated(lambda: here.send("jobs", {}))
            # More than a lease later, everybody is still there.
            ends_at = time.monotonic() + 1.5
            number = 1
            while time.monotonic() < ends_at:
                number += 1
                await here.group_send("g", {"n": number})
                assert await there.receive(channel) == {"n": number}
                await asyncio.sleep(0.05)
            assert await third.group_channels("g") == [channel]

    asyncio.run(main())


def test_an_unreachable_server_is_unavailable_and_nothing_happened(server):
    async def main():
        async with AsyncExitStack() as stack:
            (layer,) = await opened(stack, server.url, 1, timeout=1)
            await layer.send("jobs", {"n": 1})
            reading = asyncio.create_task(layer.receive("other"))
            await asyncio.to_thread(server.kill)
            with suppress(BackendUnavailable):  # perhaps on its way when the connection broke
                await layer.send("jobs", {"n": 2})
            with pytest.raises(BackendUnavailable, match=f"127.0.0.1:{server.port}") as caught:
                await layer.send("jobs", {"n": 2})
            assert not isinstance(caught.value, BackendTimeout)
            assert not reading.done()
            await asyncio.to_thread(server.begin)
            await repeated(lambda: layer.send("other", {"n": 3}))
            assert await reading == {"n": 3}

    asyncio.run(main())


def test_a_layer_that_never_reached_a_server_says_so_and_works_when_it_comes(server):
    server.kill()

    async def main():
        layer = RedisChannelLayer(server.url, "test", timeout=1)
        for call in (lambda: layer.send("jobs", {}), layer.open, lambda: layer.receive("jobs")):
            with pytest.raises(BackendUnavailable):
                await call()
        await asyncio.to_thread(server.begin)
        await repeated(lambda: layer.send("jobs", {"n": 1}))
        assert await layer.receive("jobs") == {"n": 1}
        await layer.close()

    asyncio.run(main())


async def hold(report, url, groups):
    """Be a member, have messages unread and in hand, and wait to be killed."""
    layer = RedisChannelLayer(url, "test", lease=1, expiry=3)
    await layer.open()
    channel = await layer.new_channel()
    for number in range(groups):
        await layer.group_add(f"g{number}", channel)
    report.tell(channel)
    await report.heard()
    for number in range(20):
        await layer.send(channel, {"n": number})
    report.tell("full")
    await report.heard()


def test_a_killed_process_leaves_nothing_and_loses_nothing_for_others(server):
    killed = Process(hold, server.url, 300)
    channel = killed.told()
    killed.say()
    assert killed.told() == "full"

    async def main():
        async with RedisChannelLayer(server.url, "test", lease=1, expiry=3) as layer:
            assert await layer.group_channels("g7") == [channel]
            os.kill(killed.pid, signal.SIGKILL)
            killed.ended()
            client = channel.partition(".")[2].partition("!")[0]
            await until(lambda: not server.keys(f"*{client}*"), "its keys are gone", 30)
            assert await layer.group_channels("g7") == []

    asyncio.run(main())
    killed.close()
    at_last(lambda: not server.keys(), "all keys end with their time")


async def work(report, url, tasks):
    """Take messages, and note each one before the next."""
    layer = RedisChannelLayer(url, "test", lease=1, capacity=10_000)

    async def take_and_tell():
        while True:
            report.tell((await layer.receive("jobs"))["n"])

    await asyncio.gather(*(take_and_tell() for _ in range(tasks)))


@pytest.mark.parametrize("tasks", [1, 5])
def test_killed_workers_lose_only_what_they_handed_over(server, tasks):
    """Each message comes to one of them; those that a killed one had not told come to others."""
    workers = [Process(work, server.url, tasks) for _ in range(3)]

    async def main():
        got, killed = [], 0
        async with RedisChannelLayer(server.url, "test", capacity=10_000) as layer:
            for number in range(600):
                await layer.send("jobs", {"n": number})
            while len(got) < 600 - killed * tasks:
                for worker in workers:
                    with suppress(AssertionError):
                        got.append(worker.told(0.01))
                if killed < 2 and len(got) > 100 * (killed + 1):
                    os.kill(workers[killed].pid, signal.SIGKILL)
                    killed += 1
        assert len(got) == len(set(got))
        assert len(got) >= 600 - killed * tasks

    asyncio.run(main())
    for worker in workers:
        worker.close()


def test_a_client_that_was_stopped_for_longer_than_its_lease_comes_back(server):
    stopped = Process(hold_and_tell, server.url)
    channel = stopped.told()

    async def main():
        async with RedisChannelLayer(server.url, "test", lease=1) as layer:
            await layer.group_send("g", {"n": 1})
            stopped.say()
            assert stopped.told() == {"n": 1}
            os.kill(stopped.pid, signal.SIGSTOP)
            while await layer.group_channels("g"):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            os.kill(stopped.pid, signal.SIGCONT)
            stopped.say()
            assert stopped.told() == {"type": "gap"}
            while await layer.group_channels("g") != [channel]:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            await layer.group_send("g", {"n": 2})
            stopped.say()
            assert stopped.told() == {"n": 2}

    asyncio.run(main())
    stopped.close()


async def hold_and_tell(report, url):
    async with RedisChannelLayer(url, "test", lease=1, on_gap="gap") as layer:
        channel = await layer.new_channel()
        await layer.group_add("g", channel)
        report.tell(channel)
        while True:
            await report.heard()
            report.tell(await layer.receive(channel))


def test_forgotten_scripts_are_sent_again(server):
    async def main():
        async with AsyncExitStack() as stack:
            here, there = await opened(stack, server.url, 2)
            traffic = Traffic()
            await busy([here, there], traffic)
            for _ in range(30):
                server.ask("SCRIPT", "FLUSH")
                before = traffic.count
                await until(lambda before=before: traffic.count > before + 5, "traffic goes on")
            await traffic.end()
            assert not traffic.errors

    asyncio.run(main())


def test_a_poisoned_payload_is_dropped_and_counted(server):
    async def main():
        async with AsyncExitStack() as stack:
            here, there = await opened(stack, server.url, 2)
            channel, other = await there.new_channel(), await there.new_channel()
            reading = asyncio.create_task(there.receive(other))
            await here._remote.send(channel, b"\xc1 no message", 100)
            await here.send(channel, {"n": 1})
            await here.send(other, {"n": 2})
            assert await there.receive(channel) == {"n": 1}
            assert await reading == {"n": 2}
            numbers = await there.channel_statistics(channel)
            assert numbers["dropped_count"]["undecodable"] == 1

    asyncio.run(main())


def test_no_clock_of_a_client_orders_or_expires_anything(server, monkeypatch):
    real = time.time

    async def main():
        async with AsyncExitStack() as stack:
            here, there = await opened(stack, server.url, 2, expiry=5)
            channel = await there.new_channel()
            for number, shift in enumerate((0, 90, -3600, 86_400, 0)):
                monkeypatch.setattr(time, "time", lambda shift=shift: real() + shift)
                await here.send(channel, {"n": number})
            assert [(await there.receive(channel))["n"] for _ in range(5)] == list(range(5))

    asyncio.run(main())


def test_a_shard_that_is_down_disturbs_only_what_is_pinned_to_it(is_long):
    cluster = Cluster(3)

    async def main():
        async with AsyncExitStack() as stack:
            here, there = await opened(stack, cluster.hosts, 2, timeout=1)
            ring = here._backend._session.ring
            down = next(
                i for i in range(3) if i not in {ring.of(here._client), ring.of(there._client)}
            )
            channel = await there.new_channel()
            await asyncio.to_thread(cluster.servers[down].kill)
            await here.send(channel, {"n": 1})
            assert await there.receive(channel) == {"n": 1}
            pinned = next(n for n in (f"one?{i}" for i in range(99)) if ring.of_channel(n) == down)
            with suppress(BackendUnavailable):  # perhaps on its way when the connection broke
                await here.send(pinned, {})
            with pytest.raises(BackendUnavailable) as caught:
                await here.send(pinned, {})
            assert not isinstance(caught.value, BackendTimeout)
            for number in range(30):
                await here.send("jobs", {"n": number})
            got = [(await there.receive("jobs"))["n"] for _ in range(30)]
            assert sorted(got) == list(range(30))
            await asyncio.to_thread(cluster.servers[down].begin)
            await repeated(lambda: here.send(pinned, {"n": 2}))
            assert await there.receive(pinned) == {"n": 2}

    try:
        asyncio.run(main())
    finally:
        cluster.close()


def test_one_worker_serves_three_shards(is_long):
    """It waits on one of them, and glances at the others."""
    cluster = Cluster(3)

    async def main():
        async with AsyncExitStack() as stack:
            here, there = await opened(stack, cluster.hosts, 2, rotation=0.3)
            for number in range(60):
                await here.send("jobs", {"n": number})
            got = [(await there.receive("jobs"))["n"] for _ in range(60)]
            assert sorted(got) == list(range(60))
            for number in range(20):
                reading = asyncio.create_task(there.receive("jobs"))
                await asyncio.sleep(0.01)
                await here.send("jobs", {"n": number})
                assert await reading == {"n": number}

    try:
        asyncio.run(main())
    finally:
        cluster.close()


def test_clients_with_other_shards_are_refused_while_the_first_live():
    cluster = Cluster(3)

    async def main():
        async with AsyncExitStack() as stack:
            await opened(stack, cluster.hosts, 1)
            for server in cluster.servers:
                await until(lambda server=server: server.keys("*topology"), "it is known there")
            other = RedisChannelLayer(cluster.hosts[:2], "test", timeout=1)
            with pytest.raises(Exception, match="another set of shards"):
                await other.send("one?reader", {})
            await other.close()
        async with RedisChannelLayer(cluster.hosts[:2], "test") as other:
            await other.send("jobs", {})

    try:
        asyncio.run(main())
    finally:
        cluster.close()


def test_a_flush_touches_only_its_own_prefix(server):
    async def main():
        async with (
            RedisChannelLayer(server.url, "asgi") as one,
            RedisChannelLayer(server.url, "asgi2") as two,
            RedisChannelLayer(f"{server.url}/5", "asgi") as three,
        ):
            for layer in (one, two, three):
                await layer.send("jobs", {"n": 1})
                await layer.group_add("g", "jobs")
            await one.flush()
            assert await one.group_channels("g") == []
            for layer in (two, three):
                assert await layer.group_channels("g") == ["jobs"]
                assert await layer.receive("jobs") == {"n": 1}
            await one.send("jobs", {"n": 2})
            assert await one.receive("jobs") == {"n": 2}

    asyncio.run(main())


async def count(report, url):
    """Count three messages of its own, then two more."""
    async with RedisChannelLayer(url, "test", lease=1) as layer:
        channel = await layer.new_channel()
        for many in (3, 2):
            for n in range(many):
                await layer.send(channel, {"n": n})
                await layer.receive(channel)
            report.tell(many)
            await report.heard()


async def count_of(layer):
    return (await layer.statistics())["messages_count"]


async def until_counted(layer, number):
    while await count_of(layer) != number:  # noqa: ASYNC110
        await asyncio.sleep(0.01)


def living(server):
    """Return how many clients the server takes for alive."""
    return server.ints("HLEN", *server.keys("*:beats"))


def test_what_a_killed_client_has_counted_stays(server):
    counting = Process(count, server.url)
    counting.told()

    async def main():
        async with RedisChannelLayer(server.url, "test", lease=1) as layer:
            await until_counted(layer, 3)
            counting.kill()
            while living(server) > 1:
                assert await count_of(layer) == 3
            assert await count_of(layer) == 3

    asyncio.run(main())
    counting.close()


@pytest.mark.parametrize("ends", ["at once", "later"])
def test_what_a_client_has_counted_that_was_taken_for_dead_is_counted_once(server, ends):
    counting = Process(count, server.url)
    counting.told()

    async def main():
        async with RedisChannelLayer(server.url, "test", lease=1) as layer:
            await until_counted(layer, 3)
            counting.stop()
            await until(lambda: living(server) == 1, "it is taken for dead")
            counting.go_on()
            counting.say()
            counting.told()
            while ends == "later" and (found := await count_of(layer)) != 5:
                assert found == 3
            counting.say()  # to close, perhaps before it has shown life again
            counting.ended()
            assert await count_of(layer) == 5

    asyncio.run(main())
    counting.close()
