"""Redis servers of the tests' own, each a process on a free port of the loopback interface."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

STATE = Path(__file__).parents[1] / ".venv-state"
LIMIT = 60.0  # seconds for anything; only what hangs ever gets there


def binaries():
    """Return the servers that `scripts/test` has installed, by version: at least one."""
    found = {}
    for path in (shutil.which("redis-server"), STATE / "redis-6.2" / "redis-server"):
        if path and Path(path).exists():
            said = subprocess.run([path, "--version"], capture_output=True, text=True, check=True)
            version = said.stdout.partition("v=")[2].partition(" ")[0]
            found.setdefault(".".join(version.split(".")[:2]), str(path))
    assert found, "no redis-server: run ./scripts/test, which installs it"
    return found


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class RedisServer:
    """One process; `begin` starts it again with what it has kept on disk."""

    def __init__(self, binary=None, *options):
        self.folder = Path(tempfile.mkdtemp(prefix="channels-layers-redis-"))
        self.port = free_port()
        self.socket = self.folder / "socket"
        self._binary = binary or next(iter(binaries().values()))
        self._options = options
        self.process = None
        self.begin()

    @property
    def url(self):
        return f"redis://127.0.0.1:{self.port}"

    @property
    def pid(self):
        return self.process.pid

    def begin(self, *options):
        words = [
            self._binary, "--bind", "127.0.0.1", "--port", str(self.port), "--save", "",
            "--unixsocket", str(self.socket), "--dir", str(self.folder), "--daemonize", "no",
            *self._options, *options,
        ]  # fmt: skip
        log = (self.folder / "log").open("ab")
        self.process = subprocess.Popen(words, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        log.close()
        ends_at = time.monotonic() + LIMIT
        while b"PONG" not in self._try("PING"):
            assert self.process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < ends_at, "the server does not answer"
            time.sleep(0.01)

    def ask(self, *words):
        """Send one command on a connection of its own, and return the raw answer."""
        answer = self._try(*words)
        assert answer, "the server has not answered"
        assert not answer.startswith(b"-"), answer
        return answer

    def ints(self, *words):
        return int(self.ask(*words)[1:].split(b"\r\n")[0])

    def keys(self, pattern="*"):
        """Return the names of the keys that there are."""
        lines = self.ask("KEYS", pattern).split(b"\r\n")
        return sorted(line.decode() for line in lines[2::2])

    def clients(self):
        """Return the connections that there are, but for the one that asks."""
        lines = self.ask("CLIENT", "LIST").decode().splitlines()
        fields = [dict(f.partition("=")[::2] for f in line.split()) for line in lines[1:] if line]
        return [found for found in fields if "cmd" in found and "client" not in found["cmd"]]

    def _try(self, *words):
        packed = b"*%d\r\n" % len(words)
        for word in words:
            raw = str(word).encode()
            packed += b"$%d\r\n%s\r\n" % (len(raw), raw)
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=LIMIT) as link:
                link.sendall(packed + b"*1\r\n$4\r\nQUIT\r\n")
                answer = b""
                while chunk := link.recv(1 << 20):
                    answer += chunk
        except OSError:
            return b""
        return answer.removesuffix(b"+OK\r\n")

    def stop(self):
        """Freeze it; connections stay, and nothing is answered."""
        os.kill(self.pid, signal.SIGSTOP)

    def go_on(self):
        os.kill(self.pid, signal.SIGCONT)

    def kill(self):
        """End it at once, with nothing written."""
        self.process.kill()
        self.process.wait()

    def close(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


class Cluster:
    """Some servers, as the shards of one layer."""

    def __init__(self, count, binary=None, *options):
        self.servers = [RedisServer(binary, *options) for _ in range(count)]

    @property
    def hosts(self):
        return [server.url for server in self.servers]

    def close(self):
        for server in self.servers:
            server.close()
