"""How many messages wait in the mailboxes of one client, told to those who write to it.

Where other processes put messages into this client's channels, they must know how full those are.
The backend gives each mailbox with queued messages a place in memory that the others read; here
the number there is kept true.
"""

from __future__ import annotations

from collections import deque
from collections.abc import MutableSequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from .mailbox import Family, Mailbox

_ROOMY: Final = 64  # a capacity from which on a few messages more or less may be told later


class Ledger:
    """The places of one client's mailboxes, and those that have none yet."""

    __slots__ = (
        "_is_shared", "changed", "counts", "ended", "entered", "owner", "tells_later",
        "unentered",
    )  # fmt: skip

    def __init__(self, owner: str, *, is_shared: bool, tells_later: bool = False) -> None:
        """Begin with no places.

        Args:
            owner: The client id in the names of the channels that are entered.
            is_shared: All channels of one non-local part share a capacity, and so a place.
            tells_later: There are no places; what has changed is gathered in `changed`.
        """
        self.owner = owner
        # By place: how many messages are queued; one before it: how many are still to come.
        self.counts: MutableSequence[int] = []
        self.entered: dict[Mailbox | Family, None] = {}
        self.unentered: dict[Mailbox | Family, None] = {}
        # Queues whose number is to be told with the next entry.
        self.changed: dict[Mailbox, None] = {}
        # Channels whose numbers have ended, for a backend that has numbers of them as well.
        self.ended: deque[str] | None = None
        self._is_shared = is_shared
        self.tells_later = tells_later

    def holder(self, mailbox: Mailbox) -> Mailbox | Family:
        """Return what the place of `mailbox` belongs to."""
        family = mailbox.family
        return mailbox if family is None or not self._is_shared else family

    def note(self, mailbox: Mailbox) -> None:
        """Tell how many messages are queued now; after each change of the queue."""
        if self.tells_later:
            self.changed[mailbox] = None
            return
        holder = self.holder(mailbox)
        place = holder.place
        if not place:
            if holder.queued:
                self.unentered[holder] = None
            return
        counts = self.counts
        count = holder.queued
        counts[place] = count
        while (again := holder.queued) != count:  # another thread took one in between
            counts[place] = count = again
        if not count:
            holder.place = 0
            self.entered.pop(holder, None)

    def is_note_due(self, count: int, capacity: int) -> bool:
        """Say whether it must be told at once that `count` messages are left, one less than before.

        Far from a large capacity, every sixteenth will do; the others are told with the next entry.
        What is told late only looks fuller.
        """
        return not count & 15 or 2 * count >= capacity or capacity < _ROOMY

    def coming(self, mailbox: Mailbox) -> int:
        """Return how many messages for `mailbox` are known to be on their way."""
        place = self.holder(mailbox).place
        return self.counts[place - 1] if place else 0
