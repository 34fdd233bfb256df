"""The options of every layer: what they become, and that a wrong one is named."""

from __future__ import annotations

import dataclasses
import math
import re

import pytest

from channels_layers.errors import ConfigurationError
from channels_layers.options import LayerOptions

NO_SECONDS = (0, -1, 0.0004, 1.1e9, math.nan, math.inf, -math.inf, "1", None, True, 10**400)
NO_BYTES = (0, -1, 1.5, "1", None, True)
WRONG = {
    "expiry": NO_SECONDS,
    "group_expiry": NO_SECONDS,
    "timeout": NO_SECONDS,
    "lease": NO_SECONDS,
    "idle": tuple(value for value in NO_SECONDS if value is not None),
    "capacity": (0, -1, 1.5, "1", None, True),
    "channel_capacity": ([("a", 1)], "a", {1: 1}, {re.compile(b"a"): 1}),
    "capacity_scope": ("", "Channel", None, 1, []),
    "renew_memberships": (None, 0, 1, "yes"),
    "on_gap": ("", 1, b"gap", [], False),
    "max_message_bytes": NO_BYTES,
    "message_memory": NO_BYTES,
}


def test_the_table_has_every_option():
    assert WRONG.keys() == {field.name for field in dataclasses.fields(LayerOptions)}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        pytest.param(field, value, id=f"{field}={value!r:.20}")
        for field, wrong in WRONG.items()
        for value in wrong
    ],
)
def test_a_wrong_value_is_an_error_that_names_the_option(field, value):
    with pytest.raises(ConfigurationError) as caught:
        LayerOptions(**{field: value})
    assert caught.value.field == field
    assert str(caught.value).startswith(f"{field}: ")


def test_a_wrong_capacity_of_a_pattern_names_the_pattern():
    with pytest.raises(ConfigurationError) as caught:
        LayerOptions(channel_capacity={"a": 1, "b.*": 0})
    assert caught.value.field == "channel_capacity['b.*']"


def test_an_unknown_option_is_an_error_that_names_it():
    with pytest.raises(TypeError, match="capcity"):
        LayerOptions(capcity=1)


def test_options_are_named_and_do_not_change():
    with pytest.raises(TypeError):
        LayerOptions(60)
    with pytest.raises(dataclasses.FrozenInstanceError):
        LayerOptions().expiry = 1


def test_the_defaults_are_those_of_the_contract():
    options = LayerOptions()
    assert (options.expiry, options.group_expiry, options.capacity) == (60, 86_400, 100)
    assert (options.timeout, options.lease) == (5, 10)
    assert (options.capacity_scope, options.channel_capacity) == ("channel", None)
    assert (options.renew_memberships, options.on_gap) == (True, None)
    assert options.max_message_bytes == 4 * 1024 * 1024


@pytest.mark.parametrize(
    ("options", "idle"),
    [({}, 300), ({"expiry": 0.5}, 300), ({"expiry": 200}, 600), ({"idle": 1, "expiry": 200}, 1)],
)
def test_a_channel_is_idle_after_three_expiries_and_no_less_than_five_minutes(options, idle):
    assert LayerOptions(**options).rules().idle == idle


def test_every_option_of_queues_and_groups_reaches_the_rules():
    rules = LayerOptions(
        expiry=1,
        group_expiry=2.5,
        capacity=3,
        channel_capacity={"a": 4},
        capacity_scope="process",
        renew_memberships=False,
        max_message_bytes=5,
        idle=6,
        message_memory=7,
    ).rules()
    assert (rules.expiry, rules.group_expiry, rules.idle) == (1, 2.5, 6)
    assert (rules.capacities.of("a"), rules.capacities.of("b")) == (4, 3)
    assert (rules.shares_capacity, rules.renews_memberships) == (True, False)
    assert (rules.max_message_bytes, rules.message_memory) == (5, 7)


def test_the_letter_of_the_specification_takes_a_switch():
    assert not LayerOptions().rules().shares_capacity
    assert LayerOptions().rules().renews_memberships
