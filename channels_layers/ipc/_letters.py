"""The messages of a segment's channels: putting, dropping and removing them, and finding memory.

Laws:

- The caller holds the segment's lock, and has repaired what was dirty.
- Whatever can fail (no memory, damage that is seen at once) comes before the dirty mark.
- Of a member of a family that holds messages, the entry of the family exists.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple, TypeAlias

from .._core.statistics import Dropped
from ._accounts import Accounts
from ._blocks import Blocks, Message
from ._entries import Entries, family_name
from ._queue_layout import (
    ACCEPTED,
    ACCEPTED_LONG,
    COUNT_WORD,
    DIRTY_WORD,
    EARLIEST_LONG,
    FAMILY,
    HANDED_BACK_LONG,
    HEAD_WORD,
    LONG_MASK,
    LONG_SHIFT,
    MEMBER,
    MESSAGE,
    NEXT_WORD,
    SEARCHED_LONG,
    SENT_LONG,
    TAIL_WORD,
    TURNS_LONG,
    WORD_SHIFT,
    CorruptSegment,
    blocks_for,
)

# (payload, expires_at in seconds on the machine's clock, kind)
Letter: TypeAlias = tuple[bytes, float, int]

ALL: Final = 1 << 32  # more messages than a segment can hold
_SEARCH_PAUSE_S: Final = 0.05  # a full segment is searched for memory this often, 1 ms each
_RECLAIMED: Final = 64  # entries at least that one such search gives back


class Place(NamedTuple):
    """Where a message can be put."""

    entry: int
    family: int  # 0 where the channel has no "!"
    blocks: list[int]  # free ones, as many as it takes


class Letters:
    """What is in the channels of one segment."""

    def __init__(self, blocks: Blocks, entries: Entries, accounts: Accounts) -> None:
        self.released: list[bytes] = []
        self.blocks = blocks
        self.entries = entries
        self.accounts = accounts
        self.words = blocks.words
        self.longs = blocks.longs
        self.floats = blocks.floats

    # Putting -------------------------------------------------------------------------------

    def place(self, channel: str, entry: int, needed: int, now: float) -> Place | None:
        """Find `needed` blocks for `channel`, whose entry is made if it is 0; None: no memory.

        Raises:
            OSError: the machine has no more shared memory.
        """
        family, whole = 0, ""
        total = needed if entry else needed + 1
        if "!" in channel:
            whole = family_name(channel)
            if whole == channel:
                raise ValueError(f"{channel!r} is a non-local part, nothing can be sent to it")
            family = self.entries.find(whole)
            total += not family
        blocks = self.reserve(total, now, (entry, family))
        if len(blocks) < total:
            return None
        if whole and not family:
            family = self.entries.create(whole, blocks.pop(0))
        if not entry:
            entry = self.entries.create(channel, blocks.pop(0))
        return Place(entry, family, blocks)

    def put(self, place: Place, payload: bytes, expires_at: float, kind: int, now: float) -> None:
        """Append a message."""
        entry, family, blocks = place
        words, longs, floats = self.words, self.longs, self.floats
        w, q = entry << WORD_SHIFT, entry << LONG_SHIFT
        if not (now < floats[q + TURNS_LONG] and now < floats[TURNS_LONG]):
            self.accounts.turn(entry, ACCEPTED, now)
        head, sequence, count = words[w + HEAD_WORD], longs[ACCEPTED_LONG], self._count_of(entry)
        link = w + HEAD_WORD
        if head:
            link = (self._message(words[w + TAIL_WORD]) << WORD_SHIFT) + NEXT_WORD
        words[DIRTY_WORD] = 1
        self.blocks.claim(blocks)
        self.blocks.write(
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
            self.entries.join(family, entry, words[(family << WORD_SHIFT) + TAIL_WORD])
        words[DIRTY_WORD] = 0

    def put_front(self, place: Place, letters: Sequence[Letter], now: float) -> None:
        """Put messages before all others; the first of them will be the first."""
        entry, family, blocks = place
        words, longs, floats = self.words, self.longs, self.floats
        w, q = entry << WORD_SHIFT, entry << LONG_SHIFT
        head, handed_back, count = (
            words[w + HEAD_WORD],
            longs[HANDED_BACK_LONG],
            self._count_of(entry),
        )
        # They are older than what stands behind them; how much is not known any more.
        sent_at = min(now, floats[(self._message(head) << LONG_SHIFT) + SENT_LONG]) if head else now
        earliest = floats[q + EARLIEST_LONG] if head else float("inf")
        words[DIRTY_WORD] = 1
        self.blocks.claim(blocks)
        following, end = head, len(blocks)
        for payload, expires_at, kind in reversed(letters):
            start = end - blocks_for(len(payload))
            self.blocks.write(
                blocks[start:end],
                payload,
                following=following,
                kind=kind,
                sequence=(LONG_MASK - handed_back) & LONG_MASK,
                expires_at=expires_at,
                sent_at=sent_at,
            )
            handed_back += 1
            earliest = min(earliest, expires_at)
            if not following:
                words[w + TAIL_WORD] = blocks[start]
            following, end = blocks[start], start
        if family and head:
            self.entries.leave(entry)
        longs[HANDED_BACK_LONG] = handed_back & LONG_MASK
        words[w + HEAD_WORD] = following
        words[w + COUNT_WORD] = count + len(letters)
        floats[q + EARLIEST_LONG] = earliest
        if family:
            self.entries.join(family, entry, 0)
        words[DIRTY_WORD] = 0

    def has_room(self, entry: int, now: float, capacity: int) -> bool:
        """Return whether a channel holds less than `capacity` unexpired messages."""
        index = (entry << WORD_SHIFT) + COUNT_WORD
        if self.words[index] >= capacity:
            # Most messages of a channel expire in the order in which they stand.
            self.drop_front(entry, now)
            if self.words[index] >= capacity:
                self.drop_anywhere(entry, now, ALL)
        return self.words[index] < capacity

    # Taking and dropping -------------------------------------------------------------------

    def take(self, entry: int, now: float) -> tuple[str, Message] | None:
        """Remove the oldest message of a channel or a family; return its channel and it."""
        if self.words[entry << WORD_SHIFT] == FAMILY:
            return self._take_of_family(entry, now)
        message = self.drop_front(entry, now)
        if message is None:
            return None
        self._remove(entry, 0, message)
        return "", message

    def _take_of_family(self, family: int, now: float) -> tuple[str, Message] | None:
        first = (family << WORD_SHIFT) + HEAD_WORD
        for _ in range(self.blocks.size_blocks):
            member = self.words[first]
            if not member:
                return None
            if self.words[self.blocks.check(member) << WORD_SHIFT] != MEMBER:
                raise CorruptSegment("a stranger in a family")
            message = self.drop_front(member, now)
            if message is not None and self.words[first] == member:
                channel = self.entries.name_of(member)
                self._remove(member, 0, message)
                return channel, message
        raise CorruptSegment("endless family")

    def drop_front(self, entry: int, now: float) -> Message | None:
        """Drop expired messages up to the first that has not; return that."""
        head = (entry << WORD_SHIFT) + HEAD_WORD
        for _ in range(self.blocks.size_blocks):
            if not self.words[head]:
                return None
            message = self.blocks.read(self.words[head])
            if message.expires_at > now:
                return message
            self._drop(entry, 0, message)
        raise CorruptSegment("endless queue")

    def drop_anywhere(self, entry: int, now: float, most: int) -> int:
        """Drop expired messages wherever they stand, not more than `most`; return how many."""
        if self.is_sound(entry, now):
            return 0
        before, dropped, earliest = 0, 0, float("inf")
        for message in self.messages(entry):
            if message.expires_at > now:
                before = message.blocks[0]
                earliest = min(earliest, message.expires_at)
            elif dropped == most:
                return dropped
            else:
                self._drop(entry, before, message)
                dropped += 1
        self.floats[(entry << LONG_SHIFT) + EARLIEST_LONG] = earliest
        return dropped

    def is_sound(self, entry: int, now: float) -> bool:
        """Return whether no message of `entry` can have expired."""
        w = entry << WORD_SHIFT
        if not self.words[w + HEAD_WORD] or self.words[w] == FAMILY:
            return True
        return self.floats[(entry << LONG_SHIFT) + EARLIEST_LONG] > now

    def messages(self, entry: int) -> Iterator[Message]:
        """Yield the messages of a channel; the one that was yielded last may be removed."""
        block = self.words[(entry << WORD_SHIFT) + HEAD_WORD]
        for _ in range(self.blocks.size_blocks):
            if not block:
                return
            message = self.blocks.read(block)
            yield message
            block = message.following
        raise CorruptSegment("endless queue")

    def _drop(self, entry: int, before: int, message: Message) -> None:
        """Drop a message that has expired, and stands behind `before`."""
        if message.kind:
            self.released.append(message.payload)
        self._remove(entry, before, message)
        self.accounts.drop(entry, Dropped.EXPIRED)

    def _remove(self, entry: int, before: int, message: Message) -> None:
        words = self.words
        w = entry << WORD_SHIFT
        count = words[w + COUNT_WORD]
        if not count:
            raise CorruptSegment("a message that is not counted")
        words[DIRTY_WORD] = 1
        words[(before << WORD_SHIFT) + NEXT_WORD if before else w + HEAD_WORD] = message.following
        if not message.following:
            words[w + TAIL_WORD] = before
        words[w + COUNT_WORD] = count - 1
        self.blocks.free(message.blocks)
        if words[w] == MEMBER and not before:
            self.entries.settle(entry)
        words[DIRTY_WORD] = 0

    def clear(self) -> None:
        """Drop all messages of all channels."""
        words = self.words
        entries = [entry for entry in self.entries.all() if words[entry << WORD_SHIFT] != FAMILY]
        for entry in entries:
            self.released += [m.payload for m in self.messages(entry) if m.kind]
        words[DIRTY_WORD] = 1
        for entry in entries:
            words[(entry << WORD_SHIFT) + HEAD_WORD] = 0
        self.entries.repair()

    # Memory --------------------------------------------------------------------------------

    def reserve(self, count: int, now: float | None, keep: Iterable[int]) -> list[int]:
        """Return `count` free blocks, or fewer where there are no more.

        Without the time nothing expires. The entries in `keep` are not reclaimed.

        Raises:
            OSError: the machine has no more shared memory.
        """
        problem: OSError | None = None
        blocks: list[int] = []
        try:
            blocks = self.blocks.reserve(count)
        except OSError as exc:
            problem = exc
        if len(blocks) < count:
            self._reclaim(count, now, keep)
            blocks = self.blocks.free_blocks(count)
        if problem is not None and len(blocks) < count:
            raise problem
        return blocks

    def _reclaim(self, count: int, now: float | None, keep: Iterable[int]) -> None:
        """Free what has expired, and the entries of channels that were not used for longest."""
        if now is not None:
            if 0 <= now - self.floats[SEARCHED_LONG] < _SEARCH_PAUSE_S:
                return
            self.floats[SEARCHED_LONG] = now
        unused = []
        for entry in self.entries.all():
            if now is not None:
                self.drop_anywhere(entry, now, ALL)
            if entry not in keep and self.is_unused(entry):
                unused.append((self.accounts.used_at(entry), entry))
        for _, entry in sorted(unused)[: max(count, _RECLAIMED)]:
            # A family comes to hold messages only with one of its members, so none has by now.
            self.entries.remove(entry)

    def is_unused(self, entry: int) -> bool:
        """Return whether a channel holds no messages and nobody waits for any."""
        has_messages = self.words[(entry << WORD_SHIFT) + HEAD_WORD]
        return not has_messages and not self.entries.waiters_of(entry)

    # Looking -------------------------------------------------------------------------------

    def pending(self, entry: int, now: float) -> int:
        """Return how many unexpired messages a channel holds."""
        if self.words[entry << WORD_SHIFT] == FAMILY:
            return 0
        self.drop_anywhere(entry, now, ALL)
        return self.words[(entry << WORD_SHIFT) + COUNT_WORD]

    def age(self, entry: int, now: float) -> float:
        """Return for how many seconds the first message has waited."""
        w = entry << WORD_SHIFT
        if not self.words[w + HEAD_WORD] or self.words[w] == FAMILY:
            return 0.0
        head = self._message(self.words[w + HEAD_WORD])
        return max(0.0, now - self.floats[(head << LONG_SHIFT) + SENT_LONG])

    def _message(self, block: int) -> int:
        if self.words[self.blocks.check(block) << WORD_SHIFT] != MESSAGE:
            raise CorruptSegment("no message where one should be")
        return block

    def _count_of(self, entry: int) -> int:
        count = self.words[(entry << WORD_SHIFT) + COUNT_WORD]
        if count > self.blocks.size_blocks:
            raise CorruptSegment("more messages than blocks")
        return count
