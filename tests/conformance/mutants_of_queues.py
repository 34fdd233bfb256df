"""Layers with one fault each in how they queue, wait and cancel."""

from __future__ import annotations

import time

import anyio
from mutation import caught_by
from reference import ReferenceLayer
from world import Entry, covers

from channels_layers.errors import ChannelFull

# Cancellation and fairness


class _KnowsWhoWasServed(ReferenceLayer):
    def __init__(self, world, **options):
        super().__init__(world, **options)
        self.served = set()

    def take(self, number):
        entry = super().take(number)
        if entry is not None:
            self.served.add(number)
        return entry


@caught_by(
    "a_cancelled_receive_takes_nothing",
    "a_receiver_cancelled_before_its_message_loses_nothing",
    "polling_with_timeouts_loses_nothing",
    "cancelling_it_takes_nothing",
)
class CancelledReceiversTakeTheNext(_KnowsWhoWasServed):
    def __init__(self, world, **options):
        super().__init__(world, **options)
        self.owed = []

    def leave(self, number):
        with self.opened() as state:
            gone = [each for each in state.tickets if each.number == number]
            self.owed += [each.names for each in gone if number not in self.served]
        super().leave(number)

    def put(self, state, channel, payload):
        for names in self.owed:
            if channel in names:
                self.owed.remove(names)
                return True
        return super().put(state, channel, payload)


@caught_by("neighbours_that_come_and_go_disturb_nobody")
class CancelledReceiversTakeFromNeighbours(_KnowsWhoWasServed):
    def leave(self, number):
        super().leave(number)
        with self.opened() as state:
            if number not in self.served:
                del state.entries[:1]


@caught_by("a_cancelled_receive_ends_no_mailbox")
class CancellationEndsTheMailbox(ReferenceLayer):
    def leave(self, number):
        with self.opened() as state:
            gone = [each for each in state.tickets if each.number == number]
            for members in state.groups.values():
                for channel in list(members):
                    if gone and covers(gone[0], channel):
                        del members[channel]
        super().leave(number)


@caught_by("a_cancelled_receive_resets_no_numbers")
class CancellationForgetsTheNumbers(_KnowsWhoWasServed):
    def leave(self, number):
        with self.opened() as state:
            gone = [each for each in state.tickets if each.number == number]
            if gone and number not in self.served:
                state.events[:] = [each for each in state.events if not covers(gone[0], each[1])]
        super().leave(number)


@caught_by("a_cancelled_send_is_wholly_done_or_not_at_all")
class CancelledSendsHappenLater(ReferenceLayer):
    async def send(self, channel, message):
        late = vars(self).setdefault("late", [])
        try:
            await self.pause()
        except anyio.get_cancelled_exc_class():
            late.append((channel, message))
            raise
        await super().send(channel, message)
        while late:
            await super().send(*late.pop())


@caught_by("a_cancelled_group_send_reaches_every_member_or_none")
class SendsToOneAfterTheOther(ReferenceLayer):
    async def group_send(self, group, message):
        for channel in await self.group_channels(group):
            await self.pause()
            with self.opened() as state:
                self.put(state, channel, self.encoded(message))


@caught_by(
    "receivers_are_served_in_order_of_waiting", "a_late_receiver_does_not_overtake_a_waiting_one"
)
class ServesTheLastFirst(ReferenceLayer):
    def assigned(self, state, wanted, now):
        state.tickets.sort(key=lambda ticket: -ticket.number)
        return super().assigned(state, wanted, now)


@caught_by("readers_of_the_full_and_the_non_local_name_take_turns")
class PrefersTheFullName(ReferenceLayer):
    def assigned(self, state, wanted, now):
        state.tickets.sort(key=lambda ticket: (ticket.names[0].endswith("!"), ticket.number))
        return super().assigned(state, wanted, now)


@caught_by("a_receiver_with_a_backlog_yields")
class NeverYields(ReferenceLayer):
    async def pause(self):
        pass


# Several channels


@caught_by("a_busy_channel_never_starves_a_quiet_one")
class PrefersTheFirstChannel(ReferenceLayer):
    def assigned(self, state, wanted, now):
        order = {name: place for place, name in enumerate(wanted.names)}
        state.entries.sort(key=lambda entry: order.get(entry.channel, 0))
        return super().assigned(state, wanted, now)


@caught_by("it_names_the_channel_as_it_was_sent_to")
class NamesTheNonLocalPart(ReferenceLayer):
    async def receive_from(self, channels):
        channel, message = await super().receive_from(channels)
        return channel[: channel.find("!") + 1] or channel, message


@caught_by("one_string_is_an_error", "no_channels_is_an_error")
class TakesAnythingForAList(ReferenceLayer):
    async def receive_from(self, channels):
        return await super().receive_from(list(channels) or ["nothing"])


# Capacity


@caught_by("exactly_capacity_messages_are_accepted", "a_capacity_of_one_works")
class HoldsOneMore(ReferenceLayer):
    def __init__(self, world, **options):
        super().__init__(world, **options)
        of = self.capacities.of
        self.capacities = _Capacities(lambda channel: of(channel) + 1)


class _Capacities:
    def __init__(self, of):
        self.of = of


@caught_by("a_full_channel_never_fills_its_siblings", "capacity_scope_channel_is_the_default")
class OneCapacityForAll(ReferenceLayer):
    def scope(self, channel):
        return channel[: channel.find("!") + 1] or channel


@caught_by("senders_in_several_threads_share_the_capacity")
class LooksForRoomTooEarly(ReferenceLayer):
    async def send(self, channel, message):
        with self.opened() as state:
            has_room = self.put(state, channel, b"")
            if has_room:
                del state.entries[-1]
        time.sleep(0.0001)  # noqa: ASYNC251  # another thread looks as well
        if not has_room:
            raise ChannelFull(channel, 0)
        with self.opened() as state:
            now = time.monotonic()
            state.entries.append(Entry(channel, self.encoded(message), now, now + 60))


@caught_by("capacity_scope_process_counts_the_non_local_part")
class IgnoresTheScope(ReferenceLayer):
    def scope(self, channel):
        return channel


@caught_by("the_first_match_of_channel_capacity_wins", "channel_capacity_takes_compiled_patterns")
class LastMatchWins(ReferenceLayer):
    def __init__(self, world, channel_capacity=None, **options):
        backwards = dict(reversed((channel_capacity or {}).items()))
        super().__init__(world, channel_capacity=backwards, **options)


@caught_by("an_accepted_message_is_never_dropped_for_group_copies")
class CopiesPushOut(ReferenceLayer):
    async def group_send(self, group, message):
        with self.opened() as state:
            for channel in state.groups.get(group, {}):
                queue = [entry for entry in state.entries if entry.channel == channel]
                if len(queue) >= self.capacities.of(channel):
                    state.entries.remove(queue[0])
        await super().group_send(group, message)


@caught_by("group_send_never_raises_channel_full")
class GroupSendRaises(ReferenceLayer):
    async def group_send(self, group, message):
        with self.opened() as state:
            before = len(state.events)
            await super().group_send(group, message)
            if any(what == "full" for what, *_ in state.events[before:]):
                raise ChannelFull(group, 0)


@caught_by("a_refused_message_is_not_delivered")
class DeliversWhatItRefused(ReferenceLayer):
    async def send(self, channel, message):
        try:
            await super().send(channel, message)
        except ChannelFull:
            with self.opened() as state:
                now = time.monotonic()
                state.entries.append(Entry(channel, self.encoded(message), now, now + 60))
            raise
