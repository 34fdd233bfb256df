"""Processes that use the IPC layer, told what to do and killed, stopped and looked at by a test.

A process runs one coroutine function of `ipc_roles`, or of the test's module, with a `Report` and
plain values. It is forked from the test, or begun anew as a spawned one is.
"""

from __future__ import annotations

import asyncio
import fcntl
import importlib
import json
import os
import secrets
import select
import signal
import stat
import subprocess
import sys
import threading
import time
import traceback
import warnings
from contextlib import suppress
from pathlib import Path

from channels_layers.ipc import _place, _segment

LIMIT = 60.0  # seconds for anything; only what hangs ever gets there
ROOT = Path(__file__).parents[2]


def until(is_so, what, seconds=LIMIT):
    """Poll `is_so` until it is true; fail with `what` when it takes too long."""
    ends_at = time.monotonic() + seconds
    while not (found := is_so()):
        assert time.monotonic() < ends_at, f"not within {seconds} s: {what}"
        time.sleep(0.002)
    return found


class Report:
    """What a process has to talk to its test."""

    def __init__(self, writing, reading):
        self._writing = writing
        self._reading = reading
        self._unread = b""

    def tell(self, value):
        os.write(self._writing, json.dumps(value).encode() + b"\n")

    @property
    def is_told(self):
        """Whether the test has said anything that was not `heard`."""
        return bool(self._unread) or bool(select.select([self._reading], [], [], 0)[0])

    async def heard(self):
        """Wait for what the test says."""
        while b"\n" not in self._unread:
            if select.select([self._reading], [], [], 0)[0]:
                chunk = os.read(self._reading, 65536)
                if not chunk:
                    os._exit(3)  # the test has gone
                self._unread += chunk
            await asyncio.sleep(0.002)
        line, _, self._unread = self._unread.partition(b"\n")
        return json.loads(line)


class Process:
    """One process, from the side of its test."""

    def __init__(self, role, *values, how="fork", environment=None):
        reading, its_writing = os.pipe()
        its_reading, writing = os.pipe()
        self._reading, self._writing, self._unread = reading, writing, b""
        self.status = None
        if how == "fork":
            self.pid = _fork()
            if not self.pid:
                os.close(reading)
                os.close(writing)
                _live(role, values, its_writing, its_reading)
        else:
            name = f"{role.__module__}:{role.__qualname__}"
            given = json.dumps([name, its_writing, its_reading, values])
            path = os.pathsep.join([str(ROOT), str(Path(__file__).parent)])
            self.popen = subprocess.Popen(
                [sys.executable, "-W", "error", __file__, given],
                pass_fds=(its_writing, its_reading),
                env={**os.environ, "PYTHONPATH": path, **(environment or {})},
            )
            self.pid = self.popen.pid
        os.close(its_writing)
        os.close(its_reading)
        os.set_blocking(reading, False)

    def told(self, seconds=LIMIT):
        """Wait for the next report; an error there is an error here."""
        ends_at = time.monotonic() + seconds
        while b"\n" not in self._unread:
            left = ends_at - time.monotonic()
            assert left > 0, f"process {self.pid} has said nothing for {seconds} s"
            if select.select([self._reading], [], [], left)[0]:
                chunk = os.read(self._reading, 65536)
                assert chunk, f"process {self.pid} has ended without a word"
                self._unread += chunk
        line, _, self._unread = self._unread.partition(b"\n")
        value = json.loads(line)
        assert not (isinstance(value, dict) and "error" in value), f"in the child: {value['error']}"
        return value

    def say(self, value="go on"):
        os.write(self._writing, json.dumps(value).encode() + b"\n")

    def kill(self):
        """As the kernel would: without a last word."""
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)
            self._reap()

    def stop(self):
        os.kill(self.pid, signal.SIGSTOP)
        self.await_stop()

    def await_stop(self):
        """Wait until it has been stopped, or has stopped itself."""
        until(lambda: self._state() == "T", f"process {self.pid} is stopped")

    def go_on(self):
        os.kill(self.pid, signal.SIGCONT)

    def ended(self, seconds=LIMIT):
        """Wait for its end; return its exit status, negative for a signal."""
        until(self._is_over, f"process {self.pid} has ended", seconds)
        return self.status

    def close(self):
        self.kill()
        for descriptor in (self._reading, self._writing):
            os.close(descriptor)

    def _is_over(self):
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._note(status)
        return self.status is not None

    def _reap(self):
        self._note(os.waitpid(self.pid, 0)[1])

    def _note(self, status):
        self.status = os.waitstatus_to_exitcode(status)
        if hasattr(self, "popen"):
            self.popen.returncode = self.status

    def _state(self):
        return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]


class Processes:
    """All processes of one test; none outlives it."""

    def __init__(self):
        self.all = []

    def start(self, role, *values, **options):
        process = Process(role, *values, **options)
        self.all.append(process)
        return process

    def close(self):
        for process in self.all:
            process.close()


class Prefix:
    """A prefix of its own, and what is to be seen of it from outside."""

    def __init__(self):
        self.name = f"fault-{os.getpid()}-{secrets.token_hex(4)}"
        self.folder = _place.SHARED_MEMORY / _place.folder_name(self.name)

    def files(self):
        """Return the names of all files, sorted; none where there is no folder."""
        with suppress(FileNotFoundError):
            return sorted(path.name for path in self.folder.iterdir())
        return []

    def file(self, begin):
        """Return the only file whose name begins so."""
        (path,) = self.folder.glob(f"{begin}*")
        return path

    def remove(self):
        for name in self.files():
            (self.folder / name).unlink(missing_ok=True)
        with suppress(FileNotFoundError):
            self.folder.rmdir()


def holders(path, byte=0):
    """Return the id of a process that has locked a byte of a file; 0: none has."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        asked = _segment._FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0)
        kind, *_, pid = _segment._FLOCK.unpack(fcntl.fcntl(descriptor, fcntl.F_GETLK, asked))
        return 0 if kind == fcntl.F_UNLCK else pid
    finally:
        os.close(descriptor)


def descriptors(pid="self", under=None):
    """Return what a process has open that has to do with prefixes, or with one folder."""
    part = str(under) if under is not None else "channels-layers-"
    found = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            target = os.readlink(link)
            if part in target:
                found.append(target)
    return sorted(found)


def threads():
    """Return the names of our threads that live in this process."""
    return [one.name for one in threading.enumerate() if one.name.startswith("channels-layers-ipc")]


def mode_of(path):
    return stat.S_IMODE(os.lstat(path).st_mode)


def _fork():
    with warnings.catch_warnings():
        # Python warns of forks beside threads; that such a fork works is what is tested.
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def _live(role, values, writing, reading):
    """Run `role`, and end without finalising anything that is the test's."""
    report, code = Report(writing, reading), 0
    try:
        asyncio.run(role(report, *values))
    except BaseException:  # noqa: BLE001 - the test hears of it
        code = 1
        with suppress(OSError):
            report.tell({"error": traceback.format_exc()})
    finally:
        os._exit(code)


def _begin():
    name, writing, reading, values = json.loads(sys.argv[1])
    module, _, role = name.partition(":")
    report = Report(writing, reading)
    try:
        asyncio.run(getattr(importlib.import_module(module), role)(report, *values))
    except BaseException:
        report.tell({"error": traceback.format_exc()})
        raise


if __name__ == "__main__":
    _begin()
