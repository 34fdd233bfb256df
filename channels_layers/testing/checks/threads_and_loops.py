"""One layer object in several event loops and threads of one process."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from ._check import LayerMaker, check
from ._threads import elsewhere, in_plain_threads, receive_and_tell, until_set
from ._tools import (
    drained,
    fill,
    line,
    member,
    numbered,
    settled,
    started,
)


@check("semantics 10")
async def a_receiver_on_another_loop_is_woken(make: LayerMaker) -> None:
    """It waits in one thread; the message is sent from another."""
    layer = await make()
    for channel in ("jobs", await layer.new_channel()):
        ready = threading.Event()
        reader = partial(receive_and_tell, layer, channel, 3, ready)
        async with started(partial(elsewhere, reader)) as [thread]:
            await until_set(ready)
            for n in range(3):
                await layer.send(channel, {"n": n})
                await settled()
            got = await thread.result()
            assert sorted(message["n"] for message in got) == [0, 1, 2]


@check("semantics 10")
async def a_receiver_on_this_loop_is_woken_from_another(make: LayerMaker) -> None:
    """The same the other way round, for direct and for group messages."""
    layer = await make()
    channel = await member(layer, "group")
    async with line(layer, channel, channel) as [first, second]:
        await elsewhere(partial(layer.send, channel, {"n": 1}))
        assert await first.result() == {"n": 1}
        await elsewhere(partial(layer.group_send, "group", {"n": 2}))
        assert await second.result() == {"n": 2}


@check("semantics 10")
async def two_loops_receive_at_once(make: LayerMaker) -> None:
    """Each of two threads waits on its own channel, and each is woken."""
    layer = await make()
    channels = [await layer.new_channel(), await layer.new_channel("other")]
    ready = [threading.Event(), threading.Event()]
    readers = [
        partial(elsewhere, partial(receive_and_tell, layer, channel, 10, event))
        for channel, event in zip(channels, ready, strict=True)
    ]
    async with started(*readers) as threads:
        await until_set(*ready)
        for channel in reversed(channels):
            await fill(layer, channel, 10)
        assert [await thread.result() for thread in threads] == [numbered(10)] * 2


@check("semantics 10")
async def readers_in_several_threads_share_the_work(make: LayerMaker) -> None:
    """Each message goes to one of them, however the threads interleave."""
    layer = await make(capacity=1000)
    ready = [threading.Event() for _ in range(3)]
    readers = [
        partial(elsewhere, partial(receive_and_tell, layer, "jobs", 30, event)) for event in ready
    ]
    async with started(*readers) as threads:
        await until_set(*ready)
        await fill(layer, "jobs", 90)
        got = [message["n"] for thread in threads for message in await thread.result()]
    assert sorted(got) == list(range(90))


@check("semantics 8")
async def the_line_holds_across_threads(make: LayerMaker) -> None:
    """Who began to wait first is served first, on whichever loop."""
    layer = await make()
    channel = await layer.new_channel()
    ready = threading.Event()
    reader = partial(receive_and_tell, layer, channel, 1, ready)
    async with line(layer, channel) as [first], started(partial(elsewhere, reader)) as [thread]:
        await until_set(ready)
        async with line(layer, channel) as [third]:
            sent = await fill(layer, channel, 3)
            got = [await first.result(), *await thread.result(), await third.result()]
    assert got == sent


@check("semantics 10")
async def each_call_may_have_a_loop_of_its_own(make: LayerMaker) -> None:
    """As `async_to_sync` does in a plain thread: a hundred loops, one after the other."""
    layer = await make(capacity=1000)
    channel = await member(layer, "group")

    def plain_thread(run: Callable[..., Any]) -> None:
        for n in range(0, 100, 2):
            run(partial(layer.send, channel, {"n": n}))
            run(partial(layer.group_send, "group", {"n": n + 1}))

    await in_plain_threads(plain_thread)
    assert await drained(layer, channel) == numbered(100)


@check("semantics 10")
async def many_threads_may_call_at_once(make: LayerMaker) -> None:
    """Nothing is lost, and each thread keeps its order."""
    layer = await make(capacity=1000)
    channel = await member(layer, "group")

    def plain_thread(thread: int, run: Callable[..., Any]) -> None:
        for n in range(20):
            run(partial(layer.group_send, "group", {"thread": thread, "n": n}))

    await in_plain_threads(*(partial(plain_thread, thread) for thread in range(8)))
    got = await drained(layer, channel)
    for thread in range(8):
        assert [m["n"] for m in got if m["thread"] == thread] == list(range(20))


@check("semantics 10")
async def plain_threads_may_make_every_call(make: LayerMaker) -> None:
    """Join, leave, receive, make names, count and flush, each on a loop of its own."""
    layer = await make()
    channel = await elsewhere(layer.new_channel)
    await elsewhere(partial(layer.group_add, "group", channel))
    await layer.group_send("group", {"n": 1})
    assert await elsewhere(partial(layer.receive, channel)) == {"n": 1}
    assert await elsewhere(partial(layer.group_channels, "group")) == [channel]
    assert "messages_count" in await elsewhere(layer.statistics)
    await elsewhere(partial(layer.group_discard, "group", channel))
    await layer.group_send("group", {"n": 2})
    await layer.send(channel, {"n": 3})
    await elsewhere(layer.flush)
    assert await drained(layer, channel) == []


@check("semantics 10", needs=["trio"])
async def asyncio_and_trio_share_a_layer(make: LayerMaker) -> None:
    """Where both are promised, a loop of one kind reaches a loop of the other."""
    layer = await make()
    channels = {"asyncio": await layer.new_channel(), "trio": await layer.new_channel()}
    ready = {name: threading.Event() for name in channels}
    readers = [
        partial(elsewhere, partial(receive_and_tell, layer, channel, 2, ready[name]), loop=name)
        for name, channel in channels.items()
    ]
    async with started(*readers) as threads:
        await until_set(*ready.values())
        for sender, receiver in (("trio", "asyncio"), ("asyncio", "trio")):
            for n in range(2):
                send = partial(layer.send, channels[receiver], {"n": n})
                await elsewhere(send, loop=sender)
        assert [await thread.result() for thread in threads] == [numbered(2)] * 2
