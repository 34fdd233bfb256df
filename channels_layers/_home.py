"""The event loop that owns a backend's connections, and the thread that stands in for it.

caller                                  where the backend's coroutine runs
--------------------------------------  --------------------------------------------------
in the home loop                        right there
in another loop, in trio, or in a       carried to the home loop; the caller waits for the
plain thread under async_to_sync        answer in its own loop
no home, and the caller will stay       the caller's loop becomes the home
(async with, open(), a receiver)
no home, and the caller passes by       the portal: one daemon thread for the process, with
(async_to_sync: a loop per call)        an asyncio loop, for all layers
the home loop has closed                as without a home; the backend is opened again
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, TypeVar
from weakref import WeakSet

from . import _fork
from ._loops import LoopWaiter, new_waiter, wake
from .errors import BackendTimeout

T = TypeVar("T")

_LOOK_S: Final = 1.0  # between two looks whether the home still runs
_ENDING_S: Final = 1.0  # for the portal's loop to come round, which takes no time


class Home:
    """Where the coroutines of one backend run, and whether it is open there."""

    def __init__(
        self,
        open_backend: Callable[[], Awaitable[None]],
        be_open: Callable[[], None],
        *,
        is_fixed: bool,
    ) -> None:
        """Make a home without a loop.

        Args:
            open_backend: Opens the backend, in the running loop.
            be_open: Is called when it is open, and nobody waits any more who has called before.
            is_fixed: Everything must run in one loop; else it runs where it is called.
        """
        self._open_backend = open_backend
        self._be_open = be_open
        self._is_fixed = is_fixed
        self._lock = threading.RLock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_open = False
        self._is_in_portal = False
        self._calls = 0  # on their way
        self._is_closed = False  # and perhaps opened again
        self._carried: set[object] = set()  # calls of other loops that have not begun in the home
        self._has_begun = False  # something was called since it was closed
        # Who opens it or is let through, then who waits for that, in the order of their calls.
        self._line: deque[_Place] = deque()

    @property
    def is_open(self) -> bool:
        """Whether the backend is open, in a home that still runs, and nobody waits at its door."""
        loop = self._loop
        if self._is_fixed and (loop is None or not loop.is_running()):
            return False
        return self._is_open and not (self._line or self._carried)

    @property
    def is_gone(self) -> bool:
        """Whether it was a loop that does not run any more, and has not said so."""
        loop = self._loop
        return loop is not None and not loop.is_running()

    async def run(self, function: Callable[[], Awaitable[T]], *, claim: bool = False) -> T:
        """Call `function` in the home, with the backend open, and return its result.

        Cancellation:
            Passed on to `function`.

        Raises:
            BackendTimeout: the home ended in the middle of the call.
        """
        if not self._is_fixed:
            return await self._run_here(function)
        loop, is_portal = self._choose(claim=claim)
        try:
            if loop is asyncio._get_running_loop():
                return await self._run_here(function)
            return await self._carry_over(loop, function)
        finally:
            self._end_call(is_portal=is_portal)

    async def _carry_over(
        self, loop: asyncio.AbstractEventLoop, function: Callable[[], Awaitable[T]]
    ) -> T:
        call = object()
        self._carried.add(call)  # what is called later must not come before it

        async def begin() -> T:
            if self._line or not self._is_open:
                await self._pass_door()
            asyncio.get_running_loop().call_soon(self._carried.discard, call)
            return await function()

        try:
            return await _carry(loop, begin)
        finally:
            self._carried.discard(call)

    async def close(self, close_backend: Callable[[], Awaitable[None]]) -> None:
        """Close the backend where it is open; the next call opens it again."""
        if not self._is_fixed:
            await close_backend()  # also where it was being opened, and that was cancelled
            self._is_open = False
            return
        self._is_closed = True  # before the look: a call may begin at this moment
        if not self._has_begun:
            return
        loop, is_portal = self._choose(claim=False)  # the portal where the home has ended
        try:
            if loop is asyncio._get_running_loop():
                await close_backend()
            else:
                await _carry(loop, close_backend)
            with self._lock:
                if self._loop is loop:
                    self._loop = None
                    self._is_open = self._has_begun = False
        finally:
            self._end_call(is_portal=is_portal)

    def end(self, *, is_needed: bool) -> None:
        """Leave the running event loop, which ends; if `is_needed` the portal is next at once."""
        with self._lock:
            if self._loop is not asyncio._get_running_loop():
                return
            self._loop = None
            self._is_open = False
            self._line.clear()
            self._leave_portal()
        if is_needed and not _portal.is_ending:
            loop, is_portal = self._choose(claim=False)
            job = asyncio.run_coroutine_threadsafe(_ensure(lambda: self._run_here(_nothing)), loop)
            job.add_done_callback(lambda _: self._end_call(is_portal=is_portal))

    def _choose(self, *, claim: bool) -> tuple[asyncio.AbstractEventLoop, bool]:
        """Return the home for a call, and whether it is the portal; `_end_call` must follow."""
        running = asyncio._get_running_loop()
        with self._lock:
            if self._loop is None or not self._loop.is_running():
                self._is_open = False
                self._line.clear()  # of tasks of a loop that has ended
                self._leave_portal()
                if claim and running is not None:
                    self._loop = running
                else:
                    self._loop = _portal.hold()
                    self._is_in_portal = True
            self._has_begun = True
            self._calls += 1
            if self._is_in_portal:
                _portal.hold()
            return self._loop, self._is_in_portal

    def _end_call(self, *, is_portal: bool) -> None:
        with self._lock:
            self._calls -= 1
            if self._is_closed and self._is_in_portal and not (self._calls or self._is_open):
                self._loop = None
                self._leave_portal()
        if is_portal:
            _portal.let_go()

    def _leave_portal(self) -> None:
        if self._is_in_portal:
            self._is_in_portal = False
            _portal.let_go()

    async def _run_here(self, function: Callable[[], Awaitable[T]]) -> T:
        if self._line or not self._is_open:
            await self._pass_door()
        return await function()

    async def _pass_door(self) -> None:
        """Open the backend, or wait until somebody has; all go on in the order in which they came.

        Cancellation:
            Whoever is next opens it.
        """
        place = _Place()
        with self._lock:
            self._line.append(place)
            if self._line[0] is not place:
                place.waiter = new_waiter()
        try:
            if place.waiter is not None:
                await place.waiter
            if not self._is_open:
                await self._open_backend()
                self._is_open = True
        finally:
            self._let_next(place)

    def _let_next(self, place: _Place) -> None:
        with self._lock:
            if place not in self._line:
                return
            was_first = self._line[0] is place
            self._line.remove(place)
            # A waiter whose loop has closed, or that is cancelled, has its turn no more.
            while was_first and self._line:
                following = self._line[0].waiter
                if following is None or not wake((following,)):
                    break
                self._line.popleft()
            is_free = self._is_open and not self._line
        if is_free:
            self._be_open()


class Watch:
    """Receivers' event loops, which notice that a home was stopped or closed without a word."""

    def __init__(
        self,
        home: Home,
        is_needed: Callable[[], bool],
        take_over: Callable[[], Coroutine[Any, Any, None]],
    ) -> None:
        """Watch nothing yet.

        Args:
            home: What is watched.
            is_needed: Says whether anybody waits.
            take_over: Makes the running loop the home.
        """
        self._home = home
        self._is_needed = is_needed
        self._take_over = take_over
        self._loops: WeakSet[asyncio.AbstractEventLoop] = WeakSet()
        self._tasks: set[asyncio.Task[None]] = set()

    def add(self) -> None:
        """Let the running event loop watch, as long as anybody waits."""
        loop = asyncio._get_running_loop()
        if loop is not None and loop not in self._loops:
            self._loops.add(loop)
            loop.call_later(_LOOK_S, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        if not self._is_needed():
            self._loops.discard(loop)
            return
        loop.call_later(_LOOK_S, self._look, loop)
        if self._home.is_gone:
            task = loop.create_task(self._take_over())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)


class _Place:
    """One call in line before the door of a backend; without a waiter it may go on."""

    __slots__ = ("waiter",)

    def __init__(self) -> None:
        self.waiter: LoopWaiter | None = None


class _Portal:
    """One daemon thread with an event loop, as long as a home is there or a call on its way."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._holders = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self.is_ending = False  # with the interpreter
        _fork.in_child(self, _Portal.__init__)

    def hold(self) -> asyncio.AbstractEventLoop:
        """Return its running loop; to be let go."""
        with self._lock:
            self._holders += 1
            if self._loop is None or not self._loop.is_running():
                loop = self._loop = asyncio.new_event_loop()
                is_running = threading.Event()
                loop.call_soon(is_running.set)
                self._thread = threading.Thread(
                    target=_serve, args=(loop,), name="channels-layers-portal", daemon=True
                )
                self._thread.start()
                is_running.wait()
                atexit.register(_stop, loop, self._thread)
            return self._loop

    def let_go(self) -> None:
        """End the thread if nobody else holds it."""
        with self._lock:
            if not self._holders:  # a forked child goes on with a call of its parent
                return
            self._holders -= 1
            if self._holders:
                return
            loop, self._loop = self._loop, None
            thread, self._thread = self._thread, None
            atexit.unregister(_stop)
        if loop is None or thread is None or not thread.is_alive():
            return
        asyncio.run_coroutine_threadsafe(_finish(), loop)
        if thread is not threading.current_thread():
            thread.join(timeout=_ENDING_S)


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    loop.run_forever()
    loop.close()


async def _finish(*, are_calls_cut: bool = True) -> None:
    """End what is left in the running loop, then the loop."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    if not are_calls_cut:
        tasks = {task for task in tasks if not _is_call(task)}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.sleep(0)  # in which the connections that they have closed are let go of
    asyncio.get_running_loop().stop()


def _is_call(task: asyncio.Task[Any]) -> bool:
    return getattr(task.get_coro(), "cr_code", None) is _ensure.__code__


def _stop(loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
    """End the portal before the interpreter takes its modules away.

    Calls that daemon threads still wait for are left alone: they could only complain.
    """
    if not thread.is_alive():  # a forked child has the loop, but not its thread
        return
    _portal.is_ending = True
    asyncio.run_coroutine_threadsafe(_finish(are_calls_cut=False), loop)
    thread.join(timeout=_ENDING_S)


_portal = _Portal()


async def _nothing() -> None:
    pass


async def _ensure(function: Callable[[], Awaitable[T]]) -> T:
    return await function()


async def _carry(loop: asyncio.AbstractEventLoop, function: Callable[[], Awaitable[T]]) -> T:
    """Run `function` in `loop` and wait for it in the running loop, asyncio's or trio's."""
    waiter = new_waiter()
    job: Coroutine[Any, Any, T] = _ensure(function)
    try:
        future = asyncio.run_coroutine_threadsafe(job, loop)
    except RuntimeError:
        job.close()
        raise
    future.add_done_callback(lambda _: wake((waiter,)))
    try:
        await waiter
    except BaseException:
        future.cancel()
        raise
    try:
        return future.result()
    except concurrent.futures.CancelledError as exc:
        raise BackendTimeout("the event loop of the connection") from exc
