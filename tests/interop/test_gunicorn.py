"""The chat over the IPC layer under gunicorn, which makes the layer before it forks its workers."""

from __future__ import annotations

import os
import re
import secrets
import signal
import sys
from pathlib import Path

import anyio
import pytest
from servers import CHAT, Server, Spread, lives, shared_memory_of, until, visit
from websockets.exceptions import ConnectionClosed

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return "asyncio"


class Gunicorn(Server):
    """A gunicorn master with two workers."""

    listens = re.compile(r"Listening at: http://[\d.]+:(\d+)")

    def command(self):
        """See `Server`."""
        return [
            *(sys.executable, "-m", "gunicorn", "--chdir", str(CHAT), "--preload"),
            *("--workers", "2", "--worker-class", "uvicorn_worker.UvicornWorker"),
            *("--bind", f"127.0.0.1:{self.port}", "--no-control-socket"),
            *(*self.arguments, "app:app"),
        ]


@pytest.fixture(params=[False, True], ids=["made", "used"])
def gunicorn(request, monkeypatch):
    """A chat whose layer was made, or also used, before the workers were forked."""
    monkeypatch.setenv("CHANNEL_LAYER", f"ipc://test-{secrets.token_hex(8)}")
    monkeypatch.setenv("CHAT_PROCESSES", "2")
    settings = Path(__file__).with_name("gunicorn_used_layer.py")
    with Gunicorn(*["--config", str(settings)] * request.param) as server:
        server.master_has_used_it = request.param
        yield server
    assert not re.search("traceback|exception|warning", server.output, re.IGNORECASE)


async def test_the_rooms_of_all_workers_are_the_same(gunicorn):
    spread = Spread(gunicorn.url)
    async with visit(spread, "Ana", "lobby") as ana, visit(spread, "Ben", "lobby") as ben:
        assert ana.process != ben.process
        assert {ana.who, ben.who} <= set(await ana.members("lobby"))
        for text in ("one", "two", "three"):
            await ana.say("lobby", text)
            assert (await ben.expect("said"))["text"] == text
            assert (await ana.expect("said"))["text"] == text
            await ben.say("lobby", text)
            assert (await ana.expect("said"))["text"] == text
            assert (await ben.expect("said"))["text"] == text
        folders = shared_memory_of(ana.process)
    assert folders == shared_memory_of(ben.process)
    assert await anyio.to_thread.run_sync(gunicorn.stop) == 0
    assert len(folders) == 1
    assert not any(folder.exists() for folder in folders)
    if gunicorn.master_has_used_it:
        texts = ["before the fork", *(text for text in ("one", "two", "three") for _ in "AB")]
        assert f"the master heard {texts}" in gunicorn.output


async def test_a_killed_worker_is_replaced_and_its_memberships_end(gunicorn):
    spread = Spread(gunicorn.url)
    async with visit(spread, "Ana", "lobby") as ana:
        async with visit(spread, "Ben", "lobby") as ben:
            await ana.expect("joined", who=ben.who)
            before = set(await ana.members("lobby"))
            os.kill(ben.process, signal.SIGKILL)
            with pytest.raises(ConnectionClosed):
                await ben.expect("said")

            async def has_gone():
                return set(await ana.members("lobby")) == before - {ben.who}

            await until(has_gone)
        async with visit(spread, "Cara", "lobby") as cara:
            assert cara.process not in (ana.process, ben.process)
            await cara.say("lobby", "hello")
            await ana.expect("said", text="hello")
            await ana.say("lobby", "hello to you")
            await cara.expect("said", text="hello to you")
        folders = shared_memory_of(ana.process)
    assert await anyio.to_thread.run_sync(gunicorn.stop) == 0
    assert not any(folder.exists() for folder in folders)
    assert not lives(ana.process)
    assert not lives(cara.process)
