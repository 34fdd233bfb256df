"""One channel: its queue, its line of receivers, and the two together in a family."""

from __future__ import annotations

from collections import deque

from hasty import interrupted

from channels_layers._core.mailbox import Family, Line, Mailbox, Place


def letter(name, expires_at=60.0):
    return (expires_at, name.encode(), None)


A, B, C = letter("a"), letter("b"), letter("c")


def mailbox(*waiters, capacity=100):
    box = Mailbox("jobs", capacity)
    box.waiting = dict.fromkeys(waiters)
    return box


def family(*names):
    """Return a family and a mailbox in it for each name."""
    members = [Mailbox(f"x.C!{name}", 100) for name in names]
    line = Family("x.C!")
    for member in members:
        member.family = line
    line.members = len(members)
    return line, *members


def get_in_line(waiter, *lines, since=0):
    place = Place(waiter, lines, since)
    for line in lines:
        line.waiting[waiter] = place
    return place


def test_who_has_waited_longest_is_first():
    line = Line("jobs")
    assert line.first() is None
    line.waiting = dict.fromkeys("cab")
    assert line.first() == "c"


def test_a_message_waits_where_nobody_does():
    box = mailbox()
    assert box.put(A) is None
    assert list(box.letters) == [A]
    assert box.unread == 1


def test_a_message_is_granted_to_the_first_in_line_and_stays_unread():
    box = mailbox("first", "second")
    assert box.put(A) == "first"
    assert box.granted == {"first": A}
    assert list(box.waiting) == ["second"]
    assert box.unread == 1
    assert not box.letters


def test_messages_are_granted_in_order():
    box = mailbox("first", "second")
    assert [box.put(one) for one in (A, B, C)] == ["first", "second", None]
    assert box.granted == {"first": A, "second": B}
    assert list(box.letters) == [C]


def test_a_message_behind_others_goes_to_nobody_before_them():
    box = mailbox()
    box.put(A)
    box.waiting["late"] = None
    assert box.put(B) == "late"
    assert box.granted == {"late": A}
    assert list(box.letters) == [B]


def test_a_receiver_in_several_lines_leaves_all_of_them_when_it_is_called():
    one, other = mailbox(), mailbox()
    place = get_in_line("both", one, other)
    assert one.put(A) == "both"
    assert not one.waiting
    assert not other.waiting
    assert place.mailbox is one
    assert other.put(B) is None


def test_nothing_is_granted_without_a_message_or_a_receiver():
    box = mailbox("waits")
    assert box.grant() is None
    assert list(box.waiting) == ["waits"]
    box = mailbox()
    box.put(A)
    assert box.grant() is None
    assert list(box.letters) == [A]


def test_empty_mailboxes_share_a_queue_that_nothing_is_put_into():
    one, other = mailbox(), mailbox("waits")
    assert one.letters is other.letters
    other.put(A)
    assert one.letters is other.letters
    one.put(A)
    assert one.letters is not other.letters
    assert not other.letters


def test_the_oldest_message_is_one_that_was_granted():
    box = mailbox("waits")
    assert box.oldest() is None
    box.put(A)
    box.put(B)
    assert box.oldest() == A
    del box.granted["waits"]
    assert box.oldest() == B


def test_a_message_that_is_taken_back_is_the_next_again():
    box = mailbox("gone")
    box.put(A)
    box.put(B)
    assert box.take_back("gone") is None
    assert not box.granted
    assert list(box.letters) == [A, B]


def test_a_message_that_is_taken_back_goes_to_who_waits_next():
    box = mailbox("gone", "next")
    box.put(A)
    assert box.take_back("gone") == "next"
    assert box.granted == {"next": A}


def test_those_who_were_woken_later_move_up():
    box = mailbox("gone", "second", "third", "fourth")
    for one in (A, B, C):
        box.put(one)
    assert box.take_back("gone") == "fourth"
    assert box.granted == {"second": A, "third": B, "fourth": C}
    assert list(box.granted) == ["second", "third", "fourth"]


def test_those_who_were_woken_before_keep_theirs():
    box = mailbox("first", "gone", "third")
    for one in (A, B, C):
        box.put(one)
    assert box.take_back("gone") is None
    assert box.granted == {"first": A, "third": B}
    assert list(box.letters) == [C]


def test_taking_back_from_who_has_nothing_changes_nothing():
    box = mailbox("waits", "other")
    box.put(A)
    assert box.take_back("other") is None
    assert box.take_back("waits") == "other"
    assert box.take_back("waits") is None
    assert box.granted == {"other": A}


def test_only_a_mailbox_of_its_own_with_room_is_filled_without_the_lock():
    box = mailbox()
    assert box.free_until == 0
    box.put(A)
    assert 0 < box.free_until < box.capacity
    staged = mailbox()
    staged.is_staging = True
    staged.put(A)
    _, member = family("1")
    member.put(A)
    assert staged.free_until == member.free_until == 0


def test_a_family_has_its_members_messages_in_order_of_arrival():
    line, one, two = family("1", "2")
    two.put(A)
    one.put(B)
    two.put(C)
    assert line.pending == 3
    taken = []
    while (box := line.front()) is not None:
        taken.append(box.letters.popleft())
    assert taken == [A, B, C]


def test_the_front_of_a_family_passes_over_what_has_left():
    line, one, two = family("1", "2")
    one.put(A)
    two.put(B)
    one.letters.popleft()
    assert line.front() is two
    assert line.front() is two
    two.letters.popleft()
    assert line.front() is None
    assert not line.arrivals


def test_a_message_that_is_taken_back_is_at_the_front_of_its_family():
    line, one, two = family("1", "2")
    get_in_line("gone", line)
    one.put(A)
    two.put(B)
    assert line.front() is two
    one.take_back("gone")
    assert line.front() is one


def test_who_waits_for_the_family_is_called_by_any_member():
    line, one, _two = family("1", "2")
    place = get_in_line("all", line)
    assert one.put(A) == "all"
    assert one.granted == {"all": A}
    assert place.mailbox is one
    assert not line.waiting


def test_readers_of_the_family_and_of_a_member_take_turns_by_who_waits_longest():
    line, one = family("1")
    get_in_line("all", line, since=2)
    get_in_line("one", one, since=1)
    get_in_line("late", one, since=3)
    assert [one.put(letter(str(n))) for n in range(4)] == ["one", "all", "late", None]


def test_who_waits_without_a_place_has_waited_longest():
    line, one = family("1")
    get_in_line("all", line, since=1)
    one.waiting["early"] = None
    assert [one.put(A), one.put(B)] == ["early", "all"]


def test_a_family_does_not_remember_all_that_has_left():
    line, one, two = family("1", "2")
    two.put(A)
    for _ in range(1000):
        one.put(letter("b"))
        one.letters.popleft()
        line.pending -= 1
    assert len(line.arrivals) < 100
    assert line.front() is two


def test_cleaning_a_family_keeps_the_order():
    line, one, two = family("1", "2")
    for number in range(200):
        (one, two)[number % 2].put(letter(str(number)))
        line.pending -= 1  # as if each had been taken
    kept = [entry[1] for entry in line.arrivals]
    assert kept == [letter(str(number)) for number in range(200)]


# Another thread is faster


def test_a_line_that_grows_while_it_is_looked_at_is_looked_at_again():
    line = Line("jobs")
    line.waiting = interrupted({"a": None}, lambda it: it.update(b=None), after="__iter__")
    assert line.first() == "a"


def test_a_message_waits_when_its_receiver_left_at_that_moment():
    box = mailbox()
    box.waiting = interrupted({"a": None}, dict.clear, before="pop")
    assert box.put(A) is None
    assert list(box.letters) == [A]


def test_a_message_waits_when_the_line_emptied_at_that_moment():
    box = mailbox()
    box.waiting = interrupted({"a": None}, dict.clear, before="__iter__")
    assert box.put(A) is None
    assert list(box.letters) == [A]


def test_a_message_is_handed_the_long_way_when_the_line_grew_at_that_moment():
    box = mailbox()
    box.waiting = interrupted({"a": None}, lambda it: it.pop("a"), after="__iter__")
    assert box.put(A) is None
    box.waiting = {"a": None}
    assert box.grant() == "a"


def test_a_receiver_that_left_when_it_was_called_is_passed_over():
    box = mailbox()
    box.put(A)
    box.waiting = interrupted({"a": None, "b": None}, lambda it: it.pop("a"), before="pop")
    assert box.grant() == "b"
    assert box.granted == {"b": A}


def test_a_receiver_that_left_before_it_was_called_is_passed_over():
    box = mailbox()
    box.put(A)
    box.waiting = interrupted({"a": None}, dict.clear, before="__contains__")
    assert box.grant() is None
    assert list(box.letters) == [A]


def test_a_receiver_looks_again_when_its_message_was_taken_at_that_moment():
    box = mailbox("a")
    box.letters = interrupted(deque([A]), deque.clear, before="popleft")
    assert box.grant() == "a"
    assert not box.granted
    assert not box.waiting


def test_a_receiver_that_resumes_while_another_is_taken_back_keeps_its_message():
    box = mailbox("gone", "resumes", "third")
    for one in (A, B, C):
        box.put(one)
    box.granted = interrupted(box.granted, lambda it: dict.pop(it, "resumes"), before="pop")
    assert box.take_back("gone") is None
    assert box.granted == {"third": A}
    assert list(box.letters) == [C]
