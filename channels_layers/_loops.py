"""Waiting and waking across event loops and threads, on asyncio and on trio.

A waiter belongs to the loop in which it was made. Any thread may wake it: in its own loop at
once, from elsewhere through that loop's thread-safe queue.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Generator
from typing import TYPE_CHECKING, Any, TypeAlias

from ._core.mailbox import Line, Mailbox

if TYPE_CHECKING:
    import trio

    Place: TypeAlias = asyncio.AbstractEventLoop | trio.lowlevel.TrioToken | None


def here() -> Place:
    """Return what identifies the running event loop, or None in a plain thread."""
    trio = sys.modules.get("trio")
    if trio is not None and trio.lowlevel.in_trio_run():
        token: Place = trio.lowlevel.current_trio_token()
        return token
    return asyncio._get_running_loop()  # noqa: SLF001 - documented, and does not raise


def new_waiter() -> LoopWaiter:
    """Return a waiter of the running event loop.

    Raises:
        RuntimeError: no event loop runs in this thread.
    """
    place = here()
    if isinstance(place, asyncio.AbstractEventLoop):
        return AsyncioWaiter(place)
    if place is None:
        raise RuntimeError("a channel layer's coroutines need a running asyncio or trio loop")
    return TrioWaiter(place)


class AsyncioWaiter:
    """One receiver in an asyncio loop; `await` it to wait for `wake`."""

    __slots__ = ("_future", "_loop", "is_abandoned", "is_closed", "lines", "permit", "since")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._future: asyncio.Future[None] = loop.create_future()
        self.lines: tuple[Line, ...] = ()
        self.since = 0
        self.permit: Mailbox | None = None
        self.is_closed = False  # the layer was closed while it waited
        self.is_abandoned = False  # its coroutine was thrown away, loop and all

    def __await__(self) -> Generator[Any, None, None]:
        return self._future.__await__()

    def wake(self, place: Place) -> bool:
        """Let it go on; `place` is where the caller runs. False when it never can."""
        if self.is_abandoned:
            return False
        if place is self._loop:
            self._set()
            return True
        try:
            self._loop.call_soon_threadsafe(self._set)
        except RuntimeError:
            return False
        return True

    def rearm(self) -> None:
        """Make it ready to wait once more."""
        self._future = self._loop.create_future()

    def is_lost(self) -> bool:
        """Whether it can never resume, because its event loop has closed."""
        return self.is_abandoned or self._loop.is_closed()

    def _set(self) -> None:
        if not self._future.done():
            self._future.set_result(None)


class TrioWaiter:
    """One receiver in a trio run; `await` it to wait for `wake`."""

    __slots__ = (
        "_is_parked",
        "_is_woken",
        "_task",
        "_token",
        "is_abandoned",
        "is_closed",
        "lines",
        "permit",
        "since",
    )

    def __init__(self, token: trio.lowlevel.TrioToken) -> None:
        import trio

        self._token = token
        self._task = trio.lowlevel.current_task()
        self._is_parked = False
        self._is_woken = False
        self.lines: tuple[Line, ...] = ()
        self.since = 0
        self.permit: Mailbox | None = None
        self.is_closed = False
        self.is_abandoned = False

    def __await__(self) -> Generator[Any, None, None]:
        return self._wait().__await__()

    def wake(self, place: Place) -> bool:
        """Let it go on; `place` is where the caller runs. False when it never can."""
        import trio

        if self.is_abandoned:
            return False
        if place is self._token:
            self._set()
            return True
        try:
            self._token.run_sync_soon(self._set)
        except trio.RunFinishedError:
            return False
        return True

    def rearm(self) -> None:
        """Make it ready to wait once more."""
        self._is_woken = False

    def is_lost(self) -> bool:
        """Whether it can never resume, because its trio run is over."""
        import trio

        if self.is_abandoned:
            return True
        try:
            self._token.run_sync_soon(_nothing)
        except trio.RunFinishedError:
            return True
        return False

    async def _wait(self) -> None:
        import trio

        def abort(_: object) -> trio.lowlevel.Abort:
            self._is_parked = False
            return trio.lowlevel.Abort.SUCCEEDED

        if self._is_woken:
            await trio.lowlevel.checkpoint()
            return
        self._is_parked = True
        await trio.lowlevel.wait_task_rescheduled(abort)

    def _set(self) -> None:
        import trio

        self._is_woken = True
        if self._is_parked:
            self._is_parked = False
            trio.lowlevel.reschedule(self._task)


def _nothing() -> None:
    pass


LoopWaiter: TypeAlias = AsyncioWaiter | TrioWaiter
