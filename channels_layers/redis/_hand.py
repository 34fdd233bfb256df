"""Messages that a shard has given to a client, and those that are on their way there or back.

A shard gives messages in the order in which they were sent: in answers, and by a stream that
another connection reads. What a receiver did not take goes back to its place. Then whatever is
newer and was given before must go back as well, or a receiver that comes meanwhile gets it early.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, TypeVar

if TYPE_CHECKING:
    from ._command import Command

T = TypeVar("T")

#: A shard, and the name under which receivers wait there: a channel or "prefix.client!".
Place: TypeAlias = tuple[int, str]


class Held(NamedTuple):
    """A message in hand.

    Attributes:
        order: Where it stood in its channel: less than all that were sent later.
    """

    id: bytes
    channel: str
    expires_ms: int
    order: int
    payload: bytes
    generation: str


def held_of(entry_id: bytes, label: bytes, payload: bytes) -> Held:
    """Return a message as a shard tells it."""
    channel, expires_ms, order, generation = label.decode().split(" ", 3)
    return Held(entry_id, channel, int(expires_ms), int(order), payload, generation)


class Origin(NamedTuple):
    """Where a message that was handed over has come from."""

    shard: int
    generation: str
    order: int


class Wish:
    """Messages that were asked for, without an answer yet."""

    def __init__(self, command: Command, *, is_glance: bool) -> None:
        self.command = command
        self.is_glance = is_glance  # nothing is in the stream that is older than its answer
        self.newest: float = float("inf")  # what is newer goes back


class Confirming:
    """Messages that receivers get when they are confirmed."""

    def __init__(self, held: list[Held]) -> None:
        self.held = held
        self.command: Command | None = None  # which confirms them
        self.is_full = False  # what comes now is for another command
        self.void: set[bytes] = set()  # ids of those that are to go back instead


class Returning:
    """Messages that go back; the oldest is of this order."""

    def __init__(self, order: int) -> None:
        self.order = order
        self.last = b""  # the newest entry in the stream when they came back

    def makes_late(self, held: Held) -> bool:
        """Say whether a message of the stream was given before they came back, and is newer."""
        return held.order > self.order and _numbers(held.id) <= _numbers(self.last)


class InFlight:
    """All of that of one client."""

    def __init__(self) -> None:
        self._wishes: dict[Place, list[Wish]] = {}
        self._early: dict[Place, list[Held]] = {}  # came by the stream, and older may come yet
        self._confirming: dict[Place, list[Confirming]] = {}
        self._returning: dict[Place, list[Returning]] = {}
        self._returned: dict[Place, list[Returning]] = {}  # and not all of the stream was read
        self._coming: dict[str, int] = {}  # name -> messages that are confirmed for receivers

    def coming(self, name: str) -> int:
        """Return how many messages are confirmed for receivers now."""
        return self._coming.get(name, 0)

    # Asked for

    def begin_wish(self, place: Place, command: Command, *, is_glance: bool = False) -> Wish:
        """Note what was asked for."""
        wish = Wish(command, is_glance=is_glance)
        self._wishes.setdefault(place, []).append(wish)
        return wish

    def change_wish(self, place: Place, change: int) -> bool:
        """Change how many are asked for, if that was not sent yet; an outage piles nothing up."""
        for wish in self._wishes.get(place, ()):
            if not wish.is_glance and not wish.command.is_sent:
                name, many = wish.command.words
                wish.command.words = (name, many + change)
                return True
        return False

    def end_wish(
        self, place: Place, wish: Wish, found: list[Held]
    ) -> tuple[list[Held], list[Held]]:
        """Return of what was found what receivers may have, and what must go back."""
        _remove(self._wishes, place, wish)
        return _split(found, wish.newest)

    # Come by the stream

    def hold(self, place: Place, found: list[Held]) -> list[Held]:
        """Keep what came by the stream until it is known what comes before it; see `release`.

        Returns:
            What must go back.
        """
        returned = self._returned.pop(place, [])
        late = [held for held in found if any(one.makes_late(held) for one in returned)]
        self._early.setdefault(place, []).extend(held for held in found if held not in late)
        unread = [one for one in returned if _numbers(one.last) > _numbers(found[-1].id)]
        if unread:
            self._returned[place] = unread
        return late

    def release(self, place: Place) -> list[Held]:
        """Return what was held back, if nothing can come any more that is older."""
        is_older_coming = place in self._returning or any(
            wish.command.is_sent and not wish.is_glance for wish in self._wishes.get(place, ())
        )
        return [] if is_older_coming else self._early.pop(place, [])

    # Being confirmed

    def begin_confirming(self, place: Place, held: list[Held]) -> Confirming:
        """Note what is being confirmed."""
        confirming = Confirming(held)
        self._confirming.setdefault(place, []).append(confirming)
        self._count(place[1], len(held))
        return confirming

    def confirm_more(self, place: Place, held: list[Held]) -> bool:
        """Let more be confirmed with what was not sent yet, unless something goes back after it."""
        for confirming in self._confirming.get(place, ())[-1:]:
            command = confirming.command
            if command is not None and not (command.is_sent or confirming.is_full):
                confirming.held += held
                command.words += tuple(one.id for one in held)
                self._count(place[1], len(held))
                return True
        return False

    def void_all(self) -> None:
        """Let no receiver have what is being confirmed now."""
        for place, confirmings in self._confirming.items():
            for confirming in confirmings:
                self._void(place, confirming, confirming.held)

    def _void(self, place: Place, confirming: Confirming, held: list[Held]) -> None:
        ids = {one.id for one in held}
        self._count(place[1], -len(ids - confirming.void))
        confirming.void |= ids
        confirming.is_full = True

    def end_confirming(self, place: Place, confirming: Confirming) -> None:
        """Note that it is."""
        _remove(self._confirming, place, confirming)
        self._count(place[1], len(confirming.void) - len(confirming.held))

    # Going back

    def begin_returning(self, place: Place, order: int) -> tuple[Returning, list[Held]]:
        """Note that messages go back; return what must go after them, in the order of arrival."""
        returning = Returning(order)
        self._returning.setdefault(place, []).append(returning)
        for wish in self._wishes.get(place, ()):
            wish.newest = min(wish.newest, order)
        for confirming in self._confirming.get(place, ()):
            newer = [held for held in confirming.held if held.order > order]
            self._void(place, confirming, newer)
        return returning, self._take_early(place, lambda held: held.order > order)

    def end_returning(
        self, place: Place, returning: Returning, last: bytes, read: str
    ) -> list[Held]:
        """Note that they are back; return what was given before, and must go after them.

        Args:
            place: Of them.
            returning: What `begin_returning` has returned.
            last: The newest entry that the stream had then, or b"".
            read: The one up to which it was read.
        """
        _remove(self._returning, place, returning)
        returning.last = last
        if _numbers(last) > _numbers(read.encode()):
            self._returned.setdefault(place, []).append(returning)
        return self._take_early(place, returning.makes_late)

    def _take_early(self, place: Place, must_go: Callable[[Held], bool]) -> list[Held]:
        early = self._early.pop(place, [])
        taken = [held for held in early if must_go(held)]
        if len(taken) < len(early):
            self._early[place] = [held for held in early if held not in taken]
        return taken

    def forget(self, shard: int) -> None:
        """Begin anew with a shard that has lost what it had given."""
        for lists in (self._early, self._returned):
            for place in [place for place in lists if place[0] == shard]:
                del lists[place]

    def _count(self, name: str, change: int) -> None:
        count = self._coming.get(name, 0) + change
        if count:
            self._coming[name] = count
        else:
            self._coming.pop(name, None)


def _remove(lists: dict[Place, list[T]], place: Place, item: T) -> None:
    lists[place].remove(item)
    if not lists[place]:
        del lists[place]


def _split(found: list[Held], newest: float) -> tuple[list[Held], list[Held]]:
    return (
        [held for held in found if held.order <= newest],
        [held for held in found if held.order > newest],
    )


def _numbers(entry_id: bytes) -> tuple[int, ...]:
    return tuple(map(int, entry_id.split(b"-"))) if entry_id else ()
