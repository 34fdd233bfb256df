"""Compares the fan-out of a group_send to tasks of many processes."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

import ormsgpack
from _contenders import Floor
from _fanout import GROUP, Expect, seated
from _harness import main
from _ipc import fresh_prefix, shared_layer
from _pipes import Frames, watched, write_frame
from _processes import Act, Partner, partners, processes
from _results import FLOOR, OURS, Case, Contender, Figure, Options, Round, Sample, Target
from _samples import SMALL

from channels_layers import IPCChannelLayer

QUESTION = "How many deliveries a second does group_send make to 10,000 tasks in 8 processes?"
BURST = 10  # sends before anybody is waited for


def timed(expect: Expect) -> Act:
    """Let a process tell when its last member had the last of so many sends."""

    async def act(sends: int) -> float:
        await expect(sends)
        return time.perf_counter()  # the same clock in all processes

    return act


def round_of(
    crew: list[Partner], members: int, burst: int, repeats: int, send: Callable[[], Awaitable[None]]
) -> Round:
    """Return a round: so many bursts of sends, each waited for before the next."""

    async def one_round() -> Sample:
        seconds = 0.0
        for _ in range(repeats):
            for partner in crew:
                await partner.begin(burst)
            started = time.perf_counter()
            for _ in range(burst):
                await send()
            seconds += max([await partner.end() for partner in crew]) - started
        return {"deliveries": repeats * burst * members / seconds}

    return one_round


@asynccontextmanager
async def listening(prefix: str, members: int) -> AsyncIterator[tuple[None, Act]]:
    """Let members wait on our layer."""
    async with IPCChannelLayer(prefix) as layer, seated(layer, members) as expect:
        yield None, timed(expect)


@asynccontextmanager
async def ours(
    options: Options, count: int, members: int, burst: int, repeats: int
) -> AsyncIterator[Round]:
    """Send from a process that has no members itself."""
    prefix = fresh_prefix()
    async with (
        shared_layer(prefix) as layer,
        partners(options, count, listening, prefix, members // count) as crew,
    ):
        yield round_of(crew, members, burst, repeats, lambda: layer.group_send(GROUP, SMALL))


@asynccontextmanager
async def listening_at_pipe(pipe: Any, members: int) -> AsyncIterator[tuple[None, Act]]:
    """Let members wait on bare futures for what comes through a pipe."""
    floor, frames = Floor(), Frames(pipe.fileno())

    def on_ready() -> None:
        for payload in frames.read():
            floor.fan_out(GROUP, payload)

    async with seated(floor, members) as expect, watched(pipe.fileno(), on_ready):
        yield None, timed(expect)


@asynccontextmanager
async def pipes(
    options: Options, count: int, members: int, burst: int, repeats: int
) -> AsyncIterator[Round]:
    """Write one copy to the pipe of each process."""
    async with AsyncExitStack() as stack:
        crew, descriptors = [], []
        for _ in range(count):
            there, here = processes.Pipe(duplex=False)
            stack.enter_context(here)
            descriptors.append(here.fileno())
            role = partners(options, 1, listening_at_pipe, there, members // count)
            crew += await stack.enter_async_context(role)
            there.close()

        async def send() -> None:
            payload = ormsgpack.packb(SMALL)
            for descriptor in descriptors:
                write_frame(descriptor, payload)

        yield round_of(crew, members, burst, repeats, send)


def cases(options: Options) -> list[Case]:
    """One table for sends one at a time, one for bursts."""
    count, members = options.pick(8, 2), options.pick(10_000, 20)
    return [
        Case(
            title=f"group_send to {members:,} members in {count} other processes, {title}",
            figures=[Figure("deliveries", "1/s")],
            contenders=[
                Contender(name, partial(role, options, count, members, burst, repeats))
                for name, role in ((OURS, ours), (FLOOR, pipes))
            ],
            baselines=[FLOOR],
            targets=[Target(figure="deliveries", at_least=at_least)] if at_least else (),
            notes=["the floor is a pipe to each process, and a bare future for each member there"],
        )
        for title, burst, repeats, at_least in (
            ("one send at a time", 1, options.pick(20, 2), 0),
            (f"bursts of {BURST}", BURST, options.pick(4, 1), 800_000),
        )
    ]


if __name__ == "__main__":
    main(QUESTION, cases, rounds=9)
