"""One connection to one server: a command, then its answer. All that knows redis-py."""

from __future__ import annotations

import asyncio
import os
from functools import partial
from typing import Any, Final

from hiredis import ReplyError
from redis import exceptions as theirs
from redis.asyncio.connection import AbstractConnection, Connection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from .. import _fork
from ._errors import LinkBroken, ServerRefused
from ._hosts import Address
from ._scripts import Script
from ._wire import Again, Hear, Wire

_OLDEST: Final = (6, 2)
# How those errors begin after which another attempt, later or elsewhere, may succeed.
_PASSING: Final = (
    "BUSY", "CLUSTERDOWN", "LOADING", "MASTERDOWN", "MISCONF", "NOREPLICAS", "OOM", "READONLY",
    "TRYAGAIN", "UNKILLABLE",
)  # fmt: skip
_NO_SCRIPT: Final = "NOSCRIPT"

# All connections. Those of a parent or of an abandoned event loop stay here, with their sockets
# closed: what they do when they are collected would be wrong there.
_connections: set[AbstractConnection] = set()


class Link:
    """A connection with at most one command on its way; never used again after a failure."""

    def __init__(self, address: Address, seconds: float) -> None:
        """Make one that is not connected.

        Args:
            address: Where to.
            seconds: How long connecting may take.
        """
        options = {**parse_url(address.url), **address.options}
        kind: type[AbstractConnection] = options.pop("connection_class", Connection)
        self._address = address
        # The times and the retries are this package's: redis-py 8 would give up reading after 5 s.
        self._connection = kind(
            **options,
            socket_timeout=None,
            socket_connect_timeout=seconds,
            retry=Retry(NoBackoff(), 0),
            health_check_interval=0,
            protocol=2,
        )
        self._wire: Wire | None = None
        self._is_abandoned = False
        self.run = ""  # the server's; another one after each of its starts
        _fork.in_child(self, Link.abandon)

    async def connect(self, *, looks: bool = True) -> None:
        """Connect; and look whom we speak to, if it `looks`.

        Raises:
            LinkBroken: that is not possible now.
            ServerRefused: it never will be.
        """
        _connections.add(self._connection)
        try:
            await self._connection.connect()  # type: ignore[no-untyped-call]
        except (theirs.AuthenticationError, theirs.AuthorizationError) as exc:
            raise ServerRefused(self._address.label, f"{exc}") from exc
        except (theirs.RedisError, OSError) as exc:
            raise LinkBroken(str(exc) or type(exc).__name__) from exc
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            # redis-py takes a cancellation for its own while it connects, and returns.
            await self.close()
            raise asyncio.CancelledError
        self._wire = Wire(self._writer.transport)
        if looks:
            await self._look()

    async def _look(self) -> None:
        info = await self.ask("INFO", "server")
        fields = dict(
            line.split(":", 1) for line in bytes(info).decode().splitlines() if ":" in line
        )
        self.run = fields.get("run_id", "")
        version = fields.get("redis_version", "0.0")
        if tuple(int(number) for number in version.split(".")[:2]) < _OLDEST:
            problem = f"is Redis {version}, but 6.2 or later is needed"
            raise ServerRefused(self._address.label, problem)
        if fields.get("redis_mode") == "cluster":
            problem = "is a Redis Cluster, which is not supported; use single servers as shards"
            raise ServerRefused(self._address.label, problem)

    def begin(self, *words: Any, hear: Hear | None = None) -> asyncio.Future[Any]:
        """Send one command at once; its `outcome` is what `hear` returns, or the answer.

        `hear` is called as soon as the answer comes in, unless that is an error.
        """
        assert self._wire is not None, "it is connected"  # noqa: S101
        return self._wire.ask(words, partial(self._heard, hear))

    def begin_script(
        self, script: Script, *words: Any, hear: Hear | None = None
    ) -> asyncio.Future[Any]:
        """Have a script run; as `begin`."""
        assert self._wire is not None, "it is connected"  # noqa: S101

        def heard(reply: Any) -> Any:
            if reply.__class__ is ReplyError and str(reply).startswith(_NO_SCRIPT):
                raise Again("EVAL", script.text, 0, *words)
            return self._heard(hear, reply)

        return self._wire.ask(("EVALSHA", script.sha, 0, *words), heard)

    async def outcome(self, begun: asyncio.Future[Any]) -> Any:
        """Wait for what comes of a command.

        Raises:
            LinkBroken: the connection is gone, or the server does not serve now.
            ServerRefused: the answer is an error.

        Cancellation:
            The connection is closed, since its answer is outstanding.
        """
        try:
            return await begun
        except (LinkBroken, ServerRefused):
            raise
        except GeneratorExit:  # thrown away with its event loop, where nothing can be awaited
            self.abandon()
            raise
        except BaseException:
            await self.close()
            raise

    async def ask(self, *words: Any, hear: Hear | None = None) -> Any:
        """Send one command and return its outcome."""
        return await self.outcome(self.begin(*words, hear=hear))

    def _heard(self, hear: Hear | None, reply: Any) -> Any:
        if reply.__class__ is ReplyError:
            problem = str(reply)
            if problem.startswith(_PASSING):
                raise LinkBroken(problem)
            raise ServerRefused(self._address.label, problem)
        return reply if hear is None else hear(reply)

    async def close(self) -> None:
        """Let go of the connection; nobody asks any more."""
        await self._connection.disconnect(nowait=True)
        _connections.discard(self._connection)

    def __del__(self) -> None:
        if self._connection in _connections:
            self.abandon()

    def abandon(self) -> None:
        """Close the socket alone, in a forked child or when its event loop is no more."""
        writer = self._writer
        if writer is None or self._is_abandoned:
            return
        self._is_abandoned = True  # its number may be another file's by now
        wrapper = writer.get_extra_info("socket")
        inner = getattr(wrapper, "_sock", None)
        if inner is not None:
            inner.close()
        elif wrapper is not None and wrapper.fileno() >= 0:
            os.close(wrapper.fileno())

    @property
    def _writer(self) -> Any:
        """The stream that redis-py writes to, or None; there is no public way to its transport."""
        return getattr(self._connection, "_writer", None)
