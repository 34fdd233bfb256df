"""Sending, receiving, waiting in line, groups and the end: the rules of one client."""

from __future__ import annotations

import pytest
from office import Office

from channels_layers._core.mailboxes import WEIGHED_BYTES
from channels_layers.errors import ChannelFull, InvalidName, MessageTooLarge


def send_numbers(office, channel, count):
    """Send numbered messages until there is no room; return those that were taken."""
    numbers = [str(number).encode() for number in range(count)]
    return [number for number in numbers if office.send(channel, number)]


# Sending


@pytest.mark.parametrize("capacity", [1, 2, 15, 16, 17, 63, 64, 65, 100, 200])
def test_a_channel_takes_exactly_its_capacity(capacity):
    office = Office(capacity=capacity)
    assert len(send_numbers(office, "jobs", capacity + 5)) == capacity
    assert office.statistics("jobs")["channel_full_count"] == 5
    assert office.statistics()["channel_full_count"] == 5
    assert office.statistics()["messages_count"] == capacity


def test_a_full_channel_says_which_it_is_and_what_it_holds():
    office = Office(channel_capacity={"jobs": 2})
    send_numbers(office, "jobs", 2)
    with pytest.raises(ChannelFull) as caught:
        office.offer("jobs")
    assert (caught.value.channel, caught.value.capacity) == ("jobs", 2)


def test_a_granted_message_takes_room_until_it_is_taken():
    office = Office(capacity=1)
    place = office.wait("jobs")
    office.offer("jobs", b"a")
    assert not office.send("jobs", b"b")
    assert office.resume_slowly(place) == (place, b"a")
    assert office.send("jobs", b"c")


def test_a_full_channel_leaves_others_alone():
    office = Office(capacity=1)
    assert office.send("specific.C!1")
    assert not office.send("specific.C!1")
    assert office.send("specific.C!2")


def test_most_messages_are_sent_without_the_lock():
    office = Office()
    assert not office.try_offer("jobs", b"a")
    office.offer("jobs", b"a")
    assert office.try_offer("jobs", b"b")
    assert office.take_all("jobs") == [b"a", b"b"]


def test_what_could_not_be_sent_without_the_lock_is_not_queued():
    office = Office()
    office.offer("jobs", b"a")
    assert not office.try_offer("jobs", b"x" * (WEIGHED_BYTES + 1))
    office.now += 1
    assert not office.try_offer("jobs", b"b")
    assert office.take_all("jobs") == [b"a"]


def test_a_message_whose_expiry_nobody_watches_takes_the_lock():
    office = Office(expiry=10)
    office.add("group", "jobs")
    office.offer("jobs", b"a")
    office.take("jobs")
    office.pass_time(11)
    assert not office.try_offer("jobs", b"b")
    office.offer("jobs", b"b")
    assert office.try_offer("jobs", b"c")
    assert office.take_all("jobs") == [b"b", b"c"]


def test_a_message_for_somebody_who_waits_takes_the_lock():
    office = Office()
    office.offer("jobs")
    office.take("jobs")
    place = office.wait("jobs")
    assert not office.try_offer("jobs")
    office.offer("jobs", b"a")
    assert office.woken == [place.waiter]


def test_a_count_is_right_whichever_way_messages_take():
    office = Office(capacity=300)
    for _ in range(5):
        send_numbers(office, "jobs", 50)
        office.now += 0.5
    assert office.statistics()["messages_count"] == 250
    assert office.statistics("jobs")["messages_count"] == 250
    assert office.mailbox("jobs").unread == 250
    assert office.statistics("jobs")["messages_count_per_second"] == pytest.approx(100, abs=50)


def test_a_rate_is_right_though_another_channel_began_the_second():
    office = Office()
    for _ in range(3):
        office.send("jobs")
    office.now += 2.5
    office.send("other")
    assert office.try_offer("jobs")
    assert office.statistics("jobs")["messages_count_per_second"] == 1


def test_a_sender_pauses_after_64_unread_messages():
    office = Office()
    assert not office.exchange.is_pause_due("jobs")
    due = []
    for number in range(1, 100):
        office.send("jobs")
        if office.exchange.is_pause_due("jobs"):
            due.append(number)
    assert due == [64]


@pytest.mark.parametrize("name", ["", "a b", "specific.C!", None])
def test_a_bad_name_is_refused(name):
    office = Office()
    with pytest.raises(InvalidName):
        office.offer(name)
    assert not office.exchange.by_name


@pytest.mark.parametrize("limit", [1, 100, WEIGHED_BYTES, WEIGHED_BYTES + 10])
def test_a_message_may_be_as_large_as_the_limit_and_no_larger(limit):
    office = Office(max_message_bytes=limit)
    office.offer("jobs", b"x" * limit)
    assert not office.try_offer("jobs", b"x" * (limit + 1))
    with pytest.raises(MessageTooLarge) as caught:
        office.offer("jobs", b"x" * (limit + 1))
    assert (caught.value.size_bytes, caught.value.limit_bytes) == (limit + 1, limit)
    assert office.take_all("jobs") == [b"x" * limit]


# Receiving


def test_messages_come_in_the_order_in_which_they_were_sent():
    office = Office()
    sent = send_numbers(office, "jobs", 90)
    assert office.take_all("jobs") == sent


def test_a_channel_must_be_admitted_before_it_is_served_without_the_lock():
    office = Office()
    office.offer("jobs", b"a")
    assert office.exchange.receive("jobs", office.clock) is None
    assert office.exchange.receive("other", office.clock) is None
    assert office.receive("jobs") == b"a"


def test_receivers_are_served_in_the_order_in_which_they_began_to_wait():
    office = Office()
    early = office.receive("jobs")
    place = office.wait("jobs")
    late = office.receive("jobs")
    for payload in (b"a", b"b", b"c"):
        office.offer("jobs", payload)
    assert office.woken == [early, place.waiter, late]
    assert office.resume("jobs", late) == b"c"
    assert office.resume("jobs", early) == b"a"
    assert office.resume_slowly(place) == (place, b"b")


def test_a_receiver_behind_one_that_was_woken_looks_closer():
    office = Office()
    early = office.receive("jobs")
    office.offer("jobs", b"a")
    office.offer("jobs", b"b")
    assert office.receive("jobs") is None
    late, payload = office.exchange.join(["jobs"], office.now)
    assert payload is None
    assert office.woken == [early, late.waiter]
    assert office.resume_slowly(late) == (late, b"b")
    assert office.resume("jobs", early) == b"a"


def test_one_receive_of_64_pauses_with_its_message_granted():
    office = Office(capacity=200)
    sent = send_numbers(office, "jobs", 128)
    found = [office.receive("jobs") for _ in range(63)]
    assert found == sent[:63]
    assert office.receive("jobs") is None
    place, payload = office.exchange.join(["jobs"], office.now)
    assert payload is None
    assert office.woken == [place.waiter]
    assert office.receive("jobs") is None
    assert office.resume_slowly(place) == (place, sent[63])
    assert office.receive("jobs") == sent[64]


def test_a_message_expires_at_its_end_and_not_before():
    office = Office(expiry=10)
    office.offer("jobs", b"a")
    office.offer("jobs", b"b")
    office.now += 9.99
    assert office.receive("jobs") == b"a"
    office.now += 0.01
    assert office.receive("jobs") is None
    assert office.take("jobs") is None
    assert office.statistics()["dropped_count"]["expired"] == 1


@pytest.mark.parametrize("is_slow", [False, True])
def test_a_message_that_expires_after_the_wake_is_not_delivered(is_slow):
    office = Office(expiry=10)
    waiter = office.wait("jobs").waiter if is_slow else office.receive("jobs")
    office.offer("jobs", b"a")
    office.now += 10
    assert office.resume("jobs", waiter) is None
    place, payload = office.resume_slowly(office.exchange.place_of("jobs", waiter))
    assert payload is None
    office.offer("jobs", b"b")
    assert office.woken == [waiter, place.waiter]
    assert office.resume_slowly(place) == (place, b"b")
    assert office.statistics()["dropped_count"]["expired"] == 1


def test_a_receiver_whose_message_expired_keeps_its_turn():
    office = Office(expiry=10)
    first, second = office.wait("jobs"), office.wait("jobs")
    office.offer("jobs", b"a")
    office.now += 10
    first, payload = office.resume_slowly(first)
    assert payload is None
    office.offer("jobs", b"b")
    assert office.woken[-1] == first.waiter
    office.offer("jobs", b"c")
    assert office.woken[-1] == second.waiter


def test_a_receiver_whose_message_expired_takes_the_next_that_has_not():
    office = Office(expiry=10)
    place = office.wait("jobs")
    office.offer("jobs", b"a")
    office.now += 5
    office.offer("jobs", b"b")
    office.now += 5
    again, payload = office.resume_slowly(place)
    assert payload == b"b"
    assert again.mailbox is office.mailbox("jobs")


def test_a_busy_channel_does_not_starve_a_quiet_one():
    office = Office()
    for number in range(20):
        office.send("busy", b"busy%d" % number)
    office.send("quiet", b"quiet")
    assert office.take("busy", "quiet") == b"busy0"
    assert office.take("busy", "quiet") == b"quiet"


def test_who_waits_on_several_channels_is_told_where_its_message_came_from():
    office = Office()
    place = office.wait("a", "b", "b")
    office.offer("b", b"x")
    assert office.resume_slowly(place) == (place, b"x")
    assert place.mailbox.name == "b"
    assert not office.mailbox("b").waiting


def test_who_waits_on_several_channels_takes_one_message_only():
    office = Office()
    place = office.wait("a", "b")
    office.offer("a", b"x")
    office.offer("b", b"y")
    assert office.woken == [place.waiter]
    assert office.take("b") == b"y"


def test_a_wake_without_a_message_lets_the_receiver_wait_on():
    office = Office()
    waiter = office.receive("jobs")
    assert office.resume("jobs", waiter) is None
    place, payload = office.resume_slowly(office.exchange.place_of("jobs", waiter))
    assert payload is None
    assert list(office.mailbox("jobs").waiting) == [place.waiter]


# Leaving


def test_a_cancelled_receiver_takes_nothing():
    office = Office()
    office.leave(office.wait("jobs"))
    office.offer("jobs", b"a")
    assert office.woken == []
    assert office.take("jobs") == b"a"


def test_the_message_of_a_cancelled_receiver_goes_to_the_next():
    office = Office()
    first, second = office.wait("jobs"), office.wait("jobs")
    office.offer("jobs", b"a")
    office.leave(first)
    assert office.woken == [first.waiter, second.waiter]
    assert office.resume_slowly(second) == (second, b"a")


def test_a_cancellation_disturbs_no_order():
    office = Office()
    first, second = office.receive("jobs"), office.receive("jobs")
    for payload in (b"a", b"b", b"c"):
        office.offer("jobs", payload)
    office.leave(office.exchange.place_of("jobs", first))
    assert office.resume("jobs", second) == b"a"
    assert office.take_all("jobs") == [b"b", b"c"]


def test_a_cancelled_receiver_leaves_every_line():
    office = Office()
    office.leave(office.wait("a", "b", "x.C!"))
    for channel in ("a", "b", "x.C!1"):
        office.offer(channel)
    assert office.woken == []


def test_the_place_on_a_channel_that_has_gone_is_known_by_name():
    office = Office()
    place = office.exchange.place_of("jobs", 1)
    assert [line.name for line in place.lines] == ["jobs"]
    assert office.exchange.leave(place, office.now) is None
    assert not office.exchange.by_name
    place, payload = office.resume_slowly(place)
    assert payload is None
    office.offer("jobs", b"a")
    assert office.woken == [place.waiter]
    assert office.resume_slowly(place) == (place, b"a")


# Receivers that can never resume


def test_what_was_granted_to_the_dead_goes_to_the_living():
    office = Office()
    dead, living = office.wait("jobs"), office.wait("jobs")
    office.offer("jobs", b"a")
    assert office.exchange.bury([dead.waiter]) == [living.waiter]
    assert office.resume_slowly(living) == (living, b"a")


def test_where_nobody_lives_a_message_of_the_dead_waits():
    office = Office()
    dead = office.wait("jobs")
    office.offer("jobs", b"a")
    assert office.exchange.bury([dead.waiter]) == []
    assert office.take("jobs") == b"a"


def test_who_joins_finds_the_message_of_the_dead():
    office = Office()
    dead = office.wait("jobs")
    living = office.receive("other")
    office.offer("jobs", b"a")
    office.offer("other", b"b")
    office.lost.add(dead.waiter)
    assert office.take("jobs", "other") == b"a"
    assert office.resume("other", living) == b"b"


@pytest.mark.parametrize("dead", ["x.C!", "x.C!1"])
@pytest.mark.parametrize("living", ["x.C!", "x.C!1", "x.C!2"])
@pytest.mark.parametrize("is_family_late", [False, True])
def test_who_joins_finds_what_any_channel_of_the_family_granted_to_the_dead(
    dead, living, is_family_late
):
    office = Office()
    if not is_family_late:
        office.take("x.C!")
    office.lost.add(office.wait(dead).waiter)
    office.offer("x.C!1", b"a")
    assert office.take(living) == (None if living == "x.C!2" else b"a")
    assert office.take("x.C!") == (b"a" if living == "x.C!2" else None)
    family = office.mailbox("x.C!1").family
    office.wait("x.C!")
    assert (family.pending, family.granting) == (0, set())


def test_what_a_lost_member_was_granted_is_found_though_it_has_left_the_group():
    office = Office()
    dead, living = office.wait("jobs"), office.wait("jobs")
    office.add("group", "jobs")
    office.fan_out("group", b"a")
    office.discard("group", "jobs")
    assert office.exchange.bury([dead.waiter]) == [living.waiter]


def test_who_sends_finds_the_heir_of_the_dead_though_there_is_no_room():
    office = Office(capacity=1)
    dead, heir = office.wait("jobs"), office.wait("jobs")
    office.offer("jobs", b"a")
    office.lost.add(dead.waiter)
    assert not office.send("jobs", b"b")
    assert office.exchange.heirs == [heir.waiter]
    assert office.resume_slowly(heir) == (heir, b"a")


def test_who_sends_lets_the_heir_of_the_dead_go_first():
    office = Office()
    dead, heir, third = (office.wait("jobs") for _ in range(3))
    office.offer("jobs", b"a")
    office.lost.add(dead.waiter)
    office.offer("jobs", b"b")
    assert office.resume_slowly(heir) == (heir, b"a")
    assert office.resume_slowly(third) == (third, b"b")


def test_what_was_granted_to_the_dead_makes_room_when_it_expires():
    office = Office(capacity=1, expiry=10)
    office.lost.add(office.wait("jobs").waiter)
    office.offer("jobs", b"a")
    office.now += 10
    assert office.send("jobs", b"b")
    assert office.take_all("jobs") == [b"b"]
    assert office.statistics("jobs")["dropped_count"]["expired"] == 1


def test_who_joins_finds_the_heir_of_the_dead():
    office = Office()
    dead, heir = office.wait("jobs"), office.wait("jobs")
    office.offer("jobs", b"a")
    office.lost.add(dead.waiter)
    office.wait("jobs")
    assert office.mailbox("jobs").granted.keys() == {heir.waiter}
    assert office.exchange.heirs == [heir.waiter]


# Groups


def test_a_group_message_goes_to_every_member_once():
    office = Office()
    for channel in ("a", "b", "a", "x.C!1"):
        office.add("group", channel)
    office.add("other", "c")
    office.fan_out("group", b"x")
    assert [office.take_all(name) for name in ("a", "b", "x.C!1", "c")] == [
        [b"x"],
        [b"x"],
        [b"x"],
        [],
    ]
    assert office.statistics()["messages_count"] == 3


def test_a_group_message_wakes_those_who_wait():
    office = Office()
    places = [office.wait(name) for name in ("a", "b", "c")]
    for name in ("b", "a", "d"):
        office.add("group", name)
    for _ in range(2):
        office.fan_out("group", b"x")
    assert office.woken == [places[1].waiter, places[0].waiter]
    assert office.mailbox("b").unread == office.mailbox("d").unread == 2


@pytest.mark.parametrize("is_slow", [False, True])
def test_a_group_message_wakes_who_waits_on_a_channel_that_had_messages(is_slow):
    office = Office()
    office.add("group", "jobs")
    office.fan_out("group", b"a")
    office.take("jobs")
    waiter = office.wait("jobs").waiter if is_slow else office.receive("jobs")
    office.fan_out("group", b"b")
    assert office.woken == [waiter]
    assert office.resume("jobs", waiter) == b"b"


def test_a_group_without_members_takes_any_message():
    office = Office()
    office.fan_out("group", b"x")
    office.fan_out("group", b"x" * (WEIGHED_BYTES + 1))
    assert office.statistics()["messages_count"] == 0


def test_direct_and_group_messages_of_one_writer_stay_in_order():
    office = Office()
    office.add("group", "jobs")
    for payload in (b"a", b"b", b"c", b"d"):
        if payload in (b"a", b"c"):
            office.send("jobs", payload)
        else:
            office.fan_out("group", payload)
    assert office.take_all("jobs") == [b"a", b"b", b"c", b"d"]


def test_a_full_member_misses_the_message_and_that_is_counted():
    office = Office(capacity=2)
    for channel in ("full", "room"):
        office.add("group", channel)
    send_numbers(office, "full", 2)
    office.fan_out("group", b"x")
    office.fan_out("group", b"y")
    assert office.take_all("room") == [b"x", b"y"]
    assert office.take_all("full") == [b"0", b"1"]
    assert office.statistics()["dropped_count"]["full"] == 2
    assert office.statistics("full")["dropped_count"]["full"] == 2
    assert office.statistics()["channel_full_count"] == 0


def test_the_first_drop_of_each_reason_is_to_be_logged():
    office = Office(capacity=1, expiry=10)
    office.add("group", "jobs")
    for _ in range(3):
        office.fan_out("group")
    office.now += 10
    office.take("jobs")
    assert office.exchange.unlogged == [("jobs", "full"), ("jobs", "expired")]


def test_what_has_expired_makes_room_for_a_group_message():
    office = Office(capacity=1, expiry=10)
    office.add("group", "jobs")
    office.fan_out("group", b"a")
    office.now += 10
    office.fan_out("group", b"b")
    assert office.take_all("jobs") == [b"b"]
    assert office.statistics()["dropped_count"] == {
        "full": 0,
        "expired": 1,
        "undecodable": 0,
        "gap": 0,
    }


def test_a_discarded_channel_misses_later_messages():
    office = Office()
    office.add("group", "a")
    office.add("group", "b")
    office.fan_out("group", b"x")
    office.discard("group", "a")
    office.discard("group", "nobody")
    office.discard("nothing", "b")
    office.fan_out("group", b"y")
    assert office.take_all("a") == [b"x"]
    assert office.take_all("b") == [b"x", b"y"]
    assert office.members("group") == ["b"]


def test_a_membership_of_a_normal_channel_ends_unless_it_is_renewed():
    office = Office(group_expiry=10)
    office.add("group", "a")
    office.add("group", "b")
    office.now += 5
    office.add("group", "b")
    office.now += 5
    office.fan_out("group", b"x")
    assert office.members("group") == ["b"]
    assert office.take("a") is None
    office.now += 5
    assert office.members("group") == []


def test_a_member_whose_expiry_nobody_watches_has_its_copy():
    office = Office(expiry=10)
    office.add("group", "a")
    office.fan_out("group", b"x")
    assert office.mailbox("a").is_expiring
    office.now += 5
    office.fan_out("group", b"y")
    assert office.take_all("a") == [b"x", b"y"]


# The end


def test_the_end_returns_everybody_who_waits_or_was_woken():
    office = Office()
    woken, several, family = office.wait("a"), office.wait("a", "b"), office.wait("x.C!")
    plain = office.receive("c")
    office.offer("a")
    waiters = office.exchange.shut("C", office.now)
    assert sorted(waiters) == sorted([woken.waiter, several.waiter, family.waiter, plain])
    assert not any(line.waiting for line in office.mailboxes.lines())


def test_the_end_keeps_what_is_not_the_client_s_own_in_order():
    office = Office()
    for _ in range(2):
        office.wait("jobs")
    for payload in (b"a", b"b", b"c"):
        office.offer("jobs", payload)
    office.offer("x.D!1", b"d")
    office.exchange.shut("C", office.now)
    assert office.take_all("jobs") == [b"a", b"b", b"c"]
    assert office.take_all("x.D!1") == [b"d"]


def test_the_end_keeps_the_numbers_of_what_is_not_the_client_s_own():
    office = Office()
    for channel in ("x.C!1", "jobs"):
        office.offer(channel)
        office.take(channel)
    office.exchange.shut("C", office.now)
    assert set(office.exchange.by_name) == {"jobs"}


def test_the_end_drops_messages_and_memberships_of_the_client_s_own():
    office = Office()
    for channel in ("x.C!1", "y.C!2", "jobs"):
        office.add("group", channel)
        office.offer(channel, b"a")
    office.wait("x.C!2")
    office.offer("x.C!2", b"b")
    office.exchange.shut("C", office.now)
    assert office.members("group") == ["jobs"]
    assert set(office.exchange.by_name) == {"jobs"}
    assert office.take("y.C!2") is None


def test_after_the_end_the_session_is_another():
    office = Office()
    session = office.exchange.session
    office.exchange.shut("C", office.now)
    assert office.exchange.session is not session


# With a backend


def test_a_message_of_the_backend_goes_to_who_waits_or_to_nobody():
    office = Office()
    assert office.exchange.hand("jobs", b"a", 10.0, office.now) is None
    place = office.wait("jobs")
    office.exchange.stage("jobs", office.now)
    assert office.exchange.hand("jobs", b"b", 10.0, office.now) == place.waiter
    assert office.exchange.hand("jobs", b"c", 10.0, office.now) is None
    assert office.resume_slowly(place) == (place, b"b")
    assert office.take("jobs") is None


def test_a_message_of_the_backend_lasts_as_long_as_the_backend_says():
    office = Office(expiry=10)
    place = office.wait("jobs")
    office.exchange.hand("jobs", b"a", 3.0, office.now)
    office.now += 3
    assert office.resume_slowly(place)[1] is None


def test_a_message_of_the_backend_reaches_who_waits_for_the_family():
    office = Office()
    place = office.wait("x.D!")
    assert office.exchange.hand("x.D!1", b"a", 10.0, office.now) == place.waiter
    assert office.mailbox("x.D!1").is_staging
    assert office.resume_slowly(place) == (place, b"a")
    assert place.mailbox.name == "x.D!1"
    assert office.exchange.hand("x.D!1", b"b", 10.0, office.now) is None
    assert office.take("x.D!") is None


def test_what_a_family_did_not_take_from_the_backend_leaves_nothing_behind():
    office = Office()
    office.take("x.D!")
    for _ in range(500):
        office.exchange.hand("x.D!1", b"a", 10.0, office.now)
    family = office.mailbox("x.D!1").family
    assert len(family.arrivals) < 100
    assert family.pending == 0


def test_ended_memberships_are_told_once_and_not_when_they_began_anew():
    office = Office(group_expiry=10)
    assert office.exchange.take_ended() == []
    office.add("group", "a")
    office.add("group", "b")
    office.now += 10
    assert office.members("group") == []
    office.add("group", "b")
    assert office.exchange.take_ended() == [("group", "a")]
    assert office.exchange.take_ended() == []


def test_what_a_receiver_left_behind_goes_back_with_the_time_it_has():
    office = Office()
    first, second = office.wait("jobs"), office.wait("jobs")
    office.exchange.stage("jobs", office.now)
    for payload, lifetime in ((b"a", 10.0), (b"b", 20.0)):
        office.exchange.hand("jobs", payload, lifetime, office.now)
    line = office.mailbox("jobs")
    office.leave(second)
    office.now += 1
    assert office.exchange.take_surplus(line, office.now) == [("jobs", [(b"b", 19.0)])]
    assert office.exchange.take_surplus(line, office.now) == []
    assert office.resume_slowly(first) == (first, b"a")


def test_what_a_reader_of_a_family_left_behind_goes_back_by_channel():
    office = Office()
    places = [office.wait("x.D!") for _ in range(3)]
    for channel, payload in (("x.D!1", b"a"), ("x.D!2", b"b"), ("x.D!1", b"c")):
        office.exchange.hand(channel, payload, 10.0, office.now)
    line = office.mailbox("x.D!1").family
    for place in reversed(places):
        office.leave(place)
    surplus = dict(office.exchange.take_surplus(line, office.now))
    assert surplus == {"x.D!1": [(b"a", 10.0), (b"c", 10.0)], "x.D!2": [(b"b", 10.0)]}
    assert line.pending == 0


def test_nothing_goes_back_while_somebody_waits():
    office = Office()
    office.offer("jobs", b"a")
    line = office.mailbox("jobs")
    line.waiting = {"waits": None}
    assert office.exchange.take_surplus(line, office.now) == []
