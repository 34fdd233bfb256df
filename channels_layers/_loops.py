"""Waiting and waking across event loops and threads, on asyncio and on trio.

A waiter belongs to the loop in which it was made. Any thread may wake it: in its own loop at
once, from elsewhere through that loop's thread-safe queue. On asyncio it is a bare future, which
the loop's own machinery handles in C.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    import trio


_modules: Final = sys.modules
_Future: Final = asyncio.Future
_running_loop: Final = asyncio._get_running_loop
_loop_of: Final[Callable[[Any], asyncio.AbstractEventLoop]] = asyncio.Future.get_loop
_is_cancelled: Final[Callable[[Any], bool]] = asyncio.Future.cancelled


class TrioWaiter:
    """One receiver in a trio run; `await` it to wait for `wake`."""

    __slots__ = ("_is_parked", "_is_woken", "_task", "is_cancelled", "token")

    def __init__(self, token: trio.lowlevel.TrioToken) -> None:
        import trio

        self.token = token
        self.is_cancelled = False
        self._task = trio.lowlevel.current_task()
        self._is_parked = False
        self._is_woken = False

    def __await__(self) -> Generator[Any, None, None]:
        return self._wait().__await__()

    def wake(self) -> None:
        """Let it go on; to be called in its own run."""
        import trio

        if self.is_cancelled:
            return
        self._is_woken = True
        if self._is_parked:
            self._is_parked = False
            trio.lowlevel.reschedule(self._task)

    async def _wait(self) -> None:
        import trio

        def abort(_: object) -> trio.lowlevel.Abort:
            self._is_parked = False
            self.is_cancelled = True
            return trio.lowlevel.Abort.SUCCEEDED

        if self._is_woken:
            await trio.lowlevel.checkpoint()
            return
        self._is_parked = True
        await trio.lowlevel.wait_task_rescheduled(abort)


LoopWaiter: TypeAlias = asyncio.Future[None] | TrioWaiter


def new_waiter() -> LoopWaiter:
    """Return a waiter of the running event loop.

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
    return loop.create_future()


def wake(waiters: Iterable[LoopWaiter]) -> list[LoopWaiter]:
    """Let `waiters` go on; return those that never can."""
    loop = _running_loop()
    lost: list[LoopWaiter] = []
    for waiter in waiters:
        if isinstance(waiter, _Future) and waiter.get_loop() is loop:
            if not waiter.done():
                waiter.set_result(None)
            elif waiter.cancelled():
                lost.append(waiter)
        elif not _wake_elsewhere(waiter):
            lost.append(waiter)
    return lost


def wake_behind(waiter: LoopWaiter, others: Iterable[LoopWaiter]) -> list[LoopWaiter]:
    """Let `waiter` go on after `others`, which another thread may be waking; return as `wake`."""
    is_here = isinstance(waiter, _Future) and waiter.get_loop() is _running_loop()
    if is_here and any(isinstance(other, _Future) and not other.done() for other in others):
        wake_soon(waiter)  # that thread's calls stand in the same queue
        return []
    return wake((waiter,))


def wake_one(waiter: LoopWaiter) -> None:
    """Let `waiter` go on, if it can."""
    if isinstance(waiter, _Future) and waiter.get_loop() is _running_loop():
        if not waiter.done():
            waiter.set_result(None)
    else:
        _wake_elsewhere(waiter)


async def wait_up_to(waiter: LoopWaiter, seconds: float) -> None:
    """Wait for a waiter of the running loop to be woken, or for so long.

    Cancellation:
        It can be woken no more.
    """
    if isinstance(waiter, TrioWaiter):
        import trio

        with trio.move_on_after(seconds):
            await waiter
        return
    # No cancel scope, since the garbage collector may throw away whoever waits.
    timer = waiter.get_loop().call_later(seconds, _set, waiter)
    try:
        await waiter
    finally:
        timer.cancel()


def wake_soon(waiter: LoopWaiter) -> None:
    """Let a `waiter` of the running loop go on when the loop has come round."""
    if isinstance(waiter, TrioWaiter):
        waiter.token.run_sync_soon(waiter.wake)
    else:
        waiter.get_loop().call_soon(_set, waiter)


async def pause() -> None:
    """Let the other tasks of the running loop run once."""
    if _trio_token() is None:
        await asyncio.sleep(0)
    else:
        import trio

        await trio.lowlevel.checkpoint()


class Watches:
    """The event loops that watch one descriptor; each that is added, until it ends.

    Any number of loops may watch it: whichever is free first acts. A loop that closes takes its
    watch with it.
    """

    def __init__(
        self, descriptor: int, on_ready: Callable[[], bool], again: Callable[[], bool]
    ) -> None:
        """Watch nothing yet.

        Args:
            descriptor: What becomes readable.
            on_ready: Is called in the loop, and must see to it that the descriptor is not readable
                any more; True asks for a call of `again` when the loop has come round.
            again: The same, when nothing may have become readable.
        """
        self._descriptor = descriptor
        self._on_ready = on_ready
        self._again = again
        self._lock = threading.Lock()
        self._loops: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()
        self._is_closed = False

    def add(self) -> bool:
        """Let the running loop watch; False when it does already."""
        loop: Any = _running_loop()
        if loop is None or "trio" in _modules:
            loop = _trio_token() or loop
        if loop is None or loop in self._loops or self._is_closed:
            return False
        with self._lock:
            if isinstance(loop, asyncio.AbstractEventLoop):
                loop.add_reader(self._descriptor, self._act, loop, self._on_ready)
                self._loops[loop] = None
            else:
                self._loops[loop] = _watch_in_trio(self._descriptor, self._on_ready, self._again)
        return True

    def close(self, then: Callable[[], None]) -> None:
        """Watch no more, in any loop; call `then` when the descriptor may be closed."""
        with self._lock:
            self._is_closed = True
            loops, self._loops = dict(self._loops), WeakKeyDictionary()
        here = _running_loop()
        last = [loop for loop in loops if loop is not here and _is_running(loop)]
        waits = len(last)
        lock = threading.Lock()

        def unwatched(count: int = 1) -> None:
            nonlocal waits
            with lock:
                waits -= count
                is_last = not waits
            if is_last:
                then()

        for loop, scope in loops.items():
            if isinstance(loop, asyncio.AbstractEventLoop) and loop is here:
                loop.remove_reader(self._descriptor)
            elif loop in last:
                try:
                    _run_in(loop, partial(_unwatch, loop, scope, self._descriptor, unwatched))
                except RuntimeError:  # it has ended at this moment
                    unwatched()
        if not last:
            unwatched(0)

    def _act(self, loop: asyncio.AbstractEventLoop, act: Callable[[], bool]) -> None:
        if not self._is_closed and act():
            loop.call_soon(self._act, loop, self._again)


def _is_running(loop: Any) -> bool:
    if isinstance(loop, asyncio.AbstractEventLoop):
        return loop.is_running()
    return _run_in_trio(loop, _nothing)


def _run_in(loop: Any, function: Callable[[], None]) -> None:
    if isinstance(loop, asyncio.AbstractEventLoop):
        loop.call_soon_threadsafe(function)
    elif not _run_in_trio(loop, function):
        raise RuntimeError("the trio run has ended")


def _unwatch(loop: Any, scope: Any, descriptor: int, done: Callable[[], None]) -> None:
    if isinstance(loop, asyncio.AbstractEventLoop):
        loop.remove_reader(descriptor)
    else:
        import trio

        scope.cancel()
        trio.lowlevel.notify_closing(descriptor)
    done()


def _watch_in_trio(
    descriptor: int, on_ready: Callable[[], bool], again: Callable[[], bool]
) -> trio.CancelScope:
    """Start a system task of the running trio run; return what ends it."""
    import trio

    scope = trio.CancelScope()

    async def watch() -> None:
        with scope, suppress(trio.ClosedResourceError):
            # Whenever it gets its turn, the descriptor may have been closed.
            while _is_open(scope):
                await trio.lowlevel.wait_readable(descriptor)
                act = on_ready
                while _is_open(scope) and act():
                    await trio.lowlevel.checkpoint()
                    act = again

    trio.lowlevel.spawn_system_task(watch, name="channels_layers watch")
    return scope


def _is_open(scope: trio.CancelScope) -> bool:
    return not scope.cancel_called


def lost_of(waiters: Sequence[LoopWaiter]) -> list[LoopWaiter]:
    """Return those that can never go on: they were cancelled, or their loops are closed."""
    try:  # as quick as can be, for thousands of asyncio's of which none is lost
        loops = set(map(_loop_of, waiters))
        if not any(map(_is_cancelled, waiters)) and not any(loop.is_closed() for loop in loops):
            return []
    except TypeError:  # one of them is trio's
        pass
    return list(filter(_is_lost, waiters))


def _is_lost(waiter: LoopWaiter) -> bool:
    cancelled = waiter.is_cancelled if isinstance(waiter, TrioWaiter) else waiter.cancelled()
    return cancelled or has_ended(waiter)


def has_ended(waiter: LoopWaiter) -> bool:
    """Say whether the loop of `waiter` is closed."""
    if isinstance(waiter, TrioWaiter):
        return not _run_in_trio(waiter.token, _nothing)
    return waiter.get_loop().is_closed()


def abandon(waiter: LoopWaiter) -> None:
    """Mark `waiter` as one that can never go on; takes no lock."""
    # A closed loop is mark enough. To cancel there would drop what still refers to the coroutine
    # that is just being thrown away, and throw it away within itself.
    if isinstance(waiter, asyncio.Future) and not waiter.get_loop().is_closed():
        waiter.cancel()


def _wake_elsewhere(waiter: LoopWaiter) -> bool:
    if isinstance(waiter, TrioWaiter):
        if waiter.is_cancelled:
            return False
        if _trio_token() is waiter.token:
            waiter.wake()
            return True
        return _run_in_trio(waiter.token, waiter.wake)
    if waiter.cancelled():
        return False
    try:
        waiter.get_loop().call_soon_threadsafe(_set, waiter)
    except RuntimeError:
        return False
    return True


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _run_in_trio(token: trio.lowlevel.TrioToken, function: Callable[[], None]) -> bool:
    import trio

    try:
        token.run_sync_soon(function)
    except trio.RunFinishedError:
        return False
    return True


def _nothing() -> None:
    pass


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
