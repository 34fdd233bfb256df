"""What the kit says of other layers: Django Channels' own, and ours with a fault added."""

from __future__ import annotations

import json
from contextlib import suppress
from functools import partial

import anyio
import anyio.lowlevel
import pytest
from channels.exceptions import ChannelFull, MessageTooLarge
from channels.layers import InMemoryChannelLayer as ChannelsOwn

from channels_layers import InMemoryChannelLayer
from channels_layers.testing import CHECKS, run

BY_NAME = {check.name: check for check in CHECKS}
SOON = 0.5  # seconds until a message that never comes has failed a check
REAL_TIME = 1.5  # seconds, where a check waits for time to pass


class Theirs(ChannelsOwn):
    """Channels' layer with its errors as attributes, so that its behaviour is what fails."""

    ChannelFull = ChannelFull
    MessageTooLarge = MessageTooLarge


BROKEN = {
    # A receiver is not woken from another thread.
    "a_receiver_on_another_loop_is_woken": "still waiting",
    "a_receiver_on_this_loop_is_woken_from_another": "still waiting",
    "two_loops_receive_at_once": "still waiting",
    "readers_in_several_threads_share_the_work": "",
    # A forked child has its parent's identity and its parent's messages.
    "a_forked_child_is_a_new_client": "inmemory!",
    "a_forked_child_takes_nothing_from_its_parent": "",
    "parent_and_child_share_no_normal_message": "more than was sent",
    # Whatever is put in comes out, or fails as something else than a TypeError.
    "keys_are_strings": "was accepted",
    "dates_and_times_are_refused": "was accepted",
    "identifiers_and_exact_numbers_are_refused": "was accepted",
    "other_containers_are_refused": "was accepted",
    "enums_are_refused": "was accepted",
    "integers_beyond_64_bits_are_refused": "was accepted",
    "a_cycle_is_refused": "was accepted",
    "a_message_is_a_dict": "message is not a dict",
    "a_tuple_arrives_as_a_list": "received",
    "the_error_names_the_path": "was accepted",
    # The first of two receivers is cancelled and the message is destroyed.
    "a_cancelled_receive_takes_nothing": "still waiting",
    "a_cancelled_receiver_leaves_the_line_as_it_was": "still waiting",
    "a_normal_channel_in_a_group_gives_each_message_to_one_reader": "still waiting",
    "one_message_at_a_time_goes_down_the_line": "still waiting",
    # `channel_capacity` cannot be used at all.
    "channel_capacity_takes_globs": "too many values to unpack",
    "channel_capacity_takes_compiled_patterns": "cannot unpack",
    "the_first_match_of_channel_capacity_wins": "too many values to unpack",
    # Closing leaves receivers where they are.
    "closing_ends_waiting_receivers": "still waiting",
    "a_later_call_opens_the_layer_again": "",
    # And more that the contract forbids.
    "a_newline_is_in_no_name": "was accepted",
    "other_alphabets_are_in_no_name": "was accepted",
    "an_exclamation_mark_is_last_only_in_receive": "was accepted",
    "a_bad_name_is_shown": "is not in",
    "what_is_too_large_is_refused": "was accepted",
    "the_non_local_part_takes_the_next_message_of_all": "still waiting",
    "concurrent_direct_and_group_sends_keep_their_order_of_call": "",
    "a_receiver_with_a_backlog_yields": "no other task ran",
    "waiting_receivers_go_on_waiting": "still waiting",
    "expired_messages_make_room": "ChannelFull",
    "capacity_scope_process_counts_the_non_local_part": "capacity_scope",
    "extensions_hold_what_the_contract_promises": "flush",
}

KEPT = (
    "an_empty_dict_is_a_message",
    "every_type_arrives_as_it_was",
    "the_sender_may_change_its_message_afterwards",
    "members_of_a_group_get_independent_copies",
    "a_message_waits_for_its_reader",
    "a_waiting_reader_gets_the_message",
    "a_process_specific_channel_keeps_order",
    "many_readers_get_each_message_once",
    "receivers_are_served_in_order_of_waiting",
    "polling_with_timeouts_loses_nothing",
    "exactly_capacity_messages_are_accepted",
    "a_full_channel_never_fills_its_siblings",
    "group_send_never_raises_channel_full",
    "every_member_gets_one_copy",
    "adding_twice_makes_one_member",
    "adding_works_at_once",
    "discarding_works_at_once",
    "any_kind_of_channel_may_join",
    "all_messages_are_gone",
    "an_expired_message_is_never_delivered",
    "an_unknown_argument_is_an_error_that_names_it",
    "each_call_may_have_a_loop_of_its_own",
)


@pytest.mark.parametrize("name", BROKEN)
def test_channels_own_layer_breaks_what_the_check_names(name):
    limit = REAL_TIME if "real time" in BY_NAME[name].needs else SOON
    [outcome] = anyio.run(partial(run, Theirs, [BY_NAME[name]], limit=limit)).outcomes
    assert outcome.error is not None, f"{name} holds"
    assert BROKEN[name] in f"{type(outcome.error).__name__}: {outcome.error}"


@pytest.mark.parametrize("name", KEPT)
def test_channels_own_layer_keeps_the_plain_statements(name):
    report = anyio.run(run, Theirs, [BY_NAME[name]])
    assert len(report.passed) == 1, str(report)


def test_channels_own_layer_lacks_what_later_specifications_dropped():
    names = ("it_waits_on_all_of_its_channels", "group_channels_lists_the_members")
    report = anyio.run(run, Theirs, [BY_NAME[name] for name in (*names, "every_key_is_there")])
    missing = [str(outcome.error).rpartition("attribute ")[2] for outcome in report.failed]
    assert missing == ["'receive_from'", "'group_channels'", "'statistics'"]


class AwaitsAfterTaking(InMemoryChannelLayer):
    async def receive(self, channel):
        message = await super().receive(channel)
        await anyio.lowlevel.checkpoint()
        return message


class SendsTwice(InMemoryChannelLayer):
    async def send(self, channel, message):
        await super().send(channel, message)
        with suppress(ChannelFull):
            await super().send(channel, message)


class NeverFull(InMemoryChannelLayer):
    async def send(self, channel, message):
        with suppress(ChannelFull):
            await super().send(channel, message)


class ConvertsSilently(InMemoryChannelLayer):
    async def send(self, channel, message):
        await super().send(channel, json.loads(json.dumps(message, default=str)))


class KeepsMembers(InMemoryChannelLayer):
    async def group_discard(self, group, channel):
        pass


class HandsOutOneName(InMemoryChannelLayer):
    async def new_channel(self, prefix="specific"):
        return f"{prefix}.client!name"


class ClosesNothing(InMemoryChannelLayer):
    async def close(self):
        pass


class FlushesByClosing(InMemoryChannelLayer):
    async def flush(self):
        await super().flush()
        await self.close()


class SaysItIsShared(InMemoryChannelLayer):
    @property
    def guarantees(self):
        return type(super().guarantees)(shared=True)


FAULTS = [
    (AwaitsAfterTaking, "polling_with_timeouts_loses_nothing"),
    (AwaitsAfterTaking, "a_receiver_may_be_cancelled_at_any_moment"),
    (SendsTwice, "nothing_is_left_behind_after_the_last_message"),
    (SendsTwice, "many_readers_get_each_message_once"),
    (NeverFull, "exactly_capacity_messages_are_accepted"),
    (NeverFull, "refused_messages_are_counted"),
    (ConvertsSilently, "dates_and_times_are_refused"),
    (ConvertsSilently, "keys_are_strings"),
    (KeepsMembers, "discarding_works_at_once"),
    (KeepsMembers, "group_channels_forgets_who_left"),
    (HandsOutOneName, "new_channels_are_all_different"),
    (HandsOutOneName, "a_forked_child_is_a_new_client"),
    (ClosesNothing, "closing_ends_waiting_receivers"),
    (ClosesNothing, "closing_removes_the_own_inbox"),
    (FlushesByClosing, "waiting_receivers_go_on_waiting"),
    (SaysItIsShared, "two_clients_reach_each_other"),
    (SaysItIsShared, "a_group_spans_clients"),
]


@pytest.mark.parametrize(("mutant", "name"), FAULTS)
def test_a_fault_in_our_layer_is_found(mutant, name):
    report = anyio.run(partial(run, mutant, [BY_NAME[name]], limit=SOON))
    assert [outcome.check.name for outcome in report.failed] == [name], str(report)
