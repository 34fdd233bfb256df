"""The running chat, its processes and all, for whoever wants to talk to a real one."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType

PROGRAM = Path(__file__).with_name("processes.py")
START_S = 60.0  # a new machine compiles everything first
STOP_S = 20.0  # longer than the server takes for its own goodbyes
GLANCE_S = 0.02  # between two looks at what it has printed


class Server:
    """A running chat on this machine; it ends with the block.

    Args:
        arguments: What `processes.py` is told besides the port.
        port: Where it listens; 0 is any free port.

    Attributes:
        port: Where it listens.
        output: All that it printed; complete when it has ended.
    """

    listens = re.compile(r"on http://[\d.]+:(\d+)")  # what it prints when it can be talked to

    def __init__(self, *arguments: str, port: int = 0) -> None:
        self.arguments = arguments
        self.port = port
        self.output = ""

    @property
    def address(self) -> str:
        """Host and port, for a URL."""
        return f"127.0.0.1:{self.port}"

    def command(self) -> list[str]:
        """Return the program and its arguments."""
        return [sys.executable, str(PROGRAM), "--port", str(self.port), *self.arguments]

    @property
    def url(self) -> str:
        """Where its WebSockets are."""
        return f"ws://{self.address}"

    def __enter__(self) -> Server:
        self._printed = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            self.command(),
            stdin=subprocess.DEVNULL,
            stdout=self._printed,
            stderr=subprocess.STDOUT,
        )
        try:
            self._wait_until_it_listens()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End it, politely first, and its workers with it; return its exit code."""
        self._process.send_signal(number)
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if not self._printed.closed:
            self._read()
            self._printed.close()
        return self._process.returncode

    def _wait_until_it_listens(self) -> None:
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self._process.poll() is None:
            self._read()
            if found := self.listens.search(self.output):
                self.port = int(found[1])
                return
            time.sleep(GLANCE_S)
        self._read()
        raise RuntimeError(f"the server did not start:\n{self.output}")

    def _read(self) -> None:
        # At a place: the position in the file is shared with those who write, and must not move.
        size_bytes = os.fstat(self._printed.fileno()).st_size
        printed = os.pread(self._printed.fileno(), size_bytes, 0)
        self.output = printed.decode(errors="replace")
