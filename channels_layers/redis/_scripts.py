"""The scripts that servers run for us, and their names."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from typing import Final, NamedTuple


class Script(NamedTuple):
    """One of them; Redis names it by the SHA-1 of its text."""

    text: str
    sha: str


def _script(name: str) -> Script:
    text = (files(__package__) / "scripts" / name).read_text()
    return Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


BATCH: Final = _script("batch.lua")
ENTER: Final = _script("enter.lua")
