"""Things to look at later, by the second: cheap to add, cheap to wait for, never exact."""

from __future__ import annotations

import heapq
import math
from typing import Generic, TypeVar

T = TypeVar("T")


class Wheel(Generic[T]):
    """A timer wheel with slots of one second; what is due comes out late, never early."""

    def __init__(self) -> None:
        self._slots: dict[int, list[T]] = {}
        self._seconds: list[int] = []  # a heap of the keys of `_slots`

    def add(self, item: T, at: float) -> None:
        """Let `item` come out of `due` once, at the first second not before `at`."""
        second = math.ceil(at)
        slot = self._slots.get(second)
        if slot is None:
            self._slots[second] = slot = []
            heapq.heappush(self._seconds, second)
        slot.append(item)

    def due(self, now: float) -> list[T]:
        """Remove and return all whose time has come."""
        items: list[T] = []
        while self._seconds and self._seconds[0] <= now:
            items += self._slots.pop(heapq.heappop(self._seconds))
        return items
