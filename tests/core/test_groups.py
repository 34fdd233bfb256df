"""Who is in which group, and until when."""

from __future__ import annotations

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
