"""Every error: what it says, what it carries, where it stands, and that it survives pickle."""

from __future__ import annotations

import copy
import importlib
import pickle
import sys

import channels.exceptions
import pytest

from channels_layers import errors
from channels_layers.errors import (
    BackendError,
    BackendTimeout,
    BackendUnavailable,
    ChannelFull,
    ChannelLayerError,
    ConfigurationError,
    ForeignChannel,
    InvalidName,
    LayerClosed,
    MessageTooLarge,
    NotSerializable,
    UnsupportedByBackend,
    UsageError,
)

# The error, its attributes, its bases besides ChannelLayerError, what it says.
TABLE = [
    (
        InvalidName("a b", "no spaces"),
        {"name": "a b", "rule": "no spaces"},
        (UsageError, TypeError),
        "'a b' is not a valid name: no spaces",
    ),
    (
        ForeignChannel("x.C!1"),
        {"channel": "x.C!1"},
        (UsageError, ValueError),
        "channel 'x.C!1' belongs to another live client; only it may receive there",
    ),
    (
        NotSerializable('message["a"]', "set"),
        {"path": 'message["a"]', "type_name": "set"},
        (UsageError, TypeError),
        'message["a"]: set cannot be sent; a message is a dict with str keys of None, bool,'
        " int (64 bit), float, str, bytes, list, tuple and dict",
    ),
    (
        MessageTooLarge(10, 5),
        {"size_bytes": 10, "limit_bytes": 5},
        (UsageError, ValueError, channels.exceptions.MessageTooLarge),
        "message of 10 bytes exceeds the limit of 5 bytes",
    ),
    (
        ConfigurationError("expiry", "must be positive"),
        {"field": "expiry", "problem": "must be positive"},
        (UsageError, ValueError),
        "expiry: must be positive",
    ),
    (
        UnsupportedByBackend("on_gap", "Memory"),
        {"what": "on_gap", "backend": "Memory"},
        (UsageError, NotImplementedError),
        "Memory does not support on_gap",
    ),
    (LayerClosed(), {}, (UsageError,), "the channel layer was closed"),
    (
        ChannelFull("jobs", 3),
        {"channel": "jobs", "capacity": 3},
        (channels.exceptions.ChannelFull,),
        "channel 'jobs' is full (capacity 3)",
    ),
    (BackendError("s1"), {"shard": "s1"}, (), "s1: failed"),
    (
        BackendUnavailable("s1"),
        {"shard": "s1"},
        (BackendError,),
        "s1: unavailable, nothing was done",
    ),
    (
        BackendTimeout("s1"),
        {"shard": "s1"},
        (BackendUnavailable,),
        "s1: no answer in time, it may have been done",
    ),
]
each = pytest.mark.parametrize(
    ("error", "attributes", "bases", "text"), TABLE, ids=lambda value: type(value).__name__
)
USAGE = {type(error) for error, *_ in TABLE if isinstance(error, UsageError)}
OUTSIDE = {BackendError, BackendUnavailable, BackendTimeout}


def defined(module):
    """Return the public errors of a module."""
    names = [name for name in vars(module) if not name.startswith("_")]
    kinds = [getattr(module, name) for name in names]
    return {kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Exception)}


def test_the_table_has_every_error():
    assert {type(error) for error, *_ in TABLE} | {ChannelLayerError, UsageError} == defined(errors)


@each
def test_what_it_says(error, attributes, bases, text):
    assert str(error) == text


@each
def test_what_it_carries(error, attributes, bases, text):
    assert vars(error) == attributes


@each
def test_where_it_stands(error, attributes, bases, text):
    for base in (ChannelLayerError, *bases):
        assert isinstance(error, base)


@each
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_it_survives_pickle(error, attributes, bases, text, protocol):
    again = pickle.loads(pickle.dumps(error, protocol))
    assert type(again) is type(error)
    assert vars(again) == attributes
    assert again.args == error.args
    assert str(again) == text


@each
def test_a_copy_is_alike(error, attributes, bases, text):
    assert vars(copy.copy(error)) == attributes
    assert str(copy.deepcopy(error)) == text


def test_whose_fault_it_is_tells_the_class():
    for kind in defined(errors) - {ChannelLayerError}:
        assert issubclass(kind, UsageError) == (kind in USAGE | {UsageError})
        assert issubclass(kind, BackendError) == (kind in OUTSIDE)


def test_a_timeout_may_be_caught_as_unavailable_and_not_the_other_way_round():
    assert issubclass(BackendTimeout, BackendUnavailable)
    assert not issubclass(BackendUnavailable, BackendTimeout)


def test_without_channels_the_errors_stand_alone(monkeypatch):
    monkeypatch.setitem(sys.modules, "channels.exceptions", None)
    spec = importlib.util.spec_from_file_location("errors_without_channels", errors.__file__)
    alone = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(alone)
    assert {kind.__name__ for kind in defined(alone)} == {kind.__name__ for kind in defined(errors)}
    assert str(alone.ChannelFull("jobs", 3)) == "channel 'jobs' is full (capacity 3)"
    assert not issubclass(alone.ChannelFull, channels.exceptions.ChannelFull)
    assert not issubclass(alone.MessageTooLarge, channels.exceptions.MessageTooLarge)
