"""How large a message may be."""

from __future__ import annotations

import json
from functools import partial
from typing import Any, Final

from ._check import LayerMaker, check
from ._tools import exactly, member, refused
from .messages import arrivals

MEGABYTE: Final = 1024 * 1024  # bytes as JSON: what always fits
MEBIBYTE: Final = 1024 * 1024


def _json_bytes(message: Any) -> int:
    return len(json.dumps(message, separators=(",", ":"), ensure_ascii=False).encode())


@check("api: send")
async def a_megabyte_of_text_fits(make: LayerMaker) -> None:
    """One megabyte as JSON is never too large."""
    layer = await make()
    message = {"a": "x" * (MEGABYTE - 8)}
    assert _json_bytes(message) == MEGABYTE
    assert all(exactly(got, message) for got in await arrivals(layer, message))


@check("api: send")
async def a_megabyte_of_short_floats_fits(make: LayerMaker) -> None:
    """Numbers that are short as text and long as binary count by their text."""
    layer = await make()
    message = {"a": [1.0] * ((MEGABYTE - 8) // 4)}
    assert _json_bytes(message) <= MEGABYTE
    assert all(exactly(got, message) for got in await arrivals(layer, message))


@check("api: send")
async def what_is_too_large_is_refused(make: LayerMaker) -> None:
    """By default the limit is 4 MiB; the error is also an attribute of the layer."""
    layer = await make()
    channel = await layer.new_channel()
    await layer.send(channel, {"a": bytes(3 * MEBIBYTE)})
    large = {"a": bytes(4 * MEBIBYTE + 1)}
    await refused(lambda: layer.send(channel, large), layer.MessageTooLarge, what="4 MiB + 1")
    assert len((await layer.receive(channel))["a"]) == 3 * MEBIBYTE


@check("classes: common arguments")
async def max_message_bytes_moves_the_limit(make: LayerMaker) -> None:
    """A larger limit lets larger messages pass, and no larger ones."""
    layer = await make(max_message_bytes=6 * MEBIBYTE)
    channel = await layer.new_channel()
    await layer.send(channel, {"a": bytes(5 * MEBIBYTE)})
    large = {"a": bytes(6 * MEBIBYTE + 1)}
    await refused(lambda: layer.send(channel, large), layer.MessageTooLarge, what="6 MiB + 1")


@check("api: group_send")
async def what_is_too_large_reaches_nobody(make: LayerMaker) -> None:
    """A refused message leaves the channel and the group as they were."""
    layer = await make()
    channel = await member(layer, "group")
    large = {"a": bytes(4 * MEBIBYTE + 1)}
    for call, target in ((layer.send, channel), (layer.group_send, "group")):
        await refused(partial(call, target, large), layer.MessageTooLarge, what=target)
    await layer.send(channel, {"n": 1})
    assert await layer.receive(channel) == {"n": 1}
