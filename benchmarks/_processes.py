"""Other processes that take part in a round, each with an event loop of its own."""

from __future__ import annotations

import gc
import multiprocessing
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, TypeAlias

import anyio
from _harness import without_collector
from _results import Options
from anyio.to_thread import run_sync

#: Does what it was told, in the other process, and returns what is to be known of it.
Act: TypeAlias = Callable[[Any], Awaitable[Any]]

#: Opens, in the other process, what is needed there; gives a greeting and what acts on orders.
#: It must be a function of a module, and its arguments are pickled.
Role: TypeAlias = Callable[..., AbstractAsyncContextManager[tuple[Any, Act]]]

#: Makes processes, and the queues and semaphores that they can be given.
processes = multiprocessing.get_context("forkserver")
# trio is not among them: where it is imported, a layer in asyncio has to ask which of them runs.
processes.set_forkserver_preload(
    ["anyio._backends._asyncio", "channels.layers", "channels_layers.ipc", "ormsgpack"]
)

_END = None  # the order after which there are no more
_BEGUN = "begun"
_PATIENCE = 30  # seconds until a process that does not end is killed


class Partner:
    """Another process, seen from the one that runs the rounds; `greeting` is the role's."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self.greeting: Any = None

    async def meet(self) -> None:
        """Wait until it has opened what it needs."""
        self.greeting = await run_sync(self._pipe.recv)

    async def begin(self, order: Any) -> None:
        """Hand it an order; it acts, up to its first wait, before its loop does anything else."""
        self._pipe.send(order)
        answer = await run_sync(self._pipe.recv)
        assert answer == _BEGUN, answer

    async def end(self) -> Any:
        """Wait for what came of the order."""
        return await run_sync(self._pipe.recv)

    async def ask(self, order: Any) -> Any:
        """Hand it an order and wait for what came of it."""
        await self.begin(order)
        return await self.end()

    def dismiss(self) -> None:
        """Tell it to end."""
        with suppress(OSError):  # it has ended by itself
            self._pipe.send(_END)


@asynccontextmanager
async def partners(
    options: Options, count: int, role: Role, *args: Any
) -> AsyncIterator[list[Partner]]:
    """Start so many processes in a role, and end them."""
    found: list[Partner] = []
    started: list[Any] = []
    try:
        for _ in range(count):
            here, there = processes.Pipe()
            work = (there, options.backend, role, args)
            process = processes.Process(target=_run, args=work, daemon=True)
            process.start()
            there.close()  # so that reading ends when the process does
            started.append(process)
            found.append(Partner(here))
        for partner in found:
            await partner.meet()
        yield found
    finally:
        for partner in found:
            partner.dismiss()
        for process in started:
            process.join(_PATIENCE)
            process.kill()
            process.join()
            process.close()


def _run(pipe: Connection, backend: dict[str, Any], role: Role, args: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it ends when the first process tells it to
    anyio.run(partial(_serve, pipe, role, args), **backend)


async def _serve(pipe: Connection, role: Role, args: tuple[Any, ...]) -> None:
    async with role(*args) as (greeting, act):
        pipe.send(greeting)
        gc.collect()
        gc.freeze()
        while (order := await run_sync(_received, pipe)) is not _END:
            with without_collector():
                pipe.send(_BEGUN)
                answer = await act(order)
            pipe.send(answer)


def _received(pipe: Connection) -> Any:
    try:
        return pipe.recv()
    except EOFError:  # the first process was killed
        return _END
