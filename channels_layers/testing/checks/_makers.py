"""From the maker that an author gives to the layers of one check, and their end."""

from __future__ import annotations

import inspect
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any, Final

import anyio
import anyio.abc

from ._check import Layer, LayerMaker

CLOSING: Final = 5.0  # seconds for closing the layers of one check

Maker = Callable[..., Any]


@asynccontextmanager
async def made_by(maker: Maker) -> AsyncIterator[LayerMaker]:
    """Give a `LayerMaker` that calls `maker`; close what it made, the last one first."""
    async with anyio.create_task_group() as tasks:
        layers = _Layers(maker, tasks)
        try:
            yield layers
        finally:
            with anyio.CancelScope(shield=True), anyio.fail_after(CLOSING):
                await layers.made.aclose()


class _Layers:
    def __init__(self, maker: Maker, tasks: anyio.abc.TaskGroup) -> None:
        self.made = AsyncExitStack()
        self._maker = maker
        self._tasks = tasks
        self._pid = os.getpid()

    async def __call__(self, **options: Any) -> Layer:
        made = self._maker(**options)
        if inspect.isawaitable(made):
            made = await made
        if not hasattr(made, "receive") and hasattr(made, "__aenter__"):
            made = await self._entered(made)
        elif hasattr(made, "close"):
            self.made.push_async_callback(made.close)
        layer: Layer = made
        return layer

    async def _entered(self, context: AbstractAsyncContextManager[Any]) -> Any:
        if os.getpid() != self._pid:
            return await context.__aenter__()  # a forked child never gets to an orderly end
        owner = _Owner(context)
        layer = await self._tasks.start(owner.run)
        self.made.push_async_callback(owner.end)
        return layer


class _Owner:
    """Enters and leaves a context in one task, as contexts with task groups demand."""

    def __init__(self, context: AbstractAsyncContextManager[Any]) -> None:
        self._context = context
        self._ending = anyio.Event()
        self._ended = anyio.Event()

    async def run(self, *, task_status: anyio.abc.TaskStatus[Any]) -> None:
        try:
            async with self._context as layer:
                task_status.started(layer)
                await self._ending.wait()
        finally:
            self._ended.set()

    async def end(self) -> None:
        self._ending.set()
        await self._ended.wait()
