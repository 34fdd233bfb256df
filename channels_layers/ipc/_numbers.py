"""A client's statistics in its inbox, where the other processes read them."""

from __future__ import annotations

import struct
from typing import Final

from ..statistics import Dropped, Statistics
from . import _layout

_AT: Final = _layout.NUMBERS_OFFSET
_TURN: Final = struct.Struct("<Q")  # odd while it is being written
_NUMBERS: Final = struct.Struct("<QdQdQd4Q")
_REASONS: Final = (Dropped.FULL, Dropped.EXPIRED, Dropped.UNDECODABLE, Dropped.GAP)
_TRIES: Final = 100


def publish(view: memoryview, numbers: Statistics, now: float) -> None:
    """Write them; by the owner alone."""
    (turn,) = _TURN.unpack_from(view, _AT)
    _TURN.pack_into(view, _AT, (turn | 1) & 0xFFFFFFFFFFFFFFFF)
    dropped = numbers["dropped_count"]
    _NUMBERS.pack_into(
        view,
        _AT + _TURN.size,
        numbers["messages_count"],
        numbers["messages_count_per_second"],
        numbers["messages_pending"],
        now - numbers["messages_max_age"],
        numbers["channel_full_count"],
        numbers["channel_full_count_per_second"],
        *(dropped[reason.value] for reason in _REASONS),
    )
    _TURN.pack_into(view, _AT, ((turn | 1) + 1) & 0xFFFFFFFFFFFFFFFF)


def read(view: memoryview, now: float) -> Statistics | None:
    """Return them; None where they cannot be read whole."""
    for _ in range(_TRIES):
        (before,) = _TURN.unpack_from(view, _AT)
        values = _NUMBERS.unpack_from(view, _AT + _TURN.size)
        if not before & 1 and _TURN.unpack_from(view, _AT) == (before,):
            break
    else:
        return None
    count, rate, pending, oldest_at, full, full_rate, *dropped = values
    return Statistics(
        messages_count=count,
        messages_count_per_second=rate,
        messages_pending=pending,
        messages_max_age=max(0.0, now - oldest_at) if pending else 0.0,
        channel_full_count=full,
        channel_full_count_per_second=full_rate,
        dropped_count={
            reason.value: number for reason, number in zip(_REASONS, dropped, strict=True)
        },
    )
