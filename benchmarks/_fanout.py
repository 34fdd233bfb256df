"""A group whose members each wait in a task of their own, and a way to wait for them all."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

from _contenders import future_maker, opened
from _samples import SMALL
from _tasks import bare_tasks
from anyio.lowlevel import checkpoint

GROUP = "room"

#: Sends to the group so many times at once, and waits until every copy was received.
Hear: TypeAlias = Callable[[int], Awaitable[None]]


#: Returns what to await until every copy of the next so many sends was received.
Expect: TypeAlias = Callable[[int], Awaitable[None]]


@asynccontextmanager
async def seated(layer: Any, members: int) -> AsyncIterator[Expect]:
    """Add so many members that wait in tasks of this process; dismiss them in the end.

    A delivery is a `receive` that returned in the member's own task.
    """
    left = 0
    all_done: Any = None

    async with bare_tasks() as start:
        receive, new_future = layer.receive, future_maker()

        async def member(channel: str) -> None:
            nonlocal left
            while True:
                await receive(channel)
                # One int, one future a send: the measuring must not weigh on what is measured.
                left -= 1
                if not left:
                    all_done.set_result(None)

        def expect(sends: int) -> Any:
            nonlocal left, all_done
            left = sends * members
            all_done = new_future()
            return all_done

        for _ in range(members):
            channel = await layer.new_channel()
            await layer.group_add(GROUP, channel)
            start(member, channel)
        for _ in range(3):
            await checkpoint()  # every member runs up to its first wait
        yield expect


@asynccontextmanager
async def audience(name: str, members: int) -> AsyncIterator[Hear]:
    """Open a layer with a group of waiting members; dismiss them in the end."""
    async with opened(name) as layer, seated(layer, members) as expect:
        group_send = layer.group_send

        async def hear(sends: int) -> None:
            all_done = expect(sends)
            for _ in range(sends):
                await group_send(GROUP, SMALL)
            await all_done

        yield hear
