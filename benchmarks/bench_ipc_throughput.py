"""Compares ways of sending small messages from one process to another."""

from __future__ import annotations

import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import ormsgpack
from _contenders import ASYNCIO_ONLY
from _harness import main
from _ipc import fresh_prefix, insist, shared_layer
from _pipes import Frames, write_frame
from _processes import Act, Role, partners, processes
from _redis import CORE, opened_over, reason_to_leave_out, redis_server
from _results import FLOOR, LOOPS, OURS, Case, Contender, Figure, Options, Round, Sample, Target
from _samples import SMALL

from channels_layers import IPCChannelLayer

QUESTION = "How many small messages a second go from a task of one process to a task of another?"
CAPACITY = 100_000  # above what the rings and queues of a layer hold
KINDS = ("process-specific", "normal")
QUEUE = "multiprocessing.Queue"
ZMQ = "pyzmq"
REDIS = CORE

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


# A layer: ours, and Channels' over Redis


async def read_layer(layer: Any, kind: str) -> tuple[str, Act]:
    """Return the channel and what reads it."""
    channel = await layer.new_channel() if kind == KINDS[0] else "thumbnails"

    async def read(count: int) -> None:
        receive = layer.receive
        for _ in range(count):
            await receive(channel)

    return channel, timed(read)


def writer_to(layer: Any, channel: str) -> Write:
    """Return what writes to a channel of a layer."""

    async def write(count: int) -> None:
        send = layer.send
        for _ in range(count):
            await insist(send, channel, SMALL)

    return write


@asynccontextmanager
async def reading_ours(prefix: str, kind: str) -> AsyncIterator[tuple[str, Act]]:
    """Read from our layer."""
    async with IPCChannelLayer(prefix, capacity=CAPACITY) as layer:
        yield await read_layer(layer, kind)


@asynccontextmanager
async def ours(options: Options, count: int, kind: str) -> AsyncIterator[Round]:
    """Write to our layer."""
    prefix = fresh_prefix()
    async with (
        shared_layer(prefix, capacity=CAPACITY) as layer,
        reader(options, count, reading_ours, prefix, kind) as (channel, round_of),
    ):
        yield round_of(writer_to(layer, channel))


@asynccontextmanager
async def reading_redis(address: str, kind: str) -> AsyncIterator[tuple[str, Act]]:
    """Read from Channels' layer."""
    async with opened_over(CORE, [address], capacity=CAPACITY) as layer:
        yield await read_layer(layer, kind)


@asynccontextmanager
async def redis(options: Options, count: int, kind: str) -> AsyncIterator[Round]:
    """Write to Channels' layer, over a server of its own."""
    with redis_server() as address:
        async with (
            opened_over(CORE, [address], capacity=CAPACITY) as layer,
            reader(options, count, reading_redis, address, kind) as (channel, round_of),
        ):
            yield round_of(writer_to(layer, channel))


# multiprocessing.Queue


@asynccontextmanager
async def reading_queue(queue: Any) -> AsyncIterator[tuple[None, Act]]:
    """Get from a queue, blocking the loop."""

    async def read(count: int) -> None:
        get = queue.get
        for _ in range(count):
            get()

    yield None, timed(read)


@asynccontextmanager
async def bare_queue(options: Options, count: int) -> AsyncIterator[Round]:
    """Put into a queue."""
    queue = processes.Queue()

    async def write(count: int) -> None:
        put = queue.put
        for _ in range(count):
            put(SMALL)

    async with reader(options, count, reading_queue, queue) as (_, round_of):
        yield round_of(write)
    queue.close()
    queue.join_thread()


# ZeroMQ


@asynccontextmanager
async def reading_zmq(address: str) -> AsyncIterator[tuple[None, Act]]:
    """Pull from a socket, awaited."""
    import zmq.asyncio  # it has no place in a run under trio

    with zmq.asyncio.Context() as context, context.socket(zmq.PULL) as socket:
        socket.bind(address)

        async def read(count: int) -> None:
            receive, decode = socket.recv, ormsgpack.unpackb
            for _ in range(count):
                decode(await receive())

        yield None, timed(read)


@asynccontextmanager
async def zeromq(options: Options, count: int) -> AsyncIterator[Round]:
    """Push to a socket, awaited."""
    import zmq.asyncio

    with tempfile.TemporaryDirectory() as folder:
        address = f"ipc://{Path(folder) / 'socket'}"
        async with reader(options, count, reading_zmq, address) as (_, round_of):
            with zmq.asyncio.Context() as context, context.socket(zmq.PUSH) as socket:
                socket.connect(address)

                async def write(count: int) -> None:
                    send, encode = socket.send, ormsgpack.packb
                    for _ in range(count):
                        await send(encode(SMALL))

                yield round_of(write)


# The floor


@asynccontextmanager
async def reading_pipe(pipe: Any) -> AsyncIterator[tuple[None, Act]]:
    """Read from a pipe as much as there is, blocking the loop."""
    frames = Frames(pipe.fileno())

    async def read(count: int) -> None:
        decode = ormsgpack.unpackb
        while count:
            for payload in frames.read():
                decode(payload)
                count -= 1

    yield None, timed(read)


@asynccontextmanager
async def bare_pipe(options: Options, count: int) -> AsyncIterator[Round]:
    """Write to a pipe, message by message, blocking the loop."""
    there, here = processes.Pipe(duplex=False)
    with here:

        async def write(count: int) -> None:
            descriptor, encode = here.fileno(), ormsgpack.packb
            for _ in range(count):
                write_frame(descriptor, encode(SMALL))

        async with reader(options, count, reading_pipe, there) as (_, round_of):
            there.close()
            yield round_of(write)


def cases(options: Options) -> list[Case]:
    """One table."""
    count, few = options.pick(50_000, 20), options.pick(1_000, 10)
    missing = reason_to_leave_out()
    contenders = [
        *(Contender(f"{OURS}, {kind}", partial(ours, options, count, kind)) for kind in KINDS),
        Contender(QUEUE, partial(bare_queue, options, count)),
        Contender(ZMQ, partial(zeromq, options, count), ASYNCIO_ONLY),
        *(
            Contender(f"{REDIS}, {kind}", partial(redis, options, few, kind), ("asyncio",))
            for kind in KINDS
            if not missing
        ),
        Contender(FLOOR, partial(bare_pipe, options, count), LOOPS),
    ]
    return [
        Case(
            title="one writer in one process, one reader in another",
            figures=[Figure("throughput", "messages/s")],
            contenders=contenders,
            baselines=[QUEUE, ZMQ, f"{REDIS}, {KINDS[0]}", f"{REDIS}, {KINDS[1]}", FLOOR],
            targets=[
                Target(figure="throughput", contender=f"{OURS}, {kind}", times=times, than=than)
                for kind in KINDS
                for times, than in ((1.2, QUEUE), (3, ZMQ), (100, f"{REDIS}, {kind}"))
            ],
            notes=[f"left out: {REDIS}, for {missing}"] if missing else (),
        )
    ]


if __name__ == "__main__":
    main(QUESTION, cases, rounds=9)
