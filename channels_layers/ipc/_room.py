"""How much shared memory the files of one prefix may take; none takes more."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from . import _layout
from ._errors import SharedMemoryFull
from ._queue_layout import BLOCK_BYTES, FIRST_BLOCK, GROWTH_BLOCKS
from ._segment import Segment

QUEUE_FILES: Final = 16  # that the channels of nobody are spread over, each with its lock
_INBOXES: Final = 128  # how many inboxes fit into half of the message memory
_SMALLEST_RING: Final = 65_536  # bytes
_FIRST_BYTES: Final = _layout.BODY_OFFSET + (FIRST_BLOCK + GROWTH_BLOCKS) * BLOCK_BYTES + 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How much shared memory a prefix may use, in bytes."""

    message_memory: int
    group_memory: int

    @property
    def ring_bytes(self) -> int:
        """The ring of one inbox."""
        return max(_SMALLEST_RING, self.message_memory // 2 // _INBOXES & -4096)

    @property
    def queue_bytes(self) -> int:
        """All queues together."""
        return self.message_memory // 2


class Room:
    """What is left of it, by a look at the files."""

    def __init__(self, folder: Path, sizes: Sizes) -> None:
        """Look at the files of a folder, which is made later."""
        self._folder = folder
        self._sizes = sizes

    def check(self, more_bytes: int, *, in_queues: bool = False) -> None:
        """Refuse what would exceed `message_memory`, or the half of it that is for queues."""
        total, queues = more_bytes, more_bytes + QUEUE_FILES * _FIRST_BYTES
        for entry in os.scandir(self._folder):
            if entry.name.startswith(("inbox-", "queues-", "large-")):
                with contextlib.suppress(FileNotFoundError):
                    used = entry.stat(follow_symlinks=False).st_blocks * 512
                    total += used
                    if entry.name.startswith("queues-"):
                        queues += max(0, used - _FIRST_BYTES)
        problem = f"message_memory of {self._sizes.message_memory} bytes is used up"
        if total > self._sizes.message_memory:
            raise SharedMemoryFull(self._folder.name, problem)
        if in_queues and queues > self._sizes.queue_bytes:
            raise SharedMemoryFull("queues", f"their half of {problem}")

    def grower(self, segment: Segment) -> Callable[[int], None]:
        """Return what lets a segment of queues have so many bytes, or raises `OSError`."""

        def grow(size_bytes: int) -> None:
            try:
                # Its first piece is every segment's own, however large the others have become.
                end = _layout.BODY_OFFSET + size_bytes
                more = end - segment.allocated_bytes
                if more > 0:
                    self.check(more, in_queues=end > _FIRST_BYTES)
                segment.allocate_range(0, _layout.BODY_OFFSET + size_bytes)
            except SharedMemoryFull as exc:
                raise OSError(errno.ENOSPC, str(exc)) from exc

        return grow


def full_error(exc: OSError, name: str) -> SharedMemoryFull:
    """Return what it means that a segment of queues could not grow."""
    if isinstance(exc.__cause__, SharedMemoryFull):
        return exc.__cause__
    return SharedMemoryFull(name, f"shared memory is full ({exc.strerror})")
