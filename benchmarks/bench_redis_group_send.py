"""Compares the fan-out of a group_send over one Redis server."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from _fanout import GROUP, seated
from _harness import main
from _processes import Act, partners
from _redis import (
    CORE,
    LOOPS_OF,
    PUB_SUB,
    bare_server,
    inbox_of,
    opened_over,
    reason_to_leave_out,
    redis_server,
)
from _results import OURS, Case, Contender, Figure, Options, Round, Sample, Target
from _samples import SMALL

QUESTION = "How many deliveries a second does group_send make over one redis-server?"
BURST = 10  # sends before anybody is waited for
PREFIX = "asgi"
LEASE_S = 3600  # clients of which only the inboxes are there show no life
CLIENTS = (10, 100, 1_000)
SLACK = 1.5  # a client among 1,000 may cost so many times one among 100


@asynccontextmanager
async def listening(name: str, address: str, members: int) -> AsyncIterator[tuple[None, Act]]:
    """Let members wait on a layer."""
    async with opened_over(name, [address]) as layer, seated(layer, members) as expect:

        async def act(sends: int) -> float:
            await expect(sends)
            return time.perf_counter()  # the same clock in all processes

        yield None, act


@asynccontextmanager
async def fan_out(options: Options, name: str, members: int, repeats: int) -> AsyncIterator[Round]:
    """Send bursts, each waited for before the next, from a process that has no members itself."""
    with redis_server() as address:
        async with (
            opened_over(name, [address]) as layer,
            partners(options, 1, listening, name, address, members) as [partner],
        ):

            async def one_round() -> Sample:
                seconds = 0.0
                for _ in range(repeats):
                    await partner.begin(BURST)
                    started = time.perf_counter()
                    for _ in range(BURST):
                        await layer.group_send(GROUP, SMALL)
                    seconds += await partner.end() - started
                return {"deliveries": repeats * BURST * members / seconds}

            yield one_round


@asynccontextmanager
async def to_clients(clients: int, repeats: int) -> AsyncIterator[Round]:
    """Send to clients with a member each, of which nothing but their inboxes is there."""
    with redis_server() as address:
        async with opened_over(OURS, [address], prefix=PREFIX, lease=LEASE_S) as layer:
            inboxes = [inbox_of(PREFIX, f"client{number}") for number in range(clients)]
            with bare_server(address) as server:
                for number, inbox in enumerate(inboxes):
                    server.xadd(inbox, {"W": ""})
                    await layer.group_add(GROUP, f"specific.client{number}!member")

                async def one_round() -> Sample:
                    started = time.perf_counter()
                    for _ in range(repeats):
                        await layer.group_send(GROUP, SMALL)
                    cost = (time.perf_counter() - started) / repeats * 1e6
                    assert server.xlen(inboxes[-1]) >= repeats  # it was sent to all of them
                    for inbox in inboxes:
                        server.xtrim(inbox, maxlen=0, approximate=False)
                    return {"group_send": cost, "for each client": cost / clients}

                yield one_round


def cases(options: Options) -> list[Case]:
    """One table for members of one process, one for many clients."""
    members = options.pick(1_000, 10)
    missing = reason_to_leave_out()
    repeats = {OURS: options.pick(10, 1)}
    if not missing:
        repeats |= {CORE: options.pick(1, 1), PUB_SUB: options.pick(10, 1)}
    counts = CLIENTS[:2] if options.quick else CLIENTS
    names = [f"{OURS}, {count:,} clients" for count in counts]
    return [
        Case(
            title=f"group_send to {members:,} members in another process, bursts of {BURST}",
            figures=[Figure("deliveries", "1/s")],
            contenders=[
                Contender(name, partial(fan_out, options, name, members, times), LOOPS_OF[name])
                for name, times in repeats.items()
            ],
            baselines=[CORE, PUB_SUB],
            targets=[
                Target(figure="deliveries", times=10, than=CORE),
                Target(figure="deliveries", times=1.2, than=PUB_SUB),
            ],
            notes=[f"left out: {CORE}, for {missing}"] if missing else (),
        ),
        Case(
            title="one group_send by the number of clients that have one member each",
            figures=[
                Figure(name, "µs", less_is_better=True)
                for name in ("group_send", "for each client")
            ],
            contenders=[
                Contender(name, partial(to_clients, count, options.pick(50, 2)), LOOPS_OF[OURS])
                for name, count in zip(names, counts, strict=True)
            ],
            baselines=names[:2],
            targets=[
                Target(figure="for each client", contender=name, times=1 / SLACK, than=names[1])
                for name in names[2:]
            ],
            notes=["of the clients only their inbox streams are there; nobody reads them"],
        ),
    ]


if __name__ == "__main__":
    main(QUESTION, cases, rounds=9)
