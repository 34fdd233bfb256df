"""A call that the backend refuses, or that is given up before it got there, happened nowhere."""

from __future__ import annotations

import sys
import threading
from functools import partial
from pathlib import Path

import anyio
import pytest

from channels_layers import BackendUnavailable, ChannelLayer
from channels_layers.options import LayerOptions
from channels_layers.testing.checks._threads import until_set
from channels_layers.testing.checks._tools import drained, started

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

from custom_layer import Switchboard, SwitchboardBackend

CALLS = ("send", "group_add", "group_discard", "group_send", "flush")
WAYS = ("fails", "is cancelled")


class Outage(SwitchboardBackend):
    """A backend that may be out of order: it then refuses every call, or never answers."""

    way = ""

    def __init__(self, board, options):
        super().__init__(board, options)
        self.is_called = threading.Event()

    async def _pass(self):
        self.is_called.set()
        if self.way == "fails":
            raise BackendUnavailable("switchboard")
        if self.way:
            await anyio.sleep_forever()


def _out_of_order(name):
    async def call(self, *args):
        await self._pass()
        return await getattr(SwitchboardBackend, name)(self, *args)

    return call


for _name in CALLS:
    setattr(Outage, _name, _out_of_order(_name))


class HomeOutage(Outage):
    has_home = True


def layer_over(backend, board):
    options = LayerOptions()
    layer = ChannelLayer(options, backend(board, options))
    return layer, layer._backend


async def make_in_vain(call, backend, way):
    """Make a call while the backend is out of order."""
    backend.way = way
    backend.is_called.clear()
    if way == "fails":
        with pytest.raises(BackendUnavailable):
            await call()
    else:
        async with started(call) as [caller]:
            await until_set(backend.is_called)  # it may run on another loop
            caller.cancel()
            await caller.end()
    backend.way = ""


async def a_call_in_vain(name, kind, way):
    board = Switchboard()
    (layer, backend), (other, _) = layer_over(kind, board), layer_over(kind, board)
    async with layer, other:
        mine, theirs, late = [await each.new_channel() for each in (layer, other, layer)]
        for channel in (mine, theirs):
            await layer.group_add("group", channel)
        calls = {
            "send": partial(layer.send, theirs, {"n": 0}),
            "group_add": partial(layer.group_add, "group", late),
            "group_discard": partial(layer.group_discard, "group", mine),
            "group_send": partial(layer.group_send, "group", {"n": 0}),
            "flush": layer.flush,
        }
        await layer.send(mine, {"n": 1})
        await make_in_vain(calls[name], backend, way)
        for client in (layer, other):
            assert sorted(await client.group_channels("group")) == sorted([mine, theirs])
        await layer.group_send("group", {"n": 2})
        assert await drained(layer, mine) == [{"n": 1}, {"n": 2}]
        assert await drained(other, theirs) == [{"n": 2}]
        assert await drained(layer, late) == []
        await calls[name]()  # and once more, now that it works


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
@pytest.mark.parametrize("kind", [Outage, HomeOutage])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", CALLS)
def test_a_call_in_vain_happened_nowhere(name, way, kind, loop):
    anyio.run(a_call_in_vain, name, kind, way, backend=loop)
