"""Single-reader channels: the names with a question mark."""

from __future__ import annotations

from functools import partial
from typing import Final

from ._check import LayerMaker, check
from ._tools import drained, fill, line, receive_all, refused, send_side_by_side, waiting

NAME: Final = "http.body?a1b2"


@check("words: channel")
async def a_single_reader_channel_carries_messages(make: LayerMaker) -> None:
    """To the reader that waits and to the one that comes later; nobody has to announce it."""
    layer = await make()
    await layer.send(NAME, {"n": 1})
    assert await layer.receive(NAME) == {"n": 1}
    async with line(layer, NAME) as [waiter]:
        await layer.send(NAME, {"n": 2})
        assert await waiter.result() == {"n": 2}


@check("semantics 4")
async def a_single_reader_channel_keeps_order(make: LayerMaker) -> None:
    """First in, first out, whoever made up the name."""
    layer = await make()
    for channel in (NAME, await layer.new_channel("http.body?")):
        sent = await fill(layer, channel, 50)
        assert await receive_all(layer, channel, 50) == sent


@check("words: channel")
async def single_reader_channels_of_one_prefix_do_not_meet(make: LayerMaker) -> None:
    """The part behind the mark is part of the name."""
    layer = await make()
    first, second = [await layer.new_channel("http.body?") for _ in range(2)]
    await layer.send(second, {"to": "second"})
    await layer.send(first, {"to": "first"})
    assert await drained(layer, first) == [{"to": "first"}]
    assert await drained(layer, second) == [{"to": "second"}]


@check("semantics 5")
async def a_single_reader_channel_has_a_capacity(make: LayerMaker) -> None:
    """Of its own, exactly."""
    layer = await make(capacity=2)
    for channel in (NAME, "http.body?other"):
        sent = await fill(layer, channel, 2)
        await refused(partial(layer.send, channel, {}), layer.ChannelFull, what=channel)
        assert await receive_all(layer, channel, 2) == sent


@check("api: group_add")
async def a_single_reader_channel_may_join_a_group(make: LayerMaker) -> None:
    """It gets a copy like any other member."""
    layer = await make()
    await layer.group_add("group", NAME)
    await layer.group_send("group", {"n": 1})
    assert await drained(layer, NAME) == [{"n": 1}]
    assert await layer.group_channels("group") == [NAME]


@check("semantics 4")
async def a_single_reader_channel_shares_one_order_with_its_groups(make: LayerMaker) -> None:
    """Direct and group messages whose calls run side by side arrive in the order of the calls."""
    layer = await make(capacity=1000)
    await layer.group_add("group", NAME)
    called = await send_side_by_side(layer, NAME, "group")
    assert await drained(layer, NAME) == called


@check("api: receive_from")
async def a_single_reader_channel_may_be_one_of_several(make: LayerMaker) -> None:
    """It comes with its full name."""
    layer = await make()
    async with waiting(partial(layer.receive_from, ["quiet", NAME])) as [waiter]:
        await layer.send(NAME, {"n": 1})
        assert await waiter.result() == (NAME, {"n": 1})


@check("api: close")
async def a_single_reader_channel_survives_closing(make: LayerMaker) -> None:
    """It belongs to no client: unread messages are there for whoever reads them later."""
    layer = await make()
    await layer.send(NAME, {"n": 1})
    await layer.close()
    assert await layer.receive(NAME) == {"n": 1}


@check("guarantee: shared", needs=["shared"])
async def a_single_reader_channel_connects_two_clients(make: LayerMaker) -> None:
    """Any client may read it, and any other may write."""
    here, there = await make(), await make()
    sent = await fill(here, NAME, 20)
    assert await drained(there, NAME) == sent
    async with line(here, NAME) as [waiter]:
        await there.send(NAME, {"n": 1})
        assert await waiter.result() == {"n": 1}
