"""How a faulty layer is made known to the tests."""

from __future__ import annotations

MUTANTS = []  # (class, name of a check that must find its fault)


def caught_by(*names):
    """Note which checks, each by itself, must find the fault of the class."""

    def note(mutant):
        MUTANTS.extend((mutant, name) for name in names)
        return mutant

    return note
