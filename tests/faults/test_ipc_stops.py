"""Processes that are stopped, waiting or inside a critical section; the others go on."""

from __future__ import annotations

import asyncio
import os
import signal
import time

import pytest

from channels_layers import ChannelFull, IPCChannelLayer
from channels_layers.errors import BackendUnavailable

CAPACITY = 100
TIMEOUT = 0.4  # of those that wait for a lock


async def read(report, prefix, channel, count):
    """Wait for a message, then take more when told; `channel` "" is an own one."""
    layer = IPCChannelLayer(prefix, capacity=CAPACITY)
    name = channel or await layer.new_channel()
    await layer.open()
    report.tell(name)
    await report.heard()
    report.tell([(await layer.receive(name))["n"] for _ in range(count)])
    await layer.close()


async def hold(report, prefix, what, channel):
    """Stop inside a critical section, twice; end when told."""
    layer = IPCChannelLayer(prefix)
    await layer.open()
    place = layer._backend._attached.place
    client = channel.partition(".")[2].partition("!")[0]
    report.tell("open")
    while await report.heard() == "hold":
        if what == "guard":
            with place.guard.held(10):
                os.kill(os.getpid(), signal.SIGSTOP)
        else:
            lock = {
                "inbox": lambda: place.peer(client).lock,
                "queue": lambda: place.queues.of(channel).lock,
                "board": lambda: place.board_lock,
            }[what]()
            lock.acquire(10)
            os.kill(os.getpid(), signal.SIGSTOP)
            lock.release()
        report.tell("released")
    await layer.close()


class Ticks:
    """Counts how often the event loop comes round."""

    async def __aenter__(self):
        self.count = 0
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *exc_info):
        self._task.cancel()

    async def _run(self):
        while True:
            await asyncio.sleep(0.002)
            self.count += 1


async def fill(layer, channel):
    """Send until the channel is full; return how many were taken."""
    for number in range(10 * CAPACITY):
        try:
            await layer.send(channel, {"n": number})
        except ChannelFull:
            return number
    raise AssertionError("endless room")


@pytest.mark.parametrize("kind", ["own", "jobs", "one?reader"])
def test_writers_to_a_stopped_reader_get_channel_full_at_its_capacity(processes, prefix, kind):
    reader = processes.start(read, prefix.name, "" if kind == "own" else kind, CAPACITY)
    channel = reader.told()
    reader.stop()

    async def main():
        async with IPCChannelLayer(prefix.name, capacity=CAPACITY) as layer:
            assert await fill(layer, channel) == CAPACITY
            with pytest.raises(ChannelFull):
                await layer.send(channel, {"n": -1})
            reader.go_on()
            reader.say()
            assert reader.told() == list(range(CAPACITY))
            await layer.send("free", {})
            assert await layer.receive("free") == {}

    asyncio.run(main())
    assert reader.ended() == 0
    assert prefix.files() == []


def test_group_copies_for_a_stopped_reader_never_block_the_sender(processes, prefix):
    reader = processes.start(read, prefix.name, "", CAPACITY)
    channel = reader.told()

    async def main():
        async with IPCChannelLayer(prefix.name, capacity=CAPACITY) as layer:
            await layer.group_add("all", channel)
            reader.stop()
            async with Ticks() as ticks:
                for number in range(20_000 // 8):
                    await layer.group_send("all", {"n": number, "pad": "x" * 200})
            assert ticks.count > 0
            reader.go_on()
            reader.say()
            assert reader.told() == list(range(CAPACITY))

    asyncio.run(main())
    assert reader.ended() == 0
    assert prefix.files() == []


CALLS = {
    "inbox": lambda layer, channel: layer.send(channel, {"n": 1}),
    "queue": lambda layer, channel: layer.send(channel, {"n": 1}),
    "board": lambda layer, channel: layer.group_add("g", channel),
}


@pytest.mark.parametrize("what", CALLS)
def test_a_writer_stopped_inside_is_named_and_the_rest_goes_on(processes, prefix, what):
    reader = processes.start(read, prefix.name, "" if what == "inbox" else "jobs", 1)
    channel = reader.told()
    holder = processes.start(hold, prefix.name, what, channel)
    holder.told()

    async def main():
        async with IPCChannelLayer(prefix.name, timeout=TIMEOUT) as layer:
            for _ in range(2):
                holder.say("hold")
                holder.await_stop()
                began = time.monotonic()
                async with Ticks() as ticks:
                    with pytest.raises(BackendUnavailable, match=f"process {holder.pid}"):
                        await CALLS[what](layer, channel)
                took = time.monotonic() - began
                assert took >= TIMEOUT
                assert ticks.count > 10  # it has waited elsewhere
                # What has nothing to do with that lock goes on.
                own = await layer.new_channel()
                await layer.send(own, {"n": 2})
                assert await layer.receive(own) == {"n": 2}
                holder.go_on()
                assert holder.told() == "released"
            # The call that failed was not done, and never will be.
            if what == "board":
                assert await layer.group_channels("g") == []
            await CALLS[what](layer, channel)
            if what == "board":
                assert await layer.group_channels("g") == [channel]
                await layer.group_send("g", {"n": 1})
            reader.say()
            assert reader.told() == [1]

    asyncio.run(main())
    assert reader.ended() == 0
    holder.say("end")
    assert holder.ended() == 0
    assert prefix.files() == []


@pytest.mark.parametrize("what", ["queue", "inbox"])
def test_who_waits_for_a_held_lock_is_served_when_it_is_free(processes, prefix, what):
    async def main():
        layer = IPCChannelLayer(prefix.name, timeout=30)
        own = await layer.new_channel()
        channel = own if what == "inbox" else "jobs"
        holder = processes.start(hold, prefix.name, what, channel)
        holder.told()
        waiting = asyncio.create_task(layer.receive(channel))
        await asyncio.sleep(0)
        holder.say("hold")
        holder.await_stop()
        async with Ticks() as ticks:
            sends = [asyncio.create_task(layer.send(channel, {"n": n})) for n in range(5)]
            while ticks.count < 50:  # noqa: ASYNC110 - the loop comes round
                await asyncio.sleep(0.002)
        holder.go_on()
        assert holder.told() == "released"
        await asyncio.gather(*sends)
        assert await waiting == {"n": 0}
        assert [(await layer.receive(channel))["n"] for _ in range(4)] == [1, 2, 3, 4]
        holder.say("end")
        assert holder.ended() == 0
        await layer.close()

    asyncio.run(main())
    assert prefix.files() == []


def test_who_enters_while_another_is_stopped_entering_hears_of_its_process(processes, prefix):
    holder = processes.start(hold, prefix.name, "guard", "")
    holder.told()
    holder.say("hold")
    holder.await_stop()

    async def main():
        layer = IPCChannelLayer(prefix.name, timeout=TIMEOUT)
        async with Ticks() as ticks:
            with pytest.raises(BackendUnavailable, match=f"process {holder.pid}"):
                await layer.open()
        assert ticks.count > 10
        holder.go_on()
        assert holder.told() == "released"
        await layer.send("jobs", {"n": 1})
        assert await layer.receive("jobs") == {"n": 1}
        await layer.close()

    asyncio.run(main())
    holder.say("end")
    assert holder.ended() == 0
    assert prefix.files() == []
