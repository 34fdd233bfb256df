"""One connection to one server: a command, then its answer. All that knows redis-py."""

from __future__ import annotations

import asyncio
import re
from functools import partial
from typing import Any, Final

from hiredis import ReplyError
from redis import exceptions as theirs
from redis.asyncio.connection import AbstractConnection, Connection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from .. import _fork
from . import _abandoned
from ._errors import LinkBroken, NotServing, ServerRefused
from ._hosts import Address
from ._scripts import Script
from ._wire import Again, Hear, Wire

_OLDEST: Final = (6, 2)
# How those errors begin after which another attempt, later or elsewhere, may succeed. A script
# gets them before it has changed anything. Redis 6.2 then puts words before them, 7.0 behind.
_PASSING: Final = re.compile(
    r"(?:ERR Error running script .*: -)?"
    r"((?:BUSY|CLUSTERDOWN|LOADING|MASTERDOWN|MISCONF|NOREPLICAS|OOM|READONLY|TRYAGAIN|UNKILLABLE)"
    r"\b.*?)(?: script: \w+, on @user_script:\d+\.)?",
    re.DOTALL,
)
_NO_SCRIPT: Final = "NOSCRIPT"
_NO_DATABASE: Final = ("DB index", "invalid DB index")  # of that number


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
        self.run = ""  # the server's; another one after each of its starts
        _fork.in_child(self, Link._abandon_in_child)

    async def connect(self, *, looks: bool = True) -> None:
        """Connect; and look whom we speak to, if it `looks`.

        Raises:
            LinkBroken: that is not possible now.
            ServerRefused: it never will be.
        """
        loop = asyncio.get_running_loop()
        _abandoned.watch(self._connection, loop)
        try:
            await self._connect_in(loop)
        except (theirs.AuthenticationError, theirs.AuthorizationError) as exc:
            raise ServerRefused(self._address.label, f"{exc}") from exc
        except (theirs.RedisError, OSError) as exc:
            problem = str(exc) or type(exc).__name__
            if problem.startswith(_NO_DATABASE):
                raise ServerRefused(self._address.label, problem) from exc
            raise LinkBroken(problem) from exc
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            # redis-py takes a cancellation for its own while it connects, and returns.
            await self.close()
            raise asyncio.CancelledError
        if self._writer is None:
            raise LinkBroken("abandoned while it connected, in an event loop that did not run")
        self._wire = Wire(self._writer.transport)
        if looks:
            await self._look()

    async def _connect_in(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            await self._connection.connect()  # type: ignore[no-untyped-call]
        except BaseException:
            if asyncio._get_running_loop() is not loop:
                # Thrown away with it. What redis-py then tries needs a loop, and fails.
                self.abandon()
                raise GeneratorExit from None
            raise

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
            if passing := _PASSING.fullmatch(problem):
                raise NotServing(passing[1])
            raise ServerRefused(self._address.label, problem)
        return reply if hear is None else hear(reply)

    async def close(self) -> None:
        """Let go of the connection; nobody asks any more."""
        await self._connection.disconnect(nowait=True)
        _abandoned.closed(self._connection)

    def __del__(self) -> None:
        if _abandoned.is_watched(self._connection):
            self.abandon()

    def abandon(self) -> None:
        """Let go of the connection, where its event loop is not there to close it; any thread."""
        _abandoned.abandon(self._connection)

    def _abandon_in_child(self) -> None:
        _abandoned.abandon_in_child(self._connection)

    @property
    def _writer(self) -> Any:
        """The stream that redis-py writes to, or None; there is no public way to its transport."""
        return getattr(self._connection, "_writer", None)
