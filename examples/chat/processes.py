"""Serve the chat with several processes on one port; messages cross between them.

python examples/chat/processes.py             then open http://127.0.0.1:8000 in two windows
python examples/chat/processes.py --memory    one process, whose layer is in memory
python examples/chat/processes.py --redis     over three Redis servers, which end with it
CHANNEL_LAYER=ipc://chat?capacity=500         chooses the layer and its options
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from contextlib import ExitStack
from pathlib import Path

from shards import SHARDS, own_shards

WORKER = Path(__file__).with_name("worker.py")
GLANCE_S = 0.02  # between two looks at who listens already
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def choose_layer(port: int, *, in_memory: bool) -> str:
    """Return the URL of the layer; a demo on another port has rooms of its own."""
    if in_memory:
        return "memory://"
    default = f"ipc://chat-{port}" if sys.platform == "linux" else "memory://"
    return os.environ.get("CHANNEL_LAYER", default)


def bind(host: str, port: int) -> socket.socket:
    """Take the port, which nobody else may have."""
    first = socket.socket()
    first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    first.bind((host, port))
    return first


def bind_again(first: socket.socket) -> socket.socket:
    """Make one more socket on the same port; the kernel spreads connections over those that listen.

    One socket for all would do, but most connections would go to the process that wakes first.
    """
    first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    other = socket.socket()
    other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    other.bind(first.getsockname())
    return other


class Crew:
    """The server processes, one for each socket."""

    def __init__(self, sockets: list[socket.socket], environment: dict[str, str]) -> None:
        self.sockets = sockets
        self.environment = environment
        self.processes: dict[socket.socket, Process] = {}
        self.stopping = asyncio.Event()

    async def serve(self) -> int:
        """Serve until a signal comes, or one of the processes gives up; return the exit code."""
        for number in SIGNALS:
            asyncio.get_running_loop().add_signal_handler(number, self.stopping.set)
        async with asyncio.TaskGroup() as tasks:
            kept = [tasks.create_task(self._keep(listener)) for listener in self.sockets]
            tasks.create_task(self._announce())
        return max(task.result() for task in kept)

    async def _keep(self, listener: socket.socket) -> int:
        """Have one process at this socket, and another when that is killed."""
        while True:
            process = self.processes[listener] = await asyncio.create_subprocess_exec(
                sys.executable,
                WORKER,
                str(listener.fileno()),
                pass_fds=[listener.fileno()],
                stdin=PIPE,  # when this ends, so does the worker
                process_group=0,  # Ctrl-C is for this process; it tells the others
                env=self.environment,
            )
            stopping = asyncio.create_task(self.stopping.wait())
            ended = asyncio.create_task(process.wait())
            await asyncio.wait([stopping, ended], return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            if self.stopping.is_set():
                if not ended.done():
                    process.terminate()
                return max(0, await ended)  # ended by a signal is as it should be
            code = await ended
            if code >= 0:
                self.stopping.set()
                return code or 1
            print(f"process {process.pid} was killed, another takes its place", flush=True)

    async def _announce(self) -> None:
        while not all(map(listens, self.sockets)):
            if self.stopping.is_set():
                return
            await asyncio.sleep(GLANCE_S)
        host, port = self.sockets[0].getsockname()
        pids = " and ".join(str(process.pid) for process in self.processes.values())
        print(
            f"The chat is on http://{host}:{port}, open it in two windows. Ctrl-C ends it.\n"
            f"Layer {self.environment['CHANNEL_LAYER']}, served by process {pids}.",
            flush=True,
        )


def listens(listener: socket.socket) -> bool:
    """Say whether a worker has begun to accept connections."""
    return bool(listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def main() -> int:
    """Read the arguments and serve."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--host", default="127.0.0.1", help="address (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="0 is any free (default: 8000)")
    parser.add_argument("--processes", type=int, default=2, help="how many (default: 2)")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--memory", action="store_true", help="one process, layer in memory")
    kind.add_argument(
        "--redis", action="store_true", help=f"over {SHARDS} Redis servers of its own"
    )
    options = parser.parse_args()
    try:
        sockets = [bind(options.host, options.port)]
    except OSError as error:
        parser.exit(1, f"port {options.port} cannot be had: {error}; --port takes another\n")
    with ExitStack() as stack:
        if options.redis:
            layer = f"{stack.enter_context(own_shards())}?prefix=chat"
        else:
            layer = choose_layer(sockets[0].getsockname()[1], in_memory=options.memory)
        # A layer in memory is a world of its own in each process.
        count = 1 if layer.startswith("memory:") else max(1, options.processes)
        sockets += [bind_again(sockets[0]) for _ in range(count - 1)]
        environment = {**os.environ, "CHANNEL_LAYER": layer, "CHAT_PROCESSES": str(count)}
        return asyncio.run(Crew(sockets, environment).serve())


if __name__ == "__main__":
    raise SystemExit(main())
