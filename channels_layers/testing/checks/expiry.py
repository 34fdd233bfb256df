"""Messages that nobody reads in time: never delivered, never in the way, always counted.

These checks wait for real time to pass. A slow machine only makes the expired more expired, and
what must still be fresh is sent again until it arrives, so none of them asserts a maximum.
"""

from __future__ import annotations

import contextlib
from functools import partial
from typing import Any, Final

import anyio

from ._check import Layer, LayerMaker, check
from ._tools import client_part, fill, member, poll, refused, until

EXPIRY: Final = 0.1  # seconds a message may wait here
PAST: Final = 0.2  # seconds after which it has surely expired
OLD: Final = {"message": "old"}
NEW: Final = {"message": "new"}


async def next_fresh(layer: Layer, channel: str, *, name: str = "") -> Any:
    """Send `NEW` until anything arrives, and return what did."""
    while True:
        with contextlib.suppress(layer.ChannelFull):
            await layer.send(channel, NEW)
        got = await poll(partial(layer.receive, name or channel), EXPIRY)
        if got is not None:
            return got


@check("semantics 6", needs=["real time"])
async def an_expired_message_is_never_delivered(make: LayerMaker) -> None:
    """On every kind of channel; the one sent after it comes instead."""
    layer = await make(expiry=EXPIRY)
    channels = ["jobs", "specific.nobody!x", await layer.new_channel()]
    for channel in channels:
        await layer.send(channel, OLD)
    await anyio.sleep(PAST)
    for channel in channels:
        assert await next_fresh(layer, channel) == NEW, channel


@check("semantics 6", needs=["real time"])
async def an_expired_group_message_is_never_delivered(make: LayerMaker) -> None:
    """The copy of a member that does not read expires like a direct message."""
    layer = await make(expiry=EXPIRY)
    channel = await member(layer, "group")
    await layer.group_send("group", OLD)
    await anyio.sleep(PAST)
    assert await next_fresh(layer, channel) == NEW


@check("semantics 2", needs=["real time"])
async def what_nobody_reads_is_counted(make: LayerMaker) -> None:
    """Also on channels of no client that nobody touches again."""
    layer = await make(expiry=EXPIRY)
    channels = ["never.read", "never?read", "specific.nobody!x", await layer.new_channel()]
    for channel in channels:
        await layer.send(channel, OLD)

    async def are_counted() -> bool:
        counted = (await layer.statistics())["dropped_count"]["expired"]
        return bool(counted == len(channels))

    await until(are_counted)


@check("semantics 6", needs=["real time"])
async def a_message_expires_also_when_it_is_already_in_this_process(make: LayerMaker) -> None:
    """Receiving for one local part does not keep alive what came along for another."""
    layer = await make(expiry=EXPIRY)
    first, second = await layer.new_channel(), await layer.new_channel()
    await layer.send(first, OLD)
    assert await next_fresh(layer, second) == NEW
    await anyio.sleep(PAST)
    assert await next_fresh(layer, first, name=first) == NEW
    await layer.send(second, OLD)
    await anyio.sleep(PAST)
    assert await next_fresh(layer, first, name=client_part(first)) == NEW


@check("semantics 6", needs=["real time"])
async def a_busy_queue_keeps_no_message_alive(make: LayerMaker) -> None:
    """New messages behind it do not renew an old one."""
    layer = await make(expiry=EXPIRY)
    channel = await layer.new_channel()
    await layer.send(channel, OLD)
    for _ in range(10):
        await anyio.sleep(PAST / 10)
        await layer.send(channel, NEW)
    assert await next_fresh(layer, channel) == NEW


@check("semantics 6", needs=["real time"])
async def expired_messages_make_room(make: LayerMaker) -> None:
    """A channel that was full accepts again when nobody read it."""
    layer = await make(expiry=EXPIRY, capacity=2)
    channel = await layer.new_channel()

    async def is_full() -> bool:
        await fill(layer, channel, 2)
        try:
            await layer.send(channel, OLD)
        except layer.ChannelFull:
            return True
        return False

    with contextlib.suppress(layer.ChannelFull):
        await until(is_full)
    await anyio.sleep(PAST)
    await layer.send(channel, NEW)
    assert await next_fresh(layer, channel) == NEW


@check("words: expiry", needs=["real time"])
async def an_expiry_may_be_a_fraction(make: LayerMaker) -> None:
    """A third of a second is neither nothing nor one."""
    layer = await make(expiry=0.3)
    channel = await layer.new_channel()
    assert await next_fresh(layer, channel) == NEW
    while await poll(partial(layer.receive, channel), 0) is not None:
        pass
    await layer.send(channel, OLD)
    await anyio.sleep(0.45)
    assert await next_fresh(layer, channel) == NEW


@check("semantics 6")
async def a_message_that_has_time_left_is_delivered(make: LayerMaker) -> None:
    """A long expiry drops nothing."""
    layer = await make(expiry=3600)
    channel = await layer.new_channel()
    await layer.send(channel, NEW)
    await anyio.sleep(0.01)
    assert await layer.receive(channel) == NEW


@check("semantics 6", needs=["real time"])
async def an_expired_message_is_counted(make: LayerMaker) -> None:
    """Dropped is never just gone."""
    layer = await make(expiry=EXPIRY)
    channel = await layer.new_channel()
    before = (await layer.statistics())["dropped_count"]["expired"]
    await fill(layer, channel, 3)

    async def all_counted() -> bool:
        return bool((await layer.statistics())["dropped_count"]["expired"] == before + 3)

    await until(all_counted)
    assert (await layer.channel_statistics(channel))["messages_pending"] == 0


@check("classes: common arguments")
async def a_senseless_expiry_or_capacity_is_refused(make: LayerMaker) -> None:
    """The error names the argument."""
    for field in ("expiry", "capacity", "group_expiry"):
        options: dict[str, Any] = {field: -1}
        error = await refused(partial(make, **options), ValueError, TypeError, what=options)
        assert field in str(error), error
