"""The table of accounts of an inbox, in ordinary memory: what it counts of refused messages."""

from __future__ import annotations

import pytest

from channels_layers.ipc import _layout
from channels_layers.ipc._inbox import Inbox, digest_of

RING = 65_536
PLACES = 1 << _layout.SMALLEST_TABLE


def inbox():
    found = Inbox(memoryview(bytearray(_layout.inbox_bytes(RING))), RING)
    found.format("client", 1, 0)
    return found


def offer(found, channel, *, capacity=1, account="", payload=b"x"):
    digest = digest_of(account or channel)
    return found.offer(_layout.MESSAGE, channel.encode(), payload, 1e9, 0, digest, capacity)


def read(found, *channels):
    """Take all that came in, of these channels, which is read at once."""
    found.take()
    counts = {channel: channels.count(channel) for channel in channels}
    return found.settle(counts, [])


def test_each_refused_message_is_counted_in_all_and_for_its_channel():
    found = inbox()
    sent = [offer(found, channel) for channel in ("a", "a", "b", "a", "c", "c")]
    assert sent == [True, False, True, False, True, False]
    assert [found.refused(digest_of(channel)) for channel in "abcd"] == [2, 0, 1, 0]
    assert found.longs[_layout.REFUSED] == 3


def test_a_full_ring_refuses_a_channel_that_holds_nothing():
    found = inbox()
    while offer(found, "a", capacity=10**6, payload=bytes(8000)):
        pass
    while offer(found, "a", capacity=10**6, payload=bytes(100)):
        pass
    before = found.refused(digest_of("a"))
    assert not offer(found, "b", payload=bytes(100))
    assert found.refused(digest_of("b")) == 1
    assert found.refused(digest_of("a")) == before


def test_channels_that_share_a_capacity_have_each_their_own_count():
    found = inbox()
    assert offer(found, "x!1", account="x!")
    for channel, count in (("x!1", 1), ("x!2", 3)):
        for _ in range(count):
            assert not offer(found, channel, account="x!")
    assert [found.refused(digest_of(name)) for name in ("x!", "x!1", "x!2")] == [0, 1, 3]


def test_reading_leaves_the_count_and_makes_room():
    found = inbox()
    for count in (1, 2, 3):
        assert offer(found, "a")
        assert not offer(found, "a")
        read(found, "a")
        assert found.refused(digest_of("a")) == count


@pytest.mark.parametrize("change", [Inbox.renew_table, lambda found: found.grow_table(11)])
def test_what_was_taken_is_counted_anew_and_is_not_in_the_next_table(change):
    found = inbox()
    channels = [f"c{n}" for n in range(PLACES // 2)]
    for channel in channels:
        assert offer(found, channel)
        assert not offer(found, channel)
    read(found, *channels[1:])
    taken = found.take_refused()
    assert taken == {digest_of(channel): 1 for channel in channels}
    change(found)
    assert found.take_refused() == {}
    assert not offer(found, "c0")  # it holds its message still
    assert offer(found, "c1")
    assert found.take_refused() == {digest_of("c0"): 1}
    assert found.longs[_layout.REFUSED] == len(channels) + 1


def test_numbers_give_way_to_channels_that_need_an_account():
    found = inbox()
    channels = [f"c{n}" for n in range(4 * PLACES)]
    for channel in channels:
        assert offer(found, channel), channel
        offer(found, channel)
        read(found, channel)
    assert found.longs[_layout.REFUSED] == len(channels)


def test_refused_messages_of_many_names_leave_half_the_table_for_accounts():
    found = inbox()
    assert offer(found, "x!1", account="x!")
    for n in range(4 * PLACES):
        assert not offer(found, f"x!{n}", account="x!")
    assert found.words[_layout.TAKEN] <= PLACES // 2 + 1
    assert found.longs[_layout.REFUSED] == 4 * PLACES


def test_what_is_forgotten_begins_at_nothing():
    found = inbox()
    for channel in ("a", "a", "b", "b"):
        offer(found, channel)
    for channel in ("a", "c"):
        found.forget_refused(digest_of(channel))
    assert [found.refused(digest_of(channel)) for channel in "abc"] == [0, 1, 0]
