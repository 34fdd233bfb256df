"""The queues of one prefix: channels that no client owns, spread over segments by their names."""

from __future__ import annotations

import contextlib
import logging
import threading
import zlib
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from .._core.names import non_local_part
from . import _layout
from ._errors import SegmentClosed, SegmentDamaged, SegmentRefused
from ._large import LargeMessages
from ._queue_layout import CorruptSegment, IncompatibleSegment
from ._queues import QueueSegment
from ._room import QUEUE_FILES, Room, full_error
from ._segment import Segment, held, segments

_logger = logging.getLogger("channels_layers")


class Queue:
    """One segment of queues."""

    def __init__(self, segment: Segment, structure: QueueSegment) -> None:
        self.segment = segment
        self.lock = segment.lock
        self.structure = structure


class QueueFiles:
    """The segments that this process has attached; each is made when it is needed."""

    def __init__(
        self,
        folder: Path,
        size_bytes: int,
        room: Room,
        large: LargeMessages,
        lock: threading.RLock,
        is_open: Callable[[], bool],
    ) -> None:
        """Attach nothing yet.

        Args:
            folder: Of the prefix.
            size_bytes: Of one of them, at most.
            room: Of the prefix.
            large: Has the messages of which only names stand in the queues.
            lock: Of this process, for what it has attached.
            is_open: Whether a client is attached, so that files may be opened.
        """
        self._folder = folder
        self._size_bytes = size_bytes
        self._room = room
        self._large = large
        self._lock = lock
        self._is_open = is_open
        self._queues: list[Queue | None] = [None] * QUEUE_FILES

    def of(self, channel: str) -> Queue:
        """Return the segment of queues that a channel is in, made if there is none.

        Raises:
            SharedMemoryFull: there is no room for it.
        """
        index = _queue_index(channel)
        return self._queues[index] or self._make(index)

    def all(self) -> list[Queue]:
        """Return all segments of queues that there are."""
        return [queue for index in range(QUEUE_FILES) if (queue := self._at(index)) is not None]

    @property
    def attached(self) -> list[Queue]:
        """What this process has attached."""
        return list(filter(None, self._queues))

    def drop_expired(self, now: float, seconds: float) -> None:
        """Drop what has expired in all queues; blocks."""
        for queue in self.all():
            with held(queue.lock, seconds):
                try:
                    queue.structure.drop_expired(now)
                except CorruptSegment:
                    self.rebuild(queue)

    def forget_waiter(self, queue: Queue, slot: int, seconds: float) -> None:
        """Forget that a client waits for messages; blocks."""
        with held(queue.lock, seconds):
            try:
                queue.structure.forget_client(slot)
            except CorruptSegment:
                self.rebuild(queue)

    def drop_released(self, queue: Queue) -> None:
        """Remove the files of large messages that this process has dropped unread."""
        released = queue.structure.released
        while released:
            self._large.drop(released.pop())

    def rebuild(self, queue: Queue) -> None:
        """Make a damaged segment of queues anew, under its lock; what it held is lost."""
        allocated = _layout.BODY_OFFSET
        grow = self._room.grower(queue.segment)
        QueueSegment.format(_body(queue.segment), queue.segment.size_bytes - allocated, grow)
        queue.structure = QueueSegment(_body(queue.segment), grow)

    def close(self) -> None:
        """Let go of all."""
        for index, queue in enumerate(self._queues):
            if queue is not None:
                segments.detach(queue.segment)
                self._queues[index] = None

    # Helpers

    def _at(self, index: int) -> Queue | None:
        """Return a segment of queues if anybody has made it, and it can be used."""
        queue = self._queues[index]
        if queue is None and (self._folder / f"queues-{index:02}").exists():
            with contextlib.suppress(SegmentRefused):
                return self._make(index)
        return queue

    def _make(self, index: int) -> Queue:
        with self._lock:
            queue = self._queues[index]
            if queue is not None:
                return queue
            if not self._is_open():
                raise SegmentClosed(f"queues-{index:02}")
            path = self._folder / f"queues-{index:02}"
            size = _layout.BODY_OFFSET + self._size_bytes

            def fill(segment: Segment) -> None:
                body_bytes = segment.size_bytes - _layout.BODY_OFFSET
                QueueSegment.format(_body(segment), body_bytes, self._room.grower(segment))

            begin = _layout.BODY_OFFSET
            try:
                try:
                    segment = segments.create(path, _layout.QUEUES, size, begin, fill)
                except SegmentDamaged as exc:
                    _logger.warning("%s is damaged, and made anew: %s", path.name, exc)
                    segment = segments.repair(path, _layout.QUEUES, size, begin, fill)
            except OSError as exc:
                raise full_error(exc, path.name) from exc
            try:
                structure = self._structure(segment)
            except BaseException:
                segments.detach(segment)
                raise
            queue = self._queues[index] = Queue(segment, structure)
            return queue

    def _structure(self, segment: Segment) -> QueueSegment:
        """Return the queues of a segment, made anew if they are damaged."""
        body, grow = _body(segment), self._room.grower(segment)
        try:
            with contextlib.suppress(CorruptSegment):
                return QueueSegment(body, grow)
            with held(segment.lock, 0):
                with contextlib.suppress(CorruptSegment):  # another was at it
                    return QueueSegment(body, grow)
                QueueSegment.format(body, len(body), grow)
                return QueueSegment(body, grow)
        except IncompatibleSegment as exc:
            raise SegmentRefused(segment.path.name, f"another version made it ({exc})") from exc
        except OSError as exc:
            raise full_error(exc, segment.path.name) from exc


@lru_cache(maxsize=16_384)
def _queue_index(channel: str) -> int:
    key = non_local_part(channel) or channel
    return zlib.crc32(key.encode()) % QUEUE_FILES


def _body(segment: Segment) -> memoryview:
    return segment.view[_layout.BODY_OFFSET :]
