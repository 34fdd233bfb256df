"""The backend of the IPC layer: what a layer asks for, done in shared memory."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Final, TypeVar

from .. import _fork
from .._core.names import client_of
from .._loops import pause
from ..backend import Backend, Client, Prompt
from ..errors import BackendUnavailable, ChannelFull
from ..guarantees import Guarantees
from ..options import LayerOptions
from ..statistics import Statistics, add_up
from ._attachment import Attachment
from ._copies import Copies
from ._directory import Busy
from ._errors import (
    SegmentClosed,
    SegmentDamaged,
    SegmentHeld,
    SegmentRefused,
)
from ._exit import at_exit
from ._jobs import Job, completed, executor
from ._layout import MEMBER
from ._peer import Peer
from ._place import Place
from ._places import places
from ._queue_layout import CorruptSegment
from ._room import Sizes
from ._routes import InboxRoute, QueueRoute, Route, pushed
from ._segment import held

T = TypeVar("T")

_FLUSHED_S: Final = 1.0  # how long to wait for clients to hear of a flush; they hear it anyway
_POLL_S: Final = 0.002
_ENDED_S: Final = 0.1  # how long the end of a process may wait for another one
_NEVER: Final = float("inf")
_MENDABLE: Final = (SegmentDamaged, CorruptSegment, SegmentRefused, OSError)
_MOST_ROUTES: Final = 16_384  # remembered; then they are looked for again


class IPCBackend(Backend):
    """One layer's connection to the other processes of the machine."""

    guarantees = Guarantees(shared=True, cross_process=True)
    has_home = False
    keeps_accounts = True
    tells_gaps = True

    def __init__(self, prefix: str, sizes: Sizes, options: LayerOptions) -> None:
        """Name the prefix; nothing is touched before `open`."""
        self._prefix = prefix
        self._sizes = sizes
        self._options = options
        self._capacity = options.rules().capacities.of
        self._opening = threading.Lock()
        self._attached: Attachment | None = None
        self._expected: Client | None = None  # whose `open` nobody has cancelled
        self._routes: dict[str, Route] = {}
        self._own_routes: dict[str, Route] = {}
        # What came back while the layer was not attached: channel, payloads and their ends.
        self._kept: deque[tuple[str, list[tuple[bytes, float]]]] = deque()
        _fork.in_child(self, IPCBackend._begin_in_child)

    # Coming and going

    async def open(self, client: Client) -> None:
        """See `Backend.open`."""
        self._expected, attached = client, self._attached
        if attached is None or attached.client is not client:
            try:
                await executor.run(partial(self._attach, client))
            except BaseException:
                if self._expected is client:
                    self._expected = None  # its thread may be about to begin, or in the middle
                raise
        attached = self._attached
        if attached is not None:  # or it was closed meanwhile, which the layer knows
            attached.listen()

    async def close(self) -> None:
        """See `Backend.close`."""
        attached = self._attached
        if attached is not None or self._opening.locked():
            try:
                await executor.run(partial(self._detach, attached))
            finally:
                await pause()  # for the watch of this loop to end

    def _attach(self, client: Client) -> None:
        with self._opening:
            if self._expected is not client:
                executor.stop_unless(places.has_any)
                return
            attached = self._attached
            if attached is not None:
                if attached.client is client:
                    return
                self._let_go(attached)  # whose opening was cancelled
            at_exit(self, IPCBackend._end)
            place = places.get(self._prefix, self._sizes)
            try:
                self._attached = Attachment(
                    place,
                    client,
                    seconds=self._options.timeout,
                    group_expiry=self._options.group_expiry,
                    forget=self._forget_gone,
                )
            except BaseException:
                places.release(self._prefix, place)
                executor.stop_unless(places.has_any)
                raise
            while self._kept:
                self._attached.hand_back(*self._kept.popleft())

    def _detach(self, attached: Attachment | None) -> None:
        """Let go of what was attached, or was attached for an `open` that was cancelled."""
        with self._opening:
            found = self._attached
            try:
                if found is not None and (found is attached or found.client is not self._expected):
                    self._let_go(found)
            finally:
                executor.stop_unless(places.has_any)

    def _end(self) -> None:
        """Leave at the end of the process, where that is possible at once."""
        if self._opening.acquire(timeout=_ENDED_S):
            try:
                if self._attached is not None:
                    self._let_go(self._attached, _ENDED_S)
            finally:
                self._opening.release()

    def _let_go(self, attached: Attachment, seconds: float | None = None) -> None:
        self._routes.clear()
        self._own_routes.clear()
        try:
            attached.close(seconds)
        finally:
            self._attached = None
            places.release(self._prefix, attached.place)

    def _begin_in_child(self) -> None:
        self._opening = threading.Lock()
        self._attached = self._expected = None
        self._routes, self._own_routes = {}, {}
        self._kept.clear()

    @property
    def _open(self) -> Attachment:
        if self._attached is None:
            raise BackendUnavailable("shared memory")
        return self._attached

    # Messages

    def send_now(self, channel: str, payload: bytes) -> bool:
        """See `Prompt.send_now`."""
        route = self._routes.get(channel)
        if route is None or len(payload) > route.longest:
            return False
        try:
            slot = route.push_now(payload, time.monotonic() + self._options.expiry)
        except _MENDABLE:
            return False  # send() mends, or tells
        if slot is None:
            return False
        if slot >= 0:
            route.attached.wake(slot, channel)
        return True

    async def send(self, channel: str, payload: bytes, capacity: int) -> None:
        """See `Backend.send`."""
        try:
            await self._send(channel, payload, capacity)
        except SegmentClosed:
            if self._attached is None:
                raise
            await self._send(channel, payload, capacity)  # its client has gone at this moment

    async def _send(self, channel: str, payload: bytes, capacity: int) -> None:
        attached = self._open
        route = self._route(attached, channel, capacity)
        expires_at = time.monotonic() + self._options.expiry
        parcel = attached.place.large.parcel(route.owner, payload, route.longest, expires_at)

        def push() -> int:
            parcel.check()
            return route.push(parcel.payload, expires_at, parcel.flag)

        try:
            slot = await route.line.run(
                partial(pushed, route, push), before=parcel.prepare, otherwise=parcel.drop
            )
        except ChannelFull:
            await pause()  # whoever tries again at once must let the readers run
            raise
        if slot is not None:
            attached.wake(slot, channel)
        attached.catch_up()  # it may be an own channel

    def _forget_gone(self) -> None:
        """Let go of the ways to clients that are gone, whose memory they hold."""
        for channel, route in list(self._routes.items()):
            if route.is_stale and self._routes.get(channel) is route:
                self._routes.pop(channel, None)

    def _route(self, attached: Attachment, channel: str, capacity: int) -> Route:
        route = self._routes.get(channel) or self._own_routes.get(channel)
        if route is not None and route.attached is attached and not route.is_stale:
            return route
        client = client_of(channel)
        place = attached.place
        peer = self._peer(place, client) if client and self._is_alive(place, client) else None
        if peer is not None:
            route = InboxRoute(attached, peer, channel, capacity)
        else:
            route = QueueRoute(attached, place.queues.of(channel), channel, capacity)
        # Own channels are not for send_now(): they go the short way where they can.
        routes = self._own_routes if peer is attached.own else self._routes
        if len(routes) >= _MOST_ROUTES:
            routes.clear()
        routes[channel] = route
        return route

    def prompt(self) -> Prompt:
        """See `Backend.prompt`."""
        attached = self._open
        own = attached.line_of(attached.own)
        return Prompt(
            send_now=self.send_now,
            take_now=attached.take_now,
            catch_up=attached.catch_up,
            see_flush=attached.see_flush,
            listen=attached.listen,
            is_idle=lambda: not own.is_served,
        )

    def want(self, channel: str, readers: int) -> None:
        """See `Backend.want`."""
        if self._attached is not None:
            self._attached.want(channel, readers)

    def give_back(self, channel: str, letters: Sequence[tuple[bytes, float]]) -> None:
        """See `Backend.give_back`."""
        now = time.monotonic()
        timed = [(payload, now + lifetime) for payload, lifetime in letters]
        attached = self._attached
        if attached is None or not attached.hand_back(channel, timed):
            self._kept.append((channel, timed))  # until this layer is attached again

    async def answer(self, channels: Iterable[str]) -> float:
        """See `Backend.answer`."""
        for channel in channels:
            await self._open.answer(channel)
        return 0.0

    async def is_alive(self, client_id: str) -> bool:
        """See `Backend.is_alive`."""
        return self._is_alive(self._open.place, client_id)

    # Groups

    async def group_add(self, group: str, channel: str) -> None:
        """See `Backend.group_add`."""
        attached = self._open
        ends_at = time.monotonic() + self._options.group_expiry
        owner = self._owner(attached, channel)
        directory = attached.place.directory

        def add() -> None:
            directory.add_member(group, channel, owner, ends_at)

        def add_and_tell() -> Job[object] | None:
            if owner == attached.row.id:
                attached.members.change(group, channel, add=add)
                return None
            add()
            return self._tell(attached, owner, group, channel)

        await self._change(attached, add_and_tell)

    async def group_discard(self, group: str, channel: str) -> None:
        """See `Backend.group_discard`."""
        attached = self._open
        owner = self._owner(attached, channel)
        directory = attached.place.directory

        def discard_and_tell() -> Job[object] | None:
            if owner == attached.row.id:
                attached.members.change(group, channel, add=None)
                return None
            directory.discard_members([(group, channel)])
            return self._tell(attached, owner, group, channel)

        await self._change(attached, discard_and_tell)

    async def _change(self, attached: Attachment, change: Callable[[], Job[object] | None]) -> None:
        """Change the directory, and wait until the owner of the channel can know."""
        try:
            told = await attached.board_line.run(change)
        except SegmentDamaged as exc:
            await executor.run(partial(attached.mend, exc))
            told = await attached.board_line.run(partial(_mended, change))
        if told is not None:
            with contextlib.suppress(SegmentClosed, SegmentHeld):  # it looks when it can
                await completed([told])

    def _owner(self, attached: Attachment, channel: str) -> str:
        """Return the live client that a channel belongs to, or ""."""
        client = client_of(channel)
        if not client or client == attached.row.id:
            return client or ""
        return client if self._is_alive(attached.place, client) else ""

    def _tell(
        self, attached: Attachment, owner: str, group: str, channel: str
    ) -> Job[object] | None:
        """Let another client, if it lives, look at a membership of its channel."""
        peer = self._peer(attached.place, owner) if owner else None
        if peer is None:
            return None
        epoch = attached.place.epoch

        def push() -> None:
            try:
                is_told = peer.inbox.push(MEMBER, channel.encode(), group.encode(), _NEVER, epoch)
            except SegmentDamaged:
                peer.inbox.reset()
                is_told = False
            if is_told:
                peer.wake()
            else:
                peer.doubt()

        with contextlib.suppress(SegmentClosed):  # a client that is gone needs to know nothing
            return attached.line_of(peer).post(push, otherwise=peer.doubt)
        return None

    async def group_send(self, group: str, payload: bytes) -> None:
        """See `Backend.group_send`."""
        attached = self._open
        place = attached.place
        members = await self._asked(attached, lambda: place.directory.members(group))
        now = time.monotonic()
        others = [channel for channel, ends_at in members.others if ends_at > now]
        peers = list(filter(None, [self._peer(place, owner) for owner in members.owners]))
        # From here on it is done, whoever is cancelled.
        attached.catch_up()
        attached.members.look_if_unsure()
        copies = Copies(attached, group, payload, now + self._options.expiry)
        has_own = False
        for peer in peers:
            # The short way to its own members, unless something is before it on the long one.
            if peer is attached.own and not attached.line_of(peer).is_served:
                has_own = True
            else:
                copies.send(peer)
        for channel in others:
            copies.enqueue(channel, self._capacity(channel))
        if has_own:
            attached.client.fan_out(group, payload)
        await copies.arrive(has_own=has_own)

    async def group_channels(self, group: str) -> list[str]:
        """See `Backend.group_channels`."""
        place = self._open.place
        now = time.monotonic()
        rows = await self._asked(self._open, lambda: place.directory.channels(group, now))
        is_alive = {owner: not owner or place.is_alive(owner) for owner in {row[1] for row in rows}}
        return [channel for channel, owner in rows if is_alive[owner]]

    # The whole prefix

    async def flush(self) -> None:
        """See `Backend.flush`."""
        attached = self._open
        await executor.run(partial(_mending, attached, partial(self._flush, attached)))
        attached.catch_up()

    def _flush(self, attached: Attachment) -> None:
        place, seconds = attached.place, self._options.timeout
        place.flush_epoch(seconds)
        for queue in place.queues.all():
            with held(queue.lock, seconds):
                try:
                    queue.structure.clear()
                except CorruptSegment as exc:
                    attached.rebuild_queue(queue, exc)
            place.queues.drop_released(queue)
        attached.catch_up()
        peers = [peer for peer in place.live_peers(seconds) if peer is not attached.own]
        for peer in peers:
            with held(peer.lock, seconds):
                peer.wake()
            peer.ring()
        # Whoever is late lets go before it hands out anything: it looks at the epoch first.
        ends_at = time.monotonic() + _FLUSHED_S
        epoch = place.epoch
        while time.monotonic() < ends_at and not all(peer.has_seen(epoch) for peer in peers):
            time.sleep(_POLL_S)

    async def statistics(self, channel: str | None = None) -> Statistics:
        """See `Backend.statistics`."""
        attached = self._open
        if channel is None:
            return await executor.run(
                partial(_mending, attached, partial(self._statistics, attached))
            )
        owner = self._owner(attached, channel)
        if owner == attached.row.id:
            attached.catch_up()
            return attached.numbers_of(channel)
        peer = self._peer(attached.place, owner) if owner else None
        numbers = await attached.questions.ask(peer, channel) if peer is not None else None
        if numbers is not None:
            return numbers
        return await executor.run(partial(self._statistics_of, attached, channel))

    def _statistics(self, attached: Attachment) -> Statistics:
        place, now = attached.place, time.monotonic()
        attached.catch_up()
        parts = [attached.client.statistics()]
        for queue in place.queues.all():
            with held(queue.lock, self._options.timeout):
                try:
                    parts.append(queue.structure.statistics(now))
                except CorruptSegment as exc:
                    attached.rebuild_queue(queue, exc)
        parts += place.statistics(attached.row.id, self._options.timeout)
        return add_up(parts)

    def _statistics_of(self, attached: Attachment, channel: str) -> Statistics:
        queue = attached.place.queues.of(channel)
        with held(queue.lock, self._options.timeout):
            try:
                return queue.structure.statistics_of(channel, time.monotonic())
            except CorruptSegment as exc:
                attached.rebuild_queue(queue, exc)
                return queue.structure.statistics_of(channel, time.monotonic())

    # Helpers

    async def _asked(self, attached: Attachment, ask: Callable[[], T]) -> T:
        """Ask the directory, in an executor if another process is in the way."""
        asked = partial(attached.surely, ask)
        try:
            return asked()
        except Busy:
            await executor.run(partial(_mending, attached, attached.enter_again))
        except SegmentDamaged as exc:
            await executor.run(partial(attached.mend, exc))
        again = partial(_mended, asked)
        return await executor.run(partial(attached.place.written, self._options.timeout, again))

    def _is_alive(self, place: Place, client_id: str) -> bool:
        # Not by the directory, which may have lost it and not been noticed yet.
        return place.is_alive(client_id)

    def _peer(self, place: Place, client_id: str) -> Peer | None:
        try:
            return place.peer(client_id)
        except (Busy, SegmentDamaged) as exc:
            raise BackendUnavailable(f"inbox-{client_id}") from exc


def _mending(attached: Attachment, ask: Callable[[], T]) -> T:
    """Ask what may need the directory, and again if that had to be made anew for it; blocks."""
    try:
        return ask()
    except SegmentDamaged as exc:
        attached.mend(exc)
    return _mended(ask)


def _mended(ask: Callable[[], T]) -> T:
    """Ask a directory that was made anew.

    Raises:
        SegmentRefused: it was not, or is damaged again.
    """
    try:
        return ask()
    except SegmentDamaged as exc:
        raise SegmentRefused("directory", str(exc)) from exc
