"""The scripts that servers run for us, and their names."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from typing import Final, NamedTuple


class Script(NamedTuple):
    """One of them; Redis names it by the SHA-1 of its text."""

    text: str
    sha: str


def _script(*names: str) -> Script:
    """Join files."""
    folder = files(__package__) / "scripts"
    text = "\n".join((folder / f"{name}.lua").read_text() for name in names)
    return Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


_PARTS: Final = ("begin", "messages", "queues", "groups", "house", "end")

BATCH: Final = _script(*(f"batch/{part}" for part in _PARTS))
ENTER: Final = _script("enter")
