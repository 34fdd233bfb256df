"""Work that needs a segment's lock: done at once where that is free, in an executor where not.

The event loop never waits for a lock. What cannot be done at once gets in line, and whatever
comes later for the same lock gets in line behind it, so the order of calls is kept.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Final, Generic, TypeVar

from .. import _fork
from .._loops import LoopWaiter, new_waiter, wake
from ._directory import Busy
from ._errors import BackendUnavailable, SegmentHeld
from ._segment import Lock

T = TypeVar("T")

_logger = logging.getLogger("channels_layers")

_THREADS: Final = 8  # locks that may be waited for at once; more wait for a thread
_JOBS_AT_ONCE: Final = 64  # done under one hold of a lock, so that others get it too
_BUSY_S: Final = 0.001  # between two tries to get at the directory


class Job(Generic[T]):
    """One piece of work in line; done once, or never if it was revoked before."""

    __slots__ = ("_ticket", "before", "error", "is_over", "otherwise", "result", "waiter", "work")

    def __init__(
        self,
        work: Callable[[], T],
        waiter: LoopWaiter | None,
        before: Callable[[], object] | None = None,
        otherwise: Callable[[], object] | None = None,
    ) -> None:
        self.work = work
        self.waiter = waiter
        self.before = before
        self.otherwise = otherwise
        self.result: T | None = None
        self.error: Exception | None = None
        self.is_over = False
        self._ticket = [None]

    @property
    def is_claimed(self) -> bool:
        """Whether somebody has the right to do or to revoke it."""
        return not self._ticket

    def claim(self) -> bool:
        """Take the right to do or to revoke it; only one gets it."""
        try:
            self._ticket.pop()
        except IndexError:
            return False
        return True

    def outcome(self) -> T:
        """Return or raise what came of it."""
        if self.error is not None:
            raise self.error
        return self.result  # type: ignore[return-value]  # set with is_over


class Line:
    """The work that waits for one lock."""

    def __init__(
        self, lock: Lock, seconds: float, afterwards: Callable[[], None] | None = None
    ) -> None:
        """Begin with nothing in line.

        Args:
            lock: What the work needs.
            seconds: How long the lock may be waited for.
            afterwards: Is called each time the lock has been released.
        """
        self.lock = lock
        self._afterwards = afterwards
        self._seconds = seconds
        self._jobs: deque[Job[Any]] = deque()
        self._threads = threading.Lock()
        self.is_served = False  # something waits

    def try_now(self, work: Callable[[], T]) -> tuple[T] | None:
        """Do `work` under the lock and return its result, if nothing has to wait."""
        if self.is_served or not self.lock.try_acquire():
            return None
        try:
            return (work(),)
        except Busy:
            return None
        finally:
            self._release()

    async def run(
        self,
        work: Callable[[], T],
        *,
        before: Callable[[], object] | None = None,
        otherwise: Callable[[], object] | None = None,
    ) -> T:
        """Do `work` under the lock.

        Args:
            work: Is done at once or in its turn.
            before: Is called first, in a thread and without the lock, since it takes long.
            otherwise: Is called if `work` had to wait for its turn, and was revoked or failed.

        Raises:
            SegmentHeld: the lock was not to be had in time; it was not done.

        Cancellation:
            It was not done and never will be; or it was done.
        """
        done = self.try_now(work) if before is None else None
        if done is not None:
            return done[0]
        job = self._append(Job(work, new_waiter(), before, otherwise))
        assert job.waiter is not None, "it was just made"  # noqa: S101
        try:
            await job.waiter
        except BaseException:
            job.claim()
            raise
        return job.outcome()

    def post(
        self,
        work: Callable[[], Any],
        *,
        before: Callable[[], object] | None = None,
        otherwise: Callable[[], object] | None = None,
    ) -> Job[Any] | None:
        """Do `work` now or in its turn, whoever is cancelled; None when it is done; as `run`."""
        if before is None and self.try_now(work) is not None:
            return None
        return self._append(Job(work, None, before, otherwise))

    def finish(self, seconds: float) -> None:
        """Wait until nothing is in line; blocks, in a thread that serves no line."""
        ends_at = time.monotonic() + seconds
        while self.is_served and time.monotonic() < ends_at:
            time.sleep(_BUSY_S)

    def _append(self, job: Job[T]) -> Job[T]:
        with self._threads:
            self._jobs.append(job)
            if not self.is_served:
                self.is_served = True
                executor.submit(self._serve)
        return job

    def _serve(self) -> None:
        """Do what is in line; runs in the executor."""
        while True:
            with self._threads:
                if not self._jobs:
                    self.is_served = False
                    return
                count = min(len(self._jobs), _JOBS_AT_ONCE)
                jobs = [self._jobs.popleft() for _ in range(count)]
            for job in jobs:
                _prepare(job)
            try:
                self.lock.acquire(self._seconds)
            except BackendUnavailable as exc:
                self._fail(jobs, exc)
                continue
            try:
                for job in jobs:
                    self._do(job)
            finally:
                self._release()
            _finish(jobs)

    def _release(self) -> None:
        self.lock.release()
        if self._afterwards is not None:
            self._afterwards()

    def _do(self, job: Job[Any]) -> None:
        if not job.claim():
            _give_up(job)
            return
        ends_at = time.monotonic() + self._seconds
        try:
            while True:
                try:
                    job.result = job.work()
                    break
                except Busy:
                    if time.monotonic() > ends_at:
                        raise SegmentHeld("directory", 0) from None
                    time.sleep(_BUSY_S)
        except Exception as exc:  # noqa: BLE001  # raised by whoever waits for the job
            job.error = exc
            _give_up(job)

    def _fail(self, jobs: list[Job[Any]], exc: BackendUnavailable) -> None:
        """Let these jobs and all behind them fail."""
        with self._threads:
            jobs += self._jobs
            self._jobs.clear()
        for job in jobs:
            if job.claim():
                job.error = exc
            _give_up(job)
        _finish(jobs)


async def completed(jobs: list[Job[Any]]) -> None:
    """Wait for posted jobs; raise the first error among them.

    Cancellation:
        They are done all the same.
    """
    for job in jobs:
        if not job.is_over:
            waiter = new_waiter()
            job.waiter = waiter
            if not job.is_over:  # it may have ended just before
                await waiter
        job.outcome()


def _prepare(job: Job[Any]) -> None:
    if job.before is None or job.is_claimed:
        return
    try:
        job.before()
    except Exception as exc:  # noqa: BLE001  # raised by whoever waits for the job
        if job.claim():
            job.error = exc


def _give_up(job: Job[Any]) -> None:
    if job.otherwise is not None:
        job.otherwise()


def _finish(jobs: list[Job[Any]]) -> None:
    for job in jobs:
        job.is_over = True
        if job.waiter is not None:
            wake((job.waiter,))


class Executor:
    """The threads in which this process waits for shared memory; none while nobody needs them.

    Unlike those of `ThreadPoolExecutor` they never keep the interpreter alive, be it that they
    wait for a lock whose holder is stopped.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._begin()
        _fork.in_child(self, Executor.__init__)

    def submit(self, work: Callable[[], object]) -> None:
        """Do `work` in a thread."""
        with self._lock:
            self._works.put(work)
            if not self._idle.acquire(blocking=False) and self._threads < _THREADS:
                self._threads += 1
                threading.Thread(
                    target=_do_all,
                    args=(self._works, self._idle),
                    name="channels-layers-ipc",
                    daemon=True,
                ).start()

    async def run(self, work: Callable[[], T]) -> T:
        """Do `work` in a thread and return what it returns.

        Cancellation:
            It is done all the same.
        """
        job = Job(work, new_waiter())
        assert job.waiter is not None, "it was just made"  # noqa: S101

        def do() -> None:
            try:
                job.result = work()
            except Exception as exc:  # noqa: BLE001  # raised by whoever waits for the job
                job.error = exc
            _finish([job])

        self.submit(do)
        await job.waiter
        return job.outcome()

    def stop_unless(self, has_users: bool) -> None:
        """Let the threads end when they have done their work, and nobody is left to need them."""
        if has_users:
            return
        with self._lock:
            for _ in range(self._threads):
                self._works.put(None)
            self._begin()

    def _begin(self) -> None:
        self._works: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._idle = threading.Semaphore(0)  # threads that nothing was given to yet
        self._threads = 0


def _do_all(works: SimpleQueue[Callable[[], object] | None], idle: threading.Semaphore) -> None:
    while (work := works.get()) is not None:
        try:
            work()
        except Exception:  # whatever it is, the thread has other work to do
            _logger.exception("the IPC layer failed in a thread")
        del work
        idle.release()


executor: Final = Executor()
