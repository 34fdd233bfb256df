"""Redis servers for one run, the layers over them, and the same by hand; or why there are none."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import ormsgpack
from _contenders import ASYNCIO_ONLY
from _results import LOOPS, OURS

from channels_layers import RedisChannelLayer

CORE = "channels_redis"
PUB_SUB = "channels_redis pub/sub"
BY_HAND = "by hand"

#: On which loops each takes part. Under trio ours runs in the thread that it has for such callers.
LOOPS_OF = {OURS: LOOPS, CORE: ("asyncio",), PUB_SUB: ("asyncio",), BY_HAND: ASYNCIO_ONLY}

_STARTED_S = 10.0  # how long a server may take to start
_POLL_S = 0.01
_BLOCK_MS = 2000  # of one XREAD, as long as our layer has it
_MOST_ENTRIES = 512  # of one XREAD, likewise


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


@contextmanager
def redis_servers(count: int) -> Iterator[list[str]]:
    """Run so many servers; give their addresses."""
    with ExitStack() as stack:
        yield [stack.enter_context(redis_server()) for _ in range(count)]


@asynccontextmanager
async def opened_over(name: str, addresses: list[str], **settings: Any) -> AsyncIterator[Any]:
    """Open the layer of that name over servers, a shard each, and close it in the end."""
    if name == OURS:
        async with RedisChannelLayer(addresses, **settings) as layer:
            yield layer
        return
    # Since redis-py 8 a wait for a message would else end in an error as it ends by itself.
    hosts = [{"address": address, "socket_timeout": None} for address in addresses]
    if name == CORE:
        from channels_redis.core import RedisChannelLayer as CoreLayer  # it may not be installed

        core = CoreLayer(hosts=hosts, **settings)
        try:
            yield core
        finally:
            await core.close_pools()
    else:
        from channels_redis.pubsub import RedisPubSubChannelLayer

        pub_sub = RedisPubSubChannelLayer(hosts=hosts, **settings)
        try:
            yield pub_sub
        finally:
            await pub_sub.flush()  # it has no other way to close its connections


def inbox_of(prefix: str, client: str) -> str:
    """Return the key of the stream that our layer keeps for a client on its shard."""
    return f"{prefix}:1:in:{client}"


# By hand, on redis-py


@asynccontextmanager
async def bare_client(address: str) -> AsyncIterator[Any]:
    """Open a client of redis-py, with hiredis."""
    from redis.asyncio import Redis

    async with Redis.from_url(address, protocol=2) as client:
        yield client


@contextmanager
def bare_server(address: str) -> Iterator[Any]:
    """Open a client that blocks, for what is looked at and prepared between the rounds."""
    from redis import Redis

    with Redis.from_url(address, protocol=2) as client:
        yield client


class Stream:
    """A stream of messages: each reader reads on from where it was."""

    def __init__(self, client: Any, name: str) -> None:
        self._client = client
        self._name = name
        self._position = b"0"

    async def add(self, message: dict[str, Any]) -> None:
        """Add one message."""
        await self._client.xadd(self._name, {b"m": ormsgpack.packb(message)})

    async def add_all(self, messages: list[dict[str, Any]]) -> None:
        """Add many in one pipeline."""
        async with self._client.pipeline(transaction=False) as pipeline:
            for message in messages:
                pipeline.xadd(self._name, {b"m": ormsgpack.packb(message)})
            await pipeline.execute()

    async def read(self) -> list[Any]:
        """Wait for some messages."""
        while True:
            found = await self._client.xread(
                {self._name: self._position}, count=_MOST_ENTRIES, block=_BLOCK_MS
            )
            if found:
                [[_, entries]] = found
                self._position = entries[-1][0]
                return [ormsgpack.unpackb(fields[b"m"]) for _, fields in entries]
