"""One client at one shard: it is known there, hears what comes, and knows when that was lost."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple, Protocol

from ._command import Command
from ._errors import LinkBroken, ServerRefused
from ._hosts import Address
from ._lane import Lane
from ._link import Link
from ._scripts import ENTER
from ._tasks import Attempts, begin, end

_logger = logging.getLogger("channels_layers")

_MOST_ENTRIES: Final = 512  # read at once
_BLOCK_MS: Final = 2000  # after which the server answers all the same, so that a deaf link shows
_SLOWLY: Final = 0.01  # how fast the estimate of the server's clock follows late answers
_BEGIN: Final = "0-0"


class Host(Protocol):
    """What a shard tells its client."""

    def came_in(self, shard: Shard, entries: list[Any]) -> None:
        """Take what came into the inbox."""
        ...

    def given(self, shard: Shard, entries: list[Any]) -> None:
        """Take messages of channels that no client owns."""
        ...

    def restore(self, shard: Shard, state: str) -> None:
        """Make known again what the shard has lost."""
        ...

    def loop_ends(self) -> None:
        """Say what must be said before the event loop of the home ends."""
        ...

    def entered(self, shard: Shard) -> None:
        """Act when the shard knows nothing of this client, be it that others have told of it."""
        ...


class Setup(NamedTuple):
    """What all shards of a client have in common."""

    base: str  # of all keys
    client: str
    fingerprint: str  # of the set of shards, or ""
    ttl_ms: int  # after which keys of a client go by themselves
    expiry_ms: int
    seconds: float  # for one command
    redelivers: bool  # what stood in a queue before the server went back in time


class Shard:
    """The lane of one client to one shard, and the reader if there is something to hear."""

    def __init__(
        self,
        index: int,
        address: Address,
        setup: Setup,
        host: Host,
        extra: Callable[[Shard], Iterable[Command]],
        *,
        is_home: bool,
    ) -> None:
        self.index = index
        self.label = address.label
        self.is_home = is_home
        self.is_used = False  # commands go to it, or did
        self.generation = 0  # the last one heard of
        self.flushed = 0  # the one that the last flush of this client began
        self.position = ""  # of the last entry of the inbox that was taken in
        self.given = _BEGIN  # the same of messages of channels that no client owns
        self._address = address
        self._setup = setup
        self._host = host
        self._run = ""
        self._changes = 0
        self._ahead_ms: float | None = None  # the server's clock, of ours
        self._reader: asyncio.Task[None] | None = None
        self._reading: Link | None = None
        self._restart: asyncio.Timeout | None = None
        self.lane = Lane(
            address.label,
            (setup.base, setup.client),
            (setup.ttl_ms, setup.expiry_ms),
            setup.seconds,
            self._enter,
            lambda: extra(self),
            self._see,
            host.loop_ends,
        )

    def start(self) -> None:
        """Send what is to be sent in this event loop, from now on."""
        self.is_used = True
        self.lane.start()

    def listen(self) -> None:
        """Hear what comes in this event loop, from now on."""
        loop = asyncio.get_running_loop()
        reader = self._reader
        if reader is None or reader.done() or reader.get_loop() is not loop:
            end(reader)  # of a loop that may run again
            if self._reading is not None:
                self._reading.abandon()
            self._reader = begin(self._read(), f"reader {self.label}")

    def stop_listening(self) -> list[asyncio.Task[None]]:
        """Hear nothing more; return the tasks that end, which must be awaited."""
        reader, self._reader = self._reader, None
        return end(reader)

    @property
    def is_connected(self) -> bool:
        """Whether commands can go at once."""
        return self.lane.is_connected

    def lifetime(self, expires_ms: int) -> float:
        """Return the seconds that are left until a moment of the server's clock."""
        if self._ahead_ms is None:
            return self._setup.expiry_ms / 1000
        return (expires_ms - self._ahead_ms) / 1000 - time.monotonic()

    # Entering

    async def _enter(self) -> Link:
        """Connect, and make the client known.

        Raises:
            LinkBroken: that is not possible now.
            ServerRefused: nor later.
        """
        setup, lane = self._setup, self.lane
        link = Link(self._address, setup.seconds)
        try:
            await link.connect()
            token = secrets.token_hex(8)
            is_other_run = int(bool(self._run) and self._run != link.run)
            words = (
                setup.base, setup.client, token, link.run, lane.era, self._changes, is_other_run,
                int(self.is_home), self.position, setup.fingerprint, setup.ttl_ms,
            )  # fmt: skip
            reply = await link.outcome(link.begin_script(ENTER, *words))
        except GeneratorExit:
            link.abandon()
            raise
        except BaseException:
            await link.close()
            raise
        if reply[0] == b"topology":
            await link.close()
            raise _other_topology(self.label, setup.fingerprint, reply[1].decode())
        state, era, changes, now, generation, position = reply
        self._run = link.run
        self._see(int(now), int(changes), is_new=state != b"known")
        lane.era = era.decode()
        if state != b"known":
            lane.begin_anew()
        if self.is_home and not self.position:  # the reader may have gone on meanwhile
            self.position = position.decode()
        if state not in (b"known", b"new", b"met"):
            lane.fail_sent("the server has lost what it knew")
            self.given = _BEGIN
            self._listen_anew()
            self._host.restore(self, state.decode())
        elif state == b"new":
            self._host.entered(self)
        self.generation = int(generation)
        return link

    def _see(self, now_ms: int, changes: int, *, is_new: bool = False) -> None:
        """Learn from an answer what time it is there, and how much has happened."""
        self._changes = changes if is_new else max(changes, self._changes)
        ahead_ms = now_ms - time.monotonic() * 1000
        known = self._ahead_ms
        # An answer can be late, never early.
        if known is None or ahead_ms > known:
            self._ahead_ms = ahead_ms
        else:
            self._ahead_ms = known + (ahead_ms - known) * _SLOWLY

    # Hearing

    async def _read(self) -> None:
        attempts = Attempts()
        while self._reader is asyncio.current_task():
            link = self._reading = Link(self._address, self._setup.seconds)
            try:
                async with asyncio.timeout(self._setup.seconds):
                    await link.connect(looks=False)
                self.lane.hurry()  # and see whether we are still known
                while self._reader is asyncio.current_task():
                    await self._read_on(link)
                    attempts = Attempts()
                await link.close()
                return
            except (LinkBroken, ServerRefused, TimeoutError, OSError):
                await link.close()  # the lane tells those who wait for something
            except Exception:  # whatever it is, this client must not become deaf
                _logger.exception("the reader of redis %s failed", self.label)
                await link.close()
            except GeneratorExit:  # thrown away with its event loop
                link.abandon()
                raise
            except BaseException:
                await link.close()
                raise
            await attempts.pause()

    async def _read_on(self, link: Link) -> None:
        """Wait for what comes next, and hand it over."""
        setup = self._setup
        given = f"{setup.base}sub:{setup.client}"
        inbox = f"{setup.base}in:{setup.client}"
        streams, positions = [given], [self.given]
        if self.is_home:
            streams, positions = [inbox, given], [self.position or _BEGIN, self.given]
        words = ("COUNT", _MOST_ENTRIES, "BLOCK", _BLOCK_MS, "STREAMS", *streams, *positions)
        reader = self._reader

        def hear(found: Any) -> None:
            """Act at once: nothing that was heard is lost to a cancellation."""
            if not found or self._reader is not reader:
                return  # in the second case another event loop has taken over
            by_stream = dict(found)
            entries = by_stream.get(inbox.encode())
            if entries:
                self._host.came_in(self, entries)
            entries = by_stream.get(given.encode())
            if entries:
                self.given = entries[-1][0].decode()
                self._host.given(self, entries)

        async with asyncio.timeout(_BLOCK_MS / 1000 + setup.seconds) as restart:
            self._restart = restart
            try:
                await link.ask("XREAD", *words, hear=hear)
            finally:
                if self._restart is restart:  # and not that of another loop
                    self._restart = None

    def _listen_anew(self) -> None:
        """Read from other positions, not from those that a waiting command has."""
        if self._restart is not None:
            self._restart.reschedule(asyncio.get_running_loop().time())


def _other_topology(label: str, ours: str, theirs: str) -> Exception:
    problem = (
        f"the clients that live there use another set of shards: they have [{theirs}], "
        f"this one has [{ours}]"
    )
    return ServerRefused(label, problem)
