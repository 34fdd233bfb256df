"""For authors of layers: the conformance kit. Its names are imported when they are used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .conformance import CHECKS as CHECKS
    from .conformance import Check as Check
    from .conformance import Layer as Layer
    from .conformance import LayerMaker as LayerMaker
    from .conformance import Outcome as Outcome
    from .conformance import Report as Report
    from .conformance import applicable as applicable
    from .conformance import check as check
    from .conformance import run as run
    from .conformance import run_check as run_check

__all__ = [
    "CHECKS",
    "Check",
    "Layer",
    "LayerMaker",
    "Outcome",
    "Report",
    "applicable",
    "check",
    "run",
    "run_check",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import conformance  # pytest imports this package in every run; the kit only when used

    return getattr(conformance, name)
