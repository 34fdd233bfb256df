"""Where the messages for one channel go: into a client's inbox, or into a queue."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeAlias

from ..errors import ChannelFull
from ._errors import SegmentDamaged
from ._inbox import digest_of
from ._layout import AWAKE, EPOCH, MESSAGE
from ._queue_layout import CorruptSegment
from ._room import full_error

if TYPE_CHECKING:
    from ._attachment import Attachment
    from ._peer import Peer
    from ._queue_files import Queue

_LONGEST_IN_A_QUEUE: Final = 16_384  # bytes; 36 blocks
_NOBODY: Final = "nobody"  # in the names of the files of large messages in queues


class InboxRoute:
    """To a channel of a client that lives."""

    def __init__(self, attached: Attachment, peer: Peer, channel: str, capacity: int) -> None:
        self.attached = attached
        self.line = attached.line_of(peer)
        self._lock = peer.lock
        self.longest = peer.inbox.longest_payload
        self.owner = peer.row.id
        self._peer = peer
        self._inbox = peer.inbox
        self._words = peer.inbox.words
        self._board = attached.place.board_words
        self._channel = channel
        self._name = channel.encode()
        self._digest = digest_of(attached.client.account_of(channel))
        self._capacity = capacity

    @property
    def is_stale(self) -> bool:
        """Whether the client is gone."""
        return self._peer.is_closed

    def push_now(self, payload: bytes, expires_at: float) -> int | None:
        """Put a message in if the lock is free; return -1, or None where it is not."""
        if self.line.is_served or self._peer.is_closed or not self._lock.try_acquire():
            return None
        try:
            return self.push(payload, expires_at)
        finally:
            self._lock.release()
            if self._peer.is_due:
                self._peer.ring()

    def push(self, payload: bytes, expires_at: float, flag: int = 0) -> int:
        """Put a message in, under the lock; return -1.

        Raises:
            ChannelFull: the channel or the ring has no room.
            SegmentDamaged: `mend` first.
        """
        if not self._inbox.offer(
            MESSAGE | flag,
            self._name,
            payload,
            expires_at,
            self._board[EPOCH] & 0xFFFF,
            self._digest,
            self._capacity,
        ):
            raise ChannelFull(self._channel, self._capacity)
        if not self._words[AWAKE]:
            self._peer.wake()
        return -1

    def mend(self, exc: Exception) -> None:
        """Make the damaged ring anew, under its lock; its owner will report it."""
        del exc
        self._inbox.reset()


class QueueRoute:
    """To a channel that no client owns."""

    longest: Final = _LONGEST_IN_A_QUEUE
    owner: Final = _NOBODY
    is_stale: Final = False

    def __init__(self, attached: Attachment, queue: Queue, channel: str, capacity: int) -> None:
        self.attached = attached
        self.line = attached.line_of(queue)
        self._lock = queue.lock
        self._queue = queue
        self._channel = channel
        self._capacity = capacity

    def push_now(self, payload: bytes, expires_at: float) -> int | None:
        """Put a message in if the lock is free; return as `push`, or None where it is not."""
        if self.line.is_served or not self._lock.try_acquire():
            return None
        try:
            return self.push(payload, expires_at)
        finally:
            self._lock.release()

    def push(self, payload: bytes, expires_at: float, flag: int = 0) -> int:
        """Put a message in, under the lock; return the slot of the client to wake, or -1.

        Raises:
            ChannelFull: the channel has no room.
            CorruptSegment: `mend` first.
            OSError: there is no more shared memory.
        """
        return self._queue.structure.push(
            self._channel,
            payload,
            expires_at=expires_at,
            now=time.monotonic(),
            capacity=self._capacity,
            kind=flag,
        )

    def copy(self, payload: bytes, expires_at: float, flag: int) -> int | None:
        """Like `push`, for a group's copy: None where it was dropped, which is counted."""
        return self._queue.structure.push_copy(
            self._channel,
            payload,
            expires_at=expires_at,
            now=time.monotonic(),
            capacity=self._capacity,
            kind=flag,
        )

    def miss(self) -> None:
        """Count a group's copy that could not be put, under the lock."""
        self._queue.structure.miss(self._channel)

    def mend(self, exc: Exception) -> None:
        """Make the damaged queues anew, under their lock."""
        self.attached.rebuild_queue(self._queue, exc)


Route: TypeAlias = InboxRoute | QueueRoute


def pushed(route: Route, push: Callable[[], int | None]) -> int | None:
    """Push, once more if what is there had to be made anew; under its lock.

    Raises:
        ChannelFull: there is no room.
        SharedMemoryFull: there is no more shared memory.
    """
    try:
        try:
            return push()
        except (SegmentDamaged, CorruptSegment) as exc:
            route.mend(exc)
            return push()
    except OSError as exc:
        raise full_error(exc, "queues") from exc
