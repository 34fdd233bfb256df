"""The chat example, for the tests here that talk to it as a person's browser does."""

from __future__ import annotations

import json
import os
import re
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
from starlette.websockets import WebSocket
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.server import ServerConnection

from channels_layers import InMemoryChannelLayer

CHAT = Path(__file__).resolve().parents[2] / "examples" / "chat"
sys.path.insert(0, str(CHAT))  # its files import each other by their bare names

from app import chat  # noqa: E402
from check import Person, tell_spread  # noqa: E402
from server import Server  # noqa: E402
from spread import Spread  # noqa: E402

__all__ = [
    "CHAT",
    "Browser",
    "FaultyChat",
    "Person",
    "Server",
    "Spread",
    "Visitor",
    "lives",
    "shared_memory_of",
    "tell_spread",
    "until",
    "visit",
]

GLANCE_S = 0.05  # between two looks at something outside of this process
PATIENCE_S = 20.0  # until a test gives up; nothing here takes a tenth of it


class Visitor:
    """A client of the chat that reads frames until the one it wants has come."""

    def __init__(self, socket: ClientConnection, welcome: dict[str, Any]) -> None:
        self.socket = socket
        self.who: str = welcome["who"]
        self.name: str = welcome["name"]
        self.process: int = welcome["process"]

    async def send(self, **frame: Any) -> None:
        """Send one frame."""
        await self.socket.send(json.dumps(frame))

    async def say(self, room: str, text: str) -> None:
        """Say something in a room."""
        await self.send(type="say", room=room, text=text, ref=1)

    async def expect(self, kind: str, **fields: Any) -> dict[str, Any]:
        """Wait for the next frame of this type with these fields; others are passed over."""
        wanted = {"type": kind, **fields}
        with anyio.fail_after(PATIENCE_S):
            while True:
                frame: dict[str, Any] = json.loads(await self.socket.recv())
                if wanted.items() <= frame.items():
                    return frame

    async def members(self, room: str) -> list[str]:
        """Ask who is in a room."""
        await self.send(type="who", room=room)
        return list((await self.expect("members", room=room))["members"])

    async def join(self, room: str) -> None:
        """Come into a room, and be told so."""
        await self.send(type="join", room=room)
        await self.expect("joined", room=room, who=self.who)


@asynccontextmanager
async def visit(spread: Spread, name: str, *rooms: str) -> AsyncIterator[Visitor]:
    """Connect under a nickname and join rooms; two at a time are at two processes."""
    socket, welcome = await spread.connect(name)
    async with socket:
        visitor = Visitor(socket, welcome)
        for room in rooms:
            await visitor.join(room)
        try:
            yield visitor
        finally:
            spread.served[visitor.process] -= 1


def shared_memory_of(process: int) -> set[Path]:
    """Return the folders in /dev/shm of which a process has files mapped."""
    mapped = Path(f"/proc/{process}/maps").read_text()
    return {Path(found) for found in re.findall(r"/dev/shm/channels-layers-[^/\s]+", mapped)}


def lives(process: int) -> bool:
    """Say whether there is a process of this id."""
    return Path(f"/proc/{process}").exists()


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait for what other processes do in their own time."""
    with anyio.fail_after(PATIENCE_S):
        while True:
            if await condition():
                return
            await anyio.sleep(GLANCE_S)


class Browser:
    """One socket of the chat in this process, without a network in between.

    Attributes:
        error: Raised instead of sending the next frame, where it is set.
        gone: Set when the chat is done with it.
    """

    def __init__(self, layer: InMemoryChannelLayer, *, is_stuck: bool = False) -> None:
        self.error: Exception | None = None
        self.gone = anyio.Event()
        self._is_stuck = is_stuck
        self._frames: list[dict[str, Any]] = []
        self._typed, self._events = anyio.create_memory_object_stream[dict[str, Any]](100)
        self._typed.send_nowait({"type": "websocket.connect"})
        self._scope = {
            "type": "websocket",
            "path": "/ws",
            "query_string": b"name=somebody",
            "headers": [],
            "channel_layer": layer,
        }

    async def visit(self) -> None:
        """Be served until the socket ends."""
        with self._typed, self._events:
            await chat(WebSocket(self._scope, self._events.receive, self._send))
        self.gone.set()

    async def say(self, frame: dict[str, Any]) -> None:
        """Send one frame; when this returns, what it causes has happened."""
        self._typed.send_nowait({"type": "websocket.receive", "text": json.dumps(frame)})
        await anyio.wait_all_tasks_blocked()

    async def go(self) -> None:
        """Close the socket; when this returns, everybody knows."""
        self._typed.send_nowait({"type": "websocket.disconnect", "code": 1001})
        await self.gone.wait()
        await anyio.wait_all_tasks_blocked()

    def heard(self, kind: str) -> list[str | None]:
        """The texts of all frames of this type, so far."""
        return [frame.get("text") for frame in self._frames if frame["type"] == kind]

    async def _send(self, event: Any) -> None:
        if self.error:
            raise self.error
        if event["type"] == "websocket.send":
            if self._is_stuck:
                await anyio.sleep_forever()
            self._frames.append(json.loads(event["text"]))


class FaultyChat:
    """A chat that does one thing wrong: with the message 1 of each member, or with rooms.

    Attributes:
        fault: "lost", "doubled", "out of order", "astray" or "none".
        rooms: Who is in which room.
    """

    def __init__(self, fault: str) -> None:
        self.fault = fault
        self.rooms: dict[str, list[ServerConnection]] = defaultdict(list)

    async def __call__(self, socket: ServerConnection) -> None:
        """Serve one client."""
        me = {"who": str(socket.id), "name": "somebody"}
        held: list[dict[str, Any]] = []
        about = {"process": os.getpid(), "processes": 1, "layer": "none"}
        await socket.send(json.dumps({"type": "welcome", **me, **about}))
        async for text in socket:
            frame = json.loads(text)
            if frame["type"] == "join":
                self.rooms[frame["room"]].append(socket)
                await self._tell({**frame, **me, "type": "joined"})
            else:
                for said in self._spoil({**frame, **me, "type": "said"}, held):
                    await self._tell(said)

    def _spoil(self, said: dict[str, Any], held: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return what to tell instead; `held` waits for the member's next message."""
        match self.fault, said["text"]:
            case "lost", "1":
                return []
            case "doubled", "1":
                return [said, said]
            case "out of order", "1":
                held.append(said)
                return []
        return [said, *(held.pop() for _ in tuple(held))]

    async def _tell(self, frame: dict[str, Any]) -> None:
        for room, sockets in self.rooms.items():
            for socket in sockets if room == frame["room"] or self.fault == "astray" else ():
                await socket.send(json.dumps(frame))
