"""Settings of gunicorn whose master uses the chat's layer before it forks, and to its end."""
# ruff: noqa: T201

from __future__ import annotations

from asgiref.sync import async_to_sync


def on_starting(server):
    """Be a member of a room, as the master."""
    from app import layer

    server.channel = async_to_sync(layer.new_channel)()
    async_to_sync(layer.group_add)("chat.lobby", server.channel)
    async_to_sync(layer.group_send)("chat.lobby", {"text": "before the fork"})


def on_exit(server):
    """Print what the master has heard."""
    from app import layer

    async def end():
        pending = (await layer.channel_statistics(server.channel))["messages_pending"]
        heard = [await layer.receive(server.channel) for _ in range(pending)]
        return [message["text"] for message in heard if "text" in message]

    print(f"the master heard {async_to_sync(end)()}", flush=True)
