"""What all tests share: the option for those that take long, and Redis servers."""

from __future__ import annotations

import threading
import time

import pytest
from redis_proxy import Proxy
from redis_servers import Cluster, RedisServer


def pytest_addoption(parser):
    parser.addoption("--long", action="store_true", help="run the long tests, and long forms")


def pytest_configure(config):
    config.addinivalue_line("markers", "long: runs only with --long, since it takes long")


def pytest_collection_modifyitems(config, items):
    if not config.getoption("--long"):
        left_out = [item for item in items if item.get_closest_marker("long")]
        items[:] = [item for item in items if not item.get_closest_marker("long")]
        config.hook.pytest_deselected(items=left_out)


@pytest.fixture(autouse=True)
def leaves_no_thread():
    """Blame the test that leaves a layer over shared memory open, and not a later one."""

    def found():
        return {one for one in threading.enumerate() if one.name.startswith("channels-layers-ipc")}

    before = found()
    yield
    ends_at = time.monotonic() + 10
    while left := found() - before:
        assert time.monotonic() < ends_at, f"threads that have not ended: {left}"
        time.sleep(0.01)


@pytest.fixture
def is_long(request):
    """Whether the long form of a test is asked for."""
    return request.config.getoption("--long")


@pytest.fixture(scope="session")
def redis_server():
    """A Redis server for tests that leave it as it is; each takes a prefix of its own."""
    server = RedisServer()
    yield server
    server.close()


@pytest.fixture
def server():
    """A Redis server of the test's own, to stop, kill and fill."""
    found = RedisServer()
    yield found
    found.close()


@pytest.fixture
def proxy(server):
    """A way to the server that can be cut and delayed."""
    found = Proxy(server.port)
    yield found
    found.close()


@pytest.fixture
def shards():
    """Three Redis servers of the test's own."""
    found = Cluster(3)
    yield found
    found.close()


@pytest.fixture
def proxies(shards):
    """Ways to the three servers that can be cut and delayed, in their order."""
    found = [Proxy(server.port) for server in shards.servers]
    yield found
    for proxy in found:
        proxy.close()
