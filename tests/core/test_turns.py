"""The order of direct messages and those to groups: who waits for whom, how long, and whose end."""

from __future__ import annotations

import asyncio
import gc

import pytest
import trio
import trio.testing

from channels_layers import BackendTimeout, BackendUnavailable
from channels_layers._turns import NoTurn, Turns

FOREVER_S = 60.0


async def begun(turns, kinds):
    """Begin turns in tasks, in this order; return the tasks when all have begun or wait."""
    tasks = [asyncio.create_task(turns.begin(is_direct=kind == "direct")) for kind in kinds]
    await asyncio.sleep(0)
    return tasks


def started(tasks):
    return [task.done() for task in tasks]


def test_those_of_one_kind_go_together_and_nobody_overtakes_the_other_kind():
    async def main():
        turns = Turns("test", FOREVER_S)
        tasks = await begun(turns, ["group", "group", "direct", "direct", "group"])
        assert started(tasks) == [True, True, False, False, False]
        turns.end(await tasks[1])
        await asyncio.sleep(0)
        assert started(tasks) == [True, True, False, False, False]
        turns.end(await tasks[0])
        directs = [await tasks[2], await tasks[3]]
        assert not tasks[4].done()
        for turn in directs:
            turns.end(turn)
        turns.end(await tasks[4])
        assert turns.is_idle

    asyncio.run(main())


def test_on_trio_they_go_on_in_the_order_of_their_calls():
    """Whatever order trio runs tasks in that were woken together."""

    async def main():
        turns, resumed = Turns("test", FOREVER_S), []

        async def send(number):
            turn = await turns.begin(is_direct=False)
            resumed.append(number)
            turns.end(turn)

        for _ in range(10):
            first = await turns.begin(is_direct=True)
            async with trio.open_nursery() as nursery:
                for number in range(5):
                    nursery.start_soon(send, number)
                    await trio.testing.wait_all_tasks_blocked()
                turns.end(first)
            assert resumed == list(range(5))
            resumed.clear()

    trio.run(main)


def test_one_that_is_cancelled_in_line_lets_the_others_go_on():
    async def main():
        turns = Turns("test", FOREVER_S)
        tasks = await begun(turns, ["group", "direct", "group"])
        tasks[1].cancel()
        turns.end(await tasks[2])
        turns.end(await tasks[0])
        assert turns.is_idle

    asyncio.run(main())


def test_who_does_not_get_a_turn_in_time_fails_and_has_done_nothing():
    async def main():
        turns = Turns("test", 0.05)
        turn = await turns.begin(is_direct=True)
        turn.ends_at += FOREVER_S
        with pytest.raises(
            BackendUnavailable, match="still on its way; nothing was done"
        ) as caught:
            await turns.begin(is_direct=False)
        assert not isinstance(caught.value, BackendTimeout)
        assert not turns._line

    asyncio.run(main())


def test_who_gets_a_turn_and_goes_on_too_late_fails_and_has_done_nothing():
    async def main():
        turns = Turns("test", FOREVER_S)
        first = await turns.begin(is_direct=True)
        [late] = await begun(turns, ["group"])
        turn = turns._line[0]
        turns.end(first)
        assert turn.has_begun
        turn.ends_at -= FOREVER_S
        with pytest.raises(NoTurn):
            await late
        assert turns.is_idle

    asyncio.run(main())


def test_nobody_waits_for_one_whose_time_is_over():
    async def main():
        turns = Turns("test", FOREVER_S)
        turn = await turns.begin(is_direct=True)
        turn.ends_at -= FOREVER_S
        turns.end(await turns.begin(is_direct=False))
        assert turns.is_idle

    asyncio.run(main())


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_nobody_waits_for_one_whose_loop_has_closed(when):
    turns = Turns("test", FOREVER_S)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(turns.begin(is_direct=False))

    async def main():
        if when == "before":
            loop.close()
        beginning = asyncio.create_task(turns.begin(is_direct=True))
        await asyncio.sleep(0)
        loop.close()
        turns.end(await beginning)
        assert turns.is_idle

    asyncio.run(main())


def test_a_collection_within_the_lock_can_end_a_turn(monkeypatch):
    turns = Turns("test", FOREVER_S)

    async def hold():
        turn = await turns.begin(is_direct=False)
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            turns.end(turn)

    def abandon():
        loop = asyncio.new_event_loop()
        task = loop.create_task(hold())
        task._log_destroy_pending = False
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
        task.add_done_callback(lambda _: task)  # as exceptions and callbacks make cycles

    let_begin = turns._let_begin
    held = []

    def collect_and_let_begin(woken):
        if not held:
            held.append(turns._begun[0])
            gc.collect()
            held.append(held[0].is_over)
        let_begin(woken)

    async def main():
        monkeypatch.setattr(turns, "_let_begin", collect_and_let_begin)
        turns.end(await turns.begin(is_direct=True))
        assert held[1]
        assert turns.is_idle

    gc.disable()  # but for the one that is asked for
    try:
        abandon()
        asyncio.run(main())
    finally:
        gc.enable()
