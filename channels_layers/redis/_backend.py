"""The backend of the Redis layer: what a layer asks for, as commands to its shards."""

from __future__ import annotations

import contextlib
import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, cast

import anyio
import ormsgpack

from .. import _fork
from .._core.names import client_of
from .._loops import new_waiter, pause
from ..backend import NOTHING_AT_ONCE, Backend, Client, Prompt
from ..errors import BackendUnavailable, ChannelFull
from ..guarantees import Guarantees
from ..options import LayerOptions
from ..statistics import Statistics, add_up
from ._errors import ServerSilent
from ._groups import Spread, Spreading
from ._hosts import Address
from ._numbers import of_queues
from ._session import Question, Session
from ._shard import Setup, Shard
from ._shards import ShardRing

_IN_TIME: Final = 0.9  # of the time for a call, so that the error says what was wrong
_FLUSHED_S: Final = 1.0  # how long to wait for clients to hear of a flush; they hear it anyway
_POLL_S: Final = 0.005


class RedisBackend(Backend):
    """One layer's connection to its shards."""

    has_home = True
    keeps_accounts = True
    tells_gaps = True

    def __init__(
        self, addresses: Sequence[Address], base: str, options: LayerOptions, rotation: float
    ) -> None:
        """Name the servers; nothing is touched before `open`."""
        self._addresses = addresses
        self._ring = ShardRing([address.label for address in addresses])
        self._base = base
        self._options = options
        self._rotation = rotation
        self._capacity = options.rules().capacities.of
        self._expiry_ms = int(options.expiry * 1000)
        self.guarantees = Guarantees(
            shared=True, cross_process=True, ordered_channels=len(addresses) == 1
        )
        self._session: Session | None = None
        self._spreading = Spreading(self._options.timeout)
        # What came back while the layer was not open: channel, payloads and their ends.
        self._kept: deque[tuple[str, list[tuple[bytes, float]]]] = deque()
        self._origins: dict[str, tuple[int, str]] = {}  # see `Workers`
        _fork.in_child(self, RedisBackend._begin_in_child)

    def _begin_in_child(self) -> None:
        self._session = None
        self._spreading = Spreading(self._options.timeout)
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
        if route.client and len(session.shards) > 1:
            await self._spreading.before()
        if route.shard is None:
            is_taken = await self._send_to_any(session, channel, payload, capacity)
        else:
            words = (channel, route.client, route.account, capacity, self._expiry_ms, payload, 1)
            if route.client == session.client.id:
                is_taken = await session.send_to_self(*words)
            else:
                lane = session.use(route.shard).lane
                is_taken = await lane.outcome(lane.submit("send", *words))
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
            session.call(lambda: session.workers.want(channel, readers))

    def give_back(self, channel: str, letters: Sequence[tuple[bytes, float]]) -> None:
        """See `Backend.give_back`."""
        session, given = self._session, list(letters)
        if session is None or session.is_closed:
            now = time.monotonic()  # it waits until this layer is open again
            kept = [(payload, now + lifetime) for payload, lifetime in given]
            self._kept.append((channel, kept))
        else:
            session.call(lambda: session.workers.give_back(channel, given))

    async def is_alive(self, client_id: str) -> bool:
        """See `Backend.is_alive`."""
        session = self._open
        shard = session.use(session.ring.of(client_id))
        return bool(await shard.lane.do("alive", client_id))

    # Groups

    async def group_add(self, group: str, channel: str) -> None:
        """See `Backend.group_add`."""
        session = self._open
        shard, client, owner, is_here = self._places(session, group, channel)
        if owner and owner != client.id and not is_here and not await self.is_alive(owner):
            owner = ""

        def added(result: list[int]) -> None:
            if owner == client.id and session.versions.is_new(group, channel, result[0]):
                client.member_added(group, channel)

        lifetime_ms = int(self._options.group_expiry * 1000)
        words = ("add", group, channel, owner, lifetime_ms, int(is_here))
        version, _ = await shard.lane.do(*words, then=added)
        if owner and owner != client.id and not is_here:
            await self._notify(session, "A", owner, channel, version, group)

    async def group_discard(self, group: str, channel: str) -> None:
        """See `Backend.group_discard`."""
        session = self._open
        shard, client, owner, is_here = self._places(session, group, channel)

        def discarded(result: list[int]) -> None:
            if owner == client.id and session.versions.is_new(group, channel, result[0]):
                client.member_discarded(group, channel)

        words = ("discard", group, channel, int(is_here))
        (version,) = await shard.lane.do(*words, then=discarded)
        if owner and owner != client.id and not is_here:
            await self._notify(session, "X", owner, channel, version, group)

    def _places(
        self, session: Session, group: str, channel: str
    ) -> tuple[Shard, Client, str, bool]:
        """Return a group's shard, the own client, the owner of a channel; is its inbox there?"""
        shard = session.use(session.ring.of(group))
        owner = client_of(channel) or ""
        is_here = bool(owner) and session.ring.of(owner) == shard.index
        return shard, session.client, owner, is_here

    async def _notify(
        self, session: Session, what: str, owner: str, channel: str, version: int, group: str
    ) -> None:
        shard = session.use(session.ring.of(owner))
        await shard.lane.do("notify", what, channel, version, group, owner)

    async def group_send(self, group: str, payload: bytes) -> None:
        """See `Backend.group_send`."""
        session = self._open
        client = session.client
        shard = session.use(session.ring.of(group))

        def fan_out(last: bytes) -> None:
            session.after(last, lambda: client.fan_out(group, payload))
            session.credit.settle_soon()

        if len(session.shards) == 1:

            def published(result: list[Any]) -> None:
                is_mine, last, _, unowned = result
                for channel in unowned:
                    self._queue_copy(session, channel.decode(), payload)
                if is_mine:
                    fan_out(last)

            await shard.lane.do("publish", group, self._expiry_ms, payload, then=published)
            return
        await self._send_over_shards(session, shard, group, payload, fan_out)

    async def _send_over_shards(
        self,
        session: Session,
        shard: Shard,
        group: str,
        payload: bytes,
        fan_out: Callable[[bytes], None],
    ) -> None:
        """Send to the members on all shards; what is sent afterwards waits for its turn.

        Raises:
            ServerSilent: some may have got it, but not those of a shard that does not answer.
        """
        turn, spread = self._spreading.begin(), Spread(new_waiter())

        def published(result: list[Any]) -> None:
            is_mine, last, others, unowned = result
            for channel in unowned:
                self._queue_copy(session, channel.decode(), payload)
            by_shard: dict[int, list[str]] = {}
            for owner in others:
                by_shard.setdefault(session.ring.of(owner.decode()), []).append(owner.decode())
            if is_mine and shard is session.home:
                fan_out(last)
            elif is_mine:
                by_shard.setdefault(session.home.index, [])
            for index, owners in by_shard.items():
                is_own = bool(is_mine) and index == session.home.index != shard.index
                then = spread.begin(session.shards[index].label, fan_out if is_own else None)
                words = (group, self._expiry_ms, payload, *owners)
                session.use(index).lane.post("copy", *words, then=then, gives_up=True)
            spread.go_on()

        try:
            await self._spreading.before(turn)
            await shard.lane.do("publish", group, self._expiry_ms, payload, then=published)
        finally:
            self._spreading.end(turn)
        await spread.arrived(self._options.timeout)

    def _queue_copy(self, session: Session, channel: str, payload: bytes) -> None:
        """Queue a copy for a member that no client owns; a miss is counted there."""
        index = session.ring.of_channel(channel)
        capacity = self._capacity(channel)
        if index is None:
            serving = [shard for shard in session.shards if not shard.lane.problem]
            shard = session.use(random.choice(serving or session.shards).index)  # noqa: S311
            capacity = session.ring.share_of(channel, capacity, shard.index)
        else:
            shard = session.use(index)
        shard.lane.post("queue", channel, capacity, self._expiry_ms, payload)

    async def group_channels(self, group: str) -> list[str]:
        """See `Backend.group_channels`."""
        session = self._open
        shard = session.use(session.ring.of(group))
        names = await shard.lane.do("members", group)
        # What others have changed of the own members stands in the inbox, perhaps still unread.
        with contextlib.suppress(BackendUnavailable):
            (last,) = await session.home.lane.do("copy", group, 0, b"")
            await session.read_up_to(last)
        return [name.decode() for name in names]

    # The whole prefix

    async def flush(self) -> None:
        """See `Backend.flush`."""
        session = self._open
        flushing = [
            (shard.lane, shard.lane.submit("flush")) for shard in map(session.use, session.indices)
        ]
        replies = [await lane.outcome(command) for lane, command in flushing]
        for shard in session.shards:
            while await shard.lane.do("clean"):
                pass
        ends_at = time.monotonic() + min(_FLUSHED_S, session.seconds / 2)
        for shard, (generation,) in zip(session.shards, replies, strict=True):
            if shard is not session.home:
                shard.generation = int(generation)
            while await shard.lane.do("unseen", generation) and time.monotonic() < ends_at:  # noqa: ASYNC110
                await anyio.sleep(_POLL_S)

    async def statistics(self, channel: str | None = None) -> Statistics:
        """See `Backend.statistics`."""
        session = self._open
        if channel is None:
            return await self._statistics(session)
        owner = client_of(channel)
        index = session.ring.of_channel(channel)
        parts: list[Statistics] = []
        if owner == session.client.id:
            parts.append(session.client.statistics(channel))
        elif owner is not None:
            answer = await self._answer(session, owner, channel)
            if answer is not None:
                parts.append(answer)
        for shard in map(session.use, session.indices if index is None else [index]):
            found = await shard.lane.do("numbers_of", channel)
            parts.append(of_queues(found, self._options.expiry)[0])
        return add_up(parts)

    async def _statistics(self, session: Session) -> Statistics:
        parts = [session.client.statistics()]
        for shard in map(session.use, session.indices):
            found = await shard.lane.do("numbers")
            queues, clients = of_queues(found, self._options.expiry)
            parts.append(queues)
            parts += [numbers for client, numbers in clients if client != session.client.id]
        return add_up(parts)

    async def _answer(self, session: Session, owner: str, channel: str) -> Statistics | None:
        """Ask the owner of a channel for its numbers; None where nobody owns it."""
        shard = session.use(session.ring.of(owner))
        number = str(next(session.numbers))
        question = session.questions[number] = Question(new_waiter())
        try:
            words = f"Q {number} {session.client.id}"
            if not await shard.lane.do("talk", words, channel, owner):
                return None
            with anyio.fail_after(session.seconds):
                await question.waiter
            numbers = ormsgpack.unpackb(question.answer)
        except TimeoutError as exc:
            raise ServerSilent(shard.label, f"client {owner} does not answer") from exc
        finally:
            session.questions.pop(number, None)
        return cast("Statistics", {key: numbers[key] for key in Statistics.__annotations__})
