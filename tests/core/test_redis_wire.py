"""What comes over a connection: in pieces, broken, unasked, or not at all."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest

from channels_layers.redis._errors import LinkBroken
from channels_layers.redis._wire import Again, Wire


@asynccontextmanager
async def wire_to(answer, is_over=None):
    """Connect with a server that calls `answer` with each command and the writer to answer with.

    `is_over` is set when it has seen the end of the connection.
    """

    is_over = is_over or asyncio.Event()

    async def serve(reader, writer):
        while data := await reader.read(65536):
            answer(data, writer)
        writer.close()
        await writer.wait_closed()
        is_over.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    transport, _ = await asyncio.get_running_loop().create_connection(
        asyncio.Protocol, "127.0.0.1", port
    )
    try:
        yield Wire(transport)
    finally:
        transport.close()
        await is_over.wait()
        server.close()


def as_it_is(reply):
    return reply


def test_an_answer_in_pieces():
    def answer(_, writer):
        writer.write(b"*2\r\n$3\r\nab")
        asyncio.get_running_loop().call_later(0.05, writer.write, b"c\r\n:7\r\n")

    async def main():
        async with wire_to(answer) as wire:
            assert await wire.ask(("PING",), as_it_is) == [b"abc", 7]
            assert await wire.ask(("PING",), len) == 2

    asyncio.run(main())


@pytest.mark.parametrize("nonsense", [b"\x00\xff\r\n", b"*-7\r\n", b"GET / HTTP/1.1\r\n"])
def test_nonsense_ends_the_connection(nonsense):
    async def main():
        async with wire_to(lambda _, writer: writer.write(nonsense)) as wire:
            with pytest.raises(LinkBroken, match="makes no sense"):
                await wire.ask(("PING",), as_it_is)
            with pytest.raises(LinkBroken, match="makes no sense"):
                await wire.ask(("PING",), as_it_is)

    asyncio.run(main())


def test_what_was_not_asked_ends_the_connection():
    """A second answer could be taken for that of the next command."""

    async def main():
        writers, asked, is_over = [], asyncio.Event(), asyncio.Event()

        def answer(_, writer):
            writers.append(writer)
            asked.set()

        async with wire_to(answer, is_over) as wire:
            first = wire.ask(("PING",), as_it_is)
            await asked.wait()
            writers[0].write(b"+OK\r\n")
            assert await first == b"OK"
            writers[0].write(b"+SURPRISE\r\n")
            await is_over.wait()
            with pytest.raises(LinkBroken, match="what was not asked"):
                await wire.ask(("PING",), as_it_is)

    asyncio.run(main())


def test_a_connection_that_ends():
    async def main():
        async with wire_to(lambda _, writer: writer.close()) as wire:
            with pytest.raises(LinkBroken, match="closed by the server"):
                await wire.ask(("PING",), as_it_is)

    asyncio.run(main())


def test_who_hears_may_ask_with_other_words():
    asked = []

    def answer(data, writer):
        asked.append(data)
        writer.write(b"-NOSCRIPT\r\n" if b"EVALSHA" in data else b"+DONE\r\n")

    def hear(reply):
        if isinstance(reply, Exception):
            raise Again("EVAL", "text")
        return reply

    async def main():
        async with wire_to(answer) as wire:
            assert await wire.ask(("EVALSHA", "sha"), hear) == b"DONE"
        assert len(asked) == 2

    asyncio.run(main())


def test_what_goes_wrong_in_hearing_is_told_to_who_waits():
    async def main():
        async with wire_to(lambda _, writer: writer.write(b"+OK\r\n")) as wire:
            with pytest.raises(ZeroDivisionError):
                await wire.ask(("PING",), lambda _: 1 / 0)
            assert await wire.ask(("PING",), as_it_is) == b"OK"

    asyncio.run(main())
