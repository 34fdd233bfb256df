"""Statistics where all processes read them: a client's in its inbox, of the gone on the board.

The numbers of a prefix never go back while a client lives, so what a client has counted is added
to the board when its inbox is removed.
"""

from __future__ import annotations

import contextlib
import struct
import time
from collections.abc import Callable, Iterator
from typing import Final, TypeVar

from ..statistics import Dropped, Statistics, add_up, counts_of
from . import _layout

T = TypeVar("T")

_TURN: Final = struct.Struct("@Q")  # odd while it is being written
_NUMBERS: Final = struct.Struct("@QdQdQd4Q")  # aligned, so that each is written at once
_LONG_MASK: Final = 0xFFFFFFFFFFFFFFFF
_REASONS: Final = (Dropped.FULL, Dropped.EXPIRED, Dropped.UNDECODABLE, Dropped.GAP)
_PATIENCE_S: Final = 0.2  # with whoever writes, which takes less than a millisecond
_PAUSE_S: Final = 0.001
_AT: Final = _layout.NUMBERS_OFFSET
_GONE: Final = _layout.GONE_OFFSET


def publish(inbox: memoryview, numbers: Statistics, now: float) -> None:
    """Write those of a client; by the owner alone."""
    _begin(inbox, _AT)
    _write(inbox, _AT, numbers, now)


def read(inbox: memoryview, now: float, *, is_alive: bool) -> Statistics:
    """Return those of a client; blocks while it writes them."""
    if not is_alive:
        return counts_of(_numbers(inbox, _AT, now))  # be it that it was killed while it wrote
    return _whole(inbox, _AT, lambda: _numbers(inbox, _AT, now))


def lost_on_the_way_to(inbox: memoryview) -> Statistics:
    """Return what others could not bring to a client, which it has not counted itself."""
    words = inbox[: _layout.RING_OFFSET].cast("Q")
    numbers = add_up([])
    numbers["channel_full_count"] = words[_layout.REFUSED]
    numbers["dropped_count"][Dropped.FULL.value] = words[_layout.MISSED]
    return numbers


def left_in(inbox: memoryview) -> Statistics:
    """Return what a client has counted that is gone, and what others could not bring to it."""
    return add_up([read(inbox, 0.0, is_alive=False), lost_on_the_way_to(inbox)])


@contextlib.contextmanager
def kept(board: memoryview, left: Statistics) -> Iterator[None]:
    """Add what a client has left to the board; its inbox is removed meanwhile, under the guard."""
    _begin(board, _GONE)  # so that nobody counts them twice, or not at all
    try:
        yield
    finally:
        now = time.monotonic()
        _write(board, _GONE, add_up([_numbers(board, _GONE, now), left]), now)


def with_those_of_the_gone(
    board: memoryview, look: Callable[[], list[Statistics]]
) -> list[Statistics]:
    """Return what `look` finds while nobody leaves, and the numbers of who has left; blocks."""
    return _whole(board, _GONE, lambda: [*look(), _numbers(board, _GONE, 0.0)])


def _whole(view: memoryview, at: int, look: Callable[[], T]) -> T:
    """Return what `look` finds while nobody writes at `at`; blocks."""
    ends_at = time.monotonic() + _PATIENCE_S
    while True:
        before = _turn(view, at)
        found = look()
        is_whole = not before & 1 and _turn(view, at) == before
        if is_whole or time.monotonic() > ends_at:  # whoever wrote was stopped or killed
            return found
        time.sleep(_PAUSE_S)  # another thread may have to go on


def _turn(view: memoryview, at: int) -> int:
    (turn,) = _TURN.unpack_from(view, at)
    return int(turn)


def _begin(view: memoryview, at: int) -> None:
    _TURN.pack_into(view, at, (_turn(view, at) | 1) & _LONG_MASK)


def _write(view: memoryview, at: int, numbers: Statistics, now: float) -> None:
    """Write them, and end what was begun."""
    dropped = numbers["dropped_count"]
    _NUMBERS.pack_into(
        view,
        at + _TURN.size,
        numbers["messages_count"] & _LONG_MASK,
        numbers["messages_count_per_second"],
        numbers["messages_pending"],
        now - numbers["messages_max_age"],
        numbers["channel_full_count"] & _LONG_MASK,
        numbers["channel_full_count_per_second"],
        *(dropped[reason.value] & _LONG_MASK for reason in _REASONS),
    )
    _TURN.pack_into(view, at, ((_turn(view, at) | 1) + 1) & _LONG_MASK)


def _numbers(view: memoryview, at: int, now: float) -> Statistics:
    values = _NUMBERS.unpack_from(view, at + _TURN.size)
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
