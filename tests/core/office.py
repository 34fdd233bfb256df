"""An exchange for tests: its receivers are numbers, and the test turns its clock."""

from __future__ import annotations

from functools import partial
from itertools import count

from channels_layers._core.exchange import Exchange
from channels_layers.errors import ChannelFull
from channels_layers.options import LayerOptions


class Office:
    """One client, and whom it has woken so far."""

    def __init__(self, **options):
        self.now = 1000.0
        self.woken = []
        self.lost = set()  # receivers that can never resume
        self.exchange = Exchange(
            LayerOptions(**options).rules(),
            partial(next, count(1)),
            self.woken.append,
            lambda waiters: [waiter for waiter in waiters if waiter in self.lost],
        )
        self.mailboxes = self.exchange.mailboxes

    def clock(self):
        return self.now

    def pass_time(self, seconds):
        """Let time pass, and everything be looked at whose time has come."""
        for _ in range(int(seconds)):
            self.now += 1
            self.mailboxes.settle(self.now)
        self.exchange.next_beat = self.mailboxes.next_beat

    def try_offer(self, channel, payload=b"x"):
        return self.exchange.try_offer(channel, payload, self.now)

    def offer(self, channel, payload=b"x"):
        self._wake([self.exchange.offer(channel, payload, self.now)])

    def send(self, channel, payload=b"x"):
        """Send as a layer does; say whether there was room."""
        try:
            if not self.try_offer(channel, payload):
                self.offer(channel, payload)
        except ChannelFull:
            return False
        return True

    def fan_out(self, group, payload=b"x"):
        self._wake(self.exchange.fan_out(group, payload, self.now))

    def accept(self, channel, payload=b"x"):
        """Take a message in for which its sender was promised room."""
        waiter, _ = self.exchange.accept(channel, payload, 60.0, self.now)
        self._wake([waiter])

    def receive(self, channel):
        """Receive on one channel as a layer does first; return a payload or a waiter."""
        self.exchange.admit(channel, self.now)
        return self.exchange.receive(channel, self.clock)

    def resume(self, channel, waiter):
        return self.exchange.resume(channel, waiter, self.clock)

    def wait(self, *channels):
        """Get in line where no message is; return the place."""
        place, payload = self.exchange.join(channels, self.now)
        assert payload is None
        return place

    def resume_slowly(self, place):
        return self.exchange.resume_slowly(place, self.now)

    def leave(self, place):
        self._wake([self.exchange.leave(place, self.now)])

    def take(self, *channels):
        """Return the next payload of `channels`, or None and wait no longer."""
        place, payload = self.exchange.join(channels, self.now)
        if payload is None and place.mailbox is not None:
            place, payload = self.resume_slowly(place)
        if payload is None:
            self.leave(place)
        return payload

    def take_all(self, *channels):
        return list(iter(partial(self.take, *channels), None))

    def mailbox(self, channel):
        return self.exchange.by_name[channel]

    def add(self, group, channel):
        self.exchange.group_add(group, channel, self.now)

    def discard(self, group, channel):
        self.exchange.group_discard(group, channel, self.now)

    def members(self, group):
        return self.exchange.group_channels(group, self.now)

    def statistics(self, channel=None):
        if channel is None:
            return self.mailboxes.statistics(self.now)
        return self.mailboxes.channel_statistics(channel, self.now)

    def _wake(self, waiters):
        self.woken += [waiter for waiter in waiters if waiter is not None]
