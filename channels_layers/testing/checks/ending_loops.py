"""Event loops that end, are abandoned, or see their layer closed and flushed from another loop."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from ._check import Layer, LayerMaker, check
from ._threads import elsewhere, receive_and_tell, until_set
from ._tools import is_layer_closed, line, started


@check("semantics 10")
async def a_loop_that_ends_breaks_nothing_for_the_others(make: LayerMaker) -> None:
    """Its receivers end with it; the message goes to those that still wait."""
    layer = await make()
    channel = await layer.new_channel()

    async def begin_and_end() -> None:
        async with line(layer, channel, channel):
            pass

    await elsewhere(begin_and_end)
    async with line(layer, channel) as [here]:
        await elsewhere(begin_and_end)
        await layer.send(channel, {"n": 1})
        assert await here.result() == {"n": 1}
    await layer.send(channel, {"n": 2})
    assert await layer.receive(channel) == {"n": 2}


@check("semantics 10", needs=["asyncio"])
async def a_loop_that_was_abandoned_breaks_nothing_for_the_others(make: LayerMaker) -> None:
    """It was closed with receivers still waiting on it, and nobody closed the layer."""
    layer = await make()
    channel = await layer.new_channel()
    with _abandoned_receiver(layer, channel), _abandoned_receiver(layer, "jobs"):
        for name in (channel, "jobs"):
            async with line(layer, name) as [here]:
                await layer.send(name, {"n": 1})
                assert await here.result() == {"n": 1}
            await layer.send(name, {"n": 2})
            assert await layer.receive(name) == {"n": 2}
    gc.collect()  # whatever the abandoned receivers do when they die, they do it here


@contextmanager
def _abandoned_receiver(layer: Layer, channel: str) -> Iterator[None]:
    kept: list[asyncio.Task[Any]] = []

    def thread() -> None:
        loop = asyncio.new_event_loop()
        loop.set_exception_handler(lambda *_: None)  # the lost task is our doing, not the layer's
        kept.append(loop.create_task(layer.receive(channel)))
        for _ in range(20):
            loop.run_until_complete(asyncio.sleep(0))
        loop.close()

    runner = threading.Thread(target=thread)
    runner.start()
    runner.join()
    yield
    kept.clear()


@check("api: close")
async def closing_ends_receivers_on_other_loops(make: LayerMaker) -> None:
    """With LayerClosed, as on the loop that closes."""
    layer = await make()
    channel = await layer.new_channel()
    ready = threading.Event()
    reader = partial(receive_and_tell, layer, channel, 1, ready)
    async with started(partial(elsewhere, reader)) as [thread]:
        await until_set(ready)
        await layer.close()
        await thread.end()
        assert is_layer_closed(_root(thread.error)), repr(thread.error)


def _root(error: BaseException | None) -> BaseException | None:
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


@check("api: flush")
async def a_flush_on_another_loop_leaves_receivers_waiting(make: LayerMaker) -> None:
    """They get what comes afterwards."""
    layer = await make()
    channel = await layer.new_channel()
    async with line(layer, channel) as [waiter]:
        await elsewhere(layer.flush)
        await layer.send(channel, {"n": 1})
        assert await waiter.result() == {"n": 1}
