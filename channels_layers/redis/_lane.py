"""The commands of one client to one shard: in order, in batches, each with exactly one effect.

Commands that come while a batch is on its way go with the next. A batch has a number, and the
server keeps the results of the last one. After a lost connection the same batch is sent again: it
is done, or its results come back. What gave up meanwhile leaves a gap that does nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any, Final

from anyio import fail_after

from .._loops import new_waiter
from ..errors import LayerClosed
from ._command import Command
from ._errors import LinkBroken, ServerRefused, ServerSilent, ServerUnavailable
from ._link import Link
from ._scripts import BATCH
from ._tasks import LONGEST_PAUSE_S, Attempts, begin, end

_logger = logging.getLogger("channels_layers")

_MOST: Final = 256  # commands in a batch
_MOST_BYTES: Final = 1 << 20  # of payloads in a batch, but for the last command
_SHORTEST_S: Final = 0.005  # between two looks at what is late
_ELSEWHERE: Final = 1.05  # of the time: how long other event loops wait for the lane's own
_MOST_TRIES: Final = 60  # of what nobody waits for, one a second
_NOTHING: Final = ("none", 0)
_FEW: Final = 2  # commands in a batch, up to which the next is sent at once
_MANY: Final = 25  # commands in line, from which on they are


class _Superseded(Exception):
    """Another event loop has taken over, while this one did not run."""


class Lane:
    """A queue of commands and the connection through which they go; any thread may add to it."""

    def __init__(
        self,
        label: str,
        head: tuple[Any, Any],
        times: tuple[int, int],
        seconds: float,
        enter: Callable[[], Awaitable[Link]],
        extra: Callable[[], Iterable[Command]],
        seen: Callable[[int, int], None],
    ) -> None:
        """Begin with nothing to do.

        Args:
            label: Of the shard.
            head: The base of the keys, and the client.
            times: Milliseconds after which keys of a client go by themselves, and messages.
            seconds: How long a command may take.
            enter: Connects, and makes this client known; see `Shard.enter`.
            extra: Returns commands that go with the next batch, after `hurry`.
            seen: Is called with the server's time and count of changes after each batch.
        """
        self.label = label
        self.era = ""
        self.link: Link | None = None
        self.problem = ""  # why it is not connected
        self._head = head
        self._times = times
        self._seconds = seconds
        self._enter = enter
        self._extra = extra
        self._seen = seen
        self._queue: deque[Command] = deque()
        self._batch: list[Command] = []
        self._number = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._idle: asyncio.Future[None] | None = None
        self._asked: asyncio.Future[Any] | None = None  # the batch, sent before its task woke up
        self._is_calm = True  # the last batch was one command, with what goes with it
        self._is_due = False
        self._must_enter = False
        self._is_stopped = False
        self._timer: asyncio.TimerHandle | None = None
        self._patience: asyncio.Timeout | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Run in this event loop; what was left over from another one goes on."""
        if self._is_stopped:
            return
        loop = asyncio.get_running_loop()
        if self._task is None or self._task.done() or self._task.get_loop() is not loop:
            self._loop = loop
            if self.link is not None:
                self.link.abandon()
                self.link = None
            self._idle = self._asked = None
            self._timer = None
            end(self._task)  # of a loop that may run again
            self._task = begin(self._run(), self.label)
            self._watch_time()

    @property
    def is_connected(self) -> bool:
        """Whether commands can go at once."""
        return self.link is not None

    def has(self, name: str) -> bool:
        """Whether such a command is on its way or in line."""
        return any(command.name == name for command in [*self._batch, *self._queue])

    @property
    def is_busy(self) -> bool:
        """Whether something is on its way or in line."""
        return bool(self._queue or self._batch)

    def submit(
        self,
        name: str,
        *words: Any,
        then: Callable[[Any], object] | None = None,
        is_movable: bool = False,
        ends_at: float | None = None,
    ) -> Command:
        """Queue a command whose `outcome` is to be waited for, in this event loop.

        `then` is called with the result as soon as it is there, in the lane's event loop, whether
        or not anybody still waits. One that `is_movable` fails at once where no connection can be
        made, since it may be done elsewhere. It ends at `ends_at`, or when its time is over.
        """
        deadline = ends_at or time.monotonic() + self._seconds
        command = Command(name, words, deadline, new_waiter(), then)
        command.is_movable = is_movable
        self._append(command)
        if self._is_calm or len(self._queue) >= _MANY:
            self._send_now()
        return command

    async def outcome(self, command: Command) -> Any:
        """Wait for what comes of a command.

        Raises:
            ServerUnavailable: it was not done, for `seconds`.
            ServerSilent: it may have been done.
            ServerRefused: the server has refused it.

        Cancellation:
            It was done or will be at once; or it was not, and never will be.
        """
        assert command.waiter is not None, "it was submitted"  # noqa: S101
        try:
            if asyncio._get_running_loop() is self._loop:
                await command.waiter
            else:  # which may end before it can tell us
                with fail_after(_ELSEWHERE * self._seconds):
                    await command.waiter
        except TimeoutError as exc:
            command.is_over = command.is_late = True
            raise ServerSilent(self.label, "no answer in time") from exc
        except BaseException:
            command.is_over = True
            raise
        if command.error is not None:
            raise command.error
        return command.result

    async def do(
        self,
        name: str,
        *words: Any,
        then: Callable[[Any], object] | None = None,
        is_movable: bool = False,
        ends_at: float | None = None,
    ) -> Any:
        """Have a command done and return its result; as `submit` and `outcome`."""
        command = self.submit(name, *words, then=then, is_movable=is_movable, ends_at=ends_at)
        return await self.outcome(command)

    def post(
        self,
        name: str,
        *words: Any,
        then: Callable[[Any], object] | None = None,
        gives_up: bool = False,
    ) -> Command:
        """Queue a command that is tried until it is done; or, if it `gives_up`, for `seconds`.

        `then` hears None when it was given up.
        """
        command = Command(name, words, time.monotonic() + self._seconds, None, then)
        command.gives_up = gives_up
        return self._append(command)

    def put_first(
        self, commands: list[tuple[Any, ...]], then: Callable[[Any], object] | None = None
    ) -> None:
        """Let commands go before all others, the first one first; `then` hears of the last."""
        deadline = time.monotonic() + self._seconds
        for name, *words in reversed(commands):
            self._queue.appendleft(Command(name, tuple(words), deadline, None, then))
            then = None

    def enter_again(self) -> None:
        """Make the client known once more, on another connection."""
        self._must_enter = True
        self.post("none")

    def hurry(self) -> None:
        """Send what `extra` has, with the next batch, even if nothing else is to be sent."""
        self._is_due = True
        self._go_on_at_home()

    def pause(self) -> list[asyncio.Task[None]]:
        """End in this event loop, and let `start` go on in another; return as `stop`."""
        task, self._task = self._task, None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        return end(task)

    def stop(self) -> list[asyncio.Task[None]]:
        """End; return the tasks that do, which must be awaited."""
        self._is_stopped = True
        tasks = self.pause()
        for command in [*self._batch, *self._queue]:
            command.is_done = True
            command.end(
                error=ServerSilent(self.label, "was closed") if command.is_sent else LayerClosed()
            )
        self._batch, self._queue = [], deque()
        return tasks

    # Helpers

    def _append(self, command: Command) -> Command:
        self._queue.append(command)
        self._go_on_at_home()
        return command

    def _go_on_at_home(self) -> None:
        loop = self._loop
        if loop is asyncio._get_running_loop():
            self._go_on()
        elif loop is not None:
            with contextlib.suppress(RuntimeError):  # it has closed: `start` is to come
                loop.call_soon_threadsafe(self._go_on)

    def _go_on(self) -> None:
        if self._idle is not None and not self._idle.done():
            self._idle.set_result(None)
        if self._timer is None and self._task is not None:
            self._watch_time()

    def _send_now(self) -> None:
        """Send a batch without waiting for the task to get its turn, if nothing is on its way.

        A lone command has nothing to wait for. Where there are many, the server works on the
        first of them while the others are made.
        """
        if (
            self._task is not None
            and self._loop is asyncio._get_running_loop()
            and self.link is not None
            and not (self._batch or self._must_enter)
            and self._gather()
        ):
            self._asked = self._begin(self.link)

    async def _run(self) -> None:
        try:
            while True:
                while not (self._batch or self._gather()):
                    self._idle = asyncio.get_running_loop().create_future()
                    await self._idle
                    self._idle = None
                try:
                    await self._done()
                except _Superseded:
                    return
                except Exception as exc:  # whatever it is, the others must be served
                    _logger.exception("a batch for redis %s failed", self.label)
                    self._fail(ServerSilent(self.label, repr(exc)))
                    await self._disconnect()
        except asyncio.CancelledError:
            if self._task in (None, asyncio.current_task()):  # or the link is another loop's
                await self._disconnect()
            raise

    def _gather(self) -> bool:
        """Make a batch of what is to be done; False if that is nothing."""
        batch: list[Command] = []
        size_bytes = 0
        queue = self._queue
        while queue and len(batch) < _MOST and size_bytes < _MOST_BYTES:
            # It removes the results of the batch that it is in, which may be asked for again.
            if queue[0].name == "forget" and batch:
                break
            command = queue.popleft()
            command.is_done = command.is_given_up
            if not command.is_done:
                batch.append(command)
                size_bytes += command.size_bytes
                if command.name == "forget":
                    break
        if self._is_due and not (batch and batch[0].name == "forget"):
            self._is_due = False
            # First, so that what was read makes room for what is sent.
            batch = [*self._extra(), *batch]
        if batch:
            self._number += 1
            self._batch = batch
        return bool(batch)

    async def _done(self) -> None:
        """Have the batch done, over as many connections as it takes; or given up."""
        attempts = Attempts()
        while True:
            try:
                link = await self._connected()
                if await self._ask(link):
                    return
                # The server does not know our era: enter again, as after a lost connection.
                await self._disconnect()
            except (LinkBroken, TimeoutError, OSError) as exc:
                self.problem = str(exc) or "no answer"
                if self.link is None:
                    self._fail_movable()
                await self._disconnect()
            except ServerRefused as exc:
                self.problem = exc.problem
                if self.link is not None:
                    self._fail(exc)  # a command of the batch; the others cannot be told apart
                    return
                self._fail_waiting(exc)
                await self._disconnect()
            if all(command.is_given_up for command in self._batch):
                for command in self._batch:
                    command.is_done = True
                self._batch = []
                return
            await attempts.pause()

    def _heard(self, link: Link, reply: list[Any]) -> bool:
        """Tell the commands of the batch what came of them; False where it was not done."""
        if self.link is not link:
            raise _Superseded
        self._asked = None
        if reply[0] == b"ok":
            self._answer(reply)
        elif reply[0] == b"stale":
            self._fail(ServerSilent(self.label, "was asked anew meanwhile"))
        return reply[0] in (b"ok", b"stale")

    async def _connected(self) -> Link:
        if self._must_enter:
            await self._disconnect()
        if self.link is None:
            async with asyncio.timeout(self._seconds):
                self.link = await self._enter()
            self._must_enter = False
            self.problem = ""
        return self.link

    def _begin(self, link: Link) -> asyncio.Future[Any]:
        """Send the batch."""
        words: list[Any] = [*self._head, self._number, self.era, *self._times]
        for command in self._batch:
            command.is_blank = command.is_given_up
            if command.is_blank:
                words += _NOTHING  # in its place, since results are told by theirs
            else:
                words += (command.name, len(command.words), *command.words)
                command.is_sent = True
        return link.begin_script(BATCH, *words, hear=partial(self._heard, link))

    async def _ask(self, link: Link) -> bool:
        """Send the batch, if it is not on its way, and wait until its answer was heard."""
        asked, self._asked = self._asked, None
        async with asyncio.timeout(None) as patience:
            self._patience = patience
            try:
                return bool(await link.outcome(asked or self._begin(link)))
            finally:
                if self._patience is patience:  # and not that of another loop
                    self._patience = None

    def _answer(self, reply: list[Any]) -> None:
        _, now, changes, results = reply
        batch, self._batch = self._batch, []
        self._is_calm = len(batch) <= _FEW
        self._seen(int(now), changes)
        for command, result in zip(batch, results, strict=True):
            if isinstance(result, list) and result[:1] == [b"!"]:
                problem = result[1].decode(errors="replace")
                self._end_badly(command, ServerRefused(self.label, problem))
                continue
            command.is_done = True
            # What was given up may have been done before, and then these are its results.
            if not (command.gives_up and command.is_over) and not (command.is_blank and not result):
                command.tell(result)
            command.end(result)

    def _fail(self, exc: Exception) -> None:
        """Let all commands of the batch fail."""
        batch, self._batch = self._batch, []
        for command in batch:
            self._end_badly(command, exc)

    def _end_badly(self, command: Command, exc: Exception) -> None:
        """Let a command fail, or try it again later where nobody could."""
        command.end(error=exc)
        if command.waiter is not None:
            command.is_done = True
            return
        _logger.error("redis %s did not do %r: %s", self.label, command.name, exc)
        command.tries += 1
        if command.gives_up or command.tries > _MOST_TRIES:
            command.is_done = command.is_over = True
            command.tell(None)
        else:
            asyncio.get_running_loop().call_later(LONGEST_PAUSE_S, self._append, command)

    def fail_sent(self, problem: str) -> None:
        """Let those commands fail that may have been done before the server went back in time."""
        for command in self._batch:
            if command.is_sent:
                command.end(error=ServerSilent(self.label, problem))
                command.is_late = True

    def _fail_movable(self) -> None:
        """Let those commands fail that may be done elsewhere, and were not sent here."""
        for command in [*self._batch, *self._queue]:
            if command.is_movable and not command.is_sent:
                command.is_late = True
                command.end(error=ServerUnavailable(self.label, self.problem))

    def _fail_waiting(self, exc: ServerRefused) -> None:
        """Let all commands fail that wait for a connection, which cannot be made."""
        for command in [*self._batch, *self._queue]:
            command.end(error=exc)

    async def _disconnect(self) -> None:
        link, self.link, self._asked = self.link, None, None
        if link is not None:
            await link.close()

    def _watch_time(self) -> None:
        """Wake up when the first command has waited for too long."""
        waiting = [*self._batch[:1], *([self._queue[0]] if self._queue else [])]
        if not waiting:
            self._timer = None
            return
        due_in_s = min(command.deadline for command in waiting) - time.monotonic()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(max(due_in_s, _SHORTEST_S), self._expire)

    def _expire(self) -> None:
        now = time.monotonic()
        problem = self.problem or "no answer in time"
        is_late = False
        for command in [*self._batch, *self._queue]:
            if command.deadline > now:
                continue
            is_late = is_late or command.is_sent
            if command.waiter is None and not command.gives_up:
                command.deadline = now + self._seconds
                continue
            if command.gives_up and not command.is_over:
                command.is_over = command.is_late = True
                command.tell(None)
                continue
            command.is_late = True
            if command.is_sent:
                command.end(error=ServerSilent(self.label, problem))
            else:
                command.end(error=ServerUnavailable(self.label, problem))
        while self._queue and self._queue[0].is_given_up:
            self._queue.popleft()
        if is_late and self._patience is not None:
            # The server is silent: try another connection.
            self._patience.reschedule(asyncio.get_running_loop().time())
        self._watch_time()
