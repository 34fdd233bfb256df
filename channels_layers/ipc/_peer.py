"""A client as another one sees it: its inbox and its doorbell."""

from __future__ import annotations

import os
import threading

from .. import _fork
from . import _doorbell, _layout
from ._directory import Attached
from ._inbox import Inbox
from ._segment import Segment, segments


class Peer:
    """Another client's inbox and doorbell, or one's own, for writing to it."""

    def __init__(self, row: Attached, segment: Segment, ring_bytes: int, bell: int) -> None:
        self.row = row
        self.segment = segment
        self.lock = segment.lock
        self.bell = bell
        self._ringing = threading.Lock()
        _fork.in_child(self, Peer._begin_in_child)
        self.is_closed = False
        self.is_due = False  # the doorbell must be rung
        self.inbox = Inbox(segment.view, ring_bytes)

    def wake(self) -> None:
        """See to it that it is awake; under the lock of the inbox, `ring` when that is released."""
        words = self.inbox.words
        # SYNC awake: pairs with the store of 0 in Attachment._sleep().
        if not words[_layout.AWAKE]:
            words[_layout.AWAKE] = 1
            self.is_due = True

    def ring(self) -> None:
        """Ring if that is due; not under the lock, which whoever wakes up wants to have next.

        Who is killed before it has rung delays the client until its next beat.
        """
        if self.is_due:
            self.is_due = False
            self._ring()

    def doubt(self) -> None:
        """Let it look at all its memberships, since it cannot be told of one; needs no lock."""
        # SYNC unsure: pairs with the store of 0 in Memberships.look_if_unsure().
        self.inbox.words[_layout.UNSURE] = 1
        self._ring()

    def _ring(self) -> None:
        with self._ringing:  # or close() could give its number to another file at this moment
            if self.bell >= 0:
                _doorbell.ring(self.bell)

    def has_seen(self, epoch: int) -> bool:
        """Whether it has heard of the flush that began `epoch`, or will never."""
        return self.inbox.words[_layout.SEEN] == epoch or not self.segment.is_owner_alive()

    def close(self) -> None:
        """Let go of both."""
        self.is_closed = True
        segments.detach(self.segment)
        with self._ringing:
            bell, self.bell = self.bell, -1
            os.close(bell)

    def _begin_in_child(self) -> None:
        """Let go of the doorbell, which must not outlive its owner here."""
        self._ringing = threading.Lock()
        if self.bell >= 0:
            os.close(self.bell)
            self.bell = -1
