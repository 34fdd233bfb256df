"""Every benchmark runs in its smallest form and yields its figures; how fast is not asked here."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from channels_layers.ipc._place import SHARED_MEMORY, folder_name

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "benchmarks"
BENCHMARKS = sorted(path.stem for path in FOLDER.glob("bench_*.py"))
LOOPS = ("asyncio", "uvloop", "trio")
OURS = "channels-layers"


def run(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    process = subprocess.Popen(
        [sys.executable, str(FOLDER / f"{name}.py"), "--quick", "--rounds", "2", *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,  # so that whatever it started can be told
        text=True,
    )
    try:
        output, errors = process.communicate(timeout=120)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    if "ipc" in name or "redis" in name:  # the others start no process
        assert has_ended(process.pid), "a process outlived the benchmark"
    if "ipc" in name:  # the others share no memory
        assert not left_in_shared_memory(process.pid)
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def has_ended(session: int) -> bool:
    """Say whether every process of a session ends by itself within some seconds."""
    ends_at = time.monotonic() + 10
    while time.monotonic() < ends_at:
        try:
            os.killpg(session, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.01)
    return False


def left_in_shared_memory(pid: int) -> list[str]:
    """Return the prefixes that benchmarks/_ipc.py makes in a process and that are still there."""
    prefixes = [f"benchmark {pid} {number}" for number in range(10)]
    return [prefix for prefix in prefixes if (SHARED_MEMORY / folder_name(prefix)).exists()]


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("results") / "result.json"
    ended = run("bench_round_trip", "--json", str(path))
    assert ended.returncode == 0, ended.stderr
    return json.loads(path.read_text())


def test_there_is_a_benchmark_for_each_question() -> None:
    assert len(BENCHMARKS) == 18


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_benchmark_yields_its_figures_on_every_loop(name: str, loop: str, tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    ended = run(name, "--loop", loop, "--json", str(path))
    assert (ended.returncode, ended.stderr) == (0, "")
    document = json.loads(path.read_text())
    assert ended.stdout.splitlines()[0] == document["question"]
    for case in document["cases"]:
        ours = [medians for name, medians in case["medians"].items() if name.startswith(OURS)]
        names = {figure["name"] for figure in case["figures"]}
        assert ours
        assert all(medians.keys() == names for medians in ours)
        assert all(math.isfinite(value) for medians in ours for value in medians.values())


def test_a_result_tells_where_it_comes_from(document: dict[str, Any]) -> None:
    assert document["python"].split() == ["CPython", sys.version.split()[0]]
    assert document["versions"].keys() >= {"channels-layers", "channels", "ormsgpack"}
    assert document["machine"]["cores"] == os.cpu_count()
    assert document["command"].startswith("python benchmarks/bench_round_trip.py --quick")


def test_a_result_holds_a_raw_sample_of_each_contender_and_round(document: dict[str, Any]) -> None:
    samples = document["cases"][0]["samples"]
    assert samples.keys() == {OURS, "Channels", "floor", "bare queue"}
    assert [len(rounds) for rounds in samples.values()] == [2, 2, 2, 2]


def test_contenders_of_asyncio_alone_stay_out_under_trio(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    run("bench_send_receive", "--loop", "trio", "--json", str(path))
    cases = json.loads(path.read_text())["cases"]
    assert {frozenset(case["samples"]) for case in cases} == {frozenset({OURS, "floor"})}
