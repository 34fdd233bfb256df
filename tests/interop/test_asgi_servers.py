"""The middleware under a real ASGI server in a process of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest
from websockets.sync.client import connect

PATIENCE = 60.0  # seconds until a server that hangs is ended, and its test fails
TROUBLE = re.compile("traceback|exception|warning|never awaited|destroyed", re.IGNORECASE)


class Server:
    """A uvicorn process on a free port, and all it has printed."""

    def __init__(self, app, lifespan):
        here = Path(__file__).parent
        command = [sys.executable, "-m", "uvicorn", "--app-dir", here, "--host", "127.0.0.1"]
        self.process = subprocess.Popen(
            [*command, "--port", "0", "--lifespan", lifespan, f"asgi_app:{app}"],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.output = ""

    def wait_until_it_serves(self):
        for line in self.process.stdout:
            self.output += line
            if running := re.search(r"running on http://(\S+)", line):
                return running[1]
        return pytest.fail(f"the server ended:\n{self.output}")

    def stop(self):
        self.process.send_signal(signal.SIGINT)
        return self.wait_for_end()

    def wait_for_end(self):
        self.output += self.process.stdout.read()
        return self.process.wait()

    def said(self, *phrases):
        """Return those of `phrases` that were printed, in the order of printing."""
        found = [phrase for phrase in phrases if phrase in self.output]
        return sorted(found, key=self.output.index)


@contextmanager
def started(app, lifespan):
    server = Server(app, lifespan)
    last_resort = threading.Timer(PATIENCE, server.process.kill)
    last_resort.start()
    try:
        yield server
    except Exception as exc:
        server.stop()
        exc.add_note(server.output)
        raise
    finally:
        last_resort.cancel()
        server.process.kill()
        server.process.communicate()


def talk(address):
    """Use the layer over HTTP and between two WebSockets, which stay connected."""
    assert httpx.get(f"http://{address}/x", trust_env=False).json() == {"path": "/x"}
    sockets = ExitStack()
    one, two = (sockets.enter_context(connect(f"ws://{address}/", proxy=None)) for _ in range(2))
    for n in range(10):
        one.send(json.dumps(n))
        assert one.recv(PATIENCE) == two.recv(PATIENCE) == json.dumps(n)
    return sockets


@pytest.mark.parametrize("lifespan", ["on", "auto"])
def test_the_layer_is_open_while_an_application_with_a_lifespan_runs(lifespan):
    with started("known", lifespan) as server, talk(server.wait_until_it_serves()):
        server.stop()
    steps = (
        "layer opened",
        "my own startup",
        "Application startup complete",
        "my own shutdown",
        "layer closed",
        "Application shutdown complete",
    )
    assert server.said(*steps) == list(steps)
    assert not TROUBLE.search(server.output)


@pytest.mark.parametrize("lifespan", ["on", "auto"])
def test_the_layer_is_open_while_an_application_without_a_lifespan_runs(lifespan):
    with started("unknown", lifespan) as server, talk(server.wait_until_it_serves()):
        server.stop()
    steps = ("layer opened", "startup complete", "layer closed", "shutdown complete")
    assert server.said(*steps) == list(steps)
    assert not TROUBLE.search(server.output)


@pytest.mark.parametrize("app", ["known", "unknown"])
def test_without_a_lifespan_the_layer_works_and_the_server_ends_in_silence(app):
    with started(app, "off") as server, talk(server.wait_until_it_serves()):
        server.stop()
    assert server.said("layer opened", "layer closed", "my own startup") == []
    assert not TROUBLE.search(server.output)


@pytest.mark.parametrize("lifespan", ["on", "auto"])
def test_a_layer_that_cannot_open_keeps_the_server_from_starting(lifespan):
    with started("unreachable", lifespan) as server:
        assert server.wait_for_end() != 0
    assert "channel layer: BackendUnavailable: nowhere: unavailable" in server.output
    assert server.said("startup failed", "running on") == ["startup failed"]
    assert not TROUBLE.search(server.output)
