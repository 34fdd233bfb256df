"""Other event loops in other threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import anyio
import anyio.to_thread

from ._check import Layer
from ._tools import loop_name, settled, started

T = TypeVar("T")


async def elsewhere(body: Callable[[], Awaitable[T]], *, loop: str = "") -> T:
    """Run `body` on a new event loop in a new thread, and wait for its result.

    The loop is of the kind of the running one, or of the kind that `loop` names. The time limit
    of the check holds there as well, so no thread outlives a check that failed.
    """
    return await anyio.to_thread.run_sync(new_loop_runner(loop or loop_name()), body)


def new_loop_runner(loop: str) -> Callable[[Callable[[], Awaitable[Any]]], Any]:
    """Return a plain function that runs a call on a new loop, within the limit of the check."""
    ends_at = time.monotonic() + anyio.current_effective_deadline() - anyio.current_time()

    def run(call: Callable[[], Awaitable[Any]]) -> Any:
        async def limited() -> Any:
            with anyio.fail_after(ends_at - time.monotonic()):
                return await call()

        return anyio.run(limited, backend=loop)

    return run


async def in_plain_threads(*bodies: Callable[[Callable[..., Any]], None]) -> None:
    """Run plain functions in threads; each gets a runner that makes a new loop for each call."""
    runner = new_loop_runner(loop_name())
    async with anyio.create_task_group() as tasks:
        for body in bodies:
            tasks.start_soon(anyio.to_thread.run_sync, body, runner)


async def receive_and_tell(layer: Layer, channel: str, count: int, ready: threading.Event) -> Any:
    """Receive `count` messages; set `ready` when the first receive waits."""

    async def receive() -> list[Any]:
        return [await layer.receive(channel) for _ in range(count)]

    async with started(receive) as [waiter]:
        await settled()
        ready.set()
        return await waiter.result()


async def until_set(*events: threading.Event) -> None:
    """Wait for events of other threads; the time limit of the check ends the wait."""
    for event in events:
        while not event.is_set():  # noqa: ASYNC110  # a threading.Event cannot be awaited
            await anyio.sleep(0.001)
