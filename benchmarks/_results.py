"""What is compared, by which figures, and what came of it."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from statistics import median, quantiles
from typing import Any, TypeAlias

OURS = "channels-layers"
PEER = "Channels"
FLOOR = "floor"

LOOPS = ("asyncio", "uvloop", "trio")
PERCENTILES = {"p50": 500, "p99": 990, "p99.9": 999}  # in thousandths

# A list holds raw values, such as latencies: figures are made of its percentiles.
Sample: TypeAlias = Mapping[str, float | list[float]]
Round: TypeAlias = Callable[[], Awaitable[Sample]]


@dataclass(frozen=True, slots=True)
class Figure:
    """One number of a sample: what it is called, its unit, and which way is better."""

    name: str
    unit: str
    less_is_better: bool = False

    def times_as_good(self, value: float, other: float) -> float:
        """Return how many times as good `value` is as `other`, whichever way is better."""
        better, worse = (other, value) if self.less_is_better else (value, other)
        return better / worse if worse else math.nan


@dataclass(frozen=True, slots=True)
class Contender:
    """One of those compared: `open` gives what runs one round, and undoes it in the end."""

    name: str
    open: Callable[[], AbstractAsyncContextManager[Round]]
    loops: tuple[str, ...] = LOOPS


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What `--assert` holds a figure of one contender to; exactly one bound is given."""

    figure: str
    contender: str = OURS
    at_least: float | None = None  # in the figure's unit
    at_most: float | None = None  # in the figure's unit
    times: float | None = None  # at least so many times as good as `than`
    than: str = PEER

    @property
    def rule(self) -> str:
        """The bound in words."""
        if self.times is not None:
            return f"at least {self.times:.3g} x as good as {self.than}"
        if self.at_least is not None:
            return f"at least {self.at_least:,.6g}"
        return f"at most {self.at_most:,.6g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One table: contenders that do the same work, and the figures that each gives."""

    title: str
    figures: Sequence[Figure]
    contenders: Sequence[Contender]
    baselines: Sequence[str] = (PEER, FLOOR)  # what the ratios are taken to
    targets: Sequence[Target] = ()
    notes: Sequence[str] = ()  # what a reader of the figures must know, such as who was left out


@dataclass(frozen=True, slots=True)
class Grid:
    """A table of words that belongs to the answer, beside the figures."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line asked for."""

    quick: bool
    rounds: int
    loop: str

    @property
    def backend(self) -> dict[str, Any]:
        """The arguments that make anyio run that loop."""
        if self.loop == "trio":
            return {"backend": "trio"}
        return {"backend": "asyncio", "backend_options": {"use_uvloop": self.loop == "uvloop"}}

    def pick(self, full: int, quick: int) -> int:
        """Return the size of a piece of work: `quick` in a smoke run, else `full`."""
        return quick if self.quick else full


@dataclass(frozen=True, slots=True)
class Results:
    """The samples of one case, contender by contender, in the order of the rounds."""

    case: Case
    raw: dict[str, list[Sample]]
    figures: dict[str, list[dict[str, float]]] = field(init=False)

    def __post_init__(self) -> None:
        flat = {name: [_expanded(s) for s in samples] for name, samples in self.raw.items()}
        object.__setattr__(self, "figures", flat)

    def values(self, contender: str, figure: str) -> list[float]:
        """Return one figure of one contender, round by round; empty if it did not take part."""
        return [sample[figure] for sample in self.figures.get(contender, []) if figure in sample]

    def ratio(self, contender: str, figure: Figure, other: str) -> float:
        """Return how many times as good `contender` was as `other`, NaN if one is missing."""
        pairs = zip(
            self.values(contender, figure.name), self.values(other, figure.name), strict=False
        )
        ratios = [figure.times_as_good(value, base) for value, base in pairs]
        return median(ratios) if ratios else math.nan

    def check(self, target: Target) -> tuple[float, bool] | None:
        """Return what was measured for `target` and whether it is met; None if nothing was."""
        values = self.values(target.contender, target.figure)
        if not values:
            return None
        if target.times is not None:
            [figure] = [f for f in self.case.figures if f.name == target.figure]
            ratio = self.ratio(target.contender, figure, target.than)
            return None if math.isnan(ratio) else (ratio, ratio >= target.times)
        middle = median(values)
        if target.at_least is not None:
            return middle, middle >= target.at_least
        assert target.at_most is not None, "a target has one bound"
        return middle, middle <= target.at_most


def _expanded(sample: Sample) -> dict[str, float]:
    flat: dict[str, float] = {}
    for name, value in sample.items():
        if isinstance(value, list):
            cuts = quantiles(value, n=1000, method="inclusive")
            flat |= {f"{name} {label}": cuts[at - 1] for label, at in PERCENTILES.items()}
        else:
            flat[name] = value
    return flat
