"""Compares the throughput over one and over three Redis servers, and shows who is busy."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    ExitStack,
    asynccontextmanager,
)
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
    bare_server,
    inbox_of,
    opened_over,
    reason_to_leave_out,
    redis_servers,
)
from _results import OURS, Case, Contender, Figure, Options, Round, Sample, Target
from _samples import SMALL

from channels_layers.redis._hosts import addresses as addresses_of
from channels_layers.redis._shards import ShardRing

QUESTION = "How much goes over one shard, and over three?"
SHARDS = (1, 3)
SENDERS = 50  # tasks; and commands in a pipeline by hand
READERS = 12  # layers of the process that reads, so that some have each shard for their home
CAPACITY = 1_000_000  # of a channel: nothing is refused
GROUPS = 12  # so that some have each shard for their own; a task sends to each
PREFIX = "shards"
LEASE_S = 3600  # clients of which only the inboxes are there show no life

#: Opens the writers, told the servers and the channels; gives what sends so many messages.
Writing: TypeAlias = Callable[
    [list[str], Any], AbstractAsyncContextManager[Callable[[int], Awaitable[None]]]
]


def timed(read: Callable[[int], Awaitable[None]]) -> Act:
    """Let the readers tell when they had the last message, and what CPU time they took."""

    async def act(count: int) -> tuple[float, float]:
        cpu = time.process_time()
        await read(count)
        return time.perf_counter(), time.process_time() - cpu

    return act


@asynccontextmanager
async def measured(
    options: Options, shards: int, count: int, role: Role, name: str, writing: Writing
) -> AsyncIterator[Round]:
    """Start servers, readers in another process and writers here; a round sends and measures."""
    with redis_servers(shards) as addresses, ExitStack() as stack:
        servers = [stack.enter_context(bare_server(address)) for address in addresses]
        async with (
            partners(options, 1, role, name, addresses) as [partner],
            writing(addresses, partner.greeting) as write,
        ):

            async def one_round() -> Sample:
                before = [cpu_of(server) for server in servers]
                await partner.begin(count)
                started, cpu = time.perf_counter(), time.process_time()
                await write(count)
                cpu = time.process_time() - cpu
                ended, reader_cpu = await partner.end()
                busy = [cpu_of(server) - was for server, was in zip(servers, before, strict=True)]
                seconds = ended - started
                return {
                    "throughput": count / seconds,
                    "CPU of the writer": 100 * cpu / seconds,
                    "CPU of the reader": 100 * reader_cpu / seconds,
                    "CPU of the busiest server": 100 * max(busy) / seconds,
                }

            yield one_round


def cpu_of(server: Any) -> float:
    """Return the seconds of CPU that a server has taken."""
    found = server.info("cpu")
    return found["used_cpu_user"] + found["used_cpu_sys"]


@asynccontextmanager
async def reading(name: str, addresses: list[str]) -> AsyncIterator[tuple[list[str], Act]]:
    """Read from a process-specific channel of each of several layers."""
    async with AsyncExitStack() as stack:
        layers = [
            await stack.enter_async_context(opened_over(name, addresses, capacity=CAPACITY))
            for _ in range(READERS)
        ]
        channels = [await layer.new_channel() for layer in layers]

        async def read_some(layer: Any, channel: str, count: int) -> None:
            receive = layer.receive
            for _ in range(count):
                await receive(channel)

        async def read(count: int) -> None:
            async with anyio.create_task_group() as tasks:
                for layer, channel in zip(layers, channels, strict=True):
                    tasks.start_soon(read_some, layer, channel, count // READERS)

        yield channels, timed(read)


@asynccontextmanager
async def layers(options: Options, name: str, shards: int, count: int) -> AsyncIterator[Round]:
    """Write to all channels in turn, from all tasks at once."""

    @asynccontextmanager
    async def writing(addresses: list[str], channels: list[str]) -> AsyncIterator[Any]:
        async with opened_over(name, addresses, capacity=CAPACITY) as layer:

            async def write_some(first: int, count: int) -> None:
                send = layer.send
                for number in range(first, count, SENDERS):
                    await send(channels[number % READERS], SMALL)

            async def write(count: int) -> None:
                async with anyio.create_task_group() as tasks:
                    for first in range(SENDERS):
                        tasks.start_soon(write_some, first, count)

            yield write

    async with measured(options, shards, count, reading, name, writing) as one_round:
        yield one_round


@asynccontextmanager
async def reading_by_hand(name: str, addresses: list[str]) -> AsyncIterator[tuple[None, Act]]:
    """Read from a stream of each server."""
    async with AsyncExitStack() as stack:
        streams = [
            Stream(await stack.enter_async_context(bare_client(address)), name)
            for address in addresses
        ]

        async def read_some(stream: Stream, count: int) -> None:
            while count > 0:
                count -= len(await stream.read())

        async def read(count: int) -> None:
            each = count // len(streams)
            await asyncio.gather(*(read_some(stream, each) for stream in streams))

        yield None, timed(read)


@asynccontextmanager
async def by_hand(options: Options, shards: int, count: int) -> AsyncIterator[Round]:
    """Write pipelines to a stream of each server, to all servers at once."""

    @asynccontextmanager
    async def writing(addresses: list[str], _: None) -> AsyncIterator[Any]:
        async with AsyncExitStack() as stack:
            streams = [
                Stream(await stack.enter_async_context(bare_client(address)), BY_HAND)
                for address in addresses
            ]

            async def write_some(stream: Stream, count: int) -> None:
                for _ in range(count // SENDERS):
                    await stream.add_all([SMALL] * SENDERS)

            async def write(count: int) -> None:
                each = count // len(streams)
                await asyncio.gather(*(write_some(stream, each) for stream in streams))

            yield write

    async with measured(options, shards, count, reading_by_hand, BY_HAND, writing) as one_round:
        yield one_round


@asynccontextmanager
async def fan_out(shards: int, clients: int, count: int) -> AsyncIterator[Round]:
    """Send to groups of many clients, of which nothing but their inboxes is there."""
    with redis_servers(shards) as addresses, ExitStack() as stack:
        servers = [stack.enter_context(bare_server(address)) for address in addresses]
        ring = ShardRing([address.label for address in addresses_of(addresses)])
        names = [f"client{number}" for number in range(clients)]
        inboxes = [(servers[ring.of(name)], inbox_of(PREFIX, name)) for name in names]
        async with opened_over(OURS, addresses, prefix=PREFIX, lease=LEASE_S) as layer:
            for server, inbox in inboxes:
                server.xadd(inbox, {"W": ""})
            for group in range(GROUPS):
                for name in names:
                    await layer.group_add(f"group{group}", f"specific.{name}!member")

            async def send_some(group: int) -> None:
                for _ in range(count // GROUPS):
                    await layer.group_send(f"group{group}", SMALL)

            async def one_round() -> Sample:
                for server, inbox in inboxes:
                    server.xtrim(inbox, maxlen=0, approximate=False)
                before = [cpu_of(server) for server in servers]
                started, cpu = time.perf_counter(), time.process_time()
                async with anyio.create_task_group() as tasks:
                    for group in range(GROUPS):
                        tasks.start_soon(send_some, group)
                seconds = time.perf_counter() - started
                cpu = time.process_time() - cpu
                busy = [cpu_of(server) - was for server, was in zip(servers, before, strict=True)]
                copies = sum(server.xlen(inbox) for server, inbox in inboxes)
                assert copies == count // GROUPS * GROUPS * clients
                return {
                    "copies": copies / seconds,
                    "CPU of the writer": 100 * cpu / seconds,
                    "CPU of the busiest server": 100 * max(busy) / seconds,
                }

            yield one_round


def cases(options: Options) -> list[Case]:
    """One table where the clients are the limit, and one where the servers are."""
    clients, sends = options.pick(300, 5), options.pick(600, 24)
    count, few = options.pick(12_000, 300), options.pick(1_200, 300)
    missing = reason_to_leave_out()
    sizes = {OURS: count} if missing else {OURS: count, CORE: few}
    one, three = SHARDS
    return [
        Case(
            title=f"{SENDERS} tasks in one process, {READERS} layers that read in another",
            figures=[
                Figure("throughput", "messages/s"),
                *(
                    Figure(f"CPU of the {who}", "% of a core", less_is_better=True)
                    for who in ("writer", "reader", "busiest server")
                ),
            ],
            contenders=[
                *(
                    Contender(
                        f"{name}, shards: {shards}",
                        partial(layers, options, name, shards, size),
                        LOOPS_OF[name],
                    )
                    for name, size in sizes.items()
                    for shards in SHARDS
                    if name == OURS or shards == one
                ),
                *(
                    Contender(
                        f"{BY_HAND}, shards: {shards}",
                        partial(by_hand, options, shards, count),
                        LOOPS_OF[BY_HAND],
                    )
                    for shards in SHARDS
                ),
            ],
            baselines=[f"{name}, shards: {one}" for name in (OURS, CORE, BY_HAND)],
            targets=[
                Target(
                    figure="throughput",
                    contender=f"{OURS}, shards: {three}",
                    times=1,
                    than=f"{OURS}, shards: {one}",
                )
            ],
            notes=[
                "where the processes of Python take what cores there are, they are the limit "
                "and not the servers",
                f"{BY_HAND} is pipelines of {SENDERS} bare XADDs, to all servers at once",
                f"left out: {CORE}, for {missing}"
                if missing
                else f"left out: {CORE} over more than one shard, where it sends to "
                "process-specific channels of other shards than those where it reads them",
            ],
        ),
        Case(
            title=f"{GROUPS} tasks that send to groups of {clients} clients: work for the servers",
            figures=[
                Figure("copies", "1/s"),
                *(
                    Figure(f"CPU of the {who}", "% of a core", less_is_better=True)
                    for who in ("writer", "busiest server")
                ),
            ],
            contenders=[
                Contender(
                    f"{OURS}, shards: {shards}",
                    partial(fan_out, shards, clients, sends),
                    LOOPS_OF[OURS],
                )
                for shards in SHARDS
            ],
            baselines=[f"{OURS}, shards: {one}"],
            targets=[
                Target(
                    figure="copies",
                    contender=f"{OURS}, shards: {three}",
                    times=1.2,
                    than=f"{OURS}, shards: {one}",
                )
            ],
            notes=["of the clients only their inbox streams are there; nobody reads them"],
        ),
    ]


if __name__ == "__main__":
    main(QUESTION, cases, rounds=7)
