"""Redis servers of the demo's own, that keep nothing and end with it.

python examples/chat/shards.py 3    starts three, prints where, and ends them when its input ends
"""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

SHARDS = 3
TRIES = 5  # until a server gets the port that was free just before
GLANCE_S = 0.01  # between two looks at whether a server listens already
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def own_shards(count: int = SHARDS) -> Iterator[str]:
    """Give the URL of so many servers, which end with the block, or when this process does.

    They are kept by a process of their own, which outlives even a `kill -9` of this one.
    """
    keeper = subprocess.Popen(
        [sys.executable, __file__, str(count)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        process_group=0,  # Ctrl-C is for this process, whose workers say goodbye to the servers
    )
    with keeper:
        url = keeper.stdout.readline().strip() if keeper.stdout else ""
        if not url:
            raise SystemExit("the Redis servers did not start")
        yield url


@contextmanager
def one_shard() -> Iterator[int]:
    """Run one server on a free port of the loopback interface; give the port."""
    with tempfile.TemporaryDirectory(prefix="chat-redis-") as folder:
        for _ in range(TRIES):
            port = free_port()
            process = start(port, Path(folder))
            try:
                if has_begun(process, Path(folder)):
                    yield port
                    return
            finally:
                process.kill()  # nothing is to be saved, so there is nothing to wait for
                process.wait()
        raise SystemExit((Path(folder) / "log").read_text())


def free_port() -> int:
    """Return a port that nobody has, yet."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(port: int, folder: Path) -> subprocess.Popen[bytes]:
    """Start one server, which is not to write anything but its log."""
    settings = {"bind": "127.0.0.1", "port": port, "unixsocket": folder / "socket", "dir": folder}
    settings |= {"save": "", "appendonly": "no", "logfile": folder / "log"}
    words = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    try:
        return subprocess.Popen(["redis-server", *words], stdin=subprocess.DEVNULL)
    except FileNotFoundError:
        raise SystemExit("no redis-server on PATH; install Redis 6.2 or newer") from None


def has_begun(process: subprocess.Popen[bytes], folder: Path) -> bool:
    """Wait until the server listens, and say so; False if it has ended instead."""
    while process.poll() is None:
        # Made after it has got its port: a server of somebody else's cannot be mistaken for it.
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(str(folder / "socket")) == 0:
                return True
        time.sleep(GLANCE_S)
    return False


def main() -> None:
    """Keep the servers until the input ends, or a signal comes."""
    for number in SIGNALS:
        signal.signal(number, lambda *_: sys.exit())
    with ExitStack() as stack:
        ports = [stack.enter_context(one_shard()) for _ in range(int(sys.argv[1]))]
        hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
        print(f"redis://{hosts}/0", flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
