"""How full the channels of one client are, told to the server that counts what is sent to them.

The server adds to the account of a channel for each message that it takes, which makes capacity
exact. This client takes off what was read, some milliseconds late and never early: until then the
channel looks fuller than it is.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from .._core.mailbox import Family, Mailbox

if TYPE_CHECKING:
    from .._core.ledger import Ledger
    from ..backend import Client

_SOON_S: Final = 0.005  # in which more may come that goes with it


class Changes(dict["Mailbox", None]):
    """The queues whose number has changed; tells of the first one, and of those near capacity."""

    def __init__(self, told: Mapping[str, int], begin: Callable[[bool], None]) -> None:
        super().__init__()
        self._told = told
        self._begin = begin

    def __setitem__(self, mailbox: Mailbox, value: None) -> None:
        is_first = not self
        super().__setitem__(mailbox, value)
        is_tight = 2 * self._told.get(mailbox.name, 0) >= mailbox.capacity
        if is_first or is_tight:
            self._begin(is_tight)


class Credit:
    """What is to be told to the home shard of one client."""

    def __init__(self, client: Client, send: Callable[[], None]) -> None:
        """Begin with nothing to tell.

        Args:
            client: The layer.
            send: Sends what there is to tell; in the event loop of `start`.
        """
        self._client = client
        self._send = send
        self._came: dict[str, int] = {}  # by account: messages taken in, and not settled yet
        self._bytes = 0
        self._told: dict[str, int] = {}  # by account: queued messages that the server knows of
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.position = ""  # up to where the inbox was read when this was last told
        client.ledger.changed = Changes(self._told, self._begin)

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
        self._bytes = 0

    def settle_soon(self) -> None:
        """Tell what came in within some milliseconds."""
        if self._timer is None and self._loop is not None:
            self._timer = self._loop.call_later(_SOON_S, self._settle)

    def take(self) -> list[Any]:
        """Return what is to be told now: unread bytes taken, then accounts and their changes."""
        ledger: Ledger = self._client.ledger
        changes: list[Any] = []
        came, self._came = self._came, {}
        accounts: dict[str, int | None] = dict.fromkeys(came)
        changed, ledger.changed = ledger.changed, Changes(self._told, self._begin)
        for mailbox in list(changed):
            holder: Mailbox | Family = ledger.holder(mailbox)
            accounts[holder.name] = holder.queued
        for account, queued in accounts.items():
            told = self._told.get(account, 0)
            now = told if queued is None else queued
            change = now - told - came.get(account, 0)
            if now:
                self._told[account] = now
            else:
                self._told.pop(account, None)
            if change:
                changes += (account, change)
        size_bytes, self._bytes = self._bytes, 0
        return [size_bytes, *changes] if changes or size_bytes else []

    def _begin(self, is_tight: bool) -> None:  # called for each message
        """Hear of the first change, or of one that makes room where it is scarce; any thread."""
        loop = self._loop
        if loop is None or loop.is_closed():
            return
        act = self._send if is_tight else self.settle_soon
        if loop is asyncio._get_running_loop():
            act()
        else:
            with contextlib.suppress(RuntimeError):  # it closes at this moment
                loop.call_soon_threadsafe(act)

    def _settle(self) -> None:
        self._timer = None
        self._send()
