"""What an asyncio future is to its one waiter, for trio."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import trio


class TrioFuture:
    """Await it in one task; `set_result` lets that task go on."""

    __slots__ = ("_done", "_task")

    def __init__(self) -> None:
        self._task: trio.lowlevel.Task | None = None
        self._done = False

    def set_result(self, _: None) -> None:
        """Wake the waiter, now or when it comes."""
        self._done = True
        if self._task is not None:
            trio.lowlevel.reschedule(self._task)

    def __await__(self) -> Generator[Any, Any, None]:
        if not self._done:
            self._task = trio.lowlevel.current_task()
            parked = trio.lowlevel.wait_task_rescheduled(_may_be_cancelled)  # noqa: ASYNC105
            yield from parked.__await__()  # this is no coroutine, so it cannot `await`


def _may_be_cancelled(_: object) -> trio.lowlevel.Abort:
    return trio.lowlevel.Abort.SUCCEEDED
