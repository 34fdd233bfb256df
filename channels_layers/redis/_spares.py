"""Messages in hand for receivers that come back soon, so that these wait for one round trip less.

While messages are confirmed, as many more are asked for. A receiver that comes back finds one of
them here; what nobody has come for within some milliseconds goes back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from ._hand import Held, Place

_BACK_SOON_S: Final = 0.002  # in which a receiver that comes back finds the next message in hand
_EACH_S: Final = 0.0002  # more for each, since they get their turns one after the other
_MOST_NAMES: Final = 1024  # whose receivers may come back soon


def patience_s(held: Sequence[Held]) -> float:
    """Return how long receivers may take to come for them."""
    return _BACK_SOON_S + _EACH_S * len(held)


class Spares:
    """All of those of one client, and which receivers come back soon."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Hold nothing; `clock` returns seconds that never go back."""
        self._clock = clock
        self._served_at: dict[str, float] = {}  # name -> when a receiver got its last message
        self._eager: set[str] = set()  # names whose receivers came back soon the last time
        self._held: dict[str, tuple[int, list[Held]]] = {}  # name -> shard, oldest first

    # Who comes back soon

    def note_served(self, name: str) -> None:
        """Note that a receiver has got a message."""
        if len(self._served_at) >= _MOST_NAMES:
            self._served_at.clear()
        self._served_at[name] = self._clock()

    def note_back(self, name: str) -> None:
        """Note that a receiver waits again."""
        served_at = self._served_at.pop(name, None)
        if served_at is not None:
            self._eager.discard(name)
            if self._clock() - served_at < _BACK_SOON_S:
                if len(self._eager) >= _MOST_NAMES:
                    self._eager.clear()
                self._eager.add(name)

    def are_due(self, name: str) -> bool:
        """Whether its receivers are likely to come back soon."""
        return name in self._eager

    # What they find

    def count(self, name: str) -> int:
        """Return how many messages there are for `name`."""
        return len(self._held[name][1]) if name in self._held else 0

    def keep(self, place: Place, found: list[Held]) -> bool:
        """Hold messages; False where those that are here already are another shard's."""
        shard, name = place
        where, held = self._held.setdefault(name, (shard, []))
        if where != shard:
            return False
        held += found
        held.sort(key=_order)  # others may have given back what is older
        return True

    def take(self, name: str, many: int) -> tuple[int, list[Held]]:
        """Take as many as there are of the oldest ones; return their shard, and them."""
        where, held = self._held[name]
        taken = held[:many]
        self._drop(name, taken)
        return where, taken

    def take_of(self, name: str, batch: Sequence[Held]) -> list[Held]:
        """Take those of a batch that are still here, since nobody came; return them."""
        ids = {held.id for held in batch}
        _, held = self._held.get(name, (0, []))
        left = [one for one in held if one.id in ids]
        if left:
            self._eager.discard(name)
            self._drop(name, left)
        return left

    def take_newer(self, place: Place, order: int) -> list[Held]:
        """Take those that must go behind what goes back to their shard."""
        shard, name = place
        where, held = self._held.get(name, (shard, []))
        newer = [one for one in held if one.order > order] if where == shard else []
        self._drop(name, newer)
        return newer

    def take_all(self) -> list[tuple[int, list[Held]]]:
        """Take everything; return shards and their messages."""
        taken, self._held = list(self._held.values()), {}
        return taken

    def forget(self, shard: int) -> None:
        """Let go of what a shard has lost."""
        for name in [name for name, (where, _) in self._held.items() if where == shard]:
            del self._held[name]

    def _drop(self, name: str, taken: list[Held]) -> None:
        if taken:
            ids = {held.id for held in taken}
            where, held = self._held.pop(name)
            left = [one for one in held if one.id not in ids]
            if left:
                self._held[name] = where, left


def _order(held: Held) -> int:
    return held.order
