"""What users hold: names, codec, capacities, queues and groups over an optional backend."""

from __future__ import annotations

import itertools
import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self
from weakref import WeakValueDictionary

from . import _fork
from ._client import Inside
from ._core.exchange import Exchange
from ._core.mailbox import Place, Waiter
from ._core.messages import Message
from ._core.names import check_channel, check_group, check_prefix, client_of
from ._core.patience import Asking
from ._core.statistics import Dropped, Statistics
from ._loops import LoopWaiter, abandon, lost_of, new_waiter, pause, wake, wake_behind, wake_soon
from ._remote import Opened, Remote
from .codecs.msgpack import decode, encode
from .errors import (
    ChannelFull,
    ForeignChannel,
    InvalidName,
    LayerClosed,
    MessageTooLarge,
    UnsupportedByBackend,
)
from .guarantees import Guarantees
from .options import LayerOptions

if TYPE_CHECKING:
    from .backend import Backend

_logger = logging.getLogger("channels_layers")

_SENDS_PER_PAUSE: Final = 64  # group_sends that return without waiting before one lets others run

_clients: WeakValueDictionary[str, ChannelLayer] = WeakValueDictionary()  # by client id


class ChannelLayer:
    """Channels and groups for the tasks, threads and event loops of an application.

    Safe to use from several event loops and threads at once. Made without a running loop and
    without touching anything outside the process; opened by the first call.
    """

    ChannelFull = ChannelFull
    MessageTooLarge = MessageTooLarge

    guarantees = Guarantees()

    def __init__(
        self,
        options: LayerOptions,
        backend: Backend | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make a closed layer.

        Args:
            options: What may be set on every layer.
            backend: What connects this layer to others; None: it is alone.
            clock: Returns seconds that never go back; expiry goes by it.

        Raises:
            UnsupportedByBackend: `on_gap` is set, and no backend can tell of a gap yet.
        """
        self.extensions: list[str] = ["groups", "flush", "statistics"]
        self._options = options
        self._backend = backend
        if backend is not None:
            self.guarantees = backend.guarantees
            if options.on_gap is not None and not backend.tells_gaps:
                raise UnsupportedByBackend("on_gap", type(backend).__name__)
        self._capacity = options.rules().capacities.of
        self._clock = clock
        self._lock = threading.Lock()
        self._sent = 0
        self._begin()
        _fork.in_child(self, ChannelLayer._begin_in_child)

    # Channels

    async def send(  # noqa: C901  # one call for each message
        self, channel: str, message: Message
    ) -> None:
        """Put `message` on `channel`; never waits for a reader.

        Args:
            channel: Full channel name; 1 to 100 characters.
            message: ``dict[str, Any]`` of plain values; may be changed afterwards.

        Raises:
            ChannelFull: the channel holds as many unread messages as it may.
            MessageTooLarge: the encoded message exceeds `max_message_bytes`.
            NotSerializable: the message holds a value that cannot be sent; a `TypeError`.
            InvalidName: `channel` breaks the rule for names; a `TypeError`.

        Delivery:
            At most once, to one receiver, within `expiry` seconds; in order for one writer.

        Cancellation:
            The message is wholly sent or not at all, and never after the next call has returned.

        Cost:
            One encoding; O(1).
        """
        payload = encode(message)
        exchange = self._exchange
        remote = self._remote
        if remote is not None:
            if remote.send_now(channel, payload):
                self._sent += 1
                if self._sent % _SENDS_PER_PAUSE == 0:
                    await pause()
                return
            capacity = remote.capacities.get(channel) if channel.__class__ is str else None
            if capacity is not None:  # so its name was checked before
                await remote.send(channel, self._checked_size(payload), capacity)
                return
        if remote is None or remote.turns.is_idle:
            try:
                if exchange.try_offer(channel, payload, self._clock()):
                    return
            except TypeError:  # it cannot be looked up
                check_channel(channel)
                raise
            if remote is None:
                await self._offer(channel, payload)
                return
            if remote.owns(check_channel(channel)):
                if not await self._offer_shared(remote, channel, payload):
                    await remote.in_turn(remote.send, channel, payload, self._capacity(channel))
                return
        elif remote.owns(check_channel(channel)):
            await remote.in_turn(self._send_shared, remote, channel, payload)
            return
        capacity = self._capacity(channel)
        remote.remember(channel, capacity)
        await remote.send(channel, self._checked_size(payload), capacity)

    async def _offer(self, channel: str, payload: bytes) -> None:
        """Queue a message that lives here, and wake its receiver."""
        exchange = self._exchange
        try:
            with self._lock:
                waiter = exchange.offer(channel, payload, self._clock())
        except ChannelFull:
            await self._pause()  # whoever tries again at once must let the readers run
            raise
        finally:
            if exchange.heirs:
                self._wake_heirs()
        if waiter is not None:
            lost = wake((waiter,))
            if lost:
                self._bury(lost)
        elif exchange.is_pause_due(channel):
            await self._pause()
        if exchange.unlogged:
            self._log_drops()

    async def _send_shared(self, remote: Remote, channel: str, payload: bytes) -> None:
        """Send to an own channel, to which other clients write as well."""
        if not await self._offer_shared(remote, channel, payload):
            await remote.send(channel, payload, self._capacity(channel))

    async def _offer_shared(self, remote: Remote, channel: str, payload: bytes) -> bool:
        """Queue a message on such a channel; False where it must go the way of all others."""
        if not remote.keeps_accounts:
            await self._offer(channel, payload)
            return True
        self._checked_size(payload)
        try:
            is_queued, waiter = remote.offer_here(channel, payload)
        finally:
            if self._exchange.heirs:
                self._wake_heirs()
        if not is_queued:
            return False
        if waiter is not None:
            self._wake((waiter,))
        elif self._exchange.is_pause_due(channel):
            await self._pause()
        if self._exchange.unlogged:
            self._log_drops()
        return True

    async def receive(self, channel: str) -> Message:  # noqa: C901  # one call for each message
        """Wait for the next message on `channel`.

        Any number of tasks, in any loops and threads, may wait on one channel; each message
        goes to one of them, the longest waiting first.

        Args:
            channel: Full channel name; or a non-local part such as ``"specific.CLIENT!"``, for
                the next message of any channel that begins with it.

        Returns:
            The message as sent, a fresh ``dict[str, Any]``.

        Raises:
            ForeignChannel: `channel` belongs to another live client; a `ValueError`.
            InvalidName: `channel` breaks the rule for names; a `TypeError`.
            LayerClosed: the layer was closed during the wait.

        Delivery:
            At most once; never a message older than `expiry` seconds.

        Cancellation:
            No message was taken, and the others keep their order.

        Cost:
            One decoding; O(1). Returns without yielding to the event loop when a message waits,
            but for one in 64 such calls.
        """
        exchange = self._exchange
        session = exchange.session
        remote = self._remote
        try:
            if remote is not None and remote.must_look:
                mailbox = exchange.by_name.get(channel)
                if mailbox is None or not mailbox.letters:
                    remote.catch_up()
                else:
                    remote.see_flush()
            found = exchange.receive(channel, self._clock)
        except TypeError:  # it cannot be looked up
            check_channel(channel)
            raise
        if found is None:
            found = self._look_closer(channel)
        if found.__class__ is not bytes:
            if found is None:
                return (await self._receive((channel,)))[1]
            waiter: Waiter = found
            try:
                if remote is not None:
                    remote.listen()
                await waiter
            except BaseException as exc:
                self._leave(exchange.place_of(channel, waiter), exc)
                raise
            if remote is not None:
                remote.catch_up()  # a flush may have come since it was woken
            found = exchange.resume(channel, waiter, self._clock)
            if found is None:
                place = exchange.place_of(channel, waiter)
                return (await self._receive((channel,), place, session))[1]
        try:
            return decode(found)
        except ValueError:
            self._count_undecodable(channel)
            return (await self._receive((channel,)))[1]

    def _look_closer(self, channel: str) -> bytes | Waiter | None:
        """Take a message of `channel`, or get in line, where the shortest way did not."""
        remote = self._remote
        if remote is not None and remote.is_takeable(channel):
            return remote.take_now(channel)
        name = self._check_readable(channel)
        if name.endswith("!"):
            return None
        if remote is not None and not remote.is_home_of(name):
            return remote.take_now(name)
        with self._lock:
            self._exchange.admit(name, self._clock())
        return self._exchange.receive(channel, self._clock)

    async def receive_from(self, channels: Iterable[str]) -> tuple[str, Message]:
        """Wait for the next message on any of `channels`.

        Where several have one, the channel that was served least recently goes first, so a busy
        channel never starves a quiet one.

        Args:
            channels: Channel names as for `receive`; at least one.

        Returns:
            The full name that the message was sent to, and the message.

        Raises:
            ForeignChannel: one of `channels` belongs to another live client; a `ValueError`.
            InvalidName: one of `channels` breaks the rule for names, or there is none; a
                `TypeError`.
            LayerClosed: the layer was closed during the wait.

        Cancellation:
            No message was taken, and the others keep their order.

        Cost:
            One decoding; O(number of channels).
        """
        names = tuple(self._check_readable(name) for name in _several(channels))
        return await self._receive(names)

    async def new_channel(self, prefix: str = "specific") -> str:
        """Return a fresh name that no other call on any client returns.

        Args:
            prefix: Begin of the name, 1 to 70 characters. With a "?" at its end the name is a
                single-reader channel; else it is a process-specific channel of this client.

        Raises:
            InvalidName: `prefix` breaks the rule for names; a `TypeError`.

        Cancellation:
            Nothing to undo.
        """
        text = check_prefix(prefix)
        if self._remote is not None:
            await self._remote.ready(stay=False)
        number = next(self._numbers)
        if text.endswith("?"):
            return f"{text}{self._client}.{number}"
        return f"{text}.{self._client}!{number}"

    # Groups

    async def group_add(self, group: str, channel: str) -> None:
        """Make `channel` a member of `group`, or renew its membership.

        When it has returned, a `group_send` from any client reaches the channel.

        Raises:
            InvalidName: one of the names breaks the rule; a `TypeError`.

        Cancellation:
            Wholly done or not at all.
        """
        check_group(group)
        check_channel(channel)
        if self._remote is not None:
            await self._remote.group_add(group, channel)
            return
        with self._lock:
            self._exchange.group_add(group, channel, self._clock())

    async def group_discard(self, group: str, channel: str) -> None:
        """End the membership of `channel` in `group`; no error where there is none.

        When it has returned, later `group_send`s miss the channel.

        Raises:
            InvalidName: one of the names breaks the rule; a `TypeError`.

        Cancellation:
            Wholly done or not at all.
        """
        check_group(group)
        check_channel(channel)
        if self._remote is not None:
            await self._remote.group_discard(group, channel)
            return
        with self._lock:
            self._exchange.group_discard(group, channel, self._clock())

    async def group_send(self, group: str, message: Message) -> None:
        """Put one copy of `message` on every channel of `group`.

        A member that is full misses the message; that is counted, and logged once per channel.

        Raises:
            MessageTooLarge: the encoded message exceeds `max_message_bytes`.
            NotSerializable: the message holds a value that cannot be sent; a `TypeError`.
            InvalidName: `group` breaks the rule for names; a `TypeError`.

        Delivery:
            At most once to each member; in order with the direct messages of one writer.

        Cancellation:
            Every member has its copy or none has.

        Cost:
            One encoding; O(members), all copies share one payload.
        """
        payload = self._checked_size(encode(message))
        check_group(group)
        if self._remote is not None:
            await self._remote.group_send(group, payload)
        else:
            self._fan_out(group, payload)
        self._sent += 1
        if self._sent % _SENDS_PER_PAUSE == 0:
            await self._pause()

    async def group_channels(self, group: str) -> list[str]:
        """Return the names of the current members of `group`.

        Raises:
            InvalidName: `group` breaks the rule for names; a `TypeError`.

        Cancellation:
            Nothing to undo.
        """
        check_group(group)
        if self._remote is not None:
            return await self._remote.group_channels(group)
        with self._lock:
            return self._exchange.group_channels(group, self._clock())

    # The whole layer

    async def flush(self) -> None:
        """Forget all messages and groups; receivers go on waiting.

        Cancellation:
            Wholly done or not at all.
        """
        if self._remote is not None:
            await self._remote.flush()
            return
        with self._lock:
            self._exchange.mailboxes.clear(self._clock())

    async def statistics(self) -> Statistics:
        """Return the numbers of all channels together; see `Statistics` for the keys.

        Cancellation:
            Nothing to undo.

        Cost:
            O(channels).
        """
        if self._remote is not None:
            return await self._remote.statistics_of_all()
        with self._lock:
            statistics = self._exchange.mailboxes.statistics(self._clock())
        self._wake(())
        self._log_drops()
        return statistics

    async def channel_statistics(self, channel: str) -> Statistics:
        """Return the numbers of `channel` since it came to life.

        Raises:
            InvalidName: `channel` breaks the rule for names; a `TypeError`.

        Cancellation:
            Nothing to undo.
        """
        check_channel(channel)
        if self._remote is not None:
            return await self._remote.statistics_of_all(channel)
        with self._lock:
            return self._exchange.mailboxes.channel_statistics(channel, self._clock())

    async def open(self) -> None:
        """Make the layer ready; calling it is never needed, any call does it.

        Raises:
            BackendUnavailable: the backend cannot be reached.

        Cancellation:
            Nothing to undo.
        """
        if self._remote is not None:
            await self._remote.ready(stay=True)

    async def close(self) -> None:
        """End every waiting receiver with `LayerClosed`, and drop what is this client's own.

        Unread messages on channels that are not process-specific stay. Safe to repeat; a later
        call opens the layer again, as a new client.

        Cancellation:
            Wholly done or not at all.
        """
        with self._lock:
            waiters = self._exchange.shut(self._client, self._clock())
            if self._remote is not None:
                self._remote.leave()
                self._leaving.append(self._remote)
            self._renew_client()
        wake(waiters)
        await self._leave_backend()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    # Helpers

    def _begin(self) -> None:
        self._exchange: Exchange = Exchange(self._options.rules(), new_waiter, wake_soon, lost_of)
        self._client = ""
        self._remote: Remote | None = None
        self._leaving: list[Remote] = []  # closed by close(), but not by their backend yet
        self._opened = Opened()
        self._renew_client()

    def _begin_in_child(self) -> None:
        """Become a client of its own; the parent's messages stay with the parent."""
        self._lock = threading.Lock()
        self._begin()

    def _renew_client(self) -> None:
        _clients.pop(self._client, None)
        self._client = secrets.token_hex(8)
        self._numbers = itertools.count(1)
        _clients[self._client] = self
        self._remote = None
        if self._backend is not None:
            inside = Inside(
                exchange=self._exchange,
                lock=self._lock,
                clock=self._clock,
                wake=self._wake,
                options=self._options,
            )
            self._remote = Remote(
                self._backend, self._client, inside, self._opened, self._leave_backend
            )

    async def _leave_backend(self) -> None:
        """Let former clients of this layer leave the backend, which serves one at a time."""
        while self._leaving:
            remote = self._leaving[0]
            await remote.close()
            # Only now: where that was cancelled, the next call goes on with it.
            if remote in self._leaving:
                self._leaving.remove(remote)

    def _checked_size(self, payload: bytes) -> bytes:
        if len(payload) > self._options.max_message_bytes:
            raise MessageTooLarge(len(payload), self._options.max_message_bytes)
        return payload

    def _check_readable(self, channel: str) -> str:
        name = check_channel(channel, receiving=True)
        client = client_of(name)
        if client is not None and client != self._client and client in _clients:
            raise ForeignChannel(name)
        return name

    async def _receive(
        self, channels: tuple[str, ...], place: Place | None = None, session: object = None
    ) -> tuple[str, Message]:
        """Receive on any lines, be it behind others, or once more from the place of before."""
        exchange = self._exchange
        session = session or exchange.session
        remote = self._remote
        is_first = place is None
        while True:
            if place is None:
                asking = None if remote is None else remote.asking(channels)
                join = partial(exchange.join, channels, asking=asking)
                place, payload = self._line_up(session, join)
                if asking is not None and remote is not None:
                    is_first = not await self._ask(remote, place, asking) and is_first
                    place, payload = self._line_up(session, partial(exchange.join_rest, place))
            else:
                place, payload = self._line_up(session, partial(exchange.resume_slowly, place))
            if remote is not None:
                await self._tell(remote, place, is_first=is_first and payload is None)
                is_first = False
            if payload is not None:
                channel = _channel_of(place)
                place = None
                try:
                    return channel, decode(payload)
                except ValueError:
                    self._count_undecodable(channel)
                    continue
            waiter = place.waiter
            try:
                await waiter
            except BaseException as exc:
                self._leave(place, exc)
                raise

    def _line_up(
        self, session: object, step: Callable[..., tuple[Place, bytes | None]]
    ) -> tuple[Place, bytes | None]:
        """Take a `step` of the exchange, in the session that the caller has begun in."""
        exchange = self._exchange
        if self._remote is not None:
            self._remote.catch_up()
        with self._lock:
            if exchange.session is not session:
                raise LayerClosed
            found = step(now=self._clock())
        if exchange.heirs:
            self._wake_heirs()
        return found

    async def _ask(self, remote: Remote, place: Place, asking: Asking) -> bool:
        """Let the backend answer for channels that were served less recently than others."""
        try:
            return await remote.ask(place, asking)
        except BaseException as exc:
            self._leave(place, exc)
            raise

    async def _tell(self, remote: Remote, place: Place, *, is_first: bool) -> None:
        """Let the backend know who waits; at first see that it is open and the channel ours."""
        if is_first:
            # Only now, since whoever called first must also be the first in line.
            try:
                await remote.prepare(place.lines)
            except BaseException as exc:
                self._leave(place, exc)
                raise
        remote.listen()
        remote.demand(place.lines)

    def _leave(self, place: Place, exc: BaseException) -> None:
        if isinstance(exc, GeneratorExit):
            # The garbage collector throws the coroutine away, perhaps while this very thread
            # holds the lock. Whoever wants to wake the waiter finds the mark.
            abandon(place.waiter)
            return
        # What a backend's thread hands over meanwhile is woken before the heir, or not at all yet.
        with nullcontext() if self._remote is None else self._remote.client.demanding:
            with self._lock:
                heir = self._exchange.leave(place, self._clock())
            if heir is not None and place.mailbox is not None:
                others = [waiter for waiter in list(place.mailbox.granted) if waiter is not heir]
                if lost := wake_behind(heir, others):
                    self._bury(lost)
        if self._remote is not None:
            self._remote.demand(place.lines)

    def _fan_out(self, group: str, payload: bytes) -> None:
        with self._lock:
            waiters = self._exchange.fan_out(group, payload, self._clock())
        self._wake(waiters)

    def _wake(self, waiters: Iterable[Waiter]) -> None:
        lost = wake(waiters)
        if lost:
            self._bury(lost)
        if self._exchange.heirs:
            self._wake_heirs()

    def _wake_heirs(self) -> None:
        """Wake those who have got what receivers of closed loops left behind."""
        with self._lock:
            heirs, self._exchange.heirs[:] = list(self._exchange.heirs), []
        self._wake(heirs)

    def _bury(self, lost: list[LoopWaiter]) -> None:
        """Wake the next in line in the place of each receiver that can never resume."""
        while lost:
            with self._lock:
                heirs = self._exchange.bury(lost)
            lost = wake(heirs)

    async def _pause(self) -> None:
        self._log_drops()
        await pause()

    def _count_undecodable(self, channel: str) -> None:
        with self._lock:
            mailbox = self._exchange.mailboxes.open(channel, self._clock())
            self._exchange.mailboxes.count_dropped(mailbox, Dropped.UNDECODABLE)
        self._log_drops()

    def _log_drops(self) -> None:
        """Log what was dropped; outside the lock, since a handler may use this layer."""
        unlogged = self._exchange.unlogged
        while True:
            try:
                channel, reason = unlogged.pop()
            except IndexError:  # no test before it: another thread may log as well
                return
            _logger.warning("channel %r: a message was dropped: %s", channel, reason.value)


def _channel_of(place: Place) -> str:
    """Return where the message came from that `place` has taken."""
    assert place.mailbox is not None, "it was granted a message"  # noqa: S101
    return place.mailbox.name


def _several(channels: Iterable[str]) -> tuple[str, ...]:
    if isinstance(channels, str):
        raise InvalidName(channels, "receive_from takes several names; receive takes one")
    names = tuple(channels)
    if not names:
        raise InvalidName(names, "receive_from takes at least one channel name")
    return names
