"""The one place that knows what happens to our objects when the process forks."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

T = TypeVar("T")

_in_child: WeakKeyDictionary[Any, Callable[[Any], None]] = WeakKeyDictionary()


def in_child(thing: T, renew: Callable[[T], None]) -> None:
    """Call `renew(thing)` in every child that is forked while `thing` lives.

    `renew` must replace every lock, identity and connection without using the old one: the
    fork may have come while another thread held it.
    """
    _in_child[thing] = renew


def _after_in_child() -> None:
    for thing, renew in list(_in_child.items()):
        renew(thing)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_in_child)
