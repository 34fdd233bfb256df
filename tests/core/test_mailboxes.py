"""All mailboxes of a client: families, shared capacity, weights, expiry, idleness, statistics."""

from __future__ import annotations

import gc

import pytest
from office import Office

from channels_layers._core.mailbox import Mailbox
from channels_layers._core.mailboxes import WEIGHED_BYTES
from channels_layers.errors import ChannelFull

LARGE = WEIGHED_BYTES + 1


def large(letter):
    return letter * LARGE


# Families


def test_a_family_receives_from_all_its_channels_in_order():
    office = Office()
    office.send("x.C!1", b"a")
    office.send("x.C!2", b"b")
    office.now += 1
    office.send("x.C!1", b"c")
    office.send("y.C!1", b"other")
    office.send("x.CC!1", b"other")
    assert office.take_all("x.C!") == [b"a", b"b", b"c"]
    for channel, payload in (("x.C!2", b"d"), ("x.C!3", b"e"), ("x.C!1", b"f")):
        office.send(channel, payload)
    assert office.take_all("x.C!") == [b"d", b"e", b"f"]


def test_a_family_and_one_of_its_channels_share_messages():
    office = Office()
    office.take("x.C!")
    for channel, payload in (("x.C!1", b"a"), ("x.C!2", b"b"), ("x.C!1", b"c")):
        office.send(channel, payload)
    assert office.take("x.C!1") == b"a"
    assert office.take_all("x.C!") == [b"b", b"c"]


def test_readers_of_a_family_and_of_one_of_its_channels_take_turns():
    office = Office()
    plain = office.receive("x.C!1")
    family, single = office.wait("x.C!"), office.wait("x.C!1")
    late = office.wait("x.C!")
    for _ in range(4):
        office.offer("x.C!1")
    assert office.woken == [plain, family.waiter, single.waiter, late.waiter]


def test_a_receiver_of_before_the_family_gets_its_message_by_the_long_way():
    office = Office()
    waiter = office.receive("x.C!1")
    office.take("x.C!")
    office.offer("x.C!1", b"a")
    assert office.woken == [waiter]
    assert office.resume("x.C!1", waiter) is None
    place = office.exchange.place_of("x.C!1", waiter)
    assert office.resume_slowly(place) == (place, b"a")
    assert office.receive("x.C!1") is None


def test_who_waits_for_a_family_and_for_one_of_its_channels_takes_one_message():
    office = Office()
    place = office.wait("x.C!1", "x.C!")
    office.offer("x.C!2", b"a")
    office.offer("x.C!1", b"b")
    assert office.woken == [place.waiter]
    assert office.resume_slowly(place) == (place, b"a")
    assert office.take_all("x.C!") == [b"b"]


def test_a_family_drops_what_has_expired():
    office = Office(expiry=10)
    office.take("x.C!")
    for channel in ("x.C!1", "x.C!2"):
        office.send(channel, b"old")
    office.now += 5
    office.send("x.C!2", b"new")
    office.now += 5
    assert office.take_all("x.C!") == [b"new"]
    assert office.statistics()["dropped_count"]["expired"] == 2


def test_a_family_drops_what_has_expired_within_the_second():
    office = Office(expiry=9.5)
    office.take("x.C!")
    for channel in ("x.C!1", "x.C!2"):
        office.send(channel, b"old")
    office.now += 0.5
    office.send("x.C!3", b"new")
    office.now += 9
    assert office.take_all("x.C!") == [b"new"]


def test_a_family_whose_message_was_cancelled_gives_it_to_the_next():
    office = Office()
    first, second = office.wait("x.C!"), office.wait("x.C!")
    office.offer("x.C!1", b"a")
    office.leave(first)
    assert office.woken == [first.waiter, second.waiter]
    assert office.resume_slowly(second) == (second, b"a")


def test_a_family_goes_when_nobody_read_it_for_long():
    office = Office(idle=20)
    office.take("x.C!")
    office.send("x.C!1")
    assert office.mailboxes.has_family("x.C!2")
    assert not office.mailboxes.has_family("y.C!2")
    assert not office.mailboxes.has_family("jobs")
    office.pass_time(100)
    assert not office.mailboxes.has_family("x.C!2")


def test_a_family_stays_while_somebody_waits():
    office = Office(idle=20)
    place = office.wait("x.C!")
    office.pass_time(200)
    office.offer("x.C!1", b"a")
    assert office.woken == [place.waiter]


# One capacity for all channels of a process


def test_a_shared_capacity_is_that_of_the_non_local_part():
    office = Office(capacity=3, capacity_scope="process")
    assert [office.send(f"x.C!{n}") for n in range(5)] == [True, True, True, False, False]
    assert office.send("x.D!1")
    assert office.send("jobs")
    office.take("x.C!1")
    assert office.send("x.C!7")
    assert not office.send("x.C!8")


def test_a_shared_capacity_counts_what_was_granted():
    office = Office(capacity=1, capacity_scope="process")
    office.wait("x.C!1")
    assert office.send("x.C!1")
    assert not office.send("x.C!2")


def test_what_has_expired_makes_room_in_a_shared_capacity():
    office = Office(capacity=2, expiry=10, capacity_scope="process")
    office.send("x.C!1", b"a")
    office.now += 5
    office.send("x.C!2", b"b")
    assert not office.send("x.C!3")
    office.now += 5
    assert office.send("x.C!3", b"c")
    assert not office.send("x.C!4")
    assert office.take_all("x.C!") == [b"b", b"c"]


def test_as_many_messages_go_from_a_shared_capacity_as_have_expired():
    office = Office(expiry=9.5, channel_capacity={"x.C!1": 1}, capacity_scope="process")
    for channel in ("x.C!2", "x.C!3"):
        office.send(channel, b"old")
    assert not office.send("x.C!1")
    office.now += 9.5
    assert office.send("x.C!1", b"new")
    assert office.take_all("x.C!") == [b"new"]


def test_a_flush_makes_room_in_a_shared_capacity():
    office = Office(capacity=2, capacity_scope="process")
    office.wait("x.C!1")
    assert [office.send("x.C!1"), office.send("x.C!2")] == [True, True]
    office.mailboxes.clear(office.now)
    assert [office.send(f"x.C!{n}") for n in range(3)] == [True, True, False]


def test_a_group_message_respects_a_shared_capacity():
    office = Office(capacity=2, capacity_scope="process")
    for number in range(3):
        office.add("group", f"x.C!{number}")
    office.fan_out("group", b"a")
    assert office.statistics()["dropped_count"]["full"] == 1
    assert office.take_all("x.C!0") == [b"a"]
    office.fan_out("group", b"b")
    assert [office.take(f"x.C!{number}") for number in range(3)] == [b"b", b"a", None]


def test_what_was_promised_room_takes_that_of_the_newest_copy():
    office = Office(capacity=3)
    office.add("group", "x.C!1")
    office.fan_out("group", b"a")
    office.accept("x.C!1", b"1")
    office.fan_out("group", b"b")
    office.accept("x.C!1", b"2")
    assert office.statistics("x.C!1")["dropped_count"]["full"] == 1
    assert office.statistics("x.C!1")["messages_pending"] == 3
    assert office.take_all("x.C!1") == [b"a", b"1", b"2"]


def test_what_was_promised_room_takes_that_of_no_direct_message():
    office = Office(capacity=2)
    for payload in (b"1", b"2", b"3"):
        office.accept("x.C!1", payload)
    assert office.take_all("x.C!1") == [b"1", b"2", b"3"]


def test_what_was_promised_room_takes_it_where_the_room_is_shared():
    office = Office(capacity=2, capacity_scope="process")
    for number in range(2):
        office.add("group", f"x.C!{number}")
    office.fan_out("group", b"a")
    office.accept("x.C!0", b"1")
    assert office.statistics()["dropped_count"]["full"] == 1
    assert office.take_all("x.C!") == [b"a", b"1"]
    office.accept("x.C!0", b"2")
    assert office.take_all("x.C!0", "x.C!1") == [b"2"]


def test_a_large_copy_that_made_room_frees_its_memory():
    office = Office(capacity=1, message_memory=LARGE)
    office.add("group", "x.C!1")
    office.fan_out("group", large(b"a"))
    office.accept("x.C!1", b"1")
    assert office.take_all("x.C!1") == [b"1"]
    assert office.send("jobs", large(b"b"))


# The weight of large messages


def test_large_messages_use_no_more_than_the_memory_for_messages():
    office = Office(message_memory=2 * LARGE)
    assert [office.send("jobs", large(b"a")) for _ in range(3)] == [True, True, False]
    with pytest.raises(ChannelFull):
        office.offer("other", large(b"b"))
    assert office.send("jobs", b"small")


@pytest.mark.parametrize("way", ["take", "flush", "expire", "slow", "end"])
def test_a_large_message_that_is_gone_frees_its_memory(way):
    office = Office(message_memory=LARGE, expiry=10)
    if way == "slow":
        place = office.wait("x.C!1")
    office.send("x.C!1", large(b"a"))
    assert not office.send("x.C!1", large(b"b"))
    if way == "take":
        assert office.receive("x.C!1") == large(b"a")
    elif way == "flush":
        office.mailboxes.clear(office.now)
    elif way == "expire":
        office.pass_time(11)
    elif way == "slow":
        office.resume_slowly(place)
    else:
        office.exchange.shut("C", office.now)
    assert office.send("x.C!1", large(b"c"))
    assert not office.send("x.C!1", large(b"d"))


def test_a_resumed_receiver_frees_the_memory_of_a_large_message():
    office = Office(message_memory=LARGE)
    waiter = office.receive("jobs")
    office.send("jobs", large(b"a"))
    assert office.resume("jobs", waiter) == large(b"a")
    assert office.send("jobs", large(b"b"))


def test_copies_of_a_group_message_weigh_once_and_until_the_last_is_gone():
    office = Office(message_memory=LARGE)
    for channel in ("a", "b"):
        office.add("group", channel)
    office.fan_out("group", large(b"x"))
    assert office.take("a") == large(b"x")
    assert not office.send("jobs", large(b"y"))
    assert office.take("b") == large(b"x")
    assert office.send("jobs", large(b"y"))


def test_a_large_group_message_without_members_weighs_nothing():
    office = Office(message_memory=LARGE)
    office.fan_out("group", large(b"x"))
    assert office.send("jobs", large(b"y"))


def test_members_miss_a_large_message_when_the_memory_is_used_up():
    office = Office(message_memory=LARGE)
    office.send("jobs", large(b"x"))
    office.add("group", "a")
    office.fan_out("group", large(b"y"))
    assert office.take("a") is None
    assert office.statistics("a")["dropped_count"]["full"] == 1
    office.fan_out("group", b"small")
    assert office.take("a") == b"small"


# Expiry


def test_unread_messages_expire_though_nobody_touches_their_channel():
    office = Office(expiry=10)
    office.send("jobs")
    office.pass_time(9)
    assert office.statistics()["messages_pending"] == 1
    office.pass_time(2)
    assert office.statistics()["messages_pending"] == 0
    assert office.statistics()["dropped_count"]["expired"] == 1


def test_each_message_expires_at_its_own_time():
    office = Office(expiry=10)
    for _ in range(3):
        office.send("jobs")
        office.pass_time(4)
    pending = [office.statistics()["messages_pending"]]
    for _ in range(2):
        office.pass_time(4)
        pending.append(office.statistics()["messages_pending"])
    assert pending == [2, 1, 0]


def test_a_busy_channel_does_not_keep_an_old_message_alive():
    office = Office(expiry=10, capacity=5)
    for number in range(30):
        assert office.send("jobs", b"%d" % number)
        office.pass_time(3)
    assert office.take_all("jobs") == [b"27", b"28", b"29"]


def test_every_message_is_delivered_dropped_or_pending():
    office = Office(expiry=10, capacity=4)
    taken = 0
    for number in range(60):
        office.send(f"jobs{number % 3}")
        office.pass_time(1)
        taken += number % 4 == 0 and office.take(f"jobs{number % 5}") is not None
    numbers = office.statistics()
    dropped = numbers["dropped_count"]["expired"]
    assert taken
    assert dropped
    assert numbers["messages_count"] == taken + dropped + numbers["messages_pending"]


def test_what_a_cancelled_receiver_gave_back_expires():
    office = Office(expiry=10)
    office.send("jobs")
    office.take("jobs")
    place = office.wait("jobs")
    office.pass_time(8)
    office.send("jobs")
    office.pass_time(3)
    office.leave(place)
    office.pass_time(1000)
    assert office.statistics()["messages_pending"] == 0
    assert not office.exchange.by_name


def test_what_was_granted_to_the_dead_expires():
    office = Office(expiry=10, capacity=1)
    dead = office.wait("jobs")
    office.send("jobs")
    office.lost.add(dead.waiter)
    office.pass_time(1000)
    assert office.statistics()["messages_pending"] == 0
    assert office.send("jobs")


def test_a_process_specific_channel_that_nobody_reads_leaves_its_groups_when_messages_expire():
    office = Office(expiry=10, idle=20)
    for channel in ("x.C!1", "x.C!2", "jobs"):
        office.add("group", channel)
    office.take("x.C!2")
    office.fan_out("group")
    office.pass_time(11)
    assert office.members("group") == ["x.C!2", "jobs"]


def test_a_channel_that_leaves_as_its_messages_expire_misses_the_next_message():
    office = Office(expiry=9.5, idle=20)
    office.add("group", "x.C!1")
    office.fan_out("group", b"a")
    office.now += 9.5
    office.fan_out("group", b"b")
    assert office.members("group") == []
    assert office.take("x.C!1") is None


def test_a_process_specific_channel_that_was_read_lately_stays_in_its_groups():
    office = Office(expiry=10, idle=20)
    office.take("x.C!1")
    office.pass_time(15)
    office.add("group", "x.C!1")
    office.fan_out("group")
    office.pass_time(4)
    office.add("group", "x.C!1")
    assert office.members("group") == ["x.C!1"]


def test_a_reader_of_the_family_reads_all_its_channels():
    office = Office(expiry=10, idle=20)
    office.add("group", "x.C!1")
    office.take("x.C!")
    office.fan_out("group")
    office.pass_time(11)
    assert office.members("group") == ["x.C!1"]
    office.pass_time(10)
    office.fan_out("group")
    office.pass_time(11)
    assert office.members("group") == []


def test_who_waits_for_the_family_reads_all_its_channels():
    office = Office(expiry=10, idle=20, group_expiry=5)
    office.add("group", "x.C!1")
    office.wait("x.C!")
    office.pass_time(100)
    assert office.members("group") == ["x.C!1"]
    mailbox = office.mailbox("x.C!1")
    assert office.mailboxes.is_read(mailbox, office.now)


# Memberships that last as long as their reader


@pytest.mark.parametrize("way", ["waits", "was woken", "reads now and then"])
def test_a_membership_lasts_while_its_channel_is_read(way):
    office = Office(expiry=1000, idle=20, group_expiry=10)
    office.add("group", "x.C!1")
    if way == "reads now and then":
        office.take("x.C!1")
    else:
        office.wait("x.C!1")
    if way == "was woken":
        office.offer("x.C!1")
    for _ in range(10):
        office.pass_time(15)
        if way == "reads now and then":
            office.take("x.C!1")
    assert office.members("group") == ["x.C!1"]


def test_a_membership_ends_when_its_reader_has_gone_for_long():
    office = Office(idle=20, group_expiry=10)
    office.add("group", "x.C!1")
    office.take("x.C!1")
    office.pass_time(29)
    assert office.members("group") == ["x.C!1"]
    office.pass_time(1)
    assert office.members("group") == []


def test_memberships_that_nobody_asks_for_end_too():
    office = Office(idle=20, group_expiry=10)
    office.add("group", "x.C!1")
    office.add("group", "jobs")
    office.pass_time(100)
    assert not office.exchange.by_name


def test_without_renewal_a_membership_ends_though_somebody_waits():
    office = Office(group_expiry=10, renew_memberships=False)
    office.add("group", "x.C!1")
    office.wait("x.C!1")
    office.now += 10
    assert office.members("group") == []


def test_a_normal_channel_is_not_renewed_by_its_reader():
    office = Office(group_expiry=10)
    office.add("group", "jobs")
    office.wait("jobs")
    office.now += 10
    assert office.members("group") == []


def test_a_channel_that_joins_after_it_was_read_has_a_live_reader():
    office = Office(expiry=10, idle=50)
    office.take("x.C!1")
    assert not office.exchange.by_name
    office.pass_time(5)
    office.add("group", "x.C!1")
    office.fan_out("group")
    office.pass_time(11)
    assert office.members("group") == ["x.C!1"]


def test_what_is_known_of_a_reader_is_forgotten_when_it_is_idle():
    office = Office(expiry=10, idle=20)
    office.take("x.C!1")
    office.pass_time(15)
    office.take("x.C!1")
    office.pass_time(100)
    office.add("group", "x.C!1")
    office.fan_out("group")
    office.pass_time(11)
    assert office.members("group") == []


# Coming and going


def test_a_mailbox_goes_with_its_last_reader():
    office = Office()
    first, second = office.wait("jobs"), office.wait("jobs")
    office.leave(first)
    assert "jobs" in office.exchange.by_name
    office.leave(second)
    assert not office.exchange.by_name


def test_a_mailbox_stays_while_somebody_was_woken():
    office = Office()
    first, second = office.receive("jobs"), office.wait("jobs")
    office.offer("jobs", b"a")
    office.leave(second)
    assert office.resume("jobs", first) == b"a"


def test_a_mailbox_stays_while_it_has_messages_or_groups():
    office = Office(idle=20, expiry=1000)
    office.send("message")
    office.add("group", "member")
    for channel in ("message", "member"):
        place, _ = office.exchange.join([channel], office.now)
        office.leave(place)
    office.send("message")
    office.pass_time(100)
    assert set(office.exchange.by_name) == {"message", "member"}
    office.discard("group", "member")
    assert set(office.exchange.by_name) == {"message"}


def test_a_message_between_joining_and_leaving_is_kept():
    office = Office()
    place = office.wait("jobs")
    office.offer("jobs", b"a")
    office.leave(place)
    assert office.take("jobs") == b"a"


def test_receivers_that_are_lost_are_forgotten_when_their_channel_is_idle():
    office = Office(idle=20)
    place = office.wait("a", "x.C!")
    office.lost.add(place.waiter)
    office.pass_time(100)
    assert list(office.mailboxes.lines()) == []


def test_a_flush_forgets_messages_and_groups_and_lets_receivers_wait_on():
    office = Office()
    place = office.wait("jobs")
    office.add("group", "jobs")
    for channel in ("other", "x.C!1"):
        office.send(channel)
    office.take("x.C!")
    office.mailboxes.clear(office.now)
    assert office.members("group") == []
    assert office.take_all("other", "x.C!1", "x.C!") == []
    office.offer("jobs", b"a")
    assert office.resume_slowly(place) == (place, b"a")


def test_a_flush_lets_go_of_what_a_family_held():
    office = Office()
    office.take("x.C!")
    office.send("x.C!1")
    family = office.mailbox("x.C!1").family
    office.mailboxes.clear(office.now)
    assert not family.arrivals
    assert family.pending == 0


def test_a_receiver_that_a_flush_robbed_of_its_message_gets_the_next():
    office = Office()
    waiter = office.receive("jobs")
    office.offer("jobs", b"a")
    office.mailboxes.clear(office.now)
    assert office.resume("jobs", waiter) is None
    place, payload = office.resume_slowly(office.exchange.place_of("jobs", waiter))
    assert payload is None
    office.offer("jobs", b"b")
    assert office.woken == [waiter, place.waiter]


def test_a_receiver_on_several_channels_that_a_flush_robbed_gets_the_next():
    office = Office()
    place = office.wait("a", "b")
    office.offer("a", b"a")
    office.mailboxes.clear(office.now)
    place, payload = office.resume_slowly(place)
    assert payload is None
    office.offer("b", b"b")
    assert office.woken[-1] == place.waiter


def test_a_receiver_waits_on_though_another_of_its_channels_went_meanwhile():
    office = Office(expiry=10)
    place = office.wait("a", "b")
    office.offer("a", b"a")
    office.add("group", "b")
    office.discard("group", "b")
    office.now += 10
    place, payload = office.resume_slowly(place)
    assert payload is None
    office.offer("b", b"b")
    assert office.woken[-1] == place.waiter


def test_polling_a_channel_leaves_no_mailbox():
    office = Office()
    before = all_mailboxes()
    for _ in range(1000):
        office.take("jobs")
        office.take("x.C!1")
        office.now += 0.01
    assert not office.exchange.by_name
    assert all_mailboxes() == before


def test_polling_a_channel_asks_for_one_look_at_it():
    office = Office(idle=20)
    for _ in range(1000):
        office.take("jobs")
        office.take("x.C!1")
        office.now += 0.05
        office.mailboxes.settle(office.now)
    assert sorted(looks(office)) == ["jobs", "x.C!1"]
    office.pass_time(50)
    assert looks(office) == []


def test_coming_and_going_leaves_nothing_once_it_is_idle():
    office = Office(expiry=10, idle=20)
    before = all_mailboxes()
    for number in range(1000):
        channel = f"x.C!{number}"
        office.add("group", channel)
        office.fan_out("group")
        office.take(channel)
        office.discard("group", channel)
        office.take(channel)
    office.pass_time(50)
    assert not office.exchange.by_name
    assert looks(office) == []
    assert all_mailboxes() == before


def all_mailboxes():
    gc.collect()
    return sum(type(each) is Mailbox for each in gc.get_objects())


def looks(office):
    """Return the names that somebody will look at, in case they are idle."""
    slots = office.mailboxes._idling._slots.values()
    return [name for slot in slots for name in slot] + office.mailboxes._due_idling


# Numbers


@pytest.mark.parametrize("what", ["sent", "refused", "dropped"])
@pytest.mark.parametrize("event", ["cancelled receive", "discard", "flush", "expiry"])
def test_a_channel_keeps_its_numbers_until_it_is_idle(what, event):
    office = Office(expiry=10, idle=20, capacity=1)
    office.add("group", "jobs")
    office.send("jobs")
    if what == "refused":
        office.send("jobs")
    if what == "dropped":
        office.fan_out("group")
    if event != "expiry":
        office.take("jobs")
    before = office.statistics("jobs")
    if event == "cancelled receive":
        office.take("jobs")
    elif event == "flush":
        office.mailboxes.clear(office.now)
    office.discard("group", "jobs")
    office.pass_time(15)
    for key in ("messages_count", "channel_full_count"):
        assert office.statistics("jobs")[key] == before[key]
    assert office.statistics("jobs")["dropped_count"]["full"] == (what == "dropped")
    office.pass_time(30)
    assert not office.exchange.by_name
    assert office.statistics("jobs")["messages_count"] == 0


@pytest.mark.parametrize("event", ["cancelled receive", "discard", "flush"])
def test_a_channel_that_never_carried_a_message_goes_at_once(event):
    office = Office()
    if event == "cancelled receive":
        office.take("jobs")
    else:
        office.add("group", "jobs")
    if event == "discard":
        office.discard("group", "jobs")
    elif event == "flush":
        office.mailboxes.clear(office.now)
    assert not office.exchange.by_name


def test_a_reason_is_logged_once_whoever_polls_the_channel():
    office = Office(capacity=1)
    for _ in range(5):
        office.add("group", "jobs")
        for _ in range(3):
            office.fan_out("group")
        office.take("jobs")
        office.discard("group", "jobs")
        office.take("jobs")
    assert office.exchange.unlogged == [("jobs", "full")]


# Receivers that can never resume


@pytest.mark.parametrize("line", ["jobs", "x.C!"])
def test_an_idle_check_finds_what_was_granted_to_the_dead(line):
    office = Office(expiry=1000, idle=20)
    channel = "x.C!1" if line == "x.C!" else line
    dead, heir = office.wait(line), office.wait(line)
    office.offer(channel, b"a")
    office.lost.add(dead.waiter)
    office.pass_time(25)
    assert office.exchange.heirs == [heir.waiter]
    assert office.resume_slowly(heir) == (heir, b"a")


def test_a_message_that_expires_is_not_kept_by_the_dead():
    office = Office(expiry=10)
    dead, heir = office.wait("jobs"), office.wait("jobs")
    office.offer("jobs", b"a")
    office.lost.add(dead.waiter)
    office.pass_time(12)
    assert office.exchange.heirs == [heir.waiter]
    heir, payload = office.resume_slowly(heir)
    assert payload is None
    assert office.statistics()["dropped_count"]["expired"] == 1
    office.offer("jobs", b"b")
    assert office.resume_slowly(heir) == (heir, b"b")


# The passing of time


def unread(office):
    return {name: box.unread for name, box in office.exchange.by_name.items() if box.unread}


def test_a_call_drops_a_few_of_the_messages_that_are_due():
    office = Office(expiry=10)
    for number in range(100):
        office.send(f"jobs{number}")
    office.now += 11
    office.mailboxes.beat(office.now)
    assert 0 < len(unread(office)) < 100
    assert office.mailboxes.next_beat <= office.now
    for _ in range(10):
        office.send("other")
    assert unread(office) == {"other": 10}
    assert office.mailboxes.next_beat > office.now


def test_a_call_ends_a_few_of_the_mailboxes_that_are_idle():
    office = Office(idle=10)
    for number in range(100):
        office.send(f"jobs{number}")
        office.take(f"jobs{number}")
    office.now += 21
    office.mailboxes.beat(office.now)
    assert 0 < len(office.exchange.by_name) < 100
    assert office.mailboxes.next_beat <= office.now
    for _ in range(10):
        office.send("other")
    assert set(office.exchange.by_name) == {"other"}
    assert office.mailboxes.next_beat > office.now


@pytest.mark.parametrize("call", ["offer", "fan_out", "wait"])
def test_any_call_under_the_lock_looks_at_what_is_due(call):
    office = Office(expiry=10)
    office.send("old")
    office.now += 11
    getattr(office, call)("other")
    assert "old" not in unread(office)


# Statistics


def test_statistics_of_all_channels():
    office = Office(expiry=60)
    office.send("a")
    office.now += 1.5
    office.send("b")
    office.wait("c")
    office.offer("c")
    office.now += 0.5
    numbers = office.statistics()
    assert (numbers["messages_count"], numbers["messages_pending"]) == (3, 3)
    assert numbers["messages_max_age"] == pytest.approx(2)
    assert office.statistics("b")["messages_max_age"] == pytest.approx(0.5)
    assert office.statistics("c")["messages_pending"] == 1


def test_statistics_of_nothing():
    office = Office()
    assert office.statistics() == office.statistics("jobs")
    assert office.statistics()["messages_max_age"] == 0
    place = office.wait("jobs")
    assert office.statistics("jobs") == office.statistics()
    office.leave(place)


def test_statistics_of_a_channel_leave_out_what_has_expired():
    office = Office(expiry=10)
    office.send("jobs")
    office.now += 10
    assert office.statistics("jobs")["messages_pending"] == 0
    assert office.statistics("jobs")["dropped_count"]["expired"] == 1


def test_a_rate_is_that_of_the_last_second():
    office = Office()
    for _ in range(10):
        office.send("jobs")
    assert office.statistics()["messages_count_per_second"] == 10
    office.now += 5
    assert office.statistics()["messages_count_per_second"] == 0
    assert office.statistics("jobs")["messages_count_per_second"] == 0
