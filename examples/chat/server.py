"""The chat server as a process of its own, for whoever wants to talk to a real one."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType

APP = Path(__file__).with_name("app.py")
START_S = 60.0  # a new machine compiles everything first
STOP_S = 20.0  # longer than the server takes for its own goodbyes
GLANCE_S = 0.02  # between two looks at what it has printed


class Server:
    """A running chat on this machine; it ends with the block.

    Attributes:
        port: Where it listens; given as 0, any free port.
        output: All that it printed; complete when it has ended.
    """

    def __init__(self, *, port: int = 0) -> None:
        self.port = port
        self.output = ""

    @property
    def address(self) -> str:
        """Host and port, for a URL."""
        return f"127.0.0.1:{self.port}"

    def __enter__(self) -> Server:
        self._printed = tempfile.TemporaryFile(mode="w+", encoding="utf-8")
        self._process = subprocess.Popen(
            [sys.executable, str(APP), "--port", str(self.port)],
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

    def stop(self) -> None:
        """End the process, politely first."""
        self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if not self._printed.closed:
            self._read()
            self._printed.close()

    def _wait_until_it_listens(self) -> None:
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self._process.poll() is None:
            self._read()
            if found := re.search(r"running on http://\S+:(\d+)", self.output):
                self.port = int(found[1])
                return
            time.sleep(GLANCE_S)
        self._read()
        raise RuntimeError(f"the server did not start:\n{self.output}")

    def _read(self) -> None:
        self._printed.seek(0)
        self.output = self._printed.read()
