"""The state of one prefix in a file, for clients in several processes."""

from __future__ import annotations

import fcntl
import io
import os
import pickle
import threading
from contextlib import contextmanager

from reference import ReferenceLayer
from world import State

from channels_layers.guarantees import Guarantees


class FileWorld:
    """Reads and writes the whole state at every look. The kernel says which processes live."""

    def __init__(self, folder):
        self._folder = folder
        self._pid = None
        self._alive = io.BytesIO()  # nothing yet

    def _begin(self):
        self._alive.close()
        self._pid = os.getpid()
        self._lock = threading.RLock()
        # Held as long as this process lives; a forked child does not inherit it.
        self._alive = self._locked(f"process.{self._pid}")

    def _locked(self, name):
        file = (self._folder / name).open("ab")
        fcntl.lockf(file, fcntl.LOCK_EX)
        return file

    @contextmanager
    def opened(self):
        if self._pid != os.getpid():
            self._begin()
        with self._lock, self._locked("lock"):
            path = self._folder / "state"
            state = pickle.loads(path.read_bytes()) if path.exists() else State()
            try:
                yield state
            finally:
                fresh = self._folder / "fresh"
                fresh.write_bytes(pickle.dumps(state))
                fresh.replace(path)  # whole or not at all, whoever is killed here

    def end(self):
        """Let go of what this process holds."""
        if self._pid == os.getpid():
            self._alive.close()

    def is_dead(self, pid):
        if pid == os.getpid():
            return False
        with (self._folder / f"process.{pid}").open("ab") as file:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return False
            return True


class CrossProcessLayer(ReferenceLayer):
    guarantees = Guarantees(shared=True, cross_process=True)
