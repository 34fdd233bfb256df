"""Compares the cost of operations beside few and many live channels and groups on a server."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from typing import Any

import anyio
from _harness import main
from _redis import (
    BY_HAND,
    CORE,
    LOOPS_OF,
    PUB_SUB,
    Stream,
    bare_client,
    bare_server,
    opened_over,
    reason_to_leave_out,
    redis_server,
    redis_servers,
)
from _results import OURS, Case, Contender, Figure, Options, Round, Sample, Target
from _samples import SMALL
from _tasks import bare_tasks

QUESTION = "Does an operation over Redis cost the same beside 100,000 live channels and groups?"
SIZES = (10, 100_000)
MEMBERS = 10  # of the group that is sent to
TASKS = 100  # that make the channels and groups
SETTINGS = {"expiry": 3600, "capacity": 1000}  # what is alive at the start still is at the end
SLACK = 1.5  # the dearest size may cost so many times the cheapest
OPERATIONS = ("send + receive, process-specific", "send + receive, normal", "group_send to 10")


@asynccontextmanager
async def ready(name: str, size: int, repeats: int) -> AsyncIterator[Round]:
    """Open two layers; a round sends from one to the other.

    Beside them so many normal channels hold a message, and so many groups have a member, which is
    a channel of the layer that reads.
    """
    with redis_server() as address:
        async with (
            opened_over(name, [address], **SETTINGS) as writing,
            opened_over(name, [address], **SETTINGS) as reading,
        ):

            async def fill(first: int) -> None:
                for number in range(first, size, TASKS):
                    await writing.send(f"channel.{number}", SMALL)
                    await reading.group_add(f"group.{number}", await reading.new_channel())

            async with anyio.create_task_group() as tasks:
                for first in range(min(TASKS, size)):
                    tasks.start_soon(fill, first)
            members = [await reading.new_channel() for _ in range(MEMBERS)]
            for member in members:
                await reading.group_add("room", member)
            specific = await reading.new_channel()

            async def send_receive(channel: str) -> None:
                await writing.send(channel, SMALL)
                await reading.receive(channel)

            async def group_send() -> None:
                await writing.group_send("room", SMALL)
                for member in members:
                    await reading.receive(member)

            async def one_round() -> Sample:
                operations = (
                    partial(send_receive, specific),
                    partial(send_receive, "jobs"),
                    group_send,
                )
                return {
                    figure: await timed(operation, repeats)
                    for figure, operation in zip(OPERATIONS, operations, strict=True)
                }

            yield one_round


@asynccontextmanager
async def by_hand(size: int, repeats: int) -> AsyncIterator[Round]:
    """Add to a stream and read from it, beside as many others; there are no groups by hand."""
    with redis_server() as address:
        async with bare_client(address) as writing, bare_client(address) as reading:
            for first in range(0, size, TASKS):
                async with writing.pipeline(transaction=False) as pipeline:
                    for number in range(first, min(first + TASKS, size)):
                        pipeline.xadd(f"channel.{number}", {"m": "message"})
                    await pipeline.execute()
            there, here = Stream(writing, "jobs"), Stream(reading, "jobs")

            async def send_receive() -> None:
                await there.add(SMALL)
                await here.read()

            async def one_round() -> Sample:
                return {OPERATIONS[0]: await timed(send_receive, repeats)}

            yield one_round


async def timed(operation: Callable[[], Awaitable[Any]], repeats: int) -> float:
    """Return the microseconds that one `operation` takes."""
    started = time.perf_counter()
    for _ in range(repeats):
        await operation()
    return (time.perf_counter() - started) / repeats * 1e6


@asynccontextmanager
async def connected(
    name: str, shards: int, receivers: int, normal: int, seconds: float
) -> AsyncIterator[Round]:
    """Let receivers wait, on a channel of its own each; a round counts what is connected."""
    with redis_servers(shards) as addresses, ExitStack() as stack:
        servers = [stack.enter_context(bare_server(address)) for address in addresses]
        async with opened_over(name, addresses) as layer, bare_tasks() as start:
            for _ in range(receivers):
                start(layer.receive, await layer.new_channel())
            for number in range(normal):
                start(layer.receive, f"channel.{number}")

            async def one_round() -> Sample:
                await anyio.sleep(seconds)
                found = [server.info("clients")["connected_clients"] - 1 for server in servers]
                return {"connections": sum(found)}

            yield one_round


def cost(options: Options, missing: str) -> Case:
    """Return the table of costs."""
    sizes = [size for size in SIZES if size <= options.pick(max(SIZES), 10)]
    contenders = [
        Contender(
            f"{name}, {size:,}",
            partial(ready, name, size, options.pick(repeats, 5)),
            LOOPS_OF[name],
        )
        for name, size, repeats in (
            *((OURS, size, 500) for size in sizes),
            *(() if missing else ((CORE, sizes[0], 100),)),
        )
    ]
    contenders += [
        Contender(
            f"{BY_HAND}, {size:,}",
            partial(by_hand, size, options.pick(500, 5)),
            LOOPS_OF[BY_HAND],
        )
        for size in sizes
    ]
    return Case(
        title="cost of an operation by the number of live channels of each kind, and of groups",
        figures=[Figure(name, "µs", less_is_better=True) for name in OPERATIONS],
        contenders=contenders,
        baselines=[f"{name}, {sizes[0]:,}" for name in (OURS, CORE, BY_HAND)],
        targets=[
            Target(
                figure=figure,
                contender=f"{OURS}, {size:,}",
                times=1 / SLACK,
                than=f"{OURS}, {sizes[0]:,}",
            )
            for figure in OPERATIONS
            for size in sizes[1:]
        ],
        notes=[
            "writer and reader are in one process",
            f"left out: {CORE}, for {missing}"
            if missing
            else f"left out: {CORE} beside {max(SIZES):,}, which it takes minutes to make",
        ],
    )


def connections(options: Options, missing: str) -> Case:
    """Return the table of connections."""
    specific, normal = options.pick(1_000, 5), options.pick(50, 5)
    names = [OURS] if missing else [OURS, CORE, PUB_SUB]
    return Case(
        title=f"connections of a client with {specific:,} receivers on channels of its own and "
        f"{normal} on normal ones",
        figures=[Figure("connections", "of one client", less_is_better=True)],
        contenders=[
            Contender(
                f"{name}, shards: {shards}",
                partial(connected, name, shards, specific, normal, options.pick(2_000, 200) / 1000),
                LOOPS_OF[name],
            )
            for name in names
            for shards in (1, 3)
        ],
        baselines=[],
        targets=[
            Target(
                figure="connections",
                contender=f"{OURS}, shards: {shards}",
                at_most=2 * shards + 1,
            )
            for shards in (1, 3)
        ],
    )


def cases(options: Options) -> list[Case]:
    """One table of costs, one of connections."""
    missing = reason_to_leave_out()
    return [cost(options, missing), connections(options, missing)]


if __name__ == "__main__":
    main(QUESTION, cases, rounds=5)
