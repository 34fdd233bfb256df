"""One command after the other over a connection, and answers that are acted on as they come in.

This is why no stream of asyncio's is between: an answer is heard while it is read from the socket,
and not by a task that has to get its turn first, which takes as long as the server takes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, TypeAlias

from hiredis import HiredisError, Reader, pack_command

from ._errors import LinkBroken

#: Makes of an answer what is to be returned; an error of the server's is an answer as well.
Hear: TypeAlias = Callable[[Any], Any]

_NOT_YET: Final = object()  # a whole answer


class Again(Exception):
    """Raised by who hears an answer, to ask with other words instead."""

    def __init__(self, *words: Any) -> None:
        self.words = words


class Wire(asyncio.Protocol):
    """Speaks with a server over a connected transport, from the moment at which it is made."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._reader = Reader(notEnoughData=_NOT_YET)
        self._hear: Hear | None = None
        self._result: asyncio.Future[Any] | None = None
        self._problem = ""
        transport.set_protocol(self)

    def ask(self, words: tuple[Any, ...], hear: Hear) -> asyncio.Future[Any]:
        """Send a command at once; return what will hold what `hear` makes of its answer.

        One at a time; who cancels the future must close the transport, since its answer is
        outstanding. It holds `LinkBroken` where the connection is gone.
        """
        result = asyncio.get_running_loop().create_future()
        if self._problem or self._transport.is_closing():
            _fail(result, LinkBroken(self._problem or "the connection is closed"))
        else:
            self._hear, self._result = hear, result
            self._transport.write(pack_command(words))
        return result

    # What the event loop tells

    def data_received(self, data: bytes) -> None:
        """Take a part of an answer, and act on it if it is whole."""
        try:
            self._reader.feed(data)
            reply = self._reader.gets()
        except HiredisError as exc:
            self._break(f"what it sends makes no sense: {exc}")
            return
        if reply is _NOT_YET:
            return
        hear, result = self._hear, self._result
        if hear is None or result is None or result.done():
            self._break("it has answered what was not asked")
            return
        self._hear = self._result = None
        try:
            result.set_result(hear(reply))
        except Again as again:
            self._hear, self._result = hear, result
            self._transport.write(pack_command(again.words))
        except Exception as exc:  # noqa: BLE001  # whoever waits hears of it
            _fail(result, exc)

    def connection_lost(self, exc: Exception | None) -> None:
        """Hear that nothing more can come."""
        self._break(str(exc) if exc else "connection closed by the server")

    # Helpers

    def _break(self, problem: str) -> None:
        self._problem = self._problem or problem
        self._transport.close()
        result, self._hear, self._result = self._result, None, None
        if result is not None:
            _fail(result, LinkBroken(self._problem))


def _fail(result: asyncio.Future[Any], exc: Exception) -> None:
    if not result.done():
        result.set_exception(exc)
        result.exception()  # heard, even if whoever waits for it is cancelled now
