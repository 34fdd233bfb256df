"""Group calls and large messages of which a part cannot be done: full, held and cancelled."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from test_ipc_stops import TIMEOUT, Ticks, hold

from channels_layers import IPCChannelLayer
from channels_layers.errors import BackendTimeout, BackendUnavailable, ChannelFull

SMALL = 16 << 20  # message_memory
LARGE = 300_000  # bytes, more than any ring takes
MANY = 10**6  # a capacity that is never reached


async def read_all(report, prefix, group):
    """Be reached directly by one channel, and by a group by the other; tell what that got."""
    layer = IPCChannelLayer(prefix, message_memory=SMALL, capacity=MANY)
    direct, own = await layer.new_channel(), await layer.new_channel()
    if group:
        await layer.group_add(group, own)
    report.tell([direct, own])
    await report.heard()
    found = []
    while (message := await layer.receive(own))["n"] >= 0:
        found.append(message["n"])
    report.tell(found)
    await report.heard()
    await layer.close()


async def fill(layer, channel):
    """Send until the whole inbox is full."""
    size = 1000
    while size:
        try:
            await layer.send(channel, {"pad": "x" * size})
        except ChannelFull:
            size //= 2


async def send_in_time(layer, channel, message):
    """Send as soon as there is room."""
    while True:
        with suppress(ChannelFull):
            return await layer.send(channel, message)
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("what", ["add", "discard"])
def test_a_membership_of_a_client_whose_inbox_is_full_is_seen_all_the_same(processes, prefix, what):
    reader = processes.start(read_all, prefix.name, "" if what == "add" else "g")
    direct, own = reader.told()
    reader.stop()

    async def main():
        layer = IPCChannelLayer(prefix.name, message_memory=SMALL, capacity=MANY)
        async with layer:
            await fill(layer, direct)
            if what == "add":
                await layer.group_add("g", own)
            else:
                await layer.group_discard("g", own)
            assert await layer.group_channels("g") == ([own] if what == "add" else [])
            reader.go_on()
            await send_in_time(layer, direct, {"n": 0})
            await layer.group_send("g", {"n": 1})
            await layer.send(own, {"n": -1})
            reader.say()
            assert reader.told() == ([1] if what == "add" else [])
            reader.say()

    asyncio.run(main())
    assert reader.ended() == 0
    assert prefix.files() == []


def test_a_membership_of_a_client_whose_inbox_is_held_is_seen_when_it_is_free(processes, prefix):
    reader = processes.start(read_all, prefix.name, "")
    direct, own = reader.told()
    holder = processes.start(hold, prefix.name, "inbox", direct)
    holder.told()

    async def main():
        async with IPCChannelLayer(prefix.name, message_memory=SMALL, timeout=TIMEOUT) as layer:
            holder.say("hold")
            holder.await_stop()
            with suppress(BackendUnavailable):  # its time may be over before the lock's is
                await layer.group_add("g", own)
            holder.go_on()
            assert holder.told() == "released"
            await layer.group_send("g", {"n": 1})
            await layer.send(own, {"n": -1})
            reader.say()
            assert reader.told() == [1]
            reader.say()

    asyncio.run(main())
    assert reader.ended() == 0
    holder.say("end")
    assert holder.ended() == 0
    assert prefix.files() == []


def test_a_group_message_that_some_cannot_get_is_a_miss_that_is_counted(processes, prefix):
    readers = [processes.start(read_all, prefix.name, "g") for _ in range(2)]
    (full, full_own), (_, own) = (reader.told() for reader in readers)
    readers[0].stop()

    async def main():
        async with IPCChannelLayer(prefix.name, message_memory=SMALL, capacity=MANY) as layer:
            await fill(layer, full)
            before = (await layer.statistics())["dropped_count"]["full"]
            await layer.group_send("g", {"n": 1, "pad": "x" * 2000})
            await layer.group_send("g", {"n": 2, "pad": "x" * LARGE})
            after = (await layer.statistics())["dropped_count"]["full"]
            assert after - before == 2
            await layer.send(own, {"n": -1})
            readers[1].say()
            assert readers[1].told() == [1, 2]
            readers[0].go_on()
            await send_in_time(layer, full_own, {"n": -1})
            readers[0].say()
            assert readers[0].told() == []
            for reader in readers:
                reader.say()

    asyncio.run(main())
    assert [reader.ended() for reader in readers] == [0, 0]
    assert prefix.files() == []


def test_a_group_message_for_one_whose_lock_is_held_reaches_the_others(processes, prefix):
    readers = [processes.start(read_all, prefix.name, "g") for _ in range(2)]
    (stuck, held), (_, own) = (reader.told() for reader in readers)
    holder = processes.start(hold, prefix.name, "inbox", stuck)
    holder.told()

    async def main():
        async with IPCChannelLayer(prefix.name, message_memory=SMALL, timeout=TIMEOUT) as layer:
            holder.say("hold")
            holder.await_stop()
            async with Ticks() as ticks:
                with pytest.raises(BackendTimeout, match=f"process {holder.pid}"):
                    await layer.group_send("g", {"n": 1})
            assert ticks.count > 10
            await layer.group_discard("g", own)
            with pytest.raises(BackendUnavailable, match="nothing was done") as caught:
                await layer.group_send("g", {"n": 2})
            assert not isinstance(caught.value, BackendTimeout)
            await layer.send(own, {"n": -1})
            readers[1].say()
            assert readers[1].told() == [1]
            readers[1].say()
            holder.go_on()
            assert holder.told() == "released"
            await layer.group_send("g", {"n": 3})
            await layer.send(held, {"n": -1})
            readers[0].say()
            assert readers[0].told() == [3]
            readers[0].say()

    asyncio.run(main())
    for reader in readers:
        assert reader.ended() == 0
    holder.say("end")
    assert holder.ended() == 0
    assert prefix.files() == []


@pytest.mark.parametrize("what", ["inbox", "queue"])
def test_a_large_send_that_is_cancelled_is_not_done_and_leaves_nothing(processes, prefix, what):
    async def main():
        async with IPCChannelLayer(prefix.name) as layer:
            channel = await layer.new_channel() if what == "inbox" else "jobs"
            await layer.send(channel, {"n": 0})
            assert await layer.receive(channel) == {"n": 0}
            for _ in range(50):
                task = asyncio.create_task(layer.send(channel, {"pad": "x" * LARGE}))
                await asyncio.sleep(0)
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
            await layer.send(channel, {"n": 1})
            while "pad" in (message := await layer.receive(channel)):
                pass  # it was done before it was cancelled
            assert message == {"n": 1}
            assert not [name for name in prefix.files() if "large-" in name]

    asyncio.run(main())
    assert prefix.files() == []


def test_large_and_small_messages_keep_the_order_of_their_calls(prefix):
    async def main():
        async with IPCChannelLayer(prefix.name) as here, IPCChannelLayer(prefix.name) as there:
            own = await here.new_channel()
            await here.group_add("g", own)
            for channel in (own, "jobs", await there.new_channel()):
                reader = there if channel not in (own, "jobs") else here
                sends = [{"n": n, "pad": "x" * (LARGE if n % 3 == 1 else 1)} for n in range(12)]
                await asyncio.gather(*[here.send(channel, message) for message in sends])
                found = [(await reader.receive(channel))["n"] for _ in sends]
                assert found == list(range(12))
            # What is cancelled on its way still keeps its place, or is not done at all.
            for _ in range(20):
                task = asyncio.create_task(here.send(own, {"n": 1, "pad": "x" * LARGE}))
                await asyncio.sleep(0)
                task.cancel()
                await here.group_send("g", {"n": 2})
                await here.send(own, {"n": 3})
                found = []
                while 3 not in found:
                    found.append((await here.receive(own))["n"])
                assert found in ([1, 2, 3], [2, 3])

    asyncio.run(main())
    assert prefix.files() == []
