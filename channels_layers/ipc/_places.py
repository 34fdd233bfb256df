"""The places of this process, each shared by its layers of one prefix."""

from __future__ import annotations

import threading
from typing import Final

from .. import _fork
from ._place import Place
from ._room import Sizes


class _Places:
    """The places of this process, by prefix."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_prefix: dict[str, Place] = {}
        _fork.in_child(self, _Places.__init__)

    def get(self, prefix: str, sizes: Sizes) -> Place:
        """Return the place of `prefix` for one more user."""
        with self._lock:
            place = self._by_prefix.get(prefix)
            if place is None:
                place = self._by_prefix[prefix] = Place(prefix, sizes)
            place.users += 1
            return place

    @property
    def has_any(self) -> bool:
        """Whether any layer of this process is attached."""
        return bool(self._by_prefix)

    def release(self, prefix: str, place: Place) -> None:
        """Undo one `get`."""
        with self._lock:
            place.users -= 1
            if not place.users:
                self._by_prefix.pop(prefix, None)
                place.close()


places: Final = _Places()
