"""Tell whether a virtual environment is what the declaration asks for; lock it.

    _environment.py fresh VENV BASE GROUP...    exit 0 if VENV is as it was recorded
    _environment.py record VENV BASE GROUP...   note what VENV holds and what it was made for
    _environment.py lock NAME shared|exclusive  lock descriptor 9, saying so when that has to wait

`fresh` and `record` run in the environment itself. Standard library only: nothing is installed yet.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import sys
import tomllib
from importlib.metadata import distributions
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RECORD = "channels-layers.json"  # inside the environment: it goes when the environment goes
LOCK_DESCRIPTOR = 9  # opened by _environment.sh and shared with the program run at last
OPERATIONS = {"shared": fcntl.LOCK_SH, "exclusive": fcntl.LOCK_EX}


def purpose(base: str, groups: list[str]) -> str:
    """Digest all that decides what is installed: declaration, interpreter, groups, place."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    tables = {name: declared[name] for name in ("build-system", "project", "dependency-groups")}
    facts = [tables, base, sys.version, groups, str(ROOT)]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def installed() -> dict[str, str]:
    """Every distribution here, name to version."""
    return {found.name: found.version for found in distributions() if found.name}


def record(venv: Path, base: str, groups: list[str]) -> None:
    """Note what was installed and why; comes last, so a set-up cut short leaves no record."""
    facts = {"purpose": purpose(base, groups), "installed": installed()}
    (venv / RECORD).write_text(json.dumps(facts, indent=1), encoding="utf-8")


def is_fresh(venv: Path, base: str, groups: list[str]) -> bool:
    """Whether nothing recorded has changed or gone; packages added by hand are welcome."""
    try:
        facts = json.loads((venv / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    is_complete: bool = facts["installed"].items() <= installed().items()
    return is_complete and facts["purpose"] == purpose(base, groups)


def lock(name: str, operation: int) -> None:
    """Lock the inherited descriptor; the lock outlives this process with the descriptor."""
    try:
        fcntl.flock(LOCK_DESCRIPTOR, operation | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.stderr.write(f"waiting for another run to be done with {name}\n")
        fcntl.flock(LOCK_DESCRIPTOR, operation)


def main(arguments: list[str]) -> int:
    """Do what the first argument says; 0 is yes or done, 1 is no."""
    match arguments:
        case ["lock", name, mode]:
            lock(name, OPERATIONS[mode])
        case ["record", venv, base, *groups]:
            record(Path(venv), base, groups)
        case ["fresh", venv, base, *groups]:
            return 0 if is_fresh(Path(venv), base, groups) else 1
        case _:
            raise SystemExit(__doc__)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
