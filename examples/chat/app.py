"""A chat: each room is a group, each socket has a channel that is in the groups of its rooms.

python examples/chat/processes.py             serves it with two processes
uvicorn --app-dir examples/chat app:app       serves it with one
CHANNEL_LAYER=ipc://chat?capacity=500         chooses the layer and its options
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
from frames import BadFrame, Join, Leave, Say, Who, read_frame, read_name
from starlette.applications import Starlette
from starlette.routing import Mount, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocket, WebSocketDisconnect

from channels_layers import ChannelFull, from_url
from channels_layers.integrations.asgi import ChannelLayerMiddleware

LAYER = os.environ.get("CHANNEL_LAYER", "memory://")
PROCESSES = int(os.environ.get("CHAT_PROCESSES", "1"))  # how many serve this address
PAGE = Path(__file__).with_name("page")
MAX_ROOMS = 20  # rooms that one socket may be in
MAX_FRAME_BYTES = 32 * 1024  # the longest text as JSON escapes, and its wrapping
PAUSE_S = 0.05  # between two frames of one socket: nobody floods a room
GOODBYE_S = 5.0  # how long saying goodbye may take


class Member:
    """One person at one socket."""

    def __init__(self, websocket: WebSocket, channel: str, name: str) -> None:
        self.websocket = websocket
        self.layer = websocket.scope["channel_layer"]
        self.channel = channel
        self.name = name
        self.rooms: set[str] = set()

    async def deliver(self) -> None:
        """Hand what arrives on the channel to the browser; nobody else writes to the socket.

        A slow browser makes this wait, and the channel fills up to its capacity. What the
        groups send after that misses this member; memory and the other members are safe.
        """
        while True:
            message = await self.layer.receive(self.channel)
            if message["type"] == "joined" and message["who"] != self.channel:
                await self.tell(message["who"], "present", message["room"])
            try:
                await self.websocket.send_json(message)
            except RuntimeError as error:  # the server has closed the socket by itself
                raise WebSocketDisconnect(1006) from error

    async def listen(self) -> None:
        """Do what the browser asks for, one frame after the other, until it goes."""
        while True:
            event = await self.websocket.receive()
            if event["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(event["code"])
            try:
                await self.obey(read_frame(event.get("text")))
            except BadFrame as bad:
                await self.tell(self.channel, "error", detail=str(bad))
            await anyio.sleep(PAUSE_S)

    async def obey(self, frame: Join | Leave | Who | Say) -> None:
        """Do what one frame asks for."""
        match frame:
            case Join(room):
                await self.join(room)
            case Leave(room):
                await self.leave(room)
            case Who(room):
                members = await self.layer.group_channels(group_of(room))
                await self.tell(self.channel, "members", room, members=members)
            case Say(room, text, ref) if room in self.rooms:
                said = self.message("said", room, text=text, ref=ref, at=time.time())
                await self.layer.group_send(group_of(room), said)
            case _:
                raise BadFrame("join the room first")

    async def join(self, room: str) -> None:
        """Become a member of `room`, and tell it, this member included."""
        if room not in self.rooms and len(self.rooms) >= MAX_ROOMS:
            raise BadFrame(f"nobody can be in more than {MAX_ROOMS} rooms")
        self.rooms.add(room)
        await self.layer.group_add(group_of(room), self.channel)
        await self.layer.group_send(group_of(room), self.message("joined", room))

    async def leave(self, room: str) -> None:
        """Stop being a member of `room`, and tell those who stay."""
        if room in self.rooms:
            await self.layer.group_discard(group_of(room), self.channel)
            await self.layer.group_send(group_of(room), self.message("left", room))
            self.rooms.discard(room)

    async def tell(self, channel: str, kind: str, room: str | None = None, **more: Any) -> None:
        """Send a message to one channel; if it is full, that browser misses it."""
        with suppress(ChannelFull):
            await self.layer.send(channel, self.message(kind, room, **more))

    def message(self, kind: str, room: str | None, **more: Any) -> dict[str, Any]:
        """Make a message about this member."""
        return {"type": kind, "room": room, "who": self.channel, "name": self.name, **more}


def group_of(room: str) -> str:
    """Name the group of a room."""
    return f"chat.{room}"


def about_server() -> dict[str, Any]:
    """Say who serves, so that a window can show which process it talks to."""
    return {"process": os.getpid(), "processes": PROCESSES, "layer": LAYER.partition(":")[0]}


async def chat(websocket: WebSocket) -> None:
    """Serve one socket, from its first frame to its last."""
    channel = await websocket.scope["channel_layer"].new_channel("chat")
    member = Member(websocket, channel, read_name(websocket.query_params.get("name", "")))
    await websocket.accept()
    try:
        await member.tell(channel, "welcome", **about_server())
        # Whichever of the two ends first ends the other.
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(member.deliver)
            tasks.start_soon(member.listen)
    except* WebSocketDisconnect:
        pass
    finally:
        with anyio.move_on_after(GOODBYE_S, shield=True):
            for room in tuple(member.rooms):
                await member.leave(room)


layer = from_url(LAYER)
routes = [WebSocketRoute("/ws", chat), Mount("/", StaticFiles(directory=PAGE, html=True))]
app = ChannelLayerMiddleware(Starlette(routes=routes), layer)
