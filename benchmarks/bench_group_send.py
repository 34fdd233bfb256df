"""Compares the fan-out of a group_send to many waiting tasks."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from _contenders import ALL
from _fanout import audience
from _harness import main
from _results import PEER, Case, Contender, Figure, Options, Round, Sample, Target

QUESTION = "How many deliveries a second does group_send make to 1,000 tasks that each wait?"
BURST = 10  # sends before the members get to run


@asynccontextmanager
async def ready(name: str, members: int, burst: int, repeats: int) -> AsyncIterator[Round]:
    """Open a group; a round hears `repeats` times `burst` sends."""
    async with audience(name, members) as hear:

        async def one_round() -> Sample:
            started = time.perf_counter()
            for _ in range(repeats):
                await hear(burst)
            return {"deliveries": repeats * burst * members / (time.perf_counter() - started)}

        yield one_round


def cases(options: Options) -> list[Case]:
    """One table for sends one at a time, one for bursts."""
    members = options.pick(1_000, 10)
    return [
        Case(
            title=f"group_send to {members:,} members, {title}",
            figures=[Figure("deliveries", "1/s")],
            contenders=[
                Contender(name, partial(ready, name, members, burst, repeats), loops)
                for name, loops in ALL
                for repeats in [_repeats(name, burst, options)]
            ],
            targets=[
                Target(figure="deliveries", times=50),
                Target(figure="deliveries", at_least=per_second),
            ],
        )
        for title, burst, per_second in (
            ("one send at a time", 1, 400_000),
            (f"bursts of {BURST}", BURST, 800_000),
        )
    ]


def _repeats(name: str, burst: int, options: Options) -> int:
    # The peer takes a sixth of a second a send: one is enough.
    return 1 if name == PEER else options.pick(100, 2) // burst or 1


if __name__ == "__main__":
    main(QUESTION, cases, rounds=9)
