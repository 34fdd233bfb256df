"""What a client knows of its own memberships, kept as the directory has them.

Other clients change them too. Each change is told with a record that says which one to look at;
where that record cannot be put into the inbox, a word there says to look at all of them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from ._directory import Busy, Directory
from ._errors import SegmentDamaged, SharedMemoryFull
from ._inbox import Inbox
from ._keeper import keeper
from ._layout import UNSURE

if TYPE_CHECKING:
    from ..backend import Client


class Memberships:
    """Of one client that is attached."""

    def __init__(
        self,
        directory: Directory,
        client: Client,
        inbox: Inbox,
        surely: Callable[[Callable[[], Any]], Any],
    ) -> None:
        """Look after the memberships of `client`.

        Args:
            directory: Where they stand.
            client: Whose they are.
            inbox: Its inbox.
            surely: Calls what asks the directory; raises `Busy` while that was made anew, and has
                them not yet: what is missing there then was not discarded.
        """
        self._surely = surely
        self._directory = directory
        self._client = client
        self._words = inbox.words
        self.damage: SegmentDamaged | None = None  # of the directory, for the keeper to mend
        # From a change or a look at the directory until the client has heard of it.
        self._lock = threading.Lock()

    def change(self, group: str, channel: str, *, add: Callable[[], None] | None) -> None:
        """Add or discard a member of this client; under the lock of the board.

        Args:
            group: The group.
            channel: The client's own.
            add: Adds it to the directory; None where it is to be discarded.
        """
        with self._lock:
            if add is not None:
                add()
                self._client.member_added(group, channel)
            else:
                self._directory.discard_members([(group, channel)])
                self._client.member_discarded(group, channel)

    def look(self, group: str, channel: str) -> None:
        """Ask the directory whether `channel` is in `group`, and let the client know."""
        try:
            with self._lock:
                if self._surely(
                    partial(self._directory.is_member, group, channel, self._client.id)
                ):
                    self._client.member_added(group, channel)
                else:
                    self._client.member_discarded(group, channel)
        except (Busy, SegmentDamaged, SharedMemoryFull) as exc:
            self._look_later(exc)

    def look_if_unsure(self) -> None:
        """Ask the directory for all memberships, if a change could not be told."""
        if not self._words[UNSURE]:
            return
        # SYNC unsure: pairs with the store of 1 in Peer.doubt(). Cleared first, so that a change
        # is either seen below or marked again.
        self._words[UNSURE] = 0
        try:
            with self._lock:
                entered = set(self._surely(partial(self._directory.members_of, self._client.id)))
                known = {(group, channel) for group, channel, _ in self._client.memberships()}
                for group, channel in entered - known:
                    self._client.member_added(group, channel)
                for group, channel in known - entered:
                    self._client.member_discarded(group, channel)
        except (Busy, SegmentDamaged, SharedMemoryFull) as exc:
            self._look_later(exc)

    def _look_later(self, exc: Exception) -> None:
        if isinstance(exc, SegmentDamaged):
            self.damage = exc
        self._words[UNSURE] = 1
        keeper.hurry()
