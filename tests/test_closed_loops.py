"""What a receiver of a closed loop never took goes to who waits, whichever call finds it."""

from __future__ import annotations

import sys
from pathlib import Path

import anyio
import pytest

from channels_layers import ChannelFull, ChannelLayer
from channels_layers.options import LayerOptions
from channels_layers.testing.checks._tools import line
from channels_layers.testing.checks.ending_loops import _stopped_receiver

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

from custom_layer import Switchboard, SwitchboardBackend


class Clients:
    """Two clients of one prefix, or one twice, with a clock that the test turns."""

    def __init__(self, kind, **options):
        self.now = 1000.0
        checked, board = LayerOptions(**options), Switchboard()

        def make():
            backend = SwitchboardBackend(board, checked) if kind == "switchboard" else None
            return ChannelLayer(checked, backend, clock=lambda: self.now)

        self.layer = make()
        self.other = make() if kind == "switchboard" else self.layer


async def found_by(call, kind):
    clients = Clients(kind, capacity=1, expiry=1000, idle=20)
    async with clients.layer as layer, clients.other as other:
        channel = await layer.new_channel()
        with _stopped_receiver(layer, channel) as close:
            async with line(layer, channel) as [second]:
                await layer.send(channel, {"n": 1})
                close()
                await call(clients, other, channel)
                with anyio.fail_after(20):
                    assert await second.result() == {"n": 1}


async def a_sender_without_room(clients, other, channel):
    with pytest.raises(ChannelFull):
        await other.send(channel, {"n": 2})


async def a_group_without_room(clients, other, channel):
    await other.group_add("group", channel)
    await other.group_send("group", {"n": 2})


async def statistics_of_all(clients, other, channel):
    clients.now += 30
    await other.statistics()


@pytest.mark.parametrize("kind", ["memory", "switchboard"])
@pytest.mark.parametrize("call", [a_sender_without_room, a_group_without_room, statistics_of_all])
def test_what_a_closed_loop_never_took_is_found_by(call, kind):
    anyio.run(found_by, call, kind)
