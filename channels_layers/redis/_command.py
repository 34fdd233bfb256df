"""One thing that is asked of a shard, from its call to its result."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from .._loops import LoopWaiter, wake_one

_logger = logging.getLogger("channels_layers")


class Command:
    """One operation of the batch script, on its way."""

    __slots__ = (
        "deadline", "error", "failed", "gives_up", "is_blank", "is_done", "is_late", "is_movable",
        "is_over", "is_sent", "name", "result", "size_bytes", "then", "tries", "waiter", "words",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        words: tuple[Any, ...],
        deadline: float,
        waiter: LoopWaiter | None = None,
        then: Callable[[Any], object] | None = None,
    ) -> None:
        self.name = name
        self.words = words
        self.deadline = deadline
        self.waiter = waiter  # of whoever waits for it; without one it is tried until it is done
        self.then = then
        self.failed: Callable[[], object] | None = None  # may be called again
        self.gives_up = False  # without a waiter: it is not tried for ever; `then` hears None
        self.result: Any = None
        self.error: Exception | None = None
        self.is_blank = False  # nothing was sent in its place
        self.is_movable = False  # where there is no connection, it shall fail at once
        self.is_done = False  # the lane has nothing more to do with it
        self.is_over = False  # nobody waits for it any more
        self.is_sent = False
        self.tries = 0  # that were refused
        self.is_late = False  # its time is over
        size_bytes = 0
        for word in words:
            if word.__class__ is bytes:
                size_bytes += len(word)
        self.size_bytes = size_bytes

    @property
    def is_given_up(self) -> bool:
        """Whether it is not to be done any more.

        What was cancelled on its way is still to be found out: it is wholly done, or not at all.
        """
        return self.is_over and (self.is_late or not self.is_sent)

    def end(self, result: Any = None, error: Exception | None = None) -> None:
        """Let whoever waits for it have its result."""
        if error is not None and self.failed is not None:
            self.failed()
        if self.waiter is not None and not self.is_over:
            self.result, self.error, self.is_over = result, error, True
            wake_one(self.waiter)

    def tell(self, result: Any) -> None:
        """Let `then` hear the result, or None."""
        if self.then is not None:
            try:
                self.then(result)
            except Exception:  # whatever it is, the others must hear of theirs
                _logger.exception("what comes after %r failed", self.name)
