# Run: python examples/asgi_middleware.py  (needs starlette, uvicorn and websockets)
# A chat that does not end: uvicorn --app-dir examples asgi_middleware:app
"""A chat over WebSockets: the middleware opens the layer and gives it to every connection."""

import socket

import anyio
import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket
from websockets.asyncio.client import connect

from channels_layers import InMemoryChannelLayer
from channels_layers.integrations.asgi import ChannelLayerMiddleware


async def chat(websocket: WebSocket):
    layer = websocket.state.channel_layer
    channel = await layer.new_channel()
    await layer.group_add("chat", channel)
    await websocket.accept()

    async def show():
        while True:
            message = await layer.receive(channel)
            await websocket.send_text(message["text"])

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(show)
        async for text in websocket.iter_text():
            await layer.group_send("chat", {"text": text})
        tasks.cancel_scope.cancel()
    await layer.group_discard("chat", channel)


app = Starlette(
    routes=[WebSocketRoute("/", chat)],
    middleware=[Middleware(ChannelLayerMiddleware, layer=InMemoryChannelLayer())],
)


async def main():
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    with socket.create_server(("127.0.0.1", 0)) as listener:  # listens now: nobody is too early
        url = f"ws://127.0.0.1:{listener.getsockname()[1]}/"
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(server.serve, [listener])
            async with connect(url, proxy=None) as ann, connect(url, proxy=None) as bob:
                await ann.send("Ann: hello")
                print("Bob reads", await bob.recv())
                await bob.send("Bob: hello, Ann")
                print("Ann reads", [await ann.recv() for _ in range(2)])
            server.should_exit = True


if __name__ == "__main__":
    anyio.run(main)
