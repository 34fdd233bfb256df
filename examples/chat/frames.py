"""What a browser may say, read from one text frame. Plain code: nothing here waits."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

MAX_NAME = 24  # characters
MAX_TEXT = 2000  # characters
_ROOM = re.compile(r"[a-z0-9-]{1,32}")  # a room becomes a group name, and a link


class BadFrame(ValueError):
    """The browser said something that makes no sense here; the text tells it what."""


@dataclass(frozen=True, slots=True)
class Join:
    """Come into `room`."""

    room: str


@dataclass(frozen=True, slots=True)
class Leave:
    """Go out of `room`."""

    room: str


@dataclass(frozen=True, slots=True)
class Who:
    """Tell me who is in `room`."""

    room: str


@dataclass(frozen=True, slots=True)
class Say:
    """Tell everybody in `room`; `ref` comes back with it, so the sender knows its own words."""

    room: str
    text: str
    ref: int


def read_frame(frame: str | None) -> Join | Leave | Who | Say:
    """Read one frame; None stands for a binary one.

    Raises:
        BadFrame: this is no such frame.
    """
    try:
        said = json.loads(frame or "")
    except (ValueError, RecursionError):
        raise BadFrame("a frame is a JSON object in text") from None
    match said:
        case {"type": "join", "room": room}:
            return Join(_room(room))
        case {"type": "leave", "room": room}:
            return Leave(_room(room))
        case {"type": "who", "room": room}:
            return Who(_room(room))
        case {"type": "say", "room": room, "text": str(text), "ref": int(ref)}:
            return Say(_room(room), _text(text), ref % 2**31)
    raise BadFrame("a frame has a type of join, leave, who or say, and its fields")


def read_name(name: str) -> str:
    """Make a nickname that can be shown: one line, no invisible characters, never empty."""
    shown = "".join(letter if letter.isprintable() else " " for letter in name)
    return " ".join(shown.split())[:MAX_NAME].strip() or "guest"


def _room(room: Any) -> str:
    if isinstance(room, str) and _ROOM.fullmatch(room):
        return room
    raise BadFrame("a room has 1 to 32 small letters, digits and hyphens")


def _text(text: str) -> str:
    # JSON can hold half a surrogate pair, which no other member's frame could carry.
    text = text.encode("utf-8", "replace").decode().strip()
    if 1 <= len(text) <= MAX_TEXT:
        return text
    raise BadFrame(f"a text has 1 to {MAX_TEXT} characters")
