"""The tasks of a client, in an event loop that it does not own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any


def begin(coroutine: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
    """Run `coroutine` in the running event loop, until it is cancelled."""
    task = asyncio.get_running_loop().create_task(coroutine, name=f"channels-layers {name}")
    # Who closes a loop with receivers waiting in it abandons this task as well, which is not
    # worth a message: the client goes on in another loop. `gather` does the same for its own.
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    return task


def end(task: asyncio.Task[Any] | None) -> list[asyncio.Task[Any]]:
    """Cancel a task in whichever event loop it is; return what is to be awaited in this one."""
    if task is None or task.done():
        return []
    loop = task.get_loop()
    if loop is asyncio._get_running_loop():
        task.cancel()
        return [task]
    with contextlib.suppress(RuntimeError):  # it has closed
        loop.call_soon_threadsafe(task.cancel)
    return []
