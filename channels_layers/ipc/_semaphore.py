"""POSIX semaphores that live in a segment, by way of the C library."""

from __future__ import annotations

import ctypes
import errno
import os
import sys
import time
from typing import Final

_NANO: Final = 1_000_000_000


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


_libc = ctypes.CDLL(None, use_errno=True)
_BYTES: Final = 32  # of a sem_t where addresses have 64 bits
_COUNTERS: Final = 8  # its first bytes: the value, and how many wait; the rest never changes
_MOST: Final = 1024  # a higher value is none that anybody has posted
# With the monotonic clock where the C library knows how, so that setting the clock disturbs nobody.
_CLOCK: Final = time.CLOCK_MONOTONIC if hasattr(_libc, "sem_clockwait") else time.CLOCK_REALTIME


class Semaphore:
    """A counter in shared memory that one process raises and another waits for.

    A process that is killed while it waits takes nothing with it. Whatever bytes stand there, the
    worst is a wait until the time is over, or none.
    """

    def __init__(self, buffer: object, offset: int) -> None:
        """Use the semaphore at `offset` of a writable `buffer`."""
        self._memory = (ctypes.c_char * 64).from_buffer(buffer, offset)  # type: ignore[arg-type]  # any writable buffer
        self._address = ctypes.c_void_p(ctypes.addressof(self._memory))
        self._bytes = memoryview(self._memory).cast("B")

    def make(self) -> None:
        """Make it, at zero; by the creator of the segment."""
        _libc.sem_init(self._address, 1, 0)

    def post(self) -> None:
        """Let one who waits go on."""
        self._mend()
        _libc.sem_post(self._address)

    def wait(self, seconds: float) -> bool:
        """Wait until somebody posts; False when it took longer than `seconds`.

        Blocks the thread, and lets the other threads run.
        """
        self._mend()
        ends = time.clock_gettime_ns(_CLOCK) + int(seconds * _NANO)
        until = _Timespec(ends // _NANO, ends % _NANO)
        while True:
            if time.CLOCK_MONOTONIC == _CLOCK:
                failed = _libc.sem_clockwait(self._address, _CLOCK, ctypes.byref(until))
            else:
                failed = _libc.sem_timedwait(self._address, ctypes.byref(until))
            if not failed:
                return True
            code = ctypes.get_errno()
            if code == errno.ETIMEDOUT:
                return False
            if code != errno.EINTR:
                raise OSError(code, os.strerror(code))

    def _mend(self) -> None:
        """Make it anew where it is damaged: the C library ends the process over one that is."""
        if _FRESH and (
            self._bytes[_COUNTERS:_BYTES] != _FRESH[_COUNTERS:]
            or int.from_bytes(self._bytes[:4], sys.byteorder) > _MOST
        ):
            self._bytes[:_BYTES] = _FRESH


def _fresh() -> bytes:
    """Return the bytes of one at zero; none where this file does not know what they mean."""
    if ctypes.sizeof(ctypes.c_void_p) != 8:
        return b""
    memory = bytearray(64)
    semaphore = Semaphore(memory, 0)
    semaphore.make()
    return bytes(memory[:_BYTES])


_FRESH: Final = _fresh()
