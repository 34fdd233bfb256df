"""Which names are allowed, and what can be read from them."""

from __future__ import annotations

import pytest

from channels_layers._core.names import (
    MAX_NAME,
    MAX_PREFIX,
    check_channel,
    check_group,
    check_prefix,
    client_of,
    non_local_part,
)
from channels_layers.errors import InvalidName

GOOD_TEXTS = ("a", "0", "-", "_", ".", "http.request", "Room_7-b", "x" * MAX_NAME)
BAD_TEXTS = ("", "a b", "a\n", "\na", "é", "\uff11", "a/b", "a:b", "a\0", "x" * (MAX_NAME + 1))


@pytest.mark.parametrize("name", [*GOOD_TEXTS, "http.body?a1b2", "specific.C!1", "a!b.c"])
def test_channel_names(name):
    assert check_channel(name) == name


@pytest.mark.parametrize("name", [*BAD_TEXTS, "a!b!c", "a?b?c", "a!b?c", "a?b!c", "a!!"])
def test_a_bad_channel_name_is_a_type_error_that_shows_name_and_rule(name):
    with pytest.raises(InvalidName) as caught:
        check_channel(name, receiving=True)
    assert isinstance(caught.value, TypeError)
    assert caught.value.name == name
    assert repr(name) in str(caught.value)
    assert caught.value.rule in str(caught.value)


@pytest.mark.parametrize("name", [None, 1, b"a", ["a"], object()])
@pytest.mark.parametrize("check", [check_channel, check_group, check_prefix])
def test_a_name_is_a_str(check, name):
    with pytest.raises(InvalidName, match=type(name).__name__):
        check(name)


def test_only_a_receiver_may_name_a_non_local_part():
    assert check_channel("specific.C!", receiving=True) == "specific.C!"
    with pytest.raises(InvalidName, match="only in receive"):
        check_channel("specific.C!")


@pytest.mark.parametrize("receiving", [False, True])
def test_no_channel_name_ends_in_a_question_mark(receiving):
    with pytest.raises(InvalidName, match=r"may not end in '\?'"):
        check_channel("body?", receiving=receiving)


@pytest.mark.parametrize("name", GOOD_TEXTS)
def test_group_names(name):
    assert check_group(name) == name


@pytest.mark.parametrize("name", [*BAD_TEXTS, "a!b", "a?b", "a!", "a?"])
def test_a_group_name_has_no_marks(name):
    with pytest.raises(InvalidName):
        check_group(name)


@pytest.mark.parametrize("name", ["specific", "http.body?", "x" * MAX_PREFIX])
def test_prefixes(name):
    assert check_prefix(name) == name


@pytest.mark.parametrize("name", ["", "?", "a!", "a?b", "a??", "é", "x" * (MAX_PREFIX + 1)])
def test_a_bad_prefix(name):
    with pytest.raises(InvalidName):
        check_prefix(name)


@pytest.mark.parametrize(("length", "longest"), [(MAX_NAME + 1, 100), (0, 100)])
def test_the_error_tells_how_long_a_name_may_be(length, longest):
    with pytest.raises(InvalidName, match=f"1 to {longest} characters.* has {length}"):
        check_channel("x" * length)


def test_a_subclass_of_str_becomes_a_str_whatever_it_says_of_itself():
    class Liar(str):
        __slots__ = ()

        def __str__(self):
            return "other"

    name = check_channel(Liar("jobs"))
    assert type(name) is str
    assert name == "jobs"


@pytest.mark.parametrize(
    ("channel", "prefix", "client"),
    [
        ("jobs", None, None),
        ("http.body?C.1", None, None),
        ("specific.C!1", "specific.C!", "C"),
        ("specific.C!", "specific.C!", "C"),
        ("a.b.C!d.e", "a.b.C!", "C"),
        ("C!1", "C!", "C"),
        ("a.!1", "a.!", ""),
    ],
)
def test_parts_of_a_name(channel, prefix, client):
    assert non_local_part(channel) == prefix
    assert client_of(channel) == client
