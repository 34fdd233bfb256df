"""What a message may hold, and the path of what it may not."""

from __future__ import annotations

from collections import Counter, OrderedDict, namedtuple
from enum import Enum, IntEnum, StrEnum

import pytest

from channels_layers._core.messages import (
    MAX_DEPTH,
    MAX_INT,
    MIN_INT,
    has_large_int,
    is_plain,
    to_plain,
)
from channels_layers.errors import NotSerializable

Point = namedtuple("Point", "x y")
Text = type("Text", (str,), {"__str__": lambda _: "other"})
Number = type("Number", (int,), {"__int__": lambda _: 9})
Real = type("Real", (float,), {"__float__": lambda _: 9.0})
Octets = type("Octets", (bytes,), {"__bytes__": lambda _: b"other"})
Items = type("Items", (list,), {"__iter__": lambda _: iter([9])})
Table = type("Table", (dict,), {"items": lambda _: [("other", 9)]})
Colour = Enum("Colour", "RED")
Level = IntEnum("Level", "LOW")
Word = StrEnum("Word", "YES")

PLAIN = {
    "nothing": None,
    "truth": [True, False],
    "numbers": [0, -1, MAX_INT, MIN_INT, 1.5],
    "text": "ü",
    "octets": b"\0\xff",
    "deep": {"list": [{}, [], [[1]]]},
}


def nested(depth, kind=list):
    """Return a message that is `depth` containers deep, itself included."""
    value = kind()
    for _ in range(depth - 2):
        value = {"a": value} if kind is dict else kind([value])
    return {"a": value}


def test_a_plain_message_stays_as_it_is():
    assert is_plain(PLAIN)
    assert to_plain(PLAIN) == PLAIN
    assert is_plain({})
    assert to_plain({}) == {}


def test_what_comes_back_shares_no_container():
    message = {"a": [1], "b": {"c": 2}}
    plain = to_plain(message)
    message["a"].append(2)
    message["b"]["c"] = 3
    assert plain == {"a": [1], "b": {"c": 2}}


def test_a_tuple_becomes_a_list():
    assert is_plain({"a": (1, (2,))})
    assert to_plain({"a": (1, (2,))}) == {"a": [1, [2]]}


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (Text("a"), "a"),
        (Number(3), 3),
        (Real(1.5), 1.5),
        (Octets(b"a"), b"a"),
        (Items([1, 2]), [1, 2]),
        (Table(a=1), {"a": 1}),
        (Point(1, 2), [1, 2]),
        (OrderedDict(a=1), {"a": 1}),
        (Counter("aa"), {"a": 2}),
    ],
)
def test_a_subclass_becomes_its_base_type_whatever_it_says_of_itself(value, plain):
    assert not is_plain({"a": value})
    found = to_plain({"a": value})["a"]
    assert found == plain
    assert type(found) is type(plain)


def test_a_key_of_a_subclass_becomes_a_str():
    (key,) = to_plain({Text("a"): 1})
    assert type(key) is str
    assert key == "a"


@pytest.mark.parametrize(
    "value", [Colour.RED, Level.LOW, Word.YES, {1}, bytearray(b"a"), memoryview(b"a"), 1j, int]
)
def test_another_type_is_refused_with_its_path(value):
    with pytest.raises(NotSerializable) as caught:
        to_plain({"a": [0, {"b": value}]})
    assert caught.value.path == 'message["a"][1]["b"]'
    assert caught.value.type_name == type(value).__name__
    assert not is_plain({"a": [0, {"b": value}]})


@pytest.mark.parametrize("key", [1, None, b"a", ("a",), Word.YES])
def test_a_key_that_is_no_str_is_refused_with_the_path_of_its_dict(key):
    with pytest.raises(NotSerializable) as caught:
        to_plain({"a": {key: 1}})
    assert caught.value.path == 'message["a"]'
    assert repr(key) in caught.value.type_name


@pytest.mark.parametrize("message", [None, [], "a", [("a", 1)], 1])
def test_a_message_is_a_dict(message):
    with pytest.raises(NotSerializable) as caught:
        to_plain(message)
    assert (caught.value.path, caught.value.type_name) == ("message", type(message).__name__)


@pytest.mark.parametrize("number", [MAX_INT + 1, MIN_INT - 1, 2**64, Number(MAX_INT + 1)])
def test_an_int_has_64_bits(number):
    with pytest.raises(NotSerializable, match="more than 64 bits") as caught:
        to_plain({"a": number})
    assert caught.value.path == 'message["a"]'


def test_a_lone_surrogate_is_refused_in_values_and_keys():
    with pytest.raises(NotSerializable, match="surrogate") as caught:
        to_plain({"a": "\ud800"})
    assert caught.value.path == 'message["a"]'
    with pytest.raises(NotSerializable, match="surrogate") as caught:
        to_plain({"\ud800": 1})
    assert caught.value.path == "key of message"


@pytest.mark.parametrize("kind", [list, tuple, dict])
def test_a_message_is_nested_no_deeper_than_the_limit(kind):
    deepest, too_deep = nested(MAX_DEPTH, kind), nested(MAX_DEPTH + 1, kind)
    assert is_plain(deepest)
    to_plain(deepest)
    assert not is_plain(too_deep)
    with pytest.raises(NotSerializable, match=f"{kind.__name__} nested more than 128 deep"):
        to_plain(too_deep)


def test_a_message_that_holds_itself_is_nested_too_deep():
    message = {}
    message["a"] = [message]
    assert not is_plain(message)
    with pytest.raises(NotSerializable, match="nested"):
        to_plain(message)


@pytest.mark.parametrize("value", [MAX_INT, MIN_INT, 2.0**70, "9" * 30, None, True, {}, []])
def test_no_large_int(value):
    assert not has_large_int({"a": [value, (value,)], "b": {"c": value}})


@pytest.mark.parametrize(
    "message", [{"a": MAX_INT + 1}, {"a": [1, (2, MAX_INT + 1)]}, {"a": {"b": {"c": 2**64 - 1}}}]
)
def test_a_large_int_is_found_at_any_depth(message):
    assert has_large_int(message)
