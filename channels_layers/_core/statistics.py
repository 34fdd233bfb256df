"""Counters and rates, of one channel or of a whole prefix."""

from __future__ import annotations

from collections import Counter
from enum import StrEnum
from typing import TypedDict


class Dropped(StrEnum):
    """Why a message was dropped unread."""

    FULL = "full"  # a group's copy for a member without room
    EXPIRED = "expired"
    UNDECODABLE = "undecodable"
    GAP = "gap"  # the backend forgot it


class Statistics(TypedDict):
    """What `statistics()` and `channel_statistics()` return.

    Counts are messages since the channel or the prefix came to life; rates are over the last
    second; `messages_max_age` is in seconds; `dropped_count` has a key for each reason.
    """

    messages_count: int
    messages_count_per_second: float
    messages_pending: int
    messages_max_age: float
    channel_full_count: int
    channel_full_count_per_second: float
    dropped_count: dict[str, int]


class Tally:
    """A count, and how much of it came within the last second."""

    __slots__ = ("before", "previous", "total", "turns_at")

    def __init__(self) -> None:
        self.total = 0
        self.turns_at = 0.0  # when the second that is being counted ends
        self.before = 0  # the total when it began
        self.previous = 0  # what came in the second before it

    def add(self, count: int, now: float) -> None:
        """Count `count` more."""
        if now >= self.turns_at:
            self.turn(now)
        self.total += count

    def turn(self, now: float) -> None:
        """Begin to count the second of `now`."""
        ends = int(now) + 1.0
        self.previous = self.total - self.before if ends == self.turns_at + 1.0 else 0
        self.before = self.total
        self.turns_at = ends

    def per_second(self, now: float) -> float:
        """Return how many came within the second before `now`, by the share of two slots."""
        if now >= self.turns_at:
            self.turn(now)
        share_of_previous = 1.0 - now % 1.0
        return self.total - self.before + self.previous * share_of_previous


def statistics_of(
    accepted: Tally,
    refused: Tally,
    dropped: Counter[Dropped],
    *,
    pending: int,
    max_age: float,
    now: float,
) -> Statistics:
    """Put the numbers of one channel or one prefix into the public form."""
    return Statistics(
        messages_count=accepted.total,
        messages_count_per_second=accepted.per_second(now),
        messages_pending=pending,
        messages_max_age=max_age,
        channel_full_count=refused.total,
        channel_full_count_per_second=refused.per_second(now),
        dropped_count={reason.value: dropped[reason] for reason in Dropped},
    )


def counts_of(numbers: Statistics) -> Statistics:
    """Return what stays of the numbers of a client that is gone: what it has counted."""
    return {
        **numbers,
        "messages_count_per_second": 0.0,
        "messages_pending": 0,
        "messages_max_age": 0.0,
        "channel_full_count_per_second": 0.0,
    }


def add_up(parts: list[Statistics]) -> Statistics:
    """Return the statistics of several clients as one: counts added, ages compared."""
    dropped: Counter[str] = Counter(dict.fromkeys((reason.value for reason in Dropped), 0))
    for part in parts:
        dropped.update(part["dropped_count"])
    return Statistics(
        messages_count=sum(part["messages_count"] for part in parts),
        messages_count_per_second=sum(part["messages_count_per_second"] for part in parts),
        messages_pending=sum(part["messages_pending"] for part in parts),
        messages_max_age=max((part["messages_max_age"] for part in parts), default=0.0),
        channel_full_count=sum(part["channel_full_count"] for part in parts),
        channel_full_count_per_second=sum(part["channel_full_count_per_second"] for part in parts),
        dropped_count=dict(dropped),
    )
