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
from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeAlias

from .._core.statistics import Dropped, Statistics, Tally, statistics_of
from ..errors import ChannelFull
from ._blocks import Blocks, Message
from ._entries import Entries, family_name, tag_of
from ._queue_layout import (
    ACCEPTED,
    ACCEPTED_LONG,
    BLOCK_SHIFT,
    BUCKETS,
    COUNT_WORD,
    DIRTY_WORD,
    EARLIEST_LONG,
    ENTRY,
    EXPIRED_LONG,
    FAMILY,
    FIRST_BLOCK,
    FREE,
    FREE_WORD,
    FULL_LONG,
    HANDED_BACK_LONG,
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
    REFUSED,
    SEARCHED_LONG,
    SENT_LONG,
    SLOTS,
    SWEEP_WORD,
    TAIL_WORD,
    TURN_WORD,
    TURNS_LONG,
    WAITERS_LONG,
    WORD_SHIFT,
    CorruptSegment,
    blocks_for,
)

# (payload, expires_at in seconds on the machine's clock, kind)
Letter: TypeAlias = tuple[bytes, float, int]

NOBODY_WAITS: Final = -1
_IDLE_S: Final = 300.0  # an entry without messages, waiters and sends is then forgotten
_SEARCH_PAUSE_S: Final = 0.05  # a full segment is searched for memory this often, 1 ms each
_RECLAIMED: Final = 64  # entries at least that one such search gives back
_ALL: Final = 1 << 32  # more than a segment has blocks


class QueueSegment:
    """Messages, waiting clients and counters of many channels, in shared memory.

    Args:
        view: The segment, writable bytes; only what is allocated is touched.
        grow: Allocates that many bytes of it in all; raises `OSError` where there are no more.

    Attributes:
        released: Payloads of messages with a kind other than 0 that were dropped unread. The
            caller deletes what they name, and empties the list.

    Raises:
        CorruptSegment: `view` holds no segment, or a damaged one.
        IncompatibleSegment: another version of this package has made it.
    """

    def __init__(self, view: memoryview, grow: Callable[[int], None]) -> None:
        self.released: list[bytes] = []
        self._blocks = Blocks(view, grow)
        self._entries = Entries(self._blocks)
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
            at, w, q, name = place
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
            self._refuse(channel, now)
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
            self._count(self._entries.find(channel), FULL_LONG)
        return slot

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
        entry, family, blocks = self._place(channel, needed, now)
        if not entry:
            raise ChannelFull(channel, len(letters))
        for payload, expires_at, kind in letters:
            if not expires_at > now:
                self._release(kind, payload)
                self._count(entry, EXPIRED_LONG)
        if live:
            self._put_front(entry, family, live, blocks, now)
        return self._wake(entry, family)

    def take(self, channel: str, now: float) -> tuple[str, bytes, float, int] | None:
        """Remove the oldest message; return its channel, payload, expires_at and kind, or None.

        Of a non-local part ("prefix.client!") it is the oldest message of all its channels.
        """
        # What is written out here is _take_from() for the most frequent case, as in push().
        words = self._words
        if words[DIRTY_WORD]:
            self._entries.repair()
        place = self._places.get(channel)
        if place is not None:
            at, w, _, name = place
            entry = ENTRY.unpack_from(self._view, at)
            if entry[0] == QUEUE and entry[9] == name:
                head, count, bound = entry[1], entry[3], self._blocks.bound
                if not head:
                    return None
                if FIRST_BLOCK <= head < bound and count:
                    tag, following, more, size_bytes, kind, _, expires_at, _, payload = (
                        NODE.unpack_from(self._view, head << BLOCK_SHIFT)
                    )
                    if (
                        tag == MESSAGE
                        and not more
                        and size_bytes <= NODE_ROOM
                        and expires_at > now
                        and (not following or FIRST_BLOCK <= following < bound)
                    ):
                        words[DIRTY_WORD] = 1
                        words[w + HEAD_WORD] = following
                        words[w + COUNT_WORD] = count - 1
                        self._longs[head << LONG_SHIFT] = FREE | words[FREE_WORD]
                        words[FREE_WORD] = head
                        words[DIRTY_WORD] = 0
                        return channel, payload[:size_bytes], expires_at, kind
        found = self._entries.find(channel)
        if not found:
            return None
        if words[found << WORD_SHIFT] == FAMILY:
            return self._take_from_family(found, now)
        message = self._drop_front(found, now)
        return None if message is None else self._take_from(found, channel, message)

    def clear(self) -> None:
        """Drop all messages of all channels; counters and waiting clients stay."""
        self._begin()
        entries = [
            entry for entry in self._entries.all() if self._words[entry << WORD_SHIFT] != FAMILY
        ]
        for entry in entries:
            for message in self._messages(entry):
                if message.kind:
                    self._release(message.kind, self._blocks.payload_of(message))
        self._words[DIRTY_WORD] = 1
        for entry in entries:
            self._words[(entry << WORD_SHIFT) + HEAD_WORD] = 0
        self._entries.repair()

    def is_empty(self, now: float) -> bool:
        """Return whether no channel holds an unexpired message."""
        self._begin()
        return not any(self._pending(entry, now) for entry in self._entries.all())

    # Waiting clients -----------------------------------------------------------------------

    def wait(self, channel: str, slot: int) -> bool:
        """Note that client `slot` waits for messages; False where there is no memory for it."""
        self._begin()
        bit = _bit(slot)
        entry = self._entries.find(channel)
        if not entry:
            try:
                blocks = self._reserve(1, None, ())
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
                most -= 1 + self._drop_anywhere(entry, now, max(most, 1))
                is_done = is_done and self._is_sound(entry, now)
                if self._is_unused(entry) and not self._used_at(entry) > now - _IDLE_S:
                    self._entries.remove(entry)
            if is_done:
                self._words[SWEEP_WORD] = (number + 1) % BUCKETS
            if most <= 0 or not is_done:
                return

    def statistics(self, now: float) -> Statistics:
        """Return the numbers of all channels together, of those that are forgotten too."""
        self._begin()
        entries = self._entries.all()
        pending = sum(self._pending(entry, now) for entry in entries)
        oldest = max((self._age(entry, now) for entry in entries), default=0.0)
        return self._statistics(0, pending, oldest, now)

    def statistics_of(self, channel: str, now: float) -> Statistics:
        """Return the numbers of one channel."""
        self._begin()
        entry = self._entries.find(channel)
        if not entry:
            return statistics_of(Tally(), Tally(), Counter(), pending=0, max_age=0.0, now=now)
        pending = self._pending(entry, now)
        return self._statistics(entry, pending, self._age(entry, now), now)

    def channels(self, now: float) -> dict[str, Statistics]:
        """Return the numbers of every channel that is not forgotten."""
        self._begin()
        return {
            self._entries.name_of(entry): self._statistics(
                entry, self._pending(entry, now), self._age(entry, now), now
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
        if entry and not self._has_room(entry, now, capacity):
            return None
        entry, family, blocks = self._place(channel, blocks_for(len(payload)), now)
        if not entry:
            return None
        words, longs, floats = self._words, self._longs, self._floats
        w, q = entry << WORD_SHIFT, entry << LONG_SHIFT
        self._turn(entry, ACCEPTED, now)
        head, sequence = words[w + HEAD_WORD], longs[ACCEPTED_LONG]
        count = self._count_of(entry)
        link = w + HEAD_WORD
        if head:
            link = (self._message(words[w + TAIL_WORD]) << WORD_SHIFT) + NEXT_WORD
        words[DIRTY_WORD] = 1
        self._blocks.claim(blocks)
        self._blocks.write(
            blocks,
            payload,
            following=0,
            kind=kind,
            sequence=sequence,
            expires_at=expires_at,
            sent_at=now,
        )
        words[link] = blocks[0]
        words[w + TAIL_WORD] = blocks[0]
        words[w + COUNT_WORD] = count + 1
        if not head or expires_at < floats[q + EARLIEST_LONG]:
            floats[q + EARLIEST_LONG] = expires_at
        longs[q + ACCEPTED_LONG] = (longs[q + ACCEPTED_LONG] + 1) & LONG_MASK
        longs[ACCEPTED_LONG] = (sequence + 1) & LONG_MASK
        if family and not head:
            self._entries.join(family, entry, words[(family << WORD_SHIFT) + TAIL_WORD])
        words[DIRTY_WORD] = 0
        return self._next_waiter(entry, family)

    def _put_front(
        self, entry: int, family: int, letters: Sequence[Letter], blocks: list[int], now: float
    ) -> None:
        words, longs, floats = self._words, self._longs, self._floats
        w, q = entry << WORD_SHIFT, entry << LONG_SHIFT
        head, handed_back = words[w + HEAD_WORD], longs[HANDED_BACK_LONG]
        count = self._count_of(entry)
        # They are older than what stands behind them, how much is not known any more.
        sent_at = min(now, floats[(self._message(head) << LONG_SHIFT) + SENT_LONG]) if head else now
        words[DIRTY_WORD] = 1
        self._blocks.claim(blocks)
        following, tail, earliest = head, words[w + TAIL_WORD], float("inf")
        if head:
            earliest = floats[q + EARLIEST_LONG]
        for payload, expires_at, kind in reversed(letters):
            parts = blocks[-blocks_for(len(payload)) :]
            del blocks[-len(parts) :]
            self._blocks.write(
                parts,
                payload,
                following=following,
                kind=kind,
                sequence=(LONG_MASK - handed_back) & LONG_MASK,
                expires_at=expires_at,
                sent_at=sent_at,
            )
            following, earliest = parts[0], min(earliest, expires_at)
            tail = tail if head or handed_back != longs[HANDED_BACK_LONG] else parts[0]
            handed_back += 1
        if family and head:
            self._entries.leave(family, entry)
        longs[HANDED_BACK_LONG] = handed_back & LONG_MASK
        words[w + HEAD_WORD] = following
        words[w + TAIL_WORD] = tail
        words[w + COUNT_WORD] = count + len(letters)
        floats[q + EARLIEST_LONG] = earliest
        if family:
            self._entries.join(family, entry, 0)
        words[DIRTY_WORD] = 0

    def _place(self, channel: str, needed: int, now: float) -> tuple[int, int, list[int]]:
        """Return the entry, the family's, and `needed` free blocks; no entry if out of memory."""
        tag = tag_of(channel)
        if tag == FAMILY:
            raise ValueError(f"{channel!r} is a non-local part, nothing can be sent to it")
        entry = self._entries.find(channel)
        whole = family_name(channel) if tag == MEMBER else ""
        family = self._entries.find(whole) if whole else 0
        missing = [name for name, at in ((whole, family), (channel, entry)) if name and not at]
        total = len(missing) + needed
        blocks = self._reserve(total, now, (entry, family))
        if len(blocks) < total:
            return 0, 0, []
        created = {name: self._entries.create(name, blocks.pop(0)) for name in missing}
        return created.get(channel, entry), created.get(whole, family), blocks

    def _reserve(self, count: int, now: float | None, keep: Iterable[int]) -> list[int]:
        """Return `count` free blocks, or fewer."""
        problem: OSError | None = None
        blocks: list[int] = []
        try:
            blocks = self._blocks.reserve(count)
        except OSError as exc:
            problem = exc
        if len(blocks) < count:
            self._reclaim(count, now, keep)
            blocks = self._blocks.free_blocks(count)
        if problem is not None and len(blocks) < count:
            raise problem
        return blocks

    def _reclaim(self, count: int, now: float | None, keep: Iterable[int]) -> None:
        """Free what has expired, and the entries of channels that were not used for longest."""
        if now is not None:
            if 0 <= now - self._floats[SEARCHED_LONG] < _SEARCH_PAUSE_S:
                return
            self._floats[SEARCHED_LONG] = now
        unused = []
        for entry in self._entries.all():
            if now is not None:
                self._drop_anywhere(entry, now, _ALL)
            if entry not in keep and self._is_unused(entry):
                unused.append((self._used_at(entry), entry))
        for _, entry in sorted(unused)[: max(count, _RECLAIMED)]:
            if self._is_unused(entry):
                self._entries.remove(entry)

    def _has_room(self, entry: int, now: float, capacity: int) -> bool:
        index = (entry << WORD_SHIFT) + COUNT_WORD
        if self._words[index] >= capacity:
            # Most messages of a channel expire in the order in which they stand.
            self._drop_front(entry, now)
            if self._words[index] >= capacity:
                self._drop_anywhere(entry, now, _ALL)
        return self._words[index] < capacity

    def _drop_front(self, entry: int, now: float) -> Message | None:
        """Drop expired messages up to the first that has not; return that."""
        head = self._words[(entry << WORD_SHIFT) + HEAD_WORD]
        for _ in range(self._blocks.bound):
            if not head:
                return None
            message = self._blocks.read(head)
            if message.expires_at > now:
                return message
            self._drop(entry, 0, message)
            head = message.following
        raise CorruptSegment("endless queue")

    def _drop_anywhere(self, entry: int, now: float, most: int) -> int:
        """Drop expired messages wherever they stand, not more than `most`; return how many."""
        if self._words[entry << WORD_SHIFT] == FAMILY or self._is_sound(entry, now):
            return 0
        before, dropped, kept, earliest = 0, 0, 0, float("inf")
        for message in self._messages(entry):
            if message.expires_at > now:
                before = message.blocks[0]
                kept += 1
                earliest = min(earliest, message.expires_at)
            elif dropped == most:
                return dropped
            else:
                self._drop(entry, before, message)
                dropped += 1
        self._floats[(entry << LONG_SHIFT) + EARLIEST_LONG] = earliest
        return dropped

    def _is_sound(self, entry: int, now: float) -> bool:
        """Return whether no message of `entry` can have expired."""
        if not self._words[(entry << WORD_SHIFT) + HEAD_WORD]:
            return True
        return self._floats[(entry << LONG_SHIFT) + EARLIEST_LONG] > now

    def _drop(self, entry: int, before: int, message: Message) -> None:
        """Drop a message that has expired, and stands behind `before`."""
        if message.kind:
            self._release(message.kind, self._blocks.payload_of(message))
        self._remove(entry, before, message)
        self._count(entry, EXPIRED_LONG)

    def _remove(self, entry: int, before: int, message: Message) -> None:
        words = self._words
        w = entry << WORD_SHIFT
        is_member = words[w] == MEMBER and not before
        family = self._entries.find(family_name(self._entries.name_of(entry))) if is_member else 0
        count = words[w + COUNT_WORD]
        if not count or (is_member and not family):
            raise CorruptSegment("a message that is not counted, or has no family")
        words[DIRTY_WORD] = 1
        words[(before << WORD_SHIFT) + NEXT_WORD if before else w + HEAD_WORD] = message.following
        if not message.following:
            words[w + TAIL_WORD] = before
        words[w + COUNT_WORD] = count - 1
        self._blocks.free(message.blocks)
        if family:
            self._entries.settle(family, entry)
        words[DIRTY_WORD] = 0

    def _take_from(
        self, entry: int, channel: str, message: Message
    ) -> tuple[str, bytes, float, int]:
        payload = self._blocks.payload_of(message)
        self._remove(entry, 0, message)
        return channel, payload, message.expires_at, message.kind

    def _take_from_family(self, family: int, now: float) -> tuple[str, bytes, float, int] | None:
        first = (family << WORD_SHIFT) + HEAD_WORD
        for _ in range(self._blocks.bound):
            member = self._words[first]
            if not member:
                return None
            if self._words[self._blocks.check(member) << WORD_SHIFT] != MEMBER:
                raise CorruptSegment("a stranger in a family")
            message = self._drop_front(member, now)
            if message is not None and self._words[first] == member:
                return self._take_from(member, self._entries.name_of(member), message)
        raise CorruptSegment("endless family")

    def _messages(self, entry: int) -> Iterable[Message]:
        block = self._words[(entry << WORD_SHIFT) + HEAD_WORD]
        for _ in range(self._blocks.bound):
            if not block:
                return
            message = self._blocks.read(block)
            yield message
            block = message.following
        raise CorruptSegment("endless queue")

    def _count_of(self, entry: int) -> int:
        count = self._words[(entry << WORD_SHIFT) + COUNT_WORD]
        if count > self._blocks.bound:
            raise CorruptSegment("more messages than blocks")
        return count

    def _message(self, block: int) -> int:
        if self._words[self._blocks.check(block) << WORD_SHIFT] != MESSAGE:
            raise CorruptSegment("no message where one should be")
        return block

    def _wake(self, entry: int, family: int) -> int:
        if not self._words[(entry << WORD_SHIFT) + HEAD_WORD]:
            return NOBODY_WAITS
        return self._next_waiter(entry, family)

    def _next_waiter(self, entry: int, family: int) -> int:
        """Return the next client in turn that waits for the channel or its family."""
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
        return slot

    def _is_unused(self, entry: int) -> bool:
        has_messages = self._words[(entry << WORD_SHIFT) + HEAD_WORD]
        return not has_messages and not self._entries.waiters_of(entry)

    def _used_at(self, entry: int) -> float:
        q = entry << LONG_SHIFT
        return max(self._floats[q + ACCEPTED[1]], self._floats[q + REFUSED[1]])

    # Counting ------------------------------------------------------------------------------

    def _release(self, kind: int, payload: bytes) -> None:
        if kind:
            self.released.append(payload)

    def _refuse(self, channel: str, now: float) -> None:
        entry = self._entries.find(channel)
        self._turn(entry, REFUSED, now)
        self._count(entry, REFUSED[0])

    def _count(self, entry: int, index: int) -> None:
        for q in {0, entry << LONG_SHIFT}:
            self._longs[q + index] = (self._longs[q + index] + 1) & LONG_MASK

    def _turn(self, entry: int, tally: tuple[int, int, int, int], now: float) -> None:
        """Begin a new second in the tally of `entry` and of all, where it has come."""
        total, turns_at, before, previous = tally
        longs, floats = self._longs, self._floats
        for q in {0, entry << LONG_SHIFT}:
            if not now < floats[q + turns_at]:
                counted = self._tally(q, tally)
                counted.turn(now)
                longs[q + previous] = counted.previous & LONG_MASK
                longs[q + before] = longs[q + total]
                floats[q + turns_at] = counted.turns_at

    def _tally(self, q: int, tally: tuple[int, int, int, int]) -> Tally:
        counted = Tally()
        total, turns_at, before, previous = tally
        counted.total, counted.turns_at = self._longs[q + total], self._floats[q + turns_at]
        counted.before, counted.previous = self._longs[q + before], self._longs[q + previous]
        return counted

    def _pending(self, entry: int, now: float) -> int:
        if self._words[entry << WORD_SHIFT] == FAMILY:
            return 0
        self._drop_anywhere(entry, now, _ALL)
        return self._words[(entry << WORD_SHIFT) + COUNT_WORD]

    def _age(self, entry: int, now: float) -> float:
        """Return for how many seconds the first message has waited."""
        head = self._words[(entry << WORD_SHIFT) + HEAD_WORD]
        if not head or self._words[entry << WORD_SHIFT] == FAMILY:
            return 0.0
        return max(0.0, now - self._floats[(self._message(head) << LONG_SHIFT) + SENT_LONG])

    def _statistics(self, entry: int, pending: int, age: float, now: float) -> Statistics:
        q = entry << LONG_SHIFT
        dropped = Counter(
            {
                Dropped.FULL: self._longs[q + FULL_LONG],
                Dropped.EXPIRED: self._longs[q + EXPIRED_LONG],
            }
        )
        return statistics_of(
            self._tally(q, ACCEPTED),
            self._tally(q, REFUSED),
            dropped,
            pending=pending,
            max_age=age,
            now=now,
        )


def _bit(slot: int) -> int:
    if not 0 <= slot < SLOTS:
        raise ValueError(f"a slot is a number from 0 to {SLOTS - 1}, not {slot}")
    return 1 << (slot & 63)


def _lowest(bits: int) -> int:
    return (bits & -bits).bit_length() - 1
