"""The kit finds the fault of every mutant: each named check fails by itself."""

from __future__ import annotations

from functools import partial

import anyio
import mutants_of_lifetimes  # noqa: F401  # its mutants are noted when it is imported
import mutants_of_messages  # noqa: F401
import mutants_of_queues  # noqa: F401
import pytest
from mutation import MUTANTS

from channels_layers.testing import CHECKS, run

BY_NAME = {check.name: check for check in CHECKS}
SOON = 0.3  # seconds; many faults show as a message that never comes
LATER = 0.9  # seconds, for checks that themselves wait for time to pass
SLOW = {"a_live_reader_keeps_its_membership": 3.0}  # seconds; this one waits longer
TRIES = 5  # a machine that stalls for a moment may hide a fault from a check that waits
BY_CHANCE = {"neighbours_that_come_and_go_disturb_nobody"}  # some must give up at the right moment


@pytest.mark.parametrize(
    ("mutant", "name"), MUTANTS, ids=[f"{mutant.__name__}-{name}" for mutant, name in MUTANTS]
)
def test_the_check_finds_the_fault(mutant, name):
    check = BY_NAME[name]
    limit = SLOW.get(name, LATER if "real time" in check.needs else SOON)
    for _ in range(TRIES):
        maker = partial(mutant, mutant.world_class())
        [outcome] = anyio.run(partial(run, maker, [check], limit=limit)).outcomes
        if outcome.error is not None or not ("real time" in check.needs or name in BY_CHANCE):
            break
    assert outcome.error is not None, f"{name} finds nothing wrong"
    assert not isinstance(outcome.error, NameError | AttributeError), "a slip in the mutant"
