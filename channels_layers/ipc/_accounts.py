"""The counters of each channel of a segment, and those of all its channels together."""

from __future__ import annotations

from collections import Counter

from .._core.statistics import Dropped, Statistics, Tally, statistics_of
from ._blocks import Blocks
from ._queue_layout import (
    ACCEPTED,
    EXPIRED_LONG,
    FULL_LONG,
    LONG_MASK,
    LONG_SHIFT,
    REFUSED,
)


class Accounts:
    """Counters in shared memory; entry 0 stands for the whole segment."""

    def __init__(self, blocks: Blocks) -> None:
        self.longs = blocks.longs
        self.floats = blocks.floats

    def refuse(self, entry: int, now: float) -> None:
        """Count a message that `ChannelFull` was raised for."""
        self.turn(entry, REFUSED, now)
        self._count(entry, REFUSED[0])

    def drop(self, entry: int, reason: Dropped) -> None:
        """Count a message that was dropped, because there was no room or because it expired."""
        self._count(entry, FULL_LONG if reason is Dropped.FULL else EXPIRED_LONG)

    def turn(self, entry: int, tally: tuple[int, int, int, int], now: float) -> None:
        """Begin a new second in both tallies, where it has come."""
        total, turns_at, before, previous = tally
        longs, floats = self.longs, self.floats
        for q in (0, entry << LONG_SHIFT):
            if not now < floats[q + turns_at]:
                counted = self._tally(q, tally)
                counted.turn(now)
                longs[q + previous] = counted.previous & LONG_MASK
                longs[q + before] = longs[q + total]
                floats[q + turns_at] = counted.turns_at

    def used_at(self, entry: int) -> float:
        """Return when something was last sent, rounded up to a second."""
        q = entry << LONG_SHIFT
        return max(self.floats[q + ACCEPTED[1]], self.floats[q + REFUSED[1]])

    def statistics(self, entry: int, pending: int, age: float, now: float) -> Statistics:
        """Put the numbers into the public form."""
        q = entry << LONG_SHIFT
        dropped = Counter(
            {
                Dropped.FULL: self.longs[q + FULL_LONG],
                Dropped.EXPIRED: self.longs[q + EXPIRED_LONG],
            }
        )
        accepted, refused = self._tally(q, ACCEPTED), self._tally(q, REFUSED)
        return statistics_of(accepted, refused, dropped, pending=pending, max_age=age, now=now)

    def _count(self, entry: int, index: int) -> None:
        for q in {0, entry << LONG_SHIFT}:
            self.longs[q + index] = (self.longs[q + index] + 1) & LONG_MASK

    def _tally(self, q: int, tally: tuple[int, int, int, int]) -> Tally:
        counted = Tally()
        total, turns_at, before, previous = tally
        counted.total, counted.turns_at = self.longs[q + total], self.floats[q + turns_at]
        counted.before, counted.previous = self.longs[q + before], self.longs[q + previous]
        return counted
