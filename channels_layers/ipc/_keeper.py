"""One thread of a process that looks after its clients twice a second.

It clears up after the dead, renews memberships, publishes statistics, and is the net for
everything that should have come through a doorbell. It never keeps the interpreter alive.
"""

from __future__ import annotations

import logging
import mmap
import threading
from typing import Final, Protocol

from .. import _fork
from ._semaphore import Semaphore

BEAT_S: Final = 0.5  # half of what statistics may be old

_logger = logging.getLogger("channels_layers")


class Kept(Protocol):
    """What the keeper looks after."""

    def beat(self) -> None:
        """Do what is due; may block."""
        ...

    def rescue(self) -> None:
        """Do what could not be done without waiting; may block."""
        ...


class Keeper:
    """The thread; it runs while there is anybody to look after."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: list[Kept] = []
        self._thread: threading.Thread | None = None
        self._semaphore: Semaphore | None = None
        _fork.in_child(self, Keeper.__init__)

    def add(self, kept: Kept) -> None:
        """Look after one more."""
        with self._lock:
            self._kept.append(kept)
            if self._thread is None:
                self._semaphore = Semaphore(mmap.mmap(-1, mmap.PAGESIZE), 0)
                self._semaphore.make()
                self._thread = threading.Thread(
                    target=self._run,
                    args=(self._semaphore,),
                    name="channels-layers-ipc-keeper",
                    daemon=True,
                )
                self._thread.start()

    def remove(self, kept: Kept, seconds: float | None = None) -> None:
        """Look after one less; the thread ends with the last, waited for at most `seconds`."""
        with self._lock:
            if kept in self._kept:
                self._kept.remove(kept)
            thread = self._thread
            if self._kept or thread is None:
                return
            self._thread = None
        self.hurry()
        if thread is not threading.current_thread():
            thread.join(seconds)

    def hurry(self) -> None:
        """Look now, and not only with the next beat."""
        semaphore = self._semaphore
        if semaphore is not None:
            semaphore.post()

    def _run(self, semaphore: Semaphore) -> None:
        while True:
            is_hurried = semaphore.wait(BEAT_S)
            with self._lock:
                if self._thread is not threading.current_thread():
                    return
                kept = list(self._kept)
            for one in kept:
                try:
                    one.rescue() if is_hurried else one.beat()
                except Exception:  # whatever it is, the other clients must be looked after
                    _logger.exception("a beat of the IPC layer failed")


keeper: Final = Keeper()
