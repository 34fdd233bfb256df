"""Clients of one prefix in several processes of one machine."""

from __future__ import annotations

from functools import partial
from typing import Any

import anyio

from ._check import LayerMaker, check
from ._children import Reporter, forked
from ._tools import drained, fill, member, until


@check("guarantee: cross_process", needs=["cross_process", "asyncio", "fork"])
async def a_layer_made_in_another_process_is_reached(make: LayerMaker) -> None:
    """Direct and group messages go both ways."""
    layer = await make()
    mine = await member(layer, "group")

    async def answer(parent: Reporter) -> None:
        theirs = await make()
        channel = await member(theirs, "group")
        parent.tell(channel)
        await theirs.send(mine, {"got": (await theirs.receive(channel))["n"]})
        await theirs.group_send("group", {"from": "child"})
        parent.tell(await theirs.receive(channel))

    async with forked(answer) as child:
        await layer.send(await child.told(), {"n": 1})
        assert await layer.receive(mine) == {"got": 1}
        assert await layer.receive(mine) == {"from": "child"}
        assert await child.told() == {"from": "child"}


@check("semantics 1", needs=["cross_process", "asyncio", "fork"])
async def workers_of_several_processes_share_the_messages(make: LayerMaker) -> None:
    """Each message goes to one of them."""
    layer = await make(capacity=1000)

    async def work(parent: Reporter) -> None:
        worker = await make(capacity=1000)
        parent.tell("ready")
        while True:
            parent.tell(await worker.receive("jobs"))

    got: list[Any] = []
    async with forked(work) as first, forked(work) as second:
        assert [await first.told(), await second.told()] == ["ready", "ready"]
        await fill(layer, "jobs", 60)
        async with anyio.create_task_group() as tasks:
            for child in (first, second):
                tasks.start_soon(_collect, child, got)
            await until(partial(_has, got, 60))
            tasks.cancel_scope.cancel()
    assert sorted(message["n"] for message in got) == list(range(60))


async def _collect(child: Any, got: list[Any]) -> None:
    while True:
        got.append(await child.told())


async def _has(got: list[Any], count: int) -> bool:
    return len(got) >= count


@check("semantics 7", needs=["cross_process", "asyncio", "fork", "real time"])
async def the_memberships_of_a_killed_client_end(make: LayerMaker) -> None:
    """Soon after its lease, without anybody's help; those of the living stay."""
    layer = await make(lease=1)
    stays = await member(layer, "group")

    async def join(parent: Reporter) -> None:
        theirs = await make(lease=1)
        parent.tell(await member(theirs, "group"))
        await theirs.receive("nothing")

    async with forked(join) as child:
        channel = await child.told()
        assert sorted(await layer.group_channels("group")) == sorted([stays, channel])
        child.kill()

        async def gone() -> bool:
            return channel not in await layer.group_channels("group")

        await until(gone)
    assert await layer.group_channels("group") == [stays]


@check("semantics 1", needs=["cross_process", "asyncio", "fork"])
async def a_killed_worker_costs_nothing_that_it_had_not_received(make: LayerMaker) -> None:
    """What still waited when it died goes to the others, and nothing comes twice."""
    layer = await make(lease=1)
    await fill(layer, "jobs", 10)

    async def work(parent: Reporter) -> None:
        worker = await make(lease=1)
        for _ in range(4):
            parent.tell(await worker.receive("jobs"))
        await worker.receive("nothing")

    async with forked(work) as child:
        theirs = [(await child.told())["n"] for _ in range(4)]
        child.kill()
        mine = [(await layer.receive("jobs"))["n"] for _ in range(6)]
    assert sorted(theirs + mine) == list(range(10))


@check("api: flush", needs=["cross_process", "asyncio", "fork"])
async def a_flush_reaches_other_processes(make: LayerMaker) -> None:
    """When it has returned, what the other process held is gone."""
    layer = await make()

    async def hold(parent: Reporter) -> None:
        theirs = await make()
        own, go = await member(theirs, "group"), await theirs.new_channel()
        parent.tell([own, go])
        await theirs.receive(go)
        parent.tell([await drained(theirs, own), await theirs.group_channels("group")])

    async with forked(hold) as child:
        own, go = await child.told()
        await layer.send(own, {"old": 1})
        await layer.flush()
        await layer.send(go, {"go": 1})
        assert await child.told() == [[], []]
