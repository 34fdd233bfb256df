"""What a message may hold, told before it is encoded, with the path of what it may not.

No encoder is strict by itself: each turns some foreign types into others without a word, and
the receiver gets something that was not sent. So the types are checked here.
"""

from __future__ import annotations

import json
from enum import Enum
from typing import Any, Final, TypeAlias

from ..errors import NotSerializable

Message: TypeAlias = dict[str, Any]

MAX_DEPTH: Final = 128  # dicts and lists inside one another, the message itself included
MAX_INT: Final = 2**63 - 1
MIN_INT: Final = -(2**63)

SCALARS: Final = frozenset({str, int, float, bool, bytes, type(None)})
_CONTAINERS: Final = frozenset({dict, list, tuple})


def is_plain(message: Message) -> bool:
    """Say whether all in `message` is of exactly the base types, and not nested too deep.

    Keys, the size of ints and the text of strings are not looked at: the encoder does that.
    """
    level: list[Any] = [message]
    for _ in range(MAX_DEPTH):
        below = []
        for container in level:
            values = container.values() if container.__class__ is dict else container
            if SCALARS.issuperset(map(type, values)):
                continue
            for value in values:
                kind = value.__class__
                if kind in _CONTAINERS:
                    below.append(value)
                elif kind not in SCALARS:
                    return False
        if not below:
            return True
        level = below
    return False


def has_large_int(value: Any) -> bool:
    """Say whether an int above 64 bit signed stands anywhere in a plain `value`."""
    kind = value.__class__
    if kind is int:
        return bool(value > MAX_INT)
    if kind in _CONTAINERS:
        return any(map(has_large_int, value.values() if kind is dict else value))
    return False


def to_plain(message: object) -> Message:
    """Return `message` with every subclass of a base type turned into that type.

    Raises:
        NotSerializable: a value cannot be sent; the error names its path and its type.
    """
    if not isinstance(message, dict):
        raise NotSerializable("message", type(message).__name__)
    plain: Message = _plain_dict(message, "message", MAX_DEPTH)
    return plain


def _to_plain(value: Any, path: str, room: int) -> Any:
    if value is None or value is True or value is False:
        return value
    if isinstance(value, Enum):
        raise NotSerializable(path, type(value).__name__)
    # The base type's own methods, so that a subclass cannot answer with something else.
    if isinstance(value, str):
        return _plain_str(value, path)
    if isinstance(value, int):
        if not MIN_INT <= value <= MAX_INT:
            raise NotSerializable(path, "int of more than 64 bits")
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, bytes):
        return bytes.__getitem__(value, slice(None))
    if isinstance(value, dict):
        return _plain_dict(value, path, room)
    if isinstance(value, list | tuple):
        return _plain_list(value, path, room)
    raise NotSerializable(path, type(value).__name__)


def _plain_dict(value: dict[Any, Any], path: str, room: int) -> dict[str, Any]:
    if not room:
        raise NotSerializable(path, f"dict nested more than {MAX_DEPTH} deep")
    plain = {}
    for key, item in dict.items(value):
        if not isinstance(key, str) or isinstance(key, Enum):
            raise NotSerializable(path, f"key {key!r} of type {type(key).__name__}")
        text = _plain_str(key, f"key of {path}")
        plain[text] = _to_plain(item, f"{path}[{json.dumps(text)}]", room - 1)
    return plain


def _plain_list(value: list[Any] | tuple[Any, ...], path: str, room: int) -> list[Any]:
    if not room:
        raise NotSerializable(path, f"{type(value).__name__} nested more than {MAX_DEPTH} deep")
    items = list.__iter__(value) if isinstance(value, list) else tuple.__iter__(value)
    return [_to_plain(item, f"{path}[{index}]", room - 1) for index, item in enumerate(items)]


def _plain_str(value: str, path: str) -> str:
    text = str.__str__(value)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise NotSerializable(path, "str with a lone surrogate") from None
    return text
