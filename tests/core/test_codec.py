"""Messages to bytes and back: strict on the way out, and never more than a ValueError back."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import uuid
from enum import Enum, IntEnum, StrEnum

import ormsgpack
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from channels_layers._core.messages import MAX_DEPTH, MAX_INT, MIN_INT, to_plain
from channels_layers.codecs.msgpack import decode, encode
from channels_layers.errors import NotSerializable

Text = type("Text", (str,), {})
Table = type("Table", (dict,), {})
Colour = Enum("Colour", "RED")
Level = IntEnum("Level", "LOW")
Word = StrEnum("Word", "YES")
Record = dataclasses.make_dataclass("Record", ["x"])

FOREIGN = [
    datetime.datetime(2020, 1, 1),
    datetime.date(2020, 1, 1),
    datetime.time(1),
    datetime.timedelta(1),
    uuid.UUID(int=0),
    decimal.Decimal(1),
    Colour.RED,
    Level.LOW,
    Word.YES,
    Record(1),
    {1},
    frozenset(),
    bytearray(b"a"),
    memoryview(b"a"),
    1j,
    object(),
    ormsgpack.Ext(1, b"a"),
    ormsgpack.Fragment(ormsgpack.packb(1)),
    MAX_INT + 1,
    2**64 - 1,
    2**64,
    MIN_INT - 1,
    "\ud800",
]
PADDING = {"short": {}, "long": {"text": "x" * 200}, "octets": {"octets": b"\xcf\xc4"}}

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(MIN_INT, MAX_INT)
    | st.floats(allow_nan=False)
    | texts
    | st.binary(max_size=20)
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
messages = st.dictionaries(texts, values, max_size=5)


def same(one, other):
    """Say whether two values are equal in types too."""
    if type(one) is not type(other):
        return False
    if type(one) is dict:
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if type(one) is list:
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


@settings(max_examples=200, deadline=None)
@given(messages)
@example({"a": MAX_INT, "b": MIN_INT, "c": 2**32, "d": b"\xcf" * 300, "e": "\xcf" * 300})
def test_a_message_arrives_as_it_was_sent(message):
    assert same(decode(encode(message)), message)


@settings(max_examples=100, deadline=None)
@given(messages)
def test_a_message_with_subclasses_arrives_as_base_types(message):
    wrapped = Table({Text(key): value for key, value in message.items()})
    assert same(decode(encode(wrapped)), message)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60))
@example(b"")
@example(b"\xc1")
@example(b"\x81\xa1a" + b"\x91" * 3000 + b"\x90")
def test_random_bytes_are_a_message_or_a_value_error(payload):
    try:
        message = decode(payload)
    except ValueError:
        return
    assert type(message) is dict


@settings(max_examples=100, deadline=None)
@given(messages, st.data())
def test_a_message_cut_short_is_a_value_error(message, data):
    payload = encode(message)
    end = data.draw(st.integers(0, len(payload) - 1))
    with pytest.raises(ValueError, match="unexpected end of file"):
        decode(payload[:end])


@settings(max_examples=100, deadline=None)
@given(messages, st.data())
def test_a_spoiled_message_is_a_message_or_a_value_error(message, data):
    payload = bytearray(encode(message))
    place = data.draw(st.integers(0, len(payload) - 1))
    payload[place] = data.draw(st.integers(0, 255))
    try:
        found = decode(bytes(payload))
    except ValueError:
        return
    assert type(found) is dict


@pytest.mark.parametrize("padding", PADDING.values(), ids=PADDING)
@pytest.mark.parametrize("value", FOREIGN, ids=lambda value: type(value).__name__)
def test_a_foreign_value_is_refused_before_it_is_sent(value, padding):
    with pytest.raises(NotSerializable) as caught:
        encode({**padding, "a": [{"b": value}]})
    assert caught.value.path == 'message["a"][0]["b"]'


@pytest.mark.parametrize("padding", PADDING.values(), ids=PADDING)
@pytest.mark.parametrize("key", [1, None, b"a", Word.YES, Colour.RED, ("a",), 1.5])
def test_a_key_that_is_no_str_is_refused(key, padding):
    with pytest.raises(NotSerializable, match="key"):
        encode({**padding, "a": {key: 1}})


@pytest.mark.parametrize("message", [None, [], ["a"], "a", b"a", 1, (1,)])
def test_a_message_is_a_dict(message):
    with pytest.raises(NotSerializable):
        encode(message)


@pytest.mark.parametrize("size", [0, 1, 31, 32, 127, 128, 255, 256, 70_000])
def test_every_length_arrives(size):
    message = {"text": "\xcf" * size, "octets": b"\xcf" * size, "list": [1] * size}
    assert decode(encode(message)) == message


def test_the_limit_of_nesting_is_the_same_for_plain_messages_and_others():
    for kind in (dict, Table):
        message = kind()
        for _ in range(MAX_DEPTH - 1):
            message = kind(a=message)
        assert decode(encode(message)) == message
        with pytest.raises(NotSerializable, match="nested"):
            encode(kind(a=message))


def test_a_tuple_arrives_as_a_list():
    assert decode(encode({"a": (1, (2,))})) == {"a": [1, [2]]}


def test_the_sender_may_change_the_message_afterwards():
    message = {"a": [1]}
    payload = encode(message)
    message["a"].append(2)
    assert decode(payload) == {"a": [1]}


def test_each_decoding_gives_fresh_objects():
    payload = encode({"a": []})
    decode(payload)["a"].append(1)
    assert decode(payload) == {"a": []}


@settings(max_examples=100, deadline=None)
@given(messages)
def test_the_fast_way_and_the_thorough_one_agree(message):
    assert encode(message) == encode(to_plain(message))


@pytest.mark.parametrize(
    "payload",
    [
        ormsgpack.packb([1]),
        ormsgpack.packb("a"),
        ormsgpack.packb(None),
        b"\x81\x01\x02",  # a key that is an int
        b"\x81\xa1a\xd4\x01\x01",  # an extension type
        b"\x81\xa1\xff\x01",  # not UTF-8
    ],
)
def test_what_no_message_may_hold_is_not_decoded(payload):
    with pytest.raises(ValueError, match=r"expected a message|invalid|ext_hook"):
        decode(payload)
