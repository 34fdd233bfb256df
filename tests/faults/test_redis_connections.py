"""Connections that are killed, cut, delayed and deaf, under traffic of several clients."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import subprocess
import sys
import threading
import weakref
from contextlib import AsyncExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest
from redis_layers import busy, opened
from redis_traffic import Traffic, until

from channels_layers import BackendUnavailable, ChannelFull, RedisChannelLayer


async def kill_some(server, kills):
    """Let the server end connections of any kind, one after the other."""
    dice, killed = random.Random(7), 0
    while killed < kills:
        await asyncio.sleep(0.02)
        found = [client["id"] for client in server.clients()]
        if found and server.ints("CLIENT", "KILL", "ID", dice.choice(found)):
            killed += 1


def test_killed_connections_lose_and_double_nothing(server, is_long, tell):
    kills = 500 if is_long else 60

    async def main():
        async with AsyncExitStack() as stack:
            layers = await opened(stack, server.url, 3)
            traffic = Traffic()
            await busy(layers, traffic)
            await kill_some(server, kills)
            await traffic.end()
            tell(f"{kills} kills, {traffic.count} messages, {dict(traffic.errors)}")
            assert traffic.count > kills

    asyncio.run(main())


@contextmanager
def loop_of_a_thread():
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def test_killed_connections_of_layers_that_several_loops_use(server, is_long, tell):
    """Two clients, used by three event loops each; another thread makes loop after loop."""
    kills = 500 if is_long else 60

    async def main(loops):
        async with AsyncExitStack() as stack:
            layers = await opened(stack, server.url, 2)
            traffic = Traffic()
            await busy(layers, traffic)
            for index, loop in enumerate(loops):
                here, there = layers[index], layers[1 - index]
                kind, channel = f"loop {index}", await here.new_channel()
                traffic.read(here, kind, channel, 0, loop)
                traffic.read(here, "jobs", "jobs", f"loop {index}", loop)
                for writer, other in enumerate((None, *loops)):
                    send = partial(there.send, channel)
                    traffic.write(send, kind, writer, 0.004, other)
            channel, is_over = await layers[0].new_channel(), threading.Event()
            traffic.read(layers[0], "passing", channel, 0)
            passing = asyncio.create_task(asyncio.to_thread(pass_by, layers[1], channel, is_over))
            await kill_some(server, kills)
            is_over.set()
            traffic.sent["passing", 0] = await passing
            await traffic.end()
            tell(f"{kills} kills, {traffic.count} messages, {dict(traffic.errors)}")
            assert traffic.count > kills

    def pass_by(layer, channel, is_over):
        sent = []
        while not is_over.wait(0.005):
            message = {"kind": "passing", "writer": 0, "n": len(sent)}
            asyncio.run(layer.send(channel, message))
            sent.append(len(sent))
        return sent

    with loop_of_a_thread() as first, loop_of_a_thread() as second:
        asyncio.run(main((first, second)))


def test_cut_connections_lose_and_double_nothing(proxy, is_long):
    async def main():
        async with AsyncExitStack() as stack:
            layers = await opened(stack, proxy.url, 2)
            traffic = Traffic()
            await busy(layers, traffic)
            for number in range(100 if is_long else 20):
                proxy.cut()
                before = traffic.count
                await until(lambda before=before: traffic.count > before + 20, "traffic goes on")
                if number % 10 == 5:
                    proxy.delay = lambda: random.uniform(0, 0.01)
                elif number % 10 == 9:
                    proxy.delay = lambda: 0.0
            await traffic.end()

    asyncio.run(main())


def test_a_deaf_connection_is_noticed(proxy):
    """Both sides think that the other is there; after a while another one is made."""

    async def main():
        async with AsyncExitStack() as stack:
            here, there = await opened(stack, proxy.url, 2, timeout=1)
            channel = await there.new_channel()
            reading = asyncio.create_task(there.receive(channel))
            await here.send(channel, {"n": 0})
            assert await reading == {"n": 0}
            reading = asyncio.create_task(there.receive(channel))
            proxy.be_silent()
            with pytest.raises(BackendUnavailable):
                await here.send(channel, {"n": 1})
            assert not reading.done()
            proxy.be_silent(False)

            async def send():
                while True:
                    with suppress(BackendUnavailable):
                        return await here.send(channel, {"n": 2})

            await send()
            assert await reading in ({"n": 1}, {"n": 2})

    asyncio.run(main())


def test_cancelled_calls_on_a_slow_network_lose_and_double_nothing(  # noqa: C901
    proxy, is_long
):
    """Each call is cancelled after a random time; what was done is done once, the rest never."""
    rounds = 1000 if is_long else 150
    dice = random.Random(3)
    proxy.delay = lambda: dice.uniform(0, 0.002)

    async def main():
        async with AsyncExitStack() as stack:
            here, there = await opened(stack, proxy.url, 2)
            own = await there.new_channel()
            sent, unsure, got = [], set(), []

            async def send(channel, number):
                try:
                    async with asyncio.timeout(dice.uniform(0, 0.01)):
                        await here.send(channel, {"n": number})
                    sent.append(number)
                except TimeoutError:
                    unsure.add(number)

            async def receive(channel):
                with suppress(TimeoutError):
                    async with asyncio.timeout(dice.uniform(0, 0.01)):
                        got.append((await there.receive(channel))["n"])

            for number in range(rounds):
                for channel in (own, "jobs"):
                    await asyncio.gather(send(channel, number), receive(channel))
                if number % 25 == 0:
                    proxy.cut()
                for channel in (own, "jobs"):
                    # What was cancelled never happens after the next call has returned.
                    await here.send(channel, {"n": -1})
                    while (message := await there.receive(channel))["n"] >= 0:
                        got.append(message["n"])
            for number in range(rounds):
                taken = sent.count(number)
                maybe = 2 - taken
                assert taken <= got.count(number) <= taken + maybe, number

    asyncio.run(main())


@pytest.mark.parametrize("readers", [1, 3])
def test_polling_on_a_slow_network_disturbs_no_order(proxy, is_long, readers):
    """What a receiver was given and did not take comes before all that was sent later."""
    dice = random.Random(11)
    count = 1000 if is_long else 200

    async def main():
        async with AsyncExitStack() as stack:
            here, there = await opened(stack, proxy.url, 2, expiry=3600)
            proxy.delay = lambda: dice.uniform(0, 0.003)

            async def write(channel):
                for number in range(count):
                    await here.send(channel, {"n": number})

            async def poll(channel, got):
                while len(got) < count:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(dice.uniform(0, 0.02)):
                            got.append((await there.receive(channel))["n"])

            names = ["jobs", "http.body?a1b2"]
            if readers == 1:  # each of several first asks who owns it, and has its message then
                names.append("specific.nobody!x")
            orders = {name: [] for name in names}
            async with asyncio.timeout(600), asyncio.TaskGroup() as tasks:
                for name, got in orders.items():
                    tasks.create_task(write(name))
                    for _ in range(readers):
                        tasks.create_task(poll(name, got))
            assert all(got == list(range(count)) for got in orders.values()), orders

    asyncio.run(main())


def test_at_most_two_connections_for_a_shard_and_one_more(server):
    """Whatever the number of receivers, event loops and threads."""
    layer = RedisChannelLayer(server.url, "test", capacity=1000)

    async def main():
        async with layer:
            channels = [await layer.new_channel() for _ in range(100)]
            reading = [asyncio.create_task(layer.receive(c)) for c in (*channels, *["jobs"] * 50)]

            def call(number):
                async def send():
                    await layer.send(channels[number], {"n": number})

                asyncio.run(send())

            threads = [threading.Thread(target=call, args=(number,)) for number in range(20)]
            for thread in threads:
                thread.start()
            await until(lambda: not any(thread.is_alive() for thread in threads), "they end")
            assert [(await task)["n"] for task in reading[:20]] == list(range(20))
            assert len(server.clients()) <= 3
            for task in reading[20:]:
                task.cancel()

    asyncio.run(main())
    assert server.clients() == []


def test_a_flood_is_bounded(server):
    """The reader is paused: as many as the capacity are kept, the others are refused."""

    async def main():
        async with (
            RedisChannelLayer(server.url, "t") as here,
            RedisChannelLayer(server.url, "t") as there,
        ):
            channel = await there.new_channel()
            refused = 0
            for number in range(1000):
                try:
                    await here.send(channel, {"n": number, "pad": "x" * 1000})
                except ChannelFull:
                    refused += 1
            assert refused == 900
            got = [(await there.receive(channel))["n"] for _ in range(100)]
            assert got == list(range(100))

    asyncio.run(main())


TAKES_STEPS = """
def steps(count):
    for _ in range(count):
        loop.run_until_complete(asyncio.sleep(0))
"""
ENDS = {
    "with the portal": "asyncio.run(layer.send('jobs', {}))",
    "with the portal, while the reader connects": (
        "asyncio.run(layer.send('jobs', {})); os.kill(server, signal.SIGSTOP)"
    ),
    "in a thread": (
        "t = threading.Thread(target=lambda: asyncio.run(layer.send('jobs', {})));"
        " t.start(); t.join()"
    ),
    "with a loop that is thrown away while the reader connects": (
        "loop.run_until_complete(layer.open()); os.kill(server, signal.SIGSTOP); steps(100);"
        " loop.close(); del loop; gc.collect()"
    ),
    "with a loop that is thrown away while it waits": (
        "loop.run_until_complete(layer.open()); steps(1000); loop.close(); del loop; gc.collect()"
    ),
    "with a loop that is no more, after the portal has taken over": (
        "loop.run_until_complete(layer.open()); steps(1000);"
        " asyncio.run(layer.send('jobs', {})); loop.close()"
    ),
}


@pytest.mark.parametrize("end", ENDS)
def test_a_program_that_never_closes_ends_silently(server, end):
    needed = "loop = asyncio.new_event_loop()\n" if "loop" in ENDS[end] else ""
    program = (
        "import asyncio, gc, os, signal, sys, threading\n"
        "from channels_layers import RedisChannelLayer\n"
        f"{TAKES_STEPS}\n"
        "server = int(sys.argv[2]); layer = RedisChannelLayer(sys.argv[1], 'test')\n"
        f"{needed}{ENDS[end]}"
    )
    try:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", program, server.url, str(server.pid)],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    finally:
        server.go_on()
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_nothing_is_kept_for_loops_that_were_closed_without_cancelling(server):
    layer = RedisChannelLayer(server.url, "test")
    loops = []
    for number in range(6):
        loop = asyncio.new_event_loop()
        loop.run_until_complete(layer.open())
        loop.run_until_complete(layer.send("jobs", {"n": number}))
        assert loop.run_until_complete(layer.receive("jobs")) == {"n": number}
        loop.close()
        loops.append(weakref.ref(loop))
        del loop
    gc.collect()
    assert sum(loop() is not None for loop in loops) <= 2
    asyncio.run(layer.close())
    gc.collect()
    assert not any(loop() for loop in loops)
    assert server.clients() == []


def test_the_sockets_of_a_loop_that_pauses_are_its_own_until_it_runs_again(server):
    """Else the next connections of the application would get their numbers, and be deaf."""
    layer = RedisChannelLayer(server.url, "test")
    loop = asyncio.new_event_loop()

    async def connect():
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"PING\r\n")
        async with asyncio.timeout(30):
            assert await reader.readline() == b"+PONG\r\n"
        return writer

    async def use():
        writers = [await connect() for _ in range(4)]
        for writer in writers:
            writer.close()
            await writer.wait_closed()

    loop.run_until_complete(layer.open())
    channel = loop.run_until_complete(layer.new_channel())
    loop.run_until_complete(layer.send(channel, {}))
    asyncio.run(layer.send("jobs", {}))  # elsewhere meanwhile
    loop.run_until_complete(use())
    assert loop.run_until_complete(layer.receive("jobs")) == {}
    loop.run_until_complete(layer.close())
    loop.close()
