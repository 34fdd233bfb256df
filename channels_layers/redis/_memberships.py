"""The memberships of one client: what was heard of them last, and what shards are to know."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from ..backend import Client
from ..options import LayerOptions
from ._shard import Shard
from ._shards import ShardRing
from ._versions import Versions

_AGAIN_S: Final = 0.05  # between two looks whether a shard was flushed as well


class Memberships:
    """Those of the own channels, which the shards of their groups know as well."""

    def __init__(
        self,
        client: Client,
        ring: ShardRing,
        options: LayerOptions,
        indices: Sequence[int],
        use: Callable[[int], Shard],
    ) -> None:
        """Begin with none.

        Args:
            client: The layer.
            ring: Tells the shard of a group.
            options: Of the layer.
            indices: Of all shards.
            use: Returns a shard to which commands go.
        """
        self._client = client
        self._ring = ring
        self._indices = indices
        self._use = use
        self._timeout = options.timeout
        self._group_expiry_ms = int(options.group_expiry * 1000)
        self._lasts = int(options.renew_memberships)
        self._versions = Versions()
        self.told: set[int] = set()  # shards with groups that others have put a channel into

    @property
    def on_adding(self) -> tuple[int, int]:
        """How long a membership lasts, in milliseconds; and 1 where its owner renews it."""
        return self._group_expiry_ms, self._lasts

    def is_new(self, group: str, channel: str, version: int) -> bool:
        """Say whether nothing later was heard of a membership, and remember it."""
        return self._versions.is_new(group, channel, version)

    def is_news(self, group: str, channel: str, version: int) -> bool:
        """As `is_new`, of what another client has changed."""
        self.told.add(self._ring.of(group))
        return self.is_new(group, channel, version)

    def forget(self) -> None:
        """Begin anew; so does the shard."""
        self._versions.forget()

    def flushed(self, flush_id: str, home: int) -> None:
        """Begin anew, and hear from other shards what has come since they were flushed as well.

        A member may be added there between their flush and that of the home, or before their own.
        """
        self.forget()
        ends_at = time.monotonic() + self._timeout
        for index in self._indices:
            if index != home:
                self._look(self._use(index), flush_id, ends_at)

    def _look(self, shard: Shard, flush_id: str, ends_at: float) -> None:
        def found(result: Any) -> None:
            if result:
                version, names = result
                there = [name.decode().split(" ") for name in names]
                self._take_over(shard, int(version), {(group, name) for group, name in there})
            elif result is not None and time.monotonic() < ends_at:
                loop = asyncio.get_running_loop()
                loop.call_later(_AGAIN_S, self._look, shard, flush_id, ends_at)

        shard.lane.post("mine", flush_id, then=found, gives_up_at=ends_at)

    def _take_over(self, shard: Shard, version: int, there: set[tuple[str, str]]) -> None:
        """Have the memberships of which a shard knows, but for those with later news."""
        here = {(group, channel) for group, channel, _ in self._client.memberships()}
        for group, channel in here - there:
            if self._ring.of(group) == shard.index and self.is_new(group, channel, version):
                self._client.member_discarded(group, channel)
        for group, channel in there - here:
            if self.is_new(group, channel, version):
                self._client.member_added(group, channel)

    def entering(self, shard: Shard) -> list[tuple[Any, ...]]:
        """Return what enters the memberships that a shard is to know."""
        commands: list[tuple[Any, ...]] = []
        now, is_here, owner = time.monotonic(), int(shard.is_home), self._client.id
        for group, channel, ends_at in self._client.memberships():
            if self._ring.of(group) == shard.index:
                left_ms = max(0, int((ends_at - now) * 1000))
                commands.append(("add", group, channel, owner, left_ms, is_here, self._lasts))
        return commands
