"""Messages as MessagePack, by ormsgpack; strict about types in both directions."""

from __future__ import annotations

from typing import Any, Final

import ormsgpack

from .._core.messages import Message, has_large_int, is_flat, is_plain, to_plain

# Whatever ormsgpack would convert on its own is refused here, then looked at by to_plain().
_STRICT: Final = (
    ormsgpack.OPT_PASSTHROUGH_BIG_INT
    | ormsgpack.OPT_PASSTHROUGH_DATACLASS
    | ormsgpack.OPT_PASSTHROUGH_DATETIME
    | ormsgpack.OPT_PASSTHROUGH_ENUM
    | ormsgpack.OPT_PASSTHROUGH_SUBCLASS
    | ormsgpack.OPT_PASSTHROUGH_UUID
)
_UINT64: Final = 0xCF  # MessagePack's mark of an int of 2**32 and more

_packb: Final = ormsgpack.packb
_unpackb: Final = ormsgpack.unpackb


def encode(message: Message) -> bytes:
    """Return `message` as MessagePack.

    Raises:
        NotSerializable: it holds a value that no message may hold.
    """
    if message.__class__ is dict and (is_flat(message) or is_plain(message)):
        try:
            payload = _packb(message, None, _STRICT)
        except TypeError:
            pass  # a key, a lone surrogate, a huge int: to_plain() says which, and where
        else:
            # The mark may also stand inside text, so it only makes the check worth its time.
            if _UINT64 not in payload or not has_large_int(message):
                return payload
    return _packb(to_plain(message), None, _STRICT)


def decode(payload: bytes) -> Message:
    """Return the message in `payload`, fresh objects at each call.

    Raises:
        ValueError: these bytes are not a message.
    """
    message: Any = _unpackb(payload)
    if message.__class__ is not dict:
        raise ValueError(f"expected a message, found {type(message).__name__}")
    result: Message = message
    return result
