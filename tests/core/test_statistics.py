"""Counters and rates."""

from __future__ import annotations

from collections import Counter

import pytest

from channels_layers._core.statistics import Dropped, Tally, add_up, statistics_of


def statistics(messages=0, pending=0, age=0.0, refused=0, now=1000.5, **dropped):
    accepted, full = Tally(), Tally()
    accepted.add(messages, now)
    full.add(refused, now)
    reasons = Counter({Dropped(reason): count for reason, count in dropped.items()})
    return statistics_of(accepted, full, reasons, pending=pending, max_age=age, now=now)


def test_a_tally_that_counted_nothing_has_no_rate():
    assert Tally().total == 0
    assert Tally().per_second(1000.0) == 0


def test_a_total_never_goes_down():
    tally = Tally()
    for now in (1000.0, 1000.5, 1001.0, 1005.0):
        tally.add(2, now)
    assert tally.total == 8


@pytest.mark.parametrize(
    ("now", "rate"), [(1000.75, 8), (1001.0, 8), (1001.25, 6), (1001.75, 2), (1002.0, 0)]
)
def test_a_rate_fades_by_the_share_of_the_second_before(now, rate):
    tally = Tally()
    tally.add(8, 1000.25)
    assert tally.per_second(now) == pytest.approx(rate)


def test_a_rate_forgets_all_but_the_second_before():
    tally = Tally()
    tally.add(8, 1000.0)
    tally.add(3, 1001.5)
    assert tally.per_second(1001.5) == pytest.approx(3 + 8 * 0.5)
    assert tally.per_second(1002.25) == pytest.approx(3 * 0.75)
    assert tally.per_second(1009.0) == 0


def test_after_a_quiet_second_nothing_is_left_of_the_one_before():
    tally = Tally()
    tally.add(8, 1000.0)
    tally.add(1, 1002.5)
    assert tally.per_second(1002.5) == 1


def test_statistics_have_each_reason_and_all_keys():
    assert statistics(5, pending=2, age=1.5, refused=3, expired=4) == {
        "messages_count": 5,
        "messages_count_per_second": 5,
        "messages_pending": 2,
        "messages_max_age": 1.5,
        "channel_full_count": 3,
        "channel_full_count_per_second": 3,
        "dropped_count": {"full": 0, "expired": 4, "undecodable": 0, "gap": 0},
    }


def test_the_reasons_are_plain_str_keys():
    assert {type(reason) for reason in statistics()["dropped_count"]} == {str}


def test_statistics_of_several_clients_add_up_but_for_ages():
    total = add_up(
        [
            statistics(5, pending=2, age=1.5, refused=3, expired=4, full=1),
            statistics(7, pending=1, age=2.5, refused=1, expired=1, gap=2),
        ]
    )
    assert total == statistics(12, pending=3, age=2.5, refused=4, expired=5, full=1, gap=2)


def test_statistics_of_nobody_are_all_zero():
    assert add_up([]) == statistics()
