"""Django Channels itself, unchanged, on our layers; and what its own in-memory layer makes of it.

Where a test names both layers, Channels' own is shown to fail what ours does.
"""

from __future__ import annotations

import asyncio
import secrets
import subprocess
import sys
import threading
from contextlib import asynccontextmanager, suppress
from types import SimpleNamespace

import pytest
import pytest_asyncio
from asgiref.sync import async_to_sync
from channels.consumer import AsyncConsumer, SyncConsumer
from channels.exceptions import ChannelFull, InvalidChannelLayerError, MessageTooLarge
from channels.generic.http import AsyncHttpConsumer
from channels.generic.websocket import (
    AsyncJsonWebsocketConsumer,
    AsyncWebsocketConsumer,
    JsonWebsocketConsumer,
    WebsocketConsumer,
)
from channels.layers import InMemoryChannelLayer as Theirs
from channels.layers import channel_layers, get_channel_layer
from channels.routing import ChannelNameRouter
from channels.worker import Worker
from django.conf import settings
from django.test import override_settings

from channels_layers import ConfigurationError, IPCChannelLayer, LayerClosed, RedisChannelLayer
from channels_layers import InMemoryChannelLayer as Ours

if not settings.configured:
    settings.configure()

with pytest.MonkeyPatch.context() as patch:
    # channels.testing imports a server for its live test case, which nothing here uses.
    patch.setitem(sys.modules, "daphne.testing", SimpleNamespace(DaphneProcess=None))
    from channels.testing import ApplicationCommunicator, HttpCommunicator, WebsocketCommunicator

OURS = "channels_layers.InMemoryChannelLayer"
IPC = "channels_layers.IPCChannelLayer"
REDIS = "channels_layers.RedisChannelLayer"
SETTINGS = {
    "BACKEND": OURS,
    "CONFIG": {"capacity": 1000, "channel_capacity": {"small.*": 1}},
    "TEST_CONFIG": {"capacity": 2},
}
PATIENCE = 20.0  # seconds until what never comes fails a test


@pytest.fixture
def redis_settings(redis_server):
    """The same settings for Redis, with a prefix that no other test has."""
    common = {"hosts": [redis_server.url], "prefix": f"test-{secrets.token_hex(8)}"}
    configs = {key: SETTINGS[key] | common for key in ("CONFIG", "TEST_CONFIG")}
    return {"BACKEND": REDIS, **configs}


@pytest_asyncio.fixture(params=["memory", "redis"])
async def layer(request):
    """The layer that Channels makes from its settings, anew for each test."""
    is_redis = request.param == "redis"
    default = request.getfixturevalue("redis_settings") if is_redis else SETTINGS
    with override_settings(CHANNEL_LAYERS={"default": default}):
        made = get_channel_layer()
        yield made
        await made.close()


@asynccontextmanager
async def connected(*consumers):
    """Connect one WebSocket to each consumer class; disconnect them in the end."""
    sockets = [WebsocketCommunicator(consumer.as_asgi(), "/") for consumer in consumers]
    for socket in sockets:
        assert (await socket.connect(timeout=PATIENCE))[0]
    yield sockets
    for socket in sockets:
        await socket.disconnect(timeout=PATIENCE)


def leave_listeners_unread():
    """Let a Worker's listeners end with an error, at which Channels never looks."""
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)


async def received(socket):
    return await socket.receive_from(timeout=PATIENCE)


class Chat(AsyncWebsocketConsumer):
    groups = ("chat",)

    async def receive(self, text_data=None, bytes_data=None):
        await self.channel_layer.group_send("chat", {"type": "chat.message", "text": text_data})

    async def chat_message(self, event):
        await self.send(text_data=event["text"])


class SyncChat(WebsocketConsumer):
    groups = ("chat",)

    def receive(self, text_data=None, bytes_data=None):
        message = {"type": "chat.message", "text": text_data}
        async_to_sync(self.channel_layer.group_send)("chat", message)

    def chat_message(self, event):
        self.send(text_data=event["text"])


class JsonChat(AsyncJsonWebsocketConsumer):
    groups = ("json",)

    async def receive_json(self, content, **kwargs):
        await self.channel_layer.group_send("json", {"type": "chat.message", "content": content})

    async def chat_message(self, event):
        await self.send_json(event["content"])


class SyncJsonChat(JsonWebsocketConsumer):
    groups = ("json",)

    def receive_json(self, content, **kwargs):
        message = {"type": "chat.message", "content": content}
        async_to_sync(self.channel_layer.group_send)("json", message)

    def chat_message(self, event):
        self.send_json(event["content"])


class LongPoll(AsyncHttpConsumer):
    """Answers with the first news that arrive after the request."""

    async def handle(self, body):
        await self.channel_layer.group_add("news", self.channel_name)
        await self.channel_layer.send("polls", {"body": body})

    async def http_request(self, message):
        await self.handle(message["body"])

    async def news(self, event):
        await self.send_response(200, event["body"])


class Job(AsyncConsumer):
    async def job_run(self, message):
        await self.channel_layer.send(message["reply_to"], {"done": message["n"]})


class SyncJob(SyncConsumer):
    def job_run(self, message):
        async_to_sync(self.channel_layer.send)(message["reply_to"], {"done": message["n"]})


# Settings


def test_channels_makes_our_layer_from_its_settings(layer):
    assert type(layer) in (Ours, RedisChannelLayer)
    assert get_channel_layer() is layer
    assert get_channel_layer("unknown") is None


@pytest.mark.asyncio
async def test_the_test_backend_takes_the_test_config(layer):
    async with channel_layers.make_test_backend("default") as test_layer:
        await test_layer.send("a", {})
        await test_layer.send("a", {})
        with pytest.raises(ChannelFull):
            await test_layer.send("a", {})


def test_a_layer_can_be_swapped(layer):
    other = Ours()
    assert channel_layers.set("default", other) is layer
    assert get_channel_layer() is other


@pytest.mark.parametrize(
    ("config", "words"),
    [({"capcity": 5}, "capcity"), ({"capacity": 0}, "capacity: must be at least 1, got 0")],
)
def test_a_wrong_option_in_the_settings_is_named(config, words):
    wrong = {"default": {"BACKEND": OURS, "CONFIG": config}}
    expected = pytest.raises((TypeError, ConfigurationError), match=words)
    with override_settings(CHANNEL_LAYERS=wrong), expected:
        get_channel_layer()


def test_the_old_routing_key_stays_an_error():
    wrong = {"default": {**SETTINGS, "ROUTING": "project.routing"}}
    with override_settings(CHANNEL_LAYERS=wrong), pytest.raises(InvalidChannelLayerError):
        get_channel_layer()


def test_importing_the_package_imports_neither_django_nor_redis():
    program = (
        "import sys, channels_layers as c; c.InMemoryChannelLayer(); c.get_channel_layer;"
        "print([m for m in ('django', 'redis', 'asgiref', 'channels.layers') if m in sys.modules])"
    )
    command = [sys.executable, "-c", f"import sys; sys.path[:] = {sys.path!r}; {program}"]
    assert subprocess.check_output(command, text=True) == "[]\n"


# Errors and names


@pytest.mark.asyncio
async def test_existing_except_clauses_catch_ours():
    layer = Ours(capacity=1, max_message_bytes=100)
    await layer.send("a", {})
    with pytest.raises(ChannelFull):
        await layer.send("a", {})
    with pytest.raises(MessageTooLarge):
        await layer.send("b", {"text": "x" * 100})
    assert issubclass(layer.ChannelFull, ChannelFull)
    assert issubclass(layer.MessageTooLarge, MessageTooLarge)


@pytest.mark.asyncio
@pytest.mark.parametrize("prefix", ["specific", "specific.", "a", "a-b_c.d", "p" * 70])
async def test_new_names_are_names_to_channels_too(layer, prefix):
    name = await layer.new_channel(prefix)
    assert name.startswith(prefix)
    assert Theirs().require_valid_channel_name(name)
    assert await layer.new_channel(prefix) != name


@pytest.mark.asyncio
@pytest.mark.parametrize("name", ["", "a b", "a!b!c", "naïve", "a\n", "x" * 101, 5, None])
async def test_a_bad_name_is_a_type_error_as_in_channels(layer, name):
    for call in (layer.send(name, {}), layer.receive(name), layer.group_add("g", name)):
        with pytest.raises(TypeError):
            await call
    with pytest.raises(TypeError):
        await layer.group_send(name, {})


# Consumers


@pytest.mark.asyncio
@pytest.mark.parametrize("pair", [(Chat, Chat), (SyncChat, SyncChat), (Chat, SyncChat)])
async def test_websockets_talk_through_a_group(layer, pair):
    async with connected(*pair) as [one, two]:
        await one.send_to(text_data="from one")
        await two.send_to(text_data="from two")
        assert {await received(one), await received(one)} == {"from one", "from two"}
        assert {await received(two), await received(two)} == {"from one", "from two"}
    assert await layer.group_channels("chat") == []


@pytest.mark.asyncio
@pytest.mark.parametrize("pair", [(JsonChat, JsonChat), (SyncJsonChat, JsonChat)])
async def test_json_arrives_as_it_was(layer, pair):
    content = {"list": [1, 2.5, None, True], "nested": {"text": "ü"}}
    async with connected(*pair) as [one, two]:
        await one.send_json_to(content)
        assert await one.receive_json_from(timeout=PATIENCE) == content
        assert await two.receive_json_from(timeout=PATIENCE) == content


@pytest.mark.asyncio
async def test_a_long_poll_ends_with_the_news(layer):
    poll = HttpCommunicator(LongPoll.as_asgi(), "POST", "/news", body=b"since 5")
    response = asyncio.create_task(poll.get_response(timeout=PATIENCE))
    async with asyncio.timeout(PATIENCE):
        assert await layer.receive("polls") == {"body": b"since 5"}
        await layer.group_send("news", {"type": "news", "body": b"6"})
        assert (await response)["body"] == b"6"
    await poll.send_input({"type": "http.disconnect"})
    await poll.wait(timeout=PATIENCE)


@pytest.mark.asyncio
@pytest.mark.parametrize("consumer", [Job, SyncJob])
async def test_a_consumer_without_a_connection_answers_over_the_layer(layer, consumer):
    app = ApplicationCommunicator(consumer.as_asgi(), {"type": "channel", "channel": "jobs"})
    await app.send_input({"type": "job.run", "reply_to": "replies", "n": 1})
    async with asyncio.timeout(PATIENCE):
        assert await layer.receive("replies") == {"done": 1}
    app.stop()


@pytest.mark.asyncio
@pytest.mark.filterwarnings("ignore:async_to_sync was passed a non-async")  # by Worker itself
@pytest.mark.parametrize("consumer", [Job, SyncJob])
async def test_a_worker_serves_a_normal_channel_until_the_layer_closes(layer, consumer):
    leave_listeners_unread()
    app = ChannelNameRouter({"jobs": consumer.as_asgi()})
    worker = Worker(app, ["jobs", "more.jobs"], layer)
    running = asyncio.create_task(worker.handle())
    reply_to = await layer.new_channel()
    for n in range(20):
        await layer.send("jobs", {"type": "job.run", "reply_to": reply_to, "n": n})
    async with asyncio.timeout(PATIENCE):
        assert [await layer.receive(reply_to) for _ in range(20)] == [
            {"done": n} for n in range(20)
        ]
        await layer.close()
        with pytest.raises(LayerClosed):
            await running
        for instance in worker.application_instances.values():
            with pytest.raises(LayerClosed):
                await instance["future"]


@pytest.mark.asyncio
async def test_neighbours_that_come_and_go_cost_a_member_nothing(layer):
    """Channels cancels one receive for each disconnect."""

    async def neighbour():
        for _ in range(5):
            async with connected(Chat):
                pass

    async with connected(Chat) as [member], asyncio.TaskGroup() as tasks:
        for _ in range(5):
            tasks.create_task(neighbour())
        for n in range(100):
            await layer.group_send("chat", {"type": "chat.message", "text": str(n)})
            assert await received(member) == str(n)
    assert await layer.group_channels("chat") == []


# Between processes


@pytest_asyncio.fixture(params=[IPC, REDIS])
async def two_layers(request):
    """The layer that Channels makes from its settings, and one as another process would make it."""
    config = {"prefix": f"test-{secrets.token_hex(8)}", "capacity": 1000}
    if request.param == REDIS:
        config["hosts"] = [request.getfixturevalue("redis_server").url]
    settings = {"default": {"BACKEND": request.param, "CONFIG": config}}
    with override_settings(CHANNEL_LAYERS=settings):
        layer = get_channel_layer()
        other = type(layer)(**config)
        yield layer, other
        await other.close()
        await layer.close()


@pytest.mark.asyncio
@pytest.mark.parametrize("pair", [(Chat, Chat), (SyncChat, SyncChat)])
async def test_websockets_of_two_layers_talk_through_a_group(two_layers, pair):
    layer, other = two_layers
    assert type(layer) in (IPCChannelLayer, RedisChannelLayer)
    async with connected(pair[0]) as [one]:
        channel_layers.set("default", other)
        async with connected(pair[1]) as [two]:
            assert len(await layer.group_channels("chat")) == 2
            await one.send_to(text_data="from one")
            assert await received(one) == await received(two) == "from one"
            await two.send_to(text_data="from two")
            assert await received(one) == await received(two) == "from two"
    assert await layer.group_channels("chat") == []


@pytest.mark.asyncio
@pytest.mark.filterwarnings("ignore:async_to_sync was passed a non-async")  # by Worker itself
async def test_a_worker_on_one_layer_serves_what_another_sends(two_layers):
    leave_listeners_unread()
    layer, other = two_layers
    worker = Worker(ChannelNameRouter({"jobs": Job.as_asgi()}), ["jobs"], layer)
    running = asyncio.create_task(worker.handle())
    reply_to = await other.new_channel()
    for n in range(20):
        await other.send("jobs", {"type": "job.run", "reply_to": reply_to, "n": n})
    async with asyncio.timeout(PATIENCE):
        found = [await other.receive(reply_to) for _ in range(20)]
        assert found == [{"done": n} for n in range(20)]
        await layer.close()
        with pytest.raises(LayerClosed):
            await running
        for instance in worker.application_instances.values():
            with pytest.raises(LayerClosed):
                await instance["future"]


@pytest.mark.asyncio
async def test_existing_except_clauses_catch_what_layers_between_processes_raise(two_layers):
    layer, other = two_layers
    for n in range(1000):
        await layer.send("a", {"n": n})
    with pytest.raises(ChannelFull):
        await other.send("a", {})
    await layer.flush()


# What Channels asks of its own layer


@pytest.mark.asyncio
async def test_messages_arrive_in_order_and_as_they_were_sent(layer):
    message = {"type": "test", "values": [1, {"a": b"b"}]}
    await layer.send("a", message)
    message["values"].append("later")
    await layer.send("a", {"type": "second"})
    assert await layer.receive("a") == {"type": "test", "values": [1, {"a": b"b"}]}
    assert await layer.receive("a") == {"type": "second"}


@pytest.mark.asyncio
async def test_a_receiver_that_polls_in_vain_hurts_nobody(layer):
    """Channels had a race between the clean-up of an empty queue and its next user."""
    name = await layer.new_channel()
    for _ in range(3):
        with suppress(TimeoutError):
            async with asyncio.timeout(0.001):
                await layer.receive(name)
    await layer.send(name, {"n": 1})
    assert await layer.receive(name) == {"n": 1}


@pytest.mark.asyncio
async def test_capacity_is_exact_and_a_full_member_only_misses_its_copy(layer):
    for member in ("small.a", "b"):
        await layer.group_add("g", member)
    await layer.send("small.a", {"n": 0})
    with pytest.raises(ChannelFull):
        await layer.send("small.a", {"n": 1})
    await layer.group_send("g", {"n": 2})
    assert await layer.receive("b") == {"n": 2}
    assert await layer.receive("small.a") == {"n": 0}
    assert (await layer.channel_statistics("small.a"))["messages_pending"] == 0


@pytest.mark.asyncio
async def test_a_discarded_member_misses_the_group(layer):
    for member in ("a", "b", "c"):
        await layer.group_add("g", member)
    await layer.group_discard("g", "b")
    await layer.group_discard("g", "never.there")
    await layer.group_send("g", {"n": 1})
    assert sorted(await layer.group_channels("g")) == ["a", "c"]
    assert (await layer.channel_statistics("b"))["messages_count"] == 0
    assert await layer.receive("a") == await layer.receive("c") == {"n": 1}


@pytest.mark.asyncio
async def test_an_unread_message_expires_and_takes_its_dead_channel_from_the_groups():
    layer = Ours(expiry=0.05, idle=0.05)
    name = await layer.new_channel()
    await layer.group_add("g", name)
    await layer.group_send("g", {"n": 1})
    await asyncio.sleep(0.1)  # expiry is about real time
    assert await layer.group_channels("g") == []
    assert (await layer.channel_statistics(name))["messages_pending"] == 0


@pytest.mark.asyncio
async def test_flush_forgets_messages_and_groups(layer):
    await layer.send("a", {"n": 1})
    await layer.group_add("g", "a")
    await layer.flush()
    assert await layer.group_channels("g") == []
    await layer.send("a", {"n": 2})
    assert await layer.receive("a") == {"n": 2}


# Where Channels' own layer fails


def send_from_threads(layer, threads, sends):
    """Send to group g from plain threads through async_to_sync; raise what one of them raised."""
    errors = []

    def run(thread):
        try:
            for n in range(sends):
                async_to_sync(layer.group_send)("g", {"thread": thread, "n": n})
        except RuntimeError as exc:
            errors.append(exc)

    running = [threading.Thread(target=run, args=(number,)) for number in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    if errors:
        raise errors[0]


@pytest.mark.asyncio
@pytest.mark.parametrize(("threads", "sends"), [(1, 100), (10, 100)])
async def test_plain_threads_reach_a_receiver_in_a_loop(layer, threads, sends):
    await layer.group_add("g", "a")
    async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as tasks:
        receiver = tasks.create_task(first_messages(layer, "a", threads * sends))
        await asyncio.to_thread(send_from_threads, layer, threads, sends)
    for thread in range(threads):
        mine = [message["n"] for message in receiver.result() if message["thread"] == thread]
        assert mine == list(range(sends))


async def first_messages(layer, channel, count):
    return [await layer.receive(channel) for _ in range(count)]


def received_in_two_loops(layer, patience):
    """Let two loops in two threads wait on one channel; return what they received or raised."""
    waiting, found = threading.Barrier(3), []

    async def receive():
        task = asyncio.create_task(layer.receive("a"))
        await asyncio.sleep(0)  # now it waits, or has failed
        await asyncio.to_thread(waiting.wait, PATIENCE)
        async with asyncio.timeout(patience):
            return await task

    def run():
        try:
            found.append(asyncio.run(receive()))
        except (RuntimeError, TimeoutError) as exc:
            found.append(exc)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    waiting.wait(PATIENCE)
    for n in range(2):
        async_to_sync(layer.send)("a", {"n": n})
    for thread in threads:
        thread.join()
    return found


def test_two_loops_in_two_threads_receive_on_one_layer():
    found = received_in_two_loops(Ours(), PATIENCE)
    assert sorted(message["n"] for message in found) == [0, 1]
    found = received_in_two_loops(Theirs(), patience=0.05)
    assert any("different event loop" in str(what) for what in found)


@pytest.mark.asyncio
@pytest.mark.parametrize("message", [{1: "v"}, {"when": object()}, {"set": {1}}])
async def test_what_no_layer_can_carry_is_a_type_error_at_the_sender(message):
    with pytest.raises(TypeError):
        await Ours().send("a", message)
    with pytest.raises(TypeError):
        await Ours().group_send("g", message)
    await Theirs().send("a", message)  # and fails the day that Redis takes over


@pytest.mark.asyncio
async def test_an_empty_message_is_a_message(layer):
    for member in ("a", "b"):
        await layer.group_add("g", member)
    await layer.group_send("g", {})
    assert await layer.receive("a") == await layer.receive("b") == {}


@pytest.mark.asyncio
async def test_capacities_by_pattern_work(layer):
    await layer.send("small.a", {})
    with pytest.raises(ChannelFull):
        await layer.send("small.a", {})
    await layer.send("other", {})
    await layer.send("other", {})
    with pytest.raises(ValueError, match="unpack"):
        await Theirs(channel_capacity={"small.*": 1}).send("small.a", {})


@pytest.mark.asyncio
async def test_a_message_passes_a_cancelled_receiver_by():
    async def scenario(layer):
        first = asyncio.create_task(layer.receive("a"))
        second = asyncio.create_task(layer.receive("a"))
        await asyncio.sleep(0)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        await layer.send("a", {"n": 1})
        async with asyncio.timeout(0.05 if isinstance(layer, Theirs) else PATIENCE):
            return await second

    assert await scenario(Ours()) == {"n": 1}
    with pytest.raises(TimeoutError):
        await scenario(Theirs())


async def calls_of_a_broadcast(layer, members):
    """Return how many functions run for one group_send and a receive by each member."""
    names = [await layer.new_channel() for _ in range(members)]
    for name in names:
        await layer.group_add("g", name)
    calls = 0

    def count(frame, event, arg):
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        await layer.group_send("g", {"n": 1})
        messages = [await layer.receive(name) for name in names]
    finally:
        sys.setprofile(None)
    assert messages == [{"n": 1}] * members
    return calls


@pytest.mark.asyncio
async def test_a_broadcast_costs_what_its_members_cost():
    ours = [await calls_of_a_broadcast(Ours(), members) for members in (100, 500)]
    theirs = [await calls_of_a_broadcast(Theirs(), members) for members in (100, 500)]
    assert ours[1] / ours[0] < 6  # five times the members
    assert theirs[1] / theirs[0] > 10
    assert await calls_of_a_broadcast(Ours(), 5000) < 5000 * 2 * ours[1] / 500
