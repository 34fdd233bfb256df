"""How full the channels of one client are, told to the server that counts what is sent to them.

The server adds to the account of a channel for each message that it takes, which makes capacity
exact. This client takes off what was read, some milliseconds late and never early: until then the
channel looks fuller than it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Container
from typing import TYPE_CHECKING, Any, Final

from .._core.mailbox import Family, Mailbox

if TYPE_CHECKING:
    from .._core.ledger import Ledger
    from ..backend import Client

_SOON_S: Final = 0.005  # in which more may come that goes with it
_LATEST_S: Final = 0.1  # at which what was read is told, of channels with room
_SHARE: Final = 4  # of the capacity, up to which copies alone are not told


class Changes(dict["Mailbox", None]):
    """The queues whose number has changed; acts at once where room is scarce.

    It stands where a plain dict does otherwise, since that is quicker, while any account is.
    """

    def __init__(self, tight: Container[str], act: Callable[[], None]) -> None:
        super().__init__()
        self._tight = tight
        self._act = act

    def __setitem__(self, mailbox: Mailbox, value: None) -> None:
        super().__setitem__(mailbox, value)
        family = mailbox.family
        if mailbox.name in self._tight or (family is not None and family.name in self._tight):
            self._act()


class Credit:
    """What is to be told to the home shard of one client."""

    def __init__(self, client: Client, send: Callable[[], None]) -> None:
        """Begin with nothing to tell.

        Args:
            client: The layer.
            send: Sends what there is to tell; any thread may call it.
        """
        self._client = client
        self._send = send
        self._came: dict[str, int] = {}  # by account: messages taken in, and not settled yet
        self._bytes = 0
        self._told: dict[str, int] = {}  # by account: queued messages that the server knows of
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._tight: set[str] = set()  # accounts that are half full or more
        self._pause_s = _SOON_S
        self.position = ""  # up to where the inbox was read when this was last told

    def start(self) -> None:
        """Tell changes in the running event loop from now on."""
        self._loop = asyncio.get_running_loop()
        self._timer = None
        self.settle_soon()

    def stop(self) -> None:
        """Tell no more."""
        self._loop = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def took(self, account: str, size_bytes: int) -> None:
        """Note a message that came in."""
        self._came[account] = self._came.get(account, 0) + 1
        self._bytes += size_bytes

    def took_copy(self, size_bytes: int) -> None:
        """Note a copy of a group's message that came in."""
        self._bytes += size_bytes

    def forget(self) -> None:
        """Begin anew; the server has forgotten, or was told to."""
        self._came.clear()
        self._told.clear()
        self._tight.clear()
        self._bytes = 0

    def settle_soon(self) -> None:
        """Tell what came in within some milliseconds; in the event loop of `start`."""
        self._pause_s = _SOON_S
        if self._timer is None and self._loop is not None:
            self._timer = self._loop.call_later(self._pause_s, self._settle)

    def take(self) -> list[Any]:
        """Return what is to be told now: unread bytes taken, then accounts and their changes."""
        ledger: Ledger = self._client.ledger
        came, self._came = self._came, {}
        told, tight = self._told, self._tight
        changed, ledger.changed = ledger.changed, {}
        queues: dict[str, tuple[int, int]] = {}  # by account: queued messages, capacity
        for mailbox in list(changed):
            holder: Mailbox | Family = ledger.holder(mailbox)
            account, queued = holder.name, holder.queued
            # Some copies of group messages, and nothing else: room is not scarce for long.
            if account in told or account in came or _SHARE * queued >= mailbox.capacity:
                queues[account] = (queued, mailbox.capacity)
        changes: list[Any] = []
        for account in {**dict.fromkeys(came), **dict.fromkeys(queues)}:
            before = told.get(account, 0)
            queued, capacity = queues.get(account, (before, 0))
            if queued:
                told[account] = queued
            else:
                told.pop(account, None)
            if capacity:
                (tight.add if 2 * queued >= capacity else tight.discard)(account)
            if change := queued - before - came.get(account, 0):
                changes += (account, change)
        if tight:
            ledger.changed = Changes(tight, self._act)
        size_bytes, self._bytes = self._bytes, 0
        return [size_bytes, *changes] if changes or size_bytes else []

    def _act(self) -> None:
        """Tell with the next command; any thread."""
        if self._loop is not None:
            self._send()

    def _settle(self) -> None:
        if self._loop is not asyncio._get_running_loop():
            return  # another one has taken over, with a timer of its own
        self._timer = None
        if self._came or self._bytes or self._client.ledger.changed:
            self._pause_s = _SOON_S
            self._send()
        if self._told and self._loop is not None:
            # What is read of them makes room; where nothing is, this looks more and more rarely.
            self._timer = self._loop.call_later(self._pause_s, self._settle)
            self._pause_s = min(2 * self._pause_s, _LATEST_S)
