"""Who is in which group, and until when."""

from __future__ import annotations

from office import Office

from channels_layers._core.groups import Groups
from channels_layers._core.mailbox import Mailbox


def mailboxes(names):
    return [Mailbox(name, 1) for name in names]


def test_a_group_without_members_is_empty():
    groups = Groups()
    assert dict(groups.members("g")) == {}
    assert groups.of(Mailbox("a", 1)) == []


def test_members_stand_in_the_order_of_joining():
    groups = Groups()
    first, second, third = mailboxes("cab")
    for mailbox in (first, second, third):
        groups.add("g", mailbox, 10.0)
    assert list(groups.members("g")) == [first, second, third]


def test_adding_again_renews_and_doubles_nothing():
    groups = Groups()
    a, b = mailboxes("ab")
    groups.add("g", a, 10.0)
    groups.add("g", b, 10.0)
    groups.add("g", a, 20.0)
    assert groups.members("g") == {a: 20.0, b: 10.0}
    assert groups.of(a) == [("g", 20.0)]


def test_discarding_ends_one_membership_only():
    groups = Groups()
    a, b = mailboxes("ab")
    for group in ("g", "h"):
        groups.add(group, a, 10.0)
    groups.add("g", b, 10.0)
    groups.discard("g", a)
    assert groups.members("g") == {b: 10.0}
    assert groups.members("h") == {a: 10.0}
    assert groups.of(a) == [("h", 10.0)]


def test_discarding_where_there_is_nothing_changes_nothing():
    groups = Groups()
    a, b = mailboxes("ab")
    groups.discard("g", a)
    groups.add("g", b, 10.0)
    groups.discard("g", a)
    assert groups.members("g") == {b: 10.0}
    assert a.groups is None


def test_a_mailbox_that_leaves_its_last_group_has_none():
    groups = Groups()
    (a,) = mailboxes("a")
    groups.add("g", a, 10.0)
    groups.discard("g", a)
    assert a.groups is None
    assert dict(groups.members("g")) == {}


def test_a_group_that_its_last_member_left_is_forgotten():
    groups = Groups()
    (a,) = mailboxes("a")
    groups.add("g", a, 10.0)
    groups.discard("g", a)
    assert groups.members("g") is groups.members("never was")


def test_discard_all_ends_every_membership_of_one_mailbox():
    groups = Groups()
    a, b = mailboxes("ab")
    for group in ("g", "h", "i"):
        groups.add(group, a, 10.0)
    groups.add("h", b, 10.0)
    groups.discard_all(a)
    assert groups.of(a) == []
    assert groups.members("h") == {b: 10.0}
    groups.discard_all(a)
    assert a.groups is None


def test_what_ends_by_itself_is_noted_and_what_is_discarded_is_not():
    groups = Groups()
    (a,) = mailboxes("a")
    groups.ended = []
    for group in ("g", "h", "i"):
        groups.add(group, a, 10.0)
    groups.discard("g", a)
    assert groups.ended == []
    groups.end_all(a)
    assert sorted(groups.ended) == [("h", "a"), ("i", "a")]
    assert groups.of(a) == []


def test_nothing_is_noted_where_nobody_asks():
    groups = Groups()
    (a,) = mailboxes("a")
    groups.add("g", a, 10.0)
    groups.end("g", a)
    assert groups.ended is None
    assert dict(groups.members("g")) == {}


def backed_office(**options):
    office = Office(idle=300, **options)
    office.mailboxes.groups.ended = []
    return office


def test_an_end_is_noticed_in_time_though_nobody_looks():
    office = backed_office(group_expiry=2, renew_memberships=False)
    for group in ("g", "h"):
        office.add(group, "c.me!x")
    office.pass_time(1)
    assert office.exchange.take_ended() == []
    office.add("h", "c.me!x")
    office.pass_time(1)
    assert office.exchange.take_ended() == [("g", "c.me!x")]
    office.pass_time(1)
    assert office.exchange.take_ended() == [("h", "c.me!x")]


def test_an_end_is_noticed_in_time_also_when_it_is_far_away():
    office = backed_office(group_expiry=1000, renew_memberships=False)
    office.add("g", "c.me!x")
    office.pass_time(999)
    assert office.exchange.take_ended() == []
    office.pass_time(2)
    assert office.exchange.take_ended() == [("g", "c.me!x")]


def test_a_membership_that_its_reader_renews_does_not_end():
    office = backed_office(group_expiry=2)
    office.add("g", "c.me!x")
    office.wait("c.me!x")
    office.pass_time(10)
    assert office.exchange.take_ended() == []
    assert office.members("g") == ["c.me!x"]


def test_coming_and_going_leaves_one_thing_to_look_at():
    office = backed_office(group_expiry=2, renew_memberships=False)
    for _ in range(100):
        office.add("g", "c.me!x")
        office.discard("g", "c.me!x")
    assert len(office.mailboxes._ending.due(office.now + 10)) == 1
