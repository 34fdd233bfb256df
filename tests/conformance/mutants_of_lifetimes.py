"""Layers with one fault each in time, flush, close, fork, or in what they say of themselves."""

from __future__ import annotations

import math
import threading
import time

import anyio
from mutation import caught_by
from reference import ReferenceLayer
from world import World, covers

from channels_layers._core.names import client_of

# Time


@caught_by("an_expired_message_is_never_delivered", "expired_messages_make_room")
class ForgetsExpiry(ReferenceLayer):
    def __init__(self, world, **options):
        super().__init__(world, **{**options, "expiry": 60})


@caught_by("an_expiry_may_be_a_fraction")
class RoundsExpiryUp(ReferenceLayer):
    def __init__(self, world, expiry=60, **options):
        super().__init__(world, expiry=math.ceil(expiry), **options)


@caught_by("an_expiry_may_be_a_fraction")
class RoundsExpiryDown(ReferenceLayer):
    def __init__(self, world, expiry=60, **options):
        super().__init__(world, expiry=math.floor(expiry) or 1e-9, **options)


@caught_by("a_busy_queue_keeps_no_message_alive")
class NewMessagesKeepOldOnesAlive(ReferenceLayer):
    def put(self, state, channel, payload):
        accepted = super().put(state, channel, payload)
        for entry in state.entries:
            if entry.channel == channel:
                entry.expires_at = state.entries[-1].expires_at
        return accepted


@caught_by("an_unread_channel_without_reader_leaves_its_groups")
class UnreadChannelsStay(ReferenceLayer):
    def last_sign(self, state, channel, now):
        return now


@caught_by("a_reader_that_pauses_is_a_live_reader")
class APauseIsDeath(ReferenceLayer):
    def __init__(self, world, **options):
        super().__init__(world, **options)
        self.idle = 0


@caught_by("a_live_reader_keeps_its_membership")
class NeverRenews(ReferenceLayer):
    def __init__(self, world, **options):
        super().__init__(world, **{**options, "renew_memberships": False})


@caught_by("memberships_end_under_their_readers_without_renewal")
class AlwaysRenews(ReferenceLayer):
    def __init__(self, world, **options):
        super().__init__(world, **{**options, "renew_memberships": True})


@caught_by("group_expiry_ends_what_nobody_reads")
class MembershipsLastForEver(ReferenceLayer):
    def __init__(self, world, **options):
        super().__init__(world, **{**options, "group_expiry": 86_400})


@caught_by("adding_again_renews_the_membership")
class AddingAgainDoesNothing(ReferenceLayer):
    async def group_add(self, group, channel):
        if channel not in await self.group_channels(group):
            await super().group_add(group, channel)


# Flush, close, fork


@caught_by("all_groups_are_gone")
class FlushKeepsGroups(ReferenceLayer):
    async def flush(self):
        with self.opened() as state:
            state.entries.clear()


@caught_by("waiting_receivers_go_on_waiting", "receivers_of_other_clients_wait_on_after_a_flush")
class FlushEndsReceivers(ReferenceLayer):
    async def flush(self):
        await super().flush()
        with self.opened() as state:
            state.tickets.clear()


@caught_by(
    "a_receiver_that_was_woken_before_a_flush_waits_on",
    "a_member_that_was_woken_before_a_flush_waits_on",
)
class FlushDeafensTheWoken(ReferenceLayer):
    def __init__(self, world, **options):
        super().__init__(world, **options)
        self.deaf = set()

    async def flush(self):
        with self.opened() as state:
            now = time.monotonic()
            woken = [each for each in state.tickets if self.assigned(state, each, now)]
            self.deaf |= {each.number for each in woken}
        await super().flush()

    def take(self, number):
        return None if number in self.deaf else super().take(number)


@caught_by(
    "a_loop_that_was_abandoned_breaks_nothing_for_the_others",
    "a_message_for_a_loop_that_then_closed_goes_to_the_next",
    "who_waits_behind_a_loop_that_then_closed_is_served",
    "a_late_receiver_lets_who_waits_behind_a_closed_loop_go_first",
    "a_refused_message_leaves_nobody_behind_a_closed_loop",
)
class WaitsForTheDead(ReferenceLayer):
    def assigned(self, state, wanted, now):
        for ticket in state.tickets:
            ticket.seen_at = now
        return super().assigned(state, wanted, now)


@caught_by("what_a_closed_loop_never_took_expires")
class KeepsForTheDead(ReferenceLayer):
    def drop_expired(self, state, now):
        for entry in state.entries:
            if any(covers(ticket, entry.channel) for ticket in state.tickets):
                entry.expires_at = now + 60
        super().drop_expired(state, now)


@caught_by("a_flush_reaches_every_client")
class FlushesItsOwn(ReferenceLayer):
    async def flush(self):
        with self.opened() as state:
            state.groups.clear()
            mine = f".{self.client}!"
            state.entries[:] = [each for each in state.entries if mine not in each.channel]


@caught_by("a_copy_that_is_on_its_way_to_nobody_is_flushed")
class CopiesComeLate(ReferenceLayer):
    def __init__(self, world, **options):
        super().__init__(world, **options)
        self.late = []

    async def group_send(self, group, message):
        with self.opened() as state:
            payload = self.encoded(message)
            self.late += [(channel, payload) for channel in state.groups.get(group, {})]

    async def send(self, channel, message):
        with self.opened() as state:
            while self.late:
                self.put(state, *self.late.pop())
        await super().send(channel, message)


@caught_by("closing_ends_waiting_receivers", "closing_ends_receivers_on_other_loops")
class CloseForgetsReceivers(ReferenceLayer):
    def remove(self, state, client):
        tickets = list(state.tickets)
        super().remove(state, client)
        state.tickets[:] = tickets


@caught_by("a_later_call_opens_the_layer_again", "a_layer_is_an_async_context_manager")
class ReopensAsTheSame(ReferenceLayer):
    async def close(self):
        client = self.client
        await super().close()
        self.client = client


@caught_by(
    "unread_normal_messages_are_handed_back", "a_closed_client_hands_its_normal_messages_to_others"
)
class CloseDropsMessages(ReferenceLayer):
    def remove(self, state, client):
        super().remove(state, client)
        state.entries.clear()


@caught_by("closing_gives_up_the_own_memberships", "a_closed_client_is_in_no_group")
class CloseKeepsMemberships(ReferenceLayer):
    def remove(self, state, client):
        groups = {group: dict(members) for group, members in state.groups.items()}
        super().remove(state, client)
        state.groups.update(groups)


@caught_by("closing_leaves_no_thread_behind")
class CloseLeavesAThread(ReferenceLayer):
    async def group_send(self, group, message):
        threading.Thread(target=time.sleep, args=(4,), daemon=True).start()
        await super().group_send(group, message)


@caught_by("a_forked_child_is_a_new_client")
class ForkKeepsTheIdentity(ReferenceLayer):
    def is_forked(self):
        return False


class CopiedWorld(World):
    """A world that a forked child takes over with everything in it."""

    def is_forked(self):
        return False


@caught_by("parent_and_child_share_no_normal_message")
class ForkCopiesMessages(ReferenceLayer):
    world_class = CopiedWorld


# Clients and what is said of them


@caught_by("receiving_on_the_channel_of_another_live_client_is_an_error")
class LetsAnybodyReceive(ReferenceLayer):
    def take_ticket(self, names):
        with self.opened() as state:
            clients = dict(state.clients)
            state.clients.clear()
            number = super().take_ticket(names)
            state.clients.update(clients)
            return number


@caught_by("two_clients_reach_each_other", "a_group_spans_clients")
class SharesNothing(ReferenceLayer):
    def __init__(self, world, **options):
        super().__init__(World(), **options)


@caught_by("statistics_keep_what_closed_clients_have_counted")
class ForgetsWhatTheGoneCounted(ReferenceLayer):
    def remove(self, state, client):
        super().remove(state, client)
        state.events[:] = [each for each in state.events if client_of(each[1]) != client]


@caught_by("an_expired_message_is_counted", "refused_messages_are_counted")
class CountsOnlySuccess(ReferenceLayer):
    def count(self, state, what, channel):
        if what == "sent":
            super().count(state, what, channel)


@caught_by("what_another_client_was_refused_is_counted")
class CountsOnlyOwnRefusals(ReferenceLayer):
    def count(self, state, what, channel):
        if what == "sent" or client_of(channel) == self.client:
            super().count(state, what, channel)


@caught_by("many_may_ask_for_a_channel_of_another_client")
class MixesUpAnswers(ReferenceLayer):
    async def channel_statistics(self, channel):
        self.asked = channel
        await anyio.sleep(0.01)
        return await super().channel_statistics(self.asked)


@caught_by("one_channel_knows_nothing_of_another")
class OneNumberForAll(ReferenceLayer):
    async def channel_statistics(self, channel):
        return await self.statistics()


@caught_by("extensions_are_really_there")
class PromisesMore(ReferenceLayer):
    statistics = None


@caught_by("an_unknown_argument_is_an_error_that_names_it")
class SwallowsArguments(ReferenceLayer):
    def __init__(self, world, **options):
        options.pop("capcity", None)
        super().__init__(world, **options)


@caught_by("a_receiver_on_another_loop_is_woken", "two_loops_receive_at_once")
class KnowsOneThread(ReferenceLayer):
    def take(self, number):
        entry = super().take(number)
        return entry if threading.current_thread() is threading.main_thread() else None


@caught_by("a_forked_child_takes_nothing_from_its_parent")
class ForkCopiesEverything(ForkKeepsTheIdentity):
    world_class = CopiedWorld
