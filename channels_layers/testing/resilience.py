"""A layer that misbehaves on purpose, so that applications can test how they cope."""

from __future__ import annotations

import difflib
import math
import random
import threading
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

import anyio

from .. import _fork
from .._core.messages import Message, to_plain
from .._core.names import check_channel, check_group
from ..errors import BackendUnavailable, ChannelFull, ConfigurationError, MessageTooLarge
from ..guarantees import Guarantees

if TYPE_CHECKING:
    from .._core.statistics import Statistics
    from ..layer import ChannelLayer

WRITES: Final = frozenset({"send", "group_add", "group_discard", "group_send"})
OPERATIONS: Final = WRITES | {
    *("receive", "receive_from", "new_channel", "group_channels"),
    *("open", "flush", "statistics", "channel_statistics"),
}


class _Fault(Enum):
    """A fault, by the word that asks for it and the operations that can suffer it."""

    DROP = ("drop", frozenset({"send", "group_send", "receive", "receive_from"}))
    DELAY = ("delay", OPERATIONS)
    REFUSE = ("refuse", frozenset({"send"}))
    FAIL = ("fail", OPERATIONS)

    def __init__(self, word: str, operations: frozenset[str]) -> None:
        self.word = word
        self.operations = operations


@dataclass(slots=True)
class FaultCounts:
    """What an `Unreliable` layer has done so far.

    Attributes:
        operations: Calls of the operations that may suffer, whether they did or not.
        dropped: Messages thrown away; a `group_send` counts as one.
        delayed: Calls that were made to wait.
        refused: Sends that raised `ChannelFull`.
        failed: Calls that raised `BackendUnavailable`.
    """

    operations: int = 0
    dropped: int = 0
    delayed: int = 0
    refused: int = 0
    failed: int = 0


class Unreliable:
    """A layer around another one that spoils a chosen share of the operations.

    | share | of | what the caller sees |
    |---|---|---|
    | `drop` | ``send``, ``group_send`` | success, and nobody gets the message |
    | `drop` | ``receive``, ``receive_from``, if named | the message that follows the lost one |
    | `delay` | all | the usual, later; until the delay is over nothing has happened |
    | `refuse` | ``send`` | `ChannelFull` with a capacity of 0; nothing was sent |
    | `fail` | all | `BackendUnavailable`; nothing was done |

    A call suffers one of these at most. One that it cannot suffer leaves it alone: no membership
    is silently forgotten, and ``group_send`` never raises `ChannelFull`. ``close`` always works.
    A delay is waited for by the caller, so one task's operations keep their order, but another
    task's may overtake them. Messages arrive at most once, as ever. One that is to be dropped or
    refused is checked first, but for its size.

    One seed and one sequence of calls give the same faults. With all shares 0 nothing differs
    from the layer inside, which may be used beside this one.

    Args:
        layer: The layer that does the work; any that keeps the contract.
        drop: The share, 0 to 1, of operations whose message is lost.
        delay: The share that waits first.
        delay_s: The shortest and the longest wait, in seconds.
        refuse: The share that finds the channel full.
        fail: The share that finds the backend unavailable.
        seed: Makes the faults repeatable.
        operations: Names of the operations that may suffer, out of `OPERATIONS`.

    Raises:
        ConfigurationError: a share is not 0 to 1, or can have no effect on `operations`; the
            shares add up to more than 1; an operation is unknown.
    """

    ChannelFull = ChannelFull
    MessageTooLarge = MessageTooLarge

    def __init__(
        self,
        layer: ChannelLayer,
        *,
        drop: float = 0.0,
        delay: float = 0.0,
        delay_s: tuple[float, float] = (0.01, 0.1),
        refuse: float = 0.0,
        fail: float = 0.0,
        seed: int | None = None,
        operations: Collection[str] = WRITES,
    ) -> None:
        named = _checked_operations(operations)
        shares = {
            _Fault.DROP: drop,
            _Fault.DELAY: delay,
            _Fault.REFUSE: refuse,
            _Fault.FAIL: fail,
        }
        self._layer = layer
        self._luck = _Luck(_checked_shares(shares, named), named, seed)
        self._delay_s = _checked_delay(delay_s)

    @property
    def counts(self) -> FaultCounts:
        """What has been done so far, as a copy."""
        return self._luck.counts()

    @property
    def guarantees(self) -> Guarantees:
        """What the layer inside promises."""
        return self._layer.guarantees

    @property
    def extensions(self) -> list[str]:
        """What the layer inside can do."""
        return self._layer.extensions

    async def __aenter__(self) -> Self:
        await self._suffer("open")
        await self._layer.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._layer.__aexit__(exc_type, exc, traceback)

    async def open(self) -> None:
        """Open the layer inside."""
        await self._suffer("open")
        await self._layer.open()

    async def close(self) -> None:
        """Close the layer inside."""
        await self._layer.close()

    async def send(self, channel: str, message: Message) -> None:
        """Send `message`, unless it is dropped or refused.

        Raises:
            ChannelFull: the channel is full, or the call was refused.
            BackendUnavailable: the call failed.

        Cancellation:
            As the layer inside; during a delay nothing was sent.
        """
        fault = self._luck.draw("send")
        if fault is not None:
            check_channel(channel)
            message = to_plain(message)  # as it is now, whatever the caller does during a delay
        if fault is _Fault.REFUSE:
            raise ChannelFull(channel, 0)
        await self._inflict(fault, "send")
        if fault is not _Fault.DROP:
            await self._layer.send(channel, message)

    async def receive(self, channel: str) -> Message:
        """Wait for the next message that is not dropped.

        Raises:
            BackendUnavailable: the call failed; nothing was taken.

        Cancellation:
            Safe: nothing was taken, but for what had been dropped by then.
        """
        await self._suffer("receive")
        while True:
            message = await self._layer.receive(channel)
            # No await between taking and returning: cancel-safe.
            if not self._luck.loses_message("receive"):
                return message

    async def receive_from(self, channels: Iterable[str]) -> tuple[str, Message]:
        """Wait for the next message on any of `channels` that is not dropped.

        Raises:
            BackendUnavailable: the call failed; nothing was taken.

        Cancellation:
            Safe: nothing was taken, but for what had been dropped by then.
        """
        await self._suffer("receive_from")
        names = channels if isinstance(channels, str) else tuple(channels)
        while True:
            received = await self._layer.receive_from(names)
            if not self._luck.loses_message("receive_from"):  # as in receive()
                return received

    async def new_channel(self, prefix: str = "specific") -> str:
        """Return a fresh name from the layer inside."""
        await self._suffer("new_channel")
        return await self._layer.new_channel(prefix)

    async def group_add(self, group: str, channel: str) -> None:
        """Add a member; once this has returned it is one."""
        await self._suffer("group_add")
        await self._layer.group_add(group, channel)

    async def group_discard(self, group: str, channel: str) -> None:
        """Remove a member; once this has returned it is none."""
        await self._suffer("group_discard")
        await self._layer.group_discard(group, channel)

    async def group_send(self, group: str, message: Message) -> None:
        """Send one copy to every member, or to nobody if it is dropped.

        Raises:
            BackendUnavailable: the call failed.

        Cancellation:
            As the layer inside; during a delay nothing was sent.
        """
        fault = self._luck.draw("group_send")
        if fault is not None:
            check_group(group)
            message = to_plain(message)  # as in send()
        await self._inflict(fault, "group_send")
        if fault is not _Fault.DROP:
            await self._layer.group_send(group, message)

    async def group_channels(self, group: str) -> list[str]:
        """Return the members of `group`."""
        await self._suffer("group_channels")
        return await self._layer.group_channels(group)

    async def flush(self) -> None:
        """Remove all messages and groups of the layer inside."""
        await self._suffer("flush")
        await self._layer.flush()

    async def statistics(self) -> Statistics:
        """Return the numbers of the layer inside; what is dropped here is not in them."""
        await self._suffer("statistics")
        return await self._layer.statistics()

    async def channel_statistics(self, channel: str) -> Statistics:
        """Return the numbers of `channel`, as `statistics` does."""
        await self._suffer("channel_statistics")
        return await self._layer.channel_statistics(channel)

    async def _suffer(self, operation: str) -> None:
        await self._inflict(self._luck.draw(operation), operation)

    async def _inflict(self, fault: _Fault | None, operation: str) -> None:
        if fault is _Fault.FAIL:
            cause = ConnectionError("injected to test the application")
            raise BackendUnavailable(f"unreliable layer, {operation}") from cause
        if fault is _Fault.DELAY:
            await anyio.sleep(self._luck.between(*self._delay_s))


class _Luck:
    """Decides who suffers what, and counts it; shared by all threads that use the layer."""

    def __init__(
        self, shares: Mapping[_Fault, float], operations: frozenset[str], seed: int | None
    ) -> None:
        self._shares = shares
        self._operations = operations
        self._random = random.Random(seed)  # noqa: S311 - chance, not secrecy
        # Apart, so that the n-th call has the same luck however many are delayed before it.
        self._waits = random.Random(self._random.random())  # noqa: S311
        self._counts = FaultCounts()
        self._renew_lock()
        _fork.in_child(self, _Luck._renew_lock)

    def _renew_lock(self) -> None:
        self._lock = threading.Lock()  # never held across a wait

    def counts(self) -> FaultCounts:
        with self._lock:
            return replace(self._counts)

    def between(self, low: float, high: float) -> float:
        return self._waits.uniform(low, high)

    def draw(self, operation: str) -> _Fault | None:
        """Decide about one call."""
        if operation not in self._operations:
            return None
        with self._lock:
            self._counts.operations += 1
            fault = self._thrown(operation)
            # A receive has no message yet that it could lose.
            if fault is _Fault.DROP and operation not in WRITES:
                return None
            self._count(fault)
            return fault

    def loses_message(self, operation: str) -> bool:
        """Decide about one message that has come out of `operation`."""
        if operation not in self._operations or not self._shares[_Fault.DROP]:
            return False
        with self._lock:
            if self._thrown(operation) is not _Fault.DROP:
                return False
            self._count(_Fault.DROP)
            return True

    def _thrown(self, operation: str) -> _Fault | None:
        luck = self._random.random()
        for fault, share in self._shares.items():
            if luck < share:
                return fault if operation in fault.operations else None
            luck -= share
        return None

    def _count(self, fault: _Fault | None) -> None:
        if fault is _Fault.DROP:
            self._counts.dropped += 1
        elif fault is _Fault.DELAY:
            self._counts.delayed += 1
        elif fault is _Fault.REFUSE:
            self._counts.refused += 1
        elif fault is _Fault.FAIL:
            self._counts.failed += 1


def _checked_operations(operations: object) -> frozenset[str]:
    if isinstance(operations, str) or not isinstance(operations, Collection):
        problem = f"must be a collection of names, got {operations!r}"
        raise ConfigurationError("operations", problem)
    for name in operations:
        if name not in OPERATIONS:
            close = difflib.get_close_matches(str(name), OPERATIONS, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise ConfigurationError("operations", f"{name!r} is none{hint}")
    return frozenset(operations)


def _checked_shares(
    shares: Mapping[_Fault, float], operations: frozenset[str]
) -> Mapping[_Fault, float]:
    for fault, share in shares.items():
        _check_share(fault.word, share)
        if share and not fault.operations & operations:
            able = ", ".join(sorted(fault.operations))
            problem = f"has no effect unless one of these is in operations: {able}"
            raise ConfigurationError(fault.word, problem)
    total = math.fsum(shares.values())  # sum() finds tenths that are 1 together to be more
    if total > 1:
        words = " + ".join(fault.word for fault in shares)
        raise ConfigurationError(words, f"must not be more than 1 in all, got {total:g}")
    return shares


def _check_share(word: str, share: object) -> None:
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
        raise ConfigurationError(word, f"must be a share from 0 to 1, got {share!r}")


def _checked_delay(delay_s: tuple[float, float]) -> tuple[float, float]:
    problem = f"must be a shortest and a longest wait in seconds, got {delay_s!r}"
    try:
        low, high = delay_s
        is_right = 0 <= low <= high < math.inf
    except (TypeError, ValueError) as exc:
        raise ConfigurationError("delay_s", problem) from exc
    if not is_right:
        raise ConfigurationError("delay_s", problem)
    return low, high
