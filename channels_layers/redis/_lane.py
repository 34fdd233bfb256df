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
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any, Final

from anyio import fail_after

from .._loops import new_waiter
from ._command import Command
from ._errors import LinkBroken, NotServing, ServerRefused, ServerSilent, ServerUnavailable
from ._link import Link
from ._pending import Pending
from ._scripts import BATCH
from ._tasks import LONGEST_PAUSE_S, Attempts, begin, end

_logger = logging.getLogger("channels_layers")

_SHORTLY_S: Final = 1.0  # of trouble, in which it may go by
_SHORTEST_S: Final = 0.005  # between two looks at what is late
_ELSEWHERE: Final = 1.05  # of the time: how long other event loops wait for the lane's own
_NEVER: Final = float("inf")
_MANY: Final = 25  # commands in line, from which on a batch is sent at once


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
        loop_ends: Callable[[], None],
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
            loop_ends: Queues what must be said before the event loop ends.
        """
        self.label = label
        self.era = ""
        self.link: Link | None = None
        self.problem = ""  # why it is not connected
        self._troubled_at = 0.0  # when that began
        self._head = head
        self._times = times
        self._seconds = seconds
        self._enter = enter
        self._seen = seen
        self._loop_ends = loop_ends
        self._pending = Pending(label, seconds, extra, self._later)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._idle: asyncio.Future[None] | None = None
        self._asked: asyncio.Future[Any] | None = None  # the batch, sent before its task woke up
        self._must_enter = False
        self._is_stopped = False
        self._timer: asyncio.TimerHandle | None = None
        self._due_at = _NEVER  # when it looks for what is late
        self._is_hasty = False  # something is due before
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

    @property
    def is_down(self) -> bool:
        """Whether it has tried to connect for a while."""
        return bool(self.problem) and time.monotonic() > self._troubled_at + _SHORTLY_S

    def has(self, name: str) -> bool:
        """Whether such a command is on its way or in line."""
        return self._pending.has(name)

    @property
    def is_busy(self) -> bool:
        """Whether something is on its way or in line."""
        return self._pending.is_busy

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
        self.queue(command)
        return command

    def command(
        self,
        name: str,
        *words: Any,
        then: Callable[[Any], object] | None = None,
        ends_at: float | None = None,
    ) -> Command:
        """Make a command as `submit` does, that is to be queued; its time runs from now on."""
        deadline = ends_at or time.monotonic() + self._seconds
        return Command(name, words, deadline, new_waiter(), then)

    def queue(self, command: Command) -> None:
        """Queue a command that somebody waits for."""
        self._append(command)
        if self._pending.is_calm or len(self._pending.line) >= _MANY:
            self._send_now()

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
        gives_up_at: float | None = None,
    ) -> Command:
        """Queue a command that is tried until it is done, or until `gives_up_at`.

        `then` hears None when it was given up.
        """
        deadline = gives_up_at or time.monotonic() + self._seconds
        command = Command(name, words, deadline, None, then)
        command.gives_up = gives_up_at is not None
        return self._append(command)

    def give_up(self, command: Command) -> None:
        """Let a command fail that changes nothing, before its time is over."""
        command.is_late = True
        command.end(error=ServerUnavailable(self.label, self.problem or "no answer in time"))

    def put_first(
        self, commands: list[tuple[Any, ...]], then: Callable[[Any], object] | None = None
    ) -> None:
        """Let commands go before all others, the first one first; `then` hears of the last."""
        self._pending.put_first(commands, then)

    def begin_anew(self) -> None:
        """Hear that the server keeps no results of earlier batches."""
        self._pending.first = self._pending.number

    def fail_sent(self, problem: str) -> None:
        """Let those commands fail that may have been done before the server went back in time."""
        self._pending.fail_sent(problem)

    def enter_again(self) -> None:
        """Make the client known once more, on another connection."""
        self._must_enter = True
        self.post("none")

    def hurry(self) -> None:
        """Send what `extra` has, with the next batch, even if nothing else is to be sent."""
        self._pending.is_due = True
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
        self._pending.end_all()
        return tasks

    # Helpers

    def _append(self, command: Command) -> Command:
        self._pending.line.append(command)
        if command.deadline < self._due_at:
            self._is_hasty = True
        if self._is_stopped:
            self._pending.end_all()  # any thread may add something afterwards
        else:
            self._go_on_at_home()
        return command

    def _later(self, command: Command) -> None:
        asyncio.get_running_loop().call_later(LONGEST_PAUSE_S, self._append, command)

    def _go_on_at_home(self) -> None:
        loop = self._loop
        if loop is asyncio._get_running_loop():
            self._go_on()
        elif loop is not None:
            with contextlib.suppress(RuntimeError):  # it has closed: `start` is to come
                loop.call_soon_threadsafe(self._go_on)

    def _go_on(self) -> None:
        if self._loop is not asyncio._get_running_loop():
            return  # another one has taken over, and found what this was called for
        if self._idle is not None and not self._idle.done():
            self._idle.set_result(None)
        if self._task is not None and (self._timer is None or self._is_hasty):
            self._is_hasty = False
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
            and not (self._pending.batch or self._must_enter)
            and self._pending.gather()
        ):
            self._asked = self._begin(self.link)

    async def _run(self) -> None:
        try:
            while not self._is_superseded():
                while not (self._pending.batch or self._pending.gather()):
                    self._idle = asyncio.get_running_loop().create_future()
                    await self._idle
                    if self._is_superseded():
                        return
                    self._idle = None
                try:
                    await self._done()
                except _Superseded:
                    return
                except Exception as exc:  # whatever it is, the others must be served
                    _logger.exception("a batch for redis %s failed", self.label)
                    self._pending.fail(ServerSilent(self.label, repr(exc)))
                    await self._disconnect()
        except asyncio.CancelledError:
            if self._task is asyncio.current_task():  # and not paused or stopped
                self.say_last()
            await self._disconnect()
            raise

    def say_last(self) -> None:
        """Send what must be said before the event loop ends, be it that nobody hears the answer."""
        self._loop_ends()
        self._send_now()

    def _is_superseded(self) -> bool:
        """Whether the running task is an old one: all but its own link is another loop's now."""
        return self._task not in (None, asyncio.current_task())

    async def _done(self) -> None:
        """Have the batch done, over as many connections as it takes; or given up."""
        attempts = Attempts()
        while True:
            if self._is_superseded():
                raise _Superseded
            is_full = False
            try:
                link = await self._connected()
                if await self._ask(link):
                    return
                # The server does not know our era: enter again, as after a lost connection.
                await self._disconnect()
            except (LinkBroken, TimeoutError, OSError) as exc:
                is_full = await self._hear_failure(exc)
            except ServerRefused as exc:
                self._note(exc.problem)
                if self.link is not None:
                    self._pending.fail(exc)  # one of them, and nobody can tell which
                    return
                self._pending.fail_waiting(exc)
                await self._disconnect()
            if self._pending.let_go():
                return
            await (self._until_room(attempts) if is_full else attempts.pause())

    async def _hear_failure(self, exc: Exception) -> bool:
        """Note that the batch was not done, or perhaps not; say whether the server is full."""
        self._note(str(exc) or "no answer")
        is_full = False
        if self.link is not None and isinstance(exc, NotServing):
            self._pending.refused()
            is_full = exc.is_full
        if self.link is None or is_full:
            self._pending.fail_movable(self.problem)
        if not is_full:
            await self._disconnect()
        return is_full

    async def _until_room(self, attempts: Attempts) -> None:
        """Wait until it is time for the next attempt, or there is what a full server does."""
        ends_at = time.monotonic() + attempts.next_s()
        while not self._pending.make_room_first():
            idle = self._idle = asyncio.get_running_loop().create_future()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ends_at - time.monotonic()):
                    await idle
            if self._is_superseded():
                raise _Superseded
            self._idle = None
            if time.monotonic() >= ends_at:
                return

    def _heard(self, link: Link, reply: list[Any]) -> bool:
        """Tell the commands of the batch what came of them; False where it was not done."""
        if self.link is not link:
            raise _Superseded
        self._asked = None
        if reply[0] == b"ok":
            _, now, changes, results = reply
            self.problem = ""
            self._seen(int(now), changes)
            self._pending.answer(results)
        elif reply[0] == b"stale":
            self._pending.fail(ServerSilent(self.label, "was asked anew meanwhile"))
        else:
            self._pending.refused()
        return reply[0] in (b"ok", b"stale")

    def _note(self, problem: str) -> None:
        if not self.problem:
            self._troubled_at = time.monotonic()
        self.problem = problem

    async def _connected(self) -> Link:
        if self._must_enter:
            await self._disconnect()
        if self.link is None:
            async with asyncio.timeout(self._seconds):
                link = await self._enter()
            if self._is_superseded():
                await link.close()
                raise _Superseded
            self.link = link
            self._must_enter = False
            self.problem = ""
        return self.link

    def _begin(self, link: Link) -> asyncio.Future[Any]:
        """Send the batch."""
        pending = self._pending
        commands = pending.words()
        head = (*self._head, pending.number, self.era, *self._times)
        words = (*head, pending.first, int(pending.makes_room), *commands)
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

    async def _disconnect(self) -> None:
        if self._is_superseded():
            return
        link, self.link, self._asked = self.link, None, None
        if link is not None:
            await link.close()

    def _watch_time(self) -> None:
        """Wake up when the first command has waited for too long."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._due_at = self._pending.next_deadline()
        if self._due_at < _NEVER:
            loop = asyncio.get_running_loop()
            due_in_s = max(self._due_at - time.monotonic(), _SHORTEST_S)
            self._timer = loop.call_later(due_in_s, self._expire)

    def _expire(self) -> None:
        if asyncio._get_running_loop() is not self._loop:
            return  # another one has taken over, with a timer of its own
        is_silent = self._pending.expire(self.problem or "no answer in time")
        if is_silent and self._patience is not None and not self._patience.expired():
            # Try another connection.
            self._patience.reschedule(asyncio.get_running_loop().time())
        self._timer = None
        self._watch_time()
