"""One channel inside this process: a bounded, expiring queue and those who wait for it.

Laws:

- A wake is a permission, not a message. A message that a waiting receiver was woken for stands
  in `granted`, still unread, until that receiver resumes and takes it. One that was cancelled in
  between gives it back, and all who were woken after it move up by one message.
- Where a message is in `letters`, nobody waits; the sender hands it to the first in line.
- What is not marked otherwise happens under the layer's lock. The path of most messages takes
  no lock: where a single operation on `letters`, `waiting` or `granted` does it, that is atomic,
  and whoever finds that another thread was faster goes the long way round.
- The caller tells the time; nothing here waits, reads a clock or wakes.
"""

from __future__ import annotations

from collections import Counter, deque
from contextlib import suppress
from typing import Any, Final, TypeAlias

from .ledger import Ledger
from .statistics import Dropped, Tally

NEVER: Final = float("-inf")
_MARGIN: Final = 16  # messages below its capacity from which on a channel is filled with care
_ROOMY: Final = 64  # a capacity from which on a few messages more or less may be told later
_SLACK: Final = 64  # entries that may be out of date before anybody cleans up


class Weight:
    """The bytes of a large payload, shared by all copies of it that wait unread."""

    __slots__ = ("copies", "size_bytes")

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self.copies = 1


# (expires_at in seconds on the layer's clock, payload, weight of a large payload)
Letter: TypeAlias = tuple[float, bytes, Weight | None]


class Copy(tuple[float, bytes, "Weight | None"]):
    """A letter that came to all members of a group; it may be dropped for want of room."""

    __slots__ = ()


# A receiver that waits: whatever the event loop's side made for it. Here it only stands in line.
Waiter: TypeAlias = Any


class Place:
    """The place of a receiver that waits in several lines, in a family, or once more."""

    __slots__ = ("lines", "mailbox", "since", "waiter")

    def __init__(self, waiter: Waiter, lines: tuple[Line, ...], since: int) -> None:
        self.waiter = waiter
        self.lines = lines
        self.since = since
        self.mailbox: Mailbox | None = None  # whose message it was woken for, later: has taken


class Line:
    """Receivers in the order in which they began to wait."""

    __slots__ = ("name", "place", "read_at", "served", "waiting")

    def __init__(self, name: str) -> None:
        self.name = name
        self.place = 0  # where the ledger tells how many messages are queued; 0: nowhere
        # Most wait in one line only, and have no place. They are older than any place here: a
        # mailbox in a family gives places to all.
        self.waiting: dict[Waiter, Place | None] = {}
        self.read_at = NEVER  # when a receive last ended here
        self.served = 0  # the layer's count of receives at the last one served here

    def first(self) -> Waiter | None:
        """Return the receiver that has waited longest."""
        while True:
            try:
                for waiter in self.waiting:
                    return waiter
            except RuntimeError:  # another thread got in line at this moment
                continue
            return None


class Family(Line):
    """The process-specific channels of one non-local part, seen as one queue.

    `arrivals` is the order of their messages. A letter that has left its mailbox stays in it
    until it comes to the front, or until half of them are such.
    """

    __slots__ = ("arrivals", "granting", "members", "pending")

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.members = 0  # mailboxes that belong to it
        self.arrivals: deque[tuple[Mailbox, Letter]] = deque()
        self.pending = 0  # unread messages of all members
        self.granting: set[Mailbox] = set()  # members that have granted messages, or had

    @property
    def queued(self) -> int:
        """How many messages of all members are unread."""
        return self.pending

    def note(self, mailbox: Mailbox, letter: Letter) -> None:
        """Remember that `letter` came after all others."""
        self.arrivals.append((mailbox, letter))
        if len(self.arrivals) > 2 * self.pending + _SLACK:
            members = {member for member, _ in self.arrivals}
            queued = {id(letter) for member in members for letter in member.letters}
            self.arrivals = deque(entry for entry in self.arrivals if id(entry[1]) in queued)

    def front(self) -> Mailbox | None:
        """Return the mailbox with the oldest message that nobody was woken for."""
        arrivals = self.arrivals
        while arrivals:
            mailbox, letter = arrivals[0]
            # Mailboxes are first in, first out, and so are arrivals: a letter that is not the
            # first of its mailbox when it comes to the front here has left it.
            if mailbox.letters and mailbox.letters[0] is letter:
                return mailbox
            arrivals.popleft()
        return None


class Mailbox(Line):
    """The messages that wait on one channel, and the receivers that wait for them."""

    __slots__ = (
        "accepted",
        "capacity",
        "dropped",
        "family",
        "free_until",
        "granted",
        "groups",
        "is_checked",
        "is_expiring",
        "is_staging",
        "ledger",
        "letters",
        "refused",
    )

    def __init__(self, name: str, capacity: int) -> None:
        super().__init__(name)
        self.capacity = capacity  # messages
        self.free_until = 0  # messages up to which a sender needs no lock
        self.is_checked = False  # this client may receive here, and has
        self.family: Family | None = None
        self.letters = _NO_LETTERS
        self.granted: dict[Waiter, Letter] = {}  # woken, not resumed yet
        self.groups: set[str] | None = None
        self.is_staging = False  # the channel lives elsewhere; here are only its receivers
        self.ledger: Ledger | None = None  # tells others how many messages are queued
        self.is_expiring = False  # somebody will look when the oldest message expires
        self.accepted = Tally()
        self.refused: Tally | None = None
        self.dropped: Counter[Dropped] | None = None

    @property
    def queued(self) -> int:
        """How many messages are in the queue, not granted to anybody."""
        return len(self.letters)

    @property
    def unread(self) -> int:
        """How many messages are unread."""
        return len(self.letters) + len(self.granted)

    @property
    def is_tight(self) -> bool:
        """Whether it is near its capacity, so that others must know exactly how near."""
        return self.capacity < _ROOMY or 4 * len(self.letters) >= self.capacity

    def oldest(self) -> Letter | None:
        """Return the message that has waited longest."""
        granted = list(self.granted.values())
        if granted:
            return granted[0]
        try:
            return self.letters[0]
        except IndexError:
            return None

    def put(self, letter: Letter) -> Waiter | None:
        """Queue `letter`, which there is room for; return the receiver to wake."""
        waiter = self.put_untold(letter)
        if self.ledger is not None:
            self.ledger.note(self)
        return waiter

    def put_untold(self, letter: Letter) -> Waiter | None:
        """Like `put`, but leave it to the caller to tell the ledger."""
        if self.waiting and not self.letters and self.family is None:
            try:
                for waiter in self.waiting:  # first() and _call(), written out for speed
                    if self.waiting[waiter] is None and self.waiting.pop(waiter, _LEFT) is None:
                        self.granted[waiter] = letter
                        return waiter
                    break
            except (KeyError, RuntimeError):  # another thread was faster
                pass
        self._own_queue().append(letter)
        if self.family is not None:
            self.family.pending += 1
            self.family.note(self, letter)
        # SYNC get-in-line: pairs with the look at `letters` in Exchange.receive(). Whoever got
        # in line before the letter was in the queue is seen here, after that it sees the letter.
        return self.grant() if self.waiting or self.family is not None else None

    def grant(self) -> Waiter | None:
        """Hand the oldest message to the longest waiting receiver; return whom to wake."""
        while self.letters:
            waiter = self._first_of_family()
            if waiter is None:
                return None
            if not self._call(waiter):
                continue
            with suppress(IndexError):  # another thread's receiver was faster; this one looks again
                self.granted[waiter] = self.letters.popleft()
            if self.family is not None:
                self.family.granting.add(self)
                if self.ledger is not None:
                    self.ledger.note(self)
            return waiter
        return None

    def take_back(self, waiter: Waiter) -> Waiter | None:
        """Undo the grant to `waiter`; return the receiver that is to be woken instead."""
        later = list(self.granted)
        letter = self.granted.pop(waiter, None)
        if letter is None:
            return None
        for other in later[later.index(waiter) + 1 :]:
            following = self.granted.pop(other, None)
            if following is not None:
                self.granted[other] = letter
                letter = following
        self._own_queue().appendleft(letter)
        if self.family is not None:
            self.family.arrivals.appendleft((self, letter))
        if self.ledger is not None:
            self.ledger.note(self)
        return self.grant()

    def _own_queue(self) -> deque[Letter]:
        if self.letters is _NO_LETTERS:
            # SYNC own-queue: pairs with the look at `free_until` in Exchange.try_offer().
            self.letters = deque()
            if self.family is None and not self.is_staging and self.ledger is None:
                self.free_until = self.capacity - _MARGIN
        return self.letters

    def _call(self, waiter: Waiter | None) -> bool:
        """Take `waiter` out of its lines; False when it has left by itself."""
        for line in (self, self.family):
            if line is not None and waiter in line.waiting:
                place = line.waiting.pop(waiter, _LEFT)
                if place is None:
                    return True
                if place is not _LEFT:
                    for other in place.lines:
                        other.waiting.pop(waiter, None)
                    place.mailbox = self
                    return True
        return False

    def _first_of_family(self) -> Waiter | None:
        own = self.first()
        if self.family is None:
            return own
        other = self.family.first()
        if own is None or other is None:
            return own if other is None else other
        own_place, other_place = self.waiting.get(own), self.family.waiting.get(other)
        if own_place is None or other_place is None:
            return own
        return other if other_place.since < own_place.since else own


_LEFT: Final = Place(None, (), 0)

# Most mailboxes never hold a message, since a reader waits for it. They share this empty queue:
# one of their own would cost 760 bytes. Nothing is ever put into it.
_NO_LETTERS: Final[deque[Letter]] = deque(maxlen=0)
