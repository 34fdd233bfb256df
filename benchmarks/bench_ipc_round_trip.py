"""Compares the round trip between two processes."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from _contenders import future_maker
from _harness import main
from _ipc import fresh_prefix, shared_layer
from _pipes import watched
from _processes import Act, Partner, partners, processes
from _results import FLOOR, OURS, Case, Contender, Figure, Options, Round, Sample, Target
from _samples import SMALL
from _tasks import bare_tasks
from anyio.lowlevel import checkpoint

from channels_layers import IPCChannelLayer

QUESTION = "How long is a round trip between two processes, idle and with a saturated loop?"
SEMAPHORE = "semaphores"
BUSY = 0.001  # seconds that the task takes that saturates a loop, each time round

FLOOR_IS = "the floor is a byte in a pipe that the event loop watches"


@asynccontextmanager
async def spinning(is_saturated: bool) -> AsyncIterator[None]:
    """Saturate the running loop by a task, or do not."""

    async def spin() -> None:
        while True:
            until = time.perf_counter() + BUSY
            while time.perf_counter() < until:
                pass
            await checkpoint()

    async with bare_tasks() as start:
        if is_saturated:
            start(spin)
        yield


def round_of(partner: Partner, order: Any, trip: Callable[[], Awaitable[None]]) -> Round:
    """Return a round: the latencies of trips to a partner that answers each."""

    async def one_round() -> Sample:
        clock, latencies = time.perf_counter, []
        await partner.begin(order)
        for _ in range(order[0]):
            started = clock()
            await trip()
            latencies.append((clock() - started) * 1e6)
        await partner.end()
        return {"round trip": latencies}

    return one_round


@asynccontextmanager
async def answering(prefix: str, is_saturated: bool) -> AsyncIterator[tuple[str, Act]]:
    """Send back, to another channel, each message."""
    async with IPCChannelLayer(prefix) as layer, spinning(is_saturated):
        there = await layer.new_channel()

        async def answer(order: tuple[int, str]) -> None:
            trips, back = order
            for _ in range(trips):
                await layer.send(back, await layer.receive(there))

        yield there, answer


@asynccontextmanager
async def ours(options: Options, trips: int, is_saturated: bool) -> AsyncIterator[Round]:
    """Go by way of two process-specific channels."""
    prefix = fresh_prefix()
    async with (
        shared_layer(prefix) as layer,
        partners(options, 1, answering, prefix, is_saturated) as [partner],
    ):
        there, back = partner.greeting, await layer.new_channel()

        async def trip() -> None:
            await layer.send(there, SMALL)
            await layer.receive(back)

        yield round_of(partner, (trips, back), trip)


@asynccontextmanager
async def answering_semaphore(there: Any, back: Any) -> AsyncIterator[tuple[None, Act]]:
    """Post for each post, blocking the loop."""

    async def answer(order: tuple[int]) -> None:
        for _ in range(order[0]):
            there.acquire()
            back.release()

    yield None, answer


@asynccontextmanager
async def semaphores(options: Options, trips: int) -> AsyncIterator[Round]:
    """Go by way of two POSIX semaphores: no loop, no message."""
    there, back = processes.Semaphore(0), processes.Semaphore(0)
    async with partners(options, 1, answering_semaphore, there, back) as [partner]:

        async def trip() -> None:
            there.release()
            back.acquire()

        yield round_of(partner, (trips,), trip)


@asynccontextmanager
async def heard(pipe: Any) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Give what waits, in the running loop, for a byte in a pipe."""
    descriptor, new_future = pipe.fileno(), future_maker()
    future: Any = None
    is_rung = False

    def ring() -> None:
        nonlocal is_rung, future
        os.read(descriptor, 1)
        is_rung = True
        if future is not None:
            future.set_result(None)
            future = None

    async def hear() -> None:
        nonlocal is_rung, future
        if not is_rung:
            future = new_future()
            await future
        is_rung = False

    async with watched(descriptor, ring):
        yield hear


@asynccontextmanager
async def answering_pipe(
    there: Any, back: Any, is_saturated: bool
) -> AsyncIterator[tuple[None, Act]]:
    """Write a byte for each byte."""
    async with heard(there) as hear, spinning(is_saturated):

        async def answer(order: tuple[int]) -> None:
            for _ in range(order[0]):
                await hear()
                os.write(back.fileno(), b"\0")

        yield None, answer


@asynccontextmanager
async def pipes(options: Options, trips: int, is_saturated: bool) -> AsyncIterator[Round]:
    """Go by way of two pipes that the loops watch: no message."""
    there, ring = processes.Pipe(duplex=False)
    back, answer = processes.Pipe(duplex=False)
    with there, ring, back, answer:
        async with (
            partners(options, 1, answering_pipe, there, answer, is_saturated) as [partner],
            heard(back) as hear,
        ):

            async def trip() -> None:
                os.write(ring.fileno(), b"\0")
                await hear()

            yield round_of(partner, (trips,), trip)


def cases(options: Options) -> list[Case]:
    """One table for idle loops, one for a busy one."""
    trips, few = options.pick(3_000, 20), options.pick(300, 5)
    figures = [
        Figure(f"round trip {part}", "µs", less_is_better=True) for part in ("p50", "p99", "p99.9")
    ]
    return [
        Case(
            title="ping-pong between two processes, one trip at a time",
            figures=figures,
            contenders=[
                Contender(OURS, partial(ours, options, trips, False)),
                Contender(SEMAPHORE, partial(semaphores, options, trips)),
                Contender(FLOOR, partial(pipes, options, trips, False)),
            ],
            baselines=[SEMAPHORE, FLOOR],
            targets=[Target(figure="round trip p50", times=1 / 2.2, than=SEMAPHORE)],
            notes=[FLOOR_IS],
        ),
        Case(
            title=f"the loop that answers is saturated by a task that takes {BUSY * 1e3:.0f} ms",
            figures=figures,
            contenders=[
                Contender(OURS, partial(ours, options, few, True)),
                Contender(FLOOR, partial(pipes, options, few, True)),
            ],
            baselines=[FLOOR],
            targets=[Target(figure="round trip p50", at_most=5_000)],
            notes=[FLOOR_IS],
        ),
    ]


if __name__ == "__main__":
    main(QUESTION, cases, rounds=9)
