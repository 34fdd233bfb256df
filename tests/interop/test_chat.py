"""The chat example in two real server processes, with real WebSocket clients."""

from __future__ import annotations

import os
import re
import secrets
import signal
import socket
import sys
from collections import Counter
from contextlib import asynccontextmanager
from pathlib import Path
from subprocess import CompletedProcess

import anyio
import pytest
from redis_servers import binaries
from servers import (
    CHAT,
    Browser,
    FaultyChat,
    Person,
    Server,
    Spread,
    Visitor,
    lives,
    shared_memory_of,
    tell_spread,
    until,
    visit,
)
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

from channels_layers import InMemoryChannelLayer

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def anyio_backend():
    return "asyncio"  # uvicorn and the clients know no other loop


@pytest.fixture(scope="module")
def server():
    with Server() as running:
        yield running
    assert "Traceback" not in running.output, running.output


@pytest.fixture
def redis_on_path(monkeypatch):
    """Let the chat find a server to start, also where it is of this checkout only."""
    folder = Path(next(iter(binaries().values()))).parent
    monkeypatch.setenv("PATH", f"{os.environ['PATH']}{os.pathsep}{folder}")


@asynccontextmanager
async def playground(**options):
    with anyio.fail_after(20):
        async with InMemoryChannelLayer(**options) as layer, anyio.create_task_group() as tasks:
            yield layer, tasks


@pytest.fixture(scope="module")
def spread(server):
    """Two visitors at a time are at two processes."""
    return Spread(server.url)


async def run_check(*arguments: str) -> CompletedProcess[bytes]:
    command = [sys.executable, str(CHAT / "check.py"), *arguments]
    return await anyio.run_process(command, check=False)


# ---- the whole


@pytest.mark.parametrize(
    ("arguments", "layer"),
    [
        ([], rb"layer: ipc; server processes: 2\nclients served: 4 by .*, 4 by .*: yes"),
        (["--memory"], rb"layer: memory; server processes: 1\nclients served: 8 by .*: yes"),
        (["--redis"], rb"layer: redis; server processes: 2\nclients served: 4 by .*, 4 by .*: yes"),
    ],
)
@pytest.mark.usefixtures("redis_on_path")
async def test_every_member_of_a_room_gets_each_message_once_and_in_order(arguments, layer):
    result = await run_check(*arguments, "--clients=8", "--rooms=2", "--messages=5")
    assert result.returncode == 0, result.stdout + result.stderr
    assert re.search(layer, result.stdout)
    assert b"deliveries: 160 of 160; 0 lost, 0 doubled, 0 out of order, 0 astray" in result.stdout


async def test_the_check_takes_a_redis_server_that_runs_already(redis_server, monkeypatch):
    prefix = f"test-{secrets.token_hex(8)}"
    monkeypatch.setenv("CHANNEL_LAYER", f"{redis_server.url}/0?prefix={prefix}")
    result = await run_check("--clients=4", "--rooms=1", "--messages=2")
    assert result.returncode == 0, result.stdout + result.stderr
    assert b"layer: redis; server processes: 2" in result.stdout
    assert b"deliveries: 32 of 32; 0 lost" in result.stdout


@pytest.mark.parametrize("fault", ["lost", "doubled", "out of order", "astray"])
async def test_the_check_fails_when_a_message_is(fault):
    async with serve(FaultyChat(fault), "127.0.0.1", 0) as faulty:
        host, port = faulty.sockets[0].getsockname()
        url = f"ws://{host}:{port}"
        result = await run_check("--url", url, "--clients=4", "--rooms=2", "--messages=4")
    assert result.returncode == 1, result.stdout + result.stderr
    assert f" 0 {fault}".encode() not in result.stdout
    assert b"FAILED" in result.stdout


async def test_the_check_spreads_each_room_over_all_servers():
    chat = FaultyChat(fault="none")
    async with serve(chat, "127.0.0.1", 0) as one, serve(chat, "127.0.0.1", 0) as other:
        urls = [f"--url=ws://127.0.0.1:{each.sockets[0].getsockname()[1]}" for each in (one, other)]
        result = await run_check(*urls, "--clients=8", "--rooms=2", "--messages=2")
    assert b"server processes: 2" in result.stdout
    assert b"deliveries: 64 of 64; 0 lost" in result.stdout
    for room in ("check-0", "check-1"):
        ports = Counter(socket.local_address[1] for socket in chat.rooms[room])
        assert sorted(ports.values()) == [2, 2]


@pytest.mark.parametrize(
    ("rooms", "expected"),
    [
        ({"a": [1, 2], "b": [2, 1, 1]}, True),
        ({"a": [1, 2], "b": [1, 1]}, False),
        ({"a": [1]}, True),
    ],
)
def test_the_check_sees_whether_each_room_is_spread_over_the_processes(rooms, expected):
    people = [
        Person(room, None, {"who": "somebody", "process": process})
        for room, processes in rooms.items()
        for process in processes
    ]
    assert tell_spread(people, 2) is expected


# ---- rooms and people


async def test_what_is_said_stays_in_its_room(spread):
    async with visit(spread, "Ana", "a-room") as ana, visit(spread, "Ben", "b-room") as ben:
        await ana.say("a-room", "only here")
        await ana.expect("said", text="only here")
        await ben.say("b-room", "first that Ben hears")
        assert (await ben.expect("said"))["text"] == "first that Ben hears"


async def test_one_socket_may_be_in_several_rooms(spread):
    async with visit(spread, "Ana", "one", "two") as ana, visit(spread, "Ben", "one") as ben:
        await ana.say("two", "in two")
        await ana.expect("said", room="two", text="in two")
        await ben.say("one", "in one")
        await ana.expect("said", room="one", text="in one", name="Ben")


async def test_those_in_a_room_and_the_newcomer_learn_of_each_other(spread):
    async with visit(spread, "Ana", "meeting") as ana, visit(spread, "Ben") as ben:
        await ben.send(type="join", room="meeting")
        await ana.expect("joined", room="meeting", who=ben.who, name="Ben")
        await ben.expect("present", room="meeting", who=ana.who, name="Ana")


async def test_the_list_of_members_is_the_layers_own(spread):
    async with visit(spread, "Ana", "listed") as ana, visit(spread, "Ben", "listed") as ben:
        await ana.send(type="who", room="listed")
        assert set((await ana.expect("members"))["members"]) == {ana.who, ben.who}


async def test_leaving_a_room_is_told_and_ends_what_is_heard(spread):
    async with visit(spread, "Ana", "left") as ana, visit(spread, "Ben", "left", "other") as ben:
        await ben.send(type="leave", room="left")
        await ana.expect("left", room="left", who=ben.who)
        await ana.say("left", "Ben is gone")
        await ana.expect("said", text="Ben is gone")
        await ben.say("other", "still there")
        assert (await ben.expect("said"))["text"] == "still there"


@pytest.mark.parametrize("abruptly", [False, True])
async def test_who_disconnects_has_left(spread, abruptly):
    async with visit(spread, "Ana", "parting") as ana:
        async with visit(spread, "Ben", "parting") as ben:
            if abruptly:
                ben.socket.transport.abort()
        await ana.expect("left", room="parting", who=ben.who, name="Ben")
        await ana.send(type="who", room="parting")
        assert (await ana.expect("members"))["members"] == [ana.who]


# ---- what browsers may get wrong

BAD_FRAMES = [
    b"\x00\xff",
    "",
    "no json",
    "[]",
    "null",
    "NaN",
    "[" * 20_000,
    "1" * 10_000,
    "{}",
    '{"type": "shout", "room": "lobby"}',
    '{"type": ["say"], "room": "lobby"}',
    '{"type": "join"}',
    '{"type": "join", "room": 5}',
    '{"type": "join", "room": ""}',
    '{"type": "join", "room": "../etc"}',
    '{"type": "join", "room": "lobby\\n"}',
    '{"type": "who", "room": {}}',
    '{"type": "say", "room": "lobby", "text": 5, "ref": 1}',
    '{"type": "say", "room": "lobby", "text": "no ref"}',
    '{"type": "say", "room": "lobby", "text": "  ", "ref": 1}',
    '{"type": "say", "room": "lobby", "text": "%s", "ref": 1}' % ("x" * 2001),
    '{"type": "say", "room": "elsewhere", "text": "not a member", "ref": 1}',
]


@pytest.mark.parametrize("frame", BAD_FRAMES, ids=lambda frame: repr(frame[:60]))
async def test_a_malformed_frame_is_answered_and_disturbs_nobody(spread, frame):
    async with visit(spread, "Ana", "lobby") as ana, visit(spread, "Ben", "lobby") as ben:
        await ben.socket.send(frame)
        await ben.expect("error")
        await ben.say("lobby", "sorry")
        assert (await ana.expect("said"))["text"] == "sorry"


async def test_a_frame_beyond_the_limit_ends_its_own_socket_only(spread):
    async with visit(spread, "Ana", "big") as ana:
        async with visit(spread, "Ben", "big") as ben:
            await ben.say("big", "x" * 100_000)
            with pytest.raises(ConnectionClosed):
                await ben.expect("said")
        await ana.expect("left", who=ben.who)


async def test_the_longest_text_fits_into_a_frame_however_it_is_written(spread):
    async with visit(spread, "Ana", "long") as ana:
        await ana.say("long", "\N{OTTER}" * 2000)
        assert (await ana.expect("said"))["text"] == "\N{OTTER}" * 2000


async def test_half_a_surrogate_pair_reaches_the_others_as_a_question_mark(spread):
    async with visit(spread, "Ana", "halves") as ana, visit(spread, "Ben", "halves") as ben:
        await ben.socket.send('{"type":"say","room":"halves","text":"a\\ud800b","ref":1}')
        assert (await ana.expect("said"))["text"] == "a?b"


async def test_nobody_is_in_more_than_twenty_rooms(spread):
    async with visit(spread, "Ana", *(f"room-{number}" for number in range(20))) as ana:
        await ana.send(type="join", room="one-more")
        assert "20 rooms" in (await ana.expect("error"))["detail"]


@pytest.mark.parametrize(
    ("asked", "given"),
    [("", "guest"), (" \0 ", "guest"), ("A\n\u202ena", "A na"), ("x" * 99, "x" * 24)],
)
async def test_a_nickname_is_one_short_visible_line(spread, asked, given):
    async with visit(spread, asked) as visitor:
        assert visitor.name == given


# ---- what servers, networks and slow browsers get wrong


async def test_a_browser_that_does_not_read_disturbs_nobody(monkeypatch):
    monkeypatch.setattr("app.PAUSE_S", 0)
    async with playground(capacity=5) as (layer, tasks):
        stuck, ana = Browser(layer, is_stuck=True), Browser(layer)
        for browser in (stuck, ana):
            tasks.start_soon(browser.visit)
            await browser.say({"type": "join", "room": "lobby"})
        for number in range(20):
            await ana.say({"type": "say", "room": "lobby", "text": str(number), "ref": number})
        assert ana.heard("said") == [str(number) for number in range(20)]
        assert (await layer.statistics())["messages_pending"] == 5
        await stuck.go()
        assert len(ana.heard("left")) == 1
        await ana.go()


async def test_a_socket_that_the_server_has_closed_ends_quietly():
    async with playground() as (layer, tasks):
        browser = Browser(layer)
        tasks.start_soon(browser.visit)
        await browser.say({"type": "join", "room": "lobby"})
        browser.error = RuntimeError("Unexpected ASGI message after sending 'websocket.close'.")
        await browser.say({"type": "say", "room": "lobby", "text": "too late", "ref": 1})
        await browser.gone.wait()
        assert await layer.group_channels("chat.lobby") == []


async def test_a_client_that_connects_again_goes_on_after_a_restart():
    with Server() as first:
        async with visit(Spread(first.url), "Ana", "lobby") as ana:
            assert await anyio.to_thread.run_sync(first.stop) == 0
            with pytest.raises(ConnectionClosed):
                await ana.expect("said")
    assert "Traceback" not in first.output
    with Server(port=first.port) as second:
        async with visit(Spread(second.url), "Ana", "lobby") as ana:
            await ana.say("lobby", "here again")
            await ana.expect("said", text="here again")


# ---- the processes


async def test_two_visitors_are_at_two_processes_and_hear_each_other_in_order(spread):
    async with visit(spread, "Ana", "both") as ana, visit(spread, "Ben", "both") as ben:
        assert ana.process != ben.process
        for number in range(5):
            await ana.say("both", f"{number} of Ana")
            assert (await ben.expect("said", name="Ana"))["text"] == f"{number} of Ana"
            await ben.say("both", f"{number} of Ben")
            assert (await ana.expect("said", name="Ben"))["text"] == f"{number} of Ben"


async def test_who_was_at_a_killed_process_has_left_and_another_process_takes_over():
    with Server() as server:
        spread = Spread(server.url)
        async with visit(spread, "Ana", "lobby") as ana, visit(spread, "Ben", "lobby") as ben:
            os.kill(ben.process, signal.SIGKILL)
            with pytest.raises(ConnectionClosed):
                await ben.expect("said")
            await until(lambda: only_member(ana, "lobby"))
            await until(lambda: is_replaced(server, {ana.process, ben.process}))
            async with visit(spread, "Cara", "lobby") as cara:
                await cara.say("lobby", "hello")
                await ana.expect("said", text="hello")
        folders = shared_memory_of(ana.process)
    assert folders
    assert not any(folder.exists() for folder in folders)
    assert f"process {ben.process} was killed" in server.output
    assert "Traceback" not in server.output


async def only_member(visitor: Visitor, room: str) -> bool:
    return await visitor.members(room) == [visitor.who]


async def is_replaced(server: Server, known: set[int]) -> bool:
    """Connect once, and say whether it is a process that was not known."""
    socket, welcome = await Spread(server.url).connect("Somebody")
    await socket.close()
    return welcome["process"] not in known


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_a_signal_ends_both_processes_and_nothing_is_left(number):
    with Server() as server:
        spread = Spread(server.url)
        async with visit(spread, "Ana", "lobby") as ana, visit(spread, "Ben", "lobby") as ben:
            folders = shared_memory_of(ana.process) | shared_memory_of(ben.process)
            code = await anyio.to_thread.run_sync(server.stop, number)
    assert code == 0
    assert len(folders) == 1
    assert not any(folder.exists() for folder in folders)
    assert not lives(ana.process)
    assert not lives(ben.process)
    assert "Traceback" not in server.output


async def test_processes_whose_parent_was_killed_end_by_themselves():
    with Server() as server:
        spread = Spread(server.url)
        async with visit(spread, "Ana") as ana, visit(spread, "Ben") as ben:
            folders = shared_memory_of(ana.process)
            await anyio.to_thread.run_sync(server.stop, signal.SIGKILL)
            for visitor in (ana, ben):
                with pytest.raises(ConnectionClosed):
                    await visitor.expect("said")
    await until(lambda: are_gone(folders))


async def are_gone(folders: set[Path]) -> bool:
    return not any(folder.exists() for folder in folders)


@pytest.mark.usefixtures("redis_on_path")
@pytest.mark.parametrize(
    "number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL], ids=str
)
async def test_the_redis_servers_of_the_chat_end_with_it(number):
    with Server("--redis") as server:
        shards = redis_shards(server)
        assert len(shards) == 3
        assert all(map(is_served, shards))
        spread = Spread(server.url)
        async with visit(spread, "Ana", "lobby") as ana, visit(spread, "Ben", "lobby") as ben:
            assert ana.process != ben.process
            await ben.say("lobby", "hello")
            await ana.expect("said", text="hello")
            code = await anyio.to_thread.run_sync(server.stop, number)
    assert code == (0 if number != signal.SIGKILL else -signal.SIGKILL)
    assert "Traceback" not in server.output

    async def are_ended() -> bool:
        return not any(map(is_served, shards))

    await until(are_ended)


def redis_shards(server: Server) -> list[int]:
    """Return the ports of the Redis servers that the chat has started."""
    hosts = re.search(r"Layer redis://([\d.:,]+)/0\?prefix=chat,", server.output)[1]
    return [int(host.rpartition(":")[2]) for host in hosts.split(",")]


def is_served(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


async def test_without_a_redis_server_to_start_that_is_told(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(RuntimeError, match="no redis-server on PATH; install"):
        Server("--redis").__enter__()


async def test_in_memory_there_is_one_process():
    with Server("--memory") as server:
        spread = Spread(server.url)
        async with visit(spread, "Ana", "lobby") as ana, visit(spread, "Ben", "lobby") as ben:
            assert ana.process == ben.process
            assert shared_memory_of(ana.process) == set()
            await ben.say("lobby", "hello")
            await ana.expect("said", text="hello")


async def test_a_port_that_is_taken_is_told(server):
    with pytest.raises(RuntimeError, match=r"cannot be had: .*in use; --port takes another"):
        Server(port=server.port).__enter__()


async def test_a_layer_that_cannot_be_made_is_told(monkeypatch):
    monkeypatch.setenv("CHANNEL_LAYER", "ipc://chat?capcity=5")
    with pytest.raises(RuntimeError, match=r"unknown parameter; did you mean 'capacity'"):
        Server().__enter__()
