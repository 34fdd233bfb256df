"""The IPC layer against the whole contract, its clients in one process and in several."""

from __future__ import annotations

import secrets
from functools import partial

import pytest

from channels_layers import IPCChannelLayer


@pytest.fixture
def channel_layer_maker():
    return partial(IPCChannelLayer, f"test-{secrets.token_hex(4)}")


@pytest.mark.conformance(loops=["asyncio", "uvloop", "trio"], limit=60)
def test_the_ipc_layer_keeps_the_contract(conformance_check):
    conformance_check()
