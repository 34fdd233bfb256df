"""Compares the cost of one delivery in small and large groups."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from _fanout import audience
from _harness import main
from _results import FLOOR, OURS, Case, Contender, Figure, Options, Round, Sample, Target

QUESTION = "Does a delivery of group_send cost the same in a group of 10 and of 100,000 members?"
SIZES = (10, 100, 1_000, 10_000, 100_000)
TIMES = 0.5  # no size may be less than so many times as good as 1,000 members


@asynccontextmanager
async def ready(name: str, members: int, deliveries: int) -> AsyncIterator[Round]:
    """Open a group; a round makes about so many deliveries, one send at a time."""
    async with audience(name, members) as hear:
        repeats = max(1, deliveries // members)

        async def one_round() -> Sample:
            started = time.perf_counter()
            for _ in range(repeats):
                await hear(1)
            return {"deliveries": repeats * members / (time.perf_counter() - started)}

        yield one_round


def cases(options: Options) -> list[Case]:
    """One table: the sizes of ours, and the floor at each."""
    sizes = [size for size in SIZES if size <= options.pick(max(SIZES), 100)]
    deliveries = options.pick(50_000, 200)
    reference = f"{OURS}, {sizes[len(sizes) // 2]:,}"
    return [
        Case(
            title="group_send, one at a time, by the number of members",
            figures=[Figure("deliveries", "1/s")],
            contenders=[
                Contender(f"{name}, {size:,}", partial(ready, name, size, deliveries))
                for name in (OURS, FLOOR)
                for size in sizes
            ],
            baselines=[reference],
            targets=[
                Target(figure="deliveries", contender=name, times=TIMES, than=reference)
                for name in [f"{OURS}, {size:,}" for size in sizes]
            ],
        )
    ]


if __name__ == "__main__":
    main(QUESTION, cases, rounds=7)
