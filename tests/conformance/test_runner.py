"""Running checks without pytest: makers, limits, reports, and what applies to whom."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager

import anyio
import anyio.lowlevel
import pytest

from channels_layers.guarantees import Guarantees
from channels_layers.testing import CHECKS, Check, applicable, check, run, run_check

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    return request.param


class Layer:
    """Just enough of a layer to be made and closed."""

    def __init__(self, **options):
        self.options = options
        self.closed = 0

    async def receive(self, channel):
        await anyio.sleep_forever()

    async def close(self):
        self.closed += 1


@check("words: nothing")
async def does_nothing(make):
    """Passes."""
    await make(capacity=3)


@check("words: nothing")
async def waits(make):
    """Never ends."""
    await (await make()).receive("x")


@check("words: nothing")
async def fails(make):
    """Fails after it made two layers."""
    await make()
    await make()
    raise AssertionError("as it must")


@check("words: nothing")
async def fails_in_a_task(make):
    """Fails inside a task group."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(fails.body, make)


async def test_a_check_that_holds_returns_nothing():
    assert await run_check(does_nothing, Layer) is None


async def test_a_hanging_check_fails_and_says_where():
    with pytest.raises(TimeoutError, match=r"still waiting after 0\.05 s"):
        await run_check(waits, Layer, limit=0.05)


async def test_the_error_of_a_task_comes_without_its_group():
    with pytest.raises(AssertionError, match="as it must"):
        await run_check(fails_in_a_task, Layer)


async def test_layers_are_closed_even_when_the_check_fails():
    made = []

    def maker(**options):
        made.append(Layer(**options))
        return made[-1]

    with pytest.raises(AssertionError):
        await run_check(fails, maker)
    assert [layer.closed for layer in made] == [1, 1, 1]


async def test_an_error_of_close_is_an_error_of_the_check():
    class Broken(Layer):
        async def close(self):
            raise OSError("cannot close")

    with pytest.raises(OSError, match="cannot close"):
        await run_check(does_nothing, Broken)


async def test_a_maker_may_be_an_async_function():
    async def maker(**options):
        await anyio.lowlevel.checkpoint()
        return Layer(**options)

    assert await run_check(does_nothing, maker) is None


async def test_a_maker_may_be_an_async_context_manager():
    events = []

    @asynccontextmanager
    async def maker(**options):
        yield Layer(**options)
        events.append(options)

    assert await run_check(does_nothing, maker) is None
    assert events == [{}, {"capacity": 3}]


async def test_a_maker_may_keep_a_task_group_open():
    @asynccontextmanager
    async def maker(**options):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.sleep_forever)
            yield Layer(**options)
            tasks.cancel_scope.cancel()

    assert await run_check(does_nothing, maker) is None
    with pytest.raises(TimeoutError, match="still waiting"):
        await run_check(waits, maker, limit=0.05)


async def test_a_maker_that_fails_is_a_check_that_fails():
    @asynccontextmanager
    async def maker(**options):
        raise OSError("no server")
        yield

    with pytest.raises(OSError, match="no server"):
        await run_check(does_nothing, maker)


async def test_a_layer_without_close_is_left_alone():
    class Endless:
        receive = None

        def __init__(self, **options):
            pass

    assert await run_check(does_nothing, Endless) is None


async def test_a_shared_layer_is_flushed_before_each_check():
    class Shared(Layer):
        guarantees = Guarantees(shared=True)
        flushed = 0

        async def flush(self):
            Shared.flushed += 1

    await run(Shared, [does_nothing, does_nothing])
    assert Shared.flushed == 2


async def test_what_does_not_apply_is_not_run():
    only_shared = Check("only_shared", "words: nothing", fails.body, needs=("shared",))
    assert await run_check(only_shared, Layer) == "the layer does not guarantee `shared`"


async def test_a_report_counts_and_shows_everything():
    only_shared = Check("only_shared", "words: nothing", fails.body, needs=("shared",))
    report = await run(Layer, [does_nothing, fails, only_shared])
    counts = [len(part) for part in (report.passed, report.failed, report.not_applicable)]
    assert counts == [1, 1, 1]
    text = str(report)
    assert "does_nothing (words: nothing)" in text
    assert "AssertionError: as it must" in text
    assert "only_shared (words: nothing): the layer does not guarantee `shared`" in text
    assert text.endswith("1 kept, 1 broken, 1 not applicable")


@pytest.mark.parametrize(
    ("needs", "guarantees", "loop", "reason"),
    [
        ((), {}, "asyncio", None),
        (("real time",), {}, "asyncio", None),
        (("shared",), {"shared": True}, "asyncio", None),
        (("shared",), {}, "asyncio", "the layer does not guarantee `shared`"),
        (("separate",), {}, "asyncio", None),
        (("separate",), {"shared": True}, "asyncio", "the layer guarantees `shared`"),
        (("cross_process",), {}, "trio", "the layer does not guarantee `cross_process`"),
        (
            ("ordered_channels",),
            {"ordered_channels": False},
            "asyncio",
            "the layer does not guarantee `ordered_channels`",
        ),
        ((), {"trio": False}, "trio", "the layer does not guarantee `trio`"),
        (("trio",), {"trio": False}, "asyncio", "the layer does not guarantee `trio`"),
        (("asyncio",), {}, "trio", "the check is written for asyncio"),
    ],
)
def test_guarantees_alone_decide_what_applies(needs, guarantees, loop, reason):
    made = Check("name", "words: nothing", fails.body, needs=needs)
    assert applicable(made, Guarantees(**guarantees), loop=loop) == reason


def test_a_platform_without_fork_runs_no_fork_checks(monkeypatch):
    forks = Check("name", "words: nothing", fails.body, needs=("fork",))
    assert applicable(forks, Guarantees()) is None
    monkeypatch.delattr(os, "fork")
    assert applicable(forks, Guarantees()) == "this platform has no os.fork"


def test_every_check_has_a_name_of_its_own_and_says_what_it_holds():
    assert len({each.name for each in CHECKS}) == len(CHECKS)
    assert all(each.statement and each.summary.endswith((".", ":")) for each in CHECKS)
