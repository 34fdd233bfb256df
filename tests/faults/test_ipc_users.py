"""Other users: they can neither read nor write, and what is theirs is not used."""

from __future__ import annotations

import asyncio
import os

import pytest
from ipc_processes import mode_of

from channels_layers import IPCChannelLayer
from channels_layers.errors import BackendUnavailable

NOBODY = 65534
IS_ROOT = not os.geteuid()


async def intrude(report, prefix, folder, names):
    """Try everything as another user."""
    if IS_ROOT:
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    opened = []
    for path in [folder, *(f"{folder}/{name}" for name in names)]:
        for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR):
            try:
                os.close(os.open(path, flags | os.O_NONBLOCK))
                opened.append((path, flags))
            except (PermissionError, IsADirectoryError):
                pass
    layer = IPCChannelLayer(prefix)
    await layer.send("jobs", {"from": "an intruder"})
    report.tell({"opened": opened, "members": await layer.group_channels("all")})
    assert await layer.receive("jobs") == {"from": "an intruder"}
    await layer.close()


def test_another_user_can_open_nothing(processes, prefix):
    async def main():
        async with IPCChannelLayer(prefix.name) as layer:
            await layer.group_add("all", await layer.new_channel())
            await layer.send("jobs", {"n": 1})
            await layer.send("jobs", {"n": "x" * 1_000_000})
            names = prefix.files()
            kinds = {name.partition("-")[0] for name in names}
            assert kinds >= {"bell", "board", "directory", "guard", "inbox", "large", "queues"}
            assert mode_of(prefix.folder) == 0o700
            if IS_ROOT:
                intruder = processes.start(intrude, prefix.name, str(prefix.folder), names)
                assert intruder.told() == {"opened": [], "members": []}
                assert intruder.ended() == 0
            assert await layer.receive("jobs") == {"n": 1}
            await layer.receive("jobs")

    asyncio.run(main())
    assert prefix.files() == []


def refused(prefix, match):
    async def main():
        with pytest.raises(BackendUnavailable, match=match):
            await IPCChannelLayer(prefix.name).open()

    asyncio.run(main())


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o755])
def test_a_folder_that_is_open_to_others_is_refused(prefix, mode):
    prefix.folder.mkdir()
    prefix.folder.chmod(mode)
    refused(prefix, "open to others")
    assert prefix.files() == []
    prefix.folder.rmdir()


def test_a_folder_of_another_user_is_refused(prefix):
    if not IS_ROOT:  # only root can make one; a link is as foreign
        return
    prefix.folder.mkdir(mode=0o700)
    os.chown(prefix.folder, NOBODY, NOBODY)
    refused(prefix, f"user {NOBODY}")
    assert prefix.files() == []
    prefix.folder.rmdir()


def test_a_link_in_the_place_of_a_folder_is_refused(prefix, tmp_path):
    prefix.folder.symlink_to(tmp_path)
    refused(prefix, "not to us|no folder")
    assert list(tmp_path.iterdir()) == []
    prefix.folder.unlink()


@pytest.mark.parametrize("name", ["board", "queues-05", "directory", "guard"])
@pytest.mark.parametrize("how", ["mode", "owner", "link"])
def test_a_file_that_others_can_use_is_refused(processes, prefix, tmp_path, name, how):
    """Whoever made it so, and before anybody lives there."""

    async def use():
        async with IPCChannelLayer(prefix.name, timeout=1) as layer:
            await layer.group_add("all", await layer.new_channel())
            await layer.send("jobs", {"n": 1})
            return await layer.receive("jobs")

    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"")
    prefix.folder.mkdir(mode=0o700)
    path = prefix.folder / name
    if how == "link":
        path.symlink_to(elsewhere)
    else:
        path.touch(0o600)
        if how == "mode":
            path.chmod(0o666)
        elif IS_ROOT:
            os.chown(path, NOBODY, NOBODY)
    try:
        # Made anew, for nobody lives there, or refused; never used as it is.
        assert asyncio.run(use()) == {"n": 1}
    except BackendUnavailable as error:
        assert path.name.partition("-")[0] in str(error)  # noqa: PT017
    assert elsewhere.read_bytes() == b""
    assert not path.is_symlink() or path.readlink() == elsewhere
    prefix.remove()
