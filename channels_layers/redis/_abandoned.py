"""Connections that are let go of where their own event loop cannot do it.

    their event loop              what becomes of them
    ----------------------------  ------------------------------------------------------------
    runs again, or may            ended for the server at once; closed when it runs. Till then
                                  the number stays taken, since the loop's selector watches it
    has closed                    the socket is closed here
    is a parent's, we are forked  the same; that loop and its selector must not be touched

What is left of a closed one says nothing when it is collected: there is nobody to blame.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import socket
from typing import Any, Final

from redis.asyncio.connection import AbstractConnection

# All that are connected, with their event loops: collected as they are, they would complain.
_connected: Final[dict[AbstractConnection, asyncio.AbstractEventLoop]] = {}
# Streams that their loops are to close, should they run again.
_left: Final[dict[Any, asyncio.AbstractEventLoop]] = {}


def watch(connection: AbstractConnection, loop: asyncio.AbstractEventLoop) -> None:
    """See to a connection that is being made, whatever becomes of its event loop."""
    _clear_up()
    _connected[connection] = loop


def is_watched(connection: AbstractConnection) -> bool:
    """Whether it is not closed yet."""
    return connection in _connected


def closed(connection: AbstractConnection) -> None:
    """Forget a connection that was closed where it belongs."""
    _connected.pop(connection, None)


def abandon(connection: AbstractConnection) -> None:
    """Let go of a connection, from any thread."""
    loop, writer = _taken(connection)
    if loop is None or writer is None:
        return
    if not loop.is_closed():
        _end_for_server(writer)
        _left[writer] = loop  # so that it is not collected before its loop has closed it
        with contextlib.suppress(RuntimeError):  # it has closed meanwhile
            loop.call_soon_threadsafe(_abort, writer)
            return
    _close(writer)


def abandon_in_child(connection: AbstractConnection) -> None:
    """Let go of a connection of the parent, which goes on with it."""
    _, writer = _taken(connection)
    if writer is not None:
        _close(writer, is_forked=True)


def _taken(connection: Any) -> tuple[asyncio.AbstractEventLoop | None, Any]:
    """Take its stream from a connection; redis-py has no public way to that."""
    loop = _connected.pop(connection, None)
    writer = getattr(connection, "_writer", None)
    for name in ("_reader", "_writer"):
        setattr(connection, name, None)
    return loop, writer


def _end_for_server(writer: Any) -> None:
    number = writer.get_extra_info("socket").fileno()
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(number)) as twin:
        twin.shutdown(socket.SHUT_RDWR)


def _abort(writer: Any) -> None:
    """Close a stream in its event loop."""
    _left.pop(writer, None)
    writer.transport.abort()


def _close(writer: Any, *, is_forked: bool = False) -> None:
    """Close the socket of a stream whose event loop will not run here."""
    _left.pop(writer, None)
    transport = writer.transport
    wrapper = writer.get_extra_info("socket")
    sock = getattr(wrapper, "_sock", None)
    if sock is not None:
        sock.close()
    elif is_forked and wrapper is not None and wrapper.fileno() >= 0:
        os.close(wrapper.fileno())  # of another kind of loop, which closes its own otherwise
    below = getattr(getattr(transport, "_ssl_protocol", None), "_transport", None)
    for part in (transport, below):
        for name, value in (("_sock", None), ("_closing", True), ("_closed", True)):
            if hasattr(part, name):
                with contextlib.suppress(AttributeError):
                    setattr(part, name, value)


def _clear_up() -> None:
    """Let go of what belongs to event loops that have closed."""
    for connection, loop in list(_connected.items()):
        if loop.is_closed():
            abandon(connection)
    for writer, loop in list(_left.items()):
        if loop.is_closed():
            _close(writer)


@atexit.register
def _end() -> None:
    """Close what is left when the interpreter ends, but for what other threads still use."""
    for connection, loop in list(_connected.items()):
        if not loop.is_running():
            _, writer = _taken(connection)
            if writer is not None:
                _close(writer)
    for writer, loop in list(_left.items()):
        if not loop.is_running():
            _close(writer)
