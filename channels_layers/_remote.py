"""What a layer does with its backend: routing, demand, and what arrives from other clients."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, TypeVar

from anyio import fail_after

from ._core.exchange import Exchange
from ._core.mailbox import Line, Mailbox, Waiter
from ._core.names import client_of
from ._core.statistics import Statistics
from ._home import Home
from ._turns import Turns
from .errors import BackendTimeout, ChannelFull, ForeignChannel

if TYPE_CHECKING:
    from .backend import Backend

T = TypeVar("T")


class Remote:
    """One client of a backend; it is also the `Client` that the backend talks to.

    A channel that lives in the backend has a mailbox here while receivers wait for it. It holds
    only messages that a receiver was woken for; what a cancelled one leaves behind goes back.
    """

    def __init__(
        self,
        backend: Backend,
        client_id: str,
        exchange: Exchange,
        lock: threading.Lock,
        clock: Callable[[], float],
        timeout: float,
        wake: Callable[[Iterable[Waiter]], None],
        fan_out: Callable[[str, bytes], None],
        before_open: Callable[[], Awaitable[None]],
    ) -> None:
        self.id = client_id
        self._backend = backend
        self._exchange = exchange
        exchange.mailboxes.groups.ended = []
        self._lock = lock
        self._clock = clock
        self._timeout = timeout
        self._wake = wake
        self.fan_out = fan_out  # see `Client.fan_out`
        self._before_open = before_open
        self.turns = Turns()
        self._home = Home(self._open, is_fixed=backend.has_home)

    # What the layer asks for

    def owns(self, channel: str) -> bool:
        """Say whether `channel` lives in this client."""
        return client_of(channel) == self.id

    async def run(
        self, function: Callable[..., Awaitable[T]], *args: object, claim: bool = False
    ) -> T:
        """Call a coroutine function of the backend where it must run, opened.

        Raises:
            BackendTimeout: it has not answered in time.
        """
        try:
            with fail_after(self._timeout):
                return await self._home.run(lambda: function(*args), claim=claim)
        except TimeoutError as exc:
            raise BackendTimeout(type(self._backend).__name__) from exc

    async def ready(self, *, stay: bool) -> None:
        """Open the backend; with `stay` the running loop becomes its home if it has none.

        Raises:
            BackendUnavailable: it cannot be opened.
        """
        if not self._home.is_open:
            await self.run(_nothing, claim=stay)

    async def send(self, channel: str, payload: bytes, capacity: int) -> None:
        """Send to a channel that this client does not own."""
        await self.run(self._backend.send, channel, payload, capacity)

    def is_home_of(self, channel: str) -> bool:
        """Say whether `channel` lives in this client, and the backend is open for it."""
        return self._home.is_open and self.owns(channel)

    async def prepare(self, lines: Iterable[Line]) -> None:
        """See to it that messages can come to receivers that wait at `lines`.

        Raises:
            ForeignChannel: another live client owns one of the channels.
            BackendUnavailable: the backend cannot be opened.
        """
        await self.ready(stay=True)
        for line in lines:
            client = client_of(line.name)
            if client == self.id:
                continue
            if client:
                is_alive: bool = await self.run(self._backend.is_alive, client)
                if is_alive:
                    raise ForeignChannel(line.name)
            if isinstance(line, Mailbox):
                line.is_staging = True

    def demand(self, lines: Iterable[Line]) -> None:
        """Tell the backend how many receivers wait at `lines`, and give back what none wants."""
        for line in lines:
            if self.owns(line.name):
                continue
            with self._lock:
                readers = len(line.waiting)
                surplus = self._exchange.take_surplus(line, self._clock())
            for channel, letters in surplus:
                self._backend.give_back(channel, letters)
            self._backend.want(line.name, readers)

    async def group_add(self, group: str, channel: str) -> None:
        """Make `channel` a member for all clients."""
        await self.run(self._backend.group_add, group, channel)

    async def group_discard(self, group: str, channel: str) -> None:
        """End a membership for all clients."""
        await self.run(self._backend.group_discard, group, channel)

    async def group_channels(self, group: str) -> list[str]:
        """Return the members that live here and those that live elsewhere."""
        everywhere = await self.run(self._backend.group_channels, group)
        with self._lock:
            here = self._exchange.group_channels(group, self._clock())
        return here + [channel for channel in everywhere if not self.owns(channel)]

    async def group_send(self, group: str, payload: bytes) -> None:
        """Send to all members, here and elsewhere; tell the backend before which have ended."""
        with self._lock:
            ended = self._exchange.take_ended()
        turn = await self.turns.begin_group()
        try:
            for ended_group, channel in ended:
                await self.run(self._backend.group_discard, ended_group, channel)
            await self.run(self._backend.group_send, group, payload)
        finally:
            self.turns.end(turn)

    async def flush(self) -> None:
        """Let every client forget everything."""
        await self.run(self._backend.flush)

    async def statistics_of_all(self, channel: str | None = None) -> Statistics:
        """Return the numbers of all clients together."""
        return await self.run(self._backend.statistics, channel)

    async def close(self) -> None:
        """Leave the backend; what was delivered and not read is back in it before."""
        with self._lock:
            lines = list(self._exchange.mailboxes.lines())
        self.demand(lines)
        await self._home.close(self._backend.close)

    # What the backend tells: the `Client` protocol

    def deliver(self, channel: str, payload: bytes, lifetime: float) -> bool:
        """See `Client.deliver`."""
        now = self._clock()
        has_taken = True
        with self._lock:
            if self.owns(channel):
                try:
                    waiter = self._exchange.offer(channel, payload, now)
                except ChannelFull:
                    waiter, has_taken = None, False
            else:
                waiter = self._exchange.hand(channel, payload, lifetime, now)
                has_taken = waiter is not None
        self._wake(() if waiter is None else (waiter,))
        return has_taken

    def member_added(self, group: str, channel: str) -> None:
        """See `Client.member_added`."""
        with self._lock:
            self._exchange.group_add(group, channel, self._clock())

    def member_discarded(self, group: str, channel: str) -> None:
        """See `Client.member_discarded`."""
        with self._lock:
            self._exchange.group_discard(group, channel, self._clock())

    def forget(self) -> None:
        """See `Client.forget`."""
        with self._lock:
            self._exchange.mailboxes.clear(self._clock())

    def statistics(self, channel: str | None = None) -> Statistics:
        """See `Client.statistics`."""
        with self._lock:
            mailboxes = self._exchange.mailboxes
            if channel is None:
                statistics = mailboxes.statistics(self._clock())
            else:
                statistics = mailboxes.channel_statistics(channel, self._clock())
        self._wake(())
        return statistics

    async def _open(self) -> None:
        await self._before_open()
        await self._backend.open(self)


async def _nothing() -> None:
    pass
