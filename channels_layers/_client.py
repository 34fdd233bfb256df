"""A layer as its backend sees it: what other clients send and tell comes in here."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ._core.exchange import Exchange
from ._core.ledger import Ledger
from ._core.mailbox import Mailbox, Waiter
from ._core.names import client_of, non_local_part
from ._core.statistics import Statistics
from .backend import Arrival
from .codecs.msgpack import encode
from .errors import ChannelFull
from .options import LayerOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class Inside:
    """What a layer shares with what stands for it outside.

    Attributes:
        exchange: The layer's queues and groups.
        lock: Is held during each call of the exchange, as that has it.
        clock: The layer's.
        wake: Wakes receivers, outside the lock.
        options: The layer's.
    """

    exchange: Exchange
    lock: threading.Lock
    clock: Callable[[], float]
    wake: Callable[[Iterable[Waiter]], None]
    options: LayerOptions


class LocalClient:
    """The `Client` of one open layer; see `channels_layers.backend` for its methods."""

    def __init__(
        self,
        client_id: str,
        inside: Inside,
        *,
        keeps_accounts: bool,
        tells_later: bool = False,
        adrift: Callable[[], None] = lambda: None,
    ) -> None:
        self.id = client_id
        self._inside = inside
        self._exchange = inside.exchange
        self._lock = inside.lock
        self._clock = inside.clock
        self._wake = inside.wake
        self._shares_capacity = inside.options.capacity_scope == "process"
        self.ledger = Ledger(client_id, is_shared=self._shares_capacity, tells_later=tells_later)
        self.adrift = adrift
        self.demanding = threading.RLock()
        if keeps_accounts:
            self._exchange.keep_ledger(self.ledger)
        self._is_left = False
        gap = inside.options.on_gap
        self._gap = None if gap is None else encode({"type": gap})

    def owns(self, channel: str) -> bool:
        """Say whether `channel` lives in this client."""
        return client_of(channel) == self.id

    def leave(self) -> None:
        """Take no more messages for others' channels; under the layer's lock."""
        self._is_left = True

    # Messages

    def deliver(self, channel: str, payload: bytes, lifetime: float) -> bool:
        """See `Client.deliver`."""
        now = self._clock()
        has_taken = True
        with self._lock:
            if self.owns(channel):
                try:
                    waiter = self._exchange.offer(channel, payload, now)
                except ChannelFull:
                    waiter, has_taken = None, False
            elif self._is_left:
                # Who waits now is of the layer's next session, and has an attachment of its own.
                waiter, has_taken = None, False
            else:
                waiter = self._exchange.hand(channel, payload, lifetime, now)
                has_taken = waiter is not None
        self._wake(() if waiter is None else (waiter,))
        return has_taken

    def fan_out(self, group: str, payload: bytes) -> None:
        """See `Client.fan_out`."""
        with self._lock:
            waiters = self._exchange.fan_out(group, payload, self._clock())
        self._wake(waiters)

    def take_in(self, arrivals: Iterable[Arrival]) -> bool:
        """See `Client.take_in`."""
        woken: list[Waiter] = []
        exchange = self._exchange
        with self._lock:
            if self._is_left:
                return False  # its channels are no more, and must not come to life again
            now = self._clock()
            touched: dict[Mailbox, None] = {}
            for kind, name, payload, lifetime in arrivals:
                if kind == "message":
                    waiter, mailbox = exchange.accept(name, payload, lifetime, now)
                    if waiter is not None:
                        woken.append(waiter)
                    touched[mailbox] = None
                elif kind == "group":
                    woken += exchange.fan_out(name, payload, now, lifetime)
                elif kind == "added":
                    exchange.group_add(payload.decode(), name, now)
                else:
                    exchange.group_discard(payload.decode(), name, now)
            is_tight = any(mailbox.is_tight for mailbox in touched)
        self._wake(woken)
        return is_tight

    def gap(self) -> None:
        """See `Client.gap`."""
        if self._gap is not None:
            with self._lock:
                waiters = self._exchange.tell_gap(self._gap, self._clock())
            self._wake(waiters)

    def forget(self) -> None:
        """See `Client.forget`."""
        with self._lock:
            self._exchange.mailboxes.clear(self._clock())

    # Groups

    def member_added(self, group: str, channel: str) -> None:
        """See `Client.member_added`."""
        with self._lock:
            if not self._is_left:
                self._exchange.group_add(group, channel, self._clock())

    def member_discarded(self, group: str, channel: str) -> None:
        """See `Client.member_discarded`."""
        with self._lock:
            self._exchange.group_discard(group, channel, self._clock())

    def is_member(self, group: str, channel: str) -> bool:
        """See `Client.is_member`."""
        with self._lock:
            return channel in self._exchange.group_channels(group, self._clock())

    def memberships(self) -> list[tuple[str, str, float]]:
        """Return the members that live here: group, channel, and the layer's time of their end."""
        with self._lock:
            groups = self._exchange.mailboxes.groups
            return [
                (group, name, ends_at)
                for name, mailbox in self._exchange.by_name.items()
                if mailbox.groups
                for group, ends_at in groups.of(mailbox)
            ]

    def take_ended(self) -> list[tuple[str, str]]:
        """See `Client.take_ended`."""
        with self._lock:
            return self._exchange.take_ended()

    # Numbers

    def statistics(self, channel: str | None = None) -> Statistics:
        """See `Client.statistics`."""
        with self._lock:
            mailboxes = self._exchange.mailboxes
            if channel is None:
                statistics = mailboxes.statistics(self._clock())
            else:
                statistics = mailboxes.channel_statistics(channel, self._clock())
        self._wake(())
        return statistics

    def account_of(self, channel: str) -> str:
        """See `Client.account_of`."""
        return (self._shares_capacity and non_local_part(channel)) or channel

    def enter(
        self, settle: Callable[[list[tuple[str, int]]], list[int]], *, everything: bool
    ) -> None:
        """See `Client.enter`."""
        ledger = self.ledger
        with self._lock:
            # Receivers in other threads go on adding, without the lock.
            changed, ledger.changed = ledger.changed, {}
            for mailbox in list(changed):
                ledger.note(mailbox)
            lines = list(ledger.unentered)
            ledger.unentered.clear()
            if everything:
                lines += list(ledger.entered)
                ledger.entered.clear()
            lines = list(dict.fromkeys(lines))
            places = settle([(line.name, line.queued) for line in lines])
            for line, place in zip(lines, places, strict=True):
                line.place = place if line.queued else 0
                if line.place:
                    ledger.entered[line] = None
                    ledger.counts[place] = line.queued
