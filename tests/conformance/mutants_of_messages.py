"""Layers with one fault each in what they deliver, and to whom."""

from __future__ import annotations

import json
import re
import threading
from functools import partial

import anyio
from mutation import caught_by
from reference import ReferenceLayer

# Delivery


@caught_by("many_readers_get_each_message_once", "nothing_is_left_behind_after_the_last_message")
class DeliversTwice(ReferenceLayer):
    def take(self, number):
        entry = super().take(number)
        if entry is not None and entry.channel not in vars(self).setdefault("doubled", set()):
            self.doubled.add(entry.channel)
            with self.opened() as state:
                state.entries.insert(0, entry)
        return entry


@caught_by("a_process_specific_channel_keeps_order", "a_single_reader_channel_keeps_order")
class LastInFirstOut(ReferenceLayer):
    def put(self, state, channel, payload):
        accepted = super().put(state, channel, payload)
        state.entries.sort(key=lambda entry: -entry.sent_at)
        return accepted


@caught_by("direct_and_group_messages_share_one_order")
class GroupMessagesOvertake(ReferenceLayer):
    async def group_send(self, group, message):
        with self.opened() as state:
            before = list(state.entries)
            await super().group_send(group, message)
            state.entries[:] = state.entries[len(before) :] + before


@caught_by("concurrent_sends_keep_their_order_of_call")
class SlowSendsAreOvertaken(ReferenceLayer):
    async def send(self, channel, message):
        if message.get("n", 1) % 7 == 0:
            await anyio.sleep(0.002)
        await super().send(channel, message)


@caught_by("the_non_local_part_takes_the_next_message_of_all")
class NonLocalPartSeesOneChannel(ReferenceLayer):
    def assigned(self, state, wanted, now):
        entry = super().assigned(state, wanted, now)
        first = vars(self).setdefault("first", entry and entry.channel)
        return entry if entry is None or entry.channel == first else None


@caught_by("several_prefixes_work_in_one_process")
class OnePrefixOnly(ReferenceLayer):
    async def send(self, channel, message):
        if not channel.startswith("http"):
            await super().send(channel, message)


@caught_by("new_channels_are_all_different")
class FewNames(ReferenceLayer):
    async def new_channel(self, prefix="specific"):
        name = await super().new_channel(prefix)
        return name[:-7]


# Messages


@caught_by("dates_and_times_are_refused", "identifiers_and_exact_numbers_are_refused")
class ConvertsSilently(ReferenceLayer):
    def encoded(self, message):
        return super().encoded(json.loads(json.dumps(message, default=str)))


@caught_by("every_type_arrives_as_it_was", "not_a_number_and_infinity_are_floats")
class SpeaksStrictJson(ReferenceLayer):
    def encoded(self, message):
        try:
            return super().encoded(json.loads(json.dumps(message, allow_nan=False)))
        except ValueError as error:
            raise TypeError(str(error)) from error


@caught_by(
    "the_sender_may_change_its_message_afterwards", "members_of_a_group_get_independent_copies"
)
class HandsOutTheObject(ReferenceLayer):
    def encoded(self, message):
        super().encoded(message)
        return message

    def decoded(self, payload):
        return payload


@caught_by("an_empty_dict_is_a_message")
class IgnoresEmptyMessages(ReferenceLayer):
    async def send(self, channel, message):
        if message != {}:
            await super().send(channel, message)


@caught_by("a_refused_message_changes_nothing")
class ChecksTooLate(ReferenceLayer):
    async def send(self, channel, message):
        try:
            self.encoded(message)
        except TypeError:
            await super().send(channel, {})
            raise
        await super().send(channel, message)


@caught_by("a_megabyte_of_short_floats_fits")
class CountsBinaryBytes(ReferenceLayer):
    def __init__(self, world, **options):
        super().__init__(world, **{"max_message_bytes": 2 * 1024 * 1024, **options})


@caught_by("what_is_too_large_is_refused", "max_message_bytes_moves_the_limit")
class HasNoLimit(ReferenceLayer):
    def __init__(self, world, **options):
        super().__init__(world, **{**options, "max_message_bytes": 2**30})


# Names


class _ChecksNamesBadly(ReferenceLayer):
    pattern = re.compile(r"")

    async def send(self, channel, message):
        if self.pattern.match(channel):
            channel = "any"
        await super().send(channel, message)


@caught_by("a_newline_is_in_no_name")
class OverlooksNewlines(_ChecksNamesBadly):
    pattern = re.compile(r"^[a-z!]+\n$")


@caught_by("other_alphabets_are_in_no_name")
class KnowsOtherAlphabets(_ChecksNamesBadly):
    pattern = re.compile(r"^\w+$(?<![a-z])")


@caught_by("a_name_has_at_most_100_characters")
class CountsOnlyTheNonLocalPart(_ChecksNamesBadly):
    pattern = re.compile(r"^x!y{99}$")


@caught_by("a_bad_name_is_shown")
class LooksTheNameUpFirst(ReferenceLayer):
    async def send(self, channel, message):
        hash(channel)
        await super().send(channel, message)


@caught_by("a_bad_name_is_shown")
class HidesTheName(ReferenceLayer):
    async def group_add(self, group, channel):
        try:
            await super().group_add(group, channel)
        except TypeError:
            raise TypeError("a name must be valid") from None


# Groups


@caught_by("adding_twice_makes_one_member")
class CountsTheAdds(ReferenceLayer):
    async def group_add(self, group, channel):
        twice = channel in await self.group_channels(group)
        await super().group_add(f"{group}.again" if twice else group, channel)

    async def group_send(self, group, message):
        await super().group_send(group, message)
        await super().group_send(f"{group}.again", message)


@caught_by("discarding_works_at_once", "adding_twice_makes_one_member")
class KeepsMembers(ReferenceLayer):
    async def group_discard(self, group, channel):
        pass


@caught_by("a_channel_may_be_in_many_groups")
class LeavesAllGroups(ReferenceLayer):
    async def group_discard(self, group, channel):
        with self.opened() as state:
            for each in list(state.groups):
                await super().group_discard(each, channel)


@caught_by("adding_works_at_once", "a_member_is_reached_at_once_from_another_client")
class AddsLater(ReferenceLayer):
    async def group_add(self, group, channel):
        add = partial(super().group_add, group, channel)
        threading.Timer(0.02, partial(anyio.run, add)).start()


@caught_by("any_kind_of_channel_may_join")
class OwnMembersOnly(ReferenceLayer):
    async def group_add(self, group, channel):
        if "!" in channel:
            await super().group_add(group, channel)


@caught_by("names_that_join_alike_stay_apart")
class JoinsNames(ReferenceLayer):
    async def group_add(self, group, channel):
        vars(self).setdefault("joined", {}).setdefault(group + channel, channel)
        await super().group_add(group, self.joined[group + channel])
