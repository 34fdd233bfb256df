"""The in-memory layer against the whole contract, on every kind of event loop."""

from __future__ import annotations

import pytest

from channels_layers import InMemoryChannelLayer


@pytest.fixture
def channel_layer_maker():
    return InMemoryChannelLayer


@pytest.mark.conformance(loops=["asyncio", "uvloop", "trio"])
def test_the_in_memory_layer_keeps_the_contract(conformance_check):
    conformance_check()
