"""Event loops that end, are abandoned, or see their layer closed and flushed from another loop."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from itertools import product
from typing import Any

from ._check import Layer, LayerMaker, check
from ._threads import elsewhere, receive_and_tell, until_set
from ._tools import client_part, is_layer_closed, line, started, until, waiting


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


@check("semantics 10", needs=["asyncio"])
async def a_message_for_a_loop_that_then_closed_goes_to_the_next(make: LayerMaker) -> None:
    """Its receiver was woken and never ran: the message is there for who comes later."""
    layer = await make()
    channel = await layer.new_channel()
    names = (channel, client_part(channel))
    for closing, later, to in [*((*pair, channel) for pair in product(names, names)), ["jobs"] * 3]:
        with _stopped_receiver(layer, closing) as close:
            await layer.send(to, {"n": 1})
            close()
            assert await layer.receive(later) == {"n": 1}, (closing, later)
    gc.collect()


@check("semantics 10", needs=["asyncio"])
async def who_waits_behind_a_loop_that_then_closed_is_served(make: LayerMaker) -> None:
    """With the message that the closed loop never took, or with the next one."""
    layer = await make()
    channel = await layer.new_channel()
    with _stopped_receiver(layer, channel) as close:
        async with line(layer, channel, channel) as [second, third]:
            await layer.send(channel, {"n": 1})
            close()
            await layer.send(channel, {"n": 2})
            got = [(await waiter.result())["n"] for waiter in (second, third)]
            assert sorted(got) == [1, 2]
    gc.collect()


@check("semantics 10", needs=["asyncio"])
async def a_late_receiver_lets_who_waits_behind_a_closed_loop_go_first(make: LayerMaker) -> None:
    """It finds the message that the closed loop never took, and it is not its turn."""
    layer = await make()
    for channel in (await layer.new_channel(), "jobs"):
        late = partial(layer.receive_from, [channel])
        with _stopped_receiver(layer, channel) as close:
            async with line(layer, channel) as [second]:
                await layer.send(channel, {"n": 1})
                close()
                async with waiting(late) as [third]:
                    assert await second.result() == {"n": 1}
                    await layer.send(channel, {"n": 2})
                    assert await third.result() == (channel, {"n": 2})
    gc.collect()


@check("semantics 10", needs=["asyncio"])
async def a_refused_message_leaves_nobody_behind_a_closed_loop(make: LayerMaker) -> None:
    """The channel may be full of what the closed loop never took; whoever waits gets that."""
    layer = await make(capacity=1)
    channel = await layer.new_channel()
    with _stopped_receiver(layer, channel) as close:
        async with line(layer, channel) as [second]:
            await layer.send(channel, {"n": 1})
            close()
            with suppress(layer.ChannelFull):
                await layer.send(channel, {"n": 2})
            assert await second.result() == {"n": 1}
    gc.collect()


@check("semantics 10", needs=["asyncio", "real time"])
async def what_a_closed_loop_never_took_expires(make: LayerMaker) -> None:
    """It makes room like any other expired message, though nobody receives any more."""
    layer = await make(expiry=0.1, capacity=1)
    channel = await layer.new_channel()

    async def has_room() -> bool:
        with suppress(layer.ChannelFull):
            await layer.send(channel, {"n": 2})
            return True
        return False

    with _stopped_receiver(layer, channel) as close:
        await layer.send(channel, {"n": 1})
        close()
        await until(has_room)
    gc.collect()


@contextmanager
def _abandoned_receiver(layer: Layer, channel: str) -> Iterator[None]:
    with _stopped_receiver(layer, channel) as close:
        close()
        yield


@contextmanager
def _stopped_receiver(layer: Layer, channel: str) -> Iterator[Callable[[], None]]:
    """Let a receiver wait on a loop that runs no more; give what closes the loop."""
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)  # the lost task is our doing, not the layer's
    kept: list[asyncio.Task[Any]] = []

    def thread() -> None:
        kept.append(loop.create_task(layer.receive(channel)))
        for _ in range(20):
            loop.run_until_complete(asyncio.sleep(0))

    runner = threading.Thread(target=thread)
    runner.start()
    runner.join()
    try:
        yield loop.close
    finally:
        loop.close()
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
