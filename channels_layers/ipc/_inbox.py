"""The ring of one client, and the accounts that make the capacity of its channels exact.

Laws:

- The caller holds the segment's lock during every call, but for `take` where stores are ordered.
  It tells the time by what it puts in. Nothing here waits, and nothing read is trusted.
- A writer can be killed between any two lines. Storing the tail is what makes a record visible;
  before it there is nothing, but perhaps a message counted that never came. That errs towards
  `ChannelFull`, until the owner takes stock in `settle`.
- A record is at most a quarter of the ring: a longer one could meet a tail from which it fits
  neither before the end nor behind it.
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final, TypeAlias

from . import _layout
from ._errors import SegmentDamaged
from ._layout import (
    HEAD,
    LARGEST_TABLE,
    MISSED,
    PADDING,
    RECORD,
    REFUSED,
    RESETS,
    RING_OFFSET,
    SMALLEST_TABLE,
    TABLE,
    TAIL,
    TAKEN,
)

# There what one processor stores in an order, all others see in that order, so that the owner may
# take what is before the tail without the lock. Elsewhere only the lock gives that.
STORES_ARE_ORDERED: Final = platform.machine().lower() in ("x86_64", "amd64")

_RECORD_BYTES: Final = RECORD.size
_PROBES: Final = 128  # places looked at for one channel; half of them are free, so it is a few


# What came in: kind, name, payload, expires_at in seconds on the machine's clock, epoch.
Record: TypeAlias = tuple[int, str, bytes, float, int]


@lru_cache(maxsize=16_384)
def digest_of(channel: str) -> int:
    """Return what stands for a channel in the table of accounts; never 0."""
    return int.from_bytes(hashlib.blake2b(channel.encode(), digest_size=8).digest(), "little") or 1


def digest_of_group(group: str) -> int:
    """Return what stands for a group there, which no channel has."""
    return digest_of(f"{group} ")


class Inbox:
    """One client's ring and accounts, as its owner or as a writer."""

    def __init__(self, view: memoryview, ring_bytes: int) -> None:
        """Use the segment behind `view`.

        Raises:
            SegmentDamaged: it is too short for what it should hold.
        """
        if len(view) < _layout.inbox_bytes(ring_bytes) or ring_bytes % 8 or ring_bytes <= 0:
            raise SegmentDamaged("an inbox of another length")
        self._view = view
        self.ring_bytes = ring_bytes
        self.longs = view.cast("Q")
        self.words = view.cast("I")
        self._known_log2 = 0
        self._first = self._mask = 0
        self.longest_payload = ring_bytes // 4 - _RECORD_BYTES - 128

    def format(self, client_id: str, pid: int, slot: int) -> None:
        """Make it empty; by its creator, for a file of zeros."""
        self.enter(client_id, pid, slot)
        self.words[TABLE] = SMALLEST_TABLE

    def enter(self, client_id: str, pid: int, slot: int) -> None:
        """Say whose it is; by its owner."""
        _layout.CLIENT.pack_into(self._view, _layout.CLIENT_OFFSET, client_id.encode(), pid, slot)

    def owner(self) -> tuple[str, int, int]:
        """Return the client, its process and its slot, as its creator has written them."""
        name, pid, slot = _layout.CLIENT.unpack_from(self._view, _layout.CLIENT_OFFSET)
        return name.rstrip(b"\0").decode("ascii", "replace"), pid, slot

    @property
    def has_unread(self) -> bool:
        """Whether something came in; needs no lock."""
        longs = self.longs
        return longs[TAIL] != longs[HEAD]

    def has_room(self, size_bytes: int) -> bool:
        """Whether the ring looks as if a record of about that size fits; needs no lock."""
        longs = self.longs
        return longs[TAIL] - longs[HEAD] + size_bytes <= self.ring_bytes

    # Writers

    def push(self, kind: int, name: bytes, payload: bytes, expires_at: float, epoch: int) -> bool:
        """Append a record; False where the ring has no room.

        Raises:
            SegmentDamaged: head and tail make no sense.
        """
        ring_bytes, longs = self.ring_bytes, self.longs
        tail = longs[TAIL]
        used = tail - longs[HEAD]
        if not 0 <= used <= ring_bytes or tail & 7:
            raise SegmentDamaged("the positions of a ring")
        need = (_RECORD_BYTES + len(name) + len(payload) + 7) & -8
        index = tail % ring_bytes
        skip = ring_bytes - index if need > ring_bytes - index else 0
        if used + skip + need > ring_bytes:
            return False
        view = self._view
        if skip:
            if skip >= _RECORD_BYTES:
                RECORD.pack_into(view, RING_OFFSET + index, 0, PADDING, 0, 0, 0.0)
            index = 0
        at = RING_OFFSET + index
        RECORD.pack_into(view, at, len(payload), kind, len(name), epoch & 0xFFFF, expires_at)
        at += _RECORD_BYTES
        view[at : at + len(name) + len(payload)] = name + payload
        # SYNC ring-publish: pairs with the load of the tail in take(). Whoever is killed before
        # this line has left nothing.
        longs[TAIL] = tail + skip + need
        return True

    def offer(
        self,
        kind: int,
        name: bytes,
        payload: bytes,
        expires_at: float,
        epoch: int,
        digest: int,
        capacity: int,
    ) -> bool:
        """Append a message for a channel that has room for it; False where it has not.

        Args:
            kind: As in `_layout`.
            name: The channel.
            payload: The encoded message.
            expires_at: Seconds on the machine's clock.
            epoch: Of the prefix, its last 16 bits.
            digest: Of the channel's account.
            capacity: Messages that it may hold.

        Raises:
            SegmentDamaged: the ring or the table makes no sense.
        """
        longs, words = self.longs, self.words
        if words[TABLE] != self._known_log2:
            self._measure()
        at = self._first + 3 * (digest & self._mask)
        if longs[at] != digest:
            at = self._claimed(digest)
            if at < 0:
                longs[REFUSED] += 1
                return False
        counts = 2 * at + 2  # in words: coming, then queued
        coming = words[counts]
        if coming + words[counts + 1] >= capacity:
            self._refuse(name, digest, at)
            return False
        # SYNC claim: pairs with the look at `coming` in Exchange.offer_here(). Counted first, so
        # that the owner, who counts first as well, or this writer sees the other.
        words[counts] = coming + 1
        if coming + words[counts + 1] < capacity:
            # push() for a record that fits before the end of the ring.
            tail, ring_bytes = longs[TAIL], self.ring_bytes
            index = tail % ring_bytes
            size_bytes = len(name) + len(payload)
            need = (_RECORD_BYTES + size_bytes + 7) & -8
            if index + need <= ring_bytes and 0 <= tail - longs[HEAD] <= ring_bytes - need:
                at = RING_OFFSET + index
                view = self._view
                RECORD.pack_into(view, at, len(payload), kind, len(name), epoch, expires_at)
                at += _RECORD_BYTES
                view[at : at + size_bytes] = name + payload
                # SYNC ring-publish: pairs with the load of the tail in take().
                longs[TAIL] = tail + need
                return True
            if self.push(kind, name, payload, expires_at, epoch):
                return True
        words[counts] = coming
        self._refuse(name, digest, at)
        return False

    def _claimed(self, digest: int) -> int:
        """Return the account of `digest`, if need be a new one; -1 where there is no place."""
        at = self._place(digest)
        longs = self.longs
        if at >= 0 and longs[at] != digest:
            if not longs[at]:
                self.words[TAKEN] += 1
            longs[at + 1] = longs[at + 2] = 0
            longs[at] = digest
        return at

    def _refuse(self, name: bytes, digest: int, at: int) -> None:
        """Count a refused message, in all and for its channel; `at` is the account of `digest`."""
        longs = self.longs
        longs[REFUSED] += 1
        own = digest_of(name.decode())
        if own == digest:
            longs[at + 2] += 1
        else:  # channels that share a capacity
            self._note(own)

    def _note(self, digest: int) -> None:
        """Count one more refused message where there is a place for the number."""
        at = self._place(digest)
        if at >= 0 and self.longs[at] != digest:
            # Accounts of what channels hold come first: the last half of the table is theirs.
            at = -1 if self.is_table_full else self._claimed(digest)
        if at >= 0:
            self.longs[at + 2] += 1

    def miss(self, group: str = "") -> None:
        """Count a group's copy that found no room, in all and for its group."""
        self.longs[MISSED] += 1
        if group:
            self._note(digest_of_group(group))

    # The owner

    def take(self) -> list[bytes]:
        """Remove all that came in, as at most two stretches of records.

        Raises:
            SegmentDamaged: head and tail make no sense.
        """
        longs, ring_bytes = self.longs, self.ring_bytes
        # SYNC ring-publish: pairs with the store of the tail in push().
        tail, head = longs[TAIL], longs[HEAD]
        used = tail - head
        if not used:
            return []
        if not 0 <= used <= ring_bytes or head & 7:
            raise SegmentDamaged("the positions of a ring")
        begin, end = head % ring_bytes, tail % ring_bytes
        if begin < end:
            pieces = [bytes(self._view[RING_OFFSET + begin : RING_OFFSET + end])]
        else:
            pieces = [
                bytes(self._view[RING_OFFSET + begin : RING_OFFSET + ring_bytes]),
                bytes(self._view[RING_OFFSET : RING_OFFSET + end]),
            ]
        longs[HEAD] = tail
        return pieces

    def settle(self, came: Mapping[str, int], queued: Iterable[tuple[int, int]]) -> dict[int, int]:
        """Enter what came in and what waits now.

        Args:
            came: For names of accounts, how many of their messages were taken.
            queued: For channels with messages in their mailbox, digest and number.

        Returns:
            For the digests in `queued`, the word in which to `store` their number from now on.
            One that is missing found no place.
        """
        words = self.words
        for name, count in came.items():
            digest = digest_of(name)
            at = self._place(digest)
            if at >= 0 and self.longs[at] == digest:
                words[2 * at + 2] = max(0, words[2 * at + 2] - count)
        places = {}
        for digest, count in queued:
            at = self._claimed(digest)
            if at < 0:
                continue
            words[2 * at + 3] = count
            places[digest] = 2 * at + 3
        return places

    def refused(self, digest: int) -> int:
        """How many messages were refused since that was last taken note of; needs no lock."""
        longs, log2 = self.longs, self._log2()
        first = _layout.table_offset(self.ring_bytes, log2) // 8
        for step in range(_PROBES):
            at = first + 3 * ((digest + step) & ((1 << log2) - 1))
            if longs[at] == digest:
                return longs[at + 2]
            if not longs[at]:
                break
        return 0

    def forget_refused(self, digest: int) -> None:
        """Begin to count the refused messages of a channel anew."""
        at = self._place(digest)
        if at >= 0 and self.longs[at] == digest:
            self.longs[at + 2] = 0

    def take_refused(self) -> dict[int, int]:
        """Return for each digest how many messages were refused, and count them anew."""
        longs, log2 = self.longs, self._log2()
        first = _layout.table_offset(self.ring_bytes, log2) // 8
        found = {}
        for index, count in enumerate(longs[first + 2 : first + (3 << log2) : 3].tolist()):
            if count:
                at = first + 3 * index
                found[longs[at]] = count
                longs[at + 2] = 0
        return found

    def reset(self) -> None:
        """Make it empty, after damage or a flush; what had come in is lost."""
        self.words[TABLE] = SMALLEST_TABLE
        self._clear_table(SMALLEST_TABLE)
        self.longs[HEAD] = self.longs[TAIL] = 0
        self.words[RESETS] = (self.words[RESETS] + 1) & 0xFFFFFFFF

    # The table

    @property
    def is_table_full(self) -> bool:
        """Whether so many places were used that looking for one takes long."""
        return self.words[TAKEN] * 2 > 1 << self._log2()

    def larger_table(self) -> int:
        """Return the log2 of a larger table where this one holds too much, or 0."""
        log2 = self._log2()
        live = self._live()
        return log2 + 1 if len(live) * 4 > 1 << log2 and log2 < LARGEST_TABLE else 0

    def grow_table(self, log2: int) -> None:
        """Move to the table of that size, which has been allocated; `take_refused` first."""
        live = self._live()
        self._clear_table(log2)
        self.words[TABLE] = log2
        self._enter(live)

    def renew_table(self) -> None:
        """Forget the channels that hold nothing; `take_refused` first."""
        live = self._live()
        self._clear_table(self._log2())
        self._enter(live)

    def _enter(self, live: list[tuple[int, int]]) -> None:
        for digest, counts in live:
            at = self._place(digest)
            if at >= 0:
                self.longs[at], self.longs[at + 1] = digest, counts
                self.words[TAKEN] += 1

    def _live(self) -> list[tuple[int, int]]:
        first = _layout.table_offset(self.ring_bytes, self._log2()) // 8
        longs = self.longs[first : first + (3 << self._log2())].tolist()
        pairs = zip(longs[::3], longs[1::3], strict=True)
        return [(digest, counts) for digest, counts in pairs if digest and counts]

    def _clear_table(self, log2: int) -> None:
        begin = _layout.table_offset(self.ring_bytes, log2)
        size = _layout.table_bytes(log2)
        self._view[begin : begin + size] = bytes(size)
        self.words[TAKEN] = 0

    def _log2(self) -> int:
        log2 = self.words[TABLE]
        if not SMALLEST_TABLE <= log2 <= LARGEST_TABLE:
            raise SegmentDamaged("the size of a table of accounts")
        return log2

    def _measure(self) -> None:
        """Find the table that is in use now."""
        log2 = self._log2()
        self._first = _layout.table_offset(self.ring_bytes, log2) // 8
        self._mask = (1 << log2) - 1
        self._known_log2 = log2

    def _place(self, digest: int) -> int:
        """Return where the account of `digest` is or may be, as an index of longs; -1: nowhere."""
        if self.words[TABLE] != self._known_log2:
            self._measure()
        longs, mask, first = self.longs, self._mask, self._first
        free = spare = -1
        index = digest & mask
        for _ in range(_PROBES):
            at = first + 3 * index
            found = longs[at]
            if found == digest:
                return at
            if not found:
                return at if free < 0 else free
            if free < 0 and not longs[at + 1]:
                if not longs[at + 2]:
                    free = at
                elif spare < 0:
                    spare = at
            index = (index + 1) & mask
        return free if free >= 0 else spare  # numbers go where messages would have no account


def records_in(piece: bytes) -> list[Record]:
    """Return the records of a stretch that `take` has given.

    Raises:
        SegmentDamaged: it holds something else; those before it are lost as well.
    """
    found: list[Record] = []
    names: dict[bytes, str] = {}
    at, end, unpack = 0, len(piece), RECORD.unpack_from
    while end - at >= _RECORD_BYTES:
        length, kind, name_length, epoch, expires_at = unpack(piece, at)
        if kind == PADDING:
            break
        at += _RECORD_BYTES
        payload_at = at + name_length
        ends = payload_at + length
        if ends > end:
            raise SegmentDamaged("a record reaches beyond its ring")
        raw = piece[at:payload_at]
        name = names.get(raw)
        if name is None:
            try:
                name = names[raw] = raw.decode("ascii")
            except UnicodeDecodeError as exc:
                raise SegmentDamaged("a name in a ring") from exc
        found.append((kind, name, piece[payload_at:ends], expires_at, epoch))
        at = (ends + 7) & -8
    return found
