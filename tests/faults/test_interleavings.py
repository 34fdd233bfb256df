"""Random programs for several threads, switched at random moments: the same for each seed."""

from __future__ import annotations

import random
from functools import partial

import pytest
from interleaving import Loop, Threads, locks_that_take_turns, settle, switching

ChannelLayer = switching(".layer").ChannelLayer
LayerOptions = switching(".options").LayerOptions
ChannelFull = switching(".errors").ChannelFull
LayerClosed = switching(".errors").LayerClosed

CHANNELS = ("jobs", "specific.other!x", "specific.other!y")
LINES = (*CHANNELS, "specific.other!")

ALL_KINDS = ("send", "receive", "receive_from", "cancel", "flush")

PROGRAMS = 300  # of each kind
PROGRAMS_PER_TEST = 50


class Program:
    """A few calls for each of several threads, on one layer, and what must hold in the end."""

    def __init__(self, seed, threads=2, calls=4, kinds=None, **options):
        self.dice = random.Random(seed)
        self.now = 1000.0
        self.kinds = kinds or ("send", "receive", "cancel")
        self.threads = Threads(self._should_switch)
        with locks_that_take_turns():
            self.layer = ChannelLayer(LayerOptions(**options), clock=lambda: self.now)
        self.loops = [Loop() for _ in range(threads)]
        self.readers = [[] for _ in self.loops]  # (line, task)
        self.accepted = []
        self.numbers = iter(range(10**6))
        self.haste = self.dice.choice((0.02, 0.1, 0.3))
        self.log = []
        self.plans = [[self._plan() for _ in range(calls)] for _ in self.loops]
        self.prelude = [self._plan() for _ in range(self.dice.randrange(5))]

    def _should_switch(self, number, points):
        return self.dice.random() < self.haste

    def _plan(self):
        kind = self.dice.choice(self.kinds)
        return kind, self.dice.choice(LINES if kind.startswith("receive") else CHANNELS)

    def run(self):
        for plan in self.prelude:
            self._do(0, plan)
        self.threads.run(*(partial(self._run_plans, number) for number in range(len(self.loops))))
        settle(self.loops)

    def _run_plans(self, number):
        for plan in self.plans[number]:
            self.log.append((number, *plan))
            self._do(number, plan)
            if self.dice.random() < 0.5:
                self.loops[number].run_ready()

    def _do(self, number, plan):
        kind, name = plan
        getattr(self, f"_{kind}")(number, name)

    def _send(self, number, name):
        message = {"to": name, "by": number, "n": next(self.numbers)}
        try:
            self.loops[number].result(self.layer.send(name, message))
        except ChannelFull:
            return
        self.accepted.append(message)

    def _group_send(self, number, _):
        self.loops[number].result(self.layer.group_send("group", {"by": number, "n": 0}))

    def _receive(self, number, name):
        self.readers[number].append(((name,), self.loops[number].start(self.layer.receive(name))))

    def _receive_from(self, number, name):
        names = (name, self.dice.choice(LINES))
        call = self.layer.receive_from(names)
        self.readers[number].append((names, self.loops[number].start(call)))

    def _cancel(self, number, _):
        waiting = [task for _, task in self.readers[number] if not task.done()]
        if waiting:
            self.dice.choice(waiting).cancel()

    def _flush(self, number, _):
        self.loops[number].result(self.layer.flush())

    def _close(self, number, _):
        self.loops[number].result(self.layer.close())

    # What must hold

    def received(self):
        got = []
        for readers in self.readers:
            for _, task in readers:
                if task.done() and not task.cancelled():
                    if isinstance(task.exception(), LayerClosed):
                        continue
                    message = task.result()
                    got.append(message if isinstance(message, dict) else message[1])
        return got

    def waiting(self):
        return [names for readers in self.readers for names, task in readers if not task.done()]

    def unread(self):
        """Take what is left, once nobody waits any more."""
        for readers in self.readers:
            for _, task in readers:
                task.cancel()
        settle(self.loops)
        loop, left = Loop(), []
        for name in CHANNELS:
            while True:
                task = loop.start(self.layer.receive(name))
                if not task.done():
                    task.cancel()
                    loop.run_ready()
                    break
                left.append(task.result())
        return left

    def statistics(self):
        return Loop().result(self.layer.statistics())


def key(message):
    return message["n"]


def covers(names, channel):
    return channel in names or ("!" in channel and channel.partition("!")[0] + "!" in names)


def check(program):
    """Hold a program to its end: each message was received once, or waits where nobody does."""
    received, waiting = program.received(), program.waiting()
    left = program.unread()
    got = sorted(map(key, received + left))
    assert got == sorted(map(key, program.accepted)), "each message that was taken, once"
    for message in left:
        assert not any(covers(names, message["to"]) for names in waiting), (
            f"{message} is there, and {waiting} wait"
        )
    statistics = program.statistics()
    assert statistics["messages_pending"] == 0
    assert statistics["messages_count"] == len(program.accepted)


@pytest.mark.parametrize("threads", [2, 3])
@pytest.mark.parametrize(
    "kinds",
    [
        ("send", "receive"),
        ("send", "receive", "cancel"),
        ("send", "receive", "receive_from", "cancel"),
    ],
    ids="-".join,
)
@pytest.mark.parametrize("seed", range(0, PROGRAMS, PROGRAMS_PER_TEST))
def test_no_interleaving_of_threads_loses_or_doubles_a_message(seed, kinds, threads):
    for each in range(seed, seed + PROGRAMS_PER_TEST):
        program = Program(each, threads=threads, kinds=kinds)
        program.run()
        check(program)


def test_at_no_moment_of_a_receive_that_pauses_may_a_cancelled_one_take_its_message():
    moment, last = 0, 1
    while moment <= last:
        moment += 1
        last = receive_while_another_comes_and_goes(moment)


def receive_while_another_comes_and_goes(moment):
    """Let another thread receive and give up at a moment; return how many moments there are."""
    threads = Threads(lambda number, points: (number, points) == (0, moment))
    with locks_that_take_turns():
        layer = ChannelLayer(LayerOptions())
    here, there = Loop(), Loop()
    here.result(layer.send("jobs", {"n": 1}))
    here.start(layer.receive("jobs"))
    here.result(layer.send("jobs", {"n": 2}))
    layer._exchange.served = 64  # one receive in so many lets the loop come round first
    tasks = []

    def receive():
        tasks.append(here.start(layer.receive("jobs")))

    def come_and_go():
        tasks.append(there.start(layer.receive("jobs")))
        tasks[-1].cancel()
        there.run_ready()

    points = threads.run(receive, come_and_go)
    settle([here, there])
    got = [task.result() for task in tasks if task.done() and not task.cancelled()]
    assert got == [{"n": 2}], f"moment {moment}"
    return points[0]


@pytest.mark.parametrize("kinds", [("send", "receive", "flush"), ALL_KINDS], ids="-".join)
@pytest.mark.parametrize("seed", range(0, PROGRAMS, PROGRAMS_PER_TEST))
def test_no_interleaving_with_a_flush_leaves_a_receiver_deaf(seed, kinds):
    for each in range(seed, seed + PROGRAMS_PER_TEST):
        program = Program(each, kinds=kinds)
        program.run()
        check_nobody_is_deaf(program)


def check_nobody_is_deaf(program):
    """Hold a program with flushes to its end: each further message serves one who waits."""
    waiting = program.waiting()
    for name, mailbox in program.layer._exchange.by_name.items():
        assert not mailbox.unread or not any(covers(names, name) for names in waiting), name
    while waiting:
        name = waiting[0][0]
        channel = f"{name}x" if name.endswith("!") else name
        program._send(0, channel)
        settle(program.loops)
        served, waiting = len(waiting), program.waiting()
        assert len(waiting) == served - 1, f"nobody hears a message for {channel}"
    got = sorted(map(key, program.received() + program.unread()))
    assert got == sorted(set(got)), "each message once"
    assert set(got) <= set(map(key, program.accepted))
    assert program.statistics()["messages_pending"] == 0
