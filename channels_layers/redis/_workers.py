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
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from .._core.names import non_local_part
from ._hand import Held, InFlight, Origin, Wish, held_of
from ._shards import ShardRing
from ._spares import Spares, patience_s
from ._tasks import begin, end

if TYPE_CHECKING:
    from ..backend import Client
    from ._command import Command
    from ._shard import Shard

_GLANCE_S: Final = 0.2  # between two looks at the shards where it does not wait
_SPREAD: Final = 0.2  # of the time between two rotations, so that workers do not move together
_AT_ONCE: Final = 1000  # messages in one command
_MOST_KNOWN: Final = 16_384  # messages whose origin is remembered


class Workers:
    """What one client wants of the shards; all of it in one event loop."""

    def __init__(
        self,
        client: Client,
        shards: Sequence[Shard],
        ring: ShardRing,
        rotation: float,
        origins: OrderedDict[int, Origin],
        hear_others: Callable[[], None],
    ) -> None:
        """Begin with no wishes.

        Args:
            client: Gets the messages.
            shards: By index.
            ring: Says where a channel is pinned to.
            rotation: Seconds after which receivers wait on another shard.
            origins: By the identity of a payload, where it came from; of all the sessions of a
                layer, since one may give back what another was given.
            hear_others: Does what other threads have asked for.
        """
        self._client = client
        self._shards = shards
        self._ring = ring
        self._rotation = rotation
        self._current = random.randrange(len(shards))  # noqa: S311
        self._readers: dict[str, int] = {}  # name -> receivers that wait, and have nothing yet
        self._asked: dict[str, int] = {}  # name -> messages that were asked for and did not come
        self._origins = origins
        self._hear_others = hear_others
        self._flying = InFlight()
        self._spares = Spares(time.monotonic)
        self._fetching: dict[str, Command] = {}  # by name: what asks for more spares
        self._lively: set[str] = set()  # names of which something came since the last glance
        self._glancing: set[str] = set()  # names for which shards are being looked at
        self._task: asyncio.Task[None] | None = None
        self._is_stopped = False

    # Wishes

    def want(self, name: str, readers: int) -> None:
        """Hear how many receivers wait for `name`, a channel or "prefix.client!"."""
        if self._is_stopped:
            return
        known = self._readers.get(name, 0)
        if readers == known:
            return
        if readers:
            if readers > known:
                self._spares.note_back(name)
            self._readers[name] = readers
        else:
            self._readers.pop(name, None)
        self._ask(name)
        self._begin_to_move()

    def start(self) -> None:
        """Go on in the running event loop with what is wanted."""
        self.return_spares()
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

    def _lack(self, name: str) -> int:
        """Return how many receivers wait for which nothing is in hand."""
        return self._readers.get(name, 0) - self._flying.coming(name)

    def _ask(self, name: str) -> None:
        """Let the shard know how many more messages are wanted, or how many fewer."""
        if self._spares.count(name) and (lack := self._lack(name)) > 0:
            index, spares = self._spares.take(name, lack)
            self._take(self._shards[index], name, spares)
        shard = self._shard_of(name)
        asked = self._asked.get(name, 0)
        change = self._lack(name) - asked
        if change > 0 and not self._is_stopped:
            self._asked[name] = asked + change
            shard.start()
            shard.listen()
            self._post_want(shard, name, change)
        elif change < 0 and asked:
            fewer = min(asked, -change)
            self._note_asked(name, asked - fewer)
            if not self._flying.change_wish((shard.index, name), -fewer):
                shard.lane.post("want", name, -fewer)

    def _note_asked(self, name: str, asked: int) -> None:
        if asked > 0:
            self._asked[name] = asked
        else:
            self._asked.pop(name, None)

    def _post_want(self, shard: Shard, name: str, change: int) -> None:
        """Ask for more messages: those that are there at once, the others as they come."""
        place = (shard.index, name)
        if self._flying.change_wish(place, change):
            return

        def take(result: list[Any] | None) -> None:
            found = [held_of(*entry) for entry in result or ()]
            good, late = self._flying.end_wish(place, wish, found)
            self._note_asked(name, self._asked.get(name, 0) - len(found))
            if late:
                self._return(shard, late)
            if good:
                self._take(shard, name, good)
            elif not found and name in self._lively:
                self._glance_around(name)  # while messages come, the others may have some, too
            self._release(shard, name)
            if late:
                self._ask(name)

        wish = self._flying.begin_wish(place, shard.lane.post("want", name, change, then=take))

    # What comes

    def given(self, shard: Shard, entries: list[Any]) -> None:
        """Take what the shard has given, as its stream tells it."""
        by_name: dict[str, list[Held]] = {}
        for entry_id, fields in entries:
            held = held_of(entry_id, fields[0], fields[1])
            by_name.setdefault(self._name_for(held.channel), []).append(held)
        for name, found in by_name.items():
            late = self._flying.hold((shard.index, name), found)
            self._give_up(shard, name, late)
            self._release(shard, name)
            if late:
                self._ask(name)

    def _name_for(self, channel: str) -> str:
        """Return the name under which a message of `channel` was wanted."""
        family = non_local_part(channel)
        if family is not None and not self._asked.get(channel) and self._asked.get(family):
            return family
        return channel

    def _release(self, shard: Shard, name: str) -> None:
        """Take what came by the stream, if nothing can come before it any more."""
        found = self._flying.release((shard.index, name))
        if found:
            self._note_asked(name, self._asked.get(name, 0) - len(found))
            self._take(shard, name, found)

    def _take(self, shard: Shard, name: str, found: list[Held]) -> None:
        """Confirm what receivers wait for; the others shall have the rest, be it after a while."""
        room = max(self._lack(name), 0)
        wanted, surplus = found[:room], found[room:]
        if surplus:
            self._keep_spares(shard, name, surplus)
        if not wanted:
            return
        place = (shard.index, name)
        if not self._flying.confirm_more(place, wanted):
            self._confirm(shard, name, wanted)
        if self._may_spare(name) and not self._lack(name):
            self._fetch_spares(shard, name)

    def _confirm(self, shard: Shard, name: str, wanted: list[Held]) -> None:
        place = (shard.index, name)
        confirming = self._flying.begin_confirming(place, wanted)

        def hand_over(confirmed: list[int] | None) -> None:
            with self._client.demanding:
                self._hear_others()  # what they give back makes void what is newer
                self._flying.end_confirming(place, confirming)
                found = confirmed or [0] * len(confirming.held)
                both = zip(confirming.held, found, strict=True)
                sure = [held for held, is_ours in both if is_ours]
                self._deliver(shard, name, sure, confirming.void)

        ids = [held.id for held in wanted]
        confirming.command = shard.lane.post("confirm", *ids, then=hand_over)

    def _deliver(self, shard: Shard, name: str, sure: list[Held], void: set[bytes]) -> None:
        late: list[Held] = []
        if sure and len(self._shards) > 1 and self._is_spread(name):
            self._lively.add(name)
        for held in sure:
            self._note_origin(shard, held)
            lifetime = shard.lifetime(held.expires_ms)
            is_late = bool(late) or held.id in void
            if not is_late and self._client.deliver(held.channel, held.payload, lifetime):
                self._spares.note_served(name)
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

    # The next ones, for receivers that come back soon

    def _may_spare(self, name: str) -> bool:
        """Say whether to have more in hand; not where readers may follow each other, in order."""
        return self._is_spread(name) and self._spares.are_due(name)

    def _fetch_spares(self, shard: Shard, name: str) -> None:
        """Ask for as many messages as are confirmed now, less those that are in hand."""
        if self._asked.get(name):
            return
        place = (shard.index, name)
        lack = self._flying.coming(name) - self._spares.count(name)
        asking = self._fetching.get(name)
        if asking is not None:
            if lack > asking.words[1] and not asking.is_sent:
                asking.words = (name, lack)
            return
        if lack <= 0:
            return

        def keep(result: list[Any] | None) -> None:
            del self._fetching[name]
            self._take_glanced(shard, name, wish, result)

        command = self._fetching[name] = shard.lane.post("glance", name, lack, then=keep)
        wish = self._flying.begin_wish(place, command, is_glance=True)

    def _keep_spares(self, shard: Shard, name: str, spares: list[Held]) -> None:
        """Keep messages for a while, if receivers are likely to come for them."""
        if self._may_spare(name) and self._spares.keep((shard.index, name), spares):
            loop = asyncio.get_running_loop()
            loop.call_later(patience_s(spares), self._return_spares, shard, name, spares)
        else:
            self._return(shard, spares)

    def return_spares(self) -> None:
        """Let others have all that is in hand for receivers that come back soon."""
        for index, spares in self._spares.take_all():
            self._return(self._shards[index], spares)

    def _return_spares(self, shard: Shard, name: str, spares: list[Held]) -> None:
        """Let others have what nobody has come for."""
        left = self._spares.take_of(name, spares)
        if left:
            self._return(shard, left)

    # Going back

    def _give_up(self, shard: Shard, name: str, late: list[Held]) -> None:
        """Let go of what was asked for and comes too late."""
        if late:
            self._note_asked(name, self._asked.get(name, 0) - len(late))
            self._return(shard, late)

    def _return(self, shard: Shard, held: list[Held]) -> None:
        """Put what is in hand to its place again."""
        orders: dict[str, int] = {}
        for one in held:
            orders[one.channel] = min(one.order, orders.get(one.channel, one.order))
        self._post_back(shard, orders, "return", *[one.id for one in held])

    def give_back(self, channel: str, letters: Sequence[tuple[bytes, float]]) -> None:
        """Put what was delivered and not read to its place again, the oldest first."""
        by_origin: dict[tuple[int, str], list[tuple[int, float, bytes]]] = {}
        unknown = Origin(self._shard_of(channel).index, "", 0)
        for payload, lifetime in letters:
            origin = self._origins.pop(id(payload), unknown)
            letter = (origin.order, lifetime, payload)
            by_origin.setdefault((origin.shard, origin.generation), []).append(letter)
        for (index, generation), found in by_origin.items():
            shard = self._shards[index]
            shard.start()
            # The newest first, since what goes back makes way for what is newer.
            for stop in range(len(found), 0, -_AT_ONCE):
                part = found[max(0, stop - _AT_ONCE) : stop]
                words: list[Any] = []
                for order, lifetime, payload in part:
                    words += (int(lifetime * 1000), order, payload)
                orders = {channel: min(order for order, _, _ in part)}
                self._post_back(shard, orders, "back", channel, generation, *words)

    def _post_back(self, shard: Shard, orders: dict[str, int], command: str, *words: Any) -> None:
        """Give messages back, and all newer ones of their channels that were given before."""
        newer: list[Held] = []
        begun = []
        for channel, order in orders.items():
            for name in _names_of(channel):
                place = (shard.index, name)
                returning, early = self._flying.begin_returning(place, order)
                begun.append((place, returning))
                self._note_asked(name, self._asked.get(name, 0) - len(early))
                newer += early
                newer += self._spares.take_newer(place, order)

        def back(last: Any) -> None:
            for place, returning in begun:
                _, name = place
                late = self._flying.end_returning(place, returning, last or b"", shard.given)
                self._give_up(shard, name, late)
                self._release(shard, name)
                self._ask(name)

        shard.lane.post(command, *words, then=back)
        if newer:
            self._return(shard, newer)

    def _note_origin(self, shard: Shard, held: Held) -> None:
        """Remember where a message came from, should it be given back."""
        if len(self._origins) >= _MOST_KNOWN:
            self._origins.popitem(last=False)
        self._origins[id(held.payload)] = Origin(shard.index, held.generation, held.order)

    def flushed(self) -> None:
        """Let go of what is in hand, and of what other shards are about to confirm."""
        self._flying.void_all()
        self.return_spares()

    # Several shards

    async def _move_on(self) -> None:
        """Wait on another shard now and then, and glance at all of them more often."""
        loop = asyncio.get_running_loop()
        moves_at = loop.time() + self._next_rotation()
        while True:
            await asyncio.sleep(_GLANCE_S)
            self._lively &= self._readers.keys()
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
                old.lane.post("want", name, -asked)
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
        wanted = self._lack(name)
        if wanted <= 0 or not shards or self._is_stopped:
            self._glancing.discard(name)
            return
        shard, *rest = shards
        shard.start()
        if shard.lane.is_busy and not shard.is_connected:
            self._glance(name, rest)  # it does not serve now
            return

        place = (shard.index, name)

        def take(result: list[Any] | None) -> None:
            self._take_glanced(shard, name, wish, result)
            self._glance(name, rest)

        command = shard.lane.post("glance", name, wanted, then=take)
        wish = self._flying.begin_wish(place, command, is_glance=True)

    def _take_glanced(self, shard: Shard, name: str, wish: Wish, result: list[Any] | None) -> None:
        """Take what a glance has found, but for what must go back."""
        found = [held_of(*entry) for entry in result or ()]
        good, late = self._flying.end_wish((shard.index, name), wish, found)
        if late:
            self._return(shard, late)
        if good:
            self._take(shard, name, good)

    # Coming back

    def restore(self, shard: Shard) -> None:
        """Make wishes known again to a shard that has lost them."""
        self._flying.forget(shard.index)
        self._spares.forget(shard.index)
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


def _names_of(channel: str) -> Iterable[str]:
    """Return the names under which receivers may wait for messages of a channel."""
    family = non_local_part(channel)
    return (channel,) if family is None else (channel, family)
