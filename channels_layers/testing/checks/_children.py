"""Forked children that run a few calls and tell their parent what came of it."""

from __future__ import annotations

import json
import os
import signal
import threading
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio

ChildBody = Callable[["Reporter"], Awaitable[None]]


class Reporter:
    """The child's end of the pipe: one line of JSON per report."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def tell(self, value: object) -> None:
        """Send `value` to the parent."""
        os.write(self._descriptor, json.dumps(value).encode() + b"\n")


class Child:
    """The parent's end: what the child told so far, and whether it lives."""

    def __init__(self, pid: int, descriptor: int) -> None:
        self.pid = pid
        self._descriptor = descriptor
        self._unread = b""

    async def told(self) -> Any:
        """Wait for the next report of the child; an error there is an error here."""
        while b"\n" not in self._unread:
            with suppress(BlockingIOError):
                chunk = os.read(self._descriptor, 65536)
                assert chunk, "the child ended without a word"
                self._unread += chunk
            await anyio.sleep(0.002)
        line, _, self._unread = self._unread.partition(b"\n")
        value = json.loads(line)
        assert not (isinstance(value, dict) and "error" in value), f"in the child: {value}"
        return value

    def kill(self) -> None:
        """Kill the child as the kernel would: without a last word."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)


@asynccontextmanager
async def forked(body: ChildBody, *, seconds: int = 20) -> AsyncIterator[Child]:
    """Fork, run `body` on a new asyncio loop in the child, and kill the child at the end.

    Args:
        body: Gets a `Reporter`; what it raises is reported as well.
        seconds: How long the child lives at most, should the parent die.
    """
    reading, writing = os.pipe()
    pid = _fork()
    if pid == 0:
        os.close(reading)
        _live_as_child(body, Reporter(writing), seconds)
    os.close(writing)
    os.set_blocking(reading, False)
    child = Child(pid, reading)
    try:
        yield child
    finally:
        child.kill()
        os.waitpid(pid, 0)  # noqa: ASYNC222  # killed just now: it is gone at once
        os.close(reading)


def _fork() -> int:
    with warnings.catch_warnings():
        # Python warns of forks beside threads; that such a fork works is what is tested.
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def _live_as_child(body: ChildBody, reporter: Reporter, seconds: int) -> None:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(seconds)
    try:
        # In this thread the loop of the parent seems to run; in a new one nothing does.
        thread = threading.Thread(target=_run, args=(body, reporter))
        thread.start()
        thread.join()
    finally:
        os._exit(0)  # nothing of the parent may be finalised here


def _run(body: ChildBody, reporter: Reporter) -> None:
    try:
        anyio.run(body, reporter, backend="asyncio")
    except BaseException as error:  # noqa: BLE001  # the parent has to hear of it
        reporter.tell({"error": repr(error)})
