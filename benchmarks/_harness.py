"""Runs the contenders of one question in turns, and reports medians, spread and ratios.

A contender is opened once, stays open while the others take their turns, and gives one sample
a round: A B C, A B C, and so on, so that a machine that gets slower meets all of them alike.
Ratios are taken within a round, then their median: they are steadier than the figures.
"""

from __future__ import annotations

import argparse
import gc
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager

import anyio
from _results import LOOPS, Case, Grid, Options, Results, Round, Sample


def main(
    question: str,
    cases: Callable[[Options], Sequence[Case]],
    *,
    rounds: int = 15,
    grids: Callable[[], Sequence[Grid]] = tuple,
) -> None:
    """Answer `question` on the command line; `cases` says what is to be compared."""
    print(question)
    parser = argparse.ArgumentParser(description=question)
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does it run at all?")
    parser.add_argument("--rounds", type=int, help=f"samples a contender, default {rounds}")
    parser.add_argument("--loop", choices=LOOPS, default="asyncio", help="default asyncio")
    parser.add_argument("--json", metavar="FILE", help="write machine, versions and raw samples")
    parser.add_argument(
        "--assert", action="store_true", dest="strict", help="exit 1 for a missed target"
    )
    given = parser.parse_args()
    options = Options(given.quick, given.rounds or (2 if given.quick else rounds), given.loop)
    results = [run(case, options) for case in cases(options)]

    # Not before the runs: what is imported late cannot disturb what is measured.
    from _report import print_grid, print_results, write_json

    missed = [print_results(result) for result in results]
    words = grids()
    for grid in words:
        print_grid(grid)
    if given.json:
        write_json(given.json, question, options, results, words)
    if given.strict and any(missed):
        sys.exit(1)


def run(case: Case, options: Options) -> Results:
    """Run one case in a loop of its own."""
    return anyio.run(_take_turns, case, options, **options.backend)


async def _take_turns(case: Case, options: Options) -> Results:
    raw: dict[str, list[Sample]] = {}
    rounds: dict[str, Round] = {}
    async with AsyncExitStack() as stack:
        for contender in case.contenders:
            if options.loop in contender.loops:
                rounds[contender.name] = await stack.enter_async_context(contender.open())
                raw[contender.name] = []
        gc.collect()
        gc.freeze()  # what stays open need not be looked through before each sample
        stack.callback(gc.unfreeze)
        for number in range(-1, options.rounds):  # the first is for warming up
            for name, one_round in rounds.items():
                with without_collector():
                    sample = await one_round()
                if number >= 0:
                    raw[name].append(sample)
    return Results(case, raw)


@contextmanager
def without_collector() -> Iterator[None]:
    """Collect garbage before and not during, as timeit does.

    Else each contender pays for looking through what the others keep alive.
    """
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
