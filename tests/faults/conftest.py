"""What the faults of the IPC layer share: its processes, and folders that must be gone."""

from __future__ import annotations

import pytest
from ipc_processes import Prefix, Processes, descriptors, until


@pytest.fixture
def processes():
    found = Processes()
    yield found
    found.close()


@pytest.fixture
def tell(request, capsys):
    """Write a line of figures to the terminal."""

    def write(line):
        with capsys.disabled():
            request.config.get_terminal_writer().line(f"\n{line}")

    return write


@pytest.fixture
def prefix():
    """A prefix that must be left empty, with no file of it open in this process."""
    found = Prefix()
    yield found
    left = found.files()
    found.remove()
    assert not left, f"left in the folder: {left}"
    until(lambda: not descriptors(under=found.folder), "its files are closed", 10)
