"""Messages in hand for receivers that come back soon: which of them go where."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from channels_layers.redis._hand import Held
from channels_layers.redis._spares import Spares, patience_s


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def held(order):
    return Held(b"h%d" % order, "jobs", 60_000, order, b"", "1")


def spares_of(*orders, clock=None):
    spares = Spares(clock or Clock())
    assert spares.keep((0, "jobs"), [held(order) for order in orders])
    return spares


def test_receivers_that_come_back_soon_are_expected_until_one_does_not():
    clock = Clock()
    spares = Spares(clock)
    assert not spares.are_due("jobs")
    for seconds, is_due in ((0.0, True), (0.001, True), (0.1, False), (0.001, True)):
        spares.note_served("jobs")
        clock.now += seconds
        spares.note_back("jobs")
        assert spares.are_due("jobs") is is_due
    spares.note_back("jobs")  # one more, that was not served
    assert spares.are_due("jobs")


def test_names_that_are_served_are_remembered_within_bounds():
    spares = Spares(Clock())
    for number in range(5000):
        spares.note_served(f"jobs{number}")
        spares.note_back(f"jobs{number}")
    assert spares.are_due("jobs4999")
    assert len(spares._eager) <= 1024
    for number in range(5000):
        spares.note_served(f"jobs{number}")
    assert len(spares._served_at) <= 1024


def test_what_nobody_came_for_is_taken_once_and_nobody_is_expected_any_more():
    clock = Clock()
    spares = spares_of(1, 2, 3, clock=clock)
    spares.note_served("jobs")
    spares.note_back("jobs")
    batch = [held(order) for order in (1, 2, 3)]
    assert spares.take("jobs", 1) == (0, [held(1)])
    assert spares.keep((0, "jobs"), [held(4)])
    assert spares.take_of("jobs", batch) == [held(2), held(3)]
    assert not spares.are_due("jobs")
    assert spares.take_of("jobs", batch) == []
    assert spares.take("jobs", 5) == (0, [held(4)])
    assert spares.count("jobs") == 0
    assert spares.take_of("jobs", batch) == []


def test_messages_of_one_name_are_of_one_shard():
    spares = spares_of(1)
    assert not spares.keep((1, "jobs"), [held(2)])
    assert spares.keep((1, "others"), [held(3)])
    assert spares.take_newer((1, "jobs"), 0) == []
    spares.forget(1)
    assert (spares.count("jobs"), spares.count("others")) == (1, 0)
    assert spares.take_all() == [(0, [held(1)])]
    assert spares.take_all() == []


def test_what_others_gave_back_goes_before_what_is_newer():
    spares = spares_of(5, 6)
    assert spares.keep((0, "jobs"), [held(2), held(7)])
    assert spares.take("jobs", 4) == (0, [held(order) for order in (2, 5, 6, 7)])


def test_more_receivers_may_take_longer():
    assert patience_s([held(1)]) < patience_s([held(1), held(2)]) < 0.01


@given(st.lists(st.tuples(st.sampled_from("ktrn"), st.integers(1, 8))))
def test_each_message_is_taken_once_in_order(steps):
    spares, kept, last = Spares(Clock()), [], 0
    for what, many in steps:
        if what == "k":
            batch = [held(order) for order in range(last + 1, last + many + 1)]
            assert spares.keep((0, "jobs"), batch)
            kept += batch
            last += many
        elif what == "t" and kept:
            assert spares.take("jobs", many) == (0, kept[:many])
            del kept[:many]
        elif what == "r":
            assert spares.take_of("jobs", kept[many:]) == kept[many:]
            del kept[many:]
        else:
            newer = [one for one in kept if one.order > many]
            assert spares.take_newer((0, "jobs"), many) == newer
            kept = [one for one in kept if one not in newer]
        assert spares.count("jobs") == len(kept)
