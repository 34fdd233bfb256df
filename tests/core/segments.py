"""Segments of queues in ordinary memory, and short ways to use them."""

from __future__ import annotations

from channels_layers.errors import ChannelFull
from channels_layers.ipc._queue_layout import BLOCK_BYTES, FIRST_BLOCK
from channels_layers.ipc._queues import QueueSegment


def no_limit(size_bytes):
    """Every byte of a bytearray is there already."""


def memory(blocks=64):
    """Return an empty segment's memory, with `blocks` blocks in its pool."""
    size_bytes = (FIRST_BLOCK + blocks) * BLOCK_BYTES
    view = memoryview(bytearray(size_bytes))
    QueueSegment.format(view, size_bytes, no_limit)
    return view


def segment(blocks=64):
    return QueueSegment(memory(blocks), no_limit)


def push(queues, channel, payload, *, expires_at=60.0, now=0.0, capacity=100, kind=0):
    return queues.push(
        channel, payload, expires_at=expires_at, now=now, capacity=capacity, kind=kind
    )


def copy(queues, channel, payload, *, capacity=100):
    return queues.push_copy(channel, payload, expires_at=60.0, now=0.0, capacity=capacity)


def drained(queues, channel, now=0.0):
    """Take all messages of a channel; return their payloads."""
    found = []
    while (letter := queues.take(channel, now)) is not None:
        found.append(letter[1])
    return found


def room(queues, now=1e6):
    """Return how many messages an empty segment takes."""
    for count in range(10_000):
        try:
            push(queues, "room", b"", expires_at=now + 1, now=now, capacity=10_000)
        except ChannelFull:
            assert len(drained(queues, "room", now)) == count
            return count
    raise AssertionError("endless room")
