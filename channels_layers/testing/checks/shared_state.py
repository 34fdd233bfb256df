"""Several clients of one prefix: flush, close and statistics reach across them."""

from __future__ import annotations

from functools import partial

from ._check import Layer, LayerMaker, check
from ._tools import drained, fill, line, member, receive_all, refused, until


async def _has_no_members(layer: Layer, group: str) -> bool:
    return await layer.group_channels(group) == []


@check("api: flush", needs=["shared"])
async def a_flush_reaches_every_client(make: LayerMaker) -> None:
    """When it has returned, the other client has let go of what it held."""
    here, there = await make(), await make()
    first, second = await member(there, "group"), await member(there, "group")
    await here.group_send("group", {"old": 1})
    await fill(here, "jobs", 2)
    assert await there.receive(first) == {"old": 1}
    await here.flush()
    assert await drained(there, second) == []
    assert await there.group_channels("group") == []
    await there.group_send("group", {"old": 2})
    assert await drained(there, first) == []
    await here.send("jobs", {"new": 1})
    assert await there.receive("jobs") == {"new": 1}


@check("api: flush", needs=["shared"])
async def receivers_of_other_clients_wait_on_after_a_flush(make: LayerMaker) -> None:
    """And get what is sent afterwards."""
    here, there = await make(), await make()
    channel = await there.new_channel()
    async with line(there, channel, "jobs") as waiters:
        await here.flush()
        await here.send(channel, {"n": 1})
        await here.send("jobs", {"n": 2})
        assert [await waiter.result() for waiter in waiters] == [{"n": 1}, {"n": 2}]


@check("api: flush", needs=["shared"])
async def a_copy_that_is_on_its_way_to_nobody_is_flushed(make: LayerMaker) -> None:
    """When group_send has returned, also the members that no client owns have their copies."""
    here, there = await make(), await make()
    channels = [f"body?{n}" for n in range(20)]
    for n in range(3):
        for channel in channels:
            await here.group_add("group", channel)
        await here.group_send("group", {"n": n})
        await there.flush()
        for channel in channels:
            assert await drained(here, channel) == []


@check("api: close", needs=["shared"])
async def a_closed_client_is_in_no_group(make: LayerMaker) -> None:
    """Its memberships go, those of the others stay."""
    here, there = await make(), await make()
    await member(there, "group", "alone")
    stays = await member(here, "group")
    await there.close()
    await until(partial(_has_no_members, here, "alone"))
    await here.group_send("group", {"n": 1})
    assert await drained(here, stays) == [{"n": 1}]
    assert await here.group_channels("group") == [stays]


@check("api: close", needs=["shared"])
async def a_closed_client_hands_its_normal_messages_to_others(make: LayerMaker) -> None:
    """Those it had not given to a receiver."""
    here, there = await make(), await make()
    await fill(there, "jobs", 4)
    got = [(await there.receive("jobs"))["n"]]
    await there.close()
    got += [(await here.receive("jobs"))["n"] for _ in range(3)]
    assert sorted(got) == [0, 1, 2, 3]


@check("api: close", needs=["shared"])
async def closing_one_client_leaves_the_others_open(make: LayerMaker) -> None:
    """Their receivers wait on."""
    here, there = await make(), await make()
    channel = await here.new_channel()
    async with line(here, channel, "jobs") as waiters:
        await there.send(channel, {"n": 1})
        await there.close()
        await there.send("jobs", {"n": 2})
        assert [await waiter.result() for waiter in waiters] == [{"n": 1}, {"n": 2}]


@check("api: statistics", needs=["shared"])
async def statistics_count_all_clients(make: LayerMaker) -> None:
    """Every client says the same, at most one beat later."""
    here, there = await make(), await make()
    before = [(await layer.statistics())["messages_count"] for layer in (here, there)]
    await fill(here, "jobs", 2)
    await fill(there, await here.new_channel(), 3)

    async def agreed() -> bool:
        got = [await layer.statistics() for layer in (here, there)]
        counts = [one["messages_count"] - was for one, was in zip(got, before, strict=True)]
        return counts == [5, 5] and [one["messages_pending"] for one in got] == [5, 5]

    await until(agreed)


@check("api: statistics", needs=["shared"])
async def statistics_keep_what_closed_clients_have_counted(make: LayerMaker) -> None:
    """No number of the prefix goes back while another client lives."""
    here, there = await make(), await make(capacity=2)
    before = await here.statistics()
    channel = await member(there, "group")
    await fill(there, channel, 2)
    await refused(partial(there.send, channel, {}), there.ChannelFull, what=channel)
    await there.group_send("group", {})
    await receive_all(there, channel, 2)
    await there.close()
    after = await here.statistics()
    assert after["messages_count"] - before["messages_count"] == 2
    assert after["channel_full_count"] - before["channel_full_count"] == 1
    assert after["dropped_count"]["full"] - before["dropped_count"]["full"] == 1
