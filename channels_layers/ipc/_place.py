"""What one process has to do with the shared memory of one prefix, shared by all its layers.

The folder of a prefix, closed to other users:

    guard            locked by whoever enters, leaves or clears up after the dead
    board            what all look at: how often the prefix was flushed
    directory        SQLite: who is attached, who is in which group
    queues-00 ..     channels that no client owns, by the hash of their name; made when needed
    inbox-CLIENT     the ring of a client, and its accounts
    bell-CLIENT      its doorbell
    large-CLIENT-N   a message too large for a ring or a queue, until it is read
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, TypeVar

from ..statistics import Statistics, add_up
from . import _doorbell, _layout, _numbers
from ._directory import SLOTS, Attached, Busy, Directory
from ._errors import (
    BackendUnavailable,
    SegmentDamaged,
    SegmentHeld,
    SegmentRefused,
    SharedMemoryFull,
)
from ._folder import Guard, folder_name
from ._inbox import Inbox
from ._large import LargeMessages
from ._peer import Peer
from ._queue_files import QueueFiles
from ._queue_layout import CorruptSegment
from ._room import Room, Sizes
from ._segment import Lock, Segment, held, segments

T = TypeVar("T")

_logger = logging.getLogger("channels_layers")

SHARED_MEMORY: Final = Path("/dev/shm")  # noqa: S108  # where POSIX shared memory is on Linux
_BUSY_S: Final = 0.001  # between two tries to get at the directory
_LOOK_S: Final = 5.0  # between two looks for files that nobody needs
_MAKING_S: Final = 60.0  # a file that is hidden for so long is not being made any more


class Place:
    """This process's hold on one prefix."""

    def __init__(self, prefix: str, sizes: Sizes) -> None:
        self.folder = SHARED_MEMORY / folder_name(prefix)
        self.sizes = sizes
        self.guard = Guard(self.folder)
        self._room = Room(self.folder, sizes)
        self.large = LargeMessages(self.folder, self._room.check)
        self.users = 0
        self.lock = threading.RLock()  # what follows; never held while waiting for a process
        self.board: Segment | None = None
        self._words: memoryview | None = None
        path = self.folder / "directory"
        self.directory = Directory(path, sizes.group_memory, lambda: self.generation)
        self.queues = QueueFiles(
            self.folder, sizes.queue_bytes, self._room, self.large, self.lock, self._is_open
        )
        self._peers: dict[str, Peer] = {}
        self._looked_at = 0.0  # when for halves of files

    # Coming and going

    @property
    def board_lock(self) -> Lock:
        """Is held by whoever changes the directory."""
        return self._board().lock

    @property
    def board_words(self) -> memoryview:
        """The board, word by word."""
        assert self._words is not None, "a client is attached"  # noqa: S101
        return self._words

    @property
    def board_view(self) -> memoryview:
        """The board, byte by byte."""
        return self._board().view

    @property
    def epoch(self) -> int:
        """How often the prefix was flushed."""
        return self._words[_layout.EPOCH] if self._words is not None else 0

    @property
    def generation(self) -> int:
        """How often the directory was made anew."""
        return self._words[_layout.DIRECTORY] if self._words is not None else 0

    def enter(self, client_id: str, seconds: float) -> tuple[Attached, Peer, int]:
        """Attach a client of this process; blocks.

        Returns:
            How it is entered; its own inbox; and the descriptor on which it listens.

        Raises:
            BackendUnavailable: shared memory is full, held or refused.
        """
        ends_at = time.monotonic() + seconds
        with self.guard.held(seconds), contextlib.ExitStack() as undo:
            undo.callback(self._give_up, client_id, seconds)
            self._clear_unusable()
            self._open_board()
            # Its place and its memory may be needed.
            with contextlib.suppress(SegmentHeld):
                self._clear_dead(_left(ends_at))
            row = self._entered(client_id, ends_at)
            segment = self._make_inbox(self.folder / f"inbox-{client_id}", row)
            undo.callback(segments.detach, segment)
            path = self.folder / f"bell-{client_id}"
            listening = self._make_bell(path)
            undo.callback(os.close, listening)
            peer = Peer(row, segment, self.sizes.ring_bytes, _doorbell.attach(path))
            undo.pop_all()
            with self.lock:
                self._peers[client_id] = peer
            return row, peer, listening

    def leave(self, row: Attached, seconds: float) -> None:
        """Take a client of this process out, and the whole folder if it was the last; blocks.

        Raises:
            BackendUnavailable: it could not be done in time. Nothing here shows any more that the
                client lives, so that the others clear up after it.
        """
        ends_at = time.monotonic() + seconds
        try:
            with self.guard.held(seconds):
                for queue in self.queues.attached:
                    self.queues.forget_waiter(queue, row.slot, _left(ends_at))
                self.drop_peer(row.id)
                self._forget(row.id, _left(ends_at))
                self._remove_if_unused(_left(ends_at))
        finally:
            self.drop_peer(row.id)

    def sweep(self, seconds: float) -> list[str]:
        """Clear up after clients that have died; blocks.

        Returns:
            Their ids.
        """
        rows = self._rows(seconds)
        for client_id in [known for known in self._peers if known not in rows]:
            if not self.is_alive(client_id):
                self.drop_peer(client_id)  # another process has cleared up after it
        self._clear_halves()
        if not self._dead(seconds):
            return []
        with self.guard.held(seconds):
            return self._clear_dead(seconds)  # of whom another process may have been faster

    def mend(self, exc: SegmentDamaged, seconds: float) -> bool:
        """Make a damaged directory anew, with all clients that live; blocks.

        Whoever could not read or change it is believed: SQLite's own looks at the whole miss
        much, such as a text that is none, and an index that does not fit its table.

        Returns:
            Whether it was done; else it was made anew since, by whoever was faster.
        """
        with self.guard.held(seconds):
            return self._mend(exc, seconds)

    def enter_again(self, row: Attached, members: list[tuple[str, str, float]]) -> Attached:
        """Enter a client and its memberships once more, under the board's lock; return how."""
        entered = self.directory.enter_again(row)
        self.directory.add_members(row.id, members)
        return entered

    def has_entered(self, client_id: str, seconds: float) -> bool:
        """Whether the directory knows a client; blocks."""
        return client_id in self._rows(seconds)

    def mend_headers(self) -> None:
        """See that others can attach what this process has attached."""
        with self.lock:
            for segment in [self.board, *(queue.segment for queue in self.queues.attached)]:
                if segment is not None:
                    segment.mend_header()

    def is_alive(self, client_id: str) -> bool:
        """Whether a client of that id lives."""
        return segments.is_owner_alive(self.folder / f"inbox-{client_id}")

    def close(self) -> None:
        """Let go of everything; the last layer of this process has left."""
        with self.lock:
            for client_id in list(self._peers):
                self.drop_peer(client_id)
            self.queues.close()
            self.directory.close()
            if self.board is not None:
                segments.detach(self.board)
                self.board = self._words = None

    # Others

    def peer(self, client_id: str) -> Peer | None:
        """Return what is needed to write to a client, or None where there is none of that id.

        Raises:
            SegmentDamaged: its inbox is none.
            SegmentRefused: it is another version's.
        """
        found = self._peers.get(client_id)
        return found if found is not None else self._attach_peer(client_id)

    def peer_at(self, slot: int) -> Peer | None:
        """Return the client with a slot; perhaps one that has died a moment ago."""
        for peer in list(self._peers.values()):
            if peer.row.slot == slot and not peer.is_closed:
                return peer
        for row in self.directory.clients().values():
            if row.slot == slot:
                return self.peer(row.id)
        return None

    def live_peers(self, seconds: float) -> list[Peer]:
        """Return all clients that live; blocks if the directory is busy."""
        peers = [self.peer(one) for one in self._rows(seconds) if self.is_alive(one)]
        return [peer for peer in peers if peer is not None]

    @contextlib.contextmanager
    def inbox_of(self, client_id: str) -> Iterator[Segment | None]:
        """Attach the inbox of a client for a look; of a dead one too, which is no peer any more.

        None where there is no inbox that can be attached.
        """
        try:
            inbox = segments.attach(self.folder / f"inbox-{client_id}", _layout.INBOX)
        except (FileNotFoundError, SegmentDamaged, SegmentRefused):
            yield None
            return
        try:
            yield inbox
        finally:
            segments.detach(inbox)

    def statistics(self, own_id: str, seconds: float) -> list[Statistics]:
        """Return what all clients have counted, gone ones too, but for what the one that asks has.

        Blocks if the directory is busy, or somebody comes, goes or writes meanwhile.
        """

        def of_inboxes() -> list[Statistics]:
            return list(filter(None, map(counted, self._rows(seconds))))

        def counted(client_id: str) -> Statistics | None:
            with self.inbox_of(client_id) as inbox:
                if inbox is None:
                    return None
                lost = _numbers.lost_on_the_way_to(inbox.view)
                if client_id == own_id:
                    return lost
                is_alive = inbox.is_owner_alive()
                numbers = _numbers.read(inbox.view, time.monotonic(), is_alive=is_alive)
                return add_up([numbers, lost])

        return _numbers.with_those_of_the_gone(self._board().view, of_inboxes)

    def drop_peer(self, client_id: str) -> None:
        """Let go of a client that is gone."""
        with self.lock:
            peer = self._peers.pop(client_id, None)
            if peer is not None:
                peer.close()

    def sweep_queues(self, now: float, seconds: float) -> None:
        """Drop what has expired in the queues, once a second in all processes; blocks."""
        longs = self._board().view.cast("Q")
        if longs[_layout.SWEPT] != int(now):
            longs[_layout.SWEPT] = int(now)
            self.queues.drop_expired(now, seconds)
        for queue in self.queues.attached:
            self.queues.drop_released(queue)

    # Locks

    def written(self, seconds: float, change: Callable[[], T]) -> T:
        """Change the directory under the lock of the board; blocks."""
        board = self._board()
        ends_at = time.monotonic() + seconds
        while True:
            with held(board.lock, seconds):
                try:
                    return change()
                except Busy:
                    if time.monotonic() > ends_at:
                        raise SegmentHeld("directory", 0) from None
            time.sleep(_BUSY_S)

    def flush_epoch(self, seconds: float) -> None:
        """Let every client know that the prefix is flushed, and forget all memberships; blocks."""
        words = self.board_words

        def flush() -> None:
            self.directory.clear_members()
            words[_layout.EPOCH] = (words[_layout.EPOCH] + 1) & 0xFFFFFFFF

        self.written(seconds, flush)

    # Helpers

    def _is_open(self) -> bool:
        return self.board is not None

    def _board(self) -> Segment:
        assert self.board is not None, "a client is attached"  # noqa: S101
        return self.board

    def _open_board(self) -> None:
        with self.lock:
            if self.board is not None:
                if self.board.is_same_file():
                    return
                self.close()
            path = self.folder / "board"
            size = _layout.BOARD_BYTES
            try:
                self.board = segments.create(path, _layout.BOARD, size, size, lambda _: None)
            except SegmentDamaged as exc:
                # Those that live have it attached, and see to it with their next beat.
                raise SegmentRefused(path.name, f"is damaged ({exc})") from exc
            self._words = self.board.view.cast("I")
            self.directory.reopen()

    def _living(self) -> list[str]:
        """Return the ids of the clients that live, as far as one can see by their inboxes."""
        names = [path.name.removeprefix("inbox-") for path in self.folder.glob("inbox-*")]
        return [client_id for client_id in names if self.is_alive(client_id)]

    def _clear_unusable(self) -> None:
        """Remove what cannot be attached if nobody lives here, under the guard."""
        if self.board is not None or self._living():
            return
        kinds = dict.fromkeys(self.folder.glob("queues-*"), _layout.QUEUES)
        for path, kind in [(self.folder / "board", _layout.BOARD), *kinds.items()]:
            with contextlib.suppress(FileNotFoundError):
                if not segments.is_usable(path, kind):
                    path.unlink()

    def _entered(self, client_id: str, ends_at: float) -> Attached:
        def enter() -> Attached:
            return self.directory.add_client(client_id)

        try:
            return self.written(_left(ends_at), enter)
        except SegmentDamaged as exc:
            self._mend(exc, _left(ends_at))
            return self.written(_left(ends_at), enter)

    def _mend(self, exc: SegmentDamaged, seconds: float) -> bool:
        board = self._board()
        with held(board.lock, seconds):
            if exc.generation != self.generation:
                return False
            _logger.error("the directory of %s is made anew: %s", self.folder.name, exc)
            rows = list(filter(None, map(self._row_of, self._living())))
            try:
                self.directory.make_anew(rows, seconds)
            finally:  # what there was is gone, and nobody may go on with it
                self.board_words[_layout.DIRECTORY] = (self.generation + 1) & 0xFFFFFFFF
        with contextlib.suppress(SegmentHeld, SegmentDamaged):  # they see it with their next beat
            for peer in self.live_peers(seconds):
                with contextlib.suppress(SegmentHeld), held(peer.lock, seconds):
                    peer.wake()
        return True

    def _row_of(self, client_id: str) -> Attached | None:
        """Return what the inbox of a client says of it; None where it does not say."""
        peer = self._peers.get(client_id)
        if peer is not None:
            return peer.row
        with self.inbox_of(client_id) as inbox:
            if inbox is None:
                return None
            try:
                name, pid, slot = Inbox(inbox.view, _ring_bytes(inbox)).owner()
            except SegmentDamaged:
                return None
        return Attached(client_id, slot, pid) if name == client_id and slot < SLOTS else None

    def _rows(self, seconds: float) -> dict[str, Attached]:
        """Return all clients that are entered; blocks."""
        ends_at = time.monotonic() + seconds
        while True:
            try:
                return self.directory.clients()
            except Busy:
                if time.monotonic() > ends_at:
                    raise SegmentHeld("directory", 0) from None
            time.sleep(_BUSY_S)

    def _dead(self, seconds: float) -> list[Attached]:
        """Return the clients that do not live any more."""
        return [row for row in self._rows(seconds).values() if not self.is_alive(row.id)]

    def _clear_dead(self, seconds: float) -> list[str]:
        """Clear up after the dead, under the guard; return their ids."""
        try:
            dead = self._dead(seconds)
        except SegmentDamaged as exc:
            self._mend(exc, seconds)
            dead = self._dead(seconds)
        for row in dead:
            for queue in self.queues.all():
                self.queues.forget_waiter(queue, row.slot, seconds)
            self.drop_peer(row.id)
            self._forget(row.id, seconds)
        return [row.id for row in dead]

    def _clear_halves(self) -> None:
        """Remove what a process left that was killed while it made or sent a file."""
        now = time.monotonic()
        if now - self._looked_at < _LOOK_S:
            return
        self._looked_at = now
        for entry in os.scandir(self.folder):
            with contextlib.suppress(FileNotFoundError):
                if _is_half(entry, now):
                    os.unlink(entry.path)

    def _give_up(self, client_id: str, seconds: float) -> None:
        """Remove what an attempt to enter has left, as far as that is possible."""
        with contextlib.suppress(BackendUnavailable):
            if self.board is not None:
                self._forget(client_id, seconds)
        with contextlib.suppress(BackendUnavailable):
            self._remove_if_unused(seconds)

    def _make_bell(self, path: Path) -> int:
        try:
            return _doorbell.make(path)
        except OSError as exc:
            raise SharedMemoryFull(path.name, f"cannot be made ({exc.strerror})") from exc

    def _make_inbox(self, path: Path, row: Attached) -> Segment:
        ring_bytes = self.sizes.ring_bytes
        allocated = _layout.table_offset(ring_bytes, _layout.SMALLEST_TABLE + 1)
        self._room.check(allocated)

        def fill(segment: Segment) -> None:
            Inbox(segment.view, ring_bytes).format(row.id, row.pid, row.slot)

        size = _layout.inbox_bytes(ring_bytes)
        segment = segments.create(path, _layout.INBOX, size, allocated, fill)
        segment.claim_life()
        return segment

    def _attach_peer(self, client_id: str) -> Peer | None:
        with self.lock:
            if self.board is None:
                return None  # a thread that outlasted the last layer must leave nothing open
            row = self.directory.clients().get(client_id)
            if row is None and self.is_alive(client_id):
                row = self._row_of(client_id)  # which the directory has lost
            if row is None:
                return None
            try:
                segment = segments.attach(self.folder / f"inbox-{client_id}", _layout.INBOX)
            except FileNotFoundError:
                return None
            try:
                bell = _doorbell.attach(self.folder / f"bell-{client_id}")
            except OSError:
                segments.detach(segment)
                return None
            try:
                # Its own idea of the size of a ring, should its message_memory be another.
                peer = Peer(row, segment, _ring_bytes(segment), bell)
            except SegmentDamaged:
                segments.detach(segment)
                os.close(bell)
                raise
            self._peers[client_id] = peer
            return peer

    def _forget(self, client_id: str, seconds: float) -> None:
        """Remove all traces of a client, under the guard."""
        with _numbers.kept(self._board().view, self._left_by(client_id)):
            for name in (f"inbox-{client_id}", f"bell-{client_id}"):
                (self.folder / name).unlink(missing_ok=True)
        for path in self.folder.glob(f"large-{client_id}-*"):
            path.unlink(missing_ok=True)
        # Without an inbox it is dead to all, and a directory made anew has only the living.
        with contextlib.suppress(SegmentDamaged, SharedMemoryFull):
            self.written(seconds, lambda: self.directory.remove_client(client_id))

    def _left_by(self, client_id: str) -> Statistics:
        """Return what a client that is gone has counted; nothing where its inbox is none."""
        with self.inbox_of(client_id) as inbox:
            return add_up([]) if inbox is None else _numbers.left_in(inbox.view)

    def _remove_if_unused(self, seconds: float) -> None:
        """Remove the folder if no client lives and nothing waits in it; under the guard."""
        if self._living():
            return
        now = time.monotonic()
        for queue in self.queues.all():
            with held(queue.lock, seconds), contextlib.suppress(CorruptSegment):
                if not queue.structure.is_empty(now):
                    return
        self.close()
        for path in self.folder.iterdir():
            path.unlink(missing_ok=True)
        self.folder.rmdir()


def _ring_bytes(segment: Segment) -> int:
    return segment.size_bytes - _layout.inbox_bytes(0)


def _is_half(entry: os.DirEntry[str], now: float) -> bool:
    """Whether nobody can need a file of a prefix any more."""
    if entry.name.startswith("large-"):
        _, _, moment, _ = (*entry.name.split("-"), "", "", "", "")[:4]
        return moment.isdigit() and now > int(moment) + 1
    if entry.name.startswith("."):
        return time.time() - entry.stat(follow_symlinks=False).st_mtime > _MAKING_S
    return False


def _left(ends_at: float) -> float:
    return max(0.0, ends_at - time.monotonic())
