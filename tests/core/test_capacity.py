"""Name patterns to capacities."""

from __future__ import annotations

import re
from types import MappingProxyType

import pytest

from channels_layers._core.capacity import Capacities
from channels_layers.errors import ConfigurationError


def test_without_patterns_every_channel_has_the_default():
    assert Capacities(7, None).of("jobs") == 7
    assert Capacities(7, {}).of("jobs") == 7


def test_the_first_pattern_that_matches_wins():
    capacities = Capacities(1, {"http.*": 2, "http.request": 3, re.compile("h"): 4})
    assert capacities.of("http.request") == 2
    assert capacities.of("hello") == 4
    assert capacities.of("jobs") == 1


def test_a_glob_matches_in_full_and_case_counts():
    capacities = Capacities(1, {"http.*": 2, "job?": 3, "[ab].c": 4})
    assert [capacities.of(name) for name in ("http.", "jobs", "a.c")] == [2, 3, 4]
    assert [capacities.of(name) for name in ("x.http.a", "HTTP.a", "jobs2", "d.c")] == [1] * 4


def test_a_compiled_pattern_matches_from_the_start():
    capacities = Capacities(1, {re.compile(r"specific\.\w+!"): 2})
    assert capacities.of("specific.C!1") == 2
    assert capacities.of("a.specific.C!1") == 1


def test_any_mapping_will_do():
    assert Capacities(1, MappingProxyType({"a": 2})).of("a") == 2


def test_a_later_change_of_the_mapping_has_no_effect():
    patterns = {"a": 2}
    capacities = Capacities(1, patterns)
    patterns["a"] = 3
    assert capacities.of("a") == 2


@pytest.mark.parametrize("wrong", [0, -1, 1.5, "1", None, True])
def test_a_capacity_is_a_whole_number_from_one(wrong):
    with pytest.raises(ConfigurationError) as caught:
        Capacities(wrong, None)
    assert caught.value.field == "capacity"
    with pytest.raises(ConfigurationError) as caught:
        Capacities(1, {"a": wrong})
    assert caught.value.field == "channel_capacity['a']"


@pytest.mark.parametrize("wrong", [[("a", 1)], "a", 1, {1: 1}, {None: 1}, {re.compile(b"a"): 1}])
def test_patterns_are_globs_or_compiled_patterns_of_str(wrong):
    with pytest.raises(ConfigurationError) as caught:
        Capacities(1, wrong)
    assert caught.value.field == "channel_capacity"
