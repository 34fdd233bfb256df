"""Messages of channels that no client owns: who wants some, where, and what is in hand.

A message that was given to this client stays on its shard until it is confirmed, which is when a
receiver gets it. Until then it goes to others should this client die.

A normal channel is spread over all shards. Its receivers wait on one of them, another one every
few seconds, and glance at the others now and then, so that nothing stays for long on a shard where
nobody waits.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from .._core.names import non_local_part
from ._shards import ShardRing
from ._tasks import begin, end

if TYPE_CHECKING:
    from ..backend import Client
    from ._command import Command
    from ._shard import Shard

_GLANCE_S: Final = 0.2  # between two looks at the shards where it does not wait
_SPREAD: Final = 0.2  # of the time between two rotations, so that workers do not move together


_AT_ONCE: Final = 1000  # messages in one command
_MOST_KNOWN: Final = 65_536


class Held(NamedTuple):
    """A message in hand."""

    id: bytes
    channel: str
    expires_ms: int
    payload: bytes
    generation: str


class Workers:
    """What one client wants of the shards; all of it in one event loop."""

    def __init__(
        self,
        client: Client,
        shards: Sequence[Shard],
        ring: ShardRing,
        rotation: float,
        origins: dict[str, tuple[int, str]],
    ) -> None:
        """Begin with no wishes.

        Args:
            client: Gets the messages.
            shards: By index.
            ring: Says where a channel is pinned to.
            rotation: Seconds after which receivers wait on another shard.
            origins: By channel, the shard and the generation of its last message; of all the
                sessions of a layer, since one may give back what another was given.
        """
        self._client = client
        self._shards = shards
        self._ring = ring
        self._rotation = rotation
        self._current = random.randrange(len(shards))  # noqa: S311
        self._readers: dict[str, int] = {}  # name -> receivers that wait, and have nothing yet
        self._asked: dict[str, int] = {}  # name -> messages that were asked for and did not come
        self._origins = origins
        self._coming: dict[str, int] = {}  # name -> messages in hand that are being confirmed
        # By shard and name, what was asked for without an answer yet, and what came meanwhile.
        self._unanswered: dict[tuple[int, str], list[Command]] = {}
        self._early: dict[tuple[int, str], list[Held]] = {}
        self._lively: set[str] = set()  # names of which something came since the last glance
        self._glancing: set[str] = set()  # names for which shards are being looked at
        self._task: asyncio.Task[None] | None = None
        self._is_stopped = False

    # Wishes

    def want(self, name: str, readers: int) -> None:
        """Hear how many receivers wait for `name`, a channel or "prefix.client!"."""
        if self._is_stopped:
            return
        if readers:
            self._readers[name] = readers
        else:
            self._readers.pop(name, None)
        self._ask(name)
        self._begin_to_move()

    def start(self) -> None:
        """Go on in the running event loop with what is wanted."""
        for name in self._asked:
            shard = self._shard_of(name)
            shard.start()
            shard.listen()
        self._begin_to_move()

    def _begin_to_move(self) -> None:
        if (
            self._task is None
            and len(self._shards) > 1
            and any(map(self._is_spread, self._readers))
        ):
            self._task = begin(self._move_on(), "rotation")

    def _is_spread(self, name: str) -> bool:
        return self._ring.of_channel(name) is None

    def _shard_of(self, name: str) -> Shard:
        index = self._ring.of_channel(name)
        return self._shards[self._current if index is None else index]

    def _ask(self, name: str) -> None:
        """Let the shard know how many more messages are wanted, or how many fewer."""
        shard = self._shard_of(name)
        asked = self._asked.get(name, 0)
        change = self._readers.get(name, 0) - asked - self._coming.get(name, 0)
        if change > 0 and not self._is_stopped:
            self._asked[name] = asked + change
            shard.start()
            shard.listen()
            self._post_want(shard, name, change)
        elif change < 0 and asked:
            fewer = min(asked, -change)
            self._note_asked(name, asked - fewer)
            shard.lane.post("want", name, -fewer, 1)

    def _note_asked(self, name: str, asked: int) -> None:
        if asked > 0:
            self._asked[name] = asked
        else:
            self._asked.pop(name, None)

    def _post_want(self, shard: Shard, name: str, change: int) -> None:
        """Ask for more messages: those that are there at once, the others as they come."""
        place = (shard.index, name)

        def take(result: list[Any] | None) -> None:
            unanswered = self._unanswered[place]
            unanswered.remove(command)
            if not unanswered:
                del self._unanswered[place]
            if result:
                self._take_asked(shard, name, [_held(*entry) for entry in result])
            elif name in self._lively:
                self._glance_around(name)  # while messages come, the others may have some, too
            if place in self._early and not self._is_answer_coming(place):
                self._take_asked(shard, name, self._early.pop(place))

        command = shard.lane.post("want", name, change, 1, then=take)
        self._unanswered.setdefault(place, []).append(command)

    def _is_answer_coming(self, place: tuple[int, str]) -> bool:
        """Say whether an answer is on its way that may hold older messages than the stream."""
        return any(command.is_sent for command in self._unanswered.get(place, ()))

    # What comes

    def given(self, shard: Shard, entries: list[Any]) -> None:
        """Take what the shard has given, as its stream tells it."""
        by_name: dict[str, list[Held]] = {}
        for entry_id, fields in entries:
            held = _held(entry_id, fields[0], fields[1])
            by_name.setdefault(self._name_for(held.channel), []).append(held)
        for name, found in by_name.items():
            place = (shard.index, name)
            if self._is_answer_coming(place):
                self._early.setdefault(place, []).extend(found)
            else:
                self._take_asked(shard, name, found)

    def _name_for(self, channel: str) -> str:
        """Return the name under which a message of `channel` was wanted."""
        family = non_local_part(channel)
        if family is not None and not self._asked.get(channel) and self._asked.get(family):
            return family
        return channel

    def _take_asked(self, shard: Shard, name: str, found: list[Held]) -> None:
        self._note_asked(name, self._asked.get(name, 0) - len(found))
        self._take(shard, name, found)

    def _take(self, shard: Shard, name: str, found: list[Held]) -> None:
        """Confirm what receivers wait for; the others shall have the rest."""
        room = self._readers.get(name, 0) - self._coming.get(name, 0)
        wanted, surplus = found[: max(room, 0)], found[max(room, 0) :]
        if surplus:
            shard.lane.post("return", *[held.id for held in surplus])
        if not wanted:
            return
        self._coming[name] = self._coming.get(name, 0) + len(wanted)

        def hand_over(confirmed: list[int] | None) -> None:
            self._coming[name] -= len(wanted)
            if not self._coming[name]:
                del self._coming[name]
            found = confirmed or [0] * len(wanted)
            sure = [held for held, is_ours in zip(wanted, found, strict=True) if is_ours]
            self._deliver(shard, name, sure)

        shard.lane.post("confirm", *[held.id for held in wanted], then=hand_over)

    def _deliver(self, shard: Shard, name: str, sure: list[Held]) -> None:
        late: list[Held] = []
        if sure:
            self._lively.add(name)
        for held in sure:
            self._note_origin(shard, held)
            lifetime = shard.lifetime(held.expires_ms)
            if not late and self._client.deliver(held.channel, held.payload, lifetime):
                left = self._readers.get(name, 0) - 1
                if left > 0:
                    self._readers[name] = left
                else:
                    self._readers.pop(name, None)
            else:
                late.append(held)
        by_channel: dict[str, list[tuple[bytes, float]]] = {}
        for held in late:
            letter = (held.payload, shard.lifetime(held.expires_ms))
            by_channel.setdefault(held.channel, []).append(letter)
        for channel, letters in by_channel.items():
            self.give_back(channel, letters)
        self._ask(name)

    def give_back(self, channel: str, letters: Sequence[tuple[bytes, float]]) -> None:
        """Put what was delivered and not read to the front again, the oldest first."""
        index, generation = self._origins.get(channel, (-1, ""))
        shard = self._shards[index] if index >= 0 else self._shard_of(channel)
        shard.start()
        for at in range(0, len(letters), _AT_ONCE):
            words: list[Any] = []
            # The newest part first, since each goes to the front.
            for payload, lifetime in letters[max(0, len(letters) - at - _AT_ONCE) :][:_AT_ONCE]:
                words += (int(lifetime * 1000), payload)
            shard.lane.post("back", channel, generation, *words)

    def _note_origin(self, shard: Shard, held: Held) -> None:
        """Remember where a message came from, for what of its channel is given back."""
        if len(self._origins) >= _MOST_KNOWN:
            self._origins.clear()
        self._origins[held.channel] = (shard.index, held.generation)

    # Several shards

    async def _move_on(self) -> None:
        """Wait on another shard now and then, and glance at all of them more often."""
        loop = asyncio.get_running_loop()
        moves_at = loop.time() + self._next_rotation()
        while True:
            await asyncio.sleep(_GLANCE_S)
            names = [name for name in self._readers if self._is_spread(name)]
            if not names:
                continue
            current = self._shards[self._current]
            if loop.time() >= moves_at or not current.is_connected:
                moves_at = loop.time() + self._next_rotation()
                self._move(names)
            for name in names:
                self._glance_around(name)

    def _next_rotation(self) -> float:
        return self._rotation * random.uniform(1 - _SPREAD, 1 + _SPREAD)  # noqa: S311

    def _move(self, names: list[str]) -> None:
        """Wait on another shard, one that serves if there is any."""
        old = self._shards[self._current]
        others = [shard for shard in self._shards if shard is not old]
        serving = [shard for shard in others if shard.is_connected]
        following = random.choice(serving or others)  # noqa: S311
        for name in names:
            asked = self._asked.pop(name, 0)
            if asked:
                old.lane.post("want", name, -asked, 1)
        self._current = following.index
        for name in names:
            self._ask(name)

    def _glance_around(self, name: str) -> None:
        if name not in self._glancing and self._is_spread(name):
            self._lively.discard(name)
            self._glancing.add(name)
            self._glance(name, [shard for shard in self._shards if shard.index != self._current])

    def _glance(self, name: str, shards: list[Shard]) -> None:
        """Take what is there on shards where nobody of us waits, from one after the other."""
        wanted = self._readers.get(name, 0) - self._coming.get(name, 0)
        if wanted <= 0 or not shards or self._is_stopped:
            self._glancing.discard(name)
            return
        shard, *rest = shards
        shard.start()
        if shard.lane.is_busy and not shard.is_connected:
            self._glance(name, rest)  # it does not serve now
            return

        def take(result: list[Any] | None) -> None:
            if result:
                self._take(shard, name, [_held(*entry) for entry in result])
            self._glance(name, rest)

        shard.lane.post("want", name, wanted, 0, then=take)

    # Coming back

    def restore(self, shard: Shard) -> None:
        """Make wishes known again to a shard that has lost them."""
        names = [name for name in self._asked if self._shard_of(name) is shard]
        for name in names:
            self._asked.pop(name)
        for name in names:
            self._ask(name)

    def stop(self) -> list[asyncio.Task[None]]:
        """Want nothing more; return the tasks that end, which must be awaited."""
        self._is_stopped = True
        return self.pause()

    def pause(self) -> list[asyncio.Task[None]]:
        """End in this event loop; return as `stop`."""
        task, self._task = self._task, None
        return end(task)


def _held(entry_id: bytes, label: bytes, payload: bytes) -> Held:
    channel, expires_ms, _, generation = label.decode().split(" ", 3)
    return Held(entry_id, channel, int(expires_ms), payload, generation)
