"""The backend of the Redis layer: what a layer asks for, as commands to its shards."""

from __future__ import annotations

import contextlib
import random
import time
from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, Final

from .. import _fork
from .._core.names import client_of
from .._loops import new_waiter, pause, wake
from ..backend import NOTHING_AT_ONCE, Backend, Client, Prompt
from ..errors import BackendUnavailable, ChannelFull
from ..guarantees import Guarantees
from ..options import LayerOptions
from ..statistics import Statistics, add_up
from ._broadcast import SLACK, Broadcast, Spread
from ._errors import ServerSilent
from ._flush import flush
from ._hand import Origin
from ._hosts import Address
from ._lane import Lane
from ._numbers import of_queues
from ._session import Session
from ._shard import Setup, Shard
from ._shards import ShardRing

_IN_TIME: Final = 0.9  # of the time for a call, so that the error says what was wrong
_GLANCED_S: Final = 0.3  # in which `Workers` have looked at all shards


class RedisBackend(Backend):
    """One layer's connection to its shards."""

    has_home = True
    keeps_accounts = True
    tells_gaps = True

    def __init__(
        self,
        addresses: Sequence[Address],
        base: str,
        options: LayerOptions,
        rotation: float,
        *,
        redelivers: bool,
    ) -> None:
        """Name the servers; nothing is touched before `open`."""
        self._addresses = addresses
        self._ring = ShardRing([address.label for address in addresses])
        self._base = base
        self._options = options
        self._rotation = rotation
        self._redelivers = redelivers
        self._expiry_ms = int(options.expiry * 1000)
        self.guarantees = Guarantees(
            shared=True, cross_process=True, ordered_channels=len(addresses) == 1
        )
        self._broadcast = Broadcast(
            self._ring, self._expiry_ms, options.timeout, options.rules().capacities.of
        )
        self._session: Session | None = None
        # What came back while the layer was not open: channel, payloads and their ends.
        self._kept: deque[tuple[str, list[tuple[bytes, float]]]] = deque()
        self._origins: OrderedDict[int, Origin] = OrderedDict()  # see `Workers`
        _fork.in_child(self, RedisBackend._begin_in_child)

    def _begin_in_child(self) -> None:
        self._session = None
        self._kept.clear()
        self._origins.clear()

    # Coming and going

    async def open(self, client: Client) -> None:
        """See `Backend.open`."""
        session = self._session
        if session is None or session.client is not client:
            ttl_ms = int((self._options.lease + self._options.expiry) * 1000)
            setup = Setup(
                base=self._base,
                client=client.id,
                fingerprint=self._ring.fingerprint,
                ttl_ms=ttl_ms,
                expiry_ms=self._expiry_ms,
                seconds=self._options.timeout * _IN_TIME,
                redelivers=self._redelivers,
            )
            session = self._session = Session(
                client,
                self._addresses,
                self._ring,
                setup,
                self._options,
                self._rotation,
                self._origins,
                client.adrift,
            )
        await session.start()
        now = time.monotonic()
        while self._kept:
            channel, kept = self._kept.popleft()
            self.give_back(channel, [(payload, ends_at - now) for payload, ends_at in kept])

    async def close(self) -> None:
        """See `Backend.close`."""
        session = self._session
        if session is not None:
            await session.close()
            if self._session is session:  # two may have closed it at once
                self._session = None

    @property
    def _open(self) -> Session:
        if self._session is None:
            raise BackendUnavailable("redis")
        return self._session

    def prompt(self) -> Prompt:
        """See `Backend.prompt`."""
        return NOTHING_AT_ONCE._replace(is_idle=self._open.is_idle)

    # Messages

    async def send(self, channel: str, payload: bytes, capacity: int) -> None:
        """See `Backend.send`."""
        session = self._open
        route = session.routes.get(channel) or session.route(channel)
        if route.shard is None:
            is_taken = await self._send_to_any(session, channel, payload, capacity)
        else:
            words = (channel, route.client, route.account, capacity, self._expiry_ms, payload, 1)
            lane = session.use(route.shard).lane
            if route.client == session.client.id:
                is_taken = await session.send_to_self(*words)
            elif session.line.is_empty or (route.client and len(session.shards) == 1):
                is_taken = await lane.outcome(lane.submit("send", *words))
            else:  # what is on its way to a group may have to come before
                is_taken = await session.in_turn(lane, "send", *words)
        if not is_taken:
            await pause()  # whoever tries again at once must let the readers run
            raise ChannelFull(channel, capacity)

    async def _send_to_any(
        self, session: Session, channel: str, payload: bytes, capacity: int
    ) -> Any:
        """Send to a random shard; to another one where nothing can have happened."""
        shards = list(session.shards)
        random.shuffle(shards)
        shards.sort(key=lambda shard: bool(shard.lane.problem))
        problem: BackendUnavailable | None = None
        is_full, ends_at = False, time.monotonic() + session.seconds
        for left, shard in zip(reversed(range(len(shards))), shards, strict=True):
            if problem is not None and time.monotonic() >= ends_at:
                break
            share = session.ring.share_of(channel, capacity, shard.index)
            words = (channel, "", "", share, self._expiry_ms, payload, int(not left))
            lane = session.use(shard.index).lane
            try:
                is_movable = bool(left or is_full)
                if await lane.do("send", *words, is_movable=is_movable, ends_at=ends_at):
                    return 1
                is_full = True
            except ServerSilent:
                raise
            except BackendUnavailable as exc:
                problem = exc
        if problem is not None and not is_full:
            raise problem
        return 0

    def want(self, channel: str, readers: int) -> None:
        """See `Backend.want`."""
        session = self._session
        if session is not None:
            session.call(partial(session.workers.want, channel, readers))

    def give_back(self, channel: str, letters: Sequence[tuple[bytes, float]]) -> None:
        """See `Backend.give_back`."""
        session, given = self._session, list(letters)
        if session is None or session.is_closed:
            now = time.monotonic()  # it waits until this layer is open again
            kept = [(payload, now + lifetime) for payload, lifetime in given]
            self._kept.append((channel, kept))
        else:
            session.call(lambda: session.workers.give_back(channel, given))

    async def answer(self, channels: Iterable[str]) -> float:
        """See `Backend.answer`."""
        session = self._open
        names = {channel: session.ring.of_channel(channel) for channel in channels}
        spread = [channel for channel, index in names.items() if index is None]
        indices = session.indices if spread else set(names.values())
        shards = [session.use(index) for index in indices if index is not None]
        lanes = [shard.lane for shard in shards if shard.is_connected]
        # What was wanted is given with one answer, and confirmed with the next.
        for _ in range(2):
            await self._come_round(session, lanes)
        # Where no receiver of this client waits, they look only now and then.
        spread = spread if len(lanes) > 1 else []
        asked = [(lane, lane.submit("numbers_of", channel)) for channel in spread for lane in lanes]
        found = [await lane.outcome(command) for lane, command in asked]
        pending = [of_queues(one, self._options.expiry)[0]["messages_pending"] for one in found]
        return _GLANCED_S if any(pending) else 0.0

    async def _come_round(self, session: Session, lanes: Sequence[Lane]) -> None:
        """Return when shards have answered everything up to now; or do not, for long."""
        waiter, left = new_waiter(), len(lanes)

        def hear(_: object) -> None:
            nonlocal left
            left -= 1
            if not left:
                wake((waiter,))

        def begin() -> None:
            until = time.monotonic() + session.seconds
            for lane in lanes:
                lane.post("none", then=hear, gives_up_at=until)

        if lanes:
            session.call(begin)  # after what is wanted, which goes the same way
            await waiter

    async def is_alive(self, client_id: str) -> bool:
        """See `Backend.is_alive`."""
        session = self._open
        shard = session.use(session.ring.of(client_id))
        return bool(await shard.lane.do("alive", client_id))

    # Groups

    async def group_add(self, group: str, channel: str) -> None:
        """See `Backend.group_add`."""
        session = self._open
        ends_at = time.monotonic() + session.seconds
        shard, owner, is_here = self._places(session, group, channel)
        if owner and owner != session.client.id and not is_here:
            home = session.use(session.ring.of(owner))
            if not await home.lane.do("alive", owner, ends_at=ends_at):
                owner = ""
        lifetime_ms, lasts = session.memberships.on_adding
        words = ("add", group, channel, owner, lifetime_ms, int(is_here), lasts)
        await self._change(session, shard, "A", owner, is_here, words, ends_at)

    async def group_discard(self, group: str, channel: str) -> None:
        """See `Backend.group_discard`."""
        session = self._open
        ends_at = time.monotonic() + session.seconds
        shard, owner, is_here = self._places(session, group, channel)
        words = ("discard", group, channel, int(is_here))
        await self._change(session, shard, "X", owner, is_here, words, ends_at)

    def _places(self, session: Session, group: str, channel: str) -> tuple[Shard, str, bool]:
        """Return a group's shard, the owner of a channel or "", and whether its inbox is there."""
        shard = session.use(session.ring.of(group))
        owner = client_of(channel) or ""
        is_here = bool(owner) and session.ring.of(owner) == shard.index
        return shard, owner, is_here

    async def _change(
        self, session: Session, shard: Shard, what: str, owner: str, is_here: bool,
        words: tuple[Any, ...], ends_at: float,
    ) -> None:  # fmt: skip
        """Change a membership on the shard of its group, and let the owner know.

        The news goes from the home, so that it does even if the caller is gone by then.

        Raises:
            ServerSilent: it is changed there, but the shard of the owner does not answer.
        """
        client = session.client
        _, group, channel, *_ = words
        telling = Spread(new_waiter(), ends_at)

        def changed(result: list[int]) -> None:
            version = result[0]
            if owner == client.id:
                if session.memberships.is_new(group, channel, version):
                    change = client.member_added if what == "A" else client.member_discarded
                    change(group, channel)
            elif owner and not is_here:
                home = session.use(session.ring.of(owner))
                news = (what, channel, version, group, owner)
                then = telling.begin(home.label)
                home.lane.post("notify", *news, then=then, gives_up_at=ends_at)
            telling.end()

        await session.in_turn(shard.lane, *words, then=changed, ends_at=ends_at)
        if owner and owner != client.id and not is_here:
            await telling.arrived(ends_at + session.seconds * SLACK)

    async def group_send(self, group: str, payload: bytes) -> None:
        """See `Backend.group_send`."""
        session = self._open
        if len(session.shards) == 1:
            await self._broadcast.publish(session, group, payload)
        else:
            await self._broadcast.spread(session, group, payload)

    async def group_channels(self, group: str) -> list[str]:
        """See `Backend.group_channels`."""
        session = self._open
        ends_at = time.monotonic() + session.seconds
        shard = session.use(session.ring.of(group))
        unowned, owned = await shard.lane.do("members", group, ends_at=ends_at)
        # What others have changed of the own members stands in the inbox, perhaps still unread.
        with contextlib.suppress(BackendUnavailable):
            last = await session.home.lane.do("newest", ends_at=ends_at)
            await session.read_up_to(last, ends_at)
        return [name.decode() for name in (*unowned, *owned)]

    # The whole prefix

    async def flush(self) -> None:
        """See `Backend.flush`."""
        await flush(self._open)

    async def statistics(self, channel: str | None = None) -> Statistics:
        """See `Backend.statistics`."""
        session = self._open
        ends_at = time.monotonic() + session.seconds
        if channel is None:
            parts = [session.client.statistics()]
            for found in await self._ask(session, session.indices, ends_at, "numbers"):
                queues, clients = of_queues(found, self._options.expiry)
                parts.append(queues)
                parts += [numbers for client, numbers in clients if client != session.client.id]
            return add_up(parts)
        owner = client_of(channel)
        index = session.ring.of_channel(channel)
        parts = []
        if owner == session.client.id:
            parts.append(session.client.statistics(channel))
        elif owner is not None:
            answer = await session.questions.ask(owner, channel, ends_at)
            if answer is not None:
                parts.append(answer)
        indices = session.indices if index is None else [index]
        for found in await self._ask(session, indices, ends_at, "numbers_of", channel):
            parts.append(of_queues(found, self._options.expiry)[0])
        return add_up(parts)

    async def _ask(
        self, session: Session, indices: Iterable[int], ends_at: float, *words: Any
    ) -> list[Any]:
        """Ask some shards at the same time, and return their answers."""
        lanes = [session.use(index).lane for index in indices]
        asked = [(lane, lane.submit(*words, ends_at=ends_at)) for lane in lanes]
        return [await lane.outcome(command) for lane, command in asked]
