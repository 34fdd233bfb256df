"""Threads that use one layer at the same moment, switched as often as Python can switch them."""

from __future__ import annotations

import random
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, Final

import anyio
import anyio.lowlevel

from ._check import Layer, LayerMaker, check
from ._threads import elsewhere, in_plain_threads, until_set
from ._tools import drained, in_order, member, poll, started

HURRY: Final = 1e-6  # seconds between two switches of threads; Python's default is 5,000 times that


@contextmanager
def _hurried() -> Iterator[None]:
    usual = sys.getswitchinterval()
    sys.setswitchinterval(HURRY)
    try:
        yield
    finally:
        sys.setswitchinterval(usual)


@check("semantics 5")
async def senders_in_several_threads_share_the_capacity(make: LayerMaker) -> None:
    """Exactly `capacity` messages are accepted, however the threads interleave."""
    layer = await make(capacity=50)
    channel = await layer.new_channel()
    accepted: list[int] = []

    async def send_many(thread: int) -> None:
        for n in range(40):
            with suppress(layer.ChannelFull):
                await layer.send(channel, {"n": 100 * thread + n})
                accepted.append(100 * thread + n)

    def plain_thread(thread: int, run: Callable[..., Any]) -> None:
        run(partial(send_many, thread))

    with _hurried():
        await in_plain_threads(*(partial(plain_thread, thread) for thread in range(4)))
    assert len(accepted) == 50
    got = [(await layer.receive(channel))["n"] for _ in range(50)]
    assert sorted(got) == sorted(accepted)


@check("semantics 10")
async def threads_that_send_and_receive_at_once_lose_nothing(make: LayerMaker) -> None:
    """Three loops send and three receive: each message once, each sender's in its order."""
    layer = await make(capacity=1000)
    channel = await layer.new_channel()
    ready = [threading.Event() for _ in range(3)]
    readers = [partial(elsewhere, partial(_read, layer, channel, event)) for event in ready]
    writers = [partial(elsewhere, partial(_write, layer, channel, name)) for name in "abc"]
    with _hurried():
        async with started(*readers) as reading:
            await until_set(*ready)
            async with started(*writers) as writing:
                for writer in writing:
                    await writer.result()
            for _ in reading:
                await layer.send(channel, {"from": "end"})
            got = [await reader.result() for reader in reading]
    _has_everything_once(got)


async def _read(layer: Layer, channel: str, ready: threading.Event) -> list[Any]:
    ready.set()
    got = []
    while (message := await layer.receive(channel))["from"] != "end":
        got.append(message)
    return got


async def _write(layer: Layer, channel: str, name: str) -> None:
    for n in range(150):
        await layer.send(channel, {"from": name, "n": n})
        if n % 10 == 0:
            await anyio.lowlevel.checkpoint()


def _has_everything_once(got: list[list[Any]]) -> None:
    for name in "abc":
        parts = [[m["n"] for m in part if m["from"] == name] for part in got]
        assert sorted(n for part in parts for n in part) == list(range(150)), name
        for part in parts:
            assert in_order(part), f"one reader got {part} from one writer"


@check("semantics 10")
async def groups_may_change_in_one_thread_while_another_sends(make: LayerMaker) -> None:
    """The members that stay get every message, whoever joins and leaves meanwhile."""
    layer = await make(capacity=1000)
    stays = await member(layer, "group")

    async def come_and_go() -> None:
        for _ in range(100):
            channel = await member(layer, "group")
            await layer.group_discard("group", channel)

    async def send() -> None:
        for n in range(100):
            await layer.group_send("group", {"n": n})

    def plain_thread(body: Callable[..., Any], run: Callable[..., Any]) -> None:
        run(body)

    with _hurried():
        bodies = (send, come_and_go, come_and_go)
        await in_plain_threads(*(partial(plain_thread, body) for body in bodies))
    assert [message["n"] for message in await drained(layer, stays)] == list(range(100))


@check("semantics 2")
async def cancelling_in_one_thread_while_another_sends_loses_nothing(make: LayerMaker) -> None:
    """A reader that polls, and a writer on another loop that does not wait for it."""
    layer = await make(capacity=1000)
    channel = await layer.new_channel()
    dice = random.Random(7)  # noqa: S311  # the same timing for every layer
    got: list[Any] = []
    async with started(partial(elsewhere, partial(_send_in_bursts, layer, channel))) as [writer]:
        while len(got) < 300:
            message = await poll(partial(layer.receive, channel), dice.uniform(0, 0.001))
            got += [] if message is None else [message["n"]]
        await writer.result()
    assert in_order(got), got
    assert await drained(layer, channel) == []


async def _send_in_bursts(layer: Layer, channel: str) -> None:
    for n in range(300):
        await layer.send(channel, {"n": n})
        if n % 5 == 0:
            await anyio.sleep(0.0005)
