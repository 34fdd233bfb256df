"""The order of what one client sends to its own channels, directly and by way of its groups.

A group message is on its way until the backend has taken it, and only then comes to the members
here. A direct message that is sent meanwhile must not overtake it.
"""

from __future__ import annotations

import threading

from ._loops import LoopWaiter, new_waiter, wake


class Turn:
    """One message: in line, then on its way, then over."""

    __slots__ = ("has_begun", "is_over", "waiters")

    def __init__(self) -> None:
        self.has_begun = False
        self.is_over = False
        self.waiters: list[LoopWaiter] = []


class Turns:
    """The messages on their way; group messages wait for direct ones, not for one another."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._groups: list[Turn] = []
        self._directs: list[Turn] = []

    @property
    def is_idle(self) -> bool:
        """Whether nothing is on its way, so that nothing can be overtaken."""
        return not self._groups and not self._directs

    async def begin_group(self) -> Turn:
        """Wait until the direct messages that were sent before have arrived; `end` the turn then.

        Cancellation:
            There is no turn to end.
        """
        with self._lock:
            turn, before = Turn(), list(self._directs)
            previous = [other for other in self._groups[-1:] if not other.has_begun]
            self._groups.append(turn)
        return await self._begin(turn, before, previous)

    async def begin_direct(self) -> Turn:
        """Wait until all that was sent before has arrived; `end` the turn then.

        Cancellation:
            There is no turn to end.
        """
        with self._lock:
            turn, before = Turn(), [*self._groups, *self._directs]
            self._directs.append(turn)
        return await self._begin(turn, before, [])

    def end(self, turn: Turn) -> None:
        """Let those go on that wait for this turn."""
        with self._lock:
            (self._groups if turn in self._groups else self._directs).remove(turn)
            turn.has_begun = turn.is_over = True
        wake(turn.waiters)

    async def _begin(self, turn: Turn, over: list[Turn], begun: list[Turn]) -> Turn:
        try:
            for other in over:
                while (waiter := self._waiter(other, is_late=other.is_over)) is not None:
                    await waiter
            # Those that wait for the same end begin in their order, whatever order they wake in.
            for other in begun:
                while (waiter := self._waiter(other, is_late=other.has_begun)) is not None:
                    await waiter
        except BaseException:
            self.end(turn)
            raise
        with self._lock:
            turn.has_begun = True
            waiters, turn.waiters = turn.waiters, []
        wake(waiters)
        return turn

    def _waiter(self, turn: Turn, *, is_late: bool) -> LoopWaiter | None:
        """Return what to wait with for a change of `turn`, or None if that came already."""
        with self._lock:
            if is_late or turn.is_over:
                return None
            waiter = new_waiter()
            turn.waiters.append(waiter)
            return waiter
