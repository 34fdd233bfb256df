"""What one client has at its shards, from `open` to `close`: in one event loop, its home.

    reader of the home shard ---> came_in: own mailboxes and groups of the layer
    readers of other shards ----> given: messages of channels that no client owns (`_workers`)
    lanes <---------------------- all that the backend and the above ask for

The home may end while the client lives; `start` goes on in another event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple

import anyio
import ormsgpack

from .._core.names import client_of
from .._loops import LoopWaiter, new_waiter, wake_one
from ..backend import Arrival, Client
from ..errors import BackendUnavailable, LayerClosed
from ..options import LayerOptions
from ._command import Command
from ._credit import Credit
from ._groups import Versions
from ._hosts import Address
from ._leases import Leases
from ._shard import Setup, Shard
from ._shards import ShardRing
from ._tasks import begin, end
from ._workers import Workers

_logger = logging.getLogger("channels_layers")

_SETTLED_AT_ONCE: Final = 2000  # words in one command
_MORE: Final = 2
_MOST_ROUTES: Final = 16_384  # remembered
_CLOSING_S: Final = 1.0  # for saying good-bye to all shards


class Route(NamedTuple):
    """Where the messages for one channel go.

    Attributes:
        shard: The index of that which the channel is pinned to; None: any.
        client: Whose channel it is by its name, or "".
        account: Where its owner's shard counts its messages.
    """

    shard: int | None
    client: str
    account: str


class Question:
    """What another client is asked, and its answer."""

    def __init__(self, waiter: LoopWaiter) -> None:
        self.waiter = waiter
        self.answer = b""


class Session:
    """All that one client has at its shards, in whichever event loop is its home."""

    def __init__(
        self, client: Client, addresses: Sequence[Address], ring: ShardRing, setup: Setup,
        options: LayerOptions,
        rotation: float, origins: dict[str, tuple[int, str]], drift: Callable[[], None],
    ) -> None:  # fmt: skip
        self.client = client
        self.options = options
        self.seconds = setup.seconds
        self.ring = ring
        home = self.ring.of(client.id)
        self.shards = [
            Shard(index, address, setup, self, self._extra, is_home=index == home)
            for index, address in enumerate(addresses)
        ]
        self.indices = range(len(self.shards))
        self.home = self.shards[home]
        self.workers = Workers(client, self.shards, self.ring, rotation, origins)
        self.credit = Credit(client, self.home.lane.hurry)
        self.leases = Leases(self, options.lease)
        self.versions = Versions()
        self.routes: dict[str, Route] = {}
        self.questions: dict[str, Question] = {}
        self.numbers = itertools.count(1)
        self.loop: asyncio.AbstractEventLoop | None = None
        self._own_last = ""  # the newest entry that this client has put into its own inbox
        self._own: deque[Command] = deque()  # its messages to itself, on their way there
        self._afterwards: list[tuple[tuple[int, int], Callable[[], object]]] = []
        self._calls: deque[Callable[[], None]] = deque()  # of other threads, for the home
        self._drift = drift
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
        if self._guard is None or self._guard.done():
            self._guard = begin(self._stay(), "home")
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

    def show(self) -> None:
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
            if not self.is_closing:
                self._is_leaving = True
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
        route = self.routes[channel] = Route(self.ring.of_channel(channel), client, account)
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
        if not shard.is_connected and (lane.problem or not (lane.era or lane.has("back"))):
            return  # it cannot be reached, and will see that nobody beats; or it knows nothing
        while await shard.lane.do("forget", self.client.id, "") == _MORE or shard.lane.is_busy:
            pass

    # What shards tell

    def came_in(self, shard: Shard, entries: list[Any]) -> None:
        """Take what came into the inbox, in its order."""
        arrivals: list[Arrival] = []
        position = shard.position
        for entry_id, fields in entries:
            try:
                words = fields[0].decode().split(" ")
                if words[0] == "F":
                    self._hand_in(arrivals)
                    arrivals = []
                    self._flushed(shard, int(words[1]))
                elif words[0] in ("Q", "R"):
                    self._hand_in(arrivals)  # so that an answer counts what came before
                    arrivals = []
                    self._talk(words, fields[1])
                elif words[0] != "W":
                    arrival = self._arrival(shard, words, fields[1])
                    if arrival is not None:
                        arrivals.append(arrival)
            except (ValueError, IndexError):
                _logger.exception("an entry in the inbox of %s makes no sense", self.client.id)
            position = entry_id.decode()
        self._hand_in(arrivals)
        # Only now, since other threads look at it to see what has arrived.
        shard.position = position
        self._go_on_afterwards()
        self.credit.settle_soon()

    def _arrival(self, shard: Shard, words: list[str], payload: bytes) -> Arrival | None:
        """Return what an entry means to the layer; None if it is old."""
        kind, name, number, generation = words
        if kind in ("A", "X"):
            if not self.versions.is_new(payload.decode(), name, int(number)):
                return None
            return ("added" if kind == "A" else "discarded", name, payload, 0.0)
        if int(generation) != shard.generation:
            return None  # it was flushed
        lifetime = shard.lifetime(int(number))
        if kind == "M":
            self.credit.took(self.client.account_of(name), len(payload))
            return ("message", name, payload, lifetime)
        self.credit.took_copy(len(payload))
        return ("group", name, payload, lifetime)

    def _hand_in(self, arrivals: list[Arrival]) -> None:
        if arrivals and self.client.take_in(arrivals):
            self.home.lane.hurry()  # a channel is near its capacity: its account must be exact

    def _flushed(self, shard: Shard, generation: int) -> None:
        shard.generation = generation
        self.client.forget()
        self.credit.forget()
        self.versions.forget()
        shard.lane.post("seen", generation)

    def given(self, shard: Shard, entries: list[Any]) -> None:
        """Take messages of channels that no client owns."""
        self.workers.given(shard, entries)

    def restore(self, shard: Shard, state: str) -> None:
        """Make known again what the shard has lost."""
        if self.is_closing:
            return
        _logger.warning("redis %s has lost what it knew of this client (%s)", shard.label, state)
        if shard is self.home:
            self.credit.forget()
            while self._afterwards:  # what they wait for will not come any more
                self._afterwards.pop(0)[1]()
        self.versions.forget()
        again = ("reset", int(state == "rewound"))

        def enter_members(has_more: object) -> None:
            if has_more:
                shard.lane.put_first([again], then=enter_members)
            else:
                self._enter_members(shard)

        shard.lane.put_first([again], then=enter_members)
        self.workers.restore(shard)

    def _enter_members(self, shard: Shard) -> None:
        """Make the memberships known again, then tell the readers."""
        commands: list[tuple[Any, ...]] = []
        lifetime_ms = int(self.options.group_expiry * 1000)
        for group, channel, _ in self.client.memberships():
            if self.ring.of(group) == shard.index:
                is_here = int(shard is self.home)
                commands.append(("add", group, channel, self.client.id, lifetime_ms, is_here))
        shard.lane.put_first([*commands, ("none",)], then=lambda _: self.client.gap())

    def _extra(self, shard: Shard) -> Iterable[Command]:
        """Return what goes with the next batch of a shard: accounts, to the home."""
        if shard is not self.home:
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
        milliseconds, number = _id(shard.position)
        after = f"{milliseconds}-{number + 1}"  # what is before it was read
        commands = []
        for slice_ in slices:
            words = (shard.generation, after, size_bytes, *slice_)
            commands.append(Command("settle", words, deadline))
            size_bytes = 0
        return commands

    # The order of what comes by way of the inbox, and of what does not

    async def send_to_self(self, *words: Any) -> Any:
        """Send to an own channel by way of the inbox, and note that it is on its way."""
        command = self.home.lane.submit("send", *words, then=self._note_entry)
        self._own.append(command)
        return await self.home.lane.outcome(command)

    def _note_entry(self, result: Any) -> None:
        if isinstance(result, bytes):
            self._own_last = result.decode()

    def is_idle(self) -> bool:
        """Whether nothing that was sent to an own channel is on its way."""
        while self._own and self._own[0].is_done:
            with contextlib.suppress(IndexError):  # another thread was faster
                self._own.popleft()
        return not self._own and _id(self._own_last) <= _id(self.home.position)

    def after(self, entry_id: bytes, act: Callable[[], object]) -> None:
        """Do something when the inbox was read up to an entry; at once if it was."""
        wanted = _id(entry_id.decode())
        if wanted <= _id(self.home.position) and not self._afterwards:
            act()
        else:
            self._afterwards.append((wanted, act))

    async def read_up_to(self, entry_id: bytes) -> None:
        """Wait until the inbox was read up to an entry."""
        if _id(entry_id.decode()) <= _id(self.home.position):
            return
        waiter = new_waiter()
        self.call(lambda: self.after(entry_id, lambda: wake_one(waiter)))
        with anyio.move_on_after(self.seconds):  # without it, the answer is as of a moment ago
            await waiter

    def _go_on_afterwards(self) -> None:
        position = _id(self.home.position)
        while self._afterwards and self._afterwards[0][0] <= position:
            self._afterwards.pop(0)[1]()

    # Questions about the numbers of a channel

    def _talk(self, words: list[str], payload: bytes) -> None:
        if words[0] == "R":
            question = self.questions.pop(words[1], None)
            if question is not None:
                question.answer = payload
                wake_one(question.waiter)
            return
        _, number, asker, _ = words
        numbers = ormsgpack.packb(dict(self.client.statistics(payload.decode())))
        shard = self.use(self.ring.of(asker))
        shard.lane.post("talk", f"R {number}", numbers, asker)


def _id(text: str) -> tuple[int, int]:
    """Return the id of an entry as what can be compared."""
    milliseconds, _, number = text.partition("-")
    return (int(milliseconds), int(number)) if number else (0, 0)
