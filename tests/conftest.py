"""What all tests share: the option for those that take long."""

from __future__ import annotations

import pytest
from redis_servers import RedisServer


def pytest_addoption(parser):
    parser.addoption("--long", action="store_true", help="run the long tests, and long forms")


def pytest_configure(config):
    config.addinivalue_line("markers", "long: runs only with --long, since it takes long")


def pytest_collection_modifyitems(config, items):
    if not config.getoption("--long"):
        left_out = [item for item in items if item.get_closest_marker("long")]
        items[:] = [item for item in items if not item.get_closest_marker("long")]
        config.hook.pytest_deselected(items=left_out)


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
