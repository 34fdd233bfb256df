"""Messages as MessagePack, by ormsgpack; strict about types in both directions."""

from __future__ import annotations

from typing import Any, Final

import ormsgpack

from .._core.messages import SCALARS, Message, has_large_int, is_plain, to_plain

# Whatever ormsgpack would convert on its own is refused here, then looked at by to_plain().
_STRICT: Final = (
    ormsgpack.OPT_PASSTHROUGH_BIG_INT
    | ormsgpack.OPT_PASSTHROUGH_DATACLASS
    | ormsgpack.OPT_PASSTHROUGH_DATETIME
    | ormsgpack.OPT_PASSTHROUGH_ENUM
    | ormsgpack.OPT_PASSTHROUGH_SUBCLASS
    | ormsgpack.OPT_PASSTHROUGH_UUID
)
# MessagePack's mark of an int of 2**32 and more, which may be too large. The same byte may stand
# inside text; then the look is in vain.
_UINT64: Final = 0xCF

_are_scalars: Final = SCALARS.issuperset
_packb: Final = ormsgpack.packb
_unpackb: Final = ormsgpack.unpackb


def encode(message: Message) -> bytes:
    """Return `message` as MessagePack.

    Raises:
        NotSerializable: it holds a value that no message may hold.
    """
    try:
        payload = _packb(message, None, _STRICT)
    except TypeError:
        # A subclass, a foreign type, a huge int, a lone surrogate: to_plain() tells.
        return _packb(to_plain(message), None, _STRICT)
    # Most messages are flat. The types of ormsgpack itself are seen by this look alone.
    if (
        message.__class__ is dict
        and _are_scalars(map(type, message.values()))
        and _UINT64 not in payload
    ) or _is_sound(message, payload):
        return payload
    return _packb(to_plain(message), None, _STRICT)


def _is_sound(message: Message, payload: bytes) -> bool:
    """Say whether `payload` holds just what `message` may hold, by a walk."""
    if message.__class__ is not dict or not is_plain(message):
        return False
    return _UINT64 not in payload or not has_large_int(message)


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
