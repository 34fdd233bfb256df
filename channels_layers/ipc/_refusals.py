"""What the channels of one client missed in others' hands, which it cannot count itself.

Writers count it in the table of accounts: messages they were refused by channel, copies that
found no room by group. From there it comes here before the table is made anew, and with a channel
that ends it is forgotten. The numbers of the whole prefix do not need it: they have what writers
count for each inbox.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from typing import TYPE_CHECKING, Final

from ..statistics import Dropped, Statistics
from ._errors import SegmentDamaged
from ._inbox import Inbox, digest_of, digest_of_group
from ._layout import MISSED, REFUSED

if TYPE_CHECKING:
    from ..backend import Client

_MOST: Final = 65_536  # channels; some that were never alive do not end


class Refusals:
    """Of one client that is attached."""

    def __init__(self, inbox: Inbox, client: Client) -> None:
        self._inbox = inbox
        self._client = client
        self._ended = client.ledger.ended = deque(maxlen=_MOST)
        self._longs = inbox.longs
        self._refused: dict[int, int] = {}  # by digest of a channel or a group
        self._missed: dict[int, int] = {}  # copies, by digest of a channel
        self._seen = 0  # copies of which the channels are known
        self._lock = threading.Lock()  # what moves from the table is in one of both

    def collect(self) -> None:
        """Take what the table has, before that is made anew; under the lock of the inbox."""
        with self._lock:
            for digest, count in self._inbox.take_refused().items():
                _add(self._refused, digest, count)

    def settle(self) -> None:
        """Forget the channels that have ended, and find those that missed copies.

        Under the lock of the inbox. Those are the members that a group has now; the client has
        just brought in what changed them.
        """
        missed = self._longs[MISSED]
        if self._seen != missed:
            self._seen = missed
            self._share_out(self._client.memberships())
        while self._ended:
            digest = digest_of(self._ended.popleft())
            with self._lock:
                if self._longs[REFUSED]:
                    self._refused.pop(digest, None)
                    self._inbox.forget_refused(digest)
                self._missed.pop(digest, None)

    def added_to(self, numbers: Statistics, channel: str) -> Statistics:
        """Return the numbers of an own channel together with what is known here."""
        digest = digest_of(channel)
        with self._lock:
            if self._longs[REFUSED]:
                numbers["channel_full_count"] += self._refused.get(digest, 0)
                with contextlib.suppress(SegmentDamaged):  # the next look at the ring mends it
                    numbers["channel_full_count"] += self._inbox.refused(digest)
            numbers["dropped_count"][Dropped.FULL.value] += self._missed.get(digest, 0)
        return numbers

    def close(self) -> None:
        """Hear of no more channels that end."""
        self._client.ledger.ended = None

    def _share_out(self, memberships: list[tuple[str, str, float]]) -> None:
        members: dict[str, list[str]] = {}
        for group, channel, _ in memberships:
            members.setdefault(group, []).append(channel)
        with self._lock:
            for group, channels in members.items():
                digest = digest_of_group(group)
                count = self._refused.pop(digest, 0) + self._inbox.refused(digest)
                if count:
                    self._inbox.forget_refused(digest)
                    for channel in channels:
                        _add(self._missed, digest_of(channel), count)


def _add(counts: dict[int, int], digest: int, count: int) -> None:
    counts[digest] = counts.get(digest, 0) + count
    if len(counts) > _MOST:
        del counts[next(iter(counts))]
