"""The order of what one client sends while a group message waits for an answer."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from ._command import Command
from ._lane import Lane

_logger = logging.getLogger("channels_layers")

_LOOK_S: Final = 0.25  # how often to look whether the shard that all wait for is down


class Turn:
    """What is to be sent when all before it is on its way."""

    __slots__ = ("act", "asked", "ends_at")

    def __init__(self, act: Callable[[], object] | None) -> None:
        self.act = act  # sends it; None: the shard of its group has not said yet to whom
        self.asked: tuple[Lane, Command] | None = None  # where, and what, if it may fail
        self.ends_at = 0.0  # when others have waited enough for the answer


class Line:
    """What one client sends, in the order of its calls, while a group message waits for an answer.

    Copies of it can go only when its shard has said who the members are. What is sent meanwhile
    and must not overtake them gets in line; it is acted on in the home loop. Where no group
    message is on its way, nothing does. One whose shard does not answer fails, with nothing done,
    if others could go on that have waited for half of the time of a call, or the shard is known
    to be down. Any thread may call, also one that throws a coroutine away while it holds the lock.
    """

    def __init__(self, call: Callable[[Callable[[], None]], None], seconds: float) -> None:
        """Begin empty; `call` calls something in the home loop, and calls take so many seconds."""
        self._call = call
        self._patience_s = seconds / 2
        self._lock = threading.RLock()
        self._turns: deque[Turn] = deque()
        self._is_acting = False
        self._looks_at = 0.0  # for what is late, if that is to come

    @property
    def is_empty(self) -> bool:
        """Whether nothing can be overtaken."""
        return not self._turns

    def begin(self, asked: tuple[Lane, Command] | None = None) -> Turn:
        """Get in line with a group message; it must get `ready`, or be let go at its `end`.

        `asked` is a question that changes nothing, so that it may fail where others wait.
        """
        turn = Turn(None)
        turn.asked = asked
        turn.ends_at = time.monotonic() + self._patience_s
        with self._lock:
            self._turns.append(turn)
        return turn

    def follow(self, act: Callable[[], object]) -> bool:
        """Act after all that is in line now; False where nothing is."""
        turn = Turn(act)
        with self._lock:
            if not self._turns:
                return False
            self._turns.append(turn)
        self._call(self._go_on)
        return True

    def ready(self, turn: Turn, act: Callable[[], object]) -> bool:
        """Act when it is the turn's time, in the home loop; False where it has been let go."""
        with self._lock:
            if turn not in self._turns:
                return False
            turn.act = act
        self._go_on()
        return True

    def end(self, turn: Turn) -> None:
        """Let go of a turn, if it was not acted on; may be repeated."""
        with self._lock:
            if turn not in self._turns:
                return
            self._turns.remove(turn)
        self._call(self._go_on)

    def _go_on(self) -> None:
        with self._lock:
            if self._is_acting:
                return
            self._is_acting = True
        while True:
            with self._lock:
                first = self._turns[0] if self._turns else None
                if first is None or (first.act is None and not self._must_fail(first)):
                    self._is_acting = False
                    return
            try:
                if first.act is not None:
                    first.act()
                elif first.asked is not None:
                    lane, question = first.asked
                    lane.give_up(question)
            except Exception:  # whatever it is, the others must get their turn
                _logger.exception("a message could not be sent in its turn")
            with self._lock:
                if self._turns and self._turns[0] is first:
                    self._turns.popleft()  # only now: what comes meanwhile must not overtake it

    def _must_fail(self, first: Turn) -> bool:
        """Say whether others have waited enough; look again when they have."""
        if first.asked is None or not any(turn.act for turn in self._turns):
            return False
        now = time.monotonic()
        if first.ends_at <= now or first.asked[0].is_down:
            return True
        if self._looks_at <= now:
            due_in_s = min(first.ends_at - now, _LOOK_S)  # its shard may be known to be down soon
            self._looks_at = now + due_in_s
            asyncio.get_running_loop().call_later(due_in_s, self._look_again)
        return False

    def _look_again(self) -> None:
        self._looks_at = 0.0
        self._call(self._go_on)
