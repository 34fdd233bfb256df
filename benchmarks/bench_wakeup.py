"""Compares how soon a receiver in another thread's loop has a message."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any

import anyio
import ormsgpack
import sniffio
from _contenders import future_maker, opened
from _harness import main
from _results import (
    FLOOR,
    LOOPS,
    OURS,
    PEER,
    Case,
    Contender,
    Figure,
    Options,
    Round,
    Sample,
    Target,
)
from anyio.lowlevel import checkpoint

QUESTION = "How soon does a receiver in another thread's loop have the message?"
GAP = 0.002  # seconds between two messages: both loops fall asleep
BUSY = 100e-6  # seconds that each callback of the saturated loop takes
SPINNERS = 3  # tasks that keep that loop busy
PATIENCE = 0.1  # seconds after which a receiver counts as not woken


class BareWake:
    """The floor: a deque, a future, and the loop's own call from other threads."""

    def __init__(self) -> None:
        self._payloads: deque[bytes] = deque()
        self._future: Any = None
        self._call_there: Callable[..., object] | None = None

    async def new_channel(self) -> str:
        """There is only one."""
        return ""

    async def send(self, _: str, message: dict[str, Any]) -> None:
        """Queue it, wake the other loop."""
        self._payloads.append(ormsgpack.packb(message))
        if self._call_there is not None:
            self._call_there(self._wake)

    async def receive(self, _: str) -> Any:
        """Wait for one in the loop of the first call."""
        if self._call_there is None:
            self._call_there = _threadsafe_call()
        while not self._payloads:
            self._future = future_maker()()
            await self._future
        return ormsgpack.unpackb(self._payloads.popleft())

    def _wake(self) -> None:
        future, self._future = self._future, None
        if future is not None:
            future.set_result(None)


def _threadsafe_call() -> Callable[..., object]:
    if sniffio.current_async_library() == "trio":
        import trio

        return trio.lowlevel.current_trio_token().run_sync_soon
    return asyncio.get_running_loop().call_soon_threadsafe


class Listener:
    """A receiver in a loop of its own thread; `latencies` grows by one a message, in µs."""

    def __init__(self, layer: Any, channel: str) -> None:
        self._layer = layer
        self._channel = channel
        self._running = threading.Event()
        self._stop: Callable[[], object] | None = None
        self.latencies: list[float] = []

    @contextmanager
    def in_thread(self, spinners: int, backend: dict[str, Any]) -> Iterator[None]:
        """Run in a thread until the block ends."""
        thread = threading.Thread(target=partial(anyio.run, self._run, spinners, **backend))
        thread.start()
        self._running.wait()
        try:
            yield
        finally:
            assert self._stop is not None, "set before `_running`"
            self._stop()
            thread.join()

    async def _run(self, spinners: int) -> None:
        async with anyio.create_task_group() as tasks:
            self._stop = partial(_threadsafe_call(), tasks.cancel_scope.cancel)
            for _ in range(spinners):
                tasks.start_soon(self._spin)
            tasks.start_soon(self._listen)
            self._running.set()

    async def _listen(self) -> None:
        while True:
            message = await self._layer.receive(self._channel)
            self.latencies.append((time.perf_counter() - message["at"]) * 1e6)

    async def _spin(self) -> None:
        while True:
            until = time.perf_counter() + BUSY
            while time.perf_counter() < until:
                pass
            await checkpoint()


@asynccontextmanager
async def layer_or_floor(name: str) -> AsyncIterator[Any]:
    """Open what is to be timed."""
    if name == FLOOR:
        yield BareWake()
    else:
        async with opened(name) as layer:
            yield layer


@asynccontextmanager
async def listening(name: str, backend: dict[str, Any], spinners: int) -> AsyncIterator[Any]:
    """Start a thread with a listener; give what sends one message there, and the listener."""
    async with layer_or_floor(name) as layer:
        channel = await layer.new_channel()
        listener = Listener(layer, channel)

        async def ping() -> None:
            await layer.send(channel, {"type": "ping", "at": time.perf_counter()})

        with listener.in_thread(spinners, backend):
            await anyio.sleep(10 * GAP)
            yield ping, listener


@asynccontextmanager
async def ready(name: str, options: Options, spinners: int, pings: int) -> AsyncIterator[Round]:
    """Open a layer; a round sends so many messages to a listener, and waits for each in turn."""

    async def one_round() -> Sample:
        async with listening(name, options.backend, spinners) as (ping, listener):
            for number in range(1, pings + 1):
                await anyio.sleep(GAP)
                await ping()
                while len(listener.latencies) < number:  # noqa: ASYNC110 - an event would wake it
                    await anyio.sleep(GAP)
        return {"latency": listener.latencies}

    yield one_round


@asynccontextmanager
async def patient(name: str, options: Options, pings: int) -> AsyncIterator[Round]:
    """Open a layer; a round counts how many messages wake the listener before `PATIENCE` ends."""

    async def one_round() -> Sample:
        async with listening(name, options.backend, 0) as (ping, listener):
            woken = 0
            for _ in range(pings):
                before = len(listener.latencies)
                await ping()
                await anyio.sleep(PATIENCE)
                woken += len(listener.latencies) > before
        return {"woken": 100 * woken / pings}

    yield one_round


def cases(options: Options) -> list[Case]:
    """One table for an idle loop, one for a busy one, one for who is woken at all."""
    latencies = [
        Figure(f"latency {part}", "µs", less_is_better=True) for part in ("p50", "p99", "p99.9")
    ]

    def timed(spinners: int, pings: int) -> list[Contender]:
        return [
            Contender(name, partial(ready, name, options, spinners, pings))
            for name in (OURS, FLOOR)
        ]

    return [
        Case(
            title="idle receiver in another thread's loop",
            figures=latencies,
            contenders=timed(0, options.pick(300, 3)),
            targets=[Target(figure="latency p50", at_most=1000)],
        ),
        Case(
            title=f"that loop saturated by callbacks of {BUSY * 1e6:.0f} µs",
            figures=latencies,
            # Each takes a tenth of a second: this thread, too, must win the interpreter from them.
            contenders=timed(SPINNERS, options.pick(60, 3)),
        ),
        Case(
            title=f"receivers woken within {PATIENCE} s",
            figures=[Figure("woken", "%")],
            contenders=[
                Contender(name, partial(patient, name, options, options.pick(5, 1)), loops)
                for name, loops in ((OURS, LOOPS), (PEER, ("asyncio",)), (FLOOR, LOOPS))
            ],
            baselines=[],
            targets=[Target(figure="woken", at_least=100)],
        ),
    ]


if __name__ == "__main__":
    main(QUESTION, cases, rounds=5)
