"""A redis-server for one run, and Channels' layer over it; or why there is none."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_STARTED_S = 10.0  # how long a server may take to start
_POLL_S = 0.01


def reason_to_leave_out() -> str:
    """Return what is missing, "" if nothing is."""
    missing = [] if find_spec("channels_redis") else ["the package channels_redis is not installed"]
    if not shutil.which("redis-server"):
        missing.append("there is no redis-server on the path")
    return " and ".join(missing)


@contextmanager
def redis_server() -> Iterator[str]:
    """Run a server that saves nothing; give the address of its socket, which is its fastest."""
    with tempfile.TemporaryDirectory() as folder:
        socket = Path(folder) / "socket"
        words = ["redis-server", "--port", "0", "--save", "", "--unixsocket", str(socket)]
        with subprocess.Popen(words, stdout=subprocess.DEVNULL, cwd=folder) as server:
            try:
                ends_at = time.monotonic() + _STARTED_S
                while not socket.exists() and time.monotonic() < ends_at:
                    time.sleep(_POLL_S)
                yield f"unix://{socket}"
            finally:
                server.terminate()


@asynccontextmanager
async def redis_layer(address: str, capacity: int) -> AsyncIterator[Any]:
    """Open Channels' core layer over a server."""
    from channels_redis.core import RedisChannelLayer  # it may not be installed

    layer = RedisChannelLayer(hosts=[{"address": address}], capacity=capacity)
    try:
        yield layer
    finally:
        await layer.close_pools()
