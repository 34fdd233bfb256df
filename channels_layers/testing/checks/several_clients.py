"""Two and more clients of one prefix, in one process."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import Any

import anyio

from ._check import Layer, LayerMaker, check
from ._tools import (
    client_part,
    drained,
    fill,
    line,
    member,
    numbered,
    poll,
    receive_all,
    refused,
    send_side_by_side,
    settled,
    started,
    until,
)


@check("guarantee: shared", needs=["shared"])
async def two_clients_reach_each_other(make: LayerMaker) -> None:
    """On every kind of channel."""
    here, there = await make(), await make()
    for channel in ("jobs", await there.new_channel()):
        async with line(there, channel) as [waiter]:
            await here.send(channel, {"to": channel})
            assert await waiter.result() == {"to": channel}


@check("guarantee: shared", needs=["separate"])
async def a_layer_that_shares_nothing_is_a_world_of_its_own(make: LayerMaker) -> None:
    """Neither messages nor groups nor a flush of another layer are seen."""
    here, there = await make(), await make()
    for channel in ("jobs", "specific.nobody!x"):
        await here.send(channel, {"from": "here"})
        await there.group_add("group", channel)
    await here.group_send("group", {"from": "here"})
    await here.flush()
    assert len(await there.group_channels("group")) == 2
    for channel in ("jobs", "specific.nobody!x"):
        assert await drained(there, channel) == []


@check("api: group_add", needs=["shared"])
async def a_group_spans_clients(make: LayerMaker) -> None:
    """A message of any client reaches the members of all."""
    here, there = await make(), await make()
    members = [(layer, await member(layer, "group")) for layer in (here, there, here, there)]
    await here.group_send("group", {"n": 1})
    await there.group_send("group", {"n": 2})
    for layer, channel in members:
        got = await receive_all(layer, channel, 2)
        assert sorted(message["n"] for message in got) == [1, 2]
    listed = await here.group_channels("group")
    assert sorted(listed) == sorted(channel for _, channel in members)


@check("api: group_add", needs=["shared"])
async def a_member_is_reached_at_once_from_another_client(make: LayerMaker) -> None:
    """When group_add has returned, the next group_send of anybody arrives."""
    here, there = await make(), await make()
    for n in range(30):
        channel = await member(there, "group")
        await here.group_send("group", {"n": n})
        assert await there.receive(channel) == {"n": n}
        await there.group_discard("group", channel)
        await here.group_send("group", {"missed": n})
        assert await drained(there, channel) == []


@check("api: group_add", needs=["shared"])
async def a_client_may_add_the_channel_of_another(make: LayerMaker) -> None:
    """The owner gets the message; whoever discards it, it is gone."""
    here, there = await make(), await make()
    channel = await there.new_channel()
    await here.group_add("group", channel)
    for n, layer in enumerate((here, there)):
        await layer.group_send("group", {"n": n})
        assert await there.receive(channel) == {"n": n}
    await there.group_discard("group", channel)
    await here.group_send("group", {"n": 2})
    assert await drained(there, channel) == []


@check("api: group_add", needs=["shared"])
async def a_channel_added_by_two_clients_is_one_member(make: LayerMaker) -> None:
    """One copy, and one discard removes it."""
    here, there = await make(), await make()
    channel = await there.new_channel()
    await here.group_add("group", channel)
    await there.group_add("group", channel)
    await here.group_send("group", {"n": 1})
    assert await drained(there, channel) == [{"n": 1}]
    await here.group_discard("group", channel)
    await there.group_send("group", {"n": 2})
    assert await drained(there, channel) == []


@check("api: receive", needs=["shared"])
async def receiving_on_the_channel_of_another_live_client_is_an_error(make: LayerMaker) -> None:
    """By its full name, its non-local part, and among several; the owner loses nothing."""
    here, there = await make(), await make()
    channel = await there.new_channel()
    await fill(there, channel, 2)
    part = client_part(channel)
    calls: dict[str, Any] = {
        "receive": partial(here.receive, channel),
        "receive of the non-local part": partial(here.receive, part),
        "receive_from": partial(here.receive_from, ["jobs", channel]),
    }
    for name, call in calls.items():
        await refused(call, Exception, what=name)
    assert await drained(there, channel) == numbered(2)


@check("semantics 1", needs=["shared"])
async def competing_workers_share_the_messages(make: LayerMaker) -> None:
    """Workers of three clients on one normal channel get each message once."""
    clients = [await make(capacity=1000) for _ in range(3)]
    got: list[int] = []

    async def work(layer: Layer) -> None:
        while True:
            got.append((await layer.receive("jobs"))["n"])

    async with started(*(partial(work, layer) for layer in clients * 2)):
        await fill(clients[0], "jobs", 120)
        await until(partial(_has_all, got, 120))
        await settled()
    assert sorted(got) == list(range(120))


async def _has_all(got: list[int], count: int) -> bool:
    return len(set(got)) >= count


@check("semantics 2", needs=["shared"])
async def a_worker_that_gives_up_leaves_the_message_to_another_client(make: LayerMaker) -> None:
    """Cancelling a receive hands nothing to nobody."""
    here, there = await make(), await make()
    for n in range(10):
        async with line(here, "jobs") as [mine], line(there, "jobs") as [theirs]:
            doomed, other = (mine, theirs) if n % 2 else (theirs, mine)
            doomed.cancel()
            await here.send("jobs", {"n": n})
            await doomed.end()
            got = doomed.got if doomed.got is not None else await other.result()
            assert got == {"n": n}


@check("semantics 4", needs=["shared"])
async def one_writer_is_heard_in_order_by_another_client(make: LayerMaker) -> None:
    """Direct and group messages together."""
    here, there = await make(), await make()
    channel = await member(there, "group")
    for n in range(0, 60, 2):
        await here.send(channel, {"n": n})
        await here.group_send("group", {"n": n + 1})
    assert await drained(there, channel) == numbered(60)


@check("semantics 4", needs=["shared"])
async def one_order_holds_for_calls_side_by_side(make: LayerMaker) -> None:
    """What the tasks of one loop send, directly and to groups, to channels of both kinds."""
    here, there = await make(capacity=1000), await make(capacity=1000)
    for channel in (await there.new_channel(), "http.body?side-by-side"):
        groups = [f"{channel[:4]}.{n}" for n in range(4)]
        for group in groups:
            await here.group_add(group, channel)
        called = await send_side_by_side(here, channel, *groups)
        assert await drained(there, channel) == called


@check("semantics 5", needs=["shared"])
async def copies_and_direct_messages_share_the_capacity(make: LayerMaker) -> None:
    """However they mix, a channel holds no more; what was accepted directly is there."""
    here, there = await make(capacity=10), await make(capacity=10)
    channel = await member(there, "group")
    accepted = []
    for n in range(40):
        await here.group_send("group", {"copy": n})
        if n >= 5:
            with contextlib.suppress(here.ChannelFull):
                await here.send(channel, {"n": n})
                accepted.append(n)
    got: list[Any] = []
    while [message["n"] for message in got if "n" in message] != accepted:
        got.append(await there.receive(channel))
    while (message := await poll(partial(there.receive, channel), 0.2)) is not None:
        got.append(message)
    assert len(got) <= 10, got


@check("semantics 5", needs=["shared"])
async def the_capacity_is_one_whoever_sends(make: LayerMaker) -> None:
    """Exactly `capacity` messages, from both clients together."""
    here, there = await make(capacity=4), await make(capacity=4)
    for channel in ("jobs", await there.new_channel()):
        for layer in (here, there, here, there):
            await layer.send(channel, {"n": 1})
        for layer in (here, there):
            send = partial(layer.send, channel, {"n": 1})
            await refused(send, layer.ChannelFull, what=channel)
        await there.receive(channel)
        await here.send(channel, {"n": 2})
        await refused(partial(there.send, channel, {}), there.ChannelFull, what=channel)


@check("semantics 4", needs=["shared"])
async def two_writers_at_once_are_each_heard_in_order(make: LayerMaker) -> None:
    """Their messages may mix, but neither writer's are reordered or lost."""
    here, there = await make(capacity=1000), await make(capacity=1000)
    channel = await there.new_channel()

    async def write(layer: Layer, name: str) -> None:
        for n in range(40):
            await layer.send(channel, {"from": name, "n": n})

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(write, here, "here")
        tasks.start_soon(write, there, "there")
    got = await drained(there, channel)
    for name in ("here", "there"):
        assert [m["n"] for m in got if m["from"] == name] == list(range(40))


@check("semantics 5", needs=["shared"])
async def what_a_reader_took_makes_room_for_another_client(make: LayerMaker) -> None:
    """As many as were read are accepted again, however full the channel still is."""
    for capacity, read in ((1, 1), (4, 3), (17, 15), (100, 99)):
        here, there = await make(capacity=capacity), await make(capacity=capacity)
        channel = await there.new_channel()
        await fill(here, channel, capacity)
        await receive_all(there, channel, read)
        for _ in range(read):
            await until(partial(_is_accepted, here, channel))
        assert not await _is_accepted(here, channel), capacity


async def _is_accepted(layer: Layer, channel: str) -> bool:
    try:
        await layer.send(channel, {"more": 1})
    except layer.ChannelFull:
        return False
    return True


@check("semantics 6", needs=["shared", "real time"])
async def a_member_that_left_unread_is_listed_by_nobody(make: LayerMaker) -> None:
    """Its owner notices that its messages expired; all clients hear of it."""
    here, there = await make(expiry=0.1), await make(expiry=0.1)
    channel = await member(there, "group")
    await here.send(channel, {"n": 1})

    async def gone() -> bool:
        lists = [await layer.group_channels("group") for layer in (there, here)]
        return lists == [[], []]

    await until(gone)


@check("semantics 7", needs=["shared", "real time"])
async def a_member_whose_time_is_over_is_listed_by_nobody(make: LayerMaker) -> None:
    """Also where its owner has no reason to look at it, only others ask, and somebody reads."""
    here, there = [await make(group_expiry=0.2, renew_memberships=False) for _ in range(2)]
    channel = await member(there, "group", "other")

    async def gone() -> bool:
        return [await here.group_channels(group) for group in ("group", "other")] == [[], []]

    async with line(there, channel) as [reader]:
        await until(gone)
        await here.send(channel, {"n": 1})
        assert await reader.result() == {"n": 1}


@check("api: close", needs=["shared"])
async def closing_in_the_middle_of_traffic_loses_no_normal_message(make: LayerMaker) -> None:
    """Receivers poll while their layer closes and opens; each message comes once."""
    here, there = await make(capacity=1000), await make(capacity=1000)
    got: list[int] = []

    async def work(seconds: float) -> None:
        while True:
            with contextlib.suppress(Exception):  # LayerClosed, by any name
                message = await poll(partial(there.receive, "jobs"), seconds)
                got.extend([] if message is None else [message["n"]])

    async def close_again_and_again() -> None:
        pause = 0.02
        while True:
            await anyio.sleep(pause)
            await there.close()
            pause *= 1.05  # on a slow machine opening may take as long as that

    workers = [partial(work, 0.001 * n) for n in (1, 2, 3)]
    async with started(*workers, close_again_and_again):
        for n in range(300):
            await here.send("jobs", {"n": n})
            await anyio.sleep(0.001)
        await until(partial(_has_all, got, 300))
    assert sorted(got) == list(range(300))


@check("semantics 4", needs=["shared"])
async def large_messages_keep_their_place_among_small_ones(make: LayerMaker) -> None:
    """Sent at once by the tasks of one loop, directly and to a group, to another client."""
    here, there = await make(), await make()
    channel = await member(there, "group")
    sizes = [10, 300_000, 10, 70_000, 10, 10, 300_000, 10]
    messages = [{"n": n, "pad": "x" * size} for n, size in enumerate(sizes)]
    for send, target in ((here.send, channel), (here.group_send, "group")):
        async with started(*[partial(send, target, message) for message in messages]) as waiters:
            for waiter in waiters:
                await waiter.result()
        got = await receive_all(there, channel, len(sizes))
        assert [message["n"] for message in got] == list(range(len(sizes)))


@check("semantics 4", needs=["shared"])
async def the_first_calls_of_many_tasks_keep_their_order(make: LayerMaker) -> None:
    """Those that open the layer, and those that come while it is being opened."""
    there = await make()
    channel = await there.new_channel()
    await there.send(channel, {"n": -1})
    assert await there.receive(channel) == {"n": -1}
    here = await make()
    calls = [partial(here.send, channel, {"n": n}) for n in range(10)]
    async with started(*calls) as waiters:
        for waiter in waiters:
            await waiter.result()
    assert await receive_all(there, channel, 10) == numbered(10)
