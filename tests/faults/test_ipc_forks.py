"""A process forks in the middle of traffic and is killed; its children live on, on their own."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from pathlib import Path

import pytest
from ipc_processes import _fork, descriptors, until

from channels_layers import ChannelFull, IPCChannelLayer


async def be_parent(report, prefix):
    """Fork while messages flow, then hold every lock until one is killed."""
    layer = IPCChannelLayer(prefix)
    own = await layer.new_channel()
    other = IPCChannelLayer(prefix)  # a second client of this process
    await other.group_add("all", await other.new_channel())
    await layer.group_add("all", own)
    is_over = False

    async def write():
        number = 0
        while not is_over:
            number += 1
            for channel in (own, "jobs"):
                try:
                    await layer.send(channel, {"n": number})
                except ChannelFull:
                    await asyncio.sleep(0.001)
            await layer.group_send("all", {"n": number})

    async def read():
        while not is_over:
            await layer.receive_from([own, "jobs"])

    tasks = [asyncio.create_task(one()) for one in (write, write, read)]  # noqa: F841
    for _ in range(200):
        await asyncio.sleep(0)
    children = [_child(report, layer) for _ in range(2)]
    is_over = True
    report.tell({"own": own, "children": children})
    await report.heard()
    place = layer._backend._attached.place
    queue = place.queues.of("jobs")
    locks = [queue.lock, place.board_lock, layer._backend._attached.own.lock]
    for lock in locks:
        lock.acquire(10)
    os.kill(os.getpid(), signal.SIGSTOP)


def _child(report, layer):
    pid = _fork()
    if not pid:
        signal.alarm(180)
        # In this thread the loop of the parent seems to run; in a new one nothing does.
        thread = threading.Thread(target=lambda: asyncio.run(_live_on(report, layer)))
        thread.start()
        thread.join()
        os._exit(0)
    return pid


async def _live_on(report, layer):
    """Answer what comes, until told to end."""
    own = await layer.new_channel()
    await layer.group_add("all", own)
    report.tell({"pid": os.getpid(), "own": own})
    while (found := await layer.receive(own)) != {"end": True}:
        if "answer" in found:  # and no last word of the parent to the group
            await layer.send(found["answer"], {"from": own})
    await layer.close()


def client_of(channel):
    return channel.partition(".")[2].partition("!")[0]


@pytest.mark.parametrize("how", ["fork", "spawn"])
def test_children_of_a_killed_parent_live_on_and_keep_nothing_of_it(processes, prefix, how):
    parent = processes.start(be_parent, prefix.name, how=how)
    reports = [parent.told() for _ in range(3)]
    (told,) = [one for one in reports if "children" in one]
    children = [one for one in reports if "pid" in one]
    assert sorted(one["pid"] for one in children) == sorted(told["children"])
    parent.say("take the locks")
    parent.await_stop()
    for child in children:
        assert only_own(child["pid"], client_of(child["own"]), prefix)
    parent.kill()
    expected = sorted(child["own"] for child in children)

    async def main():
        async with IPCChannelLayer(prefix.name, timeout=1) as layer:
            own = await layer.new_channel()
            # The locks of the dead are free.
            async with asyncio.timeout(60):
                await layer.send("jobs", {"n": "last"})
                await layer.group_add("other", own)
                while (await layer.receive("jobs")) != {"n": "last"}:
                    pass
                for child in children:
                    await layer.send(child["own"], {"answer": own})
                    assert await layer.receive(own) == {"from": child["own"]}
            # Its memberships go, those of its children stay.
            async with asyncio.timeout(20):
                while sorted(await layer.group_channels("all")) != expected:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            gone = client_of(told["own"])
            until(lambda: not any(gone in name for name in prefix.files()), "it is cleared up", 20)
            for child in children:
                await layer.send(child["own"], {"end": True})

    asyncio.run(main())
    until(lambda: prefix.files() == [], "the children have ended", 20)


def only_own(pid, client, prefix):
    """Whether a process has nothing open of another client's inbox or doorbell."""
    found = descriptors(pid, prefix.folder)
    foreign = [
        one
        for one in found
        if Path(one).name.startswith(("inbox-", ".inbox-", "bell-")) and client not in one
    ]
    assert foreign == []
    return True


async def fork_many(report, prefix):
    """Fork again and again while threads are at work; each child says that it can do all."""
    layer = IPCChannelLayer(prefix)
    own = await layer.new_channel()

    async def write():
        number = 0
        while True:
            number += 1
            await layer.group_add(f"g{number % 7}", own)
            await layer.group_send("g1", {"n": number})

    tasks = [asyncio.create_task(write()) for _ in range(3)]
    statuses = []
    for _ in range(12):
        await asyncio.sleep(0.003)
        pid = _fork()
        if not pid:
            signal.alarm(30)
            done = []
            thread = threading.Thread(target=lambda ok=done: asyncio.run(_use(layer, ok)))
            thread.start()
            thread.join()
            os._exit(0 if done else 1)
        statuses.append(await asyncio.to_thread(lambda one=pid: os.waitpid(one, 0)[1]))
    report.tell(statuses)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    await layer.close()


async def _use(layer, done):
    channel = await layer.new_channel()
    await layer.group_add("mine", channel)
    await layer.group_send("mine", {"n": 1})
    assert await layer.receive(channel) == {"n": 1}
    await layer.send(channel, {"n": 2})
    assert await layer.receive(channel) == {"n": 2}
    await layer.close()
    done.append(True)


@pytest.mark.parametrize("how", ["fork", "spawn"])
def test_forks_beside_busy_threads_disturb_nobody(processes, prefix, how):
    parent = processes.start(fork_many, prefix.name, how=how)
    assert parent.told() == [0] * 12
    assert parent.ended() == 0
    assert prefix.files() == []
