"""Numbers of another client's channel: refused by others, asked for by many, and in hard times."""

from __future__ import annotations

import asyncio
import pickle
import time
from contextlib import suppress

import pytest
from test_ipc_groups import SMALL
from test_ipc_groups import fill as fill_ring
from test_ipc_stops import TIMEOUT, Ticks, hold, read

from channels_layers import IPCChannelLayer
from channels_layers.errors import BackendTimeout, ChannelFull, LayerClosed
from channels_layers.ipc import _layout, _numbers, _questions
from channels_layers.ipc._errors import Unanswered

MANY = 1500  # channels, more than the smallest table holds


def questions_of(layer):
    return layer._backend._attached.questions


def client_in(channel):
    return channel.partition(".")[2].partition("!")[0]


async def refused(layer, channel, count=1):
    for _ in range(count):
        with pytest.raises(ChannelFull):
            await layer.send(channel, {"n": 0})


async def full_count(layer, channel):
    return (await layer.channel_statistics(channel))["channel_full_count"]


def test_refused_messages_outlast_every_new_table(prefix):
    async def main():
        options = {"capacity": 1, "message_memory": SMALL}
        here, there = (IPCChannelLayer(prefix.name, **options) for _ in range(2))
        async with here, there:
            channels = [await there.new_channel() for _ in range(MANY)]
            for channel in channels:
                while True:
                    with suppress(ChannelFull):
                        await here.send(channel, {"n": 0})
                        break
                    await asyncio.sleep(0.001)  # the ring is full
            before = [await full_count(there, channel) for channel in channels]
            total = (await here.statistics())["channel_full_count"]
            for round_ in (1, 2):
                for channel in channels:
                    await refused(here, channel)
                for channel in channels[::2]:  # makes the table anew
                    await there.receive(channel)
                    await here.send(channel, {"n": 0})
                counts = [await full_count(there, channel) for channel in channels]
                assert counts == [count + round_ for count in before]
            assert await full_count(here, channels[-1]) == before[-1] + 2
            assert (await here.statistics())["channel_full_count"] == total + 2 * MANY

    asyncio.run(main())


def test_channels_that_share_a_capacity_have_each_their_own_count(prefix):
    async def main():
        options = {"capacity": 1, "capacity_scope": "process"}
        here, there = (IPCChannelLayer(prefix.name, **options) for _ in range(2))
        async with here, there:
            one, other = [await there.new_channel() for _ in range(2)]
            await here.send(one, {"n": 0})
            await refused(here, one, 1)
            await refused(here, other, 2)
            assert [await full_count(there, name) for name in (one, other)] == [1, 2]

    asyncio.run(main())


def test_a_channel_that_ended_begins_at_nothing(prefix):
    async def main():
        options = {"capacity": 1, "idle": 0.3}
        here, there = (IPCChannelLayer(prefix.name, **options) for _ in range(2))
        async with here, there:
            channel, other = [await there.new_channel() for _ in range(2)]
            for name in (channel, other):
                await here.send(name, {"n": 0})
                await refused(here, name, 2)
            await there.receive(channel)
            assert await full_count(there, channel) == 2
            for _ in range(100):
                await asyncio.sleep(0.1)
                await there.statistics()  # looks at what is idle
                if not await full_count(there, channel):
                    break
            assert await full_count(there, channel) == 0
            assert await full_count(there, other) == 2  # its message waits
            await here.send(channel, {"n": 0})
            await refused(here, channel)
            assert await full_count(here, channel) == 1

    asyncio.run(main())


@pytest.mark.parametrize("is_full", [False, True])
def test_a_client_that_does_not_answer_is_named(processes, prefix, is_full):
    reader = processes.start(read, prefix.name, "", 1)
    channel = reader.told()
    reader.stop()

    async def main():
        async with IPCChannelLayer(prefix.name, message_memory=SMALL, capacity=10**6) as layer:
            if is_full:
                await fill_ring(layer, channel)
            async with Ticks() as ticks:
                with pytest.raises(BackendTimeout) as caught:
                    await layer.channel_statistics(channel)
            assert ticks.count > 50
            for text in (client_in(channel), f"process {reader.pid}", repr(channel)):
                assert text in str(caught.value)
            assert ("full" in str(caught.value)) is is_full
            again = pickle.loads(pickle.dumps(caught.value))
            assert (str(again), again.pid) == (str(caught.value), reader.pid)
            assert questions_of(layer)._waiting == {}
            reader.go_on()
            numbers = await layer.channel_statistics(channel)
            assert (numbers["messages_count"] > 0) is is_full
            if not is_full:
                await layer.send(channel, {"n": 1})
            reader.kill()

    asyncio.run(main())


@pytest.mark.parametrize("seconds", [5, TIMEOUT])
def test_a_client_whose_inbox_is_held_is_named_and_answers_later(processes, prefix, seconds):
    reader = processes.start(read, prefix.name, "", 1)
    channel = reader.told()
    holder = processes.start(hold, prefix.name, "inbox", channel)
    holder.told()

    async def main():
        async with IPCChannelLayer(prefix.name, timeout=seconds) as layer:
            assert await full_count(layer, channel) == 0
            holder.say("hold")
            holder.await_stop()
            with pytest.raises(Unanswered, match=f"process {reader.pid}.*held"):
                await layer.channel_statistics(channel)
            holder.go_on()
            assert holder.told() == "released"
            assert await full_count(layer, channel) == 0
            await layer.send(channel, {"n": 1})
            reader.say()
            assert reader.told() == [1]

    asyncio.run(main())
    assert reader.ended() == 0
    holder.say("end")
    assert holder.ended() == 0


def test_an_answer_that_finds_no_room_comes_later_and_costs_no_message(prefix, monkeypatch):
    async def main():
        async with IPCChannelLayer(prefix.name) as here, IPCChannelLayer(prefix.name) as there:
            channel = await there.new_channel()
            await here.send(channel, {"n": 0})
            assert await there.receive(channel) == {"n": 0}
            place = there._backend._attached.place
            inbox = place.peer(here._backend._attached.row.id).inbox
            push, tries = inbox.push, []

            def full_at_first(*record):
                tries.append(record)
                return len(tries) > 2 and push(*record)

            monkeypatch.setattr(inbox, "push", full_at_first)
            asked = asyncio.create_task(here.channel_statistics(channel))
            await asyncio.sleep(0)
            for n in range(20):
                await here.send(channel, {"n": n})
            assert [(await there.receive(channel))["n"] for _ in range(20)] == list(range(20))
            assert (await asked)["messages_count"] >= 1
            assert len(tries) > 2
            monkeypatch.undo()

    asyncio.run(main())


def test_closing_ends_every_question_at_once(processes, prefix):
    reader = processes.start(read, prefix.name, "", 1)
    channel = reader.told()
    reader.stop()

    async def main():
        layer = IPCChannelLayer(prefix.name)
        await layer.open()
        asked = [asyncio.create_task(layer.channel_statistics(channel)) for _ in range(5)]
        await asyncio.sleep(0.05)
        began = time.monotonic()
        await layer.close()
        found = await asyncio.gather(*asked, return_exceptions=True)
        assert [type(error) for error in found] == [LayerClosed] * 5
        assert time.monotonic() - began < 0.7

    asyncio.run(main())
    reader.kill()
    asyncio.run(sweep(prefix))


async def sweep(prefix):
    async with IPCChannelLayer(prefix.name):
        pass


def test_a_client_that_is_gone_before_it_answers_owns_nothing(processes, prefix):
    reader = processes.start(read, prefix.name, "", 1)
    channel = reader.told()

    async def main():
        async with IPCChannelLayer(prefix.name) as layer:
            await layer.send(channel, {"n": 1})
            reader.stop()
            asked = asyncio.create_task(layer.channel_statistics(channel))
            await asyncio.sleep(0.05)
            reader.kill()
            assert (await asked)["messages_count"] == 0

    asyncio.run(main())


def test_questions_that_were_given_up_are_forgotten_and_their_answers_hurt_nobody(prefix):
    async def main():
        async with IPCChannelLayer(prefix.name) as here, IPCChannelLayer(prefix.name) as there:
            channels = [await there.new_channel() for _ in range(3)]
            for _ in range(100):
                task = asyncio.create_task(here.channel_statistics(channels[0]))
                await asyncio.sleep(0)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            assert questions_of(here)._waiting == {}
            for n, channel in enumerate(channels):
                for _ in range(n):
                    await here.send(channel, {})
                assert (await here.channel_statistics(channel))["messages_count"] == n

    asyncio.run(main())


def test_questions_are_bounded(prefix, monkeypatch):
    monkeypatch.setattr(_questions, "_MOST", 3)

    async def main():
        async with IPCChannelLayer(prefix.name) as here, IPCChannelLayer(prefix.name) as there:
            channel = await there.new_channel()
            asked = [here.channel_statistics(channel) for _ in range(5)]
            found = await asyncio.gather(*asked, return_exceptions=True)
            errors = [str(error) for error in found if isinstance(error, Exception)]
            assert len(errors) == 2
            assert "3 questions wait already" in errors[0]
            assert await full_count(here, channel) == 0

    asyncio.run(main())


def test_records_that_make_no_sense_are_let_go_of(prefix):
    async def main():
        async with IPCChannelLayer(prefix.name) as layer:
            questions = questions_of(layer)
            questions._waiting[7] = _questions._Question()
            for kind in (_questions.QUESTION, _questions.ANSWER):
                for payload in (b"", b"short", bytes(8), bytes(7) + b"\xff" * 30):
                    questions.hear(kind, "a", payload)
            number = (7).to_bytes(8, "little")
            for answer in (b"", b"\xc1", b"\x80", b"\x01"):
                questions.hear(_questions.ANSWER, "a", number + answer)
            assert questions._waiting.pop(7).answer is None

    asyncio.run(main())


async def tell_numbers(report, prefix, groups):
    """Tell the names of one channel for each number of groups that it joins, then their drops."""
    layer = IPCChannelLayer(prefix, message_memory=SMALL, capacity=10**6)
    channels = [await layer.new_channel() for _ in groups]
    for channel, count in zip(channels, groups, strict=True):
        for n in range(count):
            await layer.group_add(f"g{n}", channel)
    report.tell(channels)
    await report.heard()
    await layer.close()


def test_copies_that_found_no_room_are_counted_for_each_member(processes, prefix):
    member = processes.start(tell_numbers, prefix.name, [0, 1, 1, 2])
    channels = member.told()
    member.stop()

    async def main():
        async with IPCChannelLayer(prefix.name, message_memory=SMALL, capacity=10**6) as layer:
            await fill_ring(layer, channels[0])
            before = (await layer.statistics())["dropped_count"]["full"]
            for group in ("g0", "g1", "g1", "g2"):
                await layer.group_send(group, {"pad": "x" * 1000})
            after = (await layer.statistics())["dropped_count"]["full"]
            assert after - before == 3  # one for each copy that was to go there
            member.go_on()
            for _ in range(200):
                await asyncio.sleep(0.01)
                numbers = [await layer.channel_statistics(channel) for channel in channels]
                dropped = [one["dropped_count"]["full"] for one in numbers]
                if dropped == [0, 1, 1, 3]:
                    break
            assert dropped == [0, 1, 1, 3]
            assert (await layer.statistics())["dropped_count"]["full"] == after
            member.say()

    asyncio.run(main())
    assert member.ended() == 0


async def count_three(report, prefix):
    async with IPCChannelLayer(prefix) as layer:
        channel = await layer.new_channel()
        for n in range(3):
            await layer.send(channel, {"n": n})
            await layer.receive(channel)
        report.tell(channel)
        await report.heard()


def test_what_a_killed_client_has_counted_stays(processes, prefix):
    counting = processes.start(count_three, prefix.name)
    inbox = prefix.folder / f"inbox-{client_in(counting.told())}"

    async def main():
        async with IPCChannelLayer(prefix.name) as layer:
            while (await layer.statistics())["messages_count"] != 3:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            counting.kill()
            while inbox.exists():
                assert (await layer.statistics())["messages_count"] == 3
            assert (await layer.statistics())["messages_count"] == 3

    asyncio.run(main())


def test_who_died_and_was_never_written_to_counts_before_it_is_cleared_up_after(
    processes, prefix, monkeypatch
):
    counting = processes.start(count_three, prefix.name)
    client = client_in(counting.told())

    async def main():
        async with IPCChannelLayer(prefix.name) as layer:
            while (await layer.statistics())["messages_count"] != 3:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        async with IPCChannelLayer(prefix.name) as layer:
            place = layer._backend._attached.place
            monkeypatch.setattr(place, "sweep", lambda seconds: [])
            assert client not in place._peers
            counting.kill()
            assert (await layer.statistics())["messages_count"] == 3
            assert (prefix.folder / f"inbox-{client}").exists()

    asyncio.run(main())


def test_who_is_stopped_while_it_writes_its_numbers_is_not_left_out(prefix, monkeypatch):
    async def main():
        async with IPCChannelLayer(prefix.name) as here, IPCChannelLayer(prefix.name) as there:
            channel = await there.new_channel()
            await there.send(channel, {})
            await there.receive(channel)
            attached = there._backend._attached
            while (await here.statistics())["messages_count"] != 1:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            monkeypatch.setattr(_numbers, "publish", lambda *numbers: None)
            _numbers._begin(attached.own.segment.view, _layout.NUMBERS_OFFSET)
            assert (await here.statistics())["messages_count"] == 1

    asyncio.run(main())
