"""Which news of a membership is the latest."""

from __future__ import annotations

from typing import Final

_MOST: Final = 65_536  # memberships whose version is remembered


class Versions:
    """The last version heard of each membership; its shard numbers all changes there.

    A change that this client made is told by the answer, one that another made by the inbox, so
    that they can come in another order than that in which they were made.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], int] = {}

    def is_new(self, group: str, channel: str, version: int) -> bool:
        """Say whether nothing later was heard, and remember it."""
        name = (group, channel)
        if version < self._known.get(name, 0):
            return False
        self._known.pop(name, None)
        if len(self._known) >= _MOST:
            del self._known[next(iter(self._known))]
        self._known[name] = version
        return True

    def forget(self) -> None:
        """Begin anew; so does the shard."""
        self._known.clear()
