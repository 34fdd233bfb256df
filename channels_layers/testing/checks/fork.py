"""A child process made by os.fork from a process that uses the layer."""

from __future__ import annotations

from functools import partial

from ._check import Layer, LayerMaker, check
from ._children import Reporter, forked
from ._tools import client_part, drained, fill, line, member, poll, started


@check("semantics 11", needs=["asyncio", "fork"])
async def a_forked_child_is_a_new_client(make: LayerMaker) -> None:
    """It has another client id than its parent, and than its siblings."""
    layer = await make()

    async def tell_name(parent: Reporter) -> None:
        parent.tell(await layer.new_channel())

    names = [await layer.new_channel()]
    for _ in range(2):
        async with forked(tell_name) as child:
            names.append(await child.told())
    names.append(await layer.new_channel())
    clients = [client_part(name) for name in names]
    assert clients[0] == clients[3], "the parent is still the same client"
    assert len(set(clients)) == 3, names


@check("semantics 11", needs=["asyncio", "fork"])
async def a_forked_child_takes_nothing_from_its_parent(make: LayerMaker) -> None:
    """Messages that the parent has not read come to the parent, and to it alone."""
    layer = await make()
    channel = await layer.new_channel()
    sent = await fill(layer, channel, 3)
    async with forked(partial(_try_to_receive, layer, channel)) as child:
        assert await child.told() is None
    assert await drained(layer, channel) == sent


async def _try_to_receive(layer: Layer, channel: str, parent: Reporter) -> None:
    try:
        parent.tell(await poll(partial(layer.receive, channel), 0.1))
    except Exception:  # noqa: BLE001  # an error is fine: the channel is another client's
        parent.tell(None)


@check("semantics 11", needs=["asyncio", "fork"])
async def parent_and_child_share_no_normal_message(make: LayerMaker) -> None:
    """Each is received once, on one side, whichever that is."""
    layer = await make()
    await fill(layer, "jobs", 4)

    async def receive_some(parent: Reporter) -> None:
        got = []
        while (message := await poll(partial(layer.receive, "jobs"), 0.1)) is not None:
            got.append(message["n"])
        await layer.close()
        parent.tell(got)

    async with forked(receive_some) as child:
        theirs = await child.told()
    mine = [(await layer.receive("jobs"))["n"] for _ in range(4 - len(theirs))]
    assert await poll(partial(layer.receive, "jobs"), 0.05) is None, "more than was sent"
    assert sorted(mine + theirs) == [0, 1, 2, 3], (mine, theirs)


@check("semantics 11", needs=["asyncio", "fork"])
async def a_forked_child_can_do_everything(make: LayerMaker) -> None:
    """With the layer object that it was forked with: send, receive, groups, close."""
    layer = await make()
    await fill(layer, await member(layer, "group"), 1)
    async with forked(partial(_use, layer)) as child:
        assert await child.told() == [{"n": 0}, {"copy": 1}]


async def _use(layer: Layer, parent: Reporter) -> None:
    channel = await member(layer, "children")
    async with line(layer, channel) as [waiter]:
        await fill(layer, channel, 1)
        got = [await waiter.result()]
    await layer.group_send("children", {"copy": 1})
    got.append(await layer.receive(channel))
    await layer.close()
    parent.tell(got)


@check("semantics 11", needs=["asyncio", "fork"])
async def a_fork_in_the_middle_of_traffic_disturbs_nobody(make: LayerMaker) -> None:
    """Receivers that waited in the parent go on there; the child works on its own."""
    layer = await make(capacity=1000)
    channel = await layer.new_channel()

    async def read() -> list[int]:
        return [(await layer.receive(channel))["n"] for _ in range(60)]

    async with started(read) as [reader]:
        for n in range(60):
            await layer.send(channel, {"n": n})
            if n % 20 == 10:
                async with forked(partial(_use, layer)) as child:
                    assert await child.told() == [{"n": 0}, {"copy": 1}]
        assert await reader.result() == list(range(60))


@check("semantics 11", needs=["separate", "asyncio", "fork"])
async def what_a_forked_child_does_stays_with_it(make: LayerMaker) -> None:
    """Where layers share nothing, a child's messages and groups do not reach its parent."""
    layer = await make()
    channel = await member(layer, "group")

    async def send(parent: Reporter) -> None:
        await layer.send("jobs", {"from": "child"})
        await layer.group_send("group", {"from": "child"})
        parent.tell("sent")

    async with forked(send) as child:
        assert await child.told() == "sent"
    assert await drained(layer, channel) == []
    assert await drained(layer, "jobs") == []


@check("semantics 11", needs=["asyncio", "fork"])
async def a_closed_layer_may_be_forked(make: LayerMaker) -> None:
    """And so may one that was never used: the usual state of a preloading server."""
    layer, unused = await make(), await make()
    await layer.send("jobs", {"n": 1})
    await layer.close()
    for each in (layer, unused):
        async with forked(partial(_use, each)) as child:
            assert await child.told() == [{"n": 0}, {"copy": 1}]
