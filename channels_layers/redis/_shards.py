"""Which shard a name belongs to; the same in every process."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final, Protocol, TypeVar

from uhashring import HashRing  # type: ignore[import-untyped]

from .._core.names import client_of

_ALGORITHM: Final = "ketama"  # of uhashring, with its default of 160 points for a shard
_VERSION: Final = 1  # of what is hashed
_MOST_KNOWN: Final = 65_536  # names whose shard is remembered


class Labelled(Protocol):
    """A shard, or what describes one."""

    @property
    def label(self) -> str:
        """Its name on the ring."""
        ...


S = TypeVar("S", bound=Labelled)


class ShardRing:
    """An immutable map from a client, a channel or a group to the shard that it is pinned to.

    Adding a shard moves only about 1/n of the names, all of them to it.
    """

    def __init__(self, labels: Sequence[str]) -> None:
        self._labels = tuple(labels)
        self._index = {label: index for index, label in enumerate(labels)}
        self._ring = HashRing(list(labels), hash_fn=_ALGORITHM) if len(labels) > 1 else None
        self._known: dict[str, int] = {}

    @property
    def fingerprint(self) -> str:
        """What two clients must have in common to agree; "" where there is one shard only."""
        if self._ring is None:
            return ""
        return f"{_ALGORITHM}/{_VERSION} {' '.join(sorted(self._labels))}"

    def of(self, name: str) -> int:
        """Return the index of the shard of a client id or a group."""
        if self._ring is None:
            return 0
        index = self._known.get(name)
        if index is None:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            index = self._known[name] = self._index[self._ring.get_node(name)]
        return index

    def of_channel(self, channel: str) -> int | None:
        """Return the index of the shard that a channel is pinned to; None for a normal one."""
        client = client_of(channel)
        if client is not None:
            return self.of(client)
        return self.of(channel) if "?" in channel else None

    def share_of(self, channel: str, capacity: int, index: int) -> int:
        """Return how much of its capacity a normal channel has on one shard; all add up to it."""
        shards = len(self._labels)
        each, more = divmod(capacity, shards)
        if not more:
            return each
        first = int.from_bytes(hashlib.blake2b(channel.encode(), digest_size=4).digest(), "big")
        return each + ((index - first) % shards < more)
