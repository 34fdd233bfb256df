"""Makes a call again and again, cancelled at its first suspension, its second, ... until it ends.

A scene sets a layer up, makes one call through a `Cut`, and asserts what must hold however that
ended. It takes two clients of one prefix, or, where layers are worlds of their own, one twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from functools import partial
from itertools import count
from typing import Any, Final

import anyio

LIMIT: Final = 20.0  # seconds for one run of a scene; only a call that hangs ever gets there
MOST: Final = 50  # suspensions; a call with more of them polls

# The ways to be cancelled: by a scope, as all time limits of anyio and trio do; by asyncio at the
# moment of the suspension; by asyncio when what the call waits for has come, before it goes on.
WAYS: Final = [("asyncio", "scope"), ("trio", "scope"), ("asyncio", "task"), ("asyncio", "woken")]


class Steps:
    """Awaits a call and tells of each of its suspensions."""

    def __init__(self, call: Awaitable[Any], on_suspension: Callable[[Any], None]) -> None:
        self._steps = call.__await__()
        self._on_suspension = on_suspension

    def __await__(self) -> Generator[Any, Any, Any]:
        step, value = self._steps.send, None
        while True:
            try:
                trap = step(value)
            except StopIteration as end:
                return end.value
            self._on_suspension(trap)
            try:
                step, value = self._steps.send, (yield trap)
            except BaseException as error:  # noqa: BLE001 - goes to the call
                step, value = self._steps.throw, error


class Cut:
    """One call that is cancelled at one of its suspensions, if it gets there."""

    def __init__(self, at: int, way: str, next_call: Callable[[], Awaitable[object]]) -> None:
        self.at = at
        self.way = way
        self._next_call = next_call
        self.suspensions = 0
        self.is_cancelled = False
        self.result: Any = None
        self.error: Exception | None = None
        self._scope = anyio.CancelScope()
        self._task: asyncio.Task[Any] | None = None
        self._has_begun = anyio.Event()

    async def __call__(
        self, call: Awaitable[Any], meanwhile: Callable[[], Awaitable[object]] | None = None
    ) -> None:
        """Make the call; `meanwhile` is done once it has been suspended, or has ended.

        A cancelled call may still be at work in another thread until the client's next call has
        ended, so one follows.
        """
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._make, call)
            await self._has_begun.wait()
            if meanwhile is not None:
                await meanwhile()
        await self._next_call()

    def outcomes(self, nothing: Any, all_of_it: Any) -> list[Any]:
        """Return what may hold after a call that is wholly done or not at all."""
        return [nothing, all_of_it] if self.is_cancelled else [all_of_it]

    async def _make(self, call: Awaitable[Any]) -> None:
        if self.way != "scope":
            self._task = asyncio.current_task()
        try:
            with self._scope:
                self.result = await Steps(call, self._pass)
        except asyncio.CancelledError:
            if self._task is None or self._task.uncancel() > 0:
                raise
            self.is_cancelled = True
        except Exception as error:  # noqa: BLE001 - the scene looks at it
            self.error = error
        self.is_cancelled |= self._scope.cancelled_caught
        self._has_begun.set()

    def _pass(self, trap: Any) -> None:
        self.suspensions += 1
        self._has_begun.set()
        if self.suspensions != self.at:
            return
        if self._task is None:
            self._scope.cancel()
        elif self.way == "woken" and isinstance(trap, asyncio.Future):
            trap.add_done_callback(lambda _: self._task.cancel())
        else:
            self._task.cancel()


Scene = Callable[[Any, Any, Cut], Awaitable[None]]


async def sweep(scene: Scene, make: Callable[..., Any], way: str) -> int:
    """Play `scene` with its call cancelled at each suspension, and once to its end.

    Args:
        scene: Sets up, makes the call, and asserts.
        make: Makes the layers of one run: it returns a maker of clients of a fresh prefix.
        way: How to cancel; see `WAYS`.

    Returns:
        How many suspensions the call has.
    """
    for at in count(1):
        assert at <= MOST, f"the call was suspended {MOST} times and goes on"
        client = make()
        layer = client(capacity=3)
        other = client(capacity=3) if layer.guarantees.shared else layer
        cut = Cut(at, way, partial(layer.group_channels, "nobody"))
        try:
            with anyio.fail_after(LIMIT):
                await _play(scene, layer, other, cut)
        except Exception as error:
            error.add_note(f"cancelled at suspension {at} by {way}: {cut.is_cancelled}")
            raise
        if cut.suspensions < at:
            return at - 1
    raise AssertionError("unreachable")


async def _play(scene: Scene, layer: Any, other: Any, cut: Cut) -> None:
    try:
        await scene(layer, other, cut)
        for one in {layer, other}:
            left = left_in_line(one)
            assert not left, f"receivers are still in line: {left}"
        await layer.flush()
        for one in {layer, other}:
            left = left_behind(one)
            assert not left, f"is still held: {left}"
    finally:
        with anyio.CancelScope(shield=True):
            await layer.close()
            await other.close()
    if cut.way != "scope":
        assert asyncio.all_tasks() == {asyncio.current_task()}


def left_in_line(layer: Any) -> list[str]:
    """Return the names of the lines where a receiver still stands, or was woken and never came."""
    lines = list(layer._exchange.mailboxes.lines())
    return [line.name for line in lines if line.waiting or getattr(line, "granted", None)]


def left_behind(layer: Any) -> list[str]:
    """Return what a flushed layer without receivers still holds, but for numbers of channels."""
    mailboxes = layer._exchange.mailboxes
    memory = range(mailboxes.rules.message_memory)  # as long as a payload that takes all of it
    held = [name for name, box in mailboxes.by_name.items() if not _has_numbers_only(box)]
    return [*held, *([] if mailboxes.weigh(memory) else ["message memory"])]


def _has_numbers_only(mailbox: Any) -> bool:
    has_carried = mailbox.accepted.total or mailbox.refused or mailbox.dropped
    return bool(has_carried) and not (mailbox.letters or mailbox.granted or mailbox.groups)
