"""A small, slow and simple layer that keeps the contract, as a stranger might write one.

All clients look at one state behind one lock, and every receiver looks every millisecond. The kit
must find nothing wrong here, and something wrong in each of its mutants.
"""

from __future__ import annotations

import os
import secrets
import time
from contextlib import contextmanager

import anyio
import anyio.lowlevel
from world import Entry, Ticket, World, covers, summary

from channels_layers._core.capacity import Capacities
from channels_layers._core.names import (
    check_channel,
    check_group,
    check_prefix,
    client_of,
    non_local_part,
)
from channels_layers.codecs.msgpack import decode, encode
from channels_layers.errors import ChannelFull, ForeignChannel, LayerClosed, MessageTooLarge
from channels_layers.guarantees import Guarantees
from channels_layers.options import LayerOptions

LOOK = 0.001  # seconds between two looks of a receiver
LOST = 0.3  # seconds without a look after which nobody is behind a ticket


class ReferenceLayer:
    ChannelFull = ChannelFull
    MessageTooLarge = MessageTooLarge
    guarantees = Guarantees(shared=True)
    world_class = World
    extensions = ["groups", "flush", "statistics"]  # noqa: RUF012

    def __init__(self, world, **options):
        self.options = LayerOptions(**options)
        self.idle = self.options.idle or max(3 * self.options.expiry, 300)
        self.capacities = Capacities(self.options.capacity, self.options.channel_capacity)
        self.world = world
        self.client = self.pid = None

    @contextmanager
    def opened(self):
        """The state, without what has expired or died; and this layer is a client in it."""
        with self.world.opened() as state:
            if self.client is None or self.is_forked():
                self.client, self.pid = secrets.token_hex(8), os.getpid()
            state.clients[self.client] = self.pid
            for client, pid in list(state.clients.items()):
                if self.world.is_dead(pid):
                    self.remove(state, client)
            self.drop_expired(state, time.monotonic())
            yield state

    def is_forked(self):
        return self.pid != os.getpid()

    # Channels

    async def send(self, channel, message):
        payload = self.encoded(message)
        check_channel(channel)
        with self.opened() as state:
            if not self.put(state, channel, payload):
                self.count(state, "refused", channel)
                raise ChannelFull(channel, self.capacities.of(channel))
            self.count(state, "sent", channel)

    def encoded(self, message):
        payload = encode(message)
        if len(payload) > self.options.max_message_bytes:
            raise MessageTooLarge(len(payload), self.options.max_message_bytes)
        return payload

    def decoded(self, payload):
        return decode(payload)

    def put(self, state, channel, payload):
        scope = self.scope(channel)
        if sum(self.scope(entry.channel) == scope for entry in state.entries) >= (
            self.capacities.of(channel)
        ):
            return False
        now = time.monotonic()
        state.entries.append(Entry(channel, payload, now, now + self.options.expiry))
        return True

    def scope(self, channel):
        if self.options.capacity_scope == "process":
            return non_local_part(channel) or channel
        return channel

    async def receive(self, channel):
        return (await self.receive_from([channel]))[1]

    async def receive_from(self, channels):
        if isinstance(channels, str) or not channels:
            raise TypeError(f"expected a list of channel names, got {channels!r}")
        names = tuple(check_channel(channel, receiving=True) for channel in channels)
        ticket = self.take_ticket(names)
        try:
            await self.pause()
            while (entry := self.take(ticket)) is None:  # noqa: ASYNC110  # slow and simple
                await anyio.sleep(LOOK)
            return entry.channel, self.decoded(entry.payload)
        finally:
            self.leave(ticket)

    async def pause(self):
        await anyio.lowlevel.checkpoint()

    def take_ticket(self, names):
        with self.opened() as state:
            for name in names:
                if client_of(name) in state.clients and client_of(name) != self.client:
                    raise ForeignChannel(name)
            state.numbers += 1
            ticket = Ticket(self.client, names, time.monotonic(), state.numbers)
            state.tickets.append(ticket)
            return ticket.number

    def take(self, number):
        with self.opened() as state:
            ticket = next((each for each in state.tickets if each.number == number), None)
            if ticket is None:
                raise LayerClosed
            ticket.seen_at = now = time.monotonic()
            entry = self.assigned(state, ticket, now)
            if entry is not None:
                state.entries.remove(entry)
                self.remove_ticket(state, number)  # who was served stands in nobody's way
            return entry

    def assigned(self, state, wanted, now):
        """Give each message to the first in line who may have it; return what `wanted` gets."""
        waiting = [ticket for ticket in state.tickets if now - ticket.seen_at < LOST]
        for entry in state.entries:
            taker = next((each for each in waiting if covers(each, entry.channel)), None)
            if taker is wanted:
                return entry
            if taker is not None:
                waiting.remove(taker)
        return None

    def leave(self, number):
        with self.opened() as state:
            self.remove_ticket(state, number)

    def remove_ticket(self, state, number):
        for ticket in [each for each in state.tickets if each.number == number]:
            state.read_at.update(dict.fromkeys(ticket.names, time.monotonic()))
            state.tickets.remove(ticket)

    async def new_channel(self, prefix="specific"):
        check_prefix(prefix)
        with self.opened():
            local = secrets.token_hex(4)
            return f"{prefix}{local}" if prefix[-1] == "?" else f"{prefix}.{self.client}!{local}"

    # Groups

    async def group_add(self, group, channel):
        check_group(group)
        check_channel(channel)
        with self.opened() as state:
            until = time.monotonic() + self.options.group_expiry
            state.groups.setdefault(group, {})[channel] = until

    async def group_discard(self, group, channel):
        check_group(group)
        check_channel(channel)
        with self.opened() as state:
            state.groups.get(group, {}).pop(channel, None)

    async def group_send(self, group, message):
        payload = self.encoded(message)
        check_group(group)
        with self.opened() as state:
            for channel in state.groups.get(group, {}):
                if not self.put(state, channel, payload):
                    self.count(state, "full", channel)

    async def group_channels(self, group):
        check_group(group)
        with self.opened() as state:
            return list(state.groups.get(group, {}))

    # Time

    def drop_expired(self, state, now):
        for entry in [entry for entry in state.entries if entry.expires_at <= now]:
            state.entries.remove(entry)
            self.count(state, "expired", entry.channel)
            if non_local_part(entry.channel) and self.last_sign(state, entry.channel, now) < now:
                for members in state.groups.values():
                    members.pop(entry.channel, None)
        for members in state.groups.values():
            self.drop_members(state, members, now)

    def drop_members(self, state, members, now):
        for channel, until in list(members.items()):
            if self.options.renew_memberships and non_local_part(channel):
                alive = self.last_sign(state, channel, now) + self.options.group_expiry
                members[channel] = until = max(until, alive)
            if until <= now:
                del members[channel]

    def last_sign(self, state, channel, now):
        """The last moment at which `channel` had a live reader."""
        if any(covers(each, channel) and now - each.seen_at < LOST for each in state.tickets):
            return now
        names = (channel, non_local_part(channel))
        ended = max(state.read_at.get(name, -self.idle) for name in names)
        return min(now, ended + self.idle)

    # The whole layer

    async def flush(self):
        with self.opened() as state:
            state.entries.clear()
            state.groups.clear()

    async def close(self):
        if self.client is not None and not self.is_forked():
            with self.world.opened() as state:
                self.remove(state, self.client)
        self.client = None

    def remove(self, state, client):
        state.clients.pop(client, None)
        state.entries[:] = [each for each in state.entries if client_of(each.channel) != client]
        state.tickets[:] = [each for each in state.tickets if each.client != client]
        for members in state.groups.values():
            for channel in [each for each in members if client_of(each) == client]:
                del members[channel]

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        await self.close()

    # Statistics

    def count(self, state, what, channel):
        state.events.append((what, channel, time.monotonic()))

    async def statistics(self):
        with self.opened() as state:
            return summary(state, lambda _: True)

    async def channel_statistics(self, channel):
        check_channel(channel)
        with self.opened() as state:
            return summary(state, lambda name: name == channel)
