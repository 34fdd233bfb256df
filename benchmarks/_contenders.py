"""The layers that are compared, and the bare floor under them: futures, deques, the encoder.

The floor does what no layer can leave out (encode once, queue, wake, decode once a reader) and
nothing else: no names, capacity, expiry, groups, threads or statistics.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import ormsgpack
import sniffio
from _results import FLOOR, LOOPS, OURS, PEER
from channels.layers import InMemoryChannelLayer as ChannelsLayer

import channels_layers

ASYNCIO_ONLY = ("asyncio", "uvloop")  # Channels' layer is made of asyncio.Queue


def future_maker() -> Callable[[], Any]:
    """Return what makes bare futures in the running loop."""
    if sniffio.current_async_library() == "trio":
        from _trio_future import TrioFuture  # an asyncio program has no trio in it

        return TrioFuture
    return asyncio.get_running_loop().create_future


class Floor:
    """The least that sends and receives: a deque and a future for each channel."""

    def __init__(self) -> None:
        self._new_future = future_maker()
        self._queues: dict[str, deque[bytes]] = {}
        self._waiting: dict[str, Any] = {}
        self._groups: dict[str, list[str]] = {}
        self._names = 0

    async def new_channel(self) -> str:
        """Return a fresh name."""
        self._names += 1
        return f"specific.floor!{self._names}"

    async def send(self, channel: str, message: dict[str, Any]) -> None:
        """Queue a message and wake its reader."""
        self._put(channel, ormsgpack.packb(message))

    async def receive(self, channel: str) -> Any:
        """Wait for a message."""
        queue = self._queues.get(channel)
        if queue is None:
            queue = self._queues[channel] = deque()
        while not queue:
            future = self._waiting[channel] = self._new_future()
            await future
        return ormsgpack.unpackb(queue.popleft())

    async def group_add(self, group: str, channel: str) -> None:
        """Let `channel` have a copy."""
        self._groups.setdefault(group, []).append(channel)

    async def group_send(self, group: str, message: dict[str, Any]) -> None:
        """Queue the message for each member."""
        self.fan_out(group, ormsgpack.packb(message))

    def fan_out(self, group: str, payload: bytes) -> None:
        """Queue an encoded message for each member."""
        for channel in self._groups[group]:
            self._put(channel, payload)

    def _put(self, channel: str, payload: bytes) -> None:
        queue = self._queues.get(channel)
        if queue is None:
            queue = self._queues[channel] = deque()
        queue.append(payload)
        future = self._waiting.pop(channel, None)
        if future is not None:
            future.set_result(None)


@asynccontextmanager
async def opened(name: str, **settings: Any) -> AsyncIterator[Any]:
    """Open the layer of that name, and close it in the end."""
    if name == OURS:
        async with channels_layers.InMemoryChannelLayer(**settings) as layer:
            yield layer
    elif name == PEER:
        yield ChannelsLayer(**settings)
    else:
        yield Floor()


#: Name, and the loops on which it runs.
ALL = ((OURS, LOOPS), (PEER, ASYNCIO_ONLY), (FLOOR, LOOPS))
