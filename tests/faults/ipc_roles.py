"""What the processes of the storms do: write numbered messages, read them, note everything.

A process notes each step in a file of its own, which outlives it:

    b W N    begins to send message N of writer W
    eK W N   the send has returned; K is one of the following
    r W N    message N of writer W came from the queue
    d W N    it came directly
    g W N    it came through the group
    p W N    it came to a member of the group, which may have died
    x TEXT   what must not be
    l N WHY  so many messages were dropped unread, says the witness
    m S      the longest call so far took S seconds
"""

from __future__ import annotations

import asyncio
import os
import time
import zlib
from functools import partial

from channels_layers import ChannelFull, IPCChannelLayer

QUEUE = "jobs"
GROUP = "all"
OPTIONS = {
    "capacity": 100,
    "channel_capacity": {"witness.*": 100_000},
    "lease": 2,
    "message_memory": 512 << 20,  # inboxes that do not fill up where the witness has to wait
}


class Notes:
    """The file of one process."""

    def __init__(self, path):
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._longest = 0.0

    def add(self, kind, *values):
        os.write(self._descriptor, (" ".join([kind, *map(str, values)]) + "\n").encode())

    async def timed(self, call):
        """Await a call that should be possible at once; note an error, and the longest."""
        began = time.monotonic()
        try:
            return await call
        except ChannelFull:
            raise
        except Exception as error:  # noqa: BLE001 - the test looks at it
            self.add("x", repr(f"{type(error).__name__}: {error}"))
        finally:
            took = time.monotonic() - began
            if took > self._longest:
                self._longest = took
                self.add("m", took)


def message(kind, writer, number):
    """Return a message that shows whether it is whole; `kind` is one of those in the notes."""
    text = f"{kind} {writer} {number} " * (1 + number % 40)
    return {"kind": kind, "writer": writer, "number": number, "text": text, "sum": _sum(text)}


def _sum(text):
    return zlib.crc32(text.encode())


def note_arrival(notes, found):
    """Note which message it is, if it is whole."""
    is_whole = found.keys() == {"kind", "writer", "number", "text", "sum"}
    if not is_whole or found != message(found["kind"], found["writer"], found["number"]):
        notes.add("x", repr(f"torn: {found}"))
    else:
        notes.add(found["kind"], found["writer"], found["number"])


async def write(report, prefix, path, writer, witness):
    """Send to the queue, to the witness, and to the group in turn, until told to end."""
    notes = Notes(path)
    layer = IPCChannelLayer(prefix, **OPTIONS)
    number = 0
    report.tell("ready")

    async def send(kind, call):
        nonlocal number
        number += 1
        notes.add("b", writer, number)
        try:
            await notes.timed(call(message(kind, writer, number)))
        except ChannelFull:
            await asyncio.sleep(0.001)
        else:
            notes.add("e" + kind, writer, number)

    while not report.is_told:
        for _ in range(5):
            await send("r", partial(layer.send, QUEUE))
            await send("d", partial(layer.send, witness))
        await send("g", partial(layer.group_send, GROUP))
        members = await notes.timed(layer.group_channels(GROUP))
        for member in members or ():  # of whom some have died since
            await send("p", partial(layer.send, member))
    await layer.close()


async def read(report, prefix, path):
    """Take from the queue, and be a member of the group, until told to end."""
    notes = Notes(path)
    layer = IPCChannelLayer(prefix, **OPTIONS)
    own = await layer.new_channel()
    await notes.timed(layer.group_add(GROUP, own))
    report.tell(own)
    while not report.is_told:
        try:
            async with asyncio.timeout(0.2):
                _, found = await layer.receive_from([QUEUE, own])
        except TimeoutError:
            continue
        note_arrival(notes, found)
    await layer.close()


async def witness(report, prefix, path):
    """Take what comes directly and through the group, until told to end and nothing comes."""
    notes = Notes(path)
    layer = IPCChannelLayer(prefix, **OPTIONS)
    own = await layer.new_channel("witness")
    await layer.group_add(GROUP, own)
    report.tell(own)
    while True:
        try:
            async with asyncio.timeout(0.5):
                found = await layer.receive(own)
        except TimeoutError:
            if report.is_told:
                break
            continue
        note_arrival(notes, found)
    for why, count in (await layer.statistics())["dropped_count"].items():
        notes.add("l", count, why)
    await layer.close()


async def drain(report, prefix, path):
    """Take what stands in the queue, until nothing comes any more."""
    notes = Notes(path)
    layer = IPCChannelLayer(prefix, **OPTIONS)
    while True:
        try:
            async with asyncio.timeout(0.7):
                note_arrival(notes, await layer.receive(QUEUE))
        except TimeoutError:
            break
    report.tell(await layer.group_channels(GROUP))
    await report.heard()
    await layer.flush()  # what was sent to members that had died
    await layer.close()
