"""The unreliable layer: what it spoils, what it leaves alone, and that it can be repeated."""

from __future__ import annotations

import inspect
import os
import signal
from collections import Counter
from contextlib import AsyncExitStack

import anyio
import pytest
from anyio import create_task_group, fail_after, wait_all_tasks_blocked
from anyio.lowlevel import checkpoint

from channels_layers import ChannelLayer, InMemoryChannelLayer
from channels_layers.errors import (
    BackendTimeout,
    BackendUnavailable,
    ChannelFull,
    ConfigurationError,
    InvalidName,
    LayerClosed,
    NotSerializable,
)
from channels_layers.testing import CHECKS, run
from channels_layers.testing.resilience import OPERATIONS, WRITES, FaultCounts, Unreliable

pytestmark = pytest.mark.anyio
HOUR = (3600.0, 3600.0)
CALLS = {
    "send": ("a", {}),
    "group_send": ("g", {}),
    "group_add": ("g", "a"),
    "group_discard": ("g", "a"),
    "receive": ("a",),
    "receive_from": (["a"],),
    "channel_statistics": ("a",),
    "group_channels": ("g",),
}


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    return request.param


@pytest.fixture
def inside():
    """The layer that does the work, with room for every message of these tests."""
    return InMemoryChannelLayer(capacity=10_000)


async def call(layer, operation):
    return await getattr(layer, operation)(*CALLS.get(operation, ()))


async def drained(layer, channel):
    """Return what waits on `channel`."""
    messages = []
    with fail_after(5):
        while (await layer.channel_statistics(channel))["messages_pending"]:
            messages.append(await layer.receive(channel))
    return messages


async def outcomes(layer, count=200):
    """Return what becomes of each of `count` sends."""
    found = []
    for n in range(count):
        try:
            await layer.send("a", {"n": n})
        except (ChannelFull, BackendUnavailable) as exc:
            found.append(type(exc).__name__)
        else:
            found.append("sent")
    return found


async def test_a_dropped_message_is_lost_in_silence(inside):
    layer = Unreliable(inside, drop=1)
    await layer.send("a", {})
    await layer.group_add("g", "a")
    await layer.group_send("g", {})
    assert await drained(inside, "a") == []
    assert layer.counts == FaultCounts(operations=3, dropped=2)


async def test_only_the_chosen_share_is_dropped(inside):
    layer = Unreliable(inside, drop=0.3, seed=1)
    await outcomes(layer, 1000)
    arrived = await drained(inside, "a")
    assert 250 < layer.counts.dropped < 350
    assert len(arrived) == 1000 - layer.counts.dropped


async def test_every_fault_gets_its_share(inside):
    layer = Unreliable(inside, drop=0.1, delay=0.2, delay_s=(0, 0), refuse=0.3, fail=0.4, seed=1)
    found = Counter(await outcomes(layer, 1000))
    counts = layer.counts
    assert (counts.refused, counts.failed) == (found["ChannelFull"], found["BackendUnavailable"])
    assert counts.dropped + counts.delayed == found["sent"]
    for share, count in zip(
        (1, 2, 3, 4), (counts.dropped, counts.delayed, counts.refused, counts.failed), strict=True
    ):
        assert abs(count - 100 * share) < 50


async def test_one_seed_gives_the_same_faults_every_time():
    def unreliable(seed):
        return Unreliable(InMemoryChannelLayer(capacity=1000), refuse=0.3, fail=0.3, seed=seed)

    first = await outcomes(unreliable(7))
    assert await outcomes(unreliable(7)) == first
    assert await outcomes(unreliable(8)) != first


async def test_concurrent_calls_suffer_in_their_order_of_call(inside):
    layer = Unreliable(inside, delay=0.5, delay_s=HOUR, seed=3)
    called = []

    async def send(n):
        called.append(n)
        await layer.send("a", {"n": n})

    async with create_task_group() as tasks:
        for n in range(50):
            tasks.start_soon(send, n)
        await wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    passed = [message["n"] for message in await drained(inside, "a")]
    alone = await outcomes(Unreliable(InMemoryChannelLayer(), refuse=0.5, seed=3), 50)
    assert passed == [n for n, what in zip(called, alone, strict=True) if what == "sent"]


async def test_a_refused_send_is_a_full_channel(inside):
    layer = Unreliable(inside, refuse=1)
    with pytest.raises(layer.ChannelFull, match="channel 'a' is full"):
        await layer.send("a", {})
    assert await drained(inside, "a") == []
    assert layer.counts.refused == 1


async def test_a_group_send_is_never_refused(inside):
    layer = Unreliable(inside, refuse=1)
    await layer.group_add("g", "a")
    await layer.group_send("g", {"n": 1})
    assert await drained(inside, "a") == [{"n": 1}]


@pytest.mark.parametrize("operation", sorted(OPERATIONS))
async def test_a_failed_operation_did_nothing(inside, operation):
    layer = Unreliable(inside, fail=1, operations=[operation])
    await inside.send("a", {"n": 1})
    await inside.group_add("g", "b")
    with pytest.raises(BackendUnavailable, match=operation) as caught:
        await call(layer, operation)
    assert not isinstance(caught.value, BackendTimeout)
    assert isinstance(caught.value.__cause__, ConnectionError)
    assert await inside.group_channels("g") == ["b"]
    assert await drained(inside, "a") == [{"n": 1}]


@pytest.mark.parametrize("operation", sorted(OPERATIONS - WRITES))
async def test_what_was_not_named_is_left_alone(inside, operation):
    layer = Unreliable(inside, fail=1)
    await inside.send("a", {})
    with fail_after(5):
        await call(layer, operation)
    assert layer.counts == FaultCounts()


@pytest.mark.parametrize("operation", sorted(WRITES))
async def test_a_call_that_is_cancelled_in_its_delay_did_nothing(inside, operation):
    layer = Unreliable(inside, delay=1, delay_s=HOUR)
    await inside.group_add("g", "b")
    async with create_task_group() as tasks:
        tasks.start_soon(call, layer, operation)
        await wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    assert await inside.group_channels("g") == ["b"]
    assert await drained(inside, "a") == await drained(inside, "b") == []
    assert layer.counts.delayed == 1


async def test_a_delayed_receive_leaves_the_message_to_others(inside):
    layer = Unreliable(inside, delay=1, delay_s=HOUR, operations=["receive", "receive_from"])
    await inside.send("a", {"n": 1})
    async with create_task_group() as tasks:
        tasks.start_soon(layer.receive, "a")
        tasks.start_soon(layer.receive_from, ["a"])
        await wait_all_tasks_blocked()
        assert await inside.receive("a") == {"n": 1}
        tasks.cancel_scope.cancel()


async def test_delayed_messages_of_one_task_arrive_once_and_in_order(inside):
    layer = Unreliable(inside, delay=0.5, delay_s=(0, 0.001), seed=1)
    await outcomes(layer, 50)
    assert await drained(inside, "a") == [{"n": n} for n in range(50)]


@pytest.mark.parametrize("operation", ["send", "group_send"])
async def test_a_message_is_sent_as_it_was_before_the_delay(inside, operation):
    layer = Unreliable(inside, delay=1, delay_s=(0.001, 0.001))
    await inside.group_add("a", "a")
    message = {"list": [1]}
    async with create_task_group() as tasks:
        tasks.start_soon(getattr(layer, operation), "a", message)
        while not layer.counts.delayed:
            await anyio.lowlevel.checkpoint()
        message["list"].append(2)
    assert await drained(inside, "a") == [{"list": [1]}]


@pytest.mark.parametrize("fault", ["drop", "refuse"])
async def test_a_wrong_send_is_an_error_even_when_it_would_be_spoilt(inside, fault):
    layer = Unreliable(inside, **{fault: 1})
    with pytest.raises(InvalidName):
        await layer.send("not a name", {})
    with pytest.raises(NotSerializable):
        await layer.send("a", {"when": object()})


async def test_a_wrong_group_send_is_an_error_even_when_it_would_be_dropped(inside):
    layer = Unreliable(inside, drop=1)
    with pytest.raises(InvalidName):
        await layer.group_send("g!x", {})
    with pytest.raises(NotSerializable):
        await layer.group_send("g", {1: "v"})


@pytest.mark.parametrize("operation", ["receive", "receive_from"])
async def test_a_receive_loses_messages_only_where_it_was_named(inside, operation):
    layer = Unreliable(inside, drop=0.5, operations=[operation], seed=1)
    await outcomes(layer, 100)
    received = []

    async def receive_all():
        while True:
            received.append(await call(layer, operation))

    async with create_task_group() as tasks:
        tasks.start_soon(receive_all)
        while (await inside.statistics())["messages_pending"]:
            await checkpoint()
        await wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    assert layer.counts.dropped == 100 - len(received)
    assert 30 < len(received) < 70


async def test_a_receive_that_was_not_named_loses_nothing(inside):
    layer = Unreliable(inside, drop=1, operations=["send"])
    await inside.send("a", {"n": 1})
    await inside.send("a", {"n": 2})
    assert await drained(layer, "a") == [{"n": 1}, {"n": 2}]


async def test_after_a_loss_the_same_channels_are_waited_for(inside):
    layer = Unreliable(inside, drop=0.5, operations=["receive_from"], seed=1)
    await outcomes(layer, 20)
    with fail_after(5):
        while not layer.counts.dropped:
            await layer.receive_from(iter(["a"]))


async def test_a_cancelled_receive_that_may_lose_messages_took_none(inside):
    layer = Unreliable(inside, drop=1, operations=["receive"])
    async with create_task_group() as tasks:
        tasks.start_soon(layer.receive, "a")
        await wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    await inside.send("a", {"n": 1})
    assert await drained(inside, "a") == [{"n": 1}]
    assert layer.counts.dropped == 0


async def test_a_writer_that_repeats_what_failed_loses_and_doubles_nothing(inside):
    layer = Unreliable(inside, delay=0.2, delay_s=(0, 0), refuse=0.3, fail=0.3, seed=1)
    for n in range(200):
        while True:
            try:
                await layer.send("a", {"n": n})
            except (ChannelFull, BackendUnavailable):
                continue
            break
    assert await drained(inside, "a") == [{"n": n} for n in range(200)]


@pytest.mark.parametrize("is_block", [True, False])
async def test_closing_always_works(inside, is_block):
    layer = Unreliable(inside, fail=1, operations=OPERATIONS - {"open"})

    async def receive():
        with pytest.raises(LayerClosed):
            await inside.receive("a")

    with fail_after(5):
        async with create_task_group() as tasks, AsyncExitStack() as stack:
            if is_block:
                await stack.enter_async_context(layer)
            tasks.start_soon(receive)
            await wait_all_tasks_blocked()
            await (stack.aclose() if is_block else layer.close())


async def test_a_layer_that_cannot_open_raises_at_the_block():
    class Closing(InMemoryChannelLayer):
        async def close(self):
            raise AssertionError("was never open")

    with pytest.raises(BackendUnavailable, match="open"):
        async with Unreliable(Closing(), fail=1, operations=["open"]):
            pass


async def test_an_unspoilt_layer_is_the_layer_inside(inside):
    async with Unreliable(inside) as layer:
        name = await layer.new_channel("mine")
        await layer.group_add("g", name)
        await layer.group_send("g", {"n": 1})
        assert await layer.group_channels("g") == [name]
        assert await layer.receive_from(iter([name])) == (name, {"n": 1})
        assert name.startswith("mine.")
        await layer.flush()
        assert await layer.group_channels("g") == []
        assert layer.guarantees is inside.guarantees
        assert layer.extensions is inside.extensions


async def test_an_unspoilt_layer_keeps_the_contract():
    """Except for what takes real time: that is in the layer inside alone."""

    def make(**options):
        return Unreliable(InMemoryChannelLayer(**options))

    report = await run(make, [check for check in CHECKS if "real time" not in check.needs])
    assert len(report.passed) > 100
    broken = [str(outcome) for outcome in report.failed]
    assert broken == []


async def test_it_has_all_that_a_layer_has():
    for name, member in inspect.getmembers(ChannelLayer):
        if not name.startswith("_") and inspect.iscoroutinefunction(member):
            own = inspect.signature(getattr(Unreliable, name)).parameters
            assert list(own) == list(inspect.signature(member).parameters), name
    assert vars(Unreliable).keys() >= {n for n in vars(ChannelLayer) if not n.startswith("_")}


async def test_the_counts_are_a_copy(inside):
    layer = Unreliable(inside, drop=1)
    layer.counts.dropped = 5
    assert layer.counts.dropped == 0


WRONG = {
    "above 1": ({"drop": 1.5}, "drop: must be a share from 0 to 1, got 1.5"),
    "below 0": ({"fail": -0.1}, "fail: must be a share from 0 to 1, got -0.1"),
    "not a number": ({"delay": float("nan")}, "delay: must be a share from 0 to 1, got nan"),
    "text": ({"refuse": "0.5"}, "refuse: must be a share from 0 to 1, got '0.5'"),
    "a switch": ({"drop": True}, "drop: must be a share from 0 to 1, got True"),
    "sum": (
        {"drop": 0.6, "fail": 0.6},
        "drop + delay + refuse + fail: must not be more than 1 in all, got 1.2",
    ),
    "no effect": (
        {"refuse": 0.5, "operations": ["receive"]},
        "refuse: has no effect unless one of these is in operations: send",
    ),
    "unknown operation": (
        {"operations": ["recieve"]},
        "operations: 'recieve' is none; did you mean 'receive'?",
    ),
    "close": ({"operations": ["close"]}, "operations: 'close' is none"),
    "one name": ({"operations": "send"}, "operations: must be a collection of names, got 'send'"),
    "one number": (
        {"delay_s": 1.0},
        "delay_s: must be a shortest and a longest wait in seconds, got 1.0",
    ),
    "wrong way round": (
        {"delay_s": (2, 1)},
        "delay_s: must be a shortest and a longest wait in seconds, got (2, 1)",
    ),
    "before now": (
        {"delay_s": (-1, 1)},
        "delay_s: must be a shortest and a longest wait in seconds, got (-1, 1)",
    ),
    "endless": (
        {"delay_s": (0, float("inf"))},
        "delay_s: must be a shortest and a longest wait in seconds, got (0, inf)",
    ),
}


@pytest.mark.parametrize(("options", "problem"), WRONG.values(), ids=WRONG)
async def test_a_wrong_option_is_told(inside, options, problem):
    with pytest.raises(ConfigurationError) as caught:
        Unreliable(inside, **options)
    assert str(caught.value).startswith(problem)


async def test_shares_that_add_up_to_1_in_tenths_are_right(inside):
    Unreliable(inside, drop=0.2, delay=0.4, refuse=0.3, fail=0.1)
    assert 0.2 + 0.4 + 0.3 + 0.1 > 1  # one addition after the other


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_does_not_wait_for_its_parents_lock(inside):
    layer = Unreliable(inside, drop=1)
    with layer._luck._lock:
        child = os.fork()
        if not child:
            signal.alarm(20)
            os._exit(layer.counts != FaultCounts())
    assert os.waitpid(child, 0)[1] == 0
