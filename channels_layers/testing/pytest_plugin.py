"""The conformance kit in pytest: one test for each check and kind of event loop.

A test module that defines the fixture `channel_layer_maker` and a test that takes the fixture
`conformance_check` holds its layer to the whole contract; see docs/conformance.md.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from .conformance import Check

# So that a failed check shows the values that it compared.
pytest.register_assert_rewrite("channels_layers.testing.checks")

LOOPS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "asyncio": ("asyncio", {}),
    "uvloop": ("asyncio", {"use_uvloop": True}),
    "trio": ("trio", {}),
}


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line(
        "markers",
        "conformance(loops=[...], limit=seconds): the kinds of event loop for the fixture"
        " conformance_check (asyncio, uvloop, trio) and the time limit of one check",
    )


def _options(loops: list[str] | None = None, limit: float | None = None) -> dict[str, Any]:
    if loops is None:
        loops = ["asyncio", "trio"] if importlib.util.find_spec("trio") else ["asyncio"]
    if unknown := set(loops) - set(LOOPS):
        raise pytest.UsageError(f"conformance: no such event loop: {', '.join(sorted(unknown))}")
    return {"loops": loops, "limit": {} if limit is None else {"limit": limit}}


def _marked(node: pytest.Item) -> dict[str, Any]:
    marker = node.get_closest_marker("conformance")
    return _options(*marker.args, **marker.kwargs) if marker else _options()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make one test for each check on each kind of event loop."""
    if "conformance_check" not in metafunc.fixturenames:
        return
    from .conformance import CHECKS  # only who uses the kit pays for it

    cases = [
        pytest.param((check, loop), id=f"{check.topic}-{check.name}-{loop}")
        for check in CHECKS
        for loop in _marked(metafunc.definition)["loops"]
    ]
    metafunc.parametrize("conformance_check", cases, indirect=True)


@pytest.fixture
def conformance_check(
    request: pytest.FixtureRequest, channel_layer_maker: Callable[..., Any]
) -> Callable[[], None]:
    """A function that runs one check on its event loop; it fails or skips the test."""
    check, loop = request.param
    return partial(_run, check, loop, channel_layer_maker, _marked(request.node)["limit"])


def _run(check: Check, loop: str, maker: Callable[..., Any], limit: dict[str, float]) -> None:
    __tracebackhide__ = True
    import anyio

    from .conformance import run_check

    backend, backend_options = LOOPS[loop]
    call = partial(run_check, check, maker, **limit)
    reason = anyio.run(call, backend=backend, backend_options=backend_options)
    if reason is not None:
        pytest.skip(reason)
