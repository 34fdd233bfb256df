"""How many unread messages a channel may hold: name patterns to numbers, first match wins."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping
from typing import TypeAlias

from ..errors import ConfigurationError

ChannelCapacity: TypeAlias = Mapping[str | re.Pattern[str], int]


class Capacities:
    """The capacity of every channel name, by `channel_capacity` and a default.

    Keys are globs (``"http.*"``, matched in full, case counts) or compiled patterns (matched
    from the start of the name, as Django Channels does). The first that matches wins.
    """

    def __init__(self, default: int, patterns: ChannelCapacity | None) -> None:
        self._default = _positive("capacity", default)
        self._rules = [
            (_compiled(pattern), _positive(f"channel_capacity[{pattern!r}]", capacity))
            for pattern, capacity in _items(patterns)
        ]

    def of(self, channel: str) -> int:
        """Return how many unread messages `channel` may hold."""
        for pattern, capacity in self._rules:
            if pattern.match(channel):
                return capacity
        return self._default


def _items(patterns: ChannelCapacity | None) -> list[tuple[str | re.Pattern[str], int]]:
    if patterns is None:
        return []
    if not isinstance(patterns, Mapping):
        raise ConfigurationError(
            "channel_capacity",
            f"must map globs or compiled patterns to capacities, got {patterns!r}",
        )
    return list(patterns.items())


def _compiled(pattern: str | re.Pattern[str]) -> re.Pattern[str]:
    if isinstance(pattern, re.Pattern) and isinstance(pattern.pattern, str):
        return pattern
    if isinstance(pattern, str):
        return re.compile(fnmatch.translate(pattern))
    raise ConfigurationError(
        "channel_capacity", f"keys are globs or compiled str patterns, got {pattern!r}"
    )


def _positive(field: str, capacity: object) -> int:
    if isinstance(capacity, bool) or not isinstance(capacity, int):
        raise ConfigurationError(field, f"must be a whole number of messages, got {capacity!r}")
    if capacity < 1:
        raise ConfigurationError(field, f"must be at least 1, got {capacity}")
    return int(capacity)
