"""The example of a custom layer against the whole contract: several clients of one backend."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

from custom_layer import Switchboard, SwitchboardLayer


@pytest.fixture
def channel_layer_maker():
    return partial(SwitchboardLayer, Switchboard())


@pytest.mark.conformance(loops=["asyncio", "trio"])
def test_the_example_keeps_the_contract(conformance_check):
    conformance_check()
