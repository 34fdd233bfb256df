"""Statistics as servers keep them."""

from __future__ import annotations

from typing import Any

import ormsgpack

from .._core.statistics import Dropped
from ..statistics import Statistics

_REASONS = {reason.value for reason in Dropped}


def of_queues(found: list[Any], expiry: float) -> tuple[Statistics, list[tuple[str, Statistics]]]:
    """Return the numbers of a shard's queues, and those that its clients have published.

    Args:
        found: The result of ``numbers`` or ``numbers_of``.
        expiry: Seconds that messages live.
    """
    fields, pending, left_ms, published, second = found
    words = [word.decode() for word in fields]
    tally = {field: int(value) for field, value in zip(words[::2], words[1::2], strict=True)}
    queues = Statistics(
        messages_count=tally.get("accepted", 0),
        messages_count_per_second=_rate(tally, "accepted", int(second)),
        messages_pending=int(pending),
        messages_max_age=max(0.0, expiry - int(left_ms) / 1000) if left_ms else 0.0,
        channel_full_count=tally.get("refused", 0),
        channel_full_count_per_second=_rate(tally, "refused", int(second)),
        dropped_count={reason: tally.get(reason, 0) for reason in _REASONS},
    )
    clients = []
    for packed in published:
        client, numbers = ormsgpack.unpackb(packed)
        clients.append((client, numbers))
    return queues, clients


def packed(client: str, numbers: Statistics) -> bytes:
    """Return the numbers of a client as it publishes them."""
    return ormsgpack.packb([client, dict(numbers)])


def _rate(tally: dict[str, int], field: str, second: int) -> float:
    """Return how many came in the last second, this one or the one before, whichever had more."""
    at = tally.get(f"{field}s", 0)
    if at == second:
        return float(max(tally.get(f"{field}n", 0), tally.get(f"{field}p", 0)))
    return float(tally.get(f"{field}n", 0)) if at == second - 1 else 0.0
