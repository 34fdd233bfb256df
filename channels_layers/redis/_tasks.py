"""The tasks of a client, in an event loop that it does not own."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Coroutine
from typing import Any, Final

_FIRST_PAUSE_S: Final = 0.02
LONGEST_PAUSE_S: Final = 1.0


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


class Attempts:
    """The pauses between attempts: none before the second, then longer and longer ones.

    They are spread, so that all the clients of a server do not come back at one moment.
    """

    def __init__(self) -> None:
        self._pause_s = 0.0

    def next_s(self) -> float:
        """Return how many seconds to wait for the next one."""
        pause_s = self._pause_s * random.uniform(0.5, 1.5)  # noqa: S311
        self._pause_s = min(max(2 * self._pause_s, _FIRST_PAUSE_S), LONGEST_PAUSE_S)
        return pause_s

    async def pause(self) -> None:
        """Wait until it is time for the next one."""
        if pause_s := self.next_s():
            await asyncio.sleep(pause_s)
