"""What a layer asks of its backend: routing, demand, and the order of what it sends."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final, TypeVar

from anyio import fail_after, move_on_after, sleep

from ._client import Inside, LocalClient
from ._core.mailbox import Line, Mailbox, Place, Waiter
from ._core.names import client_of, non_local_part
from ._core.patience import Asking, Patience
from ._core.statistics import Statistics
from ._home import Home, Watch
from ._turns import Turn, Turns
from .backend import NOTHING_AT_ONCE, Prompt
from .errors import BackendTimeout, BackendUnavailable, ForeignChannel, LayerClosed

if TYPE_CHECKING:
    from .backend import Backend

T = TypeVar("T")

_TAKEN_PER_PAUSE: Final = 64  # messages taken without waiting before other tasks get a turn
_POLL_S: Final = 0.01  # between two looks whether something has come
_PATIENCE: Final = 0.1  # of the time for a call; what waits here waits so long for the backend
_MOST_KNOWN: Final = 4096  # names of channels remembered; then they are checked again


class Opened:
    """For which client of a layer its backend was opened last; it serves one at a time."""

    def __init__(self) -> None:
        self.client_id = ""  # none yet


class Remote:
    """One client's side of a backend.

    A channel that lives in the backend has a mailbox here while receivers wait for it. It holds
    only messages that a receiver was woken for; what a cancelled one leaves behind goes back.
    """

    def __init__(
        self,
        backend: Backend,
        client_id: str,
        inside: Inside,
        opened: Opened,
        before_open: Callable[[], Awaitable[None]],
    ) -> None:
        """Make a client that is not attached yet.

        Args:
            backend: Connects it to the others.
            client_id: Its id.
            inside: The layer.
            opened: Of the layer, for all its clients.
            before_open: Is awaited before the backend is opened.
        """
        self.id = client_id
        self.client = LocalClient(
            client_id,
            inside,
            keeps_accounts=backend.keeps_accounts,
            tells_later=backend.has_home,
            adrift=self._take_over,
        )
        self.keeps_accounts = backend.keeps_accounts
        self.turns = Turns(type(backend).__name__, inside.options.timeout)
        self._backend = backend
        self._exchange = inside.exchange
        self._exchange.mailboxes.groups.ended = []
        self._lock = inside.lock
        self._clock = inside.clock
        self._timeout = inside.options.timeout
        self._opened = opened
        self._before_open = before_open
        self._home = Home(self._open, self._be_open, is_fixed=backend.has_home)
        self._watch = Watch(self._home, self._is_needed, self._take_over_here)
        self._be_prompt(NOTHING_AT_ONCE)
        self._patience = Patience()
        self._taken = 0
        self._takeable: set[str] = set()  # names that were checked
        self.capacities: dict[str, int] = {}  # by channel that lives elsewhere, and was sent to
        self._is_left = False

    def remember(self, channel: str, capacity: int) -> None:
        """Note the capacity of a channel that lives elsewhere and whose name is in order."""
        if len(self.capacities) >= _MOST_KNOWN:
            self.capacities.clear()
        self.capacities[channel] = capacity

    def owns(self, channel: str) -> bool:
        """Say whether `channel` lives in this client."""
        return client_of(channel) == self.id

    async def run(
        self, function: Callable[..., Awaitable[T]], *args: object, claim: bool = False
    ) -> T:
        """Call a coroutine function of the backend where it must run, opened.

        Raises:
            BackendTimeout: it has not answered in time.
            LayerClosed: this client has left, or leaves at this moment.
        """
        self._check_here()
        try:
            if self.keeps_accounts and self._home.is_open:
                return await function(*args)
            with fail_after(self._timeout):
                return await self._home.run(lambda: function(*args), claim=claim)
        except TimeoutError as exc:
            raise BackendTimeout(type(self._backend).__name__) from exc
        except BackendUnavailable as exc:
            if self._is_left:
                raise LayerClosed from exc
            raise

    async def ready(self, *, stay: bool) -> None:
        """Open the backend; with `stay` the running loop becomes its home if it has none.

        Raises:
            BackendUnavailable: it cannot be opened.
        """
        if not self._home.is_open:
            await self.run(_nothing, claim=stay)

    def leave(self) -> None:
        """Take no more calls; `close` is to follow."""
        self._is_left = True
        self.client.leave()
        self._be_prompt(NOTHING_AT_ONCE)

    async def close(self) -> None:
        """Leave the backend; what was delivered and not read is back in it before."""
        with self._lock:
            lines = list(self._exchange.mailboxes.lines())
        self.demand(lines)
        await self._home.close(self._close_backend)

    def _is_needed(self) -> bool:
        if self._is_left:
            return False
        with self._lock:
            return any(line.waiting for line in self._exchange.mailboxes.lines())

    def _take_over(self) -> None:
        """Go on elsewhere if the home ends while receivers of other event loops wait."""
        self._home.end(is_needed=self._is_needed())

    async def _take_over_here(self) -> None:
        with suppress(BackendUnavailable, LayerClosed):  # it is tried again
            await self.ready(stay=True)

    # Messages

    async def send(self, channel: str, payload: bytes, capacity: int) -> None:
        """Send to a channel by way of the backend."""
        if not (self.keeps_accounts and self._home.is_open) or self._is_left:
            await self.run(self._backend.send, channel, payload, capacity)
            return
        try:  # as `run` does, without another coroutine
            await self._backend.send(channel, payload, capacity)
        except BackendUnavailable as exc:
            if self._is_left:
                raise LayerClosed from exc
            raise

    def offer_here(self, channel: str, payload: bytes) -> tuple[bool, Waiter | None]:
        """Queue a message on an own channel where that is exact; see `Exchange.offer_here`."""
        if not self._home.is_open:
            return False, None
        self.catch_up()
        if not self._is_idle():
            return False, None
        with self._lock:
            return self._exchange.offer_here(channel, payload, self._clock())

    async def in_turn(self, send: Callable[..., Awaitable[None]], *args: object) -> None:
        """Call what sends to an own channel when it cannot overtake anything.

        Raises:
            BackendUnavailable: what was sent before took too long; nothing was done.
        """
        turn = await self.turns.begin(is_direct=True)
        try:
            if not turn.has_waited:
                await send(*args)
                return
            with self._in_time(turn):
                await send(*args)
        finally:
            self.turns.end(turn)

    def is_home_of(self, channel: str) -> bool:
        """Say whether `channel` lives in this client, and the backend is open for it."""
        return self._home.is_open and self.owns(channel)

    def take_now(self, channel: str) -> bytes | None:
        """Take a message of a channel of no client if one is there and nobody waits for it."""
        if channel not in self._takeable:
            # Where the whole non-local part may have receivers, the long way is right.
            if not self.keeps_accounts or client_of(channel) is not None:
                return None
            if len(self._takeable) >= _MOST_KNOWN:
                self._takeable.clear()
            self._takeable.add(channel)
        mailbox = self._exchange.by_name.get(channel)
        if mailbox is not None and (mailbox.waiting or mailbox.unread):
            return None
        self._taken += 1
        if self._is_left or not self._taken % _TAKEN_PER_PAUSE or not self._home.is_open:
            return None
        return self._take_now(channel)

    def is_takeable(self, channel: str) -> bool:
        """Say whether `take_now` has been asked for a channel, so that its name is in order."""
        return channel in self._takeable

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

    def asking(self, channels: Sequence[str]) -> Asking | None:
        """Return which of `channels` the backend is to be asked for, before any is served."""
        if len(channels) == 1:
            return None
        elsewhere = [name for name in channels if not self.owns(name)]
        if not elsewhere:
            return None
        last_served = self._exchange.mailboxes.last_served
        with self._lock:
            served = {name: last_served(name) for name in channels}
        latest = max(served.values())
        return self._patience.asking(
            {name: served[name] for name in elsewhere}, latest, self._clock()
        )

    async def ask(self, place: Place, asking: Asking) -> bool:
        """Let messages come that wait in the backend for `place`.

        Returns:
            Whether they can come; False where the backend cannot be reached, or not in time.
        """
        began_at = self._clock()
        is_prepared, more_s = False, 0.0
        with suppress(BackendUnavailable), move_on_after(self._timeout * _PATIENCE):
            await self.prepare(place.lines)
            is_prepared = True
            self.listen()
            self.demand([line for line in place.lines if line.name in asking.names])
            more_s = await self.run(self._backend.answer, tuple(asking.names))
        ends_at = self._clock() + more_s
        while place.mailbox is None and self._clock() < ends_at:  # noqa: ASYNC110  # it is granted
            await sleep(min(more_s, _POLL_S))
        served = None if place.mailbox is None else place.mailbox.name
        if served is not None and served not in asking.names:
            family = non_local_part(served)
            served = family if family in asking.names else served
        self._patience.note(asking, served, began_at, self._clock())
        return is_prepared

    def demand(self, lines: Iterable[Line]) -> None:
        """Tell the backend how many receivers wait at `lines`, and give back what none wants."""
        for line in sorted(lines, key=_last_served):  # who was served last is asked for last
            if self.owns(line.name):
                continue
            with self.client.demanding:  # or the backend could hear an older number last
                with self._lock:
                    readers = len(line.waiting)
                    surplus = self._exchange.take_surplus(line, self._clock())
                for channel, letters in surplus:
                    self._backend.give_back(channel, letters)
                self._backend.want(line.name, readers)

    # Groups

    async def group_add(self, group: str, channel: str) -> None:
        """Make `channel` a member for all clients."""
        await self.run(self._backend.group_add, group, channel)

    async def group_discard(self, group: str, channel: str) -> None:
        """End a membership for all clients."""
        await self.run(self._backend.group_discard, group, channel)

    async def group_channels(self, group: str) -> list[str]:
        """Return the members that live here and those that live elsewhere."""
        everywhere = await self.run(self._backend.group_channels, group)
        self.catch_up()
        with self._lock:
            here = self._exchange.group_channels(group, self._clock())
        return here + [channel for channel in everywhere if not self.owns(channel)]

    async def group_send(self, group: str, payload: bytes) -> None:
        """Send to all members, here and elsewhere; tell the backend before which have ended."""
        turn = await self.turns.begin(is_direct=False)
        try:
            with self._lock:
                ended = self._exchange.take_ended()
            if not (ended or turn.has_waited):
                await self.run(self._backend.group_send, group, payload)
                return
            with self._in_time(turn):
                for ended_group, channel in ended:
                    await self.run(self._backend.group_discard, ended_group, channel)
                await self.run(self._backend.group_send, group, payload)
        finally:
            self.turns.end(turn)

    # The whole prefix

    async def flush(self) -> None:
        """Let every client forget everything."""
        await self.run(self._backend.flush)

    async def statistics_of_all(self, channel: str | None = None) -> Statistics:
        """Return the numbers of all clients together."""
        return await self.run(self._backend.statistics, channel)

    @contextmanager
    def _in_time(self, turn: Turn) -> Iterator[None]:
        """Keep what is done in a turn within the time of its call.

        Raises:
            BackendTimeout: it took too long; it may have been done.
        """
        try:
            with fail_after(turn.ends_at - time.monotonic()):
                yield
        except TimeoutError as exc:
            raise BackendTimeout(type(self._backend).__name__) from exc

    def _check_here(self) -> None:
        if self._is_left:
            raise LayerClosed

    async def _open(self) -> None:
        await self._before_open()
        self._check_here()
        self._opened.client_id = self.id
        try:
            await self._backend.open(self.client)
        finally:
            if self._is_left:
                await self._close_backend()
        self._check_here()

    async def _close_backend(self) -> None:
        """Close the backend, unless a later client of the layer has it by now."""
        if self._opened.client_id in ("", self.id):
            await self._backend.close()

    def _be_open(self) -> None:
        if self._backend.keeps_accounts and not self._is_left:
            with suppress(BackendUnavailable):  # closed at this moment
                self._be_prompt(self._backend.prompt())

    def _be_prompt(self, prompt: Prompt) -> None:
        # Attributes of their own, as they are called for each message.
        self.send_now = prompt.send_now
        self.must_look = prompt.catch_up is not NOTHING_AT_ONCE.catch_up  # for what has arrived
        self.catch_up = prompt.catch_up
        self.see_flush = prompt.see_flush
        self.listen = self._watch.add if self._backend.has_home else prompt.listen
        self._take_now = prompt.take_now
        self._is_idle = prompt.is_idle


async def _nothing() -> None:
    pass


def _last_served(line: Line) -> int:
    return line.served
