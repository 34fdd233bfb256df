"""Opening, closing and opening again; what a layer says of itself."""

from __future__ import annotations

from functools import partial
from typing import Final

import anyio
import anyio.lowlevel

from ._check import LayerMaker, check
from ._tools import (
    Waiter,
    client_part,
    is_layer_closed,
    refused,
    settled,
)

EXTENSIONS: Final = {
    "groups": ("group_add", "group_discard", "group_send"),
    "flush": ("flush",),
    "statistics": ("statistics", "channel_statistics"),
}


@check("classes: unknown argument")
async def an_unknown_argument_is_an_error_that_names_it(make: LayerMaker) -> None:
    """A mistyped option is not swallowed."""
    what = "an unknown argument"
    error = await refused(partial(make, capcity=3), TypeError, ValueError, what=what)
    assert "capcity" in str(error), error


@check("classes: common arguments")
async def the_common_arguments_are_taken(make: LayerMaker) -> None:
    """All of them at once, with values of their kind."""
    layer = await make(
        expiry=30.5,
        group_expiry=600.5,
        capacity=7,
        channel_capacity={"jobs": 3},
        capacity_scope="channel",
        renew_memberships=True,
        on_gap=None,
        timeout=2.5,
        lease=5,
        max_message_bytes=8 * 1024 * 1024,
    )
    await layer.send("jobs", {"n": 1})
    assert await layer.receive("jobs") == {"n": 1}


@check("api: extensions")
async def extensions_are_really_there(make: LayerMaker) -> None:
    """What is listed can be called, and what can be called is listed."""
    layer = await make()
    assert isinstance(layer.extensions, list)
    for extension, calls in EXTENSIONS.items():
        there = all(callable(getattr(layer, call, None)) for call in calls)
        assert there == (extension in layer.extensions), f"{extension}: {layer.extensions}"


@check("api: extensions")
async def extensions_hold_what_the_contract_promises(make: LayerMaker) -> None:
    """Groups, flush and statistics are part of it."""
    layer = await make()
    assert set(EXTENSIONS) <= set(layer.extensions), layer.extensions
    assert all(type(extension) is str for extension in layer.extensions)


@check("api: ChannelFull, MessageTooLarge")
async def the_errors_are_attributes_of_the_layer(make: LayerMaker) -> None:
    """Two classes of exceptions that can be told apart."""
    layer = await make()
    for kind in (layer.ChannelFull, layer.MessageTooLarge):
        assert issubclass(kind, Exception)
    assert layer.ChannelFull is not layer.MessageTooLarge


@check("api: async with")
async def a_layer_is_an_async_context_manager(make: LayerMaker) -> None:
    """The block gives the layer itself, open; its end closes it."""
    layer = await make()
    async with layer as opened:
        assert opened is layer
        channel = await layer.new_channel()
        await layer.send(channel, {"n": 1})
        assert await layer.receive(channel) == {"n": 1}
    async with layer:
        assert client_part(await layer.new_channel()) != client_part(channel)


@check("api: async with")
async def the_end_of_the_block_ends_waiting_receivers(make: LayerMaker) -> None:
    """An error inside the block closes the layer as well and comes through as it is."""
    layer = await make()
    waiter = Waiter(partial(layer.receive, "jobs"))
    failure = LookupError("the block failed")
    async with anyio.create_task_group() as tasks:
        try:
            async with layer:
                await tasks.start(waiter.run)
                await settled()
                raise failure
        except LookupError as error:
            assert error is failure
        await waiter.end()
    assert is_layer_closed(waiter.error), repr(waiter.error or waiter.got)
