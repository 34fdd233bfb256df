"""A named pipe through which a client is woken; it carries no data but that it was rung."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

_RING: Final = b"\0"


def make(path: Path) -> int:
    """Make the doorbell of a client; return the descriptor on which it listens.

    The descriptor is open for writing as well, so it never reads as ended.
    """
    os.mkfifo(path, 0o600)
    return os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)


def attach(path: Path) -> int:
    """Return a descriptor to ring another client's doorbell with.

    Raises:
        OSError: there is none, or nobody listens.
    """
    return os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)


def ring(descriptor: int) -> None:
    """Wake whoever listens; never waits. A pipe that is full is as good as rung."""
    with contextlib.suppress(BlockingIOError, BrokenPipeError):
        os.write(descriptor, _RING)


def silence(descriptor: int) -> None:
    """Take what rang from one's own doorbell; never waits."""
    with contextlib.suppress(BlockingIOError):
        os.read(descriptor, 4096)
