"""The messages that the benchmarks send, and what no message may hold."""

from __future__ import annotations

import uuid
from collections import OrderedDict, namedtuple
from datetime import datetime
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Any

# What a chat sends: flat, 107 bytes as MessagePack.
SMALL: dict[str, Any] = {
    "type": "chat.message",
    "room": "lobby",
    "user": "ada.lovelace",
    "text": "Good morning! Shall we begin at ten?",
    "number": 12345,
    "edited": False,
}

# What an interface server sends: a scope with lists of pairs of bytes.
NESTED: dict[str, Any] = {
    "type": "http.request",
    "path": "/rooms/lobby",
    "headers": [[b"host", b"example.org"], [b"accept", b"*/*"], [b"x-request-id", b"a1b2c3d4"]],
    "client": ["192.0.2.7", 51234],
    "state": {"user": {"id": 42, "name": "ada", "roles": ["editor", "author"]}, "score": 0.75},
}

# 100 KB in two kinds: one long text, and a thousand records.
TEXT: dict[str, Any] = {"type": "file.part", "text": "abcdefghij" * 10_000}
RECORDS: dict[str, Any] = {
    "type": "table.rows",
    "rows": [
        {"id": i, "name": f"row number {i}", "tags": ["red", "blue"], "price": i * 0.25,
         "note": "nothing to say about this one"}
        for i in range(1, 1001)
    ],
}  # fmt: skip

MESSAGES = {"small": SMALL, "nested": NESTED, "100 KB text": TEXT, "100 KB records": RECORDS}


class Colour(Enum):
    """An enumeration with str values."""

    RED = "red"


class Level(IntEnum):
    """An enumeration whose members are ints."""

    LOW = 1


class Marked(str):
    """A subclass of str, as Django's SafeString is."""


Point = namedtuple("Point", "x y")

REFUSED = "refused"  # what the contract wants: an error at the sender
BASE_TYPE = "as base type"  # what the contract wants: arrives as the type it derives from


def nested(depth: int) -> dict[str, Any]:
    """Return a message with `depth` containers inside one another, itself included."""
    inner: list[Any] = []
    for _ in range(depth - 2):
        inner = [inner]
    return {"v": inner}


def odd_messages() -> dict[str, tuple[Any, str]]:
    """Return messages of doubtful types by name, each with what the contract wants of it."""
    refused = {
        "datetime": datetime(2024, 5, 17, 12, 30),
        "UUID": uuid.UUID(int=7),
        "set": {1, 2},
        "Decimal": Decimal("1.5"),
        "Enum": Colour.RED,
        "IntEnum": Level.LOW,
        "bytearray": bytearray(b"abc"),
        "memoryview": memoryview(b"abc"),
        "2**63": 2**63,
        "-2**63 - 1": -(2**63) - 1,
        "lone surrogate": "\ud800",
    }
    kept = {
        "str subclass": Marked("hello"),
        "dict subclass": OrderedDict(a=1),
        "namedtuple": Point(1, 2),
        "tuple": (1, 2),
    }
    messages: dict[str, tuple[Any, str]] = {}
    messages |= {name: ({"v": value}, REFUSED) for name, value in refused.items()}
    messages["int key"] = ({"v": {1: "one"}}, REFUSED)
    messages["depth 129"] = (nested(129), REFUSED)
    messages |= {name: ({"v": value}, BASE_TYPE) for name, value in kept.items()}
    messages["depth 128"] = (nested(128), BASE_TYPE)
    return messages
