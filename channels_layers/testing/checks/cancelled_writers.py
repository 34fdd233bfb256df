"""Cancelling a writer: it did all or nothing, and nothing later."""

from __future__ import annotations

from functools import partial

import anyio
import anyio.lowlevel

from ._check import LayerMaker, check
from ._tools import drained, member, started


@check("semantics 13")
async def a_cancelled_send_is_wholly_done_or_not_at_all(make: LayerMaker) -> None:
    """At most once, and never after the next operation of this client has completed."""
    layer = await make(capacity=1000)
    channel = await layer.new_channel()
    for n in range(30):
        async with started(partial(layer.send, channel, {"n": n})) as [writer]:
            for _ in range(n % 4):
                await anyio.lowlevel.checkpoint()
            writer.cancel()
            await writer.end()
        await layer.send(channel, {"after": n})
    got = await drained(layer, channel)
    assert [m["after"] for m in got if "after" in m] == list(range(30))
    for n in range(30):
        assert got.count({"n": n}) <= 1, f"message {n} came twice"
        late = got[got.index({"after": n}) + 1 :]
        assert {"n": n} not in late, f"message {n} came after the next send had returned"


@check("semantics 13")
async def a_cancelled_group_add_never_happens_later(make: LayerMaker) -> None:
    """When the group_discard after it has returned, the channel is no member."""
    layer = await make()
    channel = await layer.new_channel()
    for n in range(8):
        with anyio.CancelScope() as scope:
            scope.cancel()
            await layer.group_add("group", channel)
        await layer.group_discard("group", channel)
        await layer.group_send("group", {"n": n})
    assert await drained(layer, channel) == []


@check("semantics 13")
async def a_cancelled_group_send_reaches_every_member_or_none(make: LayerMaker) -> None:
    """Whenever it is cancelled, all members have the same messages."""
    layer = await make(capacity=1000)
    members = [await member(layer, "group") for _ in range(4)]
    for n in range(16):
        async with started(partial(layer.group_send, "group", {"n": n})) as [writer]:
            for _ in range(n % 5):
                await anyio.lowlevel.checkpoint()
            writer.cancel()
            await writer.end()
        await layer.group_send("group", {"after": n})
    first, *others = [await drained(layer, channel) for channel in members]
    assert [m["after"] for m in first if "after" in m] == list(range(16))
    assert all(got == first for got in others)
