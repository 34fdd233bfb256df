"""The whole public API as a program would use it. Nobody runs it: type checkers read it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, assert_type

from channels_layers import (
    BackendError,
    BackendTimeout,
    BackendUnavailable,
    ChannelFull,
    ChannelLayer,
    ChannelLayerError,
    ConfigurationError,
    ForeignChannel,
    Guarantees,
    InMemoryChannelLayer,
    InvalidName,
    IPCChannelLayer,
    LayerClosed,
    MessageTooLarge,
    NotSerializable,
    RedisChannelLayer,
    Statistics,
    UnsupportedByBackend,
    UsageError,
    configure,
    from_url,
    get_channel_layer,
)
from channels_layers.backend import Backend, Client
from channels_layers.config import ChannelLayers
from channels_layers.integrations.asgi import ASGIApp, ChannelLayerMiddleware
from channels_layers.options import LayerOptions
from channels_layers.statistics import Dropped, Tally, add_up, statistics_of
from channels_layers.testing import CHECKS, Check, Outcome, Report, applicable, run, run_check
from channels_layers.testing.resilience import FaultCounts, Unreliable

# Making layers

every_option = InMemoryChannelLayer(
    60,
    86_400,
    100,
    {"http.*": 500, re.compile(r"^slow\."): 10},
    capacity_scope="process",
    renew_memberships=False,
    on_gap=None,
    timeout=5,
    lease=10.0,
    max_message_bytes=1024,
    idle=None,
    message_memory=4096,
)
InMemoryChannelLayer(capacity="many")  # type: ignore[arg-type]  # a number of messages
InMemoryChannelLayer(capacity_scope="loop")  # type: ignore[arg-type]  # one of two words
InMemoryChannelLayer(hosts=[])  # type: ignore[call-arg]  # an option of another layer

assert_type(from_url("memory://?capacity=5"), ChannelLayer)
configure({"default": {"BACKEND": "channels_layers.InMemoryChannelLayer", "CONFIG": {"expiry": 1}}})
assert_type(get_channel_layer(), ChannelLayer)
assert_type(get_channel_layer("other"), ChannelLayer)
table = ChannelLayers({"default": {"BACKEND": InMemoryChannelLayer, "TEST_CONFIG": {}}})
assert_type(table["default"], ChannelLayer)
assert_type(table.make_test_layer(), ChannelLayer)


# Using a layer


async def use(layer: ChannelLayer) -> None:
    await layer.open()
    channel = assert_type(await layer.new_channel(), str)
    assert_type(await layer.new_channel("http.body?"), str)
    await layer.send(channel, {"type": "chat.message", "n": 1, "list": [None, b"", {}]})
    await layer.send(1, {})  # type: ignore[arg-type]  # a name is a str
    await layer.send(channel, [])  # type: ignore[arg-type]  # a message is a dict
    assert_type(await layer.receive(channel), dict[str, Any])
    assert_type(await layer.receive_from([channel, "jobs"]), tuple[str, dict[str, Any]])
    assert_type(await layer.receive_from(name for name in ("a", "b")), tuple[str, dict[str, Any]])
    await layer.group_add("room", channel)
    await layer.group_discard(group="room", channel=channel)
    await layer.group_send("room", {})
    assert_type(await layer.group_channels("room"), list[str])
    assert_type(await layer.statistics(), Statistics)
    numbers = assert_type(await layer.channel_statistics(channel), Statistics)
    count_numbers(numbers)
    await layer.flush()
    await layer.close()
    assert_type(layer.extensions, list[str])
    assert_type(layer.guarantees, Guarantees)


async def enter() -> None:
    async with InMemoryChannelLayer() as layer:
        assert_type(layer, InMemoryChannelLayer)
        await use(layer)


def count_numbers(numbers: Statistics) -> None:
    assert_type(numbers["messages_count"], int)
    assert_type(numbers["messages_count_per_second"], float)
    assert_type(numbers["messages_pending"], int)
    assert_type(numbers["messages_max_age"], float)
    assert_type(numbers["channel_full_count"], int)
    assert_type(numbers["channel_full_count_per_second"], float)
    assert_type(numbers["dropped_count"], dict[str, int])
    numbers["messages"]  # type: ignore[typeddict-item]  # no such number


# Its errors


async def fail(layer: ChannelLayer) -> None:
    try:
        await use(layer)
    except layer.ChannelFull as full:
        assert_type(full, ChannelFull)
        assert_type((full.channel, full.capacity), tuple[str, int])
    except layer.MessageTooLarge as large:
        assert_type(large, MessageTooLarge)
        assert_type((large.size_bytes, large.limit_bytes), tuple[int, int])
    except BackendUnavailable as unavailable:
        again: BackendError = unavailable
        assert_type(again.shard, str)


def tell_apart(error: ChannelLayerError) -> object:
    match error:
        case InvalidName():
            return assert_type(error.rule, str), error.name
        case ForeignChannel():
            return assert_type(error.channel, str)
        case NotSerializable():
            return assert_type((error.path, error.type_name), tuple[str, str])
        case ConfigurationError():
            return assert_type((error.field, error.problem), tuple[str, str])
        case UnsupportedByBackend():
            return assert_type((error.what, error.backend), tuple[str, str])
        case LayerClosed() | UsageError():
            return str(error)
        case BackendTimeout():
            return assert_type(error.shard, str)
        case _:
            return None


errors: list[type[ChannelLayerError]] = [ChannelFull, MessageTooLarge, BackendTimeout, LayerClosed]
like_python: list[type[TypeError]] = [InvalidName, NotSerializable]
wrong_values: list[type[ValueError]] = [ForeignChannel, MessageTooLarge, ConfigurationError]


# A layer of one's own


class Line(Backend):
    """A backend that leaves out what has no meaning for it."""

    guarantees = Guarantees(shared=True, cross_process=True, ordered_channels=False, trio=False)
    has_home = True

    def __init__(self) -> None:
        self.client: Client | None = None

    async def open(self, client: Client) -> None:
        self.client = client
        assert_type(client.id, str)
        assert_type(client.deliver("jobs", b"", 60.0), bool)
        client.fan_out("room", b"")
        client.member_added("room", "jobs")
        client.member_discarded("room", "jobs")
        client.forget()
        assert_type(client.statistics(), Statistics)
        assert_type(client.statistics("jobs"), Statistics)

    async def close(self) -> None: ...

    async def send(self, channel: str, payload: bytes, capacity: int) -> None: ...

    def want(self, channel: str, readers: int) -> None: ...

    def give_back(self, channel: str, letters: Sequence[tuple[bytes, float]]) -> None: ...

    async def is_alive(self, client_id: str) -> bool:
        return False

    async def group_add(self, group: str, channel: str) -> None: ...

    async def group_discard(self, group: str, channel: str) -> None: ...

    async def group_send(self, group: str, payload: bytes) -> None: ...

    async def group_channels(self, group: str) -> list[str]:
        return []

    async def flush(self) -> None: ...

    async def statistics(self, channel: str | None = None) -> Statistics:
        accepted = Tally()
        accepted.add(1, now=0.0)
        dropped = Counter({Dropped.EXPIRED: 1})
        part = statistics_of(accepted, Tally(), dropped, pending=0, max_age=0.0, now=1.0)
        return add_up([part])


backend: Backend = Line()
between_processes = IPCChannelLayer("chat", message_memory=64 * 2**20, group_memory=2**20)
between_machines = RedisChannelLayer(
    ["redis://h1/0", ("h2", 6379), {"address": ("h3", 6380), "name": "third"}], "chat", rotation=2
)
RedisChannelLayer(("localhost", 6379))
RedisChannelLayer(6379)  # type: ignore[arg-type]  # a port alone
own = ChannelLayer(LayerOptions(expiry=30, capacity_scope="channel"), backend, clock=lambda: 0.0)
ChannelLayer(LayerOptions(), object())  # type: ignore[arg-type]  # no backend


# The conformance kit


async def hold_to_the_contract() -> Report:
    check = assert_type(CHECKS[0], Check)
    assert_type(applicable(check, Guarantees(), loop="trio"), str | None)
    assert_type(await run_check(check, InMemoryChannelLayer, limit=5), str | None)
    report = assert_type(await run(InMemoryChannelLayer, CHECKS), Report)
    assert_type(report.outcomes, tuple[Outcome, ...])
    return report


# A layer that misbehaves


async def suffer() -> FaultCounts:
    layer = Unreliable(own, drop=0.1, delay=0.1, delay_s=(0, 1), refuse=0.1, fail=0.1, seed=7)
    async with Unreliable(own, drop=1, operations=["receive"]) as entered:
        assert_type(entered, Unreliable)
    assert_type(await layer.receive("jobs"), dict[str, Any])
    assert_type(layer.counts.dropped, int)
    return layer.counts


# In an ASGI application


def wrap(app: ASGIApp) -> ASGIApp:
    return ChannelLayerMiddleware(app, own, key="layer")


def also_takes(layer: Unreliable, app: ASGIApp) -> ASGIApp:
    return ChannelLayerMiddleware(app, layer)


programs: Iterable[Callable[[], Coroutine[Any, Any, object]]] = [
    enter,
    hold_to_the_contract,
    suffer,
]
