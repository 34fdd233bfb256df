"""What a process does at its end for those that nobody has closed."""

from __future__ import annotations

import atexit
import contextlib
import sys
from collections.abc import Callable
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

T = TypeVar("T")

_ends: WeakKeyDictionary[Any, Callable[[Any], None]] = WeakKeyDictionary()
_finalizers: list[object] = []  # of this process, while it is a child of multiprocessing


def at_exit(thing: T, end: Callable[[T], None]) -> None:
    """Call `end(thing)` when this process ends, be it as a child of multiprocessing.

    `end` must not wait for long; what it raises is nobody's business any more.
    """
    _ends[thing] = end
    util = sys.modules.get("multiprocessing.util")
    process = sys.modules.get("multiprocessing.process")
    if util is None or process is None or process.parent_process() is None:
        return
    # A forked child of multiprocessing ends without the functions of atexit, and begins without
    # the finalizers of its parent.
    if not any(finalizer.still_active() for finalizer in _finalizers):  # type: ignore[attr-defined]  # a Finalize
        _finalizers[:] = [util.Finalize(None, _end_all, exitpriority=0)]


def _end_all() -> None:
    for thing, end in list(_ends.items()):
        with contextlib.suppress(Exception):
            end(thing)


atexit.register(_end_all)
