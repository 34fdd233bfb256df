"""The grammar of channel names, group names and prefixes.

    channel          = text | text "!" text | text "?" text
    group            = text
    text             = ASCII letters, digits, ".", "_", "-"

A whole name has 1 to 100 characters. The part up to and including "!" is the non-local part
of a process-specific channel; the last dot-part before "!" is the id of the owning client.
"""

from __future__ import annotations

import re
from typing import Final

from ..errors import InvalidName

MAX_NAME: Final = 100  # characters; the limit of the ASGI channel layer specification
MAX_PREFIX: Final = 70  # characters; leaves 30 for ".", a client id, a mark and a local part

_LETTERS: Final = "ASCII letters, digits, '.', '_' and '-'"
_TEXT: Final = re.compile(r"[A-Za-z0-9._-]+")
_CHANNEL: Final = re.compile(r"[A-Za-z0-9._-]*[!?]?[A-Za-z0-9._-]*")
_PREFIX: Final = re.compile(r"[A-Za-z0-9._-]+\??")


def check_channel(name: object, *, receiving: bool = False) -> str:
    """Return `name` if it is a channel name; only a receiver may name a non-local part alone.

    Raises:
        InvalidName: it is not; the error shows the name and the rule.
    """
    text = _check(
        name, _CHANNEL, MAX_NAME, f"a channel name has {_LETTERS}, and at most one '!' or one '?'"
    )
    if text.endswith("?"):
        raise InvalidName(text, "a channel name may not end in '?'")
    if text.endswith("!") and not receiving:
        raise InvalidName(text, "a channel name may end in '!' only in receive()")
    return text


def check_group(name: object) -> str:
    """Return `name` if it is a group name; raise `InvalidName` otherwise."""
    return _check(name, _TEXT, MAX_NAME, f"a group name has {_LETTERS} only")


def check_prefix(name: object) -> str:
    """Return `name` if new channel names can begin with it; raise `InvalidName` otherwise."""
    return _check(name, _PREFIX, MAX_PREFIX, f"a prefix has {_LETTERS}, and may end in '?'")


def non_local_part(channel: str) -> str | None:
    """Return the part of `channel` up to and including "!", or None where there is no "!"."""
    end = channel.find("!")
    return channel[: end + 1] if end >= 0 else None


def client_of(channel: str) -> str | None:
    """Return the client id in a process-specific name, or None for any other channel."""
    end = channel.find("!")
    return channel[channel.rfind(".", 0, end) + 1 : end] if end >= 0 else None


def _check(name: object, pattern: re.Pattern[str], longest: int, rule: str) -> str:
    if not isinstance(name, str):
        raise InvalidName(name, f"a name is a str, not {type(name).__name__}")
    if not 1 <= len(name) <= longest:
        raise InvalidName(name, f"1 to {longest} characters are allowed, this has {len(name)}")
    if pattern.fullmatch(name) is None:
        raise InvalidName(name, rule)
    return str.__str__(name)
