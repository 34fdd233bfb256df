"""Groups: who is a member, and what a member gets."""

from __future__ import annotations

from functools import partial

import anyio

from ._check import LayerMaker, check
from ._tools import client_part, drained, fill, line, member, refused


@check("api: group_send")
async def every_member_gets_one_copy(make: LayerMaker) -> None:
    """And nobody else gets any."""
    layer = await make()
    members = [await member(layer, "group") for _ in range(20)]
    outsider = await member(layer, "other")
    await layer.group_send("group", {"n": 1})
    for channel in members:
        assert await drained(layer, channel) == [{"n": 1}]
    assert await drained(layer, outsider) == []


@check("api: group_send")
async def waiting_members_are_woken(make: LayerMaker) -> None:
    """A receive that began before the group_send returns with the copy."""
    layer = await make()
    members = [await member(layer, "group") for _ in range(5)]
    async with line(layer, *members) as waiters:
        await layer.group_send("group", {"n": 1})
        assert [await waiter.result() for waiter in waiters] == [{"n": 1}] * 5


@check("api: group_send")
async def a_group_without_members_swallows_the_message(make: LayerMaker) -> None:
    """No error, and a member that comes later does not get it."""
    layer = await make()
    await layer.group_send("nobody", {"n": 1})
    channel = await member(layer, "nobody")
    await layer.group_discard("nobody", channel)
    await layer.group_send("nobody", {"n": 2})
    await layer.group_add("nobody", channel)
    assert await drained(layer, channel) == []


@check("api: group_add")
async def adding_twice_makes_one_member(make: LayerMaker) -> None:
    """One copy comes, and one discard is enough."""
    layer = await make()
    channel = await member(layer, "group", "group", "group")
    await layer.group_send("group", {"n": 1})
    assert await drained(layer, channel) == [{"n": 1}]
    await layer.group_discard("group", channel)
    await layer.group_send("group", {"n": 2})
    assert await drained(layer, channel) == []


@check("api: group_add")
async def adding_works_at_once(make: LayerMaker) -> None:
    """The next group_send reaches the member, every time."""
    layer = await make()
    for n in range(50):
        channel = await member(layer, "group")
        await layer.group_send("group", {"n": n})
        assert await layer.receive(channel) == {"n": n}
        await layer.group_discard("group", channel)


@check("api: group_discard")
async def discarding_works_at_once(make: LayerMaker) -> None:
    """The next group_send misses the channel; what came before stays."""
    layer = await make()
    channel = await member(layer, "group")
    await layer.group_send("group", {"n": 1})
    await layer.group_discard("group", channel)
    await layer.group_send("group", {"n": 2})
    await layer.group_add("group", channel)
    await layer.group_send("group", {"n": 3})
    assert await drained(layer, channel) == [{"n": 1}, {"n": 3}]


@check("api: group_discard")
async def discarding_what_is_no_member_is_no_error(make: LayerMaker) -> None:
    """Neither in an unknown group nor twice, and nobody else leaves."""
    layer = await make()
    channel, other = await member(layer, "group"), await layer.new_channel()
    await layer.group_discard("unknown", channel)
    await layer.group_discard("group", other)
    await layer.group_discard("group", "never.seen")
    await layer.group_discard("group", other)
    await layer.group_send("group", {"n": 1})
    assert await drained(layer, channel) == [{"n": 1}]


@check("api: group_add")
async def any_kind_of_channel_may_join(make: LayerMaker) -> None:
    """Own, unowned and normal channels are all served."""
    layer = await make()
    channels = ["jobs", "specific.nobody!x", await layer.new_channel("other")]
    for channel in channels:
        await layer.group_add("group", channel)
    await layer.group_send("group", {"n": 1})
    for channel in channels:
        assert await layer.receive(channel) == {"n": 1}


@check("api: group_add")
async def a_normal_channel_in_a_group_gives_each_message_to_one_reader(make: LayerMaker) -> None:
    """A channel is one member, however many read it."""
    layer = await make()
    await layer.group_add("group", "jobs")
    async with line(layer, "jobs", "jobs") as waiters:
        await layer.group_send("group", {"n": 1})
        await layer.group_send("group", {"n": 2})
        got = [(await waiter.result())["n"] for waiter in waiters]
    assert sorted(got) == [1, 2]


@check("words: group")
async def a_channel_may_be_in_many_groups(make: LayerMaker) -> None:
    """Leaving one of them leaves the others alone."""
    layer = await make()
    channel = await member(layer, "one", "two", "three")
    await layer.group_discard("two", channel)
    for group in ("one", "two", "three"):
        await layer.group_send(group, {"from": group})
    assert await drained(layer, channel) == [{"from": "one"}, {"from": "three"}]


@check("api: group_send")
async def group_messages_keep_their_order(make: LayerMaker) -> None:
    """At every member alike."""
    layer = await make()
    members = [await member(layer, "group") for _ in range(3)]
    for n in range(40):
        await layer.group_send("group", {"n": n})
    for channel in members:
        assert await drained(layer, channel) == [{"n": n} for n in range(40)]


@check("api: group_send")
async def a_reader_of_the_non_local_part_gets_the_copies(make: LayerMaker) -> None:
    """One for each member behind it."""
    layer = await make()
    first, second = await member(layer, "group"), await member(layer, "group")
    assert client_part(first) == client_part(second)
    await layer.group_send("group", {"n": 1})
    async with line(layer, *[client_part(first)] * 2) as waiters:
        assert [await waiter.result() for waiter in waiters] == [{"n": 1}] * 2
    assert await drained(layer, first) == []


@check("api: group_channels")
async def group_channels_lists_the_members(make: LayerMaker) -> None:
    """Each once, in a list; none for a group that nobody joined."""
    layer = await make()
    channels = {
        "jobs",
        "specific.nobody!x",
        await layer.new_channel(),
        await layer.new_channel("a"),
    }
    assert await layer.group_channels("group") == []
    for channel in sorted(channels) * 2:
        await layer.group_add("group", channel)
    got = await layer.group_channels("group")
    assert isinstance(got, list), type(got)
    assert sorted(got) == sorted(channels)


@check("api: group_channels")
async def group_channels_forgets_who_left(make: LayerMaker) -> None:
    """At once, and in that group alone."""
    layer = await make()
    first, second = await member(layer, "one", "two"), await member(layer, "one")
    await layer.group_discard("one", first)
    assert await layer.group_channels("one") == [second]
    assert await layer.group_channels("two") == [first]
    await layer.group_discard("one", second)
    assert await layer.group_channels("one") == []


@check("api: group_channels")
async def the_list_of_group_channels_is_a_copy(make: LayerMaker) -> None:
    """Changing it changes no membership."""
    layer = await make()
    channel = await member(layer, "group")
    (await layer.group_channels("group")).clear()
    assert await layer.group_channels("group") == [channel]


@check("names")
async def group_channels_refuses_bad_names(make: LayerMaker) -> None:
    """With a TypeError, like every other call."""
    layer = await make()
    for name in ("no spaces", "a\n", "a!b", "a?b", "", "x" * 101):
        await refused(partial(layer.group_channels, name), TypeError, what=repr(name))


@check("api: group_send")
async def a_large_group_is_served_in_full(make: LayerMaker) -> None:
    """Three hundred members, each with one copy of each message."""
    layer = await make()
    members = [await member(layer, "group") for _ in range(300)]
    for n in range(2):
        await layer.group_send("group", {"n": n})
    for channel in members:
        assert await layer.receive(channel) == {"n": 0}
        assert await layer.receive(channel) == {"n": 1}


@check("api: group_add")
async def many_may_join_and_leave_at_once(make: LayerMaker) -> None:
    """Concurrent calls leave exactly those who stayed."""
    layer = await make()
    channels = [await layer.new_channel() for _ in range(20)]

    async def join(index: int) -> None:
        await layer.group_add("group", channels[index])
        if index % 2:
            await layer.group_discard("group", channels[index])

    async with anyio.create_task_group() as tasks:
        for index in range(20):
            tasks.start_soon(partial(join, index))
    await layer.group_send("group", {"n": 1})
    for index, channel in enumerate(channels):
        assert await drained(layer, channel) == ([] if index % 2 else [{"n": 1}])


@check("api: group_discard")
async def a_channel_that_left_still_receives_directly(make: LayerMaker) -> None:
    """Leaving a group is not leaving the layer."""
    layer = await make()
    channel = await member(layer, "group")
    await layer.group_discard("group", channel)
    sent = await fill(layer, channel, 3)
    assert await drained(layer, channel) == sent
