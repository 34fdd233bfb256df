"""Compares the cost of operations beside few and many live channels and attached processes."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial

import anyio
from _harness import main
from _ipc import fresh_prefix, insist, shared_layer
from _processes import Act, partners
from _results import OURS, Case, Contender, Figure, Options, Round, Sample, Target
from _samples import SMALL
from _tasks import bare_tasks

from channels_layers import IPCChannelLayer

QUESTION = "Does it cost more beside 10,000 live channels, or beside 64 attached processes?"
CHANNELS = (10, 1_000, 10_000)
PROCESSES = (1, 8, 64)
KINDS = ("process-specific", "normal")
EXPIRY = 3600  # seconds: what is alive at the start still is at the end
CAPACITY = 100  # of a channel
PATIENCE = 60  # seconds that a process may take to attach while all others do
SLACK = 1.5  # the dearest size may cost so many times the cheapest


@asynccontextmanager
async def attached(prefix: str) -> AsyncIterator[tuple[None, Act]]:
    """Wait on a channel of each kind; tell how busy the process is within so many seconds."""
    async with IPCChannelLayer(prefix, timeout=PATIENCE) as layer, bare_tasks() as start:
        start(layer.receive, await layer.new_channel())
        start(layer.receive, "never.sent.to")

        async def cpu_share(seconds: float) -> float:
            cpu, wall = time.process_time(), time.perf_counter()
            await anyio.sleep(seconds)
            return 100 * (time.process_time() - cpu) / (time.perf_counter() - wall)

        yield None, cpu_share


@asynccontextmanager
async def ready(options: Options, channels: int, others: int, repeats: int) -> AsyncIterator[Round]:
    """Open two layers; a round sends from one to the other.

    Beside them `channels` channels of each kind hold a message, and `others` processes wait.
    """
    prefix = fresh_prefix()
    settings = {"expiry": EXPIRY, "capacity": CAPACITY, "timeout": PATIENCE}
    async with (
        shared_layer(prefix, **settings) as writing,
        IPCChannelLayer(prefix, **settings) as reading,
        partners(options, others, attached, prefix),
    ):
        for number in range(channels):
            await insist(writing.send, await reading.new_channel(), SMALL)
            await insist(writing.send, f"channel.{number}", SMALL)
        used = dict(zip(KINDS, (await reading.new_channel(), "jobs"), strict=True))

        async def one_round() -> Sample:
            sample = {}
            for kind, channel in used.items():
                send, receive = writing.send, reading.receive
                started = time.perf_counter()
                for _ in range(repeats):
                    await send(channel, SMALL)
                    await receive(channel)
                sample[f"send + receive, {kind}"] = (time.perf_counter() - started) / repeats * 1e6
            return sample

        yield one_round


@asynccontextmanager
async def idle(options: Options, count: int, seconds: float) -> AsyncIterator[Round]:
    """Attach so many processes; a round looks at one of them."""
    async with partners(options, count, attached, fresh_prefix()) as [first, *_]:

        async def one_round() -> Sample:
            return {"CPU": await first.ask(seconds)}

        yield one_round


def cost(options: Options, title: str, sizes: Sequence[tuple[int, int, int]]) -> Case:
    """Return a table of costs; of each size the name, the channels and the other processes."""
    figures = [Figure(f"send + receive, {kind}", "µs", less_is_better=True) for kind in KINDS]
    repeats = options.pick(3_000, 10)
    names = [f"{OURS}, {size:,}" for size, _, _ in sizes]
    return Case(
        title=title,
        figures=figures,
        contenders=[
            Contender(name, partial(ready, options, channels, others, repeats))
            for name, (_, channels, others) in zip(names, sizes, strict=True)
        ],
        baselines=names[:1],
        targets=[
            Target(figure=figure.name, contender=name, times=1 / SLACK, than=names[0])
            for figure in figures
            for name in names[1:]
        ],
    )


def cases(options: Options) -> list[Case]:
    """One table by channels, one by processes, one for what these cost while nothing happens."""
    channels, counts = ((10,), (1, 2)) if options.quick else (CHANNELS, PROCESSES)
    return [
        cost(
            options,
            "cost of an operation by the number of live channels of each kind",
            [(size, size, 0) for size in channels],
        ),
        cost(
            options,
            "cost of an operation by the number of attached processes",
            [(size, 0, size - 1) for size in counts],
        ),
        Case(
            title="an attached process while nothing happens, by the number of processes",
            figures=[Figure("CPU", "% of a core", less_is_better=True)],
            contenders=[
                Contender(
                    f"{OURS}, {size:,}",
                    partial(idle, options, size, 0.05 if options.quick else 3.0),
                )
                for size in counts
            ],
            baselines=[],
            targets=[
                Target(figure="CPU", contender=f"{OURS}, {size:,}", at_most=1) for size in counts
            ],
        ),
    ]


if __name__ == "__main__":
    main(QUESTION, cases, rounds=5)
