"""Tables for people and JSON for later."""

from __future__ import annotations

import json
import math
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

from _results import Figure, Grid, Options, Results
from rich.console import Console
from rich.table import Table

PACKAGES = (
    "channels-layers",
    "channels",
    "anyio",
    "trio",
    "uvloop",
    "ormsgpack",
    "msgspec",
    "msgpack",
    "pyzmq",
    "channels-redis",
    "redis",
)


def print_results(results: Results) -> int:
    """Print the table and the targets of one case; return how many targets were missed."""
    _console().print(_table(results))
    for note in results.case.notes:
        print(f"  {note}")
    missed = 0
    for target in results.case.targets:
        checked = results.check(target)
        if checked is None:
            continue
        value, is_met = checked
        missed += not is_met
        verdict = "met" if is_met else "MISSED"
        label = f"{target.contender}, {target.figure}: {target.rule}"
        print(f"  target {verdict}: {label}; measured {_number(value)}")
    print()
    return missed


def print_grid(grid: Grid) -> None:
    """Print a table of words."""
    table = Table(*grid.columns, title=grid.title, title_justify="left", title_style="bold")
    for row in grid.rows:
        table.add_row(*row)
    _console().print(table)


def write_json(
    path: str,
    question: str,
    options: Options,
    results: Sequence[Results],
    grids: Sequence[Grid],
) -> None:
    """Write everything that is needed to judge or repeat the run."""
    document = {
        "question": question,
        "command": _command(path),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "options": asdict(options),
        "machine": _machine(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "versions": _versions(),
        "cases": [_case(result) for result in results],
        "grids": [asdict(grid) for grid in grids],
    }
    Path(path).write_text(json.dumps(document, indent=1) + "\n")


def _console() -> Console:
    return Console(width=None if sys.stdout.isatty() else 130)


def _table(results: Results) -> Table:
    case = results.case
    baselines = [name for name in case.baselines if results.raw.get(name)]
    table = Table(title=case.title, title_justify="left", title_style="bold")
    table.add_column("figure")
    table.add_column("contender")
    for heading in ("median", "min", "max", *(f"times {name}" for name in baselines)):
        table.add_column(heading, justify="right")
    for figure in case.figures:
        heading = f"{figure.name}, {figure.unit} ({'less' if figure.less_is_better else 'more'})"
        for name in results.raw:
            values = results.values(name, figure.name)
            if not values:
                continue
            row = [_number(v) for v in (median(values), min(values), max(values))]
            ratios = [_ratio(results, name, figure, other) for other in baselines]
            table.add_row(heading, name, *row, *ratios)
            heading = ""
        table.add_section()
    return table


def _ratio(results: Results, name: str, figure: Figure, other: str) -> str:
    ratio = results.ratio(name, figure, other)
    return "" if math.isnan(ratio) else f"{ratio:,.3g}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _case(results: Results) -> dict[str, Any]:
    case = results.case
    return {
        "title": case.title,
        "notes": list(case.notes),
        "figures": [asdict(figure) for figure in case.figures],
        "medians": {
            name: {f.name: median(v) for f in case.figures if (v := results.values(name, f.name))}
            for name in results.raw
        },
        "targets": [
            {**asdict(target), "measured": checked[0], "met": checked[1]}
            for target in case.targets
            if (checked := results.check(target)) is not None
        ],
        "samples": {name: [_short(s) for s in samples] for name, samples in results.raw.items()},
    }


def _short(sample: Any) -> dict[str, Any]:
    return {
        name: [round(v, 2) for v in value] if isinstance(value, list) else value
        for name, value in sample.items()
    }


def _command(path: str) -> str:
    script = Path(sys.argv[0])
    given = [Path(word).name if word == path else word for word in sys.argv[1:]]
    return " ".join(["python", f"{script.parent.name}/{script.name}", *given])


def _machine() -> dict[str, Any]:
    cpu = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.exists():
        models = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = models[0].partition(":")[2].strip() if models else cpu
    return {"system": platform.platform(), "cpu": cpu, "cores": os.cpu_count()}


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            is_ours = package == "channels-layers"
            found[package] = "from its source tree" if is_ours else "not installed"
    return found
