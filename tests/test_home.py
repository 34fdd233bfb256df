"""Where the coroutines of a backend with a home run, whoever calls, and what ends a home."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from contextlib import suppress
from functools import partial
from pathlib import Path

import anyio
import pytest
import trio

from channels_layers import BackendTimeout, ChannelLayer, LayerClosed, UnsupportedByBackend
from channels_layers._home import Home
from channels_layers.options import LayerOptions

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

from custom_layer import Switchboard, SwitchboardBackend

PORTAL = "channels-layers-portal"


class HomeBackend(SwitchboardBackend):
    """A backend that remembers in which loops and threads it was opened and called."""

    has_home = True

    def __init__(self, board, options):
        super().__init__(board, options)
        self.opened = []
        self.called = []
        self.stalled = None  # an event that a send waits for
        self.cancelled = 0
        self.heard_of_cancellation = asyncio.Event()

    async def open(self, client):
        self.opened.append((asyncio.get_running_loop(), threading.current_thread().name))
        await asyncio.sleep(0)
        await super().open(client)

    async def send(self, channel, payload, capacity):
        self.called.append((asyncio.get_running_loop(), threading.current_thread().name))
        if self.stalled is not None:
            try:
                await self.stalled.wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                self.heard_of_cancellation.set()
                raise
        await super().send(channel, payload, capacity)


def make_layer(**options):
    checked = LayerOptions(**options)
    backend = HomeBackend(Switchboard(), checked)
    return ChannelLayer(checked, backend), backend


def test_plain_threads_share_the_portal_and_open_once():
    layer, backend = make_layer()

    def work():
        for number in range(10):
            asyncio.run(layer.send("jobs", {"n": number}))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(backend.called) == 80
    assert {name for _, name in backend.called} == {PORTAL}
    assert len(backend.opened) == 1


def test_a_loop_that_stays_becomes_the_home_and_serves_the_others():
    layer, backend = make_layer()

    async def main():
        async with layer:
            home = asyncio.get_running_loop()
            await layer.send("jobs", {"n": 1})
            await asyncio.to_thread(asyncio.run, layer.send("jobs", {"n": 2}))
            await asyncio.to_thread(trio.run, layer.send, "jobs", {"n": 3})
            assert {loop for loop, _ in backend.called} == {home}
            return [(await layer.receive("jobs"))["n"] for _ in range(3)]

    assert asyncio.run(main()) == [1, 2, 3]
    assert len(backend.opened) == 1


def test_a_waiting_receiver_makes_its_loop_the_home():
    layer, backend = make_layer()

    async def main():
        async with asyncio.TaskGroup() as tasks:
            receiving = tasks.create_task(layer.receive("jobs"))
            await anyio.wait_all_tasks_blocked()
            await layer.send("jobs", {})
        assert receiving.result() == {}
        assert [loop for loop, _ in backend.opened] == [asyncio.get_running_loop()]
        await layer.close()

    asyncio.run(main())


@pytest.mark.parametrize("ending", ["run", "stop"])
def test_when_a_home_ends_the_next_caller_opens_anew(ending):
    layer, backend = make_layer()
    if ending == "run":
        asyncio.run(layer.open())
    else:
        loop = asyncio.new_event_loop()
        loop.run_until_complete(layer.open())
    asyncio.run(layer.send("jobs", {}))
    assert len(backend.opened) == 2
    assert backend.called[0][1] == PORTAL
    if ending == "stop":
        loop.close()


def test_trio_reaches_a_backend_with_a_home_through_the_portal():
    layer, backend = make_layer()

    async def main():
        await layer.send("jobs", {"n": 1})
        assert await layer.receive("jobs") == {"n": 1}
        await layer.close()

    trio.run(main)
    assert {name for _, name in backend.opened} == {PORTAL}


def test_a_stalled_backend_is_a_timeout_and_the_layer_comes_back():
    layer, backend = make_layer(timeout=0.05)

    async def main():
        async with layer:
            backend.stalled = asyncio.Event()
            with pytest.raises(BackendTimeout):
                await layer.send("jobs", {"n": 1})
            backend.stalled.set()
            await layer.send("jobs", {"n": 2})
            return await layer.receive("jobs")

    assert asyncio.run(main()) == {"n": 2}


def test_cancelling_a_carried_call_cancels_it_in_the_home():
    layer, backend = make_layer()

    async def main():
        async with layer:
            backend.stalled = asyncio.Event()

            async def give_up():
                with anyio.move_on_after(0.05):
                    await layer.send("jobs", {})

            await asyncio.to_thread(asyncio.run, give_up())
            with anyio.fail_after(5):
                await backend.heard_of_cancellation.wait()

    asyncio.run(main())
    assert backend.cancelled == 1


def test_what_is_called_later_does_not_overtake_calls_on_their_way_to_the_home():
    """While they are, the home does not count as open, so that later ones go the same way."""

    async def nothing():
        pass

    async def main():
        home = Home(nothing, lambda: None, is_fixed=True)
        await home.run(nothing)
        loop, is_blocked, may_go_on = home._loop, threading.Event(), threading.Event()
        loop.call_soon_threadsafe(lambda: (is_blocked.set(), may_go_on.wait()))
        is_blocked.wait()
        was_open = home.is_open
        call = asyncio.create_task(home.run(nothing))
        await asyncio.sleep(0)
        is_open = home.is_open
        may_go_on.set()
        await call
        assert (was_open, is_open, home.is_open) == (True, False, True)
        await home.close(nothing)

    asyncio.run(main())


def test_a_failed_opening_is_tried_again():
    layer, backend = make_layer()
    opened = backend.open
    failures = [OSError("no route")]

    async def open_later(client):
        if failures:
            raise failures.pop()
        await opened(client)

    backend.open = open_later

    async def main():
        with pytest.raises(OSError, match="no route"):
            await layer.open()
        await layer.open()
        await layer.close()

    asyncio.run(main())
    assert len(backend.opened) == 1


def test_a_forked_child_has_a_portal_of_its_own():
    layer, _ = make_layer()
    asyncio.run(layer.send("jobs", {"n": 1}))
    child = os.fork()
    if not child:
        status = 1
        try:
            asyncio.run(layer.send("jobs", {"n": 2}))
            assert asyncio.run(layer.receive("jobs")) == {"n": 2}
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    assert asyncio.run(layer.receive("jobs")) == {"n": 1}


def portals():
    return [thread for thread in threading.enumerate() if thread.name == PORTAL]


def test_the_portal_ends_with_the_last_layer_that_needs_it():
    before = portals()
    first, second = make_layer()[0], make_layer()[0]
    for layer in (first, second):
        asyncio.run(layer.send("jobs", {}))
    asyncio.run(first.close())
    assert portals()
    asyncio.run(second.send("jobs", {}))
    asyncio.run(second.close())
    assert portals() == before
    asyncio.run(second.send("jobs", {}))  # opens again
    asyncio.run(second.close())
    assert portals() == before


def test_calls_that_meet_the_end_of_the_portal_go_on():
    layer, _ = make_layer(timeout=30)
    before, errors = portals(), []

    def work(call):
        try:
            for _ in range(50):
                with suppress(LayerClosed):  # it closes at this moment
                    asyncio.run(call())
        except BaseException as exc:
            errors.append(exc)
            raise

    send = partial(layer.send, "jobs", {})
    threads = [threading.Thread(target=work, args=(call,)) for call in (send, send, layer.close)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not errors
    asyncio.run(layer.close())
    assert portals() == before


def test_a_program_that_used_the_portal_ends_silently():
    program = "import asyncio, test_home; asyncio.run(test_home.make_layer()[0].send('jobs', {}))"
    done = subprocess.run(
        # Not -X dev: it also makes asyncio complain of a machine that was slow for 0.1 s.
        [sys.executable, "-W", "error", "-c", program],
        cwd=Path(__file__).parent,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_an_option_that_no_backend_serves_yet_is_refused():
    with pytest.raises(UnsupportedByBackend, match="on_gap"):
        make_layer(on_gap="gap")
