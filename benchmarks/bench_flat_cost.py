"""Compares the cost of operations beside few and many live channels and groups."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from _contenders import ASYNCIO_ONLY, opened
from _harness import main
from _results import LOOPS, OURS, PEER, Case, Contender, Figure, Options, Round, Sample, Target
from _samples import SMALL

QUESTION = "Does an operation cost the same beside 10 and beside 100,000 live channels and groups?"
SIZES = (10, 1_000, 100_000)
MEMBERS = 10  # of the group that is sent to
EXPIRY = 3600  # seconds: what is alive at the start still is at the end
SLACK = 1.5  # the dearest size may cost so many times the cheapest


@asynccontextmanager
async def ready(name: str, size: int, repeats: int) -> AsyncIterator[Round]:
    """Open a layer with `size` channels that hold a message, and as many groups of one member."""
    async with opened(name, expiry=EXPIRY) as layer:
        for number in range(size):
            await layer.send(f"channel.{number}", SMALL)
            await layer.group_add(f"group.{number}", f"channel.{number}")
        members = [await layer.new_channel() for _ in range(MEMBERS)]
        for member in members:
            await layer.group_add("room", member)

        async def send_receive() -> None:
            await layer.send("jobs", SMALL)
            await layer.receive("jobs")

        async def add_discard() -> None:
            await layer.group_add("group.1", "jobs")
            await layer.group_discard("group.1", "jobs")

        async def group_send() -> None:
            await layer.group_send("room", SMALL)
            for member in members:
                await layer.receive(member)

        async def one_round() -> Sample:
            return {
                "send + receive": await timed(send_receive, repeats),
                "group_add + group_discard": await timed(add_discard, repeats),
                "group_send to 10": await timed(group_send, max(1, repeats // MEMBERS)),
            }

        yield one_round


async def timed(operation: Callable[[], Awaitable[Any]], repeats: int) -> float:
    """Return the microseconds that one `operation` takes."""
    started = time.perf_counter()
    for _ in range(repeats):
        await operation()
    return (time.perf_counter() - started) / repeats * 1e6


def cases(options: Options) -> list[Case]:
    """One table: each size of ours, and of the peer with few operations, for it is slow there."""
    sizes = [size for size in SIZES if size <= options.pick(max(SIZES), 1_000)]
    figures = [
        Figure(name, "µs", less_is_better=True)
        for name in ("send + receive", "group_add + group_discard", "group_send to 10")
    ]
    reference = f"{OURS}, {sizes[0]:,}"
    contenders = [
        Contender(f"{OURS}, {size:,}", partial(ready, OURS, size, options.pick(5_000, 10)), LOOPS)
        for size in sizes
    ]
    contenders += [
        Contender(
            f"{PEER}, {size:,}",
            partial(ready, PEER, size, max(1, options.pick(2_000, 10) // size)),
            ASYNCIO_ONLY,
        )
        for size in sizes
    ]
    return [
        Case(
            title="cost of an operation by the number of live channels and groups",
            figures=figures,
            contenders=contenders,
            baselines=[reference],
            targets=[
                Target(figure=figure.name, contender=name, times=1 / SLACK, than=reference)
                for figure in figures
                for name in [f"{OURS}, {size:,}" for size in sizes[1:]]
            ],
        )
    ]


if __name__ == "__main__":
    main(QUESTION, cases, rounds=9)
