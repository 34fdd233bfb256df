"""What is dropped is logged once for each channel and reason, whatever happens to the channel."""

from __future__ import annotations

import anyio
import pytest

from channels_layers import ChannelLayer, InMemoryChannelLayer
from channels_layers.options import LayerOptions
from channels_layers.testing.checks._tools import poll


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_a_full_member_that_is_polled_and_comes_and_goes_is_logged_once(loop, caplog):
    channels = anyio.run(drop_copies, backend=loop)
    assert sorted(record.args for record in caplog.records) == [
        (channel, "full") for channel in sorted(channels)
    ]


async def drop_copies():
    async with InMemoryChannelLayer(capacity=1) as layer:
        channels = [await layer.new_channel(), "jobs"]
        for _ in range(5):
            for channel in channels:
                await layer.group_add("group", channel)
            for _ in range(3):
                await layer.group_send("group", {"type": "copy"})
            for channel in channels:
                await layer.receive(channel)
                await layer.group_discard("group", channel)
                assert await poll(lambda name=channel: layer.receive(name), 0.001) is None
        assert (await layer.statistics())["dropped_count"]["full"] == 20
        return channels


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_expired_messages_of_a_channel_are_logged_once(loop, caplog):
    anyio.run(let_messages_expire, backend=loop)
    assert [record.args for record in caplog.records] == [("jobs", "expired")]


async def let_messages_expire():
    now = 0.0
    layer = ChannelLayer(LayerOptions(expiry=10), clock=lambda: now)
    for _ in range(3):
        await layer.send("jobs", {"type": "late"})
        now += 11
        assert await poll(lambda: layer.receive("jobs"), 0.001) is None
        await layer.flush()
    assert (await layer.statistics())["dropped_count"]["expired"] == 3
