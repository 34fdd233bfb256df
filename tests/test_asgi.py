"""The ASGI middleware, driven by hand as a server would, on asyncio and on trio."""

from __future__ import annotations

import anyio
import pytest
from anyio import create_task_group, fail_after
from anyio.lowlevel import checkpoint

from channels_layers import InMemoryChannelLayer
from channels_layers.errors import BackendUnavailable, LayerClosed
from channels_layers.integrations import asgi
from channels_layers.integrations.asgi import ChannelLayerMiddleware

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    return request.param


class Recorded:
    """A layer that opens and closes only, and writes it into a log."""

    def __init__(self, log, *, opening=None, closing=None):
        self.log, self.opening, self.closing = log, opening, closing

    async def __aenter__(self):
        await checkpoint()
        if self.opening is not None:
            raise self.opening
        self.log.append("open")

    async def __aexit__(self, *_):
        await checkpoint()
        if self.closing is not None:
            raise self.closing
        self.log.append("close")


class Crash(Exception):
    """What an application raises in these tests."""


def application(log, *, at=None, tells=False):
    """An application that knows the lifespan, and crashes where it is told to."""

    async def crash(moment, send):
        if at == moment:
            if tells:
                await send({"type": f"lifespan.{moment}.failed", "message": "crash"})
            raise Crash

    async def app(scope, receive, send):
        assert (await receive())["type"] == "lifespan.startup"
        await crash("startup", send)
        log.append("up")
        await send({"type": "lifespan.startup.complete"})
        await crash("between", send)
        assert (await receive())["type"] == "lifespan.shutdown"
        await crash("shutdown", send)
        log.append("down")
        await send({"type": "lifespan.shutdown.complete"})

    return app


async def raises_at_lifespan(scope, receive, send):
    raise ValueError(f"no application for {scope['type']}")


async def returns_at_lifespan(scope, receive, send):
    return


async def stops_listening(scope, receive, send):
    await receive()
    await send({"type": "lifespan.startup.complete"})


async def ends_without_a_word(scope, receive, send):
    await stops_listening(scope, receive, send)
    await receive()


async def nothing(*_):
    raise AssertionError("not to be called")


async def serve(app, log, **scope):
    """Run one lifespan as a server does; what the server is told goes into the log."""
    told = anyio.Event()
    events = iter(["lifespan.startup", "lifespan.shutdown"])

    async def receive():
        event = {"type": next(events)}
        if event["type"] == "lifespan.shutdown":
            await told.wait()
            log.append("lifespan.shutdown")
        return event

    async def send(event):
        log.append(" ".join(event.values()))
        told.set()

    with fail_after(5):
        await app({"type": "lifespan", **scope}, receive, send)


async def scope_seen(type_, *, key="channel_layer", **scope):
    """Return the layer, and the scope that an application gets behind the middleware."""
    seen = []

    async def app(scope, receive, send):
        seen.append(scope)

    layer = InMemoryChannelLayer()
    given = {"type": type_, **scope}
    await ChannelLayerMiddleware(app, layer, key=key)(given, nothing, nothing)
    return layer, seen[0], given


async def test_the_layer_opens_before_the_application_and_closes_after_it():
    log = []
    await serve(ChannelLayerMiddleware(application(log), Recorded(log)), log)
    assert log == [
        "open",
        "up",
        "lifespan.startup.complete",
        "lifespan.shutdown",
        "down",
        "close",
        "lifespan.shutdown.complete",
    ]


@pytest.mark.parametrize(
    "app", [raises_at_lifespan, returns_at_lifespan, stops_listening, ends_without_a_word]
)
async def test_what_an_application_leaves_undone_is_done_in_its_place(app):
    log = []
    await serve(ChannelLayerMiddleware(app, Recorded(log)), log)
    assert log == [
        "open",
        "lifespan.startup.complete",
        "lifespan.shutdown",
        "close",
        "lifespan.shutdown.complete",
    ]


async def test_an_application_that_fails_to_start_is_reported_with_the_layer_closed():
    log = []
    app = application(log, at="startup", tells=True)
    with pytest.raises(Crash):
        await serve(ChannelLayerMiddleware(app, Recorded(log)), log)
    assert log == ["open", "close", "lifespan.startup.failed crash"]


async def test_an_application_that_fails_to_stop_is_reported_with_the_layer_closed():
    log = []
    app = application(log, at="shutdown", tells=True)
    with pytest.raises(Crash):
        await serve(ChannelLayerMiddleware(app, Recorded(log)), log)
    assert log[-2:] == ["close", "lifespan.shutdown.failed crash"]


@pytest.mark.parametrize("moment", ["startup", "between", "shutdown"])
async def test_a_crash_without_a_word_closes_the_layer_and_reaches_the_server(moment):
    log = []
    app = application(log, at=moment)
    with pytest.raises(Crash):
        await serve(ChannelLayerMiddleware(app, Recorded(log)), log)
    assert log[0] == "open"
    assert log[-1] == "close"


async def test_a_layer_that_cannot_open_is_a_failed_start_up():
    log = []
    layer = Recorded(log, opening=BackendUnavailable("redis-1"))
    with pytest.raises(BackendUnavailable):
        await serve(ChannelLayerMiddleware(nothing, layer), log)
    assert log == [
        "lifespan.startup.failed channel layer: BackendUnavailable:"
        " redis-1: unavailable, nothing was done"
    ]


async def test_a_layer_that_cannot_close_is_a_failed_shutdown(caplog):
    log = []
    layer = Recorded(log, closing=BackendUnavailable("redis-1"))
    await serve(ChannelLayerMiddleware(application(log), layer), log)
    assert log[-1].startswith("lifespan.shutdown.failed channel layer: BackendUnavailable:")
    assert "the channel layer did not close" in caplog.text


async def test_a_layer_that_cannot_close_does_not_hide_what_the_application_says():
    log = []
    app = application(log, at="shutdown", tells=True)
    with pytest.raises(Crash):
        await serve(ChannelLayerMiddleware(app, Recorded(log, closing=OSError())), log)
    assert log[-1] == "lifespan.shutdown.failed crash"


async def test_an_event_of_a_later_protocol_is_passed_on():
    async def app(scope, receive, send):
        await receive()
        await send({"type": "lifespan.startup.progress"})
        await send({"type": "lifespan.startup.complete"})

    log = []
    await serve(ChannelLayerMiddleware(app, Recorded(log)), log)
    assert log[:3] == ["open", "lifespan.startup.progress", "lifespan.startup.complete"]


async def test_a_layer_that_hangs_in_close_does_not_hang_the_server(monkeypatch):
    class Hanging(Recorded):
        async def __aexit__(self, *_):
            await anyio.sleep_forever()

    monkeypatch.setattr(asgi, "CLOSE_TIMEOUT_S", 0.01)
    log = []
    await serve(ChannelLayerMiddleware(application(log), Hanging(log)), log)
    assert log[-1].startswith("lifespan.shutdown.failed channel layer: TimeoutError")


async def test_a_cancelled_lifespan_closes_the_layer():
    log = []
    app = ChannelLayerMiddleware(application(log), Recorded(log))

    async def receive():
        if "open" in log:
            await anyio.sleep_forever()
        return {"type": "lifespan.startup"}

    async def send(event):
        tasks.cancel_scope.cancel()

    with fail_after(5):
        async with create_task_group() as tasks:
            tasks.start_soon(app, {"type": "lifespan"}, receive, send)
    assert log == ["open", "up", "close"]


async def test_shutdown_ends_whoever_still_receives():
    layer = InMemoryChannelLayer()
    ended = []

    async def receiver():
        with pytest.raises(LayerClosed) as caught:
            await layer.receive("quiet")
        ended.append(caught.value)

    async def app(scope, receive, send):
        await receive()
        tasks.start_soon(receiver)
        await anyio.wait_all_tasks_blocked()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})

    async with create_task_group() as tasks:
        await serve(ChannelLayerMiddleware(app, layer), [])
    assert len(ended) == 1


@pytest.mark.parametrize("type_", ["http", "websocket"])
async def test_every_scope_has_the_layer_and_the_callers_is_left_alone(type_):
    layer, seen, given = await scope_seen(type_, path="/x")
    assert seen == {"type": type_, "path": "/x", "channel_layer": layer}
    assert given == {"type": type_, "path": "/x"}


async def test_the_lifespan_scope_has_the_layer_and_fills_the_servers_state():
    layer, state, seen = InMemoryChannelLayer(), {}, []

    async def app(scope, receive, send):
        seen.append(scope["channel_layer"])

    await serve(ChannelLayerMiddleware(app, layer), [], state=state)
    assert seen == [layer]
    assert state == {"channel_layer": layer}


async def test_the_key_can_be_chosen():
    layer, seen, _ = await scope_seen("http", key="bus", state={})
    assert seen == {"type": "http", "bus": layer, "state": {"bus": layer}}


async def test_what_is_in_the_state_already_stays():
    _, seen, _ = await scope_seen("http", state={"channel_layer": "mine"})
    assert seen["state"] == {"channel_layer": "mine"}


async def test_without_a_lifespan_the_layer_opens_at_first_use():
    received = []

    async def app(scope, receive, send):
        layer = scope["channel_layer"]
        await layer.send("jobs", {"n": 1})
        received.append(await layer.receive("jobs"))

    layer = InMemoryChannelLayer()
    with fail_after(5):
        await ChannelLayerMiddleware(app, layer)({"type": "http"}, nothing, nothing)
    await layer.close()
    assert received == [{"n": 1}]
