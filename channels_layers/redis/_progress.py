"""How far a client has read its inbox, and what waits until it has read further."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._command import Command
    from ._shard import Shard


class Progress:
    """The order of what comes by way of the inbox, and of what does not."""

    def __init__(self, home: Shard) -> None:
        self._home = home
        self._own_last = ""  # the newest entry that this client has put into its own inbox
        self._own: deque[Command] = deque()  # its messages to itself, on their way there
        self._waiting: deque[tuple[tuple[int, int], Callable[[], object]]] = deque()

    def note_own(self, command: Command) -> None:
        """Note a message to an own channel."""
        self._own.append(command)

    def note_entry(self, result: Any) -> None:
        """Note what became of it: an entry, or nothing."""
        if isinstance(result, bytes):
            self._own_last = result.decode()

    def is_idle(self) -> bool:
        """Whether nothing that was sent to an own channel is on its way."""
        while self._own and self._own[0].is_done:
            with contextlib.suppress(IndexError):  # another thread was faster
                self._own.popleft()
        if self._own or self._waiting:
            return False
        return _id(self._own_last) <= _id(self._home.position)

    def is_past(self, entry_id: bytes) -> bool:
        """Whether an entry was read."""
        return _id(entry_id.decode()) <= _id(self._home.position)

    def after(self, entry_id: bytes, act: Callable[[], object]) -> None:
        """Do something when the inbox was read up to an entry; at once if it was."""
        if self.is_past(entry_id) and not self._waiting:
            act()
        else:
            self._waiting.append((_id(entry_id.decode()), act))

    def must_go_on(self, entry_id: bytes) -> bool:
        """Say whether something waits that comes before the next entry."""
        return bool(self._waiting) and self._waiting[0][0] < _id(entry_id.decode())

    def go_on(self, *, to_the_end: bool = False, before: bytes | None = None) -> None:
        """Do what has waited for what was read, or for what is before an entry; or all of it."""
        position = _id(self._home.position)
        next_ = None if before is None else _id(before.decode())
        while self._waiting:
            place = self._waiting[0][0]
            if not (to_the_end or place <= position or (next_ is not None and place < next_)):
                break
            self._waiting.popleft()[1]()


def following(position: str) -> str:
    """Return the id of the entry that could come next after a position."""
    milliseconds, number = _id(position)
    return f"{milliseconds}-{number + 1}"


def _id(text: str) -> tuple[int, int]:
    """Return the id of an entry as what can be compared."""
    milliseconds, _, number = text.partition("-")
    return (int(milliseconds), int(number)) if number else (0, 0)
