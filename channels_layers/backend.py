"""The contract between a `ChannelLayer` and what connects it to other clients.

A layer alone is complete inside its process. A backend carries payloads between layers: it is the
smallest thing that differs between Redis, shared memory and a stranger's transport. Names, types,
capacities, queues, fairness, cancellation and local fan-out stay with the layer.

A client's own process-specific channels live in that client. All other channels (normal ones,
single-reader ones, process-specific ones that no client owns) live in the backend, which hands
out their messages one by one to clients that want them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Final, NamedTuple, Protocol, TypeAlias

from ._core.ledger import Ledger
from ._core.statistics import Statistics
from .guarantees import Guarantees

_MOMENT_S: Final = 0.01  # in which an answer comes over a network nearby

# ("message", channel, payload), ("group", group, payload), ("added", channel, group as bytes) or
# ("discarded", channel, group as bytes), each with the seconds that it has left.
Arrival: TypeAlias = tuple[str, str, bytes, float]


class Client(Protocol):
    """A layer as its backend sees it. No method waits; any thread may call them."""

    @property
    def id(self) -> str:
        """The client id in the names of its process-specific channels."""
        ...

    @property
    def demanding(self) -> AbstractContextManager[object]:
        """A lock that is held while a backend is told of receivers, by `want` and `give_back`.

        A backend that hands over in a thread of its own holds it as well, to have heard of all.
        """
        ...

    def deliver(self, channel: str, payload: bytes, lifetime: float) -> bool:
        """Hand over one message that expires in `lifetime` seconds.

        Returns:
            Whether it was taken. If not, the channel is full (its own), or nobody waits for it
            any more (another one): the backend keeps the message, in its place in the order.
        """
        ...

    def fan_out(self, group: str, payload: bytes) -> None:
        """Hand over one group message for all of this client's members."""
        ...

    def member_added(self, group: str, channel: str) -> None:
        """Hear that a channel of this client was put into `group`, or renewed there."""
        ...

    def member_discarded(self, group: str, channel: str) -> None:
        """Hear that a channel of this client was taken out of `group`."""
        ...

    def is_member(self, group: str, channel: str) -> bool:
        """Say whether a channel of this client is in `group`, which its reader may have renewed."""
        ...

    def memberships(self) -> list[tuple[str, str, float]]:
        """Return all members that live in this client: group, channel, and when each ends.

        In seconds on the layer's clock, unless a reader renews it.
        """
        ...

    def take_ended(self) -> list[tuple[str, str]]:
        """Return the memberships (group, channel) that have ended by themselves since last time."""
        ...

    def take_in(self, arrivals: Iterable[Arrival]) -> bool:
        """Hand over much at once, in this order, for a backend that keeps accounts.

        Its messages are for this client's own channels, and are never refused.

        Returns:
            Whether a channel is so near its capacity that its account should be settled at once.
        """
        ...

    def gap(self) -> None:
        """Hear that the backend may have lost messages; readers are told as `on_gap` has it."""
        ...

    @property
    def ledger(self) -> Ledger:
        """For a backend that keeps accounts: how full the client's own channels are."""
        ...

    def account_of(self, channel: str) -> str:
        """Return the name under which the messages of an own channel are counted."""
        ...

    def enter(
        self, settle: Callable[[list[tuple[str, int]]], list[int]], *, everything: bool
    ) -> None:
        """Give accounts to channels with queued messages that have none yet.

        Args:
            settle: Gets names and numbers of queued messages; returns places for `ledger.counts`.
            everything: Also to those that have one, since the old places mean nothing any more.
        """
        ...

    def adrift(self) -> None:
        """Hear that the event loop ends in which the backend was opened; see `has_home`."""
        ...

    def forget(self) -> None:
        """Let go of every message and membership: somebody flushed the prefix."""
        ...

    def statistics(self, channel: str | None = None) -> Statistics:
        """Return this client's own numbers, of one channel or of all."""
        ...


class Prompt(NamedTuple):
    """What a backend that keeps accounts can do at once; any thread calls them, none waits.

    Attributes:
        send_now: Sends to a channel that is not the client's own, or returns False where `send`
            must do it. Raises `ChannelFull`.
        take_now: Takes a message of a channel of no client, or returns None.
        catch_up: Brings in what has arrived for the client.
        see_flush: Lets the client forget everything if the prefix was flushed.
        listen: Sees to it that arrivals wake the running event loop.
        is_idle: Says whether nothing that was sent to an own channel is on its way.
    """

    send_now: Callable[[str, bytes], bool]
    take_now: Callable[[str], bytes | None]
    catch_up: Callable[[], None]
    see_flush: Callable[[], None]
    listen: Callable[[], None]
    is_idle: Callable[[], bool]


def _nothing() -> None:
    pass


NOTHING_AT_ONCE: Final = Prompt(
    send_now=lambda _channel, _payload: False,
    take_now=lambda _channel: None,
    catch_up=_nothing,
    see_flush=_nothing,
    listen=_nothing,
    is_idle=lambda: True,
)


class Backend(Protocol):
    """Moves payloads between clients.

    Coroutines raise `BackendUnavailable` when nothing can have happened and `BackendTimeout` when
    it may have. A cancelled one has done all or nothing. For groups that includes this very client:
    the backend calls its `fan_out`, `member_added` and `member_discarded` as those of any other, at
    the moment from which the call cannot be undone.

    Attributes:
        guarantees: What this backend promises, fixed when it is made.
        has_home: Whether its coroutines must all run in one event loop, which owns its
            connections. If so, the layer carries every call there, and calls `open` again in
            another loop when that one has ended.
        keeps_accounts: Whether others count what they send to a client's own channels; see
            `Client.ledger`. If so, `send` is also called for own channels, the calls of
            `prompt` are made, and it keeps each call within the `timeout` of the layer itself.
        tells_gaps: Whether it calls `Client.gap`.
    """

    guarantees: Guarantees
    has_home: bool
    keeps_accounts: bool = False
    tells_gaps: bool = False

    def prompt(self) -> Prompt:
        """Return what a backend that keeps accounts does at once, while it is open."""
        return NOTHING_AT_ONCE

    async def open(self, client: Client) -> None:
        """Connect `client`; when it has returned, what others send to it arrives. Repeatable."""
        ...

    async def close(self) -> None:
        """Let the client go, with its memberships; idempotent, also after a failure."""
        ...

    async def send(self, channel: str, payload: bytes, capacity: int) -> None:
        """Queue `payload` on a channel that is not the client's own.

        Raises:
            ChannelFull: it holds `capacity` unread messages.
        """
        ...

    def want(self, channel: str, readers: int) -> None:
        """Hear that `readers` receivers wait for `channel` now; never waits, any thread.

        Until it hears another number, the backend may `deliver` that many messages, no more. A
        `channel` that ends in "!" means every channel that begins with it.
        """
        ...

    def give_back(self, channel: str, letters: Sequence[tuple[bytes, float]]) -> None:
        """Take back what was delivered and not read, to the front; never waits, any thread.

        Args:
            channel: Where it was delivered.
            letters: Payloads and the seconds that each has left, oldest first.
        """
        ...

    async def answer(self, channels: Iterable[str]) -> float:
        """Wait until what is wanted of `channels`, and is there, has been delivered.

        A receiver of several channels asks for this now and then, before it takes a message of
        another one that is in this process already.

        Returns:
            For how many seconds more that may still come; a moment, if a backend knows no better.
        """
        return _MOMENT_S

    async def is_alive(self, client_id: str) -> bool:
        """Say whether another live client has this id."""
        ...

    async def group_add(self, group: str, channel: str) -> None:
        """Add or renew a member; its owner has heard of it before this returns."""
        ...

    async def group_discard(self, group: str, channel: str) -> None:
        """Remove a member, if it is one."""
        ...

    async def group_send(self, group: str, payload: bytes) -> None:
        """Hand one copy to every client with members, and queue one for each other member."""
        ...

    async def group_channels(self, group: str) -> list[str]:
        """Return the names of all members."""
        ...

    async def flush(self) -> None:
        """Forget everything; when it has returned, every live client has been told to."""
        ...

    async def statistics(self, channel: str | None = None) -> Statistics:
        """Return the numbers of all clients and queues, of one channel or of all."""
        ...
