"""Every program in examples/ that runs by itself prints what it should, and nothing else."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROGRAMS = sorted((ROOT / "examples").glob("*.py"))
PRINTS = {
    "asgi_middleware": [
        "Bob reads Ann: hello",
        "Ann reads ['Ann: hello', 'Bob: hello, Ann']",
    ],
    "custom_layer": ["{'text': 'hello, Bob'}"],
}


def output(*arguments):
    """Return the lines that a program prints; fail if it fails or says anything besides."""
    # Not -X dev: it also makes asyncio complain of a machine that was slow for 0.1 s.
    command = [sys.executable, "-W", "error", *arguments]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert not ran.stderr, ran.stderr
    assert ran.returncode == 0
    return ran.stdout.splitlines()


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.stem)
def test_a_program_prints_what_it_should(program):
    assert output(program) == PRINTS[program.stem]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.stem)
def test_a_program_says_first_how_to_run_it(program):
    begin = program.read_text().splitlines()[:4]
    assert any(f"python examples/{program.name}" in line for line in begin)


def test_the_first_program_of_the_readme_runs():
    code = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[1]
    assert output("-c", code) == ["{'type': 'chat.message', 'text': 'hello'}"]


def test_a_program_that_fails_or_warns_is_found():
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        output("-c", "1 / 0")
    with pytest.raises(AssertionError, match="never awaited"):
        output("-c", "async def f(): ...\nf()")
