"""The commands of one lane: in line, or in the batch that is on its way; and what becomes of them.

Any thread may add to the line and end what is in it; all else is for the event loop of the lane.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final

from ..errors import LayerClosed
from ._command import Command
from ._errors import ServerRefused, ServerSilent, ServerUnavailable

_logger = logging.getLogger("channels_layers")

_MOST: Final = 256  # commands in a batch
_MOST_BYTES: Final = 1 << 20  # of payloads in a batch, but for the last command
_MOST_TRIES: Final = 60  # of what nobody waits for, one a second
_NEVER: Final = float("inf")
_NOTHING: Final = ("none", 0)
_FEW: Final = 2  # commands in a batch that is as good as one
_ALONE: Final = "forget"  # which removes the results of the batch that it is in
# What a server may do that is full: it makes room, or takes none for long.
_MAKES_ROOM: Final = frozenset(
    {
        *("alive", "back", "beat", "clean", "confirm", "discard", "flush", "forget", "glance"),
        *("members", "mine", "newest", "none", "numbers", "numbers_of", "owners", "return", "seen"),
        *("settle", "talk", "unseen", "want"),
    }
)


class Pending:
    """What is to be done, and what may have been done and is not known yet."""

    def __init__(
        self,
        label: str,
        seconds: float,
        extra: Callable[[], Iterable[Command]],
        later: Callable[[Command], object],
    ) -> None:
        """Begin with nothing to do.

        Args:
            label: Of the shard.
            seconds: How long a command may take.
            extra: Returns commands that go with the next batch, if it `is_due`.
            later: Adds a command again after a while.
        """
        self.line: deque[Command] = deque()
        self.batch: list[Command] = []
        self.number = 0  # of the batch
        self.first = 0  # the number of the first batch since the server began to keep results
        self.makes_room = False  # all of the batch, as it was sent
        self._unanswered = 0  # how often the batch was sent
        self.is_due = False  # what `extra` has is to be sent
        self.is_calm = True  # the last batch was one command, with what goes with it
        self._label = label
        self._seconds = seconds
        self._extra = extra
        self._later = later

    def has(self, name: str) -> bool:
        """Whether such a command is on its way or in line."""
        return any(command.name == name for command in self._all())

    @property
    def is_busy(self) -> bool:
        """Whether something is on its way or in line."""
        return bool(self.line or self.batch)

    def put_first(
        self, commands: list[tuple[Any, ...]], then: Callable[[Any], object] | None = None
    ) -> None:
        """Let commands go before all others, the first one first; `then` hears of the last."""
        deadline = time.monotonic() + self._seconds
        for name, *words in reversed(commands):
            self.line.appendleft(Command(name, tuple(words), deadline, None, then))
            then = None

    # Batches

    def gather(self) -> bool:
        """Make a batch of what is to be done; False if that is nothing."""
        batch: list[Command] = []
        size_bytes = 0
        line = self.line
        while line and len(batch) < _MOST and size_bytes < _MOST_BYTES:
            if line[0].name == _ALONE and batch:
                break
            command = line.popleft()
            command.is_done = command.is_given_up
            if not command.is_done:
                batch.append(command)
                size_bytes += command.size_bytes
                if command.name == _ALONE:
                    break
        if self.is_due and not (batch and batch[0].name == _ALONE):
            self.is_due = False
            # First, so that what was read makes room for what is sent.
            batch = [*self._extra(), *batch]
        if batch:
            self.number += 1
            self._unanswered = 0
            self.batch = batch
        return bool(batch)

    def words(self) -> list[Any]:
        """Return what the batch says to the server; from now on it may have been done."""
        words: list[Any] = []
        self._unanswered += 1
        self.makes_room = True
        for command in self.batch:
            command.is_blank = command.is_given_up
            if command.is_blank:
                words += _NOTHING  # in its place, since results are told by theirs
            else:
                words += (command.name, len(command.words), *command.words)
                command.is_sent = True
                self.makes_room = self.makes_room and command.name in _MAKES_ROOM
        return words

    def answer(self, results: list[Any]) -> None:
        """Tell the commands of the batch what came of them."""
        batch, self.batch = self.batch, []
        self.is_calm = len(batch) <= _FEW
        for command, result in zip(batch, results, strict=True):
            if isinstance(result, list) and result[:1] == [b"!"]:
                problem = result[1].decode(errors="replace")
                self._end_badly(command, ServerRefused(self._label, problem))
                continue
            command.is_done = True
            if command.name == _ALONE:
                self.first = self.number + 1
            # What was given up may have been done before, and then these are its results.
            if not (command.gives_up and command.is_over) and not (command.is_blank and not result):
                command.tell(result)
            command.end(result)

    def refused(self) -> None:
        """Hear that the server has not done the batch; it may have, where no answer came before."""
        self._unanswered -= 1
        if not self._unanswered:
            for command in self.batch:
                command.is_sent = False

    def make_room_first(self) -> bool:
        """Make a batch of what a full server does, of all that waits; False if that is nothing.

        The others get in line again, in their order. What a client says last keeps its place.
        """
        if self._unanswered or (self.batch and self.batch[0].name == _ALONE):
            return False
        waiting, behind = self.batch, self.line
        while behind and behind[0].name != _ALONE:
            with contextlib.suppress(IndexError):  # another thread ends them
                waiting.append(behind.popleft())
        first = [one for one in waiting if one.name in _MAKES_ROOM and not one.is_given_up][:_MOST]
        chosen = set(map(id, first))
        others = [one for one in waiting if id(one) not in chosen]
        if not first:
            first, others = others[:_MOST], others[_MOST:]
        self.batch = first
        behind.extendleft(reversed(others))
        return bool(chosen)

    def let_go(self) -> bool:
        """Forget the batch if all of it was given up; say whether it was."""
        if not all(command.is_given_up for command in self.batch):
            return False
        for command in self.batch:
            command.is_done = True
        self.batch = []
        return True

    # What cannot be done

    def fail(self, exc: Exception) -> None:
        """Let all commands of the batch fail."""
        batch, self.batch = self.batch, []
        for command in batch:
            self._end_badly(command, exc)

    def fail_sent(self, problem: str) -> None:
        """Let those commands fail that may have been done before the server went back in time."""
        for command in self.batch:
            if command.is_sent:
                command.end(error=ServerSilent(self._label, problem))
                command.is_late = True
                _give_up(command)

    def fail_movable(self, problem: str) -> None:
        """Let those commands fail that may be done elsewhere, and were not sent here."""
        for command in self._all():
            if command.is_movable and not command.is_sent:
                command.is_late = True
                command.end(error=ServerUnavailable(self._label, problem))

    def fail_waiting(self, exc: ServerRefused) -> None:
        """Let all commands fail that wait for a connection, which cannot be made."""
        for command in self._all():
            command.end(error=exc)

    def end_all(self) -> None:
        """Let everything fail, since the lane has ended."""
        batch, self.batch = self.batch, []
        for command in batch:
            self._end_closed(command)
        while self.line:
            with contextlib.suppress(IndexError):  # another thread does the same
                self._end_closed(self.line.popleft())

    # Time

    def next_deadline(self) -> float:
        """Return when the time of the first command is over."""
        deadlines = [command.deadline for command in self._all() if not command.is_late]
        return min(deadlines, default=_NEVER)

    def expire(self, problem: str) -> bool:
        """Let those commands fail whose time is over; say whether the server has one of them."""
        now = time.monotonic()
        is_silent = False
        for command in self._all():
            if command.is_late or command.deadline > now:
                continue
            is_silent = is_silent or command.is_sent
            if command.waiter is None and not command.gives_up:
                command.deadline = now + self._seconds
                continue
            command.is_late = True
            if command.gives_up:
                _give_up(command)
            elif command.is_sent:
                command.end(error=ServerSilent(self._label, problem))
            else:
                command.end(error=ServerUnavailable(self._label, problem))
        while self.line and self.line[0].is_given_up:
            self.line.popleft().is_done = True
        return is_silent

    # Helpers

    def _all(self) -> list[Command]:
        return [*self.batch, *self.line]

    def _end_badly(self, command: Command, exc: Exception) -> None:
        """Let a command fail, or try it again later where nobody could."""
        command.end(error=exc)
        if command.waiter is not None:
            command.is_done = True
            return
        _logger.error("redis %s did not do %r: %s", self._label, command.name, exc)
        command.tries += 1
        if command.gives_up or command.tries > _MOST_TRIES:
            command.is_done = command.is_over = True
            command.tell(None)
        else:
            self._later(command)

    def _end_closed(self, command: Command) -> None:
        command.is_done = True
        command.end(
            error=ServerSilent(self._label, "was closed") if command.is_sent else LayerClosed()
        )
        _give_up(command)


def _give_up(command: Command) -> None:
    """Tell `then` that nothing came of what nobody waits for, if it may be told so."""
    if command.gives_up and not command.is_over:
        command.is_over = True
        command.tell(None)
