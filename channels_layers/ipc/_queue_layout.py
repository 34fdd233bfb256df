"""Byte layout of a segment of queues. The only file that knows an offset.

A segment is an array of blocks of 512 bytes; a block is named by its number, 0 means none.

    block  holds
    -----  ------------------------------------------------------------
        0  header
      1-2  256 buckets: number of the first entry of a chain (u32)
     3-    the pool: entries, messages, the rest of messages, free blocks

    header                                   entry: one channel, or one family "prefix.client!"
    offset  size  field                      offset  size  field
    ------  ----  -------------------------  ------  ----  --------------------------------------
         0     8  magic                           0     4  tag QUEUE, MEMBER or FAMILY
         8     4  version                         4     4  next entry of the bucket
        12     4  bytes in a block                8     4  first message; first member
        16     4  blocks at most                 12     4  last message; last member
        20     4  dirty: a change is under way   16     4  messages, expired ones included
        24     8  blocks allocated, twice        20     4  slot woken last
        32    16  accepted: total, turns_at      24     8  no message expires before
        48     4  first free block               32    16  accepted: total, turns_at
        52     4  bucket to sweep next           48    32  waiting clients, 256 bits
        56     8  messages handed back           80   100  name, zeros behind it
        64     8  last search for memory        180     4  hash of the name
       184    64  as in an entry                184    16  accepted: before, previous
                                                200    32  refused: a whole tally
                                                232    16  dropped: full, expired
                                                248    12  member before, member after, family

    message                                  rest of a message
         0     4  tag MESSAGE                     0     4  tag REST
         4     4  next message                    8     4  next block of this message
         8     4  next block of this message     16   496  payload
        12     4  bytes of payload
        16     4  kind                       free block
        24     8  sequence                        0     8  FREE + next free block
        32     8  expires_at
        40     8  sent_at
        48   464  payload

Laws:

- Numbers are in the machine's own order, and lie on a multiple of their size: a single store of
  one is never seen half done, even when the writer is killed.
- What a message can be reached by (a bucket, the next entry, the first and the next message) is
  written by a single store, when what it leads to is complete. All other links can be found
  again from there; only they are written by `pack_into`, which clears before it writes.
- The members of a family that hold messages are linked, the one with the oldest first.
- The sequence of a message is how many were accepted before it. Of one that was handed back it is
  counted down from 2**64, which is taken as below zero: it goes before all others.
"""

from __future__ import annotations

from struct import Struct
from typing import Final


class CorruptSegment(Exception):
    """The segment holds what nobody has written there; it has to be formatted again."""


class IncompatibleSegment(Exception):
    """Another version of this package made the segment."""

    def __init__(self, found: int, expected: int) -> None:
        super().__init__(found, expected)
        self.found = found
        self.expected = expected

    def __str__(self) -> str:
        return f"the segment has format {self.found}, this process knows format {self.expected}"


MAGIC: Final = 0x7365_7565_7571_6C63  # "clqueues" on a little-endian machine
VERSION: Final = 1

BLOCK_BYTES: Final = 512  # most messages take one
BLOCK_SHIFT: Final = 9  # block -> its first byte
WORD_SHIFT: Final = 7  # block -> index of its first u32
LONG_SHIFT: Final = 6  # block -> index of its first u64 or f64
BUCKETS: Final = 256
FIRST_BLOCK: Final = 3  # of the pool
GROWTH_BLOCKS: Final = 512  # 256 KiB: a system call, and 25 us to link the blocks
MAX_BLOCKS: Final = 1 << 31

# Tags are large: neither zeros nor the link in a free block are taken for one.
QUEUE: Final = 0x5155_4555  # entry of a channel without "!"
MEMBER: Final = 0x4D45_4D42  # entry of a channel with "!"
FAMILY: Final = 0x4641_4D49  # entry of a non-local part
MESSAGE: Final = 0x4D45_5353
REST: Final = 0x5245_5354
FREE: Final = 0x4652_4545 << 32

# Header, as indexes of u32 ...
VERSION_WORD: Final = 2
BLOCK_BYTES_WORD: Final = 3
SIZE_WORD: Final = 4
DIRTY_WORD: Final = 5
FREE_WORD: Final = 12
SWEEP_WORD: Final = 13
BUCKETS_WORD: Final = 128
# ... and of u64 or f64.
MAGIC_LONG: Final = 0
ALLOCATED_LONG: Final = 3
HANDED_BACK_LONG: Final = 7
SEARCHED_LONG: Final = 8

# Entry and message, as indexes of u32 from the start of the block ...
NEXT_WORD: Final = 1  # of an entry and a message
HEAD_WORD: Final = 2
TAIL_WORD: Final = 3
COUNT_WORD: Final = 4
TURN_WORD: Final = 5
HASH_WORD: Final = 45
BEFORE_WORD: Final = 62
AFTER_WORD: Final = 63
FAMILY_WORD: Final = 64
# ... and of u64 or f64.
EARLIEST_LONG: Final = 3
WAITERS_LONG: Final = 6
SEQUENCE_LONG: Final = 3
SENT_LONG: Final = 5

# The fields of a Tally: total, turns_at, before, previous, as indexes of u64 or f64.
ACCEPTED: Final = (4, 5, 23, 24)
REFUSED: Final = (25, 26, 27, 28)
ACCEPTED_LONG: Final = 4
TURNS_LONG: Final = 5  # of ACCEPTED
FULL_LONG: Final = 29
EXPIRED_LONG: Final = 30

# tag, head, tail, count, turn, earliest, accepted, turns_at, waiters, name
ENTRY: Final = Struct("I4xIIIIdQd32s100s")
# tag, next, more, bytes, kind, sequence, expires_at, sent_at, payload
NODE: Final = Struct("IIIII4xQdd464s")
# tag, more, payload
MORE: Final = Struct("I4xI4x496s")

ENTRY_BYTES: Final = 264
NAME_BYTES: Final = 100
NODE_ROOM: Final = 464  # bytes of payload in the first block of a message
MORE_ROOM: Final = 496  # and in each that follows
SLOTS: Final = 256  # clients of one machine
NOBODY: Final = bytes(32)  # the bitmap of a channel that nobody waits for
LONG_MASK: Final = (1 << 64) - 1


def blocks_for(size_bytes: int) -> int:
    """Return how many blocks a payload takes."""
    return 1 if size_bytes <= NODE_ROOM else 1 + -(-(size_bytes - NODE_ROOM) // MORE_ROOM)
