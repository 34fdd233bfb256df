"""A group whose members each wait in a task of their own, and a way to wait for them all."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
from _contenders import future_maker, opened
from _samples import SMALL
from anyio.lowlevel import checkpoint

GROUP = "room"


class Audience:
    """Members that receive for ever; a delivery is a `receive` that returned in its own task."""

    def __init__(self, layer: Any) -> None:
        self._layer = layer
        self._new_future = future_maker()
        self._left = 0
        self._all_done: Any = None
        self.members = 0

    async def member(self, channel: str) -> None:
        """Receive for ever."""
        receive = self._layer.receive
        while True:
            await receive(channel)
            # One int, one future a send: the measuring must not weigh on what is measured.
            self._left -= 1
            if not self._left:
                self._all_done.set_result(None)

    async def hear(self, sends: int) -> None:
        """Send to the group so many times at once, and wait until every copy was received."""
        self._left = sends * self.members
        self._all_done = self._new_future()
        for _ in range(sends):
            await self._layer.group_send(GROUP, SMALL)
        await self._all_done


@asynccontextmanager
async def audience(name: str, members: int) -> AsyncIterator[Audience]:
    """Open a layer with a group of waiting members; dismiss them in the end."""
    async with opened(name) as layer, anyio.create_task_group() as tasks:
        people = Audience(layer)
        for _ in range(members):
            channel = await layer.new_channel()
            await layer.group_add(GROUP, channel)
            tasks.start_soon(people.member, channel)
        people.members = members
        for _ in range(3):
            await checkpoint()  # every member runs up to its first wait
        yield people
        tasks.cancel_scope.cancel()
