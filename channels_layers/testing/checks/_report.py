"""What came of the checks, and where."""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ._check import Check

_HERE: Final = Path(__file__).parent


def place_of(error: BaseException) -> str:
    """Say where in the checks `error` came up, in a check itself rather than in a helper."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if Path(frame.filename).parent == _HERE]
    topics = [frame for frame in ours if not Path(frame.filename).name.startswith("_")]
    for frame in reversed(topics or ours):
        return f" at {Path(frame.filename).name}:{frame.lineno}: {frame.line}"
    return ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one check.

    Attributes:
        check: The check.
        reason: Why it did not apply; None if it did.
        error: What it found; None if the layer keeps the statement.
        seconds: How long it took.
    """

    check: Check
    reason: str | None
    error: Exception | None
    seconds: float

    def __str__(self) -> str:
        name = f"{self.check.topic}: {self.check.name} ({self.check.statement})"
        if self.error is not None:
            error = f"{type(self.error).__name__}: {self.error}{place_of(self.error)}"
            return f"FAILED  {name}\n        {error}"
        return f"ok      {name}" if self.reason is None else f"n/a     {name}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Report:
    """What came of all checks, in their order; prints as a table."""

    outcomes: tuple[Outcome, ...]

    @property
    def passed(self) -> tuple[Outcome, ...]:
        """Those whose statement the layer keeps."""
        return tuple(one for one in self.outcomes if one.error is None and one.reason is None)

    @property
    def failed(self) -> tuple[Outcome, ...]:
        """Those whose statement the layer breaks."""
        return tuple(one for one in self.outcomes if one.error is not None)

    @property
    def not_applicable(self) -> tuple[Outcome, ...]:
        """Those that the guarantees of the layer exclude."""
        return tuple(one for one in self.outcomes if one.reason is not None)

    def __str__(self) -> str:
        counts = (
            f"{len(self.passed)} kept, {len(self.failed)} broken,"
            f" {len(self.not_applicable)} not applicable"
        )
        return "\n".join([*map(str, self.outcomes), counts])
