"""Byte layout of what every segment begins with, and of an inbox.

    every segment
    offset  size  field       written by
    ------  ----  ----------  --------------------------------------------------------------
         0     8  magic       creator, last, so that nobody attaches to half a segment
         8     4  version     creator
        12     4  kind        creator; INBOX, QUEUES or BOARD
        16     8  size        creator; bytes of the file, allocated or not
        64    64  semaphore   sem_t, shared: posted when a lock that somebody waits for is free
       128     4  contended   1 while somebody waits for the lock      (own cache line)
       256     -  what the kind says

    an inbox
       256    64  client      creator; ASCII, padded with zeros
       320     4  pid         creator; for people, nobody acts on it
       324     4  slot        creator; its place in the directory, should that be made anew
       384     8  tail        writers, under the lock                  (own cache line)
       448     8  head        owner, under the lock                    (own cache line)
       512     4  awake       writer: the doorbell is rung; owner clears it when it goes to sleep
       516     4  resets      whoever found the ring damaged
       520     4  table       owner: log2 of the places in the table of accounts
       524     4  taken       writers and owner: places that were ever used since it was made
       528     8  missed      writers: group copies that found no room in the ring
       536     8  refused     writers: messages refused with ChannelFull
       544     4  seen        owner: the last flush that it has heard of
       548     4  unsure      1 by whoever could not tell it of a membership; owner: 0, and looks
       576   448  numbers     owner: its statistics, see _numbers
      4096     -  ring        `ring_bytes`, records
         -     -  accounts    tables of 2**10, 2**11, ... places behind one another, the last in use

    record:   | length u32 | kind u8, name length u8, epoch u16 | expires_at f64 | name | payload |
              padded to 8 bytes; PADDING fills the end of the ring; `length` is that of the payload
    account:  | digest of the channel u64 | coming u32 | queued u32 | refused u64 |

`tail` and `head` count bytes since creation and never wrap; the index into the ring is
``position % ring_bytes``. `coming` are the messages of a channel that writers put into the ring
and the owner has not put into its mailbox yet, `queued` those that wait in the mailbox. Together
they are what the channel holds. `refused` are those of its messages that writers were told
`ChannelFull` for, until the owner takes note of them. Where channels share a capacity, they share
an account of what they hold, and each has one of its own for what it was refused. So has a group
whose copies found no room.

Memory model: all fields but `queued`, `unsure`, `numbers` and the wake-up flags change under the
segment's lock, whose system calls order them. `queued` is stored by the owner alone, aligned, in
one piece.
"""

from __future__ import annotations

import struct
from typing import Final

VERSION: Final = 2
MAGIC: Final = int.from_bytes(b"chlayers", "little")

INBOX: Final = 1
QUEUES: Final = 2
BOARD: Final = 3

# Every segment

HEADER: Final = struct.Struct("<QIIQ")  # magic, version, kind, size
SEMAPHORE_OFFSET: Final = 64
SEMAPHORE_BYTES: Final = 64  # sem_t has 32 on the platforms that we know
CONTENDED_OFFSET: Final = 128
BODY_OFFSET: Final = 256

# An inbox; offsets of words are divided by the size of the word they are read as

CLIENT: Final = struct.Struct("<64sII")
CLIENT_OFFSET: Final = 256
TAIL: Final = 384 // 8
HEAD: Final = 448 // 8
AWAKE: Final = 512 // 4
RESETS: Final = 516 // 4
TABLE: Final = 520 // 4
TAKEN: Final = 524 // 4
MISSED: Final = 528 // 8
REFUSED: Final = 536 // 8
SEEN: Final = 544 // 4
UNSURE: Final = 548 // 4
NUMBERS_OFFSET: Final = 576
RING_OFFSET: Final = 4096

RECORD: Final = struct.Struct("<IBBHd")  # payload length, kind, name length, epoch, expires_at
RECORD_ALIGNMENT: Final = 8

PADDING: Final = 0
MESSAGE: Final = 1  # name is a channel
GROUP_MESSAGE: Final = 2  # name is a group
MEMBER: Final = 3  # name is a channel, payload a group: look whether it is in it now
LOOK: Final = 5  # name is a channel that no client owns, and that has a message
QUESTION: Final = 6  # name is a channel, payload a number and the client that asks for its numbers
ANSWER: Final = 7  # name is a channel, payload the number of the question and the statistics
IN_A_FILE: Final = 16  # added to a kind: the payload is the name of a file that holds it

PLACE_BYTES: Final = 24
SMALLEST_TABLE: Final = 10  # log2 of its places
LARGEST_TABLE: Final = 20  # about a million channels with unread messages in one process


def table_offset(ring_bytes: int, log2: int) -> int:
    """Where the table of 2**log2 accounts begins in an inbox."""
    return RING_OFFSET + ring_bytes + PLACE_BYTES * ((1 << log2) - (1 << SMALLEST_TABLE))


def table_bytes(log2: int) -> int:
    """How long it is."""
    return PLACE_BYTES << log2


def inbox_bytes(ring_bytes: int) -> int:
    """The length of an inbox's file; most of it is never allocated."""
    return table_offset(ring_bytes, LARGEST_TABLE + 1)


# The board: what all clients of a prefix look at

EPOCH: Final = 256 // 4  # how often the prefix was flushed
DIRECTORY: Final = 272 // 4  # how often the directory was made anew
SWEPT: Final = 264 // 8  # when the queues were last looked through, in seconds
GONE_OFFSET: Final = 320  # the statistics of clients that have gone, see _numbers; under the guard
BOARD_BYTES: Final = 4096
