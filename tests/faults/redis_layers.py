"""Layers for the faults of the Redis layer, and what is to be called in spite of them."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from channels_layers import BackendUnavailable, RedisChannelLayer


async def opened(stack, hosts, count, **options):
    layers = [RedisChannelLayer(hosts, "test", capacity=10_000, **options) for _ in range(count)]
    return [await stack.enter_async_context(layer) for layer in layers]


async def busy(layers, traffic):
    """Let all of them write to all of them, directly, by a group, and to a normal channel."""
    channels = []
    for index, layer in enumerate(layers):
        channel = await layer.new_channel()
        channels.append(channel)
        await layer.group_add("all", channel)
        traffic.read(layer, "group", channel, index)
        traffic.read(layer, "jobs", "jobs", index)
    for index, layer in enumerate(layers):
        target = channels[(index + 1) % len(layers)]
        kind = f"to {index}"
        traffic.readers[kind].add((index + 1) % len(layers))
        traffic.write(lambda m, layer=layer, target=target: layer.send(target, m), kind, index)
        traffic.write(lambda m, layer=layer: layer.group_send("all", m), "group", index, 0.003)
        traffic.write(lambda m, layer=layer: layer.send("jobs", m), "jobs", index, 0.002)


async def repeated(call):
    """Call until nothing is in the way."""
    while True:
        with suppress(BackendUnavailable):
            return await call()
        await asyncio.sleep(0.01)
