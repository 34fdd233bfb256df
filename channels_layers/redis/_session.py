"""What one client has at its shards, from `open` to `close`: in one event loop, its home.

    reader of the home shard ---> came_in: own mailboxes and groups of the layer
    readers of other shards ----> given: messages of channels that no client owns (`_workers`)
    lanes <---------------------- all that the backend and the above ask for

The home may end while the client lives; `start` goes on in another event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

import anyio

from .._core.names import client_of
from .._loops import new_waiter, wake_one
from ..backend import Client
from ..errors import BackendUnavailable, LayerClosed
from ..options import LayerOptions
from ._command import Command
from ._credit import Credit
from ._hand import Origin
from ._hosts import Address
from ._inbox import Inbox
from ._lane import Lane
from ._leases import Leases
from ._line import Line
from ._memberships import Memberships
from ._numbers import packed
from ._progress import Progress, following
from ._questions import Questions
from ._shard import Setup, Shard
from ._shards import ShardRing
from ._tasks import begin, end
from ._workers import Workers

_logger = logging.getLogger("channels_layers")

_SETTLED_AT_ONCE: Final = 2000  # words in one command
_MORE: Final = 2
_GAP_S: Final = 0.6  # longer than a beat: other shards may tell of the same event
_MOST_ROUTES: Final = 16_384  # remembered
_CLOSING_S: Final = 1.0  # for saying good-bye to all shards


class Route(NamedTuple):
    """Where the messages for one channel go.

    Attributes:
        shard: The index of that which the channel is pinned to, or of the only one; None: any.
        client: Whose channel it is by its name, or "".
        account: Where its owner's shard counts its messages.
    """

    shard: int | None
    client: str
    account: str


class Session:
    """All that one client has at its shards, in whichever event loop is its home."""

    def __init__(
        self, client: Client, addresses: Sequence[Address], ring: ShardRing, setup: Setup,
        options: LayerOptions,
        rotation: float, origins: OrderedDict[int, Origin], drift: Callable[[], None],
    ) -> None:  # fmt: skip
        self.client = client
        self.options = options
        self.seconds = setup.seconds
        self._redelivers = setup.redelivers
        self.ring = ring
        home = self.ring.of(client.id)
        self.shards = [
            Shard(index, address, setup, self, self._extra, is_home=index == home)
            for index, address in enumerate(addresses)
        ]
        self.indices = range(len(self.shards))
        self.home = self.shards[home]
        self.workers = Workers(client, self.shards, self.ring, rotation, origins, self._make_calls)
        self.credit = Credit(client, self.home.lane.hurry)
        self.leases = Leases(client, self.shards, ring, options, self._show)
        self.line = Line(self.call, self.seconds)
        self.copies = Line(self.call, self.seconds)  # to the own members of a group elsewhere
        self.routes: dict[str, Route] = {}
        self.loop: asyncio.AbstractEventLoop | None = None
        self.progress = Progress(self.home)
        self.memberships = Memberships(client, ring, options, [*self.indices], self.use)
        self.questions = Questions(client, ring, self.use)
        self.inbox = Inbox(
            client, self.progress, self.credit, self.memberships, self.questions, self.workers
        )
        self._calls: deque[Callable[[], None]] = deque()  # of other threads, for the home
        self._drift = drift
        self._is_gap_due = False
        self._guard: asyncio.Task[None] | None = None
        self._is_leaving = False  # the home loop ends
        self.is_closing = False
        self.is_closed = False  # nothing can be given back any more

    # Coming and going

    async def start(self) -> None:
        """Make the running event loop the home, and enter there.

        Raises:
            BackendUnavailable: the home shard cannot be reached in time.
        """
        self.loop = asyncio.get_running_loop()
        for shard in self.shards:
            if shard.is_used or shard is self.home:
                shard.start()
        self.credit.start()
        self._is_leaving = False
        await self._reach()
        self.home.listen()
        self.leases.start()
        self.workers.start()
        guard = self._guard
        if guard is None or guard.done() or guard.get_loop() is not self.loop:
            end(guard)  # of a loop that may run again
            self._guard = begin(self._stay(), "home")
        self._gap()  # of a loop that has ended before
        self._make_calls()

    async def _reach(self) -> None:
        """Enter at the home; or at any other shard, if only the home does not serve.

        Raises:
            BackendUnavailable: none of them can be reached.
        """
        try:
            await self.home.lane.do("none", is_movable=len(self.shards) > 1)
            return
        except BackendUnavailable:
            if len(self.shards) == 1:
                raise
        # What is pinned there fails until it comes back, but all else can be done.
        self.home.lane.post("none")
        others = [shard for shard in self.shards if shard is not self.home]
        for left, shard in zip(reversed(range(len(others))), others, strict=True):
            shard.start()
            try:
                await shard.lane.do("none", is_movable=bool(left))
                return
            except BackendUnavailable:
                if not left:
                    raise

    def _show(self) -> None:
        """Enter at the other shards as well, so that all see which set of shards this one uses."""
        for shard in self.shards:
            if not shard.is_used:
                shard.start()
                shard.lane.post("none")

    async def _stay(self) -> None:
        """Notice when the event loop ends while this client lives on."""
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            if not self.is_closing and self._guard is asyncio.current_task():
                self._is_leaving = True
                for shard in self.shards:
                    shard.lane.say_last()
                tasks = [*self.workers.pause(), *self.leases.stop()]
                self.credit.stop()
                for shard in self.shards:
                    tasks += [*shard.stop_listening(), *shard.lane.pause()]
                await asyncio.gather(*tasks, return_exceptions=True)
                self._drift()
            raise

    def route(self, channel: str) -> Route:
        """Return where messages for a channel go, and remember it."""
        client = client_of(channel) or ""
        account = self.client.account_of(channel) if client else ""
        if len(self.routes) >= _MOST_ROUTES:
            self.routes.clear()
        shard = self.ring.of_channel(channel) if len(self.shards) > 1 else 0
        route = self.routes[channel] = Route(shard, client, account)
        return route

    def use(self, index: int) -> Shard:
        """Return a shard to which commands go, as soon as there is a home; any thread."""
        shard = self.shards[index]
        if not shard.is_used:
            shard.is_used = True
            self.call(shard.start)
        return shard

    def call(self, act: Callable[[], None]) -> None:
        """Call something in the home loop; at once where this is it, later where there is none."""
        self._calls.append(act)
        loop = self.loop
        if loop is not None and loop is asyncio._get_running_loop():
            self._make_calls()
        elif loop is not None:
            with contextlib.suppress(RuntimeError):  # it has closed: `start` is to come
                loop.call_soon_threadsafe(self._make_calls)

    def _make_calls(self) -> None:
        if self.loop is not asyncio._get_running_loop():
            return  # another one has taken over
        while self._calls and not self._is_away:
            self._calls.popleft()()

    @property
    def _is_away(self) -> bool:
        """Whether nothing can be begun here; `start` goes on with it."""
        return self._guard is None or self._guard.done() or self._is_leaving

    async def close(self) -> None:
        """Give everything back, say good-bye and let go; may be repeated if it was cancelled."""
        self.is_closing = True
        loop = asyncio.get_running_loop()
        if self.loop is not None and self.loop is not loop:  # that one has ended
            self.loop = loop
            for shard in self.shards:
                if shard.is_used:
                    shard.start()
        tasks = [*self.workers.stop(), *self.leases.stop()]
        self.credit.stop()
        for index in self.memberships.told:
            if not self.shards[index].is_used:
                self.shards[index].start()
                self.shards[index].lane.post("none")
        known = [shard for shard in self.shards if shard.is_used]
        with contextlib.suppress(BackendUnavailable, LayerClosed, TimeoutError):
            async with asyncio.timeout(min(_CLOSING_S, self.seconds)):
                while True:
                    while self._calls:
                        self._calls.popleft()()
                    await asyncio.gather(*(self._leave(shard) for shard in known))
                    is_busy = any(shard.lane.is_busy for shard in known if shard.is_connected)
                    if not self._calls and not is_busy:
                        break
        self.is_closed = True
        for shard in self.shards:
            tasks += [*shard.stop_listening(), *shard.lane.stop()]
        tasks += end(self._guard)
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _leave(self, shard: Shard) -> None:
        """Be forgotten, when all that was on its way is back."""
        lane = shard.lane
        is_known = lane.era or lane.has("back") or shard.index in self.memberships.told
        if not shard.is_connected and (lane.problem or not is_known):
            return  # it cannot be reached, and will see that nobody beats; or it knows nothing
        numbers = packed(self.client.id, self.client.statistics()) if shard.is_home else b""
        while await lane.do("forget", self.client.id, "", numbers) == _MORE or lane.is_busy:
            pass

    # What shards tell

    def came_in(self, shard: Shard, entries: list[Any]) -> None:
        """Take what came into the inbox."""
        self.inbox.came_in(shard, entries)

    def given(self, shard: Shard, entries: list[Any]) -> None:
        """Take messages of channels that no client owns."""
        self.workers.given(shard, entries)

    def loop_ends(self) -> None:
        """Let others have what is in hand, since nobody may come for it any more."""
        if not self.is_closing:
            self.workers.return_spares()

    def restore(self, shard: Shard, state: str) -> None:
        """Make known again what the shard has lost."""
        if self.is_closing:
            return
        _logger.warning("redis %s has lost what it knew of this client (%s)", shard.label, state)
        if shard is self.home:
            self.credit.forget()
            self.progress.go_on(to_the_end=True)  # what is waited for will not come any more
        self.memberships.forget()
        dropped = "" if state != "rewound" else "one" if self._redelivers else "all"
        again = ("reset", dropped)

        def enter_members(has_more: object) -> None:
            if has_more:
                shard.lane.put_first([again], then=enter_members)
            else:
                self._enter_members(shard)

        shard.lane.put_first([again], then=enter_members)
        self.workers.restore(shard)

    def _enter_members(self, shard: Shard) -> None:
        """Make the memberships known again, then tell the readers."""
        commands = [*self.memberships.entering(shard), ("none",)]
        shard.lane.put_first(commands, then=lambda _: self._tell_gap())

    def entered(self, shard: Shard) -> None:
        """Make known to a shard what others had told it of this client, if it took it for dead."""
        if not self.is_closing and shard.index in self.memberships.told:
            shard.lane.put_first(self.memberships.entering(shard))

    def _tell_gap(self) -> None:
        """Tell the readers; once for shards that have lost something at about the same time."""
        if not self._is_gap_due:
            self._is_gap_due = True
            asyncio.get_running_loop().call_later(_GAP_S, self._gap)

    def _gap(self) -> None:
        if self._is_gap_due:
            self._is_gap_due = False
            self.client.gap()

    def _extra(self, shard: Shard) -> Iterable[Command]:
        """Return what goes with the next batch of a shard: accounts, to the home."""
        if shard is not self.home or self.is_closing:  # nothing may come after its good-bye
            return []
        told = self.credit.take()
        if not told and self.credit.position == shard.position:
            return []
        self.credit.position = shard.position
        size_bytes, changes = (told[0], told[1:]) if told else (0, [])
        slices = [
            changes[at : at + _SETTLED_AT_ONCE]
            for at in range(0, max(len(changes), 1), _SETTLED_AT_ONCE)
        ]
        deadline = time.monotonic() + self.seconds
        after = following(shard.position)  # what is before it was read
        commands = []
        for slice_ in slices:
            words = (shard.generation, after, size_bytes, *slice_)
            commands.append(Command("settle", words, deadline))
            size_bytes = 0
        return commands

    # The order of what is sent, and of what comes by way of the inbox and what does not

    async def in_turn(
        self,
        lane: Lane,
        name: str,
        *words: Any,
        then: Callable[[Any], object] | None = None,
        ends_at: float | None = None,
    ) -> Any:
        """Have a command done after the group messages that are on their way; as `Lane.do`."""
        command = lane.command(name, *words, then=then, ends_at=ends_at)
        if not self.line.follow(partial(lane.queue, command)):
            lane.queue(command)
        return await lane.outcome(command)

    async def send_to_self(self, *words: Any) -> Any:
        """Send to an own channel by way of the inbox, and note that it is on its way.

        What was sent to groups before comes another way, be it that nobody waits for it any more.
        """
        lane = self.home.lane
        command = lane.command("send", *words, then=self.progress.note_entry)
        self.progress.note_own(command)

        def queue() -> None:
            lane.queue(command)

        def queue_behind_copies() -> None:
            if not self.copies.follow(queue):
                queue()

        if not self.line.follow(queue_behind_copies):
            queue_behind_copies()
        return await lane.outcome(command)

    def is_idle(self) -> bool:
        """Whether nothing that was sent to an own channel, also by a group, is on its way."""
        return self.line.is_empty and self.copies.is_empty and self.progress.is_idle()

    async def read_up_to(self, entry_id: bytes, ends_at: float) -> None:
        """Wait until the inbox was read up to an entry, or until then."""
        if self.progress.is_past(entry_id):
            return
        waiter = new_waiter()
        self.call(lambda: self.progress.after(entry_id, lambda: wake_one(waiter)))
        with anyio.move_on_after(ends_at - time.monotonic()):  # or it is as of before
            await waiter
