"""Compares the round trip between two tasks of one loop."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from _contenders import ALL, opened
from _harness import main
from _results import LOOPS, PEER, Case, Contender, Figure, Options, Round, Sample, Target
from _samples import SMALL
from _tasks import bare_tasks

QUESTION = "How long is a round trip between two tasks through two channels of one loop?"
QUEUE = "bare queue"


class Queues:
    """The floor that people know: asyncio.Queue, or a memory channel of trio; no copy is made."""

    def __init__(self) -> None:
        self._queues: dict[str, Any] = {}

    async def new_channel(self) -> str:
        """Make a queue."""
        name = str(len(self._queues))
        self._queues[name] = _queue()
        return name

    async def send(self, channel: str, message: dict[str, Any]) -> None:
        """Put it in."""
        self._queues[channel][0](message)

    async def receive(self, channel: str) -> Any:
        """Take it out."""
        return await self._queues[channel][1]()


def _queue() -> tuple[Any, Any]:
    import asyncio

    import sniffio
    import trio

    if sniffio.current_async_library() == "trio":
        writing, reading = trio.open_memory_channel[Any](100)
        return writing.send_nowait, reading.receive
    queue: asyncio.Queue[Any] = asyncio.Queue(100)
    return queue.put_nowait, queue.get


@asynccontextmanager
async def layer_or_queue(name: str) -> AsyncIterator[Any]:
    """Open what is to be timed."""
    if name == QUEUE:
        yield Queues()
    else:
        async with opened(name) as layer:
            yield layer


@asynccontextmanager
async def ready(name: str, trips: int) -> AsyncIterator[Round]:
    """Open a layer with a task that answers; a round makes so many trips."""
    async with layer_or_queue(name) as layer, bare_tasks() as start:
        there, back = await layer.new_channel(), await layer.new_channel()

        async def answer() -> None:
            while True:
                await layer.send(back, await layer.receive(there))

        async def one_round() -> Sample:
            send, receive = layer.send, layer.receive
            started = time.perf_counter()
            for _ in range(trips):
                await send(there, SMALL)
                await receive(back)
            return {"round trip": (time.perf_counter() - started) / trips * 1e6}

        start(answer)
        yield one_round


def cases(options: Options) -> list[Case]:
    """One table."""
    trips = options.pick(3_000, 20)
    return [
        Case(
            title="ping-pong between two tasks, one trip at a time",
            figures=[Figure("round trip", "µs", less_is_better=True)],
            contenders=[
                Contender(name, partial(ready, name, trips), loops)
                for name, loops in (*ALL, (QUEUE, LOOPS))
            ],
            baselines=[PEER, "floor", QUEUE],
            targets=[Target(figure="round trip", times=1)],
        )
    ]


if __name__ == "__main__":
    main(QUESTION, cases)
