"""Whom a receiver of several channels asks first, while something waits for it here."""

from __future__ import annotations

from channels_layers._core.patience import Patience


def names(asking):
    return None if asking is None else set(asking.names)


def test_who_was_served_last_is_not_asked():
    assert Patience().asking({"jobs": 7}, last_served=7, now=0.0) is None


def test_who_was_never_served_is_asked_as_soon_as_another_was():
    patience = Patience()
    assert patience.asking({"jobs": 0}, last_served=0, now=0.0) is None
    assert names(patience.asking({"jobs": 0}, last_served=1, now=0.0)) == {"jobs"}


def test_asking_in_vain_takes_a_small_part_of_the_time():
    patience = Patience()
    asking = patience.asking({"jobs": 0}, last_served=1, now=0.0)
    patience.note(asking, None, began_at=0.0, now=0.5)
    assert patience.asking({"jobs": 0}, last_served=9, now=5.0) is None
    assert names(patience.asking({"jobs": 0}, last_served=9, now=5.5)) == {"jobs"}


def test_who_had_something_is_asked_at_once_again_and_alone():
    patience = Patience()
    asking = patience.asking({"a": 0, "b": 0}, last_served=1, now=0.0)
    assert names(asking) == {"a", "b"}
    patience.note(asking, "a", began_at=0.0, now=0.5)
    assert names(patience.asking({"a": 2, "b": 0}, last_served=3, now=0.5)) == {"b"}
    assert names(patience.asking({"a": 2, "b": 3}, last_served=4, now=0.5)) == {"a"}


def test_who_was_passed_over_is_the_only_one_to_be_waited_for():
    patience = Patience()
    asking = patience.asking({"jobs": 0}, last_served=1, now=0.0)
    assert not asking.is_alone
    patience.note(asking, "other", began_at=0.0, now=0.5)
    again = patience.asking({"jobs": 0}, last_served=2, now=0.5)
    assert again.is_alone
    patience.note(again, "jobs", began_at=0.5, now=1.0)
    assert not patience.asking({"jobs": 3}, last_served=4, now=1.0).is_alone
