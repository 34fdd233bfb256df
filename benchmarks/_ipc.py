"""The IPC layer as the benchmarks open it: with a prefix of its own, and nothing left behind."""

from __future__ import annotations

import itertools
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import anyio
from anyio.lowlevel import checkpoint

from channels_layers import ChannelFull, IPCChannelLayer

#: Sends one message to a channel.
Send: TypeAlias = Callable[[str, dict[str, Any]], Awaitable[None]]

_numbers = itertools.count()


def fresh_prefix() -> str:
    """Return a prefix that no layer has used."""
    return f"benchmark {os.getpid()} {next(_numbers)}"


@asynccontextmanager
async def shared_layer(prefix: str, **settings: Any) -> AsyncIterator[IPCChannelLayer]:
    """Open the layer of the process that runs the rounds; it must be the last of its prefix.

    What its channels still hold is gone with it; else it would stay for whoever comes next.
    """
    async with IPCChannelLayer(prefix, **settings) as layer:
        try:
            yield layer
        finally:
            with anyio.CancelScope(shield=True):
                await layer.flush()


async def insist(send: Send, channel: str, message: dict[str, Any]) -> None:
    """Send; where the channel is full let the others run, and send again."""
    while True:
        try:
            return await send(channel, message)
        except ChannelFull:
            await checkpoint()
