"""The blocks of a segment: which are free, growing, and messages that span several.

Laws:

- The caller holds the segment's lock, and sets the dirty mark before it changes a link.
- No block number from the segment is used before it has been compared with what is allocated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from ._queue_layout import (
    ALLOCATED_LONG,
    BLOCK_BYTES,
    BLOCK_BYTES_WORD,
    BLOCK_SHIFT,
    BUCKETS,
    BUCKETS_WORD,
    DIRTY_WORD,
    FIRST_BLOCK,
    FREE,
    FREE_WORD,
    GROWTH_BLOCKS,
    LONG_SHIFT,
    MAGIC,
    MAGIC_LONG,
    MAX_BLOCKS,
    MESSAGE,
    MORE,
    MORE_ROOM,
    NODE,
    NODE_ROOM,
    REST,
    SIZE_WORD,
    VERSION,
    VERSION_WORD,
    CorruptSegment,
    IncompatibleSegment,
    blocks_for,
)

if TYPE_CHECKING:
    Grow = Callable[[int], None]

_HALF: Final = (1 << 32) - 1


class Message(NamedTuple):
    """One message as it stands in the segment."""

    following: int  # block of the next message, or 0
    blocks: list[int]
    kind: int
    sequence: int
    expires_at: float
    sent_at: float
    payload: bytes


class Blocks:
    """The pool of one segment, and the views to read and write it with."""

    def __init__(self, view: memoryview, grow: Grow) -> None:
        if len(view) < FIRST_BLOCK * BLOCK_BYTES:
            raise CorruptSegment("too small for a header")
        longs, words = view[:BLOCK_BYTES].cast("Q"), view[:BLOCK_BYTES].cast("I")
        if longs[MAGIC_LONG] != MAGIC:
            raise CorruptSegment("no magic")
        if words[VERSION_WORD] != VERSION:
            raise IncompatibleSegment(words[VERSION_WORD], VERSION)
        if words[BLOCK_BYTES_WORD] != BLOCK_BYTES:
            raise CorruptSegment("blocks of another size")
        self.size_blocks = words[SIZE_WORD]
        if not FIRST_BLOCK < self.size_blocks <= len(view) >> BLOCK_SHIFT:
            raise CorruptSegment("of another size than it says")
        self.view = view[: self.size_blocks << BLOCK_SHIFT]
        self.words = self.view.cast("I")
        self.longs = self.view.cast("Q")
        self.floats = self.view.cast("d")
        self.bound = 0  # blocks that may be touched; another process may have allocated more
        self._grow = grow
        self.measure()

    @staticmethod
    def format(view: memoryview, size_bytes: int, grow: Grow) -> None:
        """Write an empty segment over whatever `view` holds."""
        size_blocks = min(size_bytes, len(view)) >> BLOCK_SHIFT
        if not FIRST_BLOCK < size_blocks < MAX_BLOCKS:
            raise ValueError(f"a segment cannot have {size_bytes} bytes")
        bound = min(GROWTH_BLOCKS, size_blocks)
        grow(bound << BLOCK_SHIFT)
        header = view[: FIRST_BLOCK << BLOCK_SHIFT]
        words, longs = header.cast("I"), header.cast("Q")
        # SYNC magic: pairs with the look at it in measure(). A formatter that was killed leaves
        # a segment that nobody can attach, and that who is attached finds dirty.
        words[DIRTY_WORD] = 1
        longs[MAGIC_LONG] = 0
        for index in range(1, len(longs)):
            if index != DIRTY_WORD >> 1:
                longs[index] = 0
        words[VERSION_WORD] = VERSION
        words[BLOCK_BYTES_WORD] = BLOCK_BYTES
        words[SIZE_WORD] = size_blocks
        pool = view[: bound << BLOCK_SHIFT].cast("Q")
        for block in range(FIRST_BLOCK, bound):
            pool[block << LONG_SHIFT] = FREE | (block + 1 if block + 1 < bound else 0)
        words[FREE_WORD] = FIRST_BLOCK
        longs[ALLOCATED_LONG] = _twice(bound)
        longs[MAGIC_LONG] = MAGIC
        words[DIRTY_WORD] = 0

    def measure(self) -> None:
        """Look how much is allocated: another process may have grown the segment."""
        # SYNC magic: pairs with the last stores of format().
        if self.longs[MAGIC_LONG] != MAGIC:
            raise CorruptSegment("formatting was not finished")
        allocated = self.longs[ALLOCATED_LONG]
        bound = allocated & _HALF
        # Touching what is not allocated can kill the process, hence two copies in one number.
        if allocated != _twice(bound) or not FIRST_BLOCK < bound <= self.size_blocks:
            raise CorruptSegment("allocated")
        self.bound = bound

    def check(self, block: int) -> int:
        """Return `block` if it is one of the pool."""
        if not FIRST_BLOCK <= block < self.bound:
            self.measure()
            if not FIRST_BLOCK <= block < self.bound:
                raise CorruptSegment("block outside the pool")
        return block

    def free_blocks(self, count: int) -> list[int]:
        """Return the first `count` blocks of the free list, or all."""
        found: list[int] = []
        block = self.words[FREE_WORD]
        while block and len(found) < count:
            found.append(self.check(block))
            block = self._after(block)
            if len(found) > self.size_blocks:
                raise CorruptSegment("endless list of free blocks")
        return found

    def reserve(self, count: int) -> list[int]:
        """Return `count` free blocks, fewer where the segment is as large as it may be.

        Raises:
            OSError: the machine has no more shared memory.
        """
        found = self.free_blocks(count)
        if len(found) < count <= self.size_blocks:
            self.measure()
            missing = max(count - len(found), GROWTH_BLOCKS)
            bound = min(self.bound + missing, self.size_blocks)
            if bound > self.bound:
                self._grow(bound << BLOCK_SHIFT)
                self._adopt(bound)
                found = self.free_blocks(count)
        return found

    def _adopt(self, bound: int) -> None:
        words = self.words
        words[DIRTY_WORD] = 1
        following = words[FREE_WORD]
        for block in range(self.bound, bound):
            self.longs[block << LONG_SHIFT] = FREE | following
            following = block
        self.longs[ALLOCATED_LONG] = _twice(bound)
        words[FREE_WORD] = following
        words[DIRTY_WORD] = 0
        self.bound = bound

    def claim(self, blocks: Sequence[int]) -> None:
        """Take `blocks`, the first of the free list, out of it."""
        self.words[FREE_WORD] = self._after(blocks[-1])

    def _after(self, block: int) -> int:
        following = self.longs[block << LONG_SHIFT] - FREE
        if not 0 <= following < self.size_blocks:
            raise CorruptSegment("a free block is in use")
        return following

    def free(self, blocks: Iterable[int]) -> None:
        """Put `blocks` to the front of the free list."""
        following = self.words[FREE_WORD]
        for block in blocks:
            self.longs[block << LONG_SHIFT] = FREE | following
            following = block
        self.words[FREE_WORD] = following

    def rebuild_free_list(self, used: bytearray) -> None:
        """Make every block that is not marked in `used` a free one."""
        following = 0
        for block in range(self.bound - 1, FIRST_BLOCK - 1, -1):
            if not used[block]:
                self.longs[block << LONG_SHIFT] = FREE | following
                following = block
        self.words[FREE_WORD] = following

    def buckets(self) -> range:
        """Return the indexes of the buckets, as u32."""
        return range(BUCKETS_WORD, BUCKETS_WORD + BUCKETS)

    def write(
        self,
        blocks: Sequence[int],
        payload: bytes,
        *,
        following: int,
        kind: int,
        sequence: int,
        expires_at: float,
        sent_at: float,
    ) -> None:
        """Write a message into `blocks`, which nothing leads to yet."""
        view, block = self.view, blocks[0]
        more, end = 0, NODE_ROOM + (len(blocks) - 1) * MORE_ROOM
        for part in blocks[:0:-1]:
            MORE.pack_into(view, part << BLOCK_SHIFT, REST, more, payload[end - MORE_ROOM : end])
            more, end = part, end - MORE_ROOM
        NODE.pack_into(
            view, block << BLOCK_SHIFT, MESSAGE, following, more, len(payload), kind, sequence,
            expires_at, sent_at, payload[:NODE_ROOM],
        )  # fmt: skip

    def read(self, block: int) -> Message:
        """Return the message that begins in `block`, every block of it checked."""
        tag, following, more, size_bytes, kind, sequence, expires_at, sent_at, beginning = (
            NODE.unpack_from(self.view, self.check(block) << BLOCK_SHIFT)
        )
        if tag != MESSAGE:
            raise CorruptSegment("no message where one should be")
        if following:
            self.check(following)
        blocks = [block]
        if more:
            beginning += self._read_rest(blocks, more, size_bytes)
        elif size_bytes > NODE_ROOM:
            raise CorruptSegment("a message of another length than it says")
        payload = beginning[:size_bytes]
        return Message(following, blocks, kind, sequence, expires_at, sent_at, payload)

    def _read_rest(self, blocks: list[int], more: int, size_bytes: int) -> bytes:
        """Return what stands behind the first of `blocks`, and add the others to them."""
        view, unpack_from = self.view, MORE.unpack_from
        expected = blocks_for(size_bytes)
        parts = []
        while more and len(blocks) < expected:
            blocks.append(self.check(more))
            tag, more, part = unpack_from(view, more << BLOCK_SHIFT)
            parts.append(part)
            if tag != REST or len(blocks) > self.size_blocks:
                raise CorruptSegment("the rest of a message is missing")
        if more or len(blocks) != expected or len(set(blocks)) != expected:
            raise CorruptSegment("a message of another length than it says")
        return b"".join(parts)


def _twice(bound: int) -> int:
    """Return `bound` and its complement in one number."""
    return (bound ^ _HALF) << 32 | bound
