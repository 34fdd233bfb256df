"""How long a membership lasts: as long as its reader."""

from __future__ import annotations

from functools import partial
from typing import Final

import anyio

from ._check import Layer, LayerMaker, check
from ._tools import drained, line, member, poll, until
from .expiry import EXPIRY, PAST, next_fresh

BRIEF: Final = 0.15  # seconds a membership or an idle reader lasts here
LATER: Final = 0.7  # seconds after which a membership of RENEWED seconds was renewed, or is gone
RENEWED: Final = 0.3  # seconds; long enough to be renewed even by a machine that stumbles


async def _gone(layer: Layer, group: str, channel: str) -> bool:
    return channel not in await layer.group_channels(group)


@check("semantics 6", needs=["real time"])
async def an_unread_channel_without_reader_leaves_its_groups(make: LayerMaker) -> None:
    """When its messages expire unread, a process-specific channel is no member any more."""
    layer = await make(expiry=EXPIRY)
    unread, other = await member(layer, "one", "two"), await member(layer, "one")
    await layer.send(unread, {"n": 1})
    await until(partial(_gone, layer, "one", unread))
    await until(partial(_gone, layer, "two", unread))
    assert await layer.group_channels("one") == [other]


@check("semantics 6", needs=["real time"])
async def an_unread_group_message_counts_as_unread(make: LayerMaker) -> None:
    """Nobody reads the group's messages either."""
    layer = await make(expiry=EXPIRY)
    channel = await member(layer, "group")
    await layer.group_send("group", {"n": 1})
    await until(partial(_gone, layer, "group", channel))


@check("words: live reader", needs=["real time"])
async def a_reader_that_is_idle_for_long_is_no_live_reader(make: LayerMaker) -> None:
    """`idle` seconds after its last receive the channel counts as unread."""
    layer = await make(expiry=EXPIRY, idle=BRIEF)
    channel = await member(layer, "group")
    await next_fresh(layer, channel)

    async def gone() -> bool:
        # A copy that came while the reader still counted as live expires without effect.
        await layer.group_send("group", {"n": 2})
        return await _gone(layer, "group", channel)

    await until(gone)


@check("words: live reader", needs=["real time"])
async def a_reader_that_pauses_is_a_live_reader(make: LayerMaker) -> None:
    """It misses what expired, and stays in its groups."""
    layer = await make(expiry=EXPIRY)
    channel = await member(layer, "group")
    await next_fresh(layer, channel)
    await layer.send(channel, {"missed": 1})
    await anyio.sleep(2 * PAST)
    assert await layer.group_channels("group") == [channel]

    async def reached() -> bool:
        await layer.group_send("group", {"n": 1})
        return bool(await poll(partial(layer.receive, channel), EXPIRY) == {"n": 1})

    await until(reached)


@check("semantics 7", needs=["real time"])
async def a_live_reader_keeps_its_membership(make: LayerMaker) -> None:
    """Beyond group_expiry, whether it waits or pauses."""
    layer = await make(group_expiry=RENEWED)
    waits, pauses = await member(layer, "group"), await member(layer, "group")
    async with line(layer, pauses) as [reader]:
        await layer.send(pauses, {"n": 0})
        await reader.result()
    async with line(layer, waits) as [reader]:
        await anyio.sleep(LATER)
        assert sorted(await layer.group_channels("group")) == sorted([waits, pauses])
        await layer.group_send("group", {"n": 1})
        assert await reader.result() == {"n": 1}
    assert await drained(layer, pauses) == [{"n": 1}]


@check("semantics 7", needs=["real time"])
async def group_expiry_ends_what_nobody_reads(make: LayerMaker) -> None:
    """Channels that were never read and channels read long ago."""
    layer = await make(group_expiry=BRIEF, idle=BRIEF)
    never, once = await member(layer, "group"), await member(layer, "group")
    async with line(layer, once) as [reader]:
        await layer.send(once, {"n": 0})
        await reader.result()
    await until(partial(_gone, layer, "group", never))
    await until(partial(_gone, layer, "group", once))
    await layer.group_send("group", {"n": 1})
    assert await drained(layer, never) == []
    assert await drained(layer, once) == []


@check("semantics 7", needs=["real time"])
async def memberships_end_under_their_readers_without_renewal(make: LayerMaker) -> None:
    """`renew_memberships=False` is the letter of the specification."""
    layer = await make(group_expiry=BRIEF, renew_memberships=False)
    channel = await member(layer, "group")
    async with line(layer, channel) as [reader]:
        await until(partial(_gone, layer, "group", channel))
        await layer.group_send("group", {"n": 1})
        await layer.send(channel, {"n": 2})
        assert await reader.result() == {"n": 2}


@check("api: group_add", needs=["real time"])
async def adding_again_renews_the_membership(make: LayerMaker) -> None:
    """Measured from the last group_add; a machine too slow to tell tries again."""
    layer = await make(group_expiry=RENEWED, renew_memberships=False)
    for attempt in range(1, 100):
        group = f"group.{attempt}"
        channel = await member(layer, group)
        first = anyio.current_time()
        await anyio.sleep(RENEWED * 0.6)
        again = anyio.current_time()
        await layer.group_add(group, channel)
        await anyio.sleep(RENEWED * 0.6)
        members = await layer.group_channels(group)
        now = anyio.current_time()
        if again < first + RENEWED < now < again + RENEWED:
            assert members == [channel]
            return


@check("semantics 7", needs=["real time"])
async def a_normal_channel_ends_its_membership_with_group_expiry(make: LayerMaker) -> None:
    """Fractions of a second count."""
    layer = await make(group_expiry=BRIEF, renew_memberships=False)
    await layer.group_add("group", "jobs")
    await until(partial(_gone, layer, "group", "jobs"))
