"""The kit finds nothing wrong with a correct layer, whatever that layer is built on."""

from __future__ import annotations

from functools import partial

import anyio
import pytest
from file_world import CrossProcessLayer, FileWorld
from reference import ReferenceLayer
from world import World

from channels_layers.testing import CHECKS, run

AMONG_PROCESSES = ("several_processes", "several_clients", "shared_state", "fork")


@pytest.fixture
def channel_layer_maker():
    return partial(ReferenceLayer, World())


@pytest.mark.conformance(loops=["asyncio"])
def test_a_correct_layer_passes(conformance_check):
    conformance_check()


def test_a_correct_layer_of_several_processes_passes(tmp_path):
    world = FileWorld(tmp_path)
    checks = [check for check in CHECKS if check.topic in AMONG_PROCESSES]
    report = anyio.run(run, partial(CrossProcessLayer, world), checks)
    world.end()
    assert not report.failed, str(report)
    assert {outcome.reason for outcome in report.not_applicable} == {
        "the layer guarantees `shared`"
    }
