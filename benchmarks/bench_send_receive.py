"""Compares send and receive of a message that need not wait."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from _contenders import ALL, opened
from _harness import main
from _results import Case, Contender, Figure, Options, Round, Sample, Target
from _samples import SMALL

QUESTION = "How many small messages a second go through a channel, sent and received in one task?"
BATCH = 50  # messages that wait at once; below every default capacity


@asynccontextmanager
async def ready(name: str, kind: str, batches: int) -> AsyncIterator[Round]:
    """Open a layer; a round sends and receives `batches` times `BATCH` messages."""
    async with opened(name) as layer:
        channel = await layer.new_channel() if kind == "process-specific" else "thumbnails"

        async def one_round() -> Sample:
            send, receive, batch = layer.send, layer.receive, [None] * BATCH
            started = time.perf_counter()
            for _ in range(batches):
                for _ in batch:
                    await send(channel, SMALL)
                for _ in batch:
                    await receive(channel)
            return {"throughput": batches * BATCH / (time.perf_counter() - started)}

        yield one_round


def cases(options: Options) -> list[Case]:
    """One table for each kind of channel."""
    batches = options.pick(200, 2)
    return [
        Case(
            title=f"send + receive, {kind} channel, batches of {BATCH}",
            figures=[Figure("throughput", "messages/s")],
            contenders=[
                Contender(name, partial(ready, name, kind, batches), loops) for name, loops in ALL
            ],
            targets=[Target(figure="throughput", times=5)],
        )
        for kind in ("normal", "process-specific")
    ]


if __name__ == "__main__":
    main(QUESTION, cases)
