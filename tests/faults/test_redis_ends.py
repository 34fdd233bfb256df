"""Calls that end in time, with their layer or with what the server knew; and nothing after."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import AsyncExitStack, suppress

import pytest
from redis_layers import opened, repeated
from redis_traffic import until

from channels_layers import BackendTimeout, BackendUnavailable, LayerClosed, RedisChannelLayer
from channels_layers.redis._scripts import BATCH


def test_a_command_with_little_time_ends_behind_those_with_much(server):
    async def main():
        async with RedisChannelLayer(server.url, "test", timeout=3600) as layer:
            server.stop()
            lane = layer._backend._session.home.lane
            lane.post("none")
            command = lane.submit("none", ends_at=time.monotonic() + 0.05)
            with pytest.raises(BackendUnavailable):
                await lane.outcome(command)
            server.go_on()

    asyncio.run(main())


def test_what_is_given_up_unsent_is_done_for_who_counts_it(server):
    async def main():
        async with RedisChannelLayer(server.url, "test", timeout=1) as layer:
            channel = await layer.new_channel()
            server.stop()
            calls = [layer.send(channel, {}) for _ in range(20)]
            results = await asyncio.gather(*calls, return_exceptions=True)
            assert all(isinstance(result, BackendUnavailable) for result in results)
            server.go_on()
            await repeated(lambda: layer.send(channel, {}))
            assert await layer.receive(channel) == {}
            while not layer._backend._session.progress.is_idle():  # noqa: ASYNC110
                await asyncio.sleep(0)

    asyncio.run(main())


def test_calls_that_wait_in_line_end_with_the_layer(shards):
    async def main():
        async with AsyncExitStack() as stack:
            here, there = await opened(stack, shards.hosts, 2, timeout=3600, lease=7200)
            ring = here._backend._session.ring
            homes = {ring.of(here._client), ring.of(there._client)}
            silent = next(index for index in range(3) if index not in homes)
            group = next(name for name in map(str, range(99)) if ring.of(name) == silent)
            channel = await there.new_channel()
            await here.group_add(group, channel)
            shards.servers[silent].stop()
            calls = (
                here.group_send(group, {}),
                here.send(channel, {}),
                here.group_add(group, channel),
                here.flush(),
            )
            waiting = [asyncio.create_task(call) for call in calls]
            for _ in range(20):
                await asyncio.sleep(0)
            await here.close()
            results = await asyncio.gather(*waiting, return_exceptions=True)
            assert all(isinstance(one, LayerClosed | BackendUnavailable) for one in results)
            shards.servers[silent].go_on()

    asyncio.run(main())


@pytest.mark.parametrize("prefix", ["specific", "reply?"])
def test_a_copy_whose_answer_was_lost_is_not_sent_again_to_an_empty_server(shards, proxies, prefix):
    """It was delivered before, and these channels never double."""

    async def main():
        hosts = [{"address": one.url, "name": f"s{n}"} for n, one in enumerate(shards.servers)]
        ways = [{"address": proxy.url, "name": f"s{n}"} for n, proxy in enumerate(proxies)]
        async with (
            RedisChannelLayer(ways, "test", lease=60) as here,
            RedisChannelLayer(hosts, "test", lease=60) as there,
        ):
            ring = here._backend._session.ring
            channel = await there.new_channel(prefix)
            index = ring.of_channel(channel)
            group = next(name for name in map(str, range(99)) if ring.of(name) != index)
            await there.group_add(group, channel)
            proxies[index].delay = lambda: 0.2
            sending = asyncio.create_task(here.group_send(group, {"n": "once"}))
            assert await there.receive(channel) == {"n": "once"}
            proxies[index].cut()
            await asyncio.to_thread(shards.servers[index].kill)
            await asyncio.to_thread(shards.servers[index].begin)
            proxies[index].delay = lambda: 0.0
            with suppress(BackendUnavailable):
                await sending
            await repeated(lambda: here.send(channel, {"n": "end"}))
            assert await there.receive(channel) == {"n": "end"}

    asyncio.run(main())


@pytest.mark.parametrize("is_closed", [True, False], ids=["closed", "stopped"])
def test_receivers_go_on_when_the_home_ends_without_a_word(server, is_closed):
    """They wait in another event loop, and nobody calls the layer."""

    async def main():
        layer = RedisChannelLayer(server.url, "test")
        async with RedisChannelLayer(server.url, "test") as sender:
            home = asyncio.new_event_loop()
            thread = threading.Thread(target=home.run_forever)
            thread.start()
            opening = asyncio.run_coroutine_threadsafe(layer.open(), home)
            await asyncio.wrap_future(opening)
            channel = await layer.new_channel()
            names = (channel, "jobs")
            reading = [asyncio.create_task(layer.receive(name)) for name in names]
            await sender.send(channel, {"n": 0})
            assert await reading[0] == {"n": 0}
            reading[0] = asyncio.create_task(layer.receive(channel))
            home.call_soon_threadsafe(home.stop)
            await asyncio.to_thread(thread.join)
            if is_closed:
                home.close()
            for name, task in zip(names, reading, strict=True):
                await sender.send(name, {"to": name})
                assert await task == {"to": name}
            await layer.close()
            if not is_closed:
                home.close()

    asyncio.run(main())


def test_what_is_sent_before_its_owner_knows_that_the_server_forgot_is_there(server, proxy):
    """The sender has come back first, and the server does not know the owner yet."""

    async def main():
        async with AsyncExitStack() as stack:
            (here,) = await opened(stack, server.url, 1)
            (there,) = await opened(stack, proxy.url, 1)
            channels = [await there.new_channel() for _ in range(2)]
            for round_ in range(3):
                proxy.delay = lambda: 0.3
                server.ask("FLUSHALL")
                await repeated(lambda: here.send(channels[0], {"n": -1}))
                for number in range(20):
                    await here.send(channels[number % 2], {"n": number})
                proxy.delay = lambda: 0.0
                first = [(await there.receive(channels[0]))["n"] for _ in range(11)]
                second = [(await there.receive(channels[1]))["n"] for _ in range(10)]
                assert first == [-1, *range(0, 20, 2)], round_
                assert second == list(range(1, 20, 2)), round_

    asyncio.run(main())


def test_what_comes_late_over_a_connection_that_was_given_up_is_not_done(server):
    """The client has said good-bye over another one since."""
    layer = RedisChannelLayer(server.url, "test")

    async def use():
        async with layer:
            await layer.send("jobs", {})
            assert await layer.receive("jobs") == {}
            session = layer._backend._session
            pending, era = session.home.lane._pending, session.home.lane.era
            first = str(pending.first)
            times = ["60000", "60000"]
            return ["test:1:", session.client.id, str(pending.number), era, *times, first, "0"]

    head = asyncio.run(use())
    late = ["send", "7", "jobs", "", "", "100", "60000", "late", "1"]
    assert b"era" in server.ask("EVAL", BATCH.text, "0", *head, *late)
    left = ["test:1:era", "test:1:tally", "test:1:tally:jobs"]
    assert server.keys("*") == left  # neither a message nor anything of the client


def test_what_a_server_that_forgot_has_not_done_is_done_all_the_same(server):
    """Its answer says so; nobody has to guess whether it was done."""

    async def main():
        async with (
            RedisChannelLayer(server.url, "test") as here,
            RedisChannelLayer(server.url, "test") as there,
        ):
            own = await there.new_channel()
            await there.open()
            for number in range(4):
                server.ask("FLUSHALL")
                await here.send(own, {"n": number})
                assert await there.receive(own) == {"n": number}

    asyncio.run(main())


def test_a_member_that_others_have_added_goes_with_its_client_on_every_shard(shards):
    """Its client may never have been at the shard of the group."""

    async def main():
        hosts = shards.hosts
        async with RedisChannelLayer(hosts, "test", lease=1) as here:
            groups = [f"room-{n}" for n in range(12)]  # on every shard
            own = await here.new_channel()
            for group in groups:
                await here.group_add(group, own)
            for group in groups:
                async with RedisChannelLayer(hosts, "test", lease=1) as there:
                    await here.group_add(group, await there.new_channel())
            for group in groups:
                await repeated_until(here.group_channels, group, [own])

    asyncio.run(main())


def test_a_member_that_others_have_added_goes_with_a_client_that_dies(shards):
    """It has never been at the shard of the group, whose clients look after it all the same."""

    async def main():
        hosts = shards.hosts
        async with RedisChannelLayer(hosts, "test", lease=1) as here:
            groups = [f"room-{n}" for n in range(12)]
            dying = RedisChannelLayer(hosts, "test", lease=1)
            await dying.open()
            channel = await dying.new_channel()
            for group in groups:
                await here.group_add(group, channel)
                assert await here.group_channels(group) == [channel]
            dying._backend._session.close = instead_of_closing(dying._backend._session)
            await dying.close()
            for group in groups:
                await repeated_until(here.group_channels, group, [])

    asyncio.run(main())


def test_a_membership_that_has_ended_is_listed_by_no_other_client(server):
    async def main():
        options = {"group_expiry": 0.3, "renew_memberships": False}
        async with AsyncExitStack() as stack:
            here, there = await opened(stack, server.url, 2, **options)
            for n in range(5):
                group, channel = f"g{n}", await here.new_channel()
                await here.group_add(group, channel)
                assert await there.group_channels(group) == [channel]
                while await here.group_channels(group):  # noqa: ASYNC110
                    await asyncio.sleep(0.001)
                assert await there.group_channels(group) == []

    asyncio.run(main())


def test_copies_for_channels_of_no_client_are_there_when_the_call_returns(server):
    async def main():
        async with RedisChannelLayer(server.url, "test") as layer:
            channels = ["jobs", "body?1", "specific.nobody!1"]
            for channel in channels:
                await layer.group_add("g", channel)
            await layer.group_send("g", {})
            queues = [server.ints("LLEN", key) for key in server.keys("*:q:*")]  # at once
            assert queues == [1] * len(channels)

    asyncio.run(main())


def test_a_copy_that_cannot_be_queued_is_told(server):
    """The members of clients have theirs by then."""

    async def main():
        async with RedisChannelLayer(server.url, "test", timeout=1, lease=60) as layer:
            await layer.group_add("g", "jobs")
            lane = layer._backend._session.home.lane
            post = lane.post

            def post_too_late(name, *words, **options):
                if name == "queue":
                    server.stop()
                return post(name, *words, **options)

            lane.post = post_too_late
            with pytest.raises(BackendTimeout):
                await layer.group_send("g", {})
            server.go_on()

    asyncio.run(main())


def test_groups_without_members_leave_no_name_behind(server):
    async def main():
        async with AsyncExitStack() as stack:
            (lasting,) = await opened(stack, server.url, 1)
            (brief,) = await opened(stack, server.url, 1, group_expiry=0.2)
            await lasting.group_add("stays", await lasting.new_channel())
            for n in range(100):
                await lasting.group_add(f"left{n}", "jobs")
                await lasting.group_discard(f"left{n}", "jobs")
            (names,) = server.keys("*:rg:*")
            assert server.ints("SCARD", names) == 1
            for n in range(100):
                await brief.group_add(f"ended{n}", "jobs")
            await until(lambda: server.ints("SCARD", names) == 1, "only one group is known", 30)

    asyncio.run(main())


@pytest.mark.parametrize("late", ["home", "group"])
def test_a_member_that_is_added_while_shards_are_flushed_one_after_the_other(shards, proxies, late):
    """It is one for everybody, or for nobody."""

    async def main():
        named = [{"address": one.url, "name": f"s{n}"} for n, one in enumerate(shards.servers)]
        ways = [{"address": proxy.url, "name": f"s{n}"} for n, proxy in enumerate(proxies)]
        async with (
            RedisChannelLayer(named, "test") as owner,
            RedisChannelLayer(named, "test") as adder,
            RedisChannelLayer(ways, "test") as flusher,
        ):
            ring = owner._backend._session.ring
            home, channel = ring.of(owner._client), await owner.new_channel()
            group = next(name for name in map(str, range(99)) if ring.of(name) != home)
            slow = home if late == "home" else ring.of(group)
            await flusher.group_add(group, "jobs")  # which is gone when its shard is flushed
            await flusher.send(channel, {"n": "old"})  # and this when the owner has heard of it
            proxies[slow].delay = lambda: 0.5
            flushing = asyncio.create_task(flusher.flush())
            if late == "home":
                while await adder.group_channels(group):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            else:
                while (await adder.channel_statistics(channel))["messages_pending"]:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            await adder.group_add(group, channel)
            proxies[slow].delay = lambda: 0.0
            await flushing
            while await is_member(owner, adder, group, channel) is None:  # noqa: ASYNC110
                await asyncio.sleep(0.05)

    asyncio.run(main())


async def is_member(owner, adder, group, channel):
    """Whether a member is listed, by everybody, and served; None where they disagree."""
    listed = {channel in await layer.group_channels(group) for layer in (owner, adder)}
    await adder.group_send(group, {"n": "copy"})
    await adder.send(channel, {"n": "end"})
    served = await owner.receive(channel) == {"n": "copy"}
    if served:
        assert await owner.receive(channel) == {"n": "end"}
    return served if listed == {served} else None


def instead_of_closing(session):
    """Return what ends a session as the end of its process does: nobody is told."""

    async def end():
        session.is_closing = True
        tasks = [*session.workers.stop(), *session.leases.stop()]
        for shard in session.shards:
            tasks += [*shard.stop_listening(), *shard.lane.stop()]
        await asyncio.gather(*tasks, return_exceptions=True)

    return end


async def repeated_until(call, group, expected):
    async with asyncio.timeout(60):
        while await call(group) != expected:  # noqa: ASYNC110  # nobody tells
            await asyncio.sleep(0.05)
