"""Things to look at later."""

from __future__ import annotations

from channels_layers._core.wheel import Wheel


def test_nothing_is_due_in_an_empty_wheel():
    assert Wheel().due(1e9) == []


def test_what_is_due_comes_out_once():
    wheel = Wheel()
    wheel.add("a", 5.0)
    assert wheel.due(5.0) == ["a"]
    assert wheel.due(6.0) == []


def test_nothing_comes_out_early():
    wheel = Wheel()
    wheel.add("a", 5.25)
    assert wheel.due(5.25) == []
    assert wheel.due(5.999) == []
    assert wheel.due(6.0) == ["a"]


def test_the_earlier_second_comes_out_first():
    wheel = Wheel()
    for name, at in (("c", 30.0), ("a", 10.0), ("b", 20.5), ("b2", 21.0)):
        wheel.add(name, at)
    assert wheel.due(9.0) == []
    assert wheel.due(25.0) == ["a", "b", "b2"]
    assert wheel.due(30.0) == ["c"]


def test_a_thing_may_be_added_twice_and_again_after_it_came_out():
    wheel = Wheel()
    wheel.add("a", 1.0)
    wheel.add("a", 2.0)
    assert wheel.due(1.0) == ["a"]
    wheel.add("a", 1.0)
    assert wheel.due(2.0) == ["a", "a"]
