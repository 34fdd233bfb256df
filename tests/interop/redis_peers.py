"""Our Redis layer and those of channels_redis, for one scenario on both."""

from __future__ import annotations

import asyncio
import secrets
from contextlib import suppress

import redis
from channels_redis.pubsub import RedisPubSubChannelLayer as PubSub

from channels_layers import BackendUnavailable, RedisChannelLayer

QUIET = 0.3  # seconds in which nothing more comes, so that the rest counts as lost
LIMIT = 60.0  # seconds for anything; only what hangs ever gets there


def ours(hosts, prefix=None, **options):
    return RedisChannelLayer(hosts, prefix or f"ours-{secrets.token_hex(4)}", **options)


def theirs(kind, hosts, prefix=None, **options):
    # redis-py 8 would end their waiting after five seconds by itself.
    addresses = [{"address": host, "socket_timeout": None} for host in hosts]
    return kind(hosts=addresses, prefix=prefix or f"theirs-{secrets.token_hex(4)}", **options)


async def ended(*layers):
    for layer in layers:
        if isinstance(layer, RedisChannelLayer):
            await layer.close()
        elif isinstance(layer, PubSub):
            await layer.flush()
        else:
            await layer.close_pools()


def patience(layer):
    """Return seconds to wait for what is to come from ours, and never comes from theirs."""
    return LIMIT if isinstance(layer, RedisChannelLayer) else 1.0


def pairs(kind, near, far):
    """Return a receiver at one URL and a sender at another one: ours, and theirs."""
    return (
        (ours(near, "ours"), ours(far, "ours")),
        (theirs(kind, [near], "theirs"), theirs(kind, [far], "theirs")),
    )


async def came(layer, channel):
    """Receive until it is quiet; ours may be slow on a busy machine, and still lose nothing."""
    got, quiet = [], 1.0 if isinstance(layer, RedisChannelLayer) else QUIET
    with suppress(TimeoutError):
        while True:
            got.append(await asyncio.wait_for(layer.receive(channel), quiet))
    return got


async def until(is_so, what):
    """Poll `is_so` until it is true; fail with `what` when it takes too long."""
    async with asyncio.timeout(LIMIT) as limit:
        while not is_so():  # noqa: ASYNC110 - what it asks has no event
            await asyncio.sleep(0.005)
    assert not limit.expired(), f"not within {LIMIT} s: {what}"


async def blocked(server, count):
    """Wait until so many connections block in the server."""

    def are_blocked():
        return sum("b" in client["flags"] for client in server.clients()) >= count

    await until(are_blocked, f"{count} connections that block")


async def dropped(*tasks):
    """Cancel the tasks, whatever they have come to."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def first(reading, send, seconds=LIMIT):
    """Send 1, 2, 3... until the reader gets something; return what, or its error, or None."""
    number = 0
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while not reading.done():
                number += 1
                with suppress(BackendUnavailable, redis.ConnectionError):
                    await send({"type": "t", "n": number})
                await asyncio.wait([reading], timeout=0.1)
            return reading.exception() or reading.result()["n"]
    await dropped(reading)
    return None


def both(scenario, mine, peer):
    """Return what the scenario finds on both: layers, or tuples of layers for its arguments."""

    async def main(layers):
        layers = layers if isinstance(layers, tuple) else (layers,)
        try:
            return await scenario(*layers)
        finally:
            await ended(*layers)

    return asyncio.run(main(mine)), asyncio.run(main(peer))
