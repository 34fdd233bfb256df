"""Two threads in the functions that take no lock: whoever was slower goes the long way round."""

from __future__ import annotations

from collections import deque

from hasty import interrupted
from office import Office

from channels_layers._core.mailbox import Mailbox


def office_with(*payloads, **options):
    """Return an office with messages on a channel that it may read, and the mailbox."""
    office = Office(**options)
    for payload in payloads:
        office.offer("jobs", payload)
    office.exchange.admit("jobs", office.now)
    return office, office.mailbox("jobs")


def test_a_sender_hands_its_message_to_who_got_in_line_at_that_moment():
    office, box = office_with(b"a")
    office.take("jobs")
    box = office.mailbox("jobs")
    box.letters = interrupted(deque(), lambda _: box.waiting.update(waiter=None), before="append")
    assert not office.try_offer("jobs", b"b")
    assert not box.letters
    office.offer("jobs", b"b")
    assert office.woken == ["waiter"]


def test_a_sender_is_content_when_somebody_has_its_message_already():
    office, box = office_with(b"a")

    def take_all(letters):
        letters.clear()
        box.waiting["waiter"] = None

    box.letters = interrupted(box.letters, take_all, after="append")
    assert office.try_offer("jobs", b"b")
    assert office.statistics("jobs")["messages_count"] == 2


def test_a_sender_takes_back_what_made_the_channel_too_full():
    office, box = office_with(b"a", capacity=20)
    others = [(office.now + 60, b"other", None)] * 19
    box.letters = interrupted(box.letters, lambda it: it.extend(others), before="append")
    assert not office.try_offer("jobs", b"b")
    assert len(box.letters) == 20
    assert not office.send("jobs", b"b")


def test_a_sender_takes_back_what_it_put_into_a_mailbox_that_has_gone():
    office, box = office_with(b"a")
    by_name = office.exchange.by_name
    box.letters = interrupted(box.letters, lambda _: by_name.clear(), before="append")
    assert not office.try_offer("jobs", b"b")
    assert len(box.letters) == 1


def test_a_sender_loses_nothing_where_another_sends_the_first_message_at_that_moment():
    office, box = office_with()

    class Hasty(Mailbox):
        """Gets its first message as somebody else has just looked at its queue."""

        __slots__ = ()

        @property
        def letters(self):
            found = Mailbox.letters.__get__(self)
            self.__class__ = Mailbox
            office.offer("jobs", b"a")
            return found

    office.take("other")  # looks at what is due, which the senders then need not
    box.is_expiring = True
    box.__class__ = Hasty
    office.send("jobs", b"b")
    assert office.take_all("jobs") == [b"a", b"b"]


def test_a_sender_takes_back_what_a_family_has_not_seen():
    office = Office()
    office.offer("x.C!1", b"a")
    box = office.mailbox("x.C!1")
    box.letters = interrupted(box.letters, lambda _: office.take("x.C!"), before="append")
    assert not office.try_offer("x.C!1", b"b")
    assert not box.letters
    office.offer("x.C!1", b"b")
    assert office.take("x.C!") == b"b"


def test_a_receiver_looks_closer_when_its_message_was_taken_at_that_moment():
    office, box = office_with(b"a")
    box.letters = interrupted(box.letters, deque.clear, before="popleft")
    assert office.exchange.receive("jobs", office.clock) is None


def test_a_receiver_looks_closer_when_a_message_came_as_it_got_in_line():
    office, box = office_with()
    letter = (office.now + 60, b"a", None)
    box.waiting = interrupted({}, lambda _: box._own_queue().append(letter), before="__setitem__")
    assert office.exchange.receive("jobs", office.clock) is None
    assert not box.waiting
    assert office.take("jobs") == b"a"


def test_a_receiver_waits_for_the_wake_that_is_under_way():
    office, box = office_with()

    def send_two(_):
        office.offer("jobs", b"a")
        office.offer("jobs", b"b")

    box.waiting = interrupted({}, send_two, after="__setitem__")
    waiter = office.exchange.receive("jobs", office.clock)
    assert office.woken == [waiter]
    assert office.resume("jobs", waiter) == b"a"


def test_a_receiver_leaves_the_line_of_a_mailbox_that_has_gone():
    office, box = office_with()
    by_name = office.exchange.by_name
    box.waiting = interrupted({}, lambda _: by_name.clear(), before="__setitem__")
    assert office.exchange.receive("jobs", office.clock) is None
    assert not box.waiting


def test_a_mailbox_stays_for_who_got_in_line_as_it_went():
    office, box = office_with()
    office.mailboxes.by_name = interrupted(
        office.exchange.by_name, lambda _: box.waiting.update(waits=None), before="__delitem__"
    )
    office.mailboxes.retire(box, office.now)
    assert office.mailboxes.by_name == {"jobs": box}


def test_a_message_that_was_taken_as_it_expired_is_not_counted_as_dropped():
    office, box = office_with(b"a", b"b", expiry=10)
    office.now += 10
    box.letters = interrupted(box.letters, deque.popleft, before="remove")
    assert office.mailboxes.drop_expired(box, office.now) == 1
    assert office.statistics("jobs")["dropped_count"]["expired"] == 1


def test_a_flush_passes_over_what_was_taken_at_that_moment():
    office, box = office_with(b"a", b"b")
    box.letters = interrupted(box.letters, deque.clear, before="popleft")
    box.granted = interrupted(
        {"one": (0.0, b"c", None), "two": (0.0, b"d", None)}, dict.clear, before="pop"
    )
    office.mailboxes.empty(box)
    assert box.unread == 0
