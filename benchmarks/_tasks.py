"""Tasks of the event loop itself; those of an anyio task group cost one frame more at each wake."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import sniffio

#: Starts a task that calls the function with the arguments.
Start: TypeAlias = Callable[..., None]


@asynccontextmanager
async def bare_tasks() -> AsyncIterator[Start]:
    """Give what starts tasks, and cancel all of them in the end."""
    if sniffio.current_async_library() == "trio":
        import trio

        async with trio.open_nursery() as nursery:
            yield nursery.start_soon
            nursery.cancel_scope.cancel()
        return
    tasks: list[asyncio.Task[Any]] = []

    def start(function: Callable[..., Any], *args: Any) -> None:
        tasks.append(asyncio.create_task(function(*args)))

    try:
        yield start
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
