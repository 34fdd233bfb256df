"""The conformance kit: every statement of the contract as a check, for any layer.

A layer is given as a *maker*: a callable that takes the options of the contract and returns a
layer, an awaitable of one, or an async context manager that yields one. The class itself will
often do::

    print(anyio.run(run, MyLayer))
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from types import ModuleType
from typing import Final, cast

import anyio

from ..guarantees import Guarantees
from .checks import (
    cancellation,
    cancelled_writers,
    capacity,
    closing,
    ending_loops,
    expiry,
    fairness,
    flush,
    fork,
    groups,
    lifecycle,
    memberships,
    message_sizes,
    message_types,
    messages,
    names,
    new_channel,
    queues,
    receive_from,
    several_clients,
    several_processes,
    shared_state,
    single_reader,
    statistics,
    thread_races,
    threads_and_loops,
)
from .checks._check import Check, Layer, LayerMaker, check
from .checks._makers import Maker, made_by
from .checks._report import Outcome, Report, place_of
from .checks._tools import loop_name

__all__ = [
    "CHECKS",
    "LIMIT",
    "Check",
    "Layer",
    "LayerMaker",
    "Outcome",
    "Report",
    "applicable",
    "check",
    "guarantees_of",
    "run",
    "run_check",
]

LIMIT: Final = 30.0  # seconds for one check; only a layer that hangs ever gets there

_TOPICS: Final[tuple[ModuleType, ...]] = (
    names,
    messages,
    message_types,
    message_sizes,
    queues,
    single_reader,
    new_channel,
    receive_from,
    fairness,
    cancellation,
    cancelled_writers,
    capacity,
    groups,
    flush,
    statistics,
    lifecycle,
    closing,
    expiry,
    memberships,
    threads_and_loops,
    thread_races,
    ending_loops,
    fork,
    several_clients,
    shared_state,
    several_processes,
)
CHECKS: Final[tuple[Check, ...]] = tuple(
    value for topic in _TOPICS for value in vars(topic).values() if isinstance(value, Check)
)


def guarantees_of(layer: object) -> Guarantees:
    """Return what `layer` declares, or the defaults where it declares nothing."""
    declared = getattr(layer, "guarantees", None)
    return Guarantees() if declared is None else cast("Guarantees", declared)


def applicable(check: Check, guarantees: Guarantees, *, loop: str = "asyncio") -> str | None:
    """Return why `check` does not apply to a layer with `guarantees`, or None if it does.

    Args:
        check: One of `CHECKS`.
        guarantees: What the layer declares; see `guarantees_of`.
        loop: The kind of event loop it would run on: ``"asyncio"`` or ``"trio"``.
    """
    if loop == "trio" and not guarantees.trio:
        return "the layer does not guarantee `trio`"
    for need in check.needs:
        if need == "separate" and guarantees.shared:
            return "the layer guarantees `shared`"
        if need == "asyncio" and loop != "asyncio":
            return "the check is written for asyncio"
        if need == "fork" and not hasattr(os, "fork"):
            return "this platform has no os.fork"
        if hasattr(guarantees, need) and not getattr(guarantees, need):
            return f"the layer does not guarantee `{need}`"
    return None


async def run_check(check: Check, maker: Maker, *, limit: float = LIMIT) -> str | None:
    """Hold one kind of layer to one check.

    Args:
        check: One of `CHECKS`.
        maker: Makes the layers; see the module. What it made is closed afterwards.
        limit: Seconds after which the check has failed.

    Returns:
        None if the layer keeps the statement, else the reason why it does not apply.

    Raises:
        Exception: what the check found, as the check raised it.
        TimeoutError: the check hung.
    """
    try:
        reason = applicable(check, await _prepared(maker, limit), loop=loop_name())
        if reason is None:
            await _held(check, maker, limit)
    except BaseExceptionGroup as group:
        raise _only(group) from None
    return reason


async def _prepared(maker: Maker, limit: float) -> Guarantees:
    # What earlier checks left behind on a server must not disturb this one.
    with anyio.fail_after(limit):
        async with made_by(maker) as make:
            layer = await make()
            guarantees = guarantees_of(layer)
            if guarantees.shared and (guarantees.trio or loop_name() != "trio"):
                await layer.flush()
    return guarantees


async def _held(check: Check, maker: Maker, limit: float) -> None:
    place = ""
    async with made_by(maker) as make:
        with anyio.move_on_after(limit) as scope:
            try:
                await check(make)
            except BaseException as error:
                place = place_of(error)  # of a cancellation: where the check was waiting
                raise
        if scope.cancelled_caught:
            raise TimeoutError(f"still waiting after {limit:g} s{place}")


def _only(error: BaseException) -> BaseException:
    """Return the one error that a group of one holds, however often it was wrapped."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


async def run(maker: Maker, checks: Iterable[Check] = CHECKS, *, limit: float = LIMIT) -> Report:
    """Hold one kind of layer to many checks, one after the other, on the running loop.

    Args:
        maker: Makes the layers; see the module. A layer that guarantees `shared` is flushed
            before each check, so give it a prefix that nobody else uses.
        checks: Which ones; all by default.
        limit: Seconds after which a single check has failed.
    """
    return Report(tuple([await _outcome(check, maker, limit) for check in checks]))


async def _outcome(check: Check, maker: Maker, limit: float) -> Outcome:
    began = time.monotonic()
    reason, found = None, None
    try:
        reason = await run_check(check, maker, limit=limit)
    except Exception as error:  # noqa: BLE001  # whatever it is, the report shows it
        found = error
    return Outcome(check, reason, found, time.monotonic() - began)
