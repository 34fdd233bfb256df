"""Which channels of this process are in which groups, and until when."""

from __future__ import annotations

from typing import Final

from .mailbox import Mailbox

_NO_MEMBERS: Final[dict[Mailbox, float]] = {}


class Groups:
    """The memberships of mailboxes: a moment for each at which it ends unless renewed."""

    def __init__(self) -> None:
        self._groups: dict[str, dict[Mailbox, float]] = {}
        # What ended by itself, as (group, channel), for a backend to hear of; None: there is none.
        self.ended: list[tuple[str, str]] | None = None

    def add(self, group: str, mailbox: Mailbox, ends_at: float) -> None:
        """Make `mailbox` a member of `group` until `ends_at`, or renew its membership."""
        self._groups.setdefault(group, {})[mailbox] = ends_at
        if mailbox.groups is None:
            mailbox.groups = set()
        mailbox.groups.add(group)

    def discard(self, group: str, mailbox: Mailbox) -> None:
        """End the membership of `mailbox` in `group`, if there is one."""
        members = self._groups.get(group, _NO_MEMBERS)
        if mailbox not in members:
            return
        del members[mailbox]
        if not members:
            del self._groups[group]
        if mailbox.groups is not None:
            mailbox.groups.discard(group)
            mailbox.groups = mailbox.groups or None

    def end(self, group: str, mailbox: Mailbox) -> None:
        """Discard a membership that nobody renewed in time."""
        if self.ended is not None:
            self.ended.append((group, mailbox.name))
        self.discard(group, mailbox)

    def end_all(self, mailbox: Mailbox) -> None:
        """End every membership of `mailbox`, whose messages expire unread."""
        for group in tuple(mailbox.groups or ()):
            self.end(group, mailbox)

    def discard_all(self, mailbox: Mailbox) -> None:
        """Discard every membership of `mailbox`."""
        for group in tuple(mailbox.groups or ()):
            self.discard(group, mailbox)

    def members(self, group: str) -> dict[Mailbox, float]:
        """Return the members of `group` and when each ends, in the order of joining."""
        return self._groups.get(group, _NO_MEMBERS)

    def of(self, mailbox: Mailbox) -> list[tuple[str, float]]:
        """Return the groups of `mailbox` and when each membership ends."""
        return [(group, self._groups[group][mailbox]) for group in mailbox.groups or ()]
