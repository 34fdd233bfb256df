"""What comes into the inbox of one client: messages, copies, memberships, flushes, questions."""

from __future__ import annotations

import logging
from typing import Any

from ..backend import Arrival, Client
from ._credit import Credit
from ._memberships import Memberships
from ._progress import Progress
from ._questions import Questions
from ._shard import Shard
from ._workers import Workers

_logger = logging.getLogger("channels_layers")


class Inbox:
    """Hands what comes to the layer, in its order."""

    def __init__(
        self,
        client: Client,
        progress: Progress,
        credit: Credit,
        memberships: Memberships,
        questions: Questions,
        workers: Workers,
    ) -> None:
        self._client = client
        self._progress = progress
        self._credit = credit
        self._memberships = memberships
        self._questions = questions
        self._workers = workers

    def came_in(self, shard: Shard, entries: list[Any]) -> None:
        """Take what came into the inbox, which is on this shard."""
        arrivals: list[Arrival] = []
        position = shard.position
        for entry_id, fields in entries:
            if self._progress.must_go_on(entry_id):
                self._hand_in(shard, arrivals)
                arrivals = []
                shard.position = position
                self._progress.go_on(before=entry_id)
            try:
                words = fields[0].decode().split(" ")
                if words[0] == "F":
                    self._hand_in(shard, arrivals)
                    arrivals = []
                    self._flushed(shard, int(words[1]), fields[1].decode())
                elif words[0] in ("Q", "R"):
                    self._hand_in(shard, arrivals)  # so that an answer counts what came before
                    arrivals = []
                    self._questions.hear(words, fields[1])
                elif words[0] != "W":
                    arrival = self._arrival(shard, words, fields[1])
                    if arrival is not None:
                        arrivals.append(arrival)
            except (ValueError, IndexError):
                _logger.exception("an entry in the inbox of %s makes no sense", self._client.id)
            position = entry_id.decode()
        self._hand_in(shard, arrivals)
        # Only now, since other threads look at it to see what has arrived.
        shard.position = position
        self._progress.go_on()
        self._credit.settle_soon()

    def _arrival(self, shard: Shard, words: list[str], payload: bytes) -> Arrival | None:
        """Return what an entry means to the layer; None if it is old."""
        kind, name, number, generation = words
        if kind in ("A", "X"):
            if not self._memberships.is_news(payload.decode(), name, int(number)):
                return None
            return ("added" if kind == "A" else "discarded", name, payload, 0.0)
        if int(generation) < shard.generation:
            return None  # it was flushed
        lifetime = shard.lifetime(int(number))
        if kind == "M":
            self._credit.took(self._client.account_of(name), len(payload))
            return ("message", name, payload, lifetime)
        self._credit.took_copy(len(payload))
        return ("group", name, payload, lifetime)

    def _hand_in(self, shard: Shard, arrivals: list[Arrival]) -> None:
        if arrivals and self._client.take_in(arrivals):
            shard.lane.hurry()  # a channel is near its capacity: its account must be exact

    def _flushed(self, shard: Shard, generation: int, flush_id: str) -> None:
        shard.generation = generation
        self._client.forget()
        self._credit.forget()
        self._workers.flushed()
        self._memberships.flushed(flush_id, shard.index)
        shard.lane.post("seen", generation)
