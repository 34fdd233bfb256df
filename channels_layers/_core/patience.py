"""When a receiver of several channels asks the backend first, whatever waits for it here.

What waits in this process is there at once, and a message of the backend never is: it has to be
asked for. Who always took what is there first would never see the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

_SHARE: Final = 10  # of its time a receiver spends one part at most on asking in vain
_MOST_KNOWN: Final = 4096  # channels that had nothing; then they may be asked again


@dataclass(frozen=True, slots=True)
class Asking:
    """Channels of the backend whose messages come before all others, if there are any.

    Attributes:
        names: The channels.
        is_alone: They alone are waited for, since the last time something else came first.
    """

    names: frozenset[str]
    is_alone: bool


class Patience:
    """What came of asking so far; the caller tells the time."""

    def __init__(self) -> None:
        self._again_at: dict[str, float] = {}  # channels that had nothing, and when they are due
        self._passed_over: set[str] = set()  # channels that something else came before

    def asking(self, channels: Mapping[str, int], last_served: int, now: float) -> Asking | None:
        """Return which channels are to be asked before one is served again that was served last.

        Args:
            channels: Those of the backend, and the count of receives when each was last served.
            last_served: The count when any of the receiver's channels was last served.
            now: Seconds.
        """
        due = [
            name
            for name, served in channels.items()
            if served < last_served and self._again_at.get(name, now) <= now
        ]
        # A backend that has just handed out one message may be quicker with the next than with
        # one of another channel. So who had something the last time is asked alone.
        quiet = [name for name in due if name in self._again_at or not channels[name]]
        names = frozenset(quiet or sorted(due, key=channels.__getitem__)[:1])
        return Asking(names, not names.isdisjoint(self._passed_over)) if names else None

    def note(self, asking: Asking, served: str | None, began_at: float, now: float) -> None:
        """Hear which channel was served when `asking` was over, if any was."""
        if len(self._again_at) + len(self._passed_over) > _MOST_KNOWN:
            self._again_at.clear()
            self._passed_over.clear()
        for name in asking.names:
            self._again_at.pop(name, None)
            self._passed_over.discard(name)
            if served is None:
                self._again_at[name] = now + _SHARE * (now - began_at)
            elif served not in asking.names:
                self._passed_over.add(name)
