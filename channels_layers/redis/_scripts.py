"""The scripts that servers run for us, and their names."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from typing import Final


def _script(name: str) -> str:
    return (files(__package__) / "scripts" / name).read_text()


def _sha(text: str) -> str:
    # Redis names scripts by it.
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


BATCH: Final = _script("batch.lua")
BATCH_SHA: Final = _sha(BATCH)
ENTER: Final = _script("enter.lua")
ENTER_SHA: Final = _sha(ENTER)
