"""The order of what is done to groups: news of memberships, and messages over several shards."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
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


class Turn:
    """One group message that is not on its way to all shards yet."""

    def __init__(self, ends_at: float, call: Callable[[Callable[[], None]], None]) -> None:
        self.ends_at = ends_at  # of the monotonic clock; then nobody waits for it any more
        self.call = call  # calls something in the home loop
        self.act: Callable[[], None] | None = None  # sends the copies
        self.waiting: list[LoopWaiter] = []  # for its end


class Spreading:
    """Group messages that are not on their way to all shards yet, in the order of their calls.

    Copies can go only when the group's own shard has said who the members are. What its answers
    bring is done in the order of the calls, and other messages that are sent meanwhile wait, for
    as long as a call may take: whoever sent may have gone with its event loop.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()
        self._turns: deque[Turn] = deque()

    def begin(self, call: Callable[[Callable[[], None]], None]) -> Turn:
        """Get in line; `call` calls something in the home loop."""
        turn = Turn(time.monotonic() + self._seconds, call)
        with self._lock:
            self._turns.append(turn)
        return turn

    def ready(self, turn: Turn, act: Callable[[], None]) -> None:
        """Let `act` send the copies when all before it are on their way; in the home loop."""
        with self._lock:
            is_in_line = turn in self._turns
            turn.act = act
        if not is_in_line:  # nobody waits for it any more
            act()
            return
        self._go_on()

    def end(self, turn: Turn) -> None:
        """Let go of a message that is not to be sent, or took too long."""
        with self._lock:
            if turn not in self._turns:
                return
            self._turns.remove(turn)
        wake(turn.waiting)
        turn.call(self._go_on)

    async def before(self) -> None:
        """Wait until all that is in line now is on its way."""
        with self._lock:
            earlier = list(self._turns)
        for turn in earlier:
            await self._ended(turn)

    def _go_on(self) -> None:
        while True:
            with self._lock:
                if not self._turns:
                    return
                first = self._turns[0]
            left_s = first.ends_at - time.monotonic()
            if first.act is None and left_s > 0:
                asyncio.get_running_loop().call_later(left_s, self._go_on)
                return
            try:
                if first.act is not None:
                    first.act()
            finally:
                with self._lock, contextlib.suppress(ValueError):  # another thread was faster
                    self._turns.remove(first)
                wake(first.waiting)

    async def _ended(self, turn: Turn) -> None:
        with self._lock:
            if turn not in self._turns:
                return
            waiter = new_waiter()
            turn.waiting.append(waiter)
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
