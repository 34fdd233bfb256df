"""What can be wrong with shared memory, said inside this package; the backend translates."""

from __future__ import annotations

from ..errors import BackendTimeout, BackendUnavailable


class SegmentDamaged(Exception):
    """A segment holds what no client of this package writes; it is to be made anew."""

    generation: int | None = None  # of the directory, where it is that


class SegmentHeld(BackendUnavailable):
    """A process holds the lock of a segment for too long: it is stopped, or starved."""

    def __init__(self, shard: str, pid: int) -> None:
        super().__init__(shard)
        self.args = (shard, pid)
        self.pid = pid

    def __str__(self) -> str:
        holder = f"process {self.pid} holds it" if self.pid else "its holder changes all the time"
        return f"{self.shard}: could not be locked in time, {holder}; nothing was done"


class HeldMidway(BackendTimeout):
    """A process holds the lock of one of several segments for too long."""

    def __init__(self, shard: str, pid: int) -> None:
        super().__init__(shard)
        self.args = (shard, pid)
        self.pid = pid

    def __str__(self) -> str:
        holder = f"process {self.pid} holds it" if self.pid else "its holder changes all the time"
        return f"{self.shard}: could not be locked in time, {holder}; the others were served"


class SharedMemoryFull(BackendUnavailable):
    """No more shared memory can be had, from the layer's options or from the machine."""

    def __init__(self, shard: str, problem: str) -> None:
        super().__init__(shard)
        self.args = (shard, problem)
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.shard}: {self.problem}; nothing was done"


class SegmentRefused(BackendUnavailable):
    """A segment cannot be used: it belongs to somebody else, or to another version."""

    def __init__(self, shard: str, problem: str) -> None:
        super().__init__(shard)
        self.args = (shard, problem)
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.shard}: {self.problem}; nothing was done"


class SegmentClosed(SegmentRefused):
    """A segment was let go of at this moment: its client is gone, or the layer is being closed."""

    def __init__(self, shard: str, problem: str = "is closed") -> None:
        super().__init__(shard, problem)


class Unanswered(BackendTimeout):
    """Another client has not told the numbers of its channel in time."""

    def __init__(
        self, client: str, pid: int, channel: str, seconds: float, *, is_asked: bool = True
    ) -> None:
        super().__init__(f"inbox-{client}")
        self.args = (client, pid, channel, seconds)
        self.client = client
        self.pid = pid
        self.channel = channel
        self.seconds = seconds
        self.is_asked = is_asked

    def __str__(self) -> str:
        what = "has not answered"
        if not self.is_asked:
            what = "could not be asked, its inbox is full or held,"
        return (
            f"client {self.client} (process {self.pid}) {what} within {self.seconds:g} s: it owns "
            f"{self.channel!r}, whose statistics were asked for"
        )


__all__ = [
    "BackendTimeout",
    "BackendUnavailable",
    "HeldMidway",
    "SegmentClosed",
    "SegmentDamaged",
    "SegmentHeld",
    "SegmentRefused",
    "SharedMemoryFull",
    "Unanswered",
]
