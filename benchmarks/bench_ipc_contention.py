"""Measures event loops while many processes fight for one channel."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

import anyio
from _harness import FLOOR, OURS, Case, Contender, Figure, Options, Round, Sample, Target, main
from _ipc import fresh_prefix, insist, shared_layer
from _processes import Act, partners
from _samples import SMALL
from _tasks import bare_tasks

from channels_layers import InMemoryChannelLayer, IPCChannelLayer

QUESTION = "How late is an event loop while 8 processes fight for one channel?"
CHANNEL = "jobs"
GAP = 0.005  # seconds between two looks at how late the loop is
PREPARED = 0.1  # seconds until all processes begin at once


async def fight(layer: Any, starts_at: float, seconds: float) -> tuple[int, list[float]]:
    """Send and receive as much as can be; return how much came, and how late the loop was, in ms.

    Messages are counted only while all fight.
    """
    received = 0
    ends_at = starts_at + seconds

    async def write() -> None:
        while True:
            await insist(layer.send, CHANNEL, SMALL)

    async def read() -> None:
        nonlocal received
        while True:
            await layer.receive(CHANNEL)
            received += 1

    await until(starts_at)
    late: list[float] = []
    due = starts_at
    async with bare_tasks() as start:
        start(write)
        start(read)
        while (due := max(due + GAP, time.perf_counter())) < ends_at:
            await until(due)
            late.append((time.perf_counter() - due) * 1e3)
        count = received
    return count, late


async def until(due: float) -> None:
    """Sleep up to a moment of the clock that all processes have."""
    await anyio.sleep(max(0, due - time.perf_counter()))


@asynccontextmanager
async def fighting(prefix: str) -> AsyncIterator[tuple[None, Act]]:
    """Fight for the channel of a prefix; of the process alone where that is ""."""
    async with AsyncExitStack() as stack:
        layer = IPCChannelLayer(prefix) if prefix else InMemoryChannelLayer()
        await stack.enter_async_context(layer)

        async def act(order: tuple[float, float]) -> tuple[int, list[float]]:
            return await fight(layer, *order)

        yield None, act


@asynccontextmanager
async def ready(name: str, options: Options, count: int, seconds: float) -> AsyncIterator[Round]:
    """Start the processes; a round lets all of them fight for so many seconds."""
    prefix = fresh_prefix() if name == OURS else ""
    async with AsyncExitStack() as stack:
        if prefix:
            await stack.enter_async_context(shared_layer(prefix))
        crew = await stack.enter_async_context(partners(options, count, fighting, prefix))

        async def one_round() -> Sample:
            starts_at = time.perf_counter() + PREPARED
            for partner in crew:
                await partner.begin((starts_at, seconds))
            told = [await partner.end() for partner in crew]
            late = [lag for _, lags in told for lag in lags]
            throughput = sum(received for received, _ in told) / seconds
            return {"lag": late, "lag max": max(late), "throughput": throughput}

        yield one_round


def cases(options: Options) -> list[Case]:
    """One table."""
    count = options.pick(8, 2)
    seconds = 0.1 if options.quick else 2.0
    return [
        Case(
            title=f"{count} processes, a writer and a reader in each",
            figures=[
                *(Figure(f"lag {part}", "ms", less_is_better=True) for part in ("p50", "p99")),
                Figure("lag max", "ms", less_is_better=True),
                Figure("throughput", "messages/s"),
            ],
            contenders=[
                Contender(name, partial(ready, name, options, count, seconds))
                for name in (OURS, FLOOR)
            ],
            baselines=[FLOOR],
            targets=[Target(figure="lag p99", at_most=5)],
            notes=[
                "the floor is as many processes with a channel each, in memory: they share nothing "
                "but the cores"
            ],
        )
    ]


if __name__ == "__main__":
    main(QUESTION, cases, rounds=5)
