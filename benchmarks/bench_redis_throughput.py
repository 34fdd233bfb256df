"""Compares ways of sending small messages from many tasks over one Redis server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeAlias

import anyio
from _harness import main
from _processes import Act, Role, partners
from _redis import (
    BY_HAND,
    CORE,
    LOOPS_OF,
    Stream,
    bare_client,
    opened_over,
    reason_to_leave_out,
    redis_server,
)
from _results import OURS, Case, Contender, Figure, Options, Round, Sample, Target
from _samples import SMALL

QUESTION = "How many messages a second do 50 tasks send to readers in another process?"
SENDERS = 50  # tasks; and commands in a pipeline by hand
CAPACITY = 1_000_000  # of a channel: nothing is refused
KINDS = {"process-specific": 1, "normal": 1, f"normal, {SENDERS} readers": SENDERS}
ONE = "normal"  # whose only reader has one message at a time handed to it

#: Sends so many messages.
Write: TypeAlias = Callable[[int], Awaitable[None]]


def timed(read: Write) -> Act:
    """Let the reader tell when it had the last of so many messages."""

    async def act(count: int) -> float:
        await read(count)
        return time.perf_counter()  # the same clock in all processes

    return act


@asynccontextmanager
async def reader(
    options: Options, count: int, role: Role, *args: Any
) -> AsyncIterator[tuple[Any, Callable[[Write], Round]]]:
    """Start the process that reads; give its greeting and what makes a round of a writer."""
    async with partners(options, 1, role, *args) as [partner]:

        def round_of(write: Write) -> Round:
            async def one_round() -> Sample:
                await partner.begin(count)
                started = time.perf_counter()
                await write(count)
                return {"throughput": count / (await partner.end() - started)}

            return one_round

        yield partner.greeting, round_of


@asynccontextmanager
async def reading(name: str, address: str, kind: str) -> AsyncIterator[tuple[str, Act]]:
    """Read from a layer."""
    async with opened_over(name, [address], capacity=CAPACITY) as layer:
        channel = "thumbnails" if kind.startswith(ONE) else await layer.new_channel()

        async def read_some(count: int) -> None:
            receive = layer.receive
            for _ in range(count):
                await receive(channel)

        async def read(count: int) -> None:
            async with anyio.create_task_group() as tasks:
                for _ in range(KINDS[kind]):
                    tasks.start_soon(read_some, count // KINDS[kind])

        yield channel, timed(read)


@asynccontextmanager
async def layers(options: Options, name: str, count: int, kind: str) -> AsyncIterator[Round]:
    """Write to a layer, from all tasks at once."""
    with redis_server() as address:
        async with (
            opened_over(name, [address], capacity=CAPACITY) as layer,
            reader(options, count, reading, name, address, kind) as (channel, round_of),
        ):

            async def write_some(count: int) -> None:
                send = layer.send
                for _ in range(count):
                    await send(channel, SMALL)

            async def write(count: int) -> None:
                async with anyio.create_task_group() as tasks:
                    for _ in range(SENDERS):
                        tasks.start_soon(write_some, count // SENDERS)

            yield round_of(write)


@asynccontextmanager
async def reading_by_hand(address: str) -> AsyncIterator[tuple[None, Act]]:
    """Read from a stream as much as there is."""
    async with bare_client(address) as client:
        stream = Stream(client, "stream")

        async def read(count: int) -> None:
            while count:
                count -= len(await stream.read())
                await asyncio.sleep(0)

        yield None, timed(read)


@asynccontextmanager
async def by_hand(options: Options, count: int) -> AsyncIterator[Round]:
    """Write to a stream, a pipeline after the other."""
    with redis_server() as address:
        async with (
            bare_client(address) as client,
            reader(options, count, reading_by_hand, address) as (_, round_of),
        ):
            stream, messages = Stream(client, "stream"), [SMALL] * SENDERS

            async def write(count: int) -> None:
                for _ in range(count // SENDERS):
                    await stream.add_all(messages)

            yield round_of(write)


def cases(options: Options) -> list[Case]:
    """One table."""
    count, few = options.pick(20_000, 100), options.pick(2_000, 50)
    missing = reason_to_leave_out()
    sizes = {OURS: count} if missing else {OURS: count, CORE: few}
    return [
        Case(
            title=f"{SENDERS} tasks in one process, one task or as many in another",
            figures=[Figure("throughput", "messages/s")],
            contenders=[
                *(
                    Contender(
                        f"{name}, {kind}",
                        partial(layers, options, name, few if kind == ONE else size, kind),
                        LOOPS_OF[name],
                    )
                    for name, size in sizes.items()
                    for kind in KINDS
                ),
                Contender(BY_HAND, partial(by_hand, options, count), LOOPS_OF[BY_HAND]),
            ],
            baselines=[*(f"{CORE}, {kind}" for kind in KINDS), BY_HAND],
            targets=[
                Target(figure="throughput", contender=f"{OURS}, {kind}", times=times, than=than)
                for kind in KINDS
                for times, than in ((25, f"{CORE}, {kind}"), (0.5, BY_HAND))
            ],
            notes=[
                f"{BY_HAND} is pipelines of {SENDERS} bare XADDs, one after the other, on redis-py",
                *([f"left out: {CORE}, for {missing}"] if missing else ()),
            ],
        )
    ]


if __name__ == "__main__":
    main(QUESTION, cases, rounds=9)
