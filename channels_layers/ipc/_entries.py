"""The channels of a segment: finding the entry of a name, families, and repairing.

Laws:

- The caller holds the segment's lock, and sets the dirty mark before it changes a link.
- Every walk ends: it is bounded by the number of blocks, and says so when that is not enough.
- A message that is reachable is complete; everything else is computed again by `repair`.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Final, TypeAlias

from ._blocks import Blocks
from ._queue_layout import (
    ACCEPTED_LONG,
    AFTER_WORD,
    BEFORE_WORD,
    BLOCK_SHIFT,
    BUCKETS,
    BUCKETS_WORD,
    COUNT_WORD,
    DIRTY_WORD,
    EARLIEST_LONG,
    ENTRY,
    ENTRY_BYTES,
    FAMILY,
    FAMILY_WORD,
    HANDED_BACK_LONG,
    HASH_WORD,
    HEAD_WORD,
    LONG_MASK,
    LONG_SHIFT,
    MEMBER,
    NAME_BYTES,
    NEXT_WORD,
    NOBODY,
    QUEUE,
    SEQUENCE_LONG,
    TAIL_WORD,
    WAITERS_LONG,
    WORD_SHIFT,
    CorruptSegment,
)

# The first byte, u32 and u64 of an entry, its name with zeros behind it, and its tag.
Place: TypeAlias = tuple[int, int, int, bytes, int]

_MOST_PLACES: Final = 4096  # names whose place a process remembers, some 300 bytes each
_TAGS: Final = (QUEUE, MEMBER, FAMILY)
_BELOW_ZERO: Final = 1 << 63


def tag_of(channel: str) -> int:
    """Return the tag that the entry of `channel` has."""
    if "!" not in channel:
        return QUEUE
    return FAMILY if channel.endswith("!") else MEMBER


def family_name(channel: str) -> str:
    """Return the non-local part of a channel with "!"."""
    return channel[: channel.index("!") + 1]


class Entries:
    """The hash table of one segment and what hangs from it."""

    def __init__(self, blocks: Blocks) -> None:
        self.blocks = blocks
        self.words = blocks.words
        self.longs = blocks.longs
        self.floats = blocks.floats
        self.places: dict[str, Place] = {}  # may be out of date: compare tag and name

    def find(self, channel: str) -> int:
        """Return the entry of `channel`, or 0."""
        place = self.places.get(channel)
        if place is not None:
            at, _, _, padded, tag = place
            found = ENTRY.unpack_from(self.blocks.view, at)
            if found[9] == padded and found[0] == tag:
                return at >> BLOCK_SHIFT
        tag = tag_of(channel)
        name = channel.encode("ascii")
        hashed = zlib.crc32(name)
        padded = name.ljust(NAME_BYTES, b"\0")
        for block in self._chain(BUCKETS_WORD + hashed % BUCKETS):
            if self.words[(block << WORD_SHIFT) + HASH_WORD] == hashed:
                at = block << BLOCK_SHIFT
                found = ENTRY.unpack_from(self.blocks.view, at)
                if found[9] == padded:
                    if found[0] != tag:
                        raise CorruptSegment("an entry of another kind than its name says")
                    self._remember(channel, block, padded)
                    return block
        return 0

    def _remember(self, channel: str, block: int, padded: bytes) -> None:
        if len(self.places) >= _MOST_PLACES:
            self.places.clear()
        self.places[channel] = (
            block << BLOCK_SHIFT,
            block << WORD_SHIFT,
            block << LONG_SHIFT,
            padded,
            tag_of(channel),
        )

    def create(self, channel: str, block: int) -> int:
        """Write an entry for `channel`, which has none, into the free `block`."""
        name = channel.encode("ascii")
        if not 0 < len(name) <= NAME_BYTES:
            raise ValueError(f"{channel!r} is not a channel name")
        padded = name.ljust(NAME_BYTES, b"\0")
        words, at = self.words, block << BLOCK_SHIFT
        hashed = zlib.crc32(name)
        words[DIRTY_WORD] = 1
        self.blocks.claim([block])
        ENTRY.pack_into(
            self.blocks.view, at, tag_of(channel), 0, 0, 0, 0, 0.0, 0, 0.0, NOBODY, padded
        )
        rest = ENTRY_BYTES - ENTRY.size
        self.blocks.view[at + ENTRY.size : at + ENTRY_BYTES] = bytes(rest)
        words[(block << WORD_SHIFT) + HASH_WORD] = hashed
        bucket = BUCKETS_WORD + hashed % BUCKETS
        words[(block << WORD_SHIFT) + NEXT_WORD] = words[bucket]
        words[bucket] = block
        words[DIRTY_WORD] = 0
        self._remember(channel, block, padded)
        return block

    def remove(self, entry: int) -> None:
        """Take out an entry that holds nothing."""
        words = self.words
        before = BUCKETS_WORD + words[(entry << WORD_SHIFT) + HASH_WORD] % BUCKETS
        for block in self._chain(before):
            if block == entry:
                words[DIRTY_WORD] = 1
                words[before] = words[(entry << WORD_SHIFT) + NEXT_WORD]
                self.blocks.free([entry])
                words[DIRTY_WORD] = 0
                return
            before = (block << WORD_SHIFT) + NEXT_WORD
        raise CorruptSegment("an entry that is not in its bucket")

    def name_of(self, entry: int) -> str:
        """Return the name of the channel or the family."""
        padded: bytes = ENTRY.unpack_from(self.blocks.view, entry << BLOCK_SHIFT)[9]
        name = padded.rstrip(b"\0")
        hashed = self.words[(entry << WORD_SHIFT) + HASH_WORD]
        if not name.isascii() or zlib.crc32(name) != hashed:
            raise CorruptSegment("a damaged name")
        channel = name.decode("ascii")
        if tag_of(channel) != self.words[entry << WORD_SHIFT]:
            raise CorruptSegment("an entry of another kind than its name says")
        return channel

    def all(self) -> list[int]:
        """Return every entry."""
        found: list[int] = []
        for bucket in self.blocks.buckets():
            found += self._chain(bucket)
            if len(found) > self.blocks.size_blocks:
                raise CorruptSegment("more entries than blocks")
        return found

    def of_bucket(self, number: int) -> list[int]:
        """Return the entries of one bucket."""
        return list(self._chain(BUCKETS_WORD + number % BUCKETS))

    def _chain(self, bucket: int) -> Iterator[int]:
        words, check = self.words, self.blocks.check
        block = words[bucket]
        steps = 0
        while block:
            check(block)
            following = words[(block << WORD_SHIFT) + NEXT_WORD]
            steps += 1
            if words[block << WORD_SHIFT] not in _TAGS or steps > self.blocks.size_blocks:
                raise CorruptSegment("a damaged bucket")
            yield block
            block = following

    def waiters_of(self, entry: int) -> int:
        """Return the bitmap of the clients that wait."""
        longs, first = self.longs, (entry << LONG_SHIFT) + WAITERS_LONG
        return (
            longs[first]
            | longs[first + 1] << 64
            | longs[first + 2] << 128
            | longs[first + 3] << 192
        )

    # Families ------------------------------------------------------------------------------

    def join(self, family: int, member: int, before: int) -> None:
        """Link `member` into its family, behind `before`, or as the first."""
        words = self.words
        m, f = member << WORD_SHIFT, family << WORD_SHIFT
        link = (self._member(before) << WORD_SHIFT) + AFTER_WORD if before else f + HEAD_WORD
        after = words[link]
        if after:
            words[(self._member(after) << WORD_SHIFT) + BEFORE_WORD] = member
        else:
            words[f + TAIL_WORD] = member
        words[m + BEFORE_WORD] = before
        words[m + AFTER_WORD] = after
        words[m + FAMILY_WORD] = family
        words[link] = member

    def leave(self, member: int) -> None:
        """Take `member` out of its family's line."""
        words = self.words
        m, f = member << WORD_SHIFT, self.family_of(member) << WORD_SHIFT
        before, after = words[m + BEFORE_WORD], words[m + AFTER_WORD]
        if before:
            words[(self._member(before) << WORD_SHIFT) + AFTER_WORD] = after
        else:
            words[f + HEAD_WORD] = after
        if after:
            words[(self._member(after) << WORD_SHIFT) + BEFORE_WORD] = before
        else:
            words[f + TAIL_WORD] = before

    def settle(self, member: int) -> None:
        """Move `member`, whose first message has become another, to its place in the line."""
        words = self.words
        if not words[(member << WORD_SHIFT) + HEAD_WORD]:
            self.leave(member)
            return
        order = self.order_of(member)
        before, steps = 0, 0
        after = words[(member << WORD_SHIFT) + AFTER_WORD]
        while after and self.order_of(self._member(after)) < order:
            before = after
            after = words[(after << WORD_SHIFT) + AFTER_WORD]
            steps += 1
            if steps > self.blocks.size_blocks:
                raise CorruptSegment("endless family")
        if before:
            family = self.family_of(member)
            self.leave(member)
            self.join(family, member, before)

    def family_of(self, member: int) -> int:
        """Return the family of a member that holds messages."""
        family = self.blocks.check(self.words[(member << WORD_SHIFT) + FAMILY_WORD])
        if self.words[family << WORD_SHIFT] != FAMILY:
            raise CorruptSegment("a member without a family")
        return family

    def order_of(self, member: int) -> int:
        """Return a number that orders the first message of `member` among all messages."""
        head = self.blocks.check(self.words[(member << WORD_SHIFT) + HEAD_WORD])
        return self.longs[(head << LONG_SHIFT) + SEQUENCE_LONG] ^ _BELOW_ZERO

    def _member(self, block: int) -> int:
        if self.words[self.blocks.check(block) << WORD_SHIFT] != MEMBER:
            raise CorruptSegment("a stranger in a family")
        return block

    # Repair --------------------------------------------------------------------------------

    def repair(self) -> None:
        """Compute again what a process that was killed within a change has left half done."""
        blocks, words = self.blocks, self.words
        blocks.measure()
        used = bytearray(blocks.bound)
        entries = []
        for number in range(BUCKETS):
            for entry in self._chain(BUCKETS_WORD + number):
                _mark(used, entry)
                if words[(entry << WORD_SHIFT) + HASH_WORD] % BUCKETS != number:
                    raise CorruptSegment("an entry in the wrong bucket")
                entries.append((self.name_of(entry), entry))
        for _, entry in entries:
            if words[entry << WORD_SHIFT] != FAMILY:
                self._recount(entry, used)
        self._rejoin(entries)
        blocks.rebuild_free_list(used)
        words[DIRTY_WORD] = 0

    def _recount(self, entry: int, used: bytearray) -> None:
        """Walk all messages of a channel; write its tail, its count, its earliest expiry."""
        words, longs = self.words, self.longs
        w = entry << WORD_SHIFT
        count, tail, earliest = 0, 0, float("inf")
        block = words[w + HEAD_WORD]
        while block:
            message = self.blocks.read(block)
            for part in message.blocks:
                _mark(used, part)
            if message.sequence < _BELOW_ZERO:
                if message.sequence >= longs[ACCEPTED_LONG]:
                    longs[ACCEPTED_LONG] = message.sequence + 1
            elif LONG_MASK - message.sequence >= longs[HANDED_BACK_LONG]:
                longs[HANDED_BACK_LONG] = LONG_MASK - message.sequence + 1
            count += 1
            earliest = min(earliest, message.expires_at)
            tail, block = block, message.following
        words[w + TAIL_WORD] = tail
        words[w + COUNT_WORD] = count
        self.floats[(entry << LONG_SHIFT) + EARLIEST_LONG] = earliest

    def _rejoin(self, entries: list[tuple[str, int]]) -> None:
        """Link the members of each family anew."""
        words = self.words
        families = {}
        members = []
        for name, entry in entries:
            w = entry << WORD_SHIFT
            if words[w] == FAMILY:
                families[name] = entry
                words[w + HEAD_WORD] = words[w + TAIL_WORD] = 0
            elif words[w] == MEMBER and words[w + HEAD_WORD]:
                members.append((self.order_of(entry), entry, family_name(name)))
        for _, member, name in sorted(members):
            family = families.get(name)
            if family is None:
                raise CorruptSegment("a member without a family")
            self.join(family, member, words[(family << WORD_SHIFT) + TAIL_WORD])


def _mark(used: bytearray, block: int) -> None:
    if used[block]:
        raise CorruptSegment("a block in use twice")
    used[block] = 1
