"""Every call of a layer, cancelled at every suspension: all or nothing, and nothing left behind."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from sweep import WAYS, sweep

from channels_layers import ChannelFull, ChannelLayer, InMemoryChannelLayer, LayerClosed
from channels_layers.options import LayerOptions
from channels_layers.testing.checks._tools import client_part, drained, settled, waiting

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

from custom_layer import Switchboard, SwitchboardBackend, SwitchboardLayer

MESSAGE = {"type": "m", "text": "x" * 5000}  # large enough to be weighed
SMALL = {"type": "s"}
CALLS = (
    *("open", "close", "send", "is_alive", "flush", "statistics"),
    *("group_add", "group_discard", "group_send", "group_channels"),
)


class SlowBackend(SwitchboardBackend):
    """Suspends each call before it does all, and once more when it has."""


def _slow(name):
    async def call(self, *args):
        await anyio.lowlevel.checkpoint()
        result = await getattr(SwitchboardBackend, name)(self, *args)
        await anyio.lowlevel.checkpoint()
        return result

    return call


for _name in CALLS:
    setattr(SlowBackend, _name, _slow(_name))


class HomeBackend(SwitchboardBackend):
    has_home = True


def over(backend, board, **options):
    checked = LayerOptions(**options)
    return ChannelLayer(checked, backend(board, checked))


# Each makes a fresh prefix and returns what makes its clients. A new kind of layer is a new line.
LAYERS = {
    "memory": lambda: InMemoryChannelLayer,
    "switchboard": lambda: partial(SwitchboardLayer, Switchboard()),
    "slow": lambda: partial(over, SlowBackend, Switchboard()),
    "home": lambda: partial(over, HomeBackend, Switchboard()),
}


# The scenes: `layer` makes the call that is cancelled; `other` may be another client.


async def rest(layer, channel):
    """Take what is left on a channel; return the types, which read better than the messages."""
    messages = await drained(layer, channel)
    assert all(message in (MESSAGE, SMALL) for message in messages)
    return [message["type"] for message in messages]


def got(cut):
    """Return the types of what a receive has returned."""
    found = cut.result[1] if isinstance(cut.result, tuple) else cut.result
    return [] if found is None else [found["type"]]


async def send_to_a_waiting_receiver(layer, other, cut):
    async with waiting(partial(other.receive, "jobs")) as [reader]:
        await cut(layer.send("jobs", MESSAGE))
        await settled()
    heard = [] if reader.got is None else [reader.got["type"]]
    assert heard + await rest(other, "jobs") in cut.outcomes([], ["m"])


async def send_to_an_idle_channel(layer, other, cut):
    await cut(layer.send("jobs", MESSAGE))
    assert await rest(other, "jobs") in cut.outcomes([], ["m"])


async def send_to_a_channel_of_another_client(layer, other, cut):
    channel = await other.new_channel()
    await cut(layer.send(channel, MESSAGE))
    assert await rest(other, channel) in cut.outcomes([], ["m"])


async def send_to_a_full_channel(layer, other, cut):
    for _ in range(3):
        await other.send("jobs", SMALL)
    await cut(layer.send("jobs", MESSAGE))
    assert cut.is_cancelled or isinstance(cut.error, ChannelFull)
    assert await other.receive("jobs") == SMALL
    assert await rest(other, "jobs") == ["s", "s"]


async def receive_what_is_there(layer, other, cut):
    await other.send("jobs", MESSAGE)
    await cut(layer.receive("jobs"))
    assert (got(cut), await rest(other, "jobs")) in cut.outcomes(([], ["m"]), (["m"], []))


async def receive_what_comes_later(layer, other, cut):
    await cut(layer.receive("jobs"), partial(other.send, "jobs", MESSAGE))
    assert (got(cut), await rest(other, "jobs")) in cut.outcomes(([], ["m"]), (["m"], []))


async def receive_what_is_there_on_its_own_channel(layer, other, cut):
    channel = await layer.new_channel()
    await other.send(channel, MESSAGE)
    await cut(layer.receive(channel))
    assert (got(cut), await rest(layer, channel)) in cut.outcomes(([], ["m"]), (["m"], []))


async def receive_what_comes_later_on_its_own_channel(layer, other, cut):
    channel = await layer.new_channel()
    await cut(layer.receive(channel), partial(other.send, channel, MESSAGE))
    assert (got(cut), await rest(layer, channel)) in cut.outcomes(([], ["m"]), (["m"], []))


async def receive_on_a_non_local_part(layer, other, cut):
    channel = await layer.new_channel()
    await cut(layer.receive(client_part(channel)), partial(other.send, channel, MESSAGE))
    assert (got(cut), await rest(layer, channel)) in cut.outcomes(([], ["m"]), (["m"], []))


async def receive_from_several_what_is_there(layer, other, cut):
    channels = [await layer.new_channel(), "jobs"]
    await other.send("jobs", MESSAGE)
    await cut(layer.receive_from(channels))
    assert (got(cut), await rest(other, "jobs")) in cut.outcomes(([], ["m"]), (["m"], []))


async def receive_from_several_what_comes_later(layer, other, cut):
    channel = await layer.new_channel()
    await cut(layer.receive_from(["jobs", channel]), partial(other.send, channel, MESSAGE))
    assert (got(cut), await rest(layer, channel)) in cut.outcomes(([], ["m"]), (["m"], []))


async def receive_what_may_never_come(layer, other, cut):
    channel = await layer.new_channel()

    async def send_to_whoever_goes_on():
        if cut.way == "woken" or cut.suspensions < cut.at:
            await other.send(channel, MESSAGE)

    await cut(layer.receive_from(["jobs", channel]), send_to_whoever_goes_on)


async def receive_before_a_neighbour(layer, other, cut):
    channel = await layer.new_channel()
    behind = []

    async def read():
        behind.append((await layer.receive(channel))["type"])

    async def read_and_send():
        tasks.start_soon(read)
        await settled()
        await other.send(channel, MESSAGE)
        await other.send(channel, SMALL)

    async with anyio.create_task_group() as tasks:
        await cut(layer.receive(channel), read_and_send)
    assert [*got(cut), *behind, *await rest(layer, channel)] == ["m", "s"]


async def make_a_channel(layer, other, cut):
    await cut(layer.new_channel("reply"))
    channel = await layer.new_channel("reply")
    assert cut.is_cancelled or cut.result.startswith("reply.")
    assert channel != cut.result
    await other.send(channel, MESSAGE)
    assert await rest(layer, channel) == ["m"]


async def add_to_a_group(whose, layer, other, cut):
    channel, reader = await whose(layer, other)
    await cut(layer.group_add("group", channel))
    members = await other.group_channels("group")
    assert members in cut.outcomes([], [channel])
    assert members == await layer.group_channels("group")
    await other.group_send("group", MESSAGE)
    assert await rest(reader, channel) == ["m"] * len(members)
    await layer.group_discard("group", channel)
    assert await other.group_channels("group") == []


async def discard_from_a_group(whose, layer, other, cut):
    channel, reader = await whose(layer, other)
    await layer.group_add("group", channel)
    await cut(layer.group_discard("group", channel))
    members = await other.group_channels("group")
    assert members in cut.outcomes([channel], [])
    assert members == await layer.group_channels("group")
    await other.group_send("group", MESSAGE)
    assert await rest(reader, channel) == ["m"] * len(members)


async def send_to_a_group(layer, other, cut):
    members = {await layer.new_channel(): layer, await other.new_channel(): other, "jobs": other}
    for channel in members:
        await other.group_add("group", channel)
    await cut(layer.group_send("group", MESSAGE))
    copies = [await rest(reader, channel) for channel, reader in members.items()]
    assert copies in cut.outcomes([[], [], []], [["m"], ["m"], ["m"]])


async def ask(question, arguments, answer, layer, other, cut):
    await other.send("jobs", MESSAGE)
    await other.group_add("group", "jobs")
    await cut(getattr(layer, question)(*arguments))
    found = cut.result["messages_pending"] if isinstance(cut.result, dict) else cut.result
    assert cut.is_cancelled or found == answer
    assert await other.group_channels("group") == ["jobs"]
    assert await rest(other, "jobs") == ["m"]


async def flush_it(layer, other, cut):
    channel = await layer.new_channel()
    for name in (channel, "jobs"):
        await other.group_add("group", name)
    await other.group_send("group", MESSAGE)
    await cut(layer.flush())
    members = sorted(await other.group_channels("group"))
    kept = members, await rest(layer, channel), await rest(other, "jobs")
    assert kept in cut.outcomes((sorted([channel, "jobs"]), ["m"], ["m"]), ([], [], []))


async def open_it(layer, other, cut):
    await cut(layer.open())
    await other.send("jobs", MESSAGE)
    assert await rest(layer, "jobs") == ["m"]


async def close_it(layer, other, cut):
    channel = await layer.new_channel()
    await layer.group_add("group", channel)
    async with waiting(partial(layer.receive, channel)) as [reader]:
        await cut(layer.close())
        await layer.close()  # whatever the first one did, now it is done
        await reader.end()
    assert isinstance(reader.error, LayerClosed)
    assert await other.group_channels("group") == []


async def own(layer, other):
    return await layer.new_channel(), layer


async def theirs(layer, other):
    return await other.new_channel(), other


async def nobodys(layer, other):
    return "jobs", layer


SCENES = {
    scene.__name__: scene
    for scene in (
        *(send_to_a_waiting_receiver, send_to_an_idle_channel, send_to_a_full_channel),
        *(send_to_a_channel_of_another_client, receive_what_is_there, receive_what_comes_later),
        receive_what_is_there_on_its_own_channel,
        receive_what_comes_later_on_its_own_channel,
        *(receive_on_a_non_local_part, receive_from_several_what_is_there),
        *(receive_from_several_what_comes_later, receive_what_may_never_come),
        *(receive_before_a_neighbour, make_a_channel, send_to_a_group),
        *(flush_it, open_it, close_it),
    )
}
for _whose in (own, theirs, nobodys):
    SCENES[f"add_to_a_group_{_whose.__name__}"] = partial(add_to_a_group, _whose)
    SCENES[f"discard_from_a_group_{_whose.__name__}"] = partial(discard_from_a_group, _whose)
SCENES["ask_group_channels"] = partial(ask, "group_channels", ["group"], ["jobs"])
SCENES["ask_statistics"] = partial(ask, "statistics", [], 1)
SCENES["ask_channel_statistics"] = partial(ask, "channel_statistics", ["jobs"], 1)


# The layer does its own half at once; where the backend's half is cancelled before it begins,
# the call is half done.
CASES = [pytest.param(scene, kind) for scene in SCENES for kind in LAYERS]


@pytest.mark.parametrize(("loop", "way"), WAYS)
@pytest.mark.parametrize(("scene", "kind"), CASES)
def test_a_call_that_is_cancelled_anywhere_is_wholly_done_or_not_at_all(scene, kind, loop, way):
    anyio.run(sweep, SCENES[scene], LAYERS[kind], way, backend=loop)


# The sweep has teeth


class TakesAndThenWaits(InMemoryChannelLayer):
    async def receive(self, channel):
        message = await super().receive(channel)
        await anyio.lowlevel.checkpoint()
        return message


class StaysInLine(InMemoryChannelLayer):
    def _leave(self, place, exc):
        pass


class SendsOneByOne(InMemoryChannelLayer):
    async def group_send(self, group, message):
        for channel in await self.group_channels(group):
            await self.send(channel, message)
            await anyio.lowlevel.checkpoint()


class SendsTwiceIfCancelled(InMemoryChannelLayer):
    async def send(self, channel, message):
        try:
            await super().send(channel, message)
            await anyio.lowlevel.checkpoint()
        except anyio.get_cancelled_exc_class():
            await super().send(channel, message)
            raise


class FlushesGroupsFirst(InMemoryChannelLayer):
    async def flush(self):
        with self._lock:
            for mailbox in self._exchange.by_name.values():
                self._exchange.mailboxes.groups.discard_all(mailbox)
        await anyio.lowlevel.checkpoint()
        await super().flush()


class LeavesAnEmptyMailbox(InMemoryChannelLayer):
    async def statistics(self):
        self._exchange.mailboxes.open("left", 0.0).groups = {"nobody's"}
        return await super().statistics()


@pytest.mark.parametrize(("loop", "way"), WAYS)
@pytest.mark.parametrize(
    ("kind", "scene"),
    [
        (TakesAndThenWaits, "receive_what_is_there"),
        (TakesAndThenWaits, "receive_what_comes_later"),
        (SendsOneByOne, "send_to_a_group"),
        (SendsTwiceIfCancelled, "send_to_an_idle_channel"),
        (FlushesGroupsFirst, "flush_it"),
        (LeavesAnEmptyMailbox, "ask_statistics"),
    ],
)
def test_a_layer_that_does_half_is_caught(kind, scene, loop, way):
    with pytest.raises(AssertionError):
        anyio.run(sweep, SCENES[scene], lambda: kind, way, backend=loop)


@pytest.mark.parametrize(("loop", "way"), WAYS[:3])
def test_a_receiver_that_stays_in_line_is_caught(loop, way):
    scene = SCENES["receive_what_may_never_come"]
    with pytest.raises(AssertionError, match="still in line"):
        anyio.run(sweep, scene, lambda: StaysInLine, way, backend=loop)


@pytest.mark.parametrize(("loop", "way"), WAYS)
def test_a_waiting_receive_has_one_suspension(loop, way):
    scene = SCENES["receive_what_comes_later"]
    assert anyio.run(sweep, scene, LAYERS["memory"], way, backend=loop) == 1
