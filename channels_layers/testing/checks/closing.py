"""Closing a layer and opening it again: what ends, what stays, what is left behind."""

from __future__ import annotations

import threading
from functools import partial
from typing import Any

import anyio
import anyio.lowlevel

from ._check import Layer, LayerMaker, check
from ._tools import (
    client_part,
    drained,
    fill,
    is_layer_closed,
    line,
    member,
    until,
    waiting,
)


@check("api: close")
async def closing_ends_waiting_receivers(make: LayerMaker) -> None:
    """A hundred of them, each with LayerClosed."""
    layer = await make()
    own = await layer.new_channel()
    names = ["jobs", own, client_part(own), "specific.nobody!x"] * 25
    async with line(layer, *names) as waiters:
        await layer.close()
        for waiter in waiters:
            await waiter.end()
            assert is_layer_closed(waiter.error), repr(waiter.error or waiter.got)


@check("api: close")
async def closing_ends_who_receives_from_several(make: LayerMaker) -> None:
    """With LayerClosed, too."""
    layer = await make()
    names = ["jobs", await layer.new_channel()]
    async with waiting(partial(layer.receive_from, names)) as [waiter]:
        await layer.close()
        await waiter.end()
        assert is_layer_closed(waiter.error), repr(waiter.error or waiter.got)


@check("api: close")
async def closing_twice_is_closing_once(make: LayerMaker) -> None:
    """Also at the same time, and before the first use."""
    layer = await make()
    await layer.close()
    await layer.send("jobs", {"n": 1})
    await layer.close()
    await layer.close()
    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(layer.close)


@check("api: close")
async def a_later_call_opens_the_layer_again(make: LayerMaker) -> None:
    """As a new client: with another id, and with everything that a layer can do."""
    layer = await make()
    before = await layer.new_channel()
    await layer.close()
    after = await member(layer, "group")
    assert client_part(before) != client_part(after)
    async with line(layer, after) as [waiter]:
        await layer.group_send("group", {"n": 1})
        assert await waiter.result() == {"n": 1}


@check("api: close")
async def unread_normal_messages_are_handed_back(make: LayerMaker) -> None:
    """They are there when the layer is opened again."""
    layer = await make()
    await fill(layer, "jobs", 5)
    async with line(layer, "jobs", "jobs") as waiters:
        got = [(await waiter.result())["n"] for waiter in waiters]
    await layer.close()
    got += [(await layer.receive("jobs"))["n"] for _ in range(3)]
    assert sorted(got) == list(range(5))


@check("api: close")
async def closing_gives_up_the_own_memberships(make: LayerMaker) -> None:
    """Nothing is sent to the names of a client that is gone."""
    layer = await make()
    channel = await member(layer, "one", "two")
    await layer.close()
    for group in ("one", "two"):
        await until(partial(_is_empty, layer, group))
        await layer.group_send(group, {"n": 1})
    assert await drained(layer, channel) == []


async def _is_empty(layer: Layer, group: str) -> bool:
    return await layer.group_channels(group) == []


@check("api: close")
async def closing_removes_the_own_inbox(make: LayerMaker) -> None:
    """Unread messages for the old names are gone; nobody can be meant to read them."""
    layer = await make()
    channel = await layer.new_channel()
    await fill(layer, channel, 3)
    await layer.close()
    await layer.new_channel()
    assert await drained(layer, channel) == []


@check("api: close")
async def closing_leaves_no_task_behind(make: LayerMaker) -> None:
    """All that the layer started on this loop has ended when close has returned."""
    before = set(anyio.get_running_tasks())
    layer = await make()
    channel = await member(layer, "group")
    async with line(layer, channel, "jobs") as [waiter, _]:
        await layer.group_send("group", {"n": 1})
        await waiter.result()
    await layer.close()
    left = set(anyio.get_running_tasks()) - before
    assert not left, [task.name for task in left]


@check("api: close")
async def closing_leaves_no_thread_behind(make: LayerMaker) -> None:
    """Not one of those that the layer started for calls from this loop."""
    before = set(threading.enumerate())
    layer = await make()
    channel = await member(layer, "group")
    await layer.group_send("group", {"n": 1})
    await layer.receive(channel)
    await layer.close()

    async def all_ended() -> bool:
        return not _own_threads(before)

    await until(all_ended)


def _own_threads(before: set[threading.Thread]) -> list[Any]:
    # The workers of the event loop are kept for later calls, whoever called them first.
    kept = ("AnyIO worker", "Trio thread", "asyncio_")
    new = set(threading.enumerate()) - before
    return [thread for thread in new if not thread.name.startswith(kept)]


@check("api: close")
async def closing_while_others_send_harms_nobody(make: LayerMaker) -> None:
    """Each send ends by itself, and the layer can be used afterwards."""
    layer = await make(capacity=1000)

    async def send() -> None:
        for n in range(50):
            try:
                await layer.send("jobs", {"n": n})
            except Exception as error:
                if not is_layer_closed(error):
                    raise
            await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(send)
        for _ in range(5):
            await anyio.lowlevel.checkpoint()
            await layer.close()
    await layer.flush()
    await layer.send("jobs", {"last": 1})
    assert await layer.receive("jobs") == {"last": 1}
