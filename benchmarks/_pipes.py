"""What every way between processes is compared with in the end: bytes in a pipe, and who hears."""

from __future__ import annotations

import asyncio
import os
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import sniffio
from _tasks import bare_tasks

_LENGTH = struct.Struct("<I")


def write_frame(descriptor: int, payload: bytes) -> None:
    """Write a payload with its length; it is short enough to be written in one piece."""
    os.write(descriptor, _LENGTH.pack(len(payload)) + payload)


class Frames:
    """The payloads that come through one pipe."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._rest = b""

    def read(self) -> Iterator[bytes]:
        """Read once, and yield what is whole."""
        data = self._rest + os.read(self._descriptor, 65_536)
        at, end = 0, len(data)
        while end - at >= _LENGTH.size:
            begin = at + _LENGTH.size
            [length] = _LENGTH.unpack_from(data, at)
            if begin + length > end:
                break
            at = begin + length
            yield data[begin:at]
        self._rest = data[at:]


@asynccontextmanager
async def watched(descriptor: int, on_ready: Callable[[], None]) -> AsyncIterator[None]:
    """Let the running loop call `on_ready` whenever the descriptor is readable."""
    if sniffio.current_async_library() == "trio":
        import trio

        async def watch() -> None:
            while True:
                await trio.lowlevel.wait_readable(descriptor)
                on_ready()

        async with bare_tasks() as start:
            start(watch)
            yield
        return
    loop = asyncio.get_running_loop()
    loop.add_reader(descriptor, on_ready)
    try:
        yield
    finally:
        loop.remove_reader(descriptor)
