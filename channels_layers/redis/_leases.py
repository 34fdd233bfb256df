"""Signs of life: showing one's own, and clearing up after clients that show none."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from ._numbers import packed
from ._tasks import LONGEST_PAUSE_S, begin, end

if TYPE_CHECKING:
    from ..backend import Client
    from ..options import LayerOptions
    from ._shard import Shard
    from ._shards import ShardRing

_logger = logging.getLogger("channels_layers")

_BEAT_S: Final = 0.5  # half of what statistics may be old
_BEATS_IN_A_LEASE: Final = 4
_SHOWS_AT: Final = 2  # which beat tells other shards of this client, should they not know it
_GROUPS_AT_ONCE: Final = 250
_MOST_GROUPS: Final = 4000  # words of one command that Lua can take apart
_MORE: Final = 2


class Leases:
    """The beat of one client, at all shards where it is known."""

    def __init__(
        self,
        client: Client,
        shards: Sequence[Shard],
        ring: ShardRing,
        options: LayerOptions,
        show: Callable[[], None],
    ) -> None:
        """Begin without a beat; `show` makes the client known at all shards."""
        self._client = client
        self._shards = shards
        self._ring = ring
        self._show = show
        self._lease = options.lease
        self._life_s = options.lease + options.expiry  # of the keys that are to last longer
        self._coming_back_s = max(0.0, 2 * LONGEST_PAUSE_S - options.lease)
        self._beat_s = min(_BEAT_S, options.lease / _BEATS_IN_A_LEASE)
        self._counter = 0
        self._task: asyncio.Task[None] | None = None
        self._on_the_way: set[int] = set()  # shards that have not answered the last beat
        self._groups: list[str] = []  # whose keys are to last longer, in this round
        self._begins_at = 0.0  # the next round
        self._at_once = _GROUPS_AT_ONCE
        # By shard and client: its counter, and when it was seen there first.
        self._seen: dict[tuple[int, str], tuple[bytes, float]] = {}
        self._looked_at: dict[int, float] = {}

    def start(self) -> None:
        """Beat in the running event loop from now on."""
        loop = asyncio.get_running_loop()
        if self._task is None or self._task.done() or self._task.get_loop() is not loop:
            self._on_the_way.clear()
            end(self._task)  # of a loop that may run again
            self._task = begin(self._run(), "beat")

    def stop(self) -> list[asyncio.Task[None]]:
        """Beat no more; return the tasks that end, which must be awaited."""
        task, self._task = self._task, None
        return end(task)

    async def _run(self) -> None:
        while True:
            try:
                self._beat()
            except Exception:  # whatever it is, the next beat must come
                _logger.exception("a beat of the Redis layer failed")
            await asyncio.sleep(self._beat_s)

    def _beat(self) -> None:
        self._counter += 1
        if self._counter == _SHOWS_AT:
            self._show()
        numbers = packed(self._client.id, self._client.statistics())
        self._end_memberships()  # also those that were seen to have ended just now
        groups = self._due_groups()
        for shard in self._shards:
            if not shard.lane.era or shard.index in self._on_the_way:
                continue
            here = [group for group in groups if self._ring.of(group) == shard.index]
            self._on_the_way.add(shard.index)
            is_home = int(shard.is_home)
            words = (self._counter, numbers if is_home else b"", is_home, shard.generation, *here)
            shard.lane.post("beat", *words, then=self._hearer(shard))

    def _end_memberships(self) -> None:
        """Discard the memberships that have ended here by themselves."""
        for group, channel in self._client.take_ended():
            shard = self._shards[self._ring.of(group)]
            shard.start()
            shard.lane.post("discard", group, channel, 0)

    def _due_groups(self) -> list[str]:
        """Return some groups with members here; each comes several times in its keys' life."""
        now = time.monotonic()
        if not self._groups and now >= self._begins_at:
            self._groups = list({group for group, _, _ in self._client.memberships()})
            self._begins_at = now + self._life_s / _BEATS_IN_A_LEASE
            beats = max(1, int(self._life_s / _BEATS_IN_A_LEASE / self._beat_s))
            at_once = max(_GROUPS_AT_ONCE, -(-len(self._groups) // beats))
            self._at_once = min(at_once, _MOST_GROUPS)
        due, self._groups = self._groups[: self._at_once], self._groups[self._at_once :]
        return due

    def _hearer(self, shard: Shard) -> Any:
        def hear(result: list[Any] | None) -> None:
            self._on_the_way.discard(shard.index)
            if result is None:
                return  # it could not be done; the next beat comes all the same
            if not result[0]:
                shard.lane.enter_again()
            elif result[1]:
                fields = result[2]
                self._look(shard, dict(zip(fields[::2], fields[1::2], strict=True)))

        return hear

    def _look(self, shard: Shard, beats: dict[bytes, bytes]) -> None:
        """Compare the counters of all clients with what they were; forget the dead."""
        now = time.monotonic()
        # Where nobody could look for a while, because this process or the server was stopped,
        # others could not beat either, and try again only now and then.
        was_away = now - self._looked_at.get(shard.index, 0.0) > self._lease / 2
        since = now + self._coming_back_s if was_away else now
        self._looked_at[shard.index] = now
        for name, counter in beats.items():
            client = name.decode()
            if client == self._client.id:
                continue
            place = (shard.index, client)
            known = self._seen.get(place)
            if known is None or known[0] != counter or was_away:
                self._seen[place] = (counter, since)
            elif now - known[1] >= self._lease:
                self._forget(shard, client, counter)
        gone = [place for place in self._seen if place[0] == shard.index]
        for place in gone:
            if place[1].encode() not in beats:
                del self._seen[place]

    def _forget(self, shard: Shard, client: str, counter: bytes) -> None:
        def forgotten(result: int | None) -> None:
            if result == _MORE:
                self._forget(shard, client, counter)
            elif result:
                _logger.info("client %s has died and was cleared up", client)

        shard.lane.post("forget", client, counter, b"", then=forgotten)
