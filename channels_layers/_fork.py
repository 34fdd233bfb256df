"""The one place that knows what happens to our objects when the process forks."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

T = TypeVar("T")

_in_child: WeakKeyDictionary[Any, Callable[[Any], None]] = WeakKeyDictionary()
_around: WeakKeyDictionary[Any, tuple[Callable[[Any], None], Callable[[Any], None]]] = (
    WeakKeyDictionary()
)
_quiet: list[tuple[Any, Callable[[Any], None]]] = []  # between before and after a fork


def in_child(thing: T, renew: Callable[[T], None]) -> None:
    """Call `renew(thing)` in every child that is forked while `thing` lives.

    `renew` must replace every lock, identity and connection without using the old one: the
    fork may have come while another thread held it.
    """
    _in_child[thing] = renew


def around(thing: T, before: Callable[[T], None], after: Callable[[T], None]) -> None:
    """Call `before(thing)` ahead of every fork, and `after(thing)` in the parent behind it.

    For what must not be in use at the moment of the fork. `before` may wait for other threads,
    but not long.
    """
    _around[thing] = (before, after)


def _before() -> None:
    for thing, (before, after) in list(_around.items()):
        before(thing)
        _quiet.append((thing, after))


def _after_in_parent() -> None:
    while _quiet:
        thing, after = _quiet.pop()
        after(thing)


def _after_in_child() -> None:
    _quiet.clear()
    for thing, renew in list(_in_child.items()):
        renew(thing)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child
    )
