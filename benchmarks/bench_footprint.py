"""Compares what waiting receivers cost while nothing happens, and what they leave behind."""

from __future__ import annotations

import gc
import time
import tracemalloc
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio
from _contenders import ALL, future_maker, opened
from _harness import main
from _results import PEER, Case, Contender, Figure, Options, Round, Sample, Target
from anyio.lowlevel import checkpoint

QUESTION = "What do 10,000 waiting receivers cost, and what is left of them afterwards?"

BYTES = ("added", "left when cancelled", "left when closed", "left when gone")

Wait = Callable[[str], Coroutine[Any, Any, None]]


@asynccontextmanager
async def waiting(wait: Wait, channels: list[str]) -> AsyncIterator[None]:
    """Let one task wait on each channel."""
    async with anyio.create_task_group() as tasks:
        for channel in channels:
            tasks.start_soon(wait, channel)
        await settled()  # every task runs up to its wait
        yield
        tasks.cancel_scope.cancel()


async def settled() -> None:
    """Let every task run as far as it can, and the loop let go of those that ended."""
    for _ in range(3):
        await checkpoint()


def allocated() -> int:
    """Return the bytes that live objects take."""
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


async def memory_of(wait: Wait, channels: list[str]) -> tuple[float, float]:
    """Return the bytes for each waiting task, and what is left of each after cancelling it."""
    before = allocated()
    async with waiting(wait, channels):
        during = allocated()
    await settled()
    return (during - before) / len(channels), (allocated() - before) / len(channels)


async def cpu_share(wait: Wait, channels: list[str], seconds: float) -> float:
    """Return the percentage of a core that the process takes while all wait."""
    async with waiting(wait, channels):
        await anyio.sleep(0.1)
        cpu, wall = time.process_time(), time.perf_counter()
        await anyio.sleep(seconds)
        return 100 * (time.process_time() - cpu) / (time.perf_counter() - wall)


async def bare(_: str) -> None:
    """Wait on a bare future."""
    await future_maker()()


@asynccontextmanager
async def ready(name: str, receivers: int, seconds: float) -> AsyncIterator[Round]:
    """A round opens a layer, lets tasks wait on it, and compares with tasks on bare futures."""

    async def one_round() -> Sample:
        async with opened(name) as layer:
            channels = [await layer.new_channel() for _ in range(receivers)]
            share = await cpu_share(partial(_received, layer), channels, seconds)
        tracemalloc.start()
        try:
            bare_bytes, _ = await memory_of(bare, channels)
            empty = allocated()
            async with opened(name) as layer:
                task_bytes, left = await memory_of(partial(_received, layer), channels)
            await settled()
            closed = allocated() - empty
            del layer
            gone = allocated() - empty
        finally:
            tracemalloc.stop()
        return {
            "CPU": share,
            "added": task_bytes - bare_bytes,
            "left when cancelled": left,
            "left when closed": closed / receivers,
            "left when gone": gone / receivers,
        }

    yield one_round


async def _received(layer: Any, channel: str) -> None:
    await layer.receive(channel)


def cases(options: Options) -> list[Case]:
    """One table."""
    receivers = options.pick(10_000, 20)
    few = receivers // 10  # the peer's `receive` looks at all channels: 10,000 take minutes
    seconds = 3.0 if not options.quick else 0.05
    return [
        Case(
            title=f"{receivers:,} receivers ({few:,} of {PEER}'), each on its own channel",
            figures=[
                Figure("CPU", "% of a core", less_is_better=True),
                *(Figure(name, "bytes a receiver", less_is_better=True) for name in BYTES),
            ],
            contenders=[
                Contender(
                    name, partial(ready, name, few if name == PEER else receivers, seconds), loops
                )
                for name, loops in ALL
            ],
            baselines=[],
            targets=[
                Target(figure="CPU", at_most=1),
                Target(figure="added", at_most=1536),
                Target(figure="left when gone", at_most=1),
            ],
        )
    ]


if __name__ == "__main__":
    main(QUESTION, cases, rounds=3)
