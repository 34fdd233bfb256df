"""The order of what one client sends to its own channels, directly and by way of its groups.

A group message is on its way until the backend has taken it, and only then comes to the members
here. A direct message that is sent meanwhile must not overtake it.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Final

from ._loops import LoopWaiter, has_ended, new_waiter, wait_up_to, wake
from .errors import BackendUnavailable

_LOOK_S: Final = 0.25  # how often to look whether the loop has closed that all wait for


class NoTurn(BackendUnavailable):
    """What a client has sent before did not arrive, nor fail, while a call had time."""

    def __str__(self) -> str:
        return f"{self.shard}: what was sent before is still on its way; nothing was done"


class Turn:
    """One message: in line, then on its way, then over."""

    __slots__ = ("ends_at", "has_begun", "has_waited", "is_direct", "is_over", "waiter")

    def __init__(self, waiter: LoopWaiter, ends_at: float, *, is_direct: bool) -> None:
        self.waiter = waiter  # of the loop that it belongs to
        self.ends_at = ends_at
        self.is_direct = is_direct
        self.has_waited = False  # so that what is left of its time is less
        self.has_begun = False
        self.is_over = False


class Turns:
    """The messages of one client: those on their way, all direct or all to groups, and a line.

    They begin in the order of their calls. Nobody waits for one whose time is over, or whose loop
    has closed. Any thread may call, also one that throws a coroutine away while it holds the lock.
    """

    def __init__(self, name: str, seconds: float) -> None:
        """Begin empty.

        Args:
            name: Of the backend, for errors.
            seconds: From a call to its end, with the wait for its turn.
        """
        self._name = name
        self._seconds = seconds
        self._lock = threading.RLock()
        self._begun: deque[Turn] = deque()
        self._line: deque[Turn] = deque()
        self._woken: Turn | None = None  # begun, and its task has not gone on yet
        self._is_acting = False  # this very thread, if it finds that while it holds the lock
        self._is_due = False

    @property
    def is_idle(self) -> bool:
        """Whether nothing is on its way, so that nothing can be overtaken."""
        return not self._begun and not self._line

    async def begin(self, *, is_direct: bool) -> Turn:
        """Wait until nothing can be overtaken; `end` the turn then.

        Raises:
            NoTurn: what was sent before took too long; nothing is to be ended.

        Cancellation:
            There is no turn to end.
        """
        turn = Turn(new_waiter(), time.monotonic() + self._seconds, is_direct=is_direct)
        self._line.append(turn)
        self._go_on()
        if not turn.has_begun:
            turn.has_waited = True
            try:
                await self._wait(turn)
            except BaseException:
                self.end(turn)
                raise
            if self._woken is turn:
                self._woken = None
                self._go_on()
            if turn.ends_at <= time.monotonic():  # it was woken in time, but went on too late
                self.end(turn)
                raise NoTurn(self._name)
        return turn

    def end(self, turn: Turn) -> None:
        """Let those go on that wait for this turn."""
        turn.is_over = True
        self._go_on()

    async def _wait(self, turn: Turn) -> None:
        while not turn.has_begun:
            left_s = turn.ends_at - time.monotonic()
            if left_s <= 0:
                raise NoTurn(self._name)
            await wait_up_to(turn.waiter, min(left_s, _LOOK_S))
            if not turn.has_begun:
                turn.waiter = new_waiter()  # before the look: whoever lets it go on wakes this one
                self._go_on()

    def _go_on(self) -> None:
        woken: list[LoopWaiter] = []
        with self._lock:
            self._is_due = True
            while self._is_due and not self._is_acting:
                self._is_acting = True
                self._is_due = False
                try:
                    self._let_begin(woken)
                finally:
                    self._is_acting = False
        if woken:
            wake(woken)

    def _let_begin(self, woken: list[LoopWaiter]) -> None:
        """Let all begin that may; gather whom to wake.

        One at a time is woken: trio lets those go on in any order that are woken together.
        """
        begun, line, now = self._begun, self._line, time.monotonic()
        if self._woken is not None and not _is_gone(self._woken, now):
            return
        self._woken = None
        while True:
            while begun and _is_gone(begun[0], now):
                begun.popleft()
            while line and _is_gone(line[0], now):
                line.popleft()
            if not line or (begun and begun[0].is_direct != line[0].is_direct):
                return
            turn = line[0]
            begun.append(turn)  # first, so that it is never in neither
            line.popleft()
            turn.has_begun = True
            if turn.has_waited:
                woken.append(turn.waiter)
                self._woken = turn
                return


def _is_gone(turn: Turn, now: float) -> bool:
    return turn.is_over or turn.ends_at <= now or has_ended(turn.waiter)
