"""What a check is: a statement of the contract, held by a small async function."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Protocol, Self

Need = Literal[
    "shared",  # two layers of the same settings are two clients of one prefix
    "separate",  # the opposite: each layer object is a world of its own
    "cross_process",
    "ordered_channels",
    "trio",
    "asyncio",  # the check itself is written for asyncio
    "fork",  # a platform with os.fork
    "real time",  # waits for time to pass; no layer is excused from it
]


class Layer(Protocol):
    """The public contract of a channel layer: all that a check may use."""

    extensions: list[str]
    ChannelFull: type[Exception]
    MessageTooLarge: type[Exception]

    async def send(self, channel: str, message: Any) -> None: ...

    async def receive(self, channel: str) -> dict[str, Any]: ...

    async def receive_from(self, channels: list[str]) -> tuple[str, dict[str, Any]]: ...

    async def new_channel(self, prefix: str = "specific") -> str: ...

    async def group_add(self, group: str, channel: str) -> None: ...

    async def group_discard(self, group: str, channel: str) -> None: ...

    async def group_send(self, group: str, message: Any) -> None: ...

    async def group_channels(self, group: str) -> list[str]: ...

    async def flush(self) -> None: ...

    async def statistics(self) -> dict[str, Any]: ...

    async def channel_statistics(self, channel: str) -> dict[str, Any]: ...

    async def close(self) -> None: ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None: ...


class LayerMaker(Protocol):
    """Gives a check its layers; whoever runs the check closes them afterwards."""

    async def __call__(self, **options: Any) -> Layer:
        """Return a fresh open layer; two calls in one check give two clients of one prefix."""
        ...


CheckBody = Callable[[LayerMaker], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Check:
    """One statement of the contract and the function that holds a layer to it.

    Attributes:
        name: A sentence in snake case, unique among all checks.
        statement: The section of the contract, such as ``"semantics 8"``.
        body: The function; it returns if the layer keeps the statement and raises if not.
        needs: What the check takes for granted; see `Need`.
        topic: The file it lives in, such as ``"fairness"``.
    """

    name: str
    statement: str
    body: CheckBody
    needs: tuple[Need, ...] = ()
    topic: str = ""

    @property
    def summary(self) -> str:
        """The first line of the docstring of the function."""
        return (self.body.__doc__ or "").strip().partition("\n")[0]

    async def __call__(self, make: LayerMaker) -> None:
        """Hold the layers that `make` gives to the statement."""
        await self.body(make)


def check(statement: str, *, needs: Iterable[Need] = ()) -> Callable[[CheckBody], Check]:
    """Turn an async function that takes a `LayerMaker` into a `Check`.

    Args:
        statement: The section of the contract that the function holds.
        needs: What the layer must guarantee for the function to make sense.
    """

    def turn(body: CheckBody) -> Check:
        name: str = getattr(body, "__name__", repr(body))
        topic = body.__module__.rpartition(".")[2]
        return Check(name, statement, body, tuple(needs), topic)

    return turn
