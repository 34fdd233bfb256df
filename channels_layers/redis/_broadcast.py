"""Sending to the members of a group, on one shard or on several."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import anyio

from .._loops import LoopWaiter, new_waiter, wake_one
from ._errors import ServerSilent, ServerUnavailable
from ._session import Session
from ._shards import ShardRing

SLACK: Final = 0.05  # of the time of a call: how long to wait for the home's word at its end
_MOST_KNOWN: Final = 256  # groups whose clients by shard are remembered


class Broadcast:
    """Puts copies of a group's messages where their members are."""

    def __init__(
        self, ring: ShardRing, expiry_ms: int, timeout: float, capacity: Callable[[str], int]
    ) -> None:
        self._destinations = Destinations(ring)
        self._expiry_ms = expiry_ms
        self._timeout = timeout
        self._capacity = capacity

    async def publish(self, session: Session, group: str, payload: bytes) -> None:
        """Send to the members of a group on the only shard.

        Raises:
            ServerUnavailable: the shard does not answer; nothing was sent.
            ServerSilent: some may have got it.
        """
        turn, lane = session.line.begin(), session.home.lane
        began = time.monotonic()
        spread = Spread(new_waiter(), began + session.seconds)

        def published(result: list[Any]) -> None:
            act = partial(self._serve, session, spread, group, payload, *result)
            if not session.line.ready(turn, act):
                act()  # late, but others have their copy

        command = lane.submit("publish", group, self._expiry_ms, payload, then=published)
        command.failed = partial(session.line.end, turn)
        try:
            _, _, unowned = await lane.outcome(command)
        except BaseException:
            if command.is_given_up:
                session.line.end(turn)
            raise
        if unowned:
            await spread.arrived(began + self._timeout)

    def _serve(
        self, session: Session, spread: Spread, group: str, payload: bytes,
        is_mine: int, last: bytes, unowned: list[bytes],
    ) -> None:  # fmt: skip
        """Send to the members of no client, and serve the own ones; others have their copies."""
        for channel in unowned:
            self._queue_copy(session, spread, channel.decode(), payload)
        if is_mine:
            self._fan_out(session, last, group, payload)
        spread.end()

    async def spread(self, session: Session, group: str, payload: bytes) -> None:
        """Ask the group's shard for the clients that have members; send a copy to each of theirs.

        Raises:
            ServerUnavailable: the group's shard does not answer; nothing was sent.
            ServerSilent: some may have got it, but not those of a shard that does not answer.
        """
        shard = session.use(session.ring.of(group))
        began = time.monotonic()
        spread = Spread(new_waiter(), began + session.seconds)

        def told(result: list[Any]) -> None:
            send = partial(self._send_copies, session, spread, group, payload, *result)
            session.line.ready(turn, send)

        question = shard.lane.command("owners", group, then=told)
        turn = session.line.begin((shard.lane, question))
        question.failed = partial(session.line.end, turn)
        shard.lane.queue(question)
        try:
            await shard.lane.outcome(question)
            await spread.arrived(began + self._timeout)
        except BaseException as exc:
            session.line.end(turn)  # nothing was sent, or everything
            if isinstance(exc, ServerSilent) and question.error is exc:
                raise ServerUnavailable(exc.shard, exc.problem) from exc
            raise

    def _send_copies(
        self, session: Session, spread: Spread, group: str, payload: bytes,
        is_mine: int, others: bytes, unowned: list[bytes],
    ) -> None:  # fmt: skip
        """Send to the own members, to those of other clients, and to those of none."""
        for channel in unowned:
            self._queue_copy(session, spread, channel.decode(), payload)
        by_shard = self._destinations.of(group, others)
        if is_mine:
            by_shard.setdefault(session.home.index, b"")
        for index, owners in by_shard.items():
            shard = session.use(index)
            then = spread.begin(shard.label)
            if is_mine and shard is session.home:
                then = self._served(session, group, payload, then)
            words = (group, self._expiry_ms, payload, owners)
            shard.lane.post("copy", *words, then=then, gives_up_at=spread.ends_at)
        spread.end()

    def _served(
        self, session: Session, group: str, payload: bytes, then: Callable[[Any], None]
    ) -> Callable[[Any], None]:
        mine = session.copies.begin()

        def copied(result: list[bytes] | None) -> None:
            if result is None:
                session.copies.end(mine)
            else:
                fan_out = partial(self._fan_out, session, result[0], group, payload)
                session.copies.ready(mine, fan_out)
            then(result)

        return copied

    def _fan_out(self, session: Session, last: bytes, group: str, payload: bytes) -> None:
        """Serve the own members of a group, when what came before to the inbox was read."""
        session.progress.after(last, lambda: session.client.fan_out(group, payload))
        session.credit.settle_soon()

    def _queue_copy(self, session: Session, spread: Spread, channel: str, payload: bytes) -> None:
        """Queue a copy for a member that no client owns; a miss is counted there."""
        index = session.ring.of_channel(channel)
        capacity = self._capacity(channel)
        if index is None:
            serving = [shard for shard in session.shards if not shard.lane.problem]
            shard = session.use(random.choice(serving or session.shards).index)  # noqa: S311
            capacity = session.ring.share_of(channel, capacity, shard.index)
        else:
            shard = session.use(index)
        words = (channel, capacity, self._expiry_ms, payload)
        then = spread.begin(shard.label)
        shard.lane.post("queue", *words, then=then, gives_up_at=spread.ends_at)


class Destinations:
    """On which shards the clients live that have members in a group."""

    def __init__(self, ring: ShardRing) -> None:
        self._ring = ring
        self._known: dict[str, tuple[bytes, dict[int, bytes]]] = {}

    def of(self, group: str, clients: bytes) -> dict[int, bytes]:
        """Return the clients on each shard; they are separated by spaces.

        Most groups have the members that they had a moment ago, so the last answer is kept.
        """
        known = self._known.get(group)
        if known is None or known[0] != clients:
            names: dict[int, list[bytes]] = {}
            for client in clients.split():
                names.setdefault(self._ring.of(client.decode()), []).append(client)
            known = clients, {index: b" ".join(some) for index, some in names.items()}
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known[group] = known
        return dict(known[1])


class Spread:
    """The copies of one group message that go on from the home's event loop."""

    def __init__(self, waiter: LoopWaiter, ends_at: float) -> None:
        self.ends_at = ends_at  # of the monotonic clock: then they are given up
        self._waiter = waiter  # of who sends
        self._on_the_way = 1  # and this itself, while copies are being sent
        self._missed = ""  # a shard

    def begin(self, shard: str) -> Callable[[Any], None]:
        """Note one more copy, to the shard of this label; return what is to hear how it went."""
        self._on_the_way += 1

        def went(result: object) -> None:
            if result is None:
                self._missed = shard
            self.end()

        return went

    def end(self) -> None:
        """Let who sends go on when all copies are where they should be."""
        self._on_the_way -= 1
        if not self._on_the_way:
            wake_one(self._waiter)

    async def arrived(self, ends_at: float) -> None:
        """Wait for all of them, until then: the home may end before it can tell.

        Raises:
            ServerSilent: one of the shards does not answer; the others have their copies.
        """
        with anyio.move_on_after(ends_at - time.monotonic()) as patience:
            await self._waiter
        if patience.cancelled_caught:
            self._missed = "its shards"
        if self._missed:
            raise ServerSilent(self._missed, "no answer in time, the other shards are served")
