"""The numbers of a channel of another client: asked of it by way of its inbox, and answered."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import cast

import anyio
import ormsgpack

from .._loops import LoopWaiter, new_waiter, wake_one
from ..backend import Client
from ..statistics import Statistics
from ._errors import ServerSilent
from ._shard import Shard
from ._shards import ShardRing


class Question:
    """What another client is asked, and its answer."""

    def __init__(self, waiter: LoopWaiter) -> None:
        self.waiter = waiter
        self.answer = b""


class Questions:
    """Those of one client to others, and those of others to it."""

    def __init__(self, client: Client, ring: ShardRing, use: Callable[[int], Shard]) -> None:
        """Begin with none; `use` returns a shard to which commands go."""
        self._client = client
        self._ring = ring
        self._use = use
        self._waiting: dict[str, Question] = {}
        self._numbers = itertools.count(1)

    async def ask(self, owner: str, channel: str, ends_at: float) -> Statistics | None:
        """Ask the owner of a channel for its numbers; None where nobody owns it.

        Raises:
            ServerSilent: the owner did not answer until then.
            ServerUnavailable: it was not asked.
        """
        shard = self._use(self._ring.of(owner))
        number = str(next(self._numbers))
        question = self._waiting[number] = Question(new_waiter())
        try:
            words = f"Q {number} {self._client.id}"
            if not await shard.lane.do("talk", words, channel, owner, ends_at=ends_at):
                return None
            with anyio.fail_after(ends_at - time.monotonic()):
                await question.waiter
            numbers = ormsgpack.unpackb(question.answer)
        except TimeoutError as exc:
            raise ServerSilent(shard.label, f"client {owner} does not answer") from exc
        finally:
            self._waiting.pop(number, None)
        return cast("Statistics", {key: numbers[key] for key in Statistics.__annotations__})

    def hear(self, words: list[str], payload: bytes) -> None:
        """Take an answer, or answer a question."""
        if words[0] == "R":
            question = self._waiting.pop(words[1], None)
            if question is not None:
                question.answer = payload
                wake_one(question.waiter)
            return
        _, number, asker, _ = words
        numbers = ormsgpack.packb(dict(self._client.statistics(payload.decode())))
        shard = self._use(self._ring.of(asker))
        shard.lane.post("talk", f"R {number}", numbers, asker)
