"""Measures event loops while many processes fight for one channel."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from typing import Any

import anyio
from _harness import main
from _ipc import fresh_prefix, insist, shared_layer
from _processes import Act, partners, processes
from _results import FLOOR, OURS, Case, Contender, Figure, Options, Round, Sample, Target
from _samples import SMALL
from _tasks import bare_tasks
from anyio.lowlevel import checkpoint
from anyio.to_thread import run_sync

from channels_layers import ChannelFull, InMemoryChannelLayer, IPCChannelLayer

QUESTION = "How late is an event loop while 8 processes fight for one channel?"
CHANNEL = "jobs"
GAP = 0.005  # seconds between two looks at how late the loop is
LOOKS = 2  # at least


async def fight(layer: Any, seconds: float) -> tuple[int, list[float]]:
    """Send and receive as much as can be; return how much came, and how late the loop was, in ms.

    Messages are counted only while all fight.
    """
    received = 0

    async def write() -> None:
        while True:
            await insist(layer.send, CHANNEL, SMALL)

    async def read() -> None:
        nonlocal received
        while True:
            await layer.receive(CHANNEL)
            received += 1

    async with bare_tasks() as start:
        start(write)
        start(read)
        late = await watch(seconds)
        count = received
    return count, late


async def send_now_and_then(layer: Any, seconds: float) -> tuple[int, list[float]]:
    """Send one message each time that the loop is looked at; return the same."""

    async def send() -> None:
        with suppress(ChannelFull):
            await layer.send(CHANNEL, SMALL)

    return 0, await watch(seconds, send)


async def watch(seconds: float, then: Callable[[], Awaitable[None]] = checkpoint) -> list[float]:
    """Return how late the running loop was, in ms, each time that it was looked at."""
    late: list[float] = []
    due = time.perf_counter()
    ends_at = due + seconds
    while (due := max(due + GAP, time.perf_counter())) < ends_at or len(late) < LOOKS:
        await anyio.sleep(max(0, due - time.perf_counter()))
        late.append((time.perf_counter() - due) * 1e3)
        await then()
    return late


@asynccontextmanager
async def fighting(prefix: str, barrier: Any) -> AsyncIterator[tuple[None, Act]]:
    """Fight for the channel of a prefix; of the process alone where that is ""."""
    async with AsyncExitStack() as stack:
        layer = IPCChannelLayer(prefix) if prefix else InMemoryChannelLayer()
        await stack.enter_async_context(layer)

        async def act(order: tuple[bool, float]) -> tuple[int, list[float]]:
            is_fighting, seconds = order
            await run_sync(barrier.wait)  # all begin at once
            return await (fight if is_fighting else send_now_and_then)(layer, seconds)

        yield None, act


@asynccontextmanager
async def ready(name: str, options: Options, count: int, seconds: float) -> AsyncIterator[Round]:
    """Start the processes; a round lets all of them fight for so many seconds."""
    prefix = fresh_prefix() if name == OURS else ""
    async with AsyncExitStack() as stack:
        if prefix:
            await stack.enter_async_context(shared_layer(prefix))
        barrier = processes.Barrier(count + 1)
        crew = await stack.enter_async_context(
            partners(options, count + 1, fighting, prefix, barrier)
        )

        async def one_round() -> Sample:
            for number, partner in enumerate(crew):
                await partner.begin((number < count, seconds))
            *fought, (_, beside) = [await partner.end() for partner in crew]
            late = [lag for _, lags in fought for lag in lags]
            return {
                "lag": late,
                "lag max": max(late),
                "lag beside": beside,
                "lag beside max": max(beside),
                "throughput": sum(received for received, _ in fought) / seconds,
            }

        yield one_round


def cases(options: Options) -> list[Case]:
    """One table."""
    count = options.pick(8, 2)
    seconds = 0.3 if options.quick else 2.0
    return [
        Case(
            title=f"{count} processes, a writer and a reader in each",
            figures=[
                *(
                    Figure(f"{lag} {part}", "ms", less_is_better=True)
                    for lag in ("lag", "lag beside")
                    for part in ("p50", "p99", "max")
                ),
                Figure("throughput", "messages/s"),
            ],
            contenders=[
                Contender(name, partial(ready, name, options, count, seconds))
                for name in (OURS, FLOOR)
            ],
            baselines=[FLOOR],
            targets=[
                Target(figure="lag p99", at_most=5),
                Target(figure="lag beside p99", at_most=5),
            ],
            notes=[
                f"lag: of the loops of these; lag beside: of one more process that sends every "
                f"{GAP * 1e3:.0f} ms",
                "the floor is as many processes with a channel each, in memory: they share nothing "
                "but the cores",
            ],
        )
    ]


if __name__ == "__main__":
    main(QUESTION, cases, rounds=5)
