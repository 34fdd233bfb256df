"""Applications that test_asgi_servers.py runs under a real server; it reads what they print."""
# ruff: noqa: T201

from __future__ import annotations

import json

import anyio

from channels_layers import BackendUnavailable, InMemoryChannelLayer
from channels_layers.integrations.asgi import ChannelLayerMiddleware


class Announced(InMemoryChannelLayer):
    """A layer that says when it is opened and closed."""

    async def open(self):
        await super().open()
        print("layer opened", flush=True)

    async def close(self):
        await super().close()
        print("layer closed", flush=True)


class Unreachable(InMemoryChannelLayer):
    async def open(self):
        raise BackendUnavailable("nowhere")


async def without_lifespan(scope, receive, send):
    if scope["type"] == "http":
        await echo(scope, send)
    elif scope["type"] == "websocket":
        await chat(scope["channel_layer"], receive, send)
    else:
        raise ValueError(f"no application for {scope['type']}")


async def with_lifespan(scope, receive, send):
    if scope["type"] != "lifespan":
        await without_lifespan(scope, receive, send)
        return
    for moment in ("startup", "shutdown"):
        await receive()
        print(f"my own {moment}", flush=True)
        await send({"type": f"lifespan.{moment}.complete"})


async def echo(scope, send):
    """Answer with the path, once it has gone through the layer."""
    layer = scope["state"]["channel_layer"]
    name = await layer.new_channel()
    await layer.send(name, {"path": scope["path"]})
    body = json.dumps(await layer.receive(name)).encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


async def chat(layer, receive, send):
    """Send what one socket says to all of them."""

    async def pass_on():
        while True:
            await send({"type": "websocket.send", "text": (await layer.receive(name))["text"]})

    await receive()
    name = await layer.new_channel()
    await layer.group_add("chat", name)
    await send({"type": "websocket.accept"})
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(pass_on)
        while (event := await receive())["type"] == "websocket.receive":
            await layer.group_send("chat", {"text": event["text"]})
        tasks.cancel_scope.cancel()
    await layer.group_discard("chat", name)


known = ChannelLayerMiddleware(with_lifespan, Announced())
unknown = ChannelLayerMiddleware(without_lifespan, Announced())
unreachable = ChannelLayerMiddleware(with_lifespan, Unreachable())
