"""The order of what is done to groups: news of memberships, and messages over several shards."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

import anyio

from .._loops import LoopWaiter, new_waiter, wake, wake_one
from ._errors import ServerSilent

_MOST: Final = 65_536  # memberships whose version is remembered


class Versions:
    """The last version heard of each membership; its shard numbers all changes there.

    A change that this client made is told by the answer, one that another made by the inbox, so
    that they can come in another order than that in which they were made.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], int] = {}

    def is_new(self, group: str, channel: str, version: int) -> bool:
        """Say whether nothing later was heard, and remember it."""
        name = (group, channel)
        if version < self._known.get(name, 0):
            return False
        self._known.pop(name, None)
        if len(self._known) >= _MOST:
            del self._known[next(iter(self._known))]
        self._known[name] = version
        return True

    def forget(self) -> None:
        """Begin anew; so does the shard."""
        self._known.clear()


class Spreading:
    """Group messages that are not on their way to all shards yet; what is sent later waits.

    Copies for the members that live at other shards can go only when the group's own shard has
    said who they are. A message that is sent meanwhile must not overtake them, for as long as a
    call may take: whoever sent may have gone with its event loop.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()
        self._turns: list[list[LoopWaiter]] = []  # who waits for the end of each, in order

    def begin(self) -> list[LoopWaiter]:
        """Get in line; `end` it."""
        turn: list[LoopWaiter] = []
        with self._lock:
            self._turns.append(turn)
        return turn

    async def before(self, turn: list[LoopWaiter] | None = None) -> None:
        """Wait until all that is before `turn`, or now in line, is on its way."""
        with self._lock:
            earlier = list(self._turns)
        for other in earlier:
            if other is turn:
                return
            await self._ended(other)

    def end(self, turn: list[LoopWaiter]) -> None:
        """It is on its way to all shards."""
        with self._lock:
            self._turns = [other for other in self._turns if other is not turn]
        wake(turn)

    async def _ended(self, turn: list[LoopWaiter]) -> None:
        with self._lock:
            if all(other is not turn for other in self._turns):
                return
            waiter = new_waiter()
            turn.append(waiter)
        with anyio.move_on_after(self._seconds):
            await waiter
            return
        self.end(turn)


class Spread:
    """The copies of one group message that go to several shards, in the home's event loop."""

    def __init__(self, waiter: LoopWaiter) -> None:
        self._waiter = waiter  # of who sends
        self._on_the_way = 1  # and this itself, while copies are being sent
        self._missed = ""  # a shard

    def begin(
        self, label: str, fan_out: Callable[[bytes], None] | None
    ) -> Callable[[list[bytes] | None], None]:
        """Note one more copy, to the shard `label`; return what is to hear how it went."""
        self._on_the_way += 1

        def went(result: list[bytes] | None) -> None:
            if result is None:
                self._missed = label
            elif fan_out is not None:
                fan_out(result[0])
            self.go_on()

        return went

    def go_on(self) -> None:
        """Let who sends go on when all copies are where they should be."""
        self._on_the_way -= 1
        if not self._on_the_way:
            wake_one(self._waiter)

    async def arrived(self, seconds: float) -> None:
        """Wait for that, so many seconds: the home may end before it can tell.

        Raises:
            ServerSilent: one of the shards does not answer; the others have their copies.
        """
        with anyio.move_on_after(seconds) as patience:
            await self._waiter
        if patience.cancelled_caught:
            self._missed = "its shards"
        if self._missed:
            raise ServerSilent(self._missed, "no answer in time, the other shards are served")
