"""One channel inside this process: a bounded, expiring queue and those who wait for it.

Laws:

- A wake is a permission, not a message. `grant` gives a waiting receiver the permission to
  take one message; the message leaves the mailbox when that receiver resumes and calls `take`.
  A receiver that was cancelled in between calls `leave`, and its permission goes to the next.
- There are never more permits than messages at the moment of `grant`, and never a waiting
  receiver without a permit while a message without one is there.
- The caller tells the time and holds the lock; nothing here waits, reads a clock or wakes.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import MutableSequence
from typing import Final, Protocol, TypeAlias

from .statistics import Dropped, Tally

NEVER: Final = float("-inf")
_LIST_LIMIT: Final = 64  # messages; a deque costs 760 bytes, a short list 64, see docs/design.md


class Weight:
    """The bytes of a large payload, shared by all copies of it that wait unread."""

    __slots__ = ("copies", "size_bytes")

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self.copies = 0


# (expires_at in seconds on the layer's clock, payload, weight of a large payload)
Letter: TypeAlias = tuple[float, bytes, Weight | None]


class Waiter(Protocol):
    """A receiver that waits; made by the event loop's side, kept in line here."""

    lines: tuple[Line, ...]
    since: int
    permit: Mailbox | None

    def is_lost(self) -> bool:
        """Whether it can never resume, because its event loop has closed."""
        ...


class Line:
    """Receivers in the order in which they began to wait."""

    __slots__ = ("name", "read_at", "served", "waiting")

    def __init__(self, name: str) -> None:
        self.name = name
        self.waiting: dict[Waiter, None] = {}
        self.read_at = NEVER  # when a receive last ended here
        self.served = 0  # the layer's count of receives at the last one served here


class Family(Line):
    """The process-specific channels of one non-local part, seen as one queue.

    `arrivals` is the order of their messages. A letter that was taken from its mailbox stays
    in it until it comes to the front, or until half of them are such.
    """

    __slots__ = ("arrivals", "members", "pending")

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.members = 0  # mailboxes that belong to it
        self.arrivals: deque[tuple[Mailbox, Letter]] = deque()
        self.pending = 0  # unread messages of all members

    def note(self, mailbox: Mailbox, letter: Letter) -> None:
        """Remember that `letter` came after all others."""
        self.pending += 1
        self.arrivals.append((mailbox, letter))
        if len(self.arrivals) > 2 * self.pending + _LIST_LIMIT:
            members = {member for member, _ in self.arrivals}
            unread = {id(letter) for member in members for letter in member.letters}
            self.arrivals = deque(entry for entry in self.arrivals if id(entry[1]) in unread)

    def front(self) -> Mailbox | None:
        """Return the mailbox with the oldest message."""
        arrivals = self.arrivals
        while arrivals and not _is_first(*arrivals[0]):
            arrivals.popleft()
        return arrivals[0][0] if arrivals else None

    def unclaimed(self) -> Mailbox | None:
        """Return the mailbox with the oldest message that no receiver has a permit for."""
        self.front()
        return next((mailbox for mailbox, _ in self.arrivals if mailbox.has_unclaimed), None)


def _is_first(mailbox: Mailbox, letter: Letter) -> bool:
    # Mailboxes are first in, first out, and so are arrivals: a letter that is not the first of
    # its mailbox when it comes to the front here has left it.
    return bool(mailbox.letters) and mailbox.letters[0] is letter


class Mailbox(Line):
    """The messages that wait on one channel, and the receivers that wait for them."""

    __slots__ = (
        "accepted",
        "capacity",
        "dropped",
        "family",
        "groups",
        "is_expiring",
        "letters",
        "permits",
        "refused",
    )

    def __init__(self, name: str, capacity: int) -> None:
        super().__init__(name)
        self.capacity = capacity  # messages
        self.family: Family | None = None
        self.letters: MutableSequence[Letter] = []
        self.permits: list[Waiter] = []  # woken, not resumed yet
        self.groups: set[str] | None = None
        self.is_expiring = False  # somebody will look when the oldest message expires
        self.accepted = Tally()
        self.refused: Tally | None = None
        self.dropped: Counter[Dropped] | None = None

    @property
    def has_unclaimed(self) -> bool:
        """Whether there is a message that no receiver has a permit for."""
        return len(self.letters) > len(self.permits)

    def put(self, letter: Letter) -> None:
        """Append `letter`; the caller has seen that there is room."""
        letters = self.letters
        if len(letters) == _LIST_LIMIT and letters.__class__ is list:
            self.letters = letters = deque(letters)
        letters.append(letter)
        if self.family is not None:
            self.family.note(self, letter)

    def take(self, index: int) -> Letter:
        """Remove and return the message at `index`; 0 is the oldest."""
        letter = self.letters[index]
        del self.letters[index]
        if not self.letters and self.letters.__class__ is not list:
            self.letters = []
        if self.family is not None:
            self.family.pending -= 1
        return letter

    def grant(self) -> Waiter | None:
        """Give the longest waiting receiver a permit, if there is a message for it.

        Returns:
            The receiver to wake, or None.
        """
        if len(self.letters) <= len(self.permits):
            return None
        waiter = self._first_waiting()
        if waiter is None:
            return None
        for line in waiter.lines:
            del line.waiting[waiter]
        waiter.permit = self
        self.permits.append(waiter)
        return waiter

    def redeem(self, waiter: Waiter) -> int:
        """Take back the permit of a resumed `waiter`; return which message is its own.

        Receivers of several loops, or of a loop that shuffles its tasks, need not resume in
        the order of their permits; each leaves the messages of those before it.
        """
        index = self.permits.index(waiter)
        del self.permits[index]
        waiter.permit = None
        return index

    def _first_waiting(self) -> Waiter | None:
        own = next(iter(self.waiting), None)
        if self.family is None or not self.family.waiting:
            return own
        other = next(iter(self.family.waiting))
        return other if own is None or other.since < own.since else own
