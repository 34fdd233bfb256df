"""How the server is set up: who may do what, and how much it holds."""

from __future__ import annotations

import asyncio
import time
from functools import partial

import pytest
from redis_layers import repeated
from redis_servers import RedisServer, binaries

from channels_layers import RedisChannelLayer
from channels_layers.errors import BackendError, BackendTimeout, BackendUnavailable
from channels_layers.redis._errors import ServerRefused

WORD = "not-a-secret"
NONE = "no problem"


async def use_all(layer):
    """Do something of each kind."""
    own = await layer.new_channel()
    await layer.send("jobs", {"n": 1})
    assert await layer.receive("jobs") == {"n": 1}
    await layer.group_add("room", own)
    await layer.group_send("room", {"n": 2})
    assert await layer.receive(own) == {"n": 2}
    assert await layer.group_channels("room") == [own]
    await layer.group_discard("room", own)
    assert (await layer.statistics())["messages_count"] >= 2
    await layer.flush()


def test_a_user_with_the_documented_rights_can_do_all(server):
    rights = ["~asgi:*", "+@all", "-@admin", "-@dangerous", "+info"]
    server.ask("ACL", "SETUSER", "app", "on", f">{WORD}", *rights)

    async def main():
        url = f"redis://app:{WORD}@127.0.0.1:{server.port}"
        async with RedisChannelLayer(url) as layer:
            await use_all(layer)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("redis://app:{word}-2@127.0.0.1:{port}", "WRONGPASS|invalid username-password"),
        ("redis://other:{word}@127.0.0.1:{port}", "WRONGPASS|invalid username-password"),
        ("redis://app:{word}@127.0.0.1:{port}/99", "DB index"),
        ("redis://less:{word}@127.0.0.1:{port}", "NOPERM"),
        ("redis://keys:{word}@127.0.0.1:{port}", "access"),
    ],
    ids=["a wrong password", "a wrong user", "no such database", "no INFO", "other keys"],
)
def test_what_the_server_will_never_allow_is_told_at_once(server, url, problem):
    server.ask("ACL", "SETUSER", "app", "on", f">{WORD}", "~*", "+@all")
    server.ask("ACL", "SETUSER", "less", "on", f">{WORD}", "~*", "+@all", "-info")
    server.ask("ACL", "SETUSER", "keys", "on", f">{WORD}", "~other:*", "+@all")

    async def main():
        # A time that nobody would wait for: it is not tried again until then.
        layer = RedisChannelLayer(url.format(word=WORD, port=server.port), timeout=600)
        with pytest.raises(ServerRefused, match=problem) as caught:
            await layer.send("jobs", {})
        assert WORD not in str(caught.value)
        with pytest.raises(BackendError, match=problem):
            await layer.receive("jobs")
        await layer.close()

    asyncio.run(main())


async def filled(layer, mark):
    """Send until the server has no room; return how many it has taken."""
    accepted, problem = 0, NONE
    while problem == NONE:
        message = {"n": accepted, "mark": mark, "filler": b"x" * 5000}
        try:
            await layer.send("jobs", message)
            accepted += 1
        except BackendUnavailable as error:
            problem = str(error)
    assert "OOM" in problem
    return accepted


async def first_problem(layer, channel, most):
    """Send until a call fails, or so often; return why it failed."""
    for n in range(most):
        try:
            await layer.send(channel, {"n": n, "filler": b"x" * 5000})
        except BackendUnavailable as error:
            return str(error)
    return NONE


def test_a_server_that_is_full_is_an_error_until_what_is_there_has_expired(server):
    server.ask("CONFIG", "SET", "maxmemory", "3mb")

    async def main():
        options = {"timeout": 1, "expiry": 3, "capacity": 100_000}
        async with RedisChannelLayer(server.url, **options) as layer:
            receiver = asyncio.ensure_future(layer.receive("other"))
            assert "OOM" in await first_problem(layer, "jobs", 2000)
            ends_at = time.monotonic() + 60
            while (problem := await first_problem(layer, "other", 1)) != NONE:
                assert "OOM" in problem
                assert time.monotonic() < ends_at, "it has not recovered"
            assert (await receiver)["n"] == 0

    asyncio.run(main())


@pytest.mark.parametrize("version", binaries())
def test_a_server_that_is_full_can_be_read_empty_and_goes_on(version):
    """Nothing expires meanwhile; and nothing is lost of what it had accepted."""

    async def main(server):
        options = {"timeout": 1, "expiry": 3600, "capacity": 100_000}
        async with (
            RedisChannelLayer(server.url, **options) as here,
            RedisChannelLayer(server.url, **options) as there,
        ):
            for mark in ("once", "again"):
                accepted = await filled(here, mark)
                got = [await there.receive("jobs") for _ in range(accepted)]
                numbers = [(one["mark"], one["n"]) for one in got]
                assert numbers == [(mark, n) for n in range(accepted)]
            await repeated(partial(here.send, "jobs", {"n": -1}))
            assert (await there.receive("jobs")) == {"n": -1}

    server = RedisServer(binaries()[version], "--maxmemory", "4mb")
    try:
        asyncio.run(main(server))
    finally:
        server.close()


def test_a_client_that_is_busy_with_a_full_server_is_not_taken_for_dead(server):
    """Its signs of life do not stand behind what the server has no room for."""

    async def main():
        server.ask("CONFIG", "SET", "maxmemory", "4mb")
        options = {"timeout": 1, "lease": 1, "expiry": 3600, "capacity": 100_000}
        async with (
            RedisChannelLayer(server.url, **options) as idle,
            RedisChannelLayer(server.url, **options) as busy,
        ):
            own = await busy.new_channel()
            await busy.group_add("g", own)
            await filled(busy, "once")
            ends_at = time.monotonic() + 4
            while time.monotonic() < ends_at:
                calls = [busy.send("jobs", {"filler": b"x" * 5000}) for _ in range(10)]
                await asyncio.gather(*calls, return_exceptions=True)
                assert await idle.group_channels("g") == [own]

    asyncio.run(main())


CAUSES = {  # what makes a server refuse to write, and what ends that
    "OOM": (("CONFIG", "SET", "maxmemory", "1"), ("CONFIG", "SET", "maxmemory", "0")),
    "NOREPLICAS": (
        ("CONFIG", "SET", "min-replicas-to-write", "1"),
        ("CONFIG", "SET", "min-replicas-to-write", "0"),
    ),
    "READONLY": (("REPLICAOF", "127.0.0.1", "1"), ("REPLICAOF", "NO", "ONE")),
}


@pytest.mark.parametrize("cause", CAUSES)
@pytest.mark.parametrize("version", binaries())
def test_what_a_server_refuses_for_now_was_not_done_and_says_so(version, cause, caplog):
    """Be it that it goes to a connection that works otherwise."""
    begin, end = CAUSES[cause]

    async def main(server):
        async with RedisChannelLayer(server.url, timeout=1) as layer:
            own = await layer.new_channel()
            channels = ["jobs", own, "body?1"]
            for channel in channels:
                await layer.send(channel, {"n": 0})
                assert await layer.receive(channel) == {"n": 0}
            server.ask(*begin)
            calls = [layer.send(channel, {"n": 1}) for channel in channels]
            calls += [layer.group_add("g", own), layer.group_add("h", "jobs")]
            for error in await asyncio.gather(*calls, return_exceptions=True):
                assert isinstance(error, BackendUnavailable), error
                assert not isinstance(error, BackendTimeout), error
                assert cause in str(error)
            server.ask(*end)
            for channel in channels:
                await repeated(partial(layer.send, channel, {"n": 2}))
                assert await layer.receive(channel) == {"n": 2}

    server = RedisServer(binaries()[version])
    try:
        asyncio.run(main(server))
    finally:
        server.close()
    assert not caplog.records
