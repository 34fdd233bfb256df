"""Waiting and waking across event loops and threads, on asyncio and on trio.

A waiter belongs to the loop in which it was made. Any thread may wake it: in its own loop at
once, from elsewhere through that loop's thread-safe queue.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Generator
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from ._core.mailbox import Line, Mailbox, Waiter

if TYPE_CHECKING:
    import trio

    Place: TypeAlias = asyncio.AbstractEventLoop | trio.lowlevel.TrioToken | None


_modules: Final = sys.modules
_running_loop: Final = asyncio._get_running_loop  # noqa: SLF001 - documented; does not raise


def here() -> Place:
    """Return what identifies the running event loop, or None in a plain thread."""
    loop = _running_loop()
    if loop is None or "trio" in _modules:
        token = _trio_token()
        return loop if token is None else token
    return loop


def new_waiter() -> Waiter:
    """Return a waiter of the running event loop, in no line yet.

    Raises:
        RuntimeError: no event loop runs in this thread.
    """
    loop = _running_loop()
    if loop is None or "trio" in _modules:
        token = _trio_token()
        if token is not None:
            return TrioWaiter(token)
        if loop is None:
            raise RuntimeError("a channel layer's coroutines need a running asyncio or trio loop")
    waiter = AsyncioWaiter(loop=loop)
    waiter.mailbox = None
    return waiter


def _trio_token() -> trio.lowlevel.TrioToken | None:
    """Return trio's token where trio runs, be it as a guest of an asyncio loop."""
    if "trio" not in _modules:
        return None
    import sniffio
    import trio

    # What trio itself sets while it runs a task; trio.lowlevel.in_trio_run() costs 0.3 µs more.
    if sniffio.thread_local.name != "trio":
        return None
    return trio.lowlevel.current_trio_token()


class AsyncioWaiter(asyncio.Future[None]):
    """One receiver in an asyncio loop; `await` it to wait for `wake`.

    It is a future, not an object that has one: thousands of them wait, and each is made and
    woken on the path of a message.
    """

    __slots__ = ("mailbox",)

    mailbox: Mailbox | None
    lines: tuple[Line, ...] = ()
    since = 0
    is_closed = False
    is_abandoned = False

    def wake(self, place: Place) -> bool:
        """Let it go on; `place` is where the caller runs. False when it never can."""
        if self.is_abandoned:
            return False
        loop = self.get_loop()
        if place is loop:
            if not self.done():
                self.set_result(None)
            return True
        try:
            loop.call_soon_threadsafe(self._set)
        except RuntimeError:
            return False
        return True

    def is_lost(self) -> bool:
        """Whether it can never resume, because its event loop has closed."""
        return self.is_abandoned or self.get_loop().is_closed()

    def _set(self) -> None:
        if not self.done():
            self.set_result(None)


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
        "mailbox",
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
        self.mailbox: Mailbox | None = None
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

