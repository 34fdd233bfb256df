"""The queues of one segment: messages of the channels that no client owns.

Laws:

- The caller holds the segment's lock during every call, and tells the time: seconds of a clock
  that all processes of the machine share. Nothing here waits, reads a clock or wakes.
- The caller may be killed at any instruction. Who changes a link sets the dirty mark before and
  clears it after; who finds it set repairs first. A message becomes reachable, and stops to be,
  by one store.
- Nothing read from the segment is trusted: every call raises `CorruptSegment` where it finds
  what nobody has written, and ends.
- A message that has expired never counts, and is never returned.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

from .._core.statistics import Dropped, Statistics, Tally, statistics_of
from ..errors import ChannelFull
from ._accounts import Accounts
from ._blocks import Blocks
from ._entries import Entries, family_name
from ._letters import Letter, Letters
from ._queue_layout import (
    ACCEPTED_LONG,
    BLOCK_SHIFT,
    BUCKETS,
    COUNT_WORD,
    DIRTY_WORD,
    EARLIEST_LONG,
    ENTRY,
    FAMILY,
    FIRST_BLOCK,
    FREE,
    FREE_WORD,
    HEAD_WORD,
    LONG_MASK,
    LONG_SHIFT,
    MEMBER,
    MESSAGE,
    NEXT_WORD,
    NOBODY,
    NODE,
    NODE_ROOM,
    QUEUE,
    SLOTS,
    SWEEP_WORD,
    TAIL_WORD,
    TURN_WORD,
    TURNS_LONG,
    WAITERS_LONG,
    WORD_SHIFT,
    blocks_for,
)

NOBODY_WAITS: Final = -1
_IDLE_S: Final = 300.0  # an entry without messages, waiters and sends is then forgotten


class QueueSegment:
    """Messages, waiting clients and counters of many channels, in shared memory.

    Args:
        view: The segment, writable bytes; only what is allocated is touched.
        grow: Allocates that many bytes of it in all; raises `OSError` where there are no more.

    Raises:
        CorruptSegment: `view` holds no segment, or a damaged one.
        IncompatibleSegment: another version of this package has made it.
    """

    def __init__(self, view: memoryview, grow: Callable[[int], None]) -> None:
        self._blocks = Blocks(view, grow)
        self._entries = Entries(self._blocks)
        self._accounts = Accounts(self._blocks)
        self._letters = Letters(self._blocks, self._entries, self._accounts)
        # The same objects once more: push() and take() have no time to look for them.
        self._view = self._blocks.view
        self._words = self._blocks.words
        self._longs = self._blocks.longs
        self._floats = self._blocks.floats
        self._places = self._entries.places

    @classmethod
    def format(cls, view: memoryview, size_bytes: int, grow: Callable[[int], None]) -> None:
        """Write an empty segment of at most `size_bytes` over whatever `view` holds."""
        Blocks.format(view, size_bytes, grow)

    @property
    def released(self) -> list[bytes]:
        """Payloads of messages with a kind other than 0 that this object has dropped unread.

        The caller deletes what they name, and clears the list.
        """
        return self._letters.released

    # Messages ------------------------------------------------------------------------------

    def push(
        self,
        channel: str,
        payload: bytes,
        *,
        expires_at: float,
        now: float,
        capacity: int,
        kind: int = 0,
    ) -> int:
        """Queue a message; return the slot of the client to wake, or -1.

        Raises:
            ChannelFull: `channel` holds `capacity` messages, or the segment is full.
            OSError: the machine has no more shared memory.
        """
        # What is written out here is _put() for the most frequent case: a channel that is known,
        # has room and no "!", a payload of one block, in a second that has begun already.
        words = self._words
        if words[DIRTY_WORD]:
            self._entries.repair()
        place = self._places.get(channel)
        size_bytes = len(payload)
        if place is not None and size_bytes <= NODE_ROOM:
            at, w, q, name, _ = place
            tag, head, tail, count, _, earliest, accepted, turns_at, waiters, found = (
                ENTRY.unpack_from(self._view, at)
            )
            longs, floats, bound = self._longs, self._floats, self._blocks.bound
            block = words[FREE_WORD]
            link = tail << WORD_SHIFT if head else 0
            if (
                tag == QUEUE
                and found == name
                and count < capacity
                and count < bound
                and now < turns_at
                and now < floats[TURNS_LONG]
                and FIRST_BLOCK <= block < bound
                and 0 <= (rest := longs[block << LONG_SHIFT] - FREE) < bound
                and (not head or (FIRST_BLOCK <= tail < bound and words[link] == MESSAGE))
            ):
                sequence = longs[ACCEPTED_LONG]
                words[DIRTY_WORD] = 1
                words[FREE_WORD] = rest
                NODE.pack_into(
                    self._view, block << BLOCK_SHIFT, MESSAGE, 0, 0, size_bytes, kind, sequence,
                    expires_at, now, payload,
                )  # fmt: skip
                words[link + NEXT_WORD if head else w + HEAD_WORD] = block
                words[w + TAIL_WORD] = block
                words[w + COUNT_WORD] = count + 1
                if not head or expires_at < earliest:
                    floats[q + EARLIEST_LONG] = expires_at
                longs[q + ACCEPTED_LONG] = (accepted + 1) & LONG_MASK
                longs[ACCEPTED_LONG] = (sequence + 1) & LONG_MASK
                words[DIRTY_WORD] = 0
                if waiters == NOBODY:
                    return NOBODY_WAITS
                return self._next_waiter(at >> BLOCK_SHIFT, 0)
        slot = self._put(channel, payload, expires_at, now, capacity, kind)
        if slot is None:
            self._accounts.refuse(self._entries.find(channel), now)
            raise ChannelFull(channel, capacity)
        return slot

    def push_copy(
        self,
        channel: str,
        payload: bytes,
        *,
        expires_at: float,
        now: float,
        capacity: int,
        kind: int = 0,
    ) -> int | None:
        """Like `push`, for a group's copy: None where there is no room, which is counted."""
        self._begin()
        slot = self._put(channel, payload, expires_at, now, capacity, kind)
        if slot is None:
            self._accounts.drop(self._entries.find(channel), Dropped.FULL)
        return slot

    def miss(self, channel: str) -> None:
        """Count a group's copy that could not be put."""
        self._begin()
        self._accounts.drop(self._entries.find(channel), Dropped.FULL)

    def push_front(self, channel: str, letters: Sequence[Letter], now: float) -> int:
        """Put messages that were taken to the front again, the oldest first; return whom to wake.

        All of them or, where an error is raised, none. They have been accepted before: there
        is no capacity, and they are not counted again.

        Raises:
            ChannelFull: the segment is full.
            OSError: the machine has no more shared memory.
        """
        self._begin()
        live = [letter for letter in letters if letter[1] > now]
        needed = sum(blocks_for(len(payload)) for payload, _, _ in live)
        place = self._letters.place(channel, self._entries.find(channel), needed, now)
        if place is None:
            raise ChannelFull(channel, len(letters))
        for payload, expires_at, kind in letters:
            if not expires_at > now:
                self._accounts.drop(place.entry, Dropped.EXPIRED)
                if kind:
                    self.released.append(payload)
        if live:
            self._letters.put_front(place, live, now)
        return self._wake(place.entry, place.family)

    def take(self, channel: str, now: float) -> tuple[str, bytes, float, int] | None:
        """Remove the oldest message; return its channel, payload, expires_at and kind, or None.

        Of a non-local part ("prefix.client!") it is the oldest message of all its channels.
        """
        # What is written out here is Letters.take() for the most frequent case, as in push().
        words = self._words
        if words[DIRTY_WORD]:
            self._entries.repair()
        place = self._places.get(channel)
        if place is None:
            return self._take(channel, now)
        at, w, _, name, _ = place
        tag, head, _, count, _, _, _, _, _, found = ENTRY.unpack_from(self._view, at)
        if tag != QUEUE or found != name:
            return self._take(channel, now)
        if not head:
            return None
        bound = self._blocks.bound
        if not (FIRST_BLOCK <= head < bound and count):
            return self._take(channel, now)
        tag, following, more, size_bytes, kind, _, expires_at, _, payload = NODE.unpack_from(
            self._view, head << BLOCK_SHIFT
        )
        if (
            tag != MESSAGE
            or more
            or size_bytes > NODE_ROOM
            or not expires_at > now
            or (following and not FIRST_BLOCK <= following < bound)
        ):
            return self._take(channel, now)
        words[DIRTY_WORD] = 1
        words[w + HEAD_WORD] = following
        words[w + COUNT_WORD] = count - 1
        self._longs[head << LONG_SHIFT] = FREE | words[FREE_WORD]
        words[FREE_WORD] = head
        words[DIRTY_WORD] = 0
        return channel, payload[:size_bytes], expires_at, kind

    def clear(self) -> None:
        """Drop all messages of all channels; counters and waiting clients stay."""
        self._begin()
        self._letters.clear()

    def is_empty(self, now: float) -> bool:
        """Return whether no channel holds an unexpired message."""
        self._begin()
        return not any(self._letters.pending(entry, now) for entry in self._entries.all())

    # Waiting clients -----------------------------------------------------------------------

    def wait(self, channel: str, slot: int) -> bool:
        """Note that client `slot` waits for messages; False where there is no memory for it."""
        self._begin()
        bit = _bit(slot)
        entry = self._entries.find(channel)
        if not entry:
            try:
                blocks = self._letters.reserve(1, None, ())
            except OSError:
                return False
            if not blocks:
                return False
            entry = self._entries.create(channel, blocks[0])
        self._longs[(entry << LONG_SHIFT) + WAITERS_LONG + (slot >> 6)] |= bit
        return True

    def unwait(self, channel: str, slot: int) -> int:
        """Note that it waits no longer; return who should be woken in its place, or -1."""
        self._begin()
        bit = _bit(slot)
        entry = self._entries.find(channel)
        if not entry:
            return NOBODY_WAITS
        self._longs[(entry << LONG_SHIFT) + WAITERS_LONG + (slot >> 6)] &= ~bit
        return self.waiter(channel)

    def waiter(self, channel: str) -> int:
        """Return the client to wake next if there are messages for it, else -1."""
        self._begin()
        entry = self._entries.find(channel)
        if not entry:
            return NOBODY_WAITS
        family = 0
        if self._words[entry << WORD_SHIFT] == MEMBER:
            family = self._entries.find(family_name(channel))
        return self._wake(entry, family)

    def forget_client(self, slot: int) -> set[int]:
        """Note that it waits nowhere; return the clients that should be woken in its place."""
        self._begin()
        bit = _bit(slot)
        instead = set()
        for entry in self._entries.all():
            index = (entry << LONG_SHIFT) + WAITERS_LONG + (slot >> 6)
            if self._longs[index] & bit:
                self._longs[index] &= ~bit
                instead.add(self._wake(entry, 0))
        return instead - {NOBODY_WAITS}

    # Keeping house -------------------------------------------------------------------------

    def drop_expired(self, now: float, most: int = 64) -> None:
        """Drop expired messages and forget idle channels, some `most` of both in one call."""
        self._begin()
        for _ in range(BUCKETS):
            number = self._words[SWEEP_WORD] % BUCKETS
            is_done = True
            for entry in self._entries.of_bucket(number):
                most -= 1 + self._letters.drop_anywhere(entry, now, max(most, 1))
                is_done = is_done and self._letters.is_sound(entry, now)
                if (
                    self._letters.is_unused(entry)
                    and not self._accounts.used_at(entry) > now - _IDLE_S
                ):
                    self._entries.remove(entry)
            if is_done:
                self._words[SWEEP_WORD] = (number + 1) % BUCKETS
            if most <= 0 or not is_done:
                return

    def statistics(self, now: float) -> Statistics:
        """Return the numbers of all channels together, of those that are forgotten too."""
        self._begin()
        entries = self._entries.all()
        pending = sum(self._letters.pending(entry, now) for entry in entries)
        oldest = max((self._letters.age(entry, now) for entry in entries), default=0.0)
        return self._accounts.statistics(0, pending, oldest, now)

    def statistics_of(self, channel: str, now: float) -> Statistics:
        """Return the numbers of one channel."""
        self._begin()
        entry = self._entries.find(channel)
        if not entry:
            return statistics_of(Tally(), Tally(), Counter(), pending=0, max_age=0.0, now=now)
        pending = self._letters.pending(entry, now)
        return self._accounts.statistics(entry, pending, self._letters.age(entry, now), now)

    def channels(self, now: float) -> dict[str, Statistics]:
        """Return the numbers of every channel that is not forgotten."""
        self._begin()
        return {
            self._entries.name_of(entry): self._accounts.statistics(
                entry, self._letters.pending(entry, now), self._letters.age(entry, now), now
            )
            for entry in self._entries.all()
            if self._words[entry << WORD_SHIFT] != FAMILY
        }

    # How it is done ------------------------------------------------------------------------

    def _begin(self) -> None:
        if self._words[DIRTY_WORD]:
            self._entries.repair()

    def _put(
        self,
        channel: str,
        payload: bytes,
        expires_at: float,
        now: float,
        capacity: int,
        kind: int,
    ) -> int | None:
        entry = self._entries.find(channel)
        if entry and not self._letters.has_room(entry, now, capacity):
            return None
        place = self._letters.place(channel, entry, blocks_for(len(payload)), now)
        if place is None:
            return None
        self._letters.put(place, payload, expires_at, kind, now)
        return self._next_waiter(place.entry, place.family)

    def _take(self, channel: str, now: float) -> tuple[str, bytes, float, int] | None:
        entry = self._entries.find(channel)
        taken = self._letters.take(entry, now) if entry else None
        if taken is None:
            return None
        origin, message = taken
        return origin or channel, message.payload, message.expires_at, message.kind

    def _wake(self, entry: int, family: int) -> int:
        if not self._words[(entry << WORD_SHIFT) + HEAD_WORD]:
            return NOBODY_WAITS
        return self._next_waiter(entry, family)

    def _next_waiter(self, entry: int, family: int) -> int:
        """Return the next client in turn that waits for the channel or its family.

        It does not wait any more then: woken once, it takes what it wants and waits again.
        """
        bits = self._entries.waiters_of(entry)
        if family:
            bits |= self._entries.waiters_of(family)
        if not bits:
            return NOBODY_WAITS
        turn = ((family or entry) << WORD_SHIFT) + TURN_WORD
        first = (self._words[turn] + 1) % SLOTS
        later = bits >> first
        slot = first + _lowest(later) if later else _lowest(bits)
        self._words[turn] = slot
        bit = _bit(slot)
        for waited in (entry, family) if family else (entry,):
            self._longs[(waited << LONG_SHIFT) + WAITERS_LONG + (slot >> 6)] &= ~bit
        return slot


def _bit(slot: int) -> int:
    if not 0 <= slot < SLOTS:
        raise ValueError(f"a slot is a number from 0 to {SLOTS - 1}, not {slot}")
    return 1 << (slot & 63)


def _lowest(bits: int) -> int:
    return (bits & -bits).bit_length() - 1
