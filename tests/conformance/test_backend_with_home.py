"""A layer whose backend runs in one event loop only, against the whole contract."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

from custom_layer import Switchboard, SwitchboardBackend

from channels_layers import ChannelLayer
from channels_layers.options import LayerOptions


class HomeBackend(SwitchboardBackend):
    has_home = True


async def make(board, **options):
    checked = LayerOptions(**options)
    layer = ChannelLayer(checked, HomeBackend(board, checked))
    await layer.open()
    return layer


@pytest.fixture
def channel_layer_maker():
    return partial(make, Switchboard())


@pytest.mark.conformance(loops=["asyncio", "trio"])
def test_a_layer_with_a_home_keeps_the_contract(conformance_check):
    conformance_check()
