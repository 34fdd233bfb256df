"""What the clients of one prefix share: plain values behind one lock."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from channels_layers._core.names import non_local_part


@dataclass(slots=True)
class Entry:
    channel: str
    payload: Any
    sent_at: float
    expires_at: float


@dataclass(slots=True)
class Ticket:
    client: str
    names: tuple[str, ...]
    seen_at: float
    number: int


@dataclass(slots=True)
class State:
    """Everything that the clients of one prefix share; plain values, so that it can be stored."""

    entries: list[Entry] = field(default_factory=list)
    tickets: list[Ticket] = field(default_factory=list)
    groups: dict[str, dict[str, float]] = field(default_factory=dict)
    read_at: dict[str, float] = field(default_factory=dict)
    clients: dict[str, int] = field(default_factory=dict)  # client id -> process id
    events: list[tuple[str, str, float]] = field(default_factory=list)  # what, channel, when
    numbers: int = 0


class World:
    """The state of one prefix in this process; a forked child begins with an empty one."""

    def __init__(self):
        self._begin()

    def _begin(self):
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._state = State()

    @contextmanager
    def opened(self):
        if self.is_forked():
            self._begin()
        with self._lock:
            yield self._state

    def is_forked(self):
        return self._pid != os.getpid()

    def is_dead(self, pid):
        return False


def covers(ticket, channel):
    """Whether the holder of the ticket may have a message for `channel`."""
    return channel in ticket.names or non_local_part(channel) in ticket.names


def summary(state, concerns):
    """The statistics of the channels that `concerns` picks."""
    now = time.monotonic()
    events = [(what, at) for what, channel, at in state.events if concerns(channel)]
    total = Counter(what for what, _ in events)
    recent = Counter(what for what, at in events if at > now - 1)
    sent_at = [entry.sent_at for entry in state.entries if concerns(entry.channel)]
    return {
        "messages_count": total["sent"],
        "messages_count_per_second": recent["sent"],
        "messages_pending": len(sent_at),
        "messages_max_age": now - min(sent_at) if sent_at else 0,
        "channel_full_count": total["refused"],
        "channel_full_count_per_second": recent["refused"],
        "dropped_count": {
            reason: total[reason] for reason in ("full", "expired", "undecodable", "gap")
        },
    }
