"""Processes that end, however they do: what they leave, and who clears it up."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import ipc_processes
import pytest
from ipc_processes import descriptors, threads, until

from channels_layers import IPCChannelLayer
from channels_layers.errors import BackendUnavailable
from channels_layers.ipc import _directory, _segment

LEASE = 2


def layer_of(prefix):
    return IPCChannelLayer(prefix, lease=LEASE)


async def live(report, prefix):
    """Be a member with a channel of one's own, and of nobody, until told to close."""
    layer = layer_of(prefix)
    own = await layer.new_channel()
    await layer.group_add("all", own)
    await layer.send(own, {"n": 1})
    report.tell(own)
    await report.heard()
    await layer.close()


async def members(prefix, channels):
    """Wait until the group has exactly these members; return whether unread is still there."""
    layer = layer_of(prefix)
    try:
        async with asyncio.timeout(20):
            while sorted(await layer.group_channels("all")) != sorted(channels):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    finally:
        await layer.close()


def test_clean_ends_leave_nothing(processes, prefix):
    ones = [processes.start(live, prefix.name) for _ in range(4)]
    for one in ones:
        one.told()
    assert len([name for name in prefix.files() if name.startswith("inbox-")]) == 4
    for one in ones:
        one.say()
        assert one.ended() == 0
    assert prefix.files() == []


def test_the_next_start_works_when_all_were_killed(processes, prefix):
    ones = [processes.start(live, prefix.name) for _ in range(4)]
    for one in ones:
        one.told()
    for one in ones:
        one.kill()
    next_one = processes.start(live, prefix.name)
    own = next_one.told()
    asyncio.run(members(prefix.name, [own]))
    next_one.say()
    assert next_one.ended() == 0
    assert prefix.files() == []


def test_a_killed_one_is_cleared_up_by_another(processes, prefix):
    one, other = (processes.start(live, prefix.name) for _ in range(2))
    names = [one.told(), other.told()]
    before = prefix.files()
    one.kill()
    dead = names[0].partition(".")[2].partition("!")[0]
    assert any(dead in name for name in before)
    # By whoever lives, within the lease, and not only when somebody comes or goes.
    until(lambda: not any(dead in name for name in prefix.files()), "it was cleared up", 20)
    asyncio.run(members(prefix.name, names[1:]))
    other.say()
    assert other.ended() == 0
    assert prefix.files() == []


@pytest.mark.parametrize("how", ["closed", "killed"])
def test_clients_that_come_and_go_leave_no_memory_in_those_that_stay(processes, prefix, how):
    async def main():
        async with layer_of(prefix.name) as layer:
            for _ in range(5):
                one = processes.start(live, prefix.name)
                channel = one.told()
                await layer.send(channel, {"n": 2})
                await layer.group_send("all", {"n": 3})
                if how == "closed":
                    one.say()
                    assert one.ended() == 0
                else:
                    one.kill()

            def mapped():
                gc.collect()
                return {
                    line.split()[5]
                    for line in Path("/proc/self/maps").read_text().splitlines()
                    if f"{prefix.folder}/" in line and "inbox-" in line
                }

            async with asyncio.timeout(20):
                while len(mapped()) > 1:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)

    asyncio.run(main())
    assert prefix.files() == []


@pytest.mark.parametrize("begin", ["large-nobody-0-", ".inbox-", ".queues-03."])
def test_halves_of_files_are_cleared_up(processes, prefix, begin):
    """A process that is killed may leave a file that it was making."""
    one = processes.start(live, prefix.name)
    one.told()
    half = prefix.folder / f"{begin}0123456789abcdef"
    half.touch()
    os.utime(half, ns=(0, 0))  # long ago
    until(lambda: not half.exists(), "it was cleared up", 20)
    one.say()
    assert one.ended() == 0


def test_the_places_of_the_dead_are_free_for_others(prefix):
    """As many have died as may live, and the next one comes before anybody has cleared up."""

    def fill(place):
        with _segment.held(place.board_lock, 5):
            for number in range(_directory.SLOTS - 1):
                place.directory.add_client(f"dead{number}")

    async def main():
        async with layer_of(prefix.name) as first:
            await asyncio.to_thread(fill, first._backend._attached.place)
            async with layer_of(prefix.name) as second:
                await second.send("jobs", {})
                assert await first.receive("jobs") == {}

    asyncio.run(main())
    assert prefix.files() == []


# Ends of interpreters

PROGRAM = """
import asyncio, sys
from channels_layers import IPCChannelLayer
from channels_layers.errors import BackendUnavailable
from channels_layers.ipc import _directory, _place, _segment

async def use(layer):
    own = await layer.new_channel()
    await layer.group_add("all", own)
    await layer.send(own, {{"n": 1}})
    await layer.group_send("all", {{"n": 2}})
    try:
        async with asyncio.timeout(0.01):
            await layer.receive("jobs")
    except TimeoutError:
        pass

def work(prefix):
    layer = IPCChannelLayer(prefix)
    asyncio.run(use(layer))
    globals()["kept"] = layer

if __name__ == "__main__":
    {main}
"""
MAINS = {
    "main": "work(sys.argv[1])",
    "exit in a thread's time": (
        "work(sys.argv[1]); import threading, time;"
        " threading.Thread(target=time.sleep, args=(60,), daemon=True).start(); sys.exit(0)"
    ),
    "fork": (
        "import multiprocessing as m; p = m.get_context('fork').Process(target=work,"
        " args=sys.argv[1:2]); p.start(); p.join(); sys.exit(p.exitcode)"
    ),
    "fork after use": (
        "import multiprocessing as m, warnings; warnings.simplefilter('ignore'); work(sys.argv[1]);"
        " p = m.get_context('fork').Process(target=work,"
        " args=sys.argv[1:2]); p.start(); p.join(); sys.exit(p.exitcode)"
    ),
    "spawn": (
        "import multiprocessing as m; p = m.get_context('spawn').Process(target=work,"
        " args=sys.argv[1:2]); p.start(); p.join(); sys.exit(p.exitcode)"
    ),
}


@pytest.mark.parametrize("main", MAINS)
def test_an_interpreter_that_ends_without_closing_leaves_nothing(prefix, tmp_path, main):
    script = tmp_path / "program.py"
    script.write_text(PROGRAM.format(main=MAINS[main]))
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script), prefix.name],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(ipc_processes.ROOT)},
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert prefix.files() == []


def test_an_end_does_not_wait_for_a_lock(processes, prefix, tmp_path):
    """Somebody has stopped inside a critical section: an interpreter still ends at once."""
    holder = processes.start(hold_board, prefix.name)
    holder.told()
    holder.await_stop()
    program = PROGRAM.format(
        main="""
    layer = IPCChannelLayer(sys.argv[1], timeout=30)
    async def use():
        await layer.open()
        print("open", flush=True)
        sys.stdin.readline()
        try:
            async with asyncio.timeout(0.05):
                await layer.group_add("g", "c")
        except TimeoutError:
            print("held", flush=True)
    asyncio.run(use())
"""
    )
    holder.go_on()
    assert holder.told() == "released"
    script = tmp_path / "program.py"
    script.write_text(program)
    with subprocess.Popen(
        [sys.executable, "-W", "error", str(script), prefix.name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ipc_processes.ROOT)},
    ) as popen:
        try:
            assert popen.stdout.readline() == "open\n"
            holder.say()
            holder.told()
            holder.await_stop()
            out, err = popen.communicate("go on\n", timeout=15)  # and not 30
        finally:
            popen.kill()
    assert (out, err) == ("held\n", "")
    holder.go_on()
    assert holder.told() == "released"
    holder.say("end")
    assert holder.ended() == 0


async def hold_board(report, prefix):
    """Stop while holding the lock of the board, whenever told."""
    layer = layer_of(prefix)
    await layer.open()
    board = layer._backend._attached.place.board_lock
    while True:
        await asyncio.to_thread(board.acquire, 10)
        report.tell("held")
        os.kill(os.getpid(), signal.SIGSTOP)
        board.release()
        report.tell("released")
        if await report.heard() == "end":
            break
    await layer.close()


def test_close_frees_what_is_here_even_when_others_are_stuck(processes, prefix):
    holder = processes.start(hold_board, prefix.name)
    holder.told()
    holder.await_stop()
    holder.go_on()
    assert holder.told() == "released"

    async def main():
        layer = IPCChannelLayer(prefix.name, timeout=0.3)
        own = await layer.new_channel()
        holder.say()
        holder.told()
        holder.await_stop()
        with pytest.raises(BackendUnavailable, match=str(holder.pid)):
            await layer.close()
        return own

    own = asyncio.run(main())
    until(lambda: not ipc_processes.threads(), "the keeper has ended", 5)
    assert descriptors(under=prefix.folder) == []
    holder.go_on()
    assert holder.told() == "released"
    # Nothing here shows that it lives, so the other clears up after it.
    client = own.partition(".")[2].partition("!")[0]
    until(lambda: not any(client in name for name in prefix.files()), "it was cleared up", 20)
    holder.say("end")
    assert holder.ended() == 0


def test_no_thread_or_descriptor_outlives_the_last_layer(prefix):
    async def main():
        before = len(os.listdir("/proc/self/fd"))
        threads_before = threading.active_count()  # other tests may have left a portal
        for _ in range(3):
            layers = [layer_of(prefix.name) for _ in range(3)]
            for layer in layers:
                await layer.group_add("g", await layer.new_channel())
                await layer.send("jobs", {"n": 1})
            await layers[0].group_send("g", {"n": 2})
            for _ in layers:
                await layers[1].receive("jobs")
            for layer in layers:
                await layer.close()
        until(lambda: not ipc_processes.threads(), "threads end", 5)
        assert len(os.listdir("/proc/self/fd")) == before
        assert threading.active_count() == threads_before

    asyncio.run(main())
    assert prefix.files() == []


def test_a_first_call_that_is_cancelled_leaves_nothing_open_once_it_is_closed(prefix):
    """Its thread may still attach, or begin to, when the layer is closed."""

    async def cut_after(steps, call):
        job = asyncio.ensure_future(call)
        for _ in range(steps):
            await asyncio.sleep(0)
        job.cancel()
        await asyncio.gather(job, return_exceptions=True)

    async def begin_and_close(steps):
        layer = layer_of(prefix.name)
        await cut_after(steps, layer.open())
        if steps % 2:
            await cut_after(steps // 2, layer.close())
        await layer.close()

    for steps in range(60):
        asyncio.run(begin_and_close(steps % 8))
        until(lambda: not threads(), f"our threads end: {threads()}, after {steps}", 10)
        assert not descriptors(under=prefix.folder)
