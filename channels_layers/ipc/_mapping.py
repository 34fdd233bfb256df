"""Files mapped into memory, by way of the C library.

Python's own `mmap` keeps a descriptor of the file until it is collected. Closing any descriptor
of a file gives up this process's locks of it, so that must not happen by itself at some moment.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from typing import Final, cast
from weakref import finalize

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (
    *(ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int),
    *(ctypes.c_int, ctypes.c_int, ctypes.c_long),
)
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_FAILED: Final = ctypes.c_void_p(-1).value


def map_file(descriptor: int, size_bytes: int) -> memoryview:
    """Return the first bytes of a file as writable shared memory.

    It is mapped until nothing refers to it any more, whatever becomes of the descriptor.

    Raises:
        OSError: it cannot be mapped.
    """
    may = mmap.PROT_READ | mmap.PROT_WRITE
    address = _libc.mmap(None, size_bytes, may, mmap.MAP_SHARED, descriptor, 0)
    if address == _FAILED:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    memory = (ctypes.c_ubyte * size_bytes).from_address(address)
    # At the end of the interpreter the kernel does it, and threads may still be looking.
    finalize(memory, _libc.munmap, address, size_bytes).atexit = False
    return memoryview(cast("bytearray", memory)).cast("B")
