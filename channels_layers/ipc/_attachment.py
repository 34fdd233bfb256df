"""One client while it is attached: what comes in, and what it waits for in the queues.

    doorbell ---> drain: inbox ---> own mailboxes and groups of the layer
                     |
                     +-- LOOK at a channel ---> fetch: queue ---> receivers that wait in the layer

`drain` runs in whatever thread hears the doorbell or makes a call; a lock makes it one at a time.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, MutableSequence, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar, cast

from .. import _fork
from .._core.names import non_local_part
from .._loops import Watches
from . import _doorbell, _layout, _numbers
from ._directory import Busy
from ._errors import BackendUnavailable, SegmentDamaged, SegmentHeld, SharedMemoryFull
from ._inbox import STORES_ARE_ORDERED, Record, digest_of, records_in
from ._jobs import Line
from ._keeper import keeper
from ._layout import (
    AWAKE,
    DIRECTORY,
    EPOCH,
    GROUP_MESSAGE,
    HEAD,
    IN_A_FILE,
    LOOK,
    MEMBER,
    MESSAGE,
    SEEN,
    TAIL,
)
from ._memberships import Memberships
from ._peer import Peer
from ._place import Place
from ._questions import TALK, Questions
from ._queue_files import Queue
from ._queue_layout import CorruptSegment
from ._refusals import Refusals
from ._segment import held

if TYPE_CHECKING:
    from ..backend import Arrival, Client
    from ..statistics import Statistics

T = TypeVar("T")

_logger = logging.getLogger("channels_layers")

_NEVER: Final = float("inf")
_ENTERING: Final = 0.9  # of the time for a call, so that the error says who was in the way
_MISSES: Final = 200  # turns of a loop, some milliseconds, before the keeper waits in its place
_ARRIVALS: Final = {
    GROUP_MESSAGE: "group",
    MESSAGE: "message",
}


class Attachment:
    """What one client has open, from `open` to `close`."""

    def __init__(
        self,
        place: Place,
        client: Client,
        *,
        seconds: float,
        group_expiry: float,
        forget: Callable[[], None],
    ) -> None:
        """Attach; blocks.

        Args:
            place: The shared memory of the prefix.
            client: The layer.
            seconds: How long a lock may be waited for.
            group_expiry: How long a renewed membership lasts, in seconds.
            forget: Is called now and then, to let go of clients that are gone.

        Raises:
            BackendUnavailable: shared memory is full, held or refused.
        """
        self.place = place
        self.client = client
        self.seconds = seconds
        self.group_expiry = group_expiry
        self.row, self.own, self._listening = place.enter(client.id, seconds * _ENTERING)
        self._generation = place.generation
        self.questions = Questions(self)
        self._refusals = Refusals(self.own.inbox, client)
        self._forget = forget
        self._epoch = place.epoch
        self._draining = threading.Lock()
        self._handing_back = threading.Lock()
        self._longs = self.own.inbox.longs
        self.members = Memberships(place.directory, client, self.own.inbox, self.surely)
        self._board = place.board_words
        self._is_busy = False  # somebody is bringing in at this moment
        self._is_tight = False  # a channel is near its capacity, so the accounts must be exact
        self._missed = 0  # how often in a row the lock was not to be had
        self._came: dict[str, int] = {}  # by account: taken, and not settled yet
        self._lines: dict[int, Line] = {}  # by the id of a lock
        self._board_line = Line(place.board_lock, seconds)
        self._wanted: dict[str, int] = {}
        self._waiting: set[str] = set()
        self._is_closed = False
        self._watches = Watches(self._listening, self._on_bell, partial(self.drain, may_sleep=True))
        client.ledger.counts = cast("MutableSequence[int]", self.own.inbox.words)
        _fork.in_child(self, Attachment._begin_in_child)
        keeper.add(self)

    def line_of(self, owner: Peer | Queue) -> Line:
        """Return the work that waits for the lock of an inbox or a segment of queues."""
        line = self._lines.get(id(owner.lock))
        if line is None or line.lock is not owner.lock:
            ring = owner.ring if isinstance(owner, Peer) else None
            line = self._lines[id(owner.lock)] = Line(owner.lock, self.seconds, ring)
        return line

    @property
    def board_line(self) -> Line:
        """The work that waits for the lock of the board."""
        return self._board_line

    # What comes in

    def listen(self) -> None:
        """Let the running event loop hear the doorbell."""
        if self._watches.add():
            self.catch_up()

    def catch_up(self) -> None:
        """Bring in what came; never waits for another process."""
        longs = self._longs
        if longs[TAIL] != longs[HEAD] or self._is_busy or self._board[EPOCH] != self._epoch:
            self.drain()

    def see_flush(self) -> None:
        """Let go of everything if the prefix was flushed."""
        if self._board[EPOCH] != self._epoch:
            self.drain()

    def drain(self, *, may_sleep: bool = False) -> bool:
        """Bring in what came; True when it should be called again soon.

        Args:
            may_sleep: Whether, if nothing came, the doorbell must be rung for what comes next.
        """
        with self._draining:
            if self._is_closed:
                return False
            self._is_busy = True
            try:
                pieces = self._taken()
                if pieces is None:
                    return may_sleep and self._miss()
                self._see_epoch()
                self.members.look_if_unsure()
                if pieces:
                    self._take_in(pieces)
                    if self._is_tight:
                        self._settle()
                    return True
                return may_sleep and self._sleep()
            finally:
                self._is_busy = False

    def _taken(self) -> list[bytes] | None:
        """Empty the ring; None where its lock is needed and not to be had."""
        inbox = self.own.inbox
        needs_lock = not STORES_ARE_ORDERED
        if needs_lock and not self.own.lock.try_acquire():
            return None
        try:
            return inbox.take()
        except SegmentDamaged as exc:
            if needs_lock or self.own.lock.try_acquire():
                needs_lock = True
                self._rebuild(exc)
            return []
        finally:
            if needs_lock:
                self.own.lock.release()

    def _sleep(self) -> bool:
        """Let what comes next ring the doorbell; True if something has just come."""
        if not self.own.lock.try_acquire():
            return self._miss()
        self._missed = 0
        inbox = self.own.inbox
        try:
            self._settle_here()
            if inbox.has_unread:
                return True
            # SYNC awake: pairs with the look at AWAKE in Peer.wake(). Under the lock, so that
            # what is pushed next rings.
            inbox.words[AWAKE] = 0
        except SegmentDamaged as exc:
            self._rebuild(exc)
        finally:
            self.own.lock.release()
        return False

    def _miss(self) -> bool:
        """Try again with the next turn of the loop, or let the keeper wait for the lock."""
        self._missed += 1
        if self._missed < _MISSES:
            return True
        self._missed = 0
        keeper.hurry()
        return False

    def rescue(self) -> None:
        """Wait for the lock of the inbox, bring in what came, and ring; for the keeper."""
        try:
            self._look_at_damage()
            self.enter_again()
        except SegmentDamaged as exc:
            self.mend(exc)
        with contextlib.suppress(SegmentHeld):
            with held(self.own.lock, self.seconds):
                pass
            self.drain()
            _doorbell.ring(self.own.bell)  # a loop that gave up listens again

    def _take_in(self, pieces: list[bytes]) -> None:
        records = [record for piece in pieces for record in self._records(piece)]
        now = time.monotonic()
        arrivals: list[Arrival] = []
        looks: dict[str, None] = {}
        came, account_of = self._came, self.client.account_of
        for record in records:
            kind, name, payload, expires_at, epoch = record
            if kind == MESSAGE:
                account = account_of(name)
                came[account] = came.get(account, 0) + 1
                if epoch == self._epoch & 0xFFFF:
                    arrivals.append(("message", name, payload, expires_at - now))
                    continue
            if epoch != self._epoch & 0xFFFF and self._see_epoch():
                arrivals.clear()
            if epoch != self._epoch & 0xFFFF:
                self._drop(record)
            elif kind == LOOK:
                looks[name] = None
            elif kind == MEMBER:
                self._hand_in(arrivals)
                arrivals = []
                self.members.look(payload.decode("ascii", "replace"), name)
            elif kind in TALK:
                self._hand_in(arrivals)  # so that an answer counts what came before
                arrivals = []
                self.questions.hear(kind, name, payload)
            else:
                arrivals += self._arrival(record, now)
        self._hand_in(arrivals)
        for channel in looks:
            self._look(channel)

    def _hand_in(self, arrivals: list[Arrival]) -> None:
        if arrivals:
            self._is_tight = self.client.take_in(arrivals) or self._is_tight

    def _records(self, piece: bytes) -> list[Record]:
        try:
            return records_in(piece)
        except SegmentDamaged as exc:
            self._report(exc)
            return []

    def _arrival(self, record: Record, now: float) -> list[Arrival]:
        """Return what a record means to the layer; nothing if that cannot be told."""
        kind, name, payload, expires_at, _ = record
        arrival = _ARRIVALS.get(kind & ~IN_A_FILE)
        if arrival is None:
            self._report(SegmentDamaged(f"a record of kind {kind}"))
            return []
        if kind & IN_A_FILE:
            if arrival == "message":
                account = self.client.account_of(name)
                self._came[account] = self._came.get(account, 0) + 1
            loaded = self.place.large.load(payload)
            if loaded is None:
                self._report(SegmentDamaged("a large message without its file"))
                return []
            payload = loaded
        return [(arrival, name, payload, expires_at - now)]

    def _drop(self, record: Record) -> None:
        """Let go of what was sent before a flush."""
        kind, name, payload, _, _ = record
        if kind & IN_A_FILE:
            self.place.large.drop(payload)
            if kind & ~IN_A_FILE == MESSAGE:
                account = self.client.account_of(name)
                self._came[account] = self._came.get(account, 0) + 1

    def _see_epoch(self) -> bool:
        """Let go of everything if the prefix was flushed; say whether it was."""
        epoch = self._board[EPOCH]
        is_new = epoch != self._epoch
        if is_new:
            self._epoch = epoch
            self.client.forget()
        self.own.inbox.words[SEEN] = epoch
        if self._board[DIRECTORY] != self._generation:
            keeper.hurry()
        return is_new

    def _settle(self) -> None:
        """Enter in the accounts what has come in, and what waits now."""
        if not self.own.lock.try_acquire():
            return  # with the next one; until then some channels look fuller than they are
        try:
            self._settle_here()
        except SegmentDamaged as exc:
            self._rebuild(exc)
        finally:
            self.own.lock.release()

    def _settle_here(self) -> None:
        """The same, under the lock of the inbox."""
        ledger = self.client.ledger
        self._refusals.settle()
        if not (self._came or ledger.unentered or ledger.changed):
            return
        came, self._came, self._is_tight = self._came, {}, False
        inbox = self.own.inbox
        is_renewed = inbox.is_table_full
        if is_renewed:
            self._renew_table()

        def enter(queued: list[tuple[str, int]]) -> list[int]:
            digests = [(digest_of(name), count) for name, count in queued]
            places = inbox.settle(came, digests)
            return [places.get(digest, 0) for digest, _ in digests]

        self.client.enter(enter, everything=is_renewed)

    def _renew_table(self) -> None:
        """Make room in the table of accounts, in a larger one if need be."""
        inbox = self.own.inbox
        self._refusals.collect()
        larger = inbox.larger_table()
        if larger:
            offset = _layout.table_offset(inbox.ring_bytes, larger)
            try:
                self.own.segment.allocate_range(offset, _layout.table_bytes(larger))
            except SharedMemoryFull:
                larger = 0  # full channels that have no place are refused
        if larger:
            inbox.grow_table(larger)
        else:
            inbox.renew_table()

    def _rebuild(self, exc: SegmentDamaged) -> None:
        """Make the own inbox anew, under its lock."""
        self.own.inbox.reset()
        self._came.clear()
        self._report(exc)

    def _report(self, exc: Exception) -> None:
        _logger.error("the inbox of client %s is damaged: %s", self.row.id, exc)
        self.client.gap()

    def numbers_of(self, channel: str) -> Statistics:
        """Return the numbers of an own channel, as far as they have come in."""
        return self._refusals.added_to(self.client.statistics(channel), channel)

    # What it waits for

    def want(self, channel: str, readers: int) -> None:
        """Hear how many receivers wait; never waits, any thread."""
        if readers:
            self._wanted[channel] = readers
        else:
            self._wanted.pop(channel, None)
            if channel not in self._waiting:
                return
        self._look(channel)

    def take_now(self, channel: str) -> bytes | None:
        """Take a message of a channel if that is possible at once."""
        queue = self.place.queues.of(channel)
        lock = queue.lock
        if self.line_of(queue).is_served or not lock.try_acquire():
            return None
        try:
            found = queue.structure.take(channel, time.monotonic())
        except CorruptSegment as exc:
            self.rebuild_queue(queue, exc)
            return None
        finally:
            lock.release()
        if found is None:
            return None
        _, payload, _, kind = found
        return self.place.large.load(payload) if kind else payload

    def _look(self, name: str) -> None:
        """Fetch what is wanted of a channel, or pass the hint on."""
        for channel in _places_of(name):
            queue = self.place.queues.of(channel)
            self.line_of(queue).post(partial(self._fetch, queue, channel))

    async def answer(self, name: str) -> None:
        """Return when what was wanted of a channel has been looked for."""
        for channel in _places_of(name):
            await self.line_of(self.place.queues.of(channel)).run(_nothing)

    def _fetch(self, queue: Queue, channel: str) -> None:
        """Hand over as many messages as are wanted; under the lock of the queue."""
        structure, now = queue.structure, time.monotonic()
        while self._wanted.get(channel, 0) > 0 and not self._is_closed:
            found = self._sound(queue, lambda: structure.take(channel, now))
            if found is None:
                structure.wait(channel, self.row.slot)
                self._waiting.add(channel)
                return
            name, payload, expires_at, kind = found
            loaded = self.place.large.load(payload, keep=True) if kind else payload
            if loaded is None:
                self._report(SegmentDamaged("a large message without its file"))
                continue
            self._wanted[channel] -= 1
            if not self.client.deliver(name, loaded, expires_at - now):
                self._wanted.pop(channel, None)
                slot = structure.push_front(name, [(payload, expires_at, kind)], now)
                self.wake(slot, name)
            elif kind:
                self.place.large.drop(payload)
        self._waiting.discard(channel)
        self.wake(structure.unwait(channel, self.row.slot), channel)

    def hand_back(self, channel: str, letters: Sequence[tuple[bytes, float]]) -> bool:
        """Put what was fetched and not read to the front again; False when this is closed.

        Args:
            channel: Where it was fetched.
            letters: Payloads and when each expires, oldest first.
        """
        with self._handing_back:
            if self._is_closed:
                return False
            queue = self.place.queues.of(channel)
            now = time.monotonic()
            entries = [(payload, expires_at, 0) for payload, expires_at in letters]

            def put() -> None:
                self.wake(queue.structure.push_front(channel, entries, now), channel)

            self.line_of(queue).post(put)
            return True

    def wake(self, slot: int, channel: str) -> None:
        """Let the client with a slot look at a channel.

        A hint, and no more: the message is safe in its queue, and where the hint fails the client
        finds it at its next beat.
        """
        if slot < 0:
            return
        with contextlib.suppress(Busy, SegmentDamaged, BackendUnavailable):
            peer = self.place.peer_at(slot)
            if peer is not None:
                self.line_of(peer).post(partial(self._hint, peer, channel.encode()))

    def _hint(self, peer: Peer, channel: bytes) -> None:
        peer.inbox.push(LOOK, channel, b"", _NEVER, self.place.epoch)
        peer.wake()

    def _sound(self, queue: Queue, take: Callable[[], T]) -> T | None:
        try:
            return take()
        except CorruptSegment as exc:
            self.rebuild_queue(queue, exc)
            return None

    def rebuild_queue(self, queue: Queue, exc: Exception) -> None:
        """Make damaged queues anew, under their lock."""
        _logger.error("%s is damaged, and made anew: %s", queue.segment.path.name, exc)
        self.place.queues.rebuild(queue)
        self.client.gap()

    # Each beat, in the thread of the keeper

    def beat(self) -> None:
        """Renew, publish, clear up; may block."""
        if self._is_closed:
            return
        self.catch_up()
        try:
            self._look_at_damage()
            self._keep_house()
        except (BackendUnavailable, Busy):
            pass  # it is tried again with the next beat
        except SegmentDamaged as exc:
            self.mend(exc)

    def mend(self, exc: SegmentDamaged) -> None:
        """Make the directory anew; blocks."""
        with contextlib.suppress(BackendUnavailable, SegmentDamaged):
            self.place.mend(exc, self.seconds)
            self.enter_again()

    def _look_at_damage(self) -> None:
        """Raise what a look at the memberships has met, where nothing could be done about it."""
        damage, self.members.damage = self.members.damage, None
        if damage is not None:
            raise damage

    def surely(self, ask: Callable[[], T]) -> T:
        """Ask the directory while it has this client's memberships.

        Raises:
            Busy: it was made anew, and they are not entered again yet.
        """
        generation = self._generation
        if generation == self.place.generation:
            found = ask()
            if generation == self._generation == self.place.generation:
                return found
        raise Busy

    def enter_again(self) -> None:
        """Enter this client and its memberships again if the directory has lost them; blocks."""
        generation = self.place.generation
        if self._is_closed:
            return
        with contextlib.suppress(BackendUnavailable):
            is_entered = self.place.has_entered(self.row.id, self.seconds)
            if is_entered and self._generation == generation:
                return
            self.row = self.place.written(
                self.seconds,
                lambda: self.place.enter_again(self.row, self.client.memberships()),
            )
            with held(self.own.lock, self.seconds):
                self.own.inbox.enter(self.row.id, self.row.pid, self.row.slot)
            self._generation = generation

    def _keep_house(self) -> None:
        for key, line in list(self._lines.items()):
            if line.lock.is_closed and not line.is_served:
                self._lines.pop(key, None)  # of a client that is gone, whose memory it holds
        self._forget()
        self.own.segment.mend_header()
        self.place.mend_headers()
        self.enter_again()
        self.members.look_if_unsure()
        with contextlib.suppress(SegmentHeld):
            if self.own.inbox.has_unread:
                self.rescue()
            self._settle_and_publish()
            for channel in list(self._wanted):
                self._look(channel)
            self._renew()
            self.place.sweep_queues(time.monotonic(), self.seconds)
            for client_id in self.place.sweep(self.seconds):
                _logger.info("client %s has died and was cleared up", client_id)

    def _settle_and_publish(self) -> None:
        with self._draining:
            if not self._is_closed:
                self._settle()
                self._publish()  # and not over what close() has published

    def _publish(self) -> None:
        _numbers.publish(self.own.segment.view, self.client.statistics(), time.monotonic())

    def _renew(self) -> None:
        """Let the memberships last whose channels are read, and end the others."""
        now = time.monotonic()
        directory = self.place.directory
        gone = self.client.take_ended()
        if gone:  # but not what was added again since `now`
            forget = partial(directory.end_members, gone, due_at=now + self.group_expiry)
            self.place.written(self.seconds, forget)
        due = directory.due(self.row.id, now)
        if not due:
            return
        lasting = [member for member in due if self.client.is_member(*member)]
        ended = [member for member in due if member not in set(lasting)]

        def renew() -> None:
            directory.renew_members(lasting, now + self.group_expiry, due_at=now)
            directory.end_members(ended, due_at=now)

        self.place.written(self.seconds, renew)

    def _on_bell(self) -> bool:
        _doorbell.silence(self._listening)
        return self.drain(may_sleep=True)

    def close(self, seconds: float | None = None) -> None:
        """Detach; blocks.

        Args:
            seconds: How long the others may be waited for; None: as for any lock.

        Raises:
            BackendUnavailable: they could not be told in time. They see that nobody lives here.
        """
        keeper.remove(self, seconds)
        with self._draining:
            if self._is_closed:
                return
            with self._handing_back:
                self._is_closed = True
        seconds = self.seconds if seconds is None else seconds
        self._watches.close(self._stop_listening)
        self.client.ledger.counts = []
        self._refusals.close()
        self.questions.close()
        try:
            # What is on its way back is back before anybody is told that this client has gone.
            for line in list(self._lines.values()):
                line.finish(seconds)
            for channel in list(self._waiting):
                queue = self.place.queues.of(channel)
                with held(queue.lock, seconds):
                    slot = self._sound(queue, partial(self._unwait, queue, channel))
                self.wake(-1 if slot is None else slot, channel)
        finally:
            self._publish()
            self.place.leave(self.row, seconds)

    def _unwait(self, queue: Queue, channel: str) -> int:
        return queue.structure.unwait(channel, self.row.slot)

    def _stop_listening(self) -> None:
        listening, self._listening = self._listening, -1
        os.close(listening)

    def _begin_in_child(self) -> None:
        """Let go of the doorbell of the parent."""
        if self._listening >= 0:
            os.close(self._listening)
            self._listening = -1


def _places_of(name: str) -> Iterable[str]:
    """Return the names under which messages of a channel may be wanted."""
    family = non_local_part(name)
    return (name,) if family in (None, name) else (name, family)


def _nothing() -> None:
    pass
