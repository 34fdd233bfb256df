"""The chat example in a real server process, with real WebSocket clients."""

from __future__ import annotations

import sys
from collections import Counter
from contextlib import asynccontextmanager
from subprocess import CompletedProcess

import anyio
import pytest
from servers import CHAT, Browser, FaultyChat, Server, Visitor, visit
from websockets.asyncio.client import connect
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


@asynccontextmanager
async def playground(**options):
    with anyio.fail_after(20):
        async with InMemoryChannelLayer(**options) as layer, anyio.create_task_group() as tasks:
            yield layer, tasks


async def run_check(*arguments: str) -> CompletedProcess[bytes]:
    command = [sys.executable, str(CHAT / "check.py"), *arguments]
    return await anyio.run_process(command, check=False)


# ---- the whole


async def test_every_member_of_a_room_gets_each_message_once_and_in_order():
    result = await run_check("--clients=6", "--rooms=2", "--messages=5")
    assert result.returncode == 0, result.stdout + result.stderr
    assert b"deliveries: 90 of 90; 0 lost, 0 doubled, 0 out of order, 0 astray" in result.stdout


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
    assert b"on 2 servers" in result.stdout
    assert b"deliveries: 64 of 64; 0 lost" in result.stdout
    for room in ("check-0", "check-1"):
        ports = Counter(socket.local_address[1] for socket in chat.rooms[room])
        assert sorted(ports.values()) == [2, 2]


# ---- rooms and people


async def test_what_is_said_stays_in_its_room(server):
    async with visit(server, "Ana", "a-room") as ana, visit(server, "Ben", "b-room") as ben:
        await ana.say("a-room", "only here")
        await ana.expect("said", text="only here")
        await ben.say("b-room", "first that Ben hears")
        assert (await ben.expect("said"))["text"] == "first that Ben hears"


async def test_one_socket_may_be_in_several_rooms(server):
    async with visit(server, "Ana", "one", "two") as ana, visit(server, "Ben", "one") as ben:
        await ana.say("two", "in two")
        await ana.expect("said", room="two", text="in two")
        await ben.say("one", "in one")
        await ana.expect("said", room="one", text="in one", name="Ben")


async def test_those_in_a_room_and_the_newcomer_learn_of_each_other(server):
    async with visit(server, "Ana", "meeting") as ana, visit(server, "Ben") as ben:
        await ben.send(type="join", room="meeting")
        await ana.expect("joined", room="meeting", who=ben.who, name="Ben")
        await ben.expect("present", room="meeting", who=ana.who, name="Ana")


async def test_the_list_of_members_is_the_layers_own(server):
    async with visit(server, "Ana", "listed") as ana, visit(server, "Ben", "listed") as ben:
        await ana.send(type="who", room="listed")
        assert set((await ana.expect("members"))["members"]) == {ana.who, ben.who}


async def test_leaving_a_room_is_told_and_ends_what_is_heard(server):
    async with visit(server, "Ana", "left") as ana, visit(server, "Ben", "left", "other") as ben:
        await ben.send(type="leave", room="left")
        await ana.expect("left", room="left", who=ben.who)
        await ana.say("left", "Ben is gone")
        await ana.expect("said", text="Ben is gone")
        await ben.say("other", "still there")
        assert (await ben.expect("said"))["text"] == "still there"


@pytest.mark.parametrize("abruptly", [False, True])
async def test_who_disconnects_has_left(server, abruptly):
    async with visit(server, "Ana", "parting") as ana:
        async with visit(server, "Ben", "parting") as ben:
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
async def test_a_malformed_frame_is_answered_and_disturbs_nobody(server, frame):
    async with visit(server, "Ana", "lobby") as ana, visit(server, "Ben", "lobby") as ben:
        await ben.socket.send(frame)
        await ben.expect("error")
        await ben.say("lobby", "sorry")
        assert (await ana.expect("said"))["text"] == "sorry"


async def test_a_frame_beyond_the_limit_ends_its_own_socket_only(server):
    async with visit(server, "Ana", "big") as ana:
        async with visit(server, "Ben", "big") as ben:
            await ben.say("big", "x" * 100_000)
            with pytest.raises(ConnectionClosed):
                await ben.expect("said")
        await ana.expect("left", who=ben.who)


async def test_the_longest_text_fits_into_a_frame_however_it_is_written(server):
    async with visit(server, "Ana", "long") as ana:
        await ana.say("long", "\N{OTTER}" * 2000)
        assert (await ana.expect("said"))["text"] == "\N{OTTER}" * 2000


async def test_half_a_surrogate_pair_reaches_the_others_as_a_question_mark(server):
    async with visit(server, "Ana", "halves") as ana, visit(server, "Ben", "halves") as ben:
        await ben.socket.send('{"type":"say","room":"halves","text":"a\\ud800b","ref":1}')
        assert (await ana.expect("said"))["text"] == "a?b"


async def test_nobody_is_in_more_than_twenty_rooms(server):
    async with visit(server, "Ana", *(f"room-{number}" for number in range(20))) as ana:
        await ana.send(type="join", room="one-more")
        assert "20 rooms" in (await ana.expect("error"))["detail"]


@pytest.mark.parametrize(
    ("asked", "given"),
    [("", "guest"), ("%20%00%20", "guest"), ("A%0A%E2%80%AEna", "A na"), ("x" * 99, "x" * 24)],
)
async def test_a_nickname_is_one_short_visible_line(server, asked, given):
    async with connect(f"ws://{server.address}/ws?name={asked}", proxy=None) as socket:
        assert (await Visitor(socket).expect("welcome"))["name"] == given


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
        async with visit(first, "Ana", "lobby") as ana:
            await anyio.to_thread.run_sync(first.stop)
            with pytest.raises(ConnectionClosed):
                await ana.expect("said")
    assert "Application shutdown complete" in first.output
    assert "Traceback" not in first.output
    with Server(port=first.port) as second:
        async with visit(second, "Ana", "lobby") as ana:
            await ana.say("lobby", "here again")
            await ana.expect("said", text="here again")
