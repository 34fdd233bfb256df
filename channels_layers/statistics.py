"""Counters and rates for authors of backends; see `Statistics` for what users get."""

from __future__ import annotations

from ._core.statistics import Dropped, Statistics, Tally, add_up, counts_of, statistics_of

__all__ = ["Dropped", "Statistics", "Tally", "add_up", "counts_of", "statistics_of"]
