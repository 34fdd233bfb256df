"""A layer in any ASGI application: open from start-up to shutdown, and in every scope."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any, Final, TypeAlias

import anyio

Layer: TypeAlias = AbstractAsyncContextManager[object]  # all that is asked of one here
Scope: TypeAlias = MutableMapping[str, Any]
Event: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Event]]
Send: TypeAlias = Callable[[Event], Awaitable[None]]
ASGIApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

CLOSE_TIMEOUT_S: Final = 10.0  # twice the default `timeout` of a layer, which bounds its farewells
_LAST_EVENTS: Final = frozenset(
    {"lifespan.startup.failed", "lifespan.shutdown.complete", "lifespan.shutdown.failed"}
)

logger = logging.getLogger("channels_layers.asgi")


class ChannelLayerMiddleware:
    """Gives an ASGI 3 application a channel layer.

    The layer is in every scope under `key`, and in ``scope["state"]`` where the server has one,
    unless something is there already. It opens before the application's own start-up and closes
    after its shutdown, however that ends. An application that does not know the lifespan
    protocol, and raises or returns when it meets it, is served as if it did. Where the server
    has no lifespan, the layer opens at first use and ends with the process.

    Args:
        app: The application, called with a copy of each scope.
        layer: The layer; any that keeps the contract.
        key: Where the application finds it: ``scope[key]``, ``scope["state"][key]``.
    """

    def __init__(self, app: ASGIApp, layer: Layer, *, key: str = "channel_layer") -> None:
        self.app = app
        self.layer = layer
        self.key = key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection, or the lifespan, as ASGI has it.

        Raises:
            Exception: what the application raises; what opening the layer raises, once the
                server has been told; what closing it raises where it cannot be told any more.

        Cancellation:
            The application is cancelled. A cancelled lifespan closes the layer, which may take
            up to ``CLOSE_TIMEOUT_S``.
        """
        inner = {**scope, self.key: self.layer}
        if "state" in inner:
            # Not copied: it is the server's way to hand what start-up made to each request.
            inner["state"].setdefault(self.key, self.layer)
        if scope["type"] == "lifespan":
            await _Lifespan(self.layer, receive, send).run(self.app, inner)
        else:
            await self.app(inner, receive, send)


class _Lifespan:
    """One run of the lifespan protocol, between the server and an application."""

    def __init__(self, layer: Layer, receive: Receive, send: Send) -> None:
        self._layer = layer
        self._server_receive = receive
        self._server_send = send
        self._startup: Event | None = None  # taken from the server, not yet by the application
        self._is_known = False  # the application has taken part in the protocol
        self._is_started = False  # the server has been told that start-up is complete
        self._is_stopping = False  # the server has asked for shutdown
        self._is_over = False  # the server has been told how it ended
        self._opened = AsyncExitStack()  # holds the layer while it is open

    async def run(self, app: ASGIApp, scope: Scope) -> None:
        """Open the layer, serve the application's lifespan, close the layer."""
        self._startup = await self._server_receive()
        try:
            await self._opened.enter_async_context(self._layer)
        except Exception as exc:
            await self._server_send({"type": "lifespan.startup.failed", "message": _told(exc)})
            raise
        try:
            await self._serve(app, scope)
        finally:
            await self._close()

    async def _serve(self, app: ASGIApp, scope: Scope) -> None:
        try:
            await app(scope, self._receive, self._send)
        except Exception as exc:
            if self._is_known:
                raise
            logger.info("the application does not know the lifespan protocol: %r", exc)
        # What the application has left undone is done in its place.
        if not self._is_started and not self._is_over:
            await self._send({"type": "lifespan.startup.complete"})
        if not self._is_stopping and not self._is_over:
            await self._receive_shutdown()
        if not self._is_over:
            await self._send({"type": "lifespan.shutdown.complete"})

    async def _receive(self) -> Event:
        """Give the application the next event."""
        self._is_known = True
        if self._startup is not None:
            event, self._startup = self._startup, None
            return event
        return await self._receive_shutdown()

    async def _receive_shutdown(self) -> Event:
        event = await self._server_receive()
        self._is_stopping = True
        return event

    async def _send(self, event: Event) -> None:
        """Tell the server what the application says, the end only when the layer is closed."""
        self._is_known = True
        if event["type"] == "lifespan.startup.complete":
            self._is_started = True
        elif event["type"] in _LAST_EVENTS:
            self._is_over = True
            try:
                await self._close()
            except Exception as exc:
                logger.exception("the channel layer did not close")
                if event["type"] == "lifespan.shutdown.complete":
                    event = {"type": "lifespan.shutdown.failed", "message": _told(exc)}
        await self._server_send(event)

    async def _close(self) -> None:
        """Close the layer if it is open, even if this is cancelled."""
        with anyio.fail_after(CLOSE_TIMEOUT_S, shield=True):
            await self._opened.aclose()


def _told(exc: Exception) -> str:
    return f"channel layer: {type(exc).__name__}: {exc}"
