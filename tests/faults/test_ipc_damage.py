"""Files of a prefix that are damaged, before they are attached and while they are."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sqlite3
import struct
from pathlib import Path

import anyio
import pytest
from ipc_processes import until

from channels_layers import ChannelFull, IPCChannelLayer
from channels_layers.errors import BackendError
from channels_layers.ipc import _layout
from channels_layers.ipc._errors import SegmentDamaged

SEEDS = range(3)
LIMIT = 20.0  # seconds; only what hangs ever gets there


def small(prefix, **options):
    return IPCChannelLayer(prefix, message_memory=16 << 20, timeout=1, **options)


async def live(report, prefix):
    """Answer on an own channel, be a member, until told to end."""
    layer = small(prefix)
    own = await layer.new_channel()
    await layer.group_add("all", own)
    report.tell(own)
    while not report.is_told:
        try:
            async with asyncio.timeout(0.05):
                await layer.receive(own)
        except TimeoutError:
            pass
        except BackendError:
            await asyncio.sleep(0.01)
    await layer.close()
    report.tell("closed")


async def attempt(*calls):
    """Await calls that a damage may make fail; return the errors, which must be clear ones."""
    errors = []
    for call in calls:
        try:
            with anyio.fail_after(LIMIT):
                await call
        except (BackendError, ChannelFull) as error:
            assert str(error)  # noqa: PT017
            errors.append(error)
    return errors


async def take(layer, channel):
    with anyio.move_on_after(0.01):
        await layer.receive(channel)


async def do_everything(layer, own, other):
    return await attempt(
        layer.send(own, {"n": 1}),
        layer.send("jobs", {"n": 1}),
        *([layer.send(other, {"n": 1}), layer.group_add("all", other)] if other else []),
        layer.group_add("all", own),
        layer.group_send("all", {"n": 2}),
        layer.group_channels("all"),
        take(layer, own),
        take(layer, "jobs"),
        layer.statistics(),
        layer.channel_statistics("jobs"),
        layer.group_discard("all", own),
    )


async def heals(layer, own, other=""):
    """Wait until everything works without an error, message for message."""
    with anyio.fail_after(LIMIT):
        while await do_everything(layer, own, other):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        while True:  # what came of the attempts
            with anyio.move_on_after(0.05) as scope:
                await layer.receive_from([own, "jobs"])
            if scope.cancelled_caught:
                break
    with anyio.fail_after(LIMIT):
        for channel in (own, "jobs"):
            for number in range(3):
                await layer.send(channel, {"n": number})
            for number in range(3):
                assert await layer.receive(channel) == {"n": number}
        await layer.group_add("all", own)
        await layer.group_send("all", {"n": 4})
        assert await layer.receive(own) == {"n": 4}
        await layer.group_discard("all", own)


KINDS = ["board", "directory", "directory-wal", "queues-", "inbox-", "guard", "bell-"]
DAMAGES = ["random bytes", "some random bytes", "empty", "half", "one", "other version"]


def damage(path, how, chance):
    size = path.stat().st_size
    match how:
        case "random bytes":
            _write(path, 0, chance.randbytes(min(size, 300_000) or 100))
        case "some random bytes":
            for _ in range(20):
                _write(path, chance.randrange(max(1, min(size, 300_000) - 8)), chance.randbytes(8))
        case "empty":
            os.truncate(path, 0)
        case "half":
            os.truncate(path, size // 2)
        case "one":
            os.truncate(path, 1)
        case "other version":
            _write(path, 8, struct.pack("<I", _layout.VERSION + 1))


def _write(path, offset, data):
    # As somebody else would; never through a descriptor of this process, which has locks there.
    descriptor = os.open(path, os.O_RDWR)
    os.pwrite(descriptor, data, offset)
    os.close(descriptor)


async def leave_queue(report, prefix):
    """Leave a message in a queue, and die."""
    layer = small(prefix)
    await layer.group_add("all", await layer.new_channel())
    await layer.send("jobs", {"n": 0})
    report.tell("ready")
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "bell-"])
@pytest.mark.parametrize("how", DAMAGES)
def test_what_was_damaged_while_nobody_lived_does_not_disturb_the_next(
    processes, prefix, kind, how
):
    one = processes.start(leave_queue, prefix.name)
    one.told()
    one.ended()
    damage(
        prefix.file(kind) if kind != "directory" else prefix.folder / kind, how, random.Random(1)
    )

    async def main():
        layer = small(prefix.name)
        own = await layer.new_channel()
        await heals(layer, own)
        await layer.close()

    asyncio.run(main())
    assert prefix.files() == []


async def spoil(report, folder, kind, how, seed):
    """Damage a file of a process that lives, from another one."""
    chance = random.Random(seed)
    pattern = kind if kind.startswith("directory") else f"{kind}*"
    for path in sorted(Path(folder).glob(pattern)):  # noqa: ASYNC240
        damage(path, how, chance)
    report.tell("done")


LIVE_KINDS = ["board", "queues-", "inbox-", "directory", "directory-wal", "directory-shm"]
LIVE_DAMAGES = ["random bytes", "some random bytes", "other version"]


@pytest.mark.parametrize("kind", LIVE_KINDS)
@pytest.mark.parametrize("how", LIVE_DAMAGES)
def test_what_is_damaged_while_it_is_attached_is_mended_or_told(
    processes, prefix, is_long, kind, how
):
    other = processes.start(live, prefix.name)
    channel = other.told()
    if kind.startswith("directory") and how == "other version":
        how = "random bytes"

    async def main():
        layer = small(prefix.name)
        own = await layer.new_channel()
        await heals(layer, own, channel)
        for seed in range(12 if is_long else 2):
            spoiler = processes.start(spoil, str(prefix.folder), kind, how, seed)
            spoiler.told()
            await do_everything(layer, own, channel)
            await heals(layer, own, channel)
            # Whoever comes now finds its way as well.
            new = small(prefix.name)
            its = await opened(new)
            await heals(new, its, channel)
            await new.send(own, {"from": its})
            with anyio.fail_after(LIMIT):
                assert await layer.receive(own) == {"from": its}
            await new.close()
            # Members that live are members again.
            with anyio.fail_after(LIMIT):
                while channel not in await layer.group_channels("all"):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
        await layer.flush()  # what was sent to a client while nobody knew of it
        await layer.close()

    asyncio.run(main())
    other.say()
    assert other.told() == "closed"
    assert other.ended() == 0
    assert prefix.files() == []


async def falsify(report, folder):
    """Enter a member whose name is no text, in a database that is in order otherwise."""
    with contextlib.closing(sqlite3.connect(Path(folder) / "directory")) as database:
        with database:
            database.execute("INSERT INTO member VALUES ('all', CAST(x'ff' AS TEXT), '', 9e9)")
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    report.tell("done")


def test_what_sqlite_finds_in_order_is_mended_where_a_call_fails(processes, prefix):
    async def main():
        async with small(prefix.name) as layer:
            own = await layer.new_channel()
            await layer.group_add("all", own)
            processes.start(falsify, str(prefix.folder)).told()
            assert await layer.group_channels("all") == [own]
            await layer.group_send("all", {"n": 1})
            assert await layer.receive(own) == {"n": 1}

    asyncio.run(main())


def test_a_directory_made_anew_has_not_discarded_what_is_not_entered_again_yet(prefix):
    async def main():
        async with small(prefix.name) as layer:
            own = await layer.new_channel()
            await layer.group_add("all", own)
            attached = layer._backend._attached
            damage = SegmentDamaged("as another process says")
            damage.generation = attached.place.generation
            assert attached.place.mend(damage, 1)
            attached.own.doubt()
            attached.drain()
            await layer.group_send("all", {"n": 1})
            assert await layer.receive(own) == {"n": 1}
            assert await layer.group_channels("all") == [own]

    asyncio.run(main())


async def opened(layer):
    """Open a layer, again and again while what is damaged is being mended."""
    with anyio.fail_after(LIMIT):
        while True:
            try:
                return await layer.new_channel()
            except BackendError:
                await asyncio.sleep(0.02)


def test_a_segment_of_another_version_is_refused_while_its_makers_live(processes, prefix):
    """Two releases on one prefix: the second says so, and touches nothing."""
    other = processes.start(be_of_another_version, prefix.name)
    channel = other.told()

    async def main():
        layer = small(prefix.name)
        with pytest.raises(BackendError, match="version"):
            await layer.open()
        await layer.close()

    asyncio.run(main())
    other.say({"answer": channel})
    assert other.told() == {"n": 1}
    assert other.ended() == 0
    assert prefix.files() == []


async def be_of_another_version(report, prefix):
    _layout.VERSION += 1
    layer = small(prefix)
    own = await layer.new_channel()
    report.tell(own)
    await report.heard()
    await layer.send(own, {"n": 1})
    report.tell(await layer.receive(own))
    await layer.close()


@pytest.mark.parametrize("seed", SEEDS)
def test_members_of_all_processes_survive_the_loss_of_the_directory(processes, prefix, seed):
    others = [processes.start(live, prefix.name) for _ in range(3)]
    channels = [other.told() for other in others]

    async def main():
        async with small(prefix.name) as layer:
            own = await layer.new_channel()
            await layer.group_add("all", own)
            processes.start(spoil, str(prefix.folder), "directory", "random bytes", seed).told()
            expected = sorted([own, *channels])
            with anyio.fail_after(LIMIT):
                while True:
                    try:
                        if sorted(await layer.group_channels("all")) == expected:
                            break
                    except BackendError:
                        pass
                    await asyncio.sleep(0.005)
            await layer.group_send("all", {"n": 1})
            assert await layer.receive(own) == {"n": 1}

    asyncio.run(main())
    for other in others:
        other.say()
        assert other.ended() == 0
    until(lambda: prefix.files() == [], "all is gone", 5)
