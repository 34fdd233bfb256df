"""What several checks need: receivers that can be cancelled, quiet moments, exact equality."""

from __future__ import annotations

# A task that was already woken can be cancelled only by asyncio itself (anyio waits for its
# next wait), and that is how asyncio programs cancel a receive.
import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial
from typing import Any, Final

import anyio
import anyio.abc
import anyio.lowlevel

from ._check import Layer

END: Final = {"type": "end"}


def loop_name() -> str:
    """Return ``"asyncio"`` or ``"trio"``: the kind of loop this runs on."""
    return anyio.get_cancelled_exc_class().__module__.partition(".")[0]


async def settled() -> None:
    """Return when every other task of this loop waits for something."""
    for _ in range(8):  # most tasks get there by themselves; the wait below is slow if one did not
        await anyio.lowlevel.checkpoint()
    with anyio.move_on_after(0.2):  # a layer whose receivers poll is never quiet
        await anyio.wait_all_tasks_blocked()


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    """Return when `holds` says so; the time limit of the check ends the wait."""
    while True:
        if await holds():
            return
        await anyio.sleep(0.01)


async def poll(receive: Callable[[], Awaitable[Any]], seconds: float) -> Any:
    """Return what `receive` returns within `seconds`, or None, as people do who poll."""
    if loop_name() == "asyncio":
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                return await receive()
        return None
    with anyio.move_on_after(seconds):
        return await receive()
    return None


class Waiter:
    """One task that makes one call and can be cancelled alone."""

    def __init__(self, call: Callable[[], Awaitable[Any]]) -> None:
        self.got: Any = None
        self.error: Exception | None = None
        self._call = call
        self._ended = anyio.Event()
        self._cancelled = False
        self._task: asyncio.Task[Any] | None = None
        self._scope = anyio.CancelScope()

    async def run(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        """Make the call and keep its result or error."""
        if loop_name() == "asyncio":
            self._task = asyncio.current_task()
        try:
            with self._scope:
                task_status.started()  # goes on at once, so the order of starting is kept
                self.got = await self._call()
        except anyio.get_cancelled_exc_class():
            if not self._cancelled:
                raise
        except Exception as error:  # noqa: BLE001  # whatever it is, the check looks at it
            self.error = error
        finally:
            self._ended.set()

    def cancel(self) -> None:
        """Cancel the call, even if it was woken already."""
        self._cancelled = True
        if self._task is None:
            self._scope.cancel()
        else:
            self._task.cancel()

    async def end(self) -> None:
        """Wait until the call has returned, raised or was cancelled."""
        await self._ended.wait()

    async def result(self) -> Any:
        """Wait for the end; return what the call returned or raise what it raised."""
        await self.end()
        if self.error is not None:
            raise self.error
        return self.got


@asynccontextmanager
async def started(*calls: Callable[[], Awaitable[Any]]) -> AsyncIterator[list[Waiter]]:
    """Run the calls side by side, started in this order; cancel what is left at the end."""
    async with anyio.create_task_group() as tasks:
        waiters = [Waiter(call) for call in calls]
        for waiter in waiters:
            await tasks.start(waiter.run)
        yield waiters
        tasks.cancel_scope.cancel()


@asynccontextmanager
async def waiting(*calls: Callable[[], Awaitable[Any]]) -> AsyncIterator[list[Waiter]]:
    """Run calls that have to wait, as `started` does, and go on when all of them wait."""
    async with started(*calls) as waiters:
        await settled()
        yield waiters


def line(layer: Layer, *channels: str) -> AbstractAsyncContextManager[list[Waiter]]:
    """Return a context: one receiver per channel, waiting in this order."""
    return waiting(*(partial(layer.receive, channel) for channel in channels))


async def drained(layer: Layer, channel: str) -> list[Any]:
    """Return all messages that wait on an ordered channel; it must have room for one more."""
    await layer.send(channel, END)
    messages = []
    while (message := await layer.receive(channel)) != END:
        messages.append(message)
    return messages


async def receive_all(layer: Layer, channel: str, count: int) -> list[Any]:
    """Return the next `count` messages of `channel`."""
    return [await layer.receive(channel) for _ in range(count)]


async def send_side_by_side(layer: Layer, channel: str, *groups: str) -> list[dict[str, int]]:
    """Send from tasks that run at once, directly and to groups; return what, in their order."""
    called: list[dict[str, int]] = []

    async def send(n: int) -> None:
        turn = n % (len(groups) + 1)
        called.append({"n": n})
        if turn:
            await layer.group_send(groups[turn - 1], {"n": n})
        else:
            await layer.send(channel, {"n": n})

    async with anyio.create_task_group() as tasks:
        for n in range(60):
            tasks.start_soon(send, n)
    return called


async def fill(layer: Layer, channel: str, count: int) -> list[dict[str, int]]:
    """Send ``{"n": 0}``, ``{"n": 1}`` and so on; return what was sent."""
    messages = numbered(count)
    for message in messages:
        await layer.send(channel, message)
    return messages


def numbered(count: int) -> list[dict[str, int]]:
    """Return ``{"n": 0}``, ``{"n": 1}`` and so on."""
    return [{"n": n} for n in range(count)]


async def refused(
    call: Callable[[], Awaitable[object]], *errors: type[Exception], what: object
) -> Exception:
    """Return the error of `errors` that `call` raises; anything else fails the check."""
    try:
        await call()
    except errors as error:
        return error
    names = " or ".join(error.__name__ for error in errors)
    raise AssertionError(f"{what}: expected {names}, but it was accepted")


async def member(layer: Layer, *groups: str) -> str:
    """Return a new process-specific channel that is a member of `groups`."""
    channel = await layer.new_channel()
    for group in groups:
        await layer.group_add(group, channel)
    return channel


def client_part(channel: str) -> str:
    """Return the non-local part of a process-specific channel name: up to the mark."""
    return channel[: channel.index("!") + 1]


def exactly(got: Any, expected: Any) -> bool:
    """Say whether both are equal with equal types, all the way down; NaN equals NaN."""
    if type(got) is not type(expected):
        return False
    if isinstance(expected, dict):
        return (
            got.keys() == expected.keys()
            and all(type(key) is str for key in got)
            and all(exactly(got[key], value) for key, value in expected.items())
        )
    if isinstance(expected, list):
        return len(got) == len(expected) and all(map(exactly, got, expected))
    return repr(got) == repr(expected)  # tells -0.0 from 0.0, and NaN is itself


def in_order(numbers: Iterable[int]) -> bool:
    """Say whether the numbers only rise."""
    listed = list(numbers)
    return listed == sorted(set(listed))


def is_layer_closed(error: BaseException | None) -> bool:
    """Say whether it is a `LayerClosed`, ours or one of that name."""
    return any(kind.__name__ == "LayerClosed" for kind in type(error).__mro__)
