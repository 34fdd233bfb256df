"""What a receiver of a closed loop never took goes to who waits, whichever call finds it."""

from __future__ import annotations

import asyncio
import sys
import threading
from pathlib import Path

import anyio
import pytest
import trio

from channels_layers import ChannelFull, ChannelLayer, _loops
from channels_layers.options import LayerOptions
from channels_layers.testing.checks._tools import line
from channels_layers.testing.checks.ending_loops import _stopped_receiver

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

from custom_layer import Switchboard, SwitchboardBackend


class Clients:
    """Two clients of one prefix, or one twice, with a clock that the test turns."""

    def __init__(self, kind, **options):
        self.now = 1000.0
        checked, board = LayerOptions(**options), Switchboard()

        def make():
            backend = SwitchboardBackend(board, checked) if kind == "switchboard" else None
            return ChannelLayer(checked, backend, clock=lambda: self.now)

        self.layer = make()
        self.other = make() if kind == "switchboard" else self.layer


async def found_by(call, kind):
    clients = Clients(kind, capacity=1, expiry=1000, idle=20)
    async with clients.layer as layer, clients.other as other:
        channel = await layer.new_channel()
        with _stopped_receiver(layer, channel) as close:
            async with line(layer, channel) as [second]:
                await layer.send(channel, {"n": 1})
                close()
                await call(clients, other, channel)
                with anyio.fail_after(20):
                    assert await second.result() == {"n": 1}


async def a_sender_without_room(clients, other, channel):
    with pytest.raises(ChannelFull):
        await other.send(channel, {"n": 2})


async def a_group_without_room(clients, other, channel):
    await other.group_add("group", channel)
    await other.group_send("group", {"n": 2})


async def statistics_of_all(clients, other, channel):
    clients.now += 30
    await other.statistics()


@pytest.mark.parametrize("kind", ["memory", "switchboard"])
@pytest.mark.parametrize("call", [a_sender_without_room, a_group_without_room, statistics_of_all])
def test_what_a_closed_loop_never_took_is_found_by(call, kind):
    anyio.run(found_by, call, kind)


@pytest.mark.parametrize("kind", ["asyncio", "trio", "both"])
def test_lost_receivers_are_told_from_those_that_wait(kind):
    live, closed = asyncio.new_event_loop(), asyncio.new_event_loop()
    waiting, cancelled = live.create_future(), live.create_future()
    left_behind = closed.create_future()
    cancelled.cancel()
    closed.close()

    async def in_trio():
        waiter, abandoned = _loops.new_waiter(), _loops.new_waiter()
        abandoned.is_cancelled = True
        assert _loops.lost_of([waiter]) == []
        assert _loops.lost_of([abandoned, waiter]) == [abandoned]
        if kind == "both":
            everybody = [waiting, waiter, cancelled, left_behind, abandoned]
            assert _loops.lost_of(everybody) == [cancelled, left_behind, abandoned]

    try:
        if kind == "asyncio":
            assert _loops.lost_of([]) == _loops.lost_of([waiting]) == []
            assert _loops.lost_of([waiting, cancelled]) == [cancelled]
            assert _loops.lost_of([waiting, left_behind]) == [left_behind]
        else:
            trio.run(in_trio)
    finally:
        live.close()


@pytest.mark.parametrize("is_due", [True, False])
def test_an_heir_is_woken_behind_those_whom_another_thread_wakes(is_due):
    order = []

    async def main():
        loop = asyncio.get_running_loop()
        first, heir = loop.create_future(), loop.create_future()
        for name, waiter in (("first", first), ("heir", heir)):
            waiter.add_done_callback(lambda _, name=name: order.append(name))
        if is_due:
            thread = threading.Thread(target=_loops.wake, args=((first,),))
            thread.start()
            thread.join()
        assert _loops.wake_behind(heir, [first]) == []
        assert heir.done() is False  # in the same queue
        if not is_due:
            first.set_result(None)
        await asyncio.gather(first, heir)

    asyncio.run(main())
    assert order == ["first", "heir"]


def test_an_heir_of_nobody_else_is_woken_at_once_or_lost():
    async def main():
        loop = asyncio.get_running_loop()
        woken, heir, lost = [loop.create_future() for _ in range(3)]
        woken.set_result(None)
        lost.cancel()
        assert _loops.wake_behind(heir, [woken]) == []
        assert heir.done()
        assert _loops.wake_behind(lost, [woken]) == [lost]

    asyncio.run(main())


def test_a_backend_hears_of_receivers_in_their_order():
    """Whatever thread they are of: the number is told while nobody else can tell another one."""

    async def main():
        clients = Clients("switchboard")
        async with clients.layer as layer:
            told, want = [], layer._backend.want

            def noting(channel, readers):
                told.append((readers, layer._remote.client.demanding._is_owned()))
                want(channel, readers)

            layer._backend.want = noting
            async with line(layer, "jobs", "jobs"):
                pass
            assert {readers for readers, _ in told} >= {0, 1}
            assert all(is_held for _, is_held in told)

    anyio.run(main)
