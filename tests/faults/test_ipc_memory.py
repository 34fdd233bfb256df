"""Shared memory that is small, full or read-only, in a mount of its own where that may be made."""

from __future__ import annotations

import asyncio
import ctypes
import os
from contextlib import suppress
from pathlib import Path

import pytest
from ipc_processes import Process, descriptors, threads, until

from channels_layers import ChannelFull, IPCChannelLayer
from channels_layers.errors import BackendError, BackendUnavailable, MessageTooLarge

MIB = 1 << 20
_libc = ctypes.CDLL(None, use_errno=True)
_NEWNS, _PRIVATE, _REC, _REMOUNT, _RDONLY, _BIND = 0x20000, 1 << 18, 1 << 14, 32, 1, 4096


def mount(size_bytes, *, inodes=0):
    """Give this process a /dev/shm of its own; needs root, like the tests of other users."""
    _checked(_libc.unshare(_NEWNS))
    _checked(_libc.mount(b"none", b"/", None, _PRIVATE | _REC, None))
    options = f"size={size_bytes},mode=1777" + (f",nr_inodes={inodes}" if inodes else "")
    _checked(_libc.mount(b"tmpfs", b"/dev/shm", b"tmpfs", 0, options.encode()))


def read_only():
    _checked(_libc.mount(b"tmpfs", b"/dev/shm", None, _REMOUNT | _RDONLY, None))


def writable(size_bytes):
    options = f"size={size_bytes},mode=1777".encode()
    _checked(_libc.mount(b"tmpfs", b"/dev/shm", b"tmpfs", _REMOUNT, options))


def _checked(result):
    if result:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def fill_up(leave_bytes=0):
    """Use up all of /dev/shm, but for some."""
    found = os.statvfs("/dev/shm")
    free = found.f_bavail * found.f_frsize - leave_bytes
    if free > 0:
        with open("/dev/shm/filler", "ab") as file:
            os.posix_fallocate(file.fileno(), file.seek(0, 2), free)


def empty():
    Path("/dev/shm/filler").unlink()


def left():
    return sorted(str(path) for path in Path("/dev/shm").glob("channels-layers-*"))


async def works(layer, name="jobs"):
    own = await layer.new_channel()
    await layer.group_add(name, own)
    for channel in (own, name):
        await layer.send(channel, {"n": 1, "pad": "x" * 1000})
        assert (await layer.receive(channel))["n"] == 1
    await layer.group_send(name, {"n": 2})
    assert await layer.receive(own) == {"n": 2}
    await layer.group_discard(name, own)


def nothing_left():
    until(lambda: not threads(), "our threads end", 10)
    assert descriptors() == []
    assert left() == []


def run(processes, role, *values):
    """Run a role to its end."""
    one = processes.start(role, *values)
    assert one.told() == "done"
    assert one.ended() == 0


# Small


def test_the_defaults_fit_a_container(processes):
    run(processes, in_a_container)


async def in_a_container(report):
    """64 MB, eight processes: everything that there may be, until it is used up, and then again."""
    mount(64 * MIB)
    prefix = "container"
    others = [Process(keep_open, prefix) for _ in range(7)]
    for other in others:
        other.told()
    async with IPCChannelLayer(prefix, capacity=10**6) as layer:
        sent = await send_until_full(layer, 100)
        assert sent > 20_000
        assert used() < 64 * MIB
        await works_again(layer, sent, 100)
    for other in others:
        other.say()
        assert other.ended() == 0
        other.close()
    nothing_left()
    report.tell("done")


async def keep_open(report, prefix):
    layer = IPCChannelLayer(prefix)
    await works(layer, f"own.{os.getpid()}")
    report.tell("ready")
    await report.heard()
    await layer.close()


def used():
    found = os.statvfs("/dev/shm")
    return (found.f_blocks - found.f_bfree) * found.f_frsize


async def send_until_full(layer, size):
    """Send to 16 channels until there is a clear error; return how many were taken."""
    sent = 0
    while True:
        try:
            await layer.send(f"jobs.{sent % 16}", {"n": sent, "pad": "x" * size})
        except (BackendUnavailable, ChannelFull):
            return sent
        sent += 1


async def works_again(layer, sent, size):
    """Nothing that was taken is lost or damaged, and there is room again."""
    for number in range(sent):
        found = await layer.receive(f"jobs.{number % 16}")
        assert found == {"n": number, "pad": "x" * size}
    await works(layer)


@pytest.mark.parametrize("size", [0, 100, 4000, 100_000, 1_000_000])
def test_message_memory_bounds_what_is_used_and_what_was_taken_is_kept(prefix, size):
    async def main():
        async with IPCChannelLayer(prefix.name, 16 * MIB, capacity=10**6) as layer:
            sent = await send_until_full(layer, size)
            assert sent >= 7
            allocated = sum(path.stat().st_blocks * 512 for path in prefix.folder.iterdir())
            assert allocated <= 17 * MIB  # and the directory
            with pytest.raises((BackendUnavailable, ChannelFull)):
                await layer.send(f"jobs.{sent % 16}", {"pad": "x" * size})
            await works_again(layer, sent, size)
            sent = await send_until_full(layer, size)
            assert sent >= 7
            await works_again(layer, sent, size)
            assert not list(prefix.folder.glob("large-*"))

    asyncio.run(main())
    assert prefix.files() == []


def test_large_messages_to_a_client_are_bounded(prefix):
    async def main():
        async with (
            IPCChannelLayer(prefix.name, 16 * MIB, capacity=1000) as layer,
            IPCChannelLayer(prefix.name, 16 * MIB, capacity=1000) as other,
        ):
            own = await other.new_channel()
            await other.group_add("all", own)
            taken = 0
            place = layer._backend._attached.place
            owner = other._backend._attached.row.id
            while True:  # as many writers would, while the owner does not come to take them
                try:
                    await asyncio.to_thread(place.large.store, owner, b"x" * MIB, 1e9)
                except BackendUnavailable as error:
                    assert "used up" in str(error)  # noqa: PT017
                    break
                taken += 1
            assert 7 < taken < 16
            for path in prefix.folder.glob("large-*"):
                path.unlink()
            await layer.send(own, {"pad": "x" * MIB})
            await layer.group_send("all", {"pad": "y" * MIB})
            assert (await other.receive(own))["pad"][0] == "x"
            assert (await other.receive(own))["pad"][0] == "y"

    asyncio.run(main())
    assert prefix.files() == []


def test_group_memory_bounds_memberships_and_keeps_them(prefix):
    async def main():
        async with IPCChannelLayer(prefix.name, group_memory=MIB) as layer:
            own = await layer.new_channel()
            joined = 0
            while True:
                try:
                    await layer.group_add(f"group.{joined}.{'x' * 60}", own)
                except BackendUnavailable as error:
                    assert "group_memory" in str(error)  # noqa: PT017
                    break
                joined += 1
            assert joined > 1000
            for number in (0, joined // 2, joined - 1):
                group = f"group.{number}.{'x' * 60}"
                assert await layer.group_channels(group) == [own]
                await layer.group_send(group, {"n": number})
                assert await layer.receive(own) == {"n": number}
            for number in range(joined):
                await layer.group_discard(f"group.{number}.{'x' * 60}", own)
            await works(layer)

    asyncio.run(main())
    assert prefix.files() == []


# Full


def test_a_full_machine_is_a_clear_error_and_comes_back(processes):
    run(processes, on_a_full_machine)


async def on_a_full_machine(report):
    mount(64 * MIB)
    # Before anything is there: with less and less room.
    for room in (0, 4096, 40_000, 100_000, 200_000, 300_000, 400_000):
        fill_up(room)
        layer = IPCChannelLayer("full")
        try:
            await works(layer)
        except BackendError as error:
            assert str(error)  # noqa: PT017
        await layer.close()
        empty()
        nothing_left()
    # While it is in use.
    async with IPCChannelLayer("full", capacity=10**6) as layer:
        await works(layer)
        fill_up()
        sent = await send_until_full(layer, 3000)
        sent_large = await send_until_full(layer, 100_000)
        assert sent_large == 0
        try:
            await works(layer)
        except BackendError as error:
            assert str(error)  # noqa: PT017
        with suppress(BackendUnavailable):
            await layer.flush()
        empty()
        await layer.flush()
        await works(layer)
        sent = await send_until_full(layer, 3000)
        assert sent > 1000
        await works_again(layer, sent, 3000)
    nothing_left()
    report.tell("done")


def test_a_machine_without_inodes_is_a_clear_error(processes):
    run(processes, without_inodes)


async def without_inodes(report):
    for inodes in range(2, 14):
        mount(64 * MIB, inodes=inodes)
        layer = IPCChannelLayer("inodes")
        try:
            await works(layer)
        except BackendError as error:
            assert str(error)  # noqa: PT017
            assert inodes < 13
        await layer.close()
        nothing_left()
    report.tell("done")


def test_a_read_only_machine_is_a_clear_error(processes):
    run(processes, read_only_machine)


async def read_only_machine(report):
    mount(64 * MIB)
    read_only()
    layer = IPCChannelLayer("read-only")
    with pytest.raises(BackendUnavailable, match="Read-only"):
        await layer.send("jobs", {})
    await layer.close()
    nothing_left()
    # With something there already, from before.
    writable(64 * MIB)
    first = Process(leave_behind, "read-only")
    first.told()
    first.kill()
    first.close()
    read_only()
    with pytest.raises(BackendUnavailable, match="Read-only"):
        await layer.send("jobs", {})
    await layer.close()
    writable(64 * MIB)
    await works(layer)
    await layer.close()
    nothing_left()
    report.tell("done")


async def leave_behind(report, prefix):
    await works(IPCChannelLayer(prefix))
    report.tell("ready")
    await report.heard()


# Beginning together


@pytest.mark.parametrize("count", [2, 8])
def test_processes_that_begin_at_once_meet(processes, prefix, count):
    for _ in range(4):
        ones = [processes.start(begin, prefix.name, count) for _ in range(count)]
        for one in ones:
            assert one.told() == "ready"
        for one in ones:
            one.say()
        for one in ones:
            assert sorted(one.told()) == sorted(range(count))
        for one in ones:
            one.say()
            assert one.ended() == 0
        assert prefix.files() == []


async def begin(report, prefix, count):
    """With the others: join, count the members, and greet them all."""
    layer = IPCChannelLayer(prefix)
    report.tell("ready")
    await report.heard()
    own = await layer.new_channel()
    await layer.group_add("all", own)
    members = []
    while len(members) < count:
        members = await layer.group_channels("all")
    for number, member in enumerate(sorted(members)):
        if member == own:
            await layer.group_send("all", {"n": number})
    report.tell([(await layer.receive(own))["n"] for _ in range(count)])
    await report.heard()
    await layer.close()


# Sizes

SIZES = [0, 1, 100, 400, 500, 16_000, 17_000, 49_000, 50_000, 900_000, 4 * MIB - 100]


@pytest.mark.parametrize("kind", ["jobs", "one?reader", "own", "other's", "group"])
def test_messages_of_every_size_arrive_on_every_kind_of_channel(prefix, kind):
    async def main():
        async with IPCChannelLayer(prefix.name) as layer, IPCChannelLayer(prefix.name) as other:
            channel = {"own": layer, "other's": other, "group": other}.get(kind)
            channel = await channel.new_channel() if channel else kind
            reader = layer if kind == "own" else other
            if kind == "group":
                for member in (channel, await layer.new_channel(), "jobs"):
                    await other.group_add("all", member)

            def send(message):
                if kind == "group":
                    return layer.group_send("all", message)
                return layer.send(channel, message)

            for message in [{}, *({"pad": os.urandom(size)} for size in SIZES)]:
                await send(message)
                assert await reader.receive(channel) == message
                if kind == "group":
                    assert await reader.receive("jobs") == message
            with pytest.raises(MessageTooLarge):
                await send({"pad": b"x" * (4 * MIB)})
            assert not list(prefix.folder.glob("large-*"))

    asyncio.run(main())
    assert prefix.files() == []


def test_large_messages_that_are_never_read_leave_nothing(prefix):
    async def main():
        async with (
            IPCChannelLayer(prefix.name, expiry=0.3, capacity=2) as layer,
            IPCChannelLayer(prefix.name, expiry=0.3, capacity=2) as other,
        ):
            own = await other.new_channel()
            await layer.group_add("all", "jobs")
            await layer.group_add("all", own)
            large = {"pad": b"x" * MIB}
            for channel in ("jobs", own):
                for _ in range(2):
                    await layer.send(channel, large)
                with pytest.raises(ChannelFull):
                    await layer.send(channel, large)
            await layer.group_send("all", large)

            def is_clear():
                return not list(prefix.folder.glob("large-*"))

            async with asyncio.timeout(20):
                while not is_clear():  # noqa: ASYNC110
                    await asyncio.sleep(0.01)

    asyncio.run(main())
    assert prefix.files() == []
