"""Compares the round trip between two processes over one Redis server."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from _harness import main
from _processes import Act, Partner, partners
from _redis import (
    BY_HAND,
    CORE,
    LOOPS_OF,
    PUB_SUB,
    Stream,
    bare_client,
    opened_over,
    reason_to_leave_out,
    redis_server,
)
from _results import OURS, Case, Contender, Figure, Options, Round, Sample, Target
from _samples import SMALL

QUESTION = "How long is a round trip between two processes over one redis-server?"


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
async def answering(name: str, address: str) -> AsyncIterator[tuple[str, Act]]:
    """Send back, to another channel, each message."""
    async with opened_over(name, [address]) as layer:
        there = await layer.new_channel()

        async def answer(order: tuple[int, str]) -> None:
            trips, back = order
            for _ in range(trips):
                await layer.send(back, await layer.receive(there))

        yield there, answer


@asynccontextmanager
async def layers(options: Options, name: str, trips: int) -> AsyncIterator[Round]:
    """Go by way of two process-specific channels."""
    with redis_server() as address:
        async with (
            opened_over(name, [address]) as layer,
            partners(options, 1, answering, name, address) as [partner],
        ):
            there, back = partner.greeting, await layer.new_channel()

            async def trip() -> None:
                await layer.send(there, SMALL)
                await layer.receive(back)

            yield round_of(partner, (trips, back), trip)


@asynccontextmanager
async def answering_by_hand(address: str) -> AsyncIterator[tuple[None, Act]]:
    """Add to one stream what comes through the other."""
    async with bare_client(address) as client:
        there, back = Stream(client, "there"), Stream(client, "back")

        async def answer(order: tuple[int]) -> None:
            for _ in range(order[0]):
                [message] = await there.read()
                await back.add(message)

        yield None, answer


@asynccontextmanager
async def by_hand(options: Options, trips: int) -> AsyncIterator[Round]:
    """Go by way of two streams: no names, capacity or expiry."""
    with redis_server() as address:
        async with (
            bare_client(address) as client,
            partners(options, 1, answering_by_hand, address) as [partner],
        ):
            there, back = Stream(client, "there"), Stream(client, "back")

            async def trip() -> None:
                await there.add(SMALL)
                await back.read()

            yield round_of(partner, (trips,), trip)


def cases(options: Options) -> list[Case]:
    """One table."""
    trips = options.pick(1_000, 20)
    missing = reason_to_leave_out()
    names = [OURS] if missing else [OURS, CORE, PUB_SUB]
    return [
        Case(
            title="ping-pong between two processes, one trip at a time",
            figures=[
                Figure(f"round trip {part}", "µs", less_is_better=True)
                for part in ("p50", "p99", "p99.9")
            ],
            contenders=[
                *(
                    Contender(name, partial(layers, options, name, trips), LOOPS_OF[name])
                    for name in names
                ),
                Contender(BY_HAND, partial(by_hand, options, trips), LOOPS_OF[BY_HAND]),
            ],
            baselines=[CORE, PUB_SUB, BY_HAND],
            targets=[
                Target(figure="round trip p50", times=4, than=CORE),
                Target(figure="round trip p50", times=1 / 1.5, than=BY_HAND),
            ],
            notes=[
                f"{BY_HAND} is XADD to a stream and XREAD BLOCK by the other process, on redis-py",
                *([f"left out: {CORE}, for {missing}"] if missing else ()),
            ],
        )
    ]


if __name__ == "__main__":
    main(QUESTION, cases, rounds=9)
