"""Fresh names: `new_channel`."""

from __future__ import annotations

import re

from ._check import LayerMaker, check
from ._tools import client_part, drained, line

NAME = re.compile(r"[A-Za-z0-9._-]+!([A-Za-z0-9._-]+)")


@check("api: new_channel")
async def a_new_channel_is_process_specific(make: LayerMaker) -> None:
    """Its name is the prefix, a client id as last part before the mark, and a local part."""
    layer = await make()
    for prefix in ("specific", "http.response", "a"):
        name = await layer.new_channel(prefix)
        assert NAME.fullmatch(name), name
        client = client_part(name).removeprefix(prefix + ".")
        assert name.startswith(prefix + "."), name
        assert len(client) > 1, f"{name}: no client id"
        assert "." not in client, f"{name}: the client id is the last part before the mark"


@check("api: new_channel")
async def the_default_prefix_is_specific(make: LayerMaker) -> None:
    """Django Channels and its users rely on it."""
    layer = await make()
    assert (await layer.new_channel()).startswith("specific.")


@check("api: new_channel")
async def new_channels_are_all_different(make: LayerMaker) -> None:
    """No name is given twice."""
    layer = await make()
    prefixes = ("specific", "http.response", "http.body?")
    names = [await layer.new_channel(prefix) for prefix in prefixes for _ in range(200)]
    assert len(set(names)) == len(names)


@check("words: client")
async def one_open_layer_has_one_client_id(make: LayerMaker) -> None:
    """All names of one prefix share their non-local part, and all prefixes the client id."""
    layer = await make()
    names = [await layer.new_channel(prefix) for prefix in ("a", "a", "b.c", "specific")]
    assert client_part(names[0]) == client_part(names[1])
    assert len({client_part(name).rpartition(".")[2] for name in names}) == 1, names


@check("words: client")
async def two_layers_have_two_client_ids(make: LayerMaker) -> None:
    """A client is one open layer; its id is random."""
    first, second = await make(), await make()
    assert client_part(await first.new_channel()) != client_part(await second.new_channel())


@check("api: new_channel")
async def several_prefixes_work_in_one_process(make: LayerMaker) -> None:
    """Receivers of two prefixes wait at once, and each gets what is its own."""
    layer = await make()
    names = [await layer.new_channel(prefix) for prefix in ("specific", "http.response", "ws")]
    async with line(layer, *names) as waiters:
        for name in reversed(names):
            await layer.send(name, {"to": name})
        assert [await waiter.result() for waiter in waiters] == [{"to": name} for name in names]


@check("api: new_channel")
async def several_prefixes_work_through_their_non_local_parts(make: LayerMaker) -> None:
    """The same for readers of the non-local parts."""
    layer = await make()
    names = [await layer.new_channel(prefix) for prefix in ("specific", "http.response")]
    async with line(layer, *map(client_part, names)) as waiters:
        for name in reversed(names):
            await layer.send(name, {"to": name})
        assert [await waiter.result() for waiter in waiters] == [{"to": name} for name in names]


@check("api: new_channel")
async def a_prefix_that_ends_in_a_question_mark_gives_a_single_reader_name(
    make: LayerMaker,
) -> None:
    """The name goes on behind the mark and carries messages."""
    layer = await make()
    name = await layer.new_channel("http.body?")
    assert re.fullmatch(r"http\.body\?[A-Za-z0-9._-]+", name), name
    await layer.send(name, {"n": 1})
    assert await drained(layer, name) == [{"n": 1}]
