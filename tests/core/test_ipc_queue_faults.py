"""Queues in shared memory whose users are killed at any instruction, or which are damaged."""

from __future__ import annotations

import random
import sys
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from segments import drained, memory, no_limit, push, room

from channels_layers.errors import ChannelFull
from channels_layers.ipc import _blocks, _entries, _queues
from channels_layers.ipc._queue_layout import (
    ALLOCATED_LONG,
    BLOCK_BYTES,
    BLOCK_BYTES_WORD,
    DIRTY_WORD,
    FIRST_BLOCK,
    GROWTH_BLOCKS,
    SIZE_WORD,
    VERSION,
    VERSION_WORD,
    CorruptSegment,
    IncompatibleSegment,
)
from channels_layers.ipc._queues import QueueSegment

CHANNELS = ("jobs", "s.D!a", "s.D!b", "new", "s.E!n")
POOL = 40


class Killed(BaseException):
    """The process is gone."""


class Fate:
    """How many more writes a process lives to make."""

    def __init__(self, writes):
        self.left = writes

    def write(self):
        self.left -= 1
        if self.left < 0:
            raise Killed


class Cells:
    """A view of numbers whose user may be killed before each store."""

    def __init__(self, cells, fate):
        self.cells = cells
        self.fate = fate
        self.cast = lambda kind: Cells(cells.cast(kind), fate)

    def __len__(self):
        return len(self.cells)

    def __getitem__(self, index):
        found = self.cells[index]
        return Cells(found, self.fate) if isinstance(index, slice) else found

    def __setitem__(self, index, value):
        self.fate.write()
        self.cells[index] = value


class SlowStruct:
    """A Struct whose user may be killed before a write, and when it has cleared the place."""

    def __init__(self, struct):
        self.struct = struct
        self.size = struct.size

    def unpack_from(self, view, offset):
        return self.struct.unpack_from(getattr(view, "cells", view), offset)

    def pack_into(self, view, offset, *values):
        if isinstance(view, Cells):
            view[offset : offset + self.size] = bytes(self.size)
            view.fate.write()
            view = view.cells
        self.struct.pack_into(view, offset, *values)


@pytest.fixture
def _slow_structs(monkeypatch):
    for module in (_blocks, _entries, _queues):
        for struct in {"ENTRY", "NODE", "MORE"} & set(vars(module)):
            monkeypatch.setattr(module, struct, SlowStruct(getattr(module, struct)))


def lived_in():
    """Return a segment with messages of one and several blocks, some of which have expired."""
    view = memory(POOL)
    queues = QueueSegment(view, no_limit)
    for number, channel in enumerate(["jobs", "s.D!a", "s.D!b", "jobs", "s.D!a", "s.D!b"]):
        size = 600 if number in (1, 3) else 20
        push(queues, channel, (b"%d." % number).ljust(size, b"."), kind=number % 2)
    push(queues, "jobs", b"soon", expires_at=1.0)
    push(queues, "s.D!a", b"soon", expires_at=1.0)
    push(queues, "jobs", b"last")
    queues.wait("s.D!", 200)
    return view


def contents(view):
    """Return what a process that attaches finds, and let it check that no block is lost."""
    queues = QueueSegment(view, no_limit)
    assert queues.unwait("s.D!", 200) == -1
    queues.forget_client(1)
    assert queues.statistics(2.0)["messages_pending"] == sum(
        numbers["messages_pending"] for numbers in queues.channels(2.0).values()
    )
    found = {channel: drained(queues, channel, 2.0) for channel in CHANNELS}
    assert queues.take("s.D!", 2.0) is None
    assert queues.is_empty(2.0)
    assert room(queues) == POOL - 1
    assert drained(queues, "room") == []
    return found


FULL = {
    "jobs": [b"0.".ljust(20, b"."), b"3.".ljust(600, b"."), b"last"],
    "s.D!a": [b"1.".ljust(600, b"."), b"4.".ljust(20, b".")],
    "s.D!b": [b"2.".ljust(20, b"."), b"5.".ljust(20, b".")],
    "new": [],
    "s.E!n": [],
}
LETTERS = [(b"h" * 700, 60.0, 0), (b"i", 60.0, 1)]


OPERATIONS = {
    "push": lambda q: push(q, "jobs", b"pushed", now=0.5),
    "push_long": lambda q: push(q, "jobs", b"p" * 1500),
    "push_member": lambda q: push(q, "s.D!a", b"pushed"),
    "push_new": lambda q: push(q, "new", b"pushed"),
    "push_new_member": lambda q: push(q, "s.E!n", b"pushed"),
    "push_full": lambda q: push(q, "jobs", b"pushed", now=2.0, capacity=4),
    "push_front": lambda q: q.push_front("jobs", LETTERS, 0.0),
    "push_front_member": lambda q: q.push_front("s.D!b", LETTERS, 0.0),
    "push_front_new": lambda q: q.push_front("s.E!n", LETTERS, 0.0),
    "take": lambda q: q.take("jobs", 0.0),
    "take_family": lambda q: q.take("s.D!", 0.0),
    "clear": lambda q: q.clear(),
    "sweep": lambda q: q.drop_expired(2.0),
    "wait": lambda q: q.wait("new", 1) and q.unwait("new", 1),
}


def outcomes(name, channel, before):
    """Return what may be in `channel` after the operation was done, half done, or not at all."""
    put = {
        "push": ("jobs", b"pushed"),
        "push_long": ("jobs", b"p" * 1500),
        "push_member": ("s.D!a", b"pushed"),
        "push_new": ("new", b"pushed"),
        "push_new_member": ("s.E!n", b"pushed"),
        "push_full": ("jobs", b"pushed"),
    }
    front = {"push_front": "jobs", "push_front_member": "s.D!b", "push_front_new": "s.E!n"}
    if name in put and put[name][0] == channel:
        return before, [*before, put[name][1]]
    if front.get(name) == channel:
        return before, [*(payload for payload, _, _ in LETTERS), *before]
    if (name, channel) in (("take", "jobs"), ("take_family", "s.D!a")):
        return before, before[1:]
    if name == "clear":
        return before, []
    return (before,)


def killed(operation, view, writes):
    """Return whether a process was killed before it had made more than that many writes."""
    fate = Fate(1 << 30)
    queues = QueueSegment(Cells(view, fate), no_limit)
    queues.waiter("jobs")  # its place is remembered: the short ways of push and take are open
    fate.left = writes
    try:
        operation(queues)
    except Killed:
        return True
    return False


@pytest.mark.usefixtures("_slow_structs")
@pytest.mark.parametrize("name", OPERATIONS)
def test_a_process_killed_before_or_within_any_write_neither_loses_nor_doubles_a_message(name):
    before = lived_in()
    is_killed, writes = True, 0
    while is_killed:
        view = memoryview(bytearray(before))
        is_killed = killed(OPERATIONS[name], view, writes)
        for channel, found in contents(view).items():
            assert found in outcomes(name, channel, FULL[channel]), (channel, writes)
        writes += 1
    assert writes > 5


@pytest.mark.usefixtures("_slow_structs")
@pytest.mark.parametrize("name", ["push_new_member", "take_family", "push_front_member"])
def test_a_process_killed_while_it_repairs_is_repaired_by_the_next(name):
    for writes in range(0, 40, 3):
        view = lived_in()
        killed(OPERATIONS[name], view, writes)
        repairs, is_killed = 0, True
        while is_killed:
            again = memoryview(bytearray(view))
            is_killed = killed(lambda queues: queues.is_empty(0.0), again, repairs)
            for channel, found in contents(again).items():
                assert found in outcomes(name, channel, FULL[channel]), (channel, writes, repairs)
            repairs += 7


@pytest.mark.usefixtures("_slow_structs")
def test_a_process_killed_while_it_grows_the_segment_loses_nothing():
    size_bytes = 520 * BLOCK_BYTES
    is_killed, writes = True, 0
    before = memoryview(bytearray(size_bytes))
    QueueSegment.format(before, size_bytes, no_limit)
    queues = QueueSegment(before, no_limit)
    held = GROWTH_BLOCKS - FIRST_BLOCK - 1
    for _ in range(held):
        push(queues, "jobs", b"x", capacity=1000)
    while is_killed:
        view = memoryview(bytearray(before))
        is_killed = killed(lambda q: push(q, "jobs", b"x", capacity=1000), view, writes)
        queues = QueueSegment(view, no_limit)
        assert len(drained(queues, "jobs")) in (held, held + 1)
        assert room(queues) == 520 - FIRST_BLOCK - 1
        writes += 1
    assert writes > 10


@pytest.mark.usefixtures("_slow_structs")
def test_a_segment_whose_formatting_was_not_finished_is_formatted_again():
    is_killed, writes = True, 0
    before = lived_in()
    while is_killed:
        view = memoryview(bytearray(before))
        other = QueueSegment(view, no_limit)
        fate = Fate(writes)
        with suppress(Killed):
            QueueSegment.format(Cells(view, fate), len(view), no_limit)
            is_killed = False
        try:
            assert room(QueueSegment(view, no_limit)) == POOL - 1 or writes == 0
        except CorruptSegment:
            with pytest.raises(CorruptSegment):
                other.take("jobs", 0.0)
        writes += 5


# Damage ---------------------------------------------------------------------------------------

ALLOWED = (CorruptSegment, IncompatibleSegment, ChannelFull)


def use(queues, now):
    """Call everything; a segment that is found damaged ends it."""
    numbers = {"expires_at": now + 30, "now": now, "capacity": 1 << 40}
    for channel in ("jobs", "s.D!a", "s.E!n"):
        for size in (3, 1200):
            with suppress(ChannelFull):
                queues.push(channel, b"x" * size, **numbers)
        queues.push_copy(channel, b"y", expires_at=now + 30, now=now, capacity=4)
        with suppress(ChannelFull):
            queues.push_front(channel, LETTERS, now)
        queues.take(channel, now)
        queues.wait(channel, 3)
        queues.waiter(channel)
    queues.take("s.D!", now)
    queues.unwait("jobs", 3)
    queues.forget_client(3)
    queues.drop_expired(now)
    queues.statistics(now)
    queues.channels(now)
    queues.is_empty(now)
    for channel in ("jobs", "s.D!", "s.D!b"):
        for _ in range(50):
            if queues.take(channel, now) is None:
                break
        else:
            raise AssertionError("endless messages")
    queues.clear()


# What is interesting: the header, the buckets in use, the beginning of each block.
OFFSETS = st.one_of(
    st.integers(0, 255),
    st.integers(512, 1535),
    st.builds(
        lambda block, offset: block * BLOCK_BYTES + offset,
        st.integers(FIRST_BLOCK, FIRST_BLOCK + 25),
        st.one_of(st.integers(0, 63), st.integers(0, 255)),
    ),
)
SMALL = st.builds(
    lambda number, size: number.to_bytes(size, sys.byteorder),
    st.integers(0, FIRST_BLOCK + POOL + 3),
    st.sampled_from([4, 8]),
)
VALUES = st.one_of(SMALL, SMALL, st.binary(min_size=1, max_size=16), st.just(b"\xff" * 8))


@settings(max_examples=400, deadline=None)
@given(
    damage=st.lists(st.tuples(OFFSETS, VALUES), min_size=1, max_size=6),
    is_attached=st.booleans(),
    is_dirty=st.booleans(),
)
def test_damage_is_found_or_does_no_harm(damage, is_attached, is_dirty):
    view = lived_in()
    queues = QueueSegment(view, no_limit)
    for channel in CHANNELS:
        queues.waiter(channel)
    for offset, value in damage:
        aligned = offset // len(value) * len(value) if len(value) in (4, 8) else offset
        view[aligned : aligned + len(value)] = value
    if is_dirty:
        view.cast("I")[DIRTY_WORD] = 1
    with suppress(*ALLOWED):
        use(queues if is_attached else QueueSegment(view, no_limit), 0.5)
    with suppress(*ALLOWED):
        use(QueueSegment(view, no_limit), 1.5)


@pytest.mark.parametrize("seed", range(60))
def test_random_bytes_all_over_a_segment_are_found(seed):
    chance = random.Random(seed)
    view = lived_in()
    queues = QueueSegment(view, no_limit)
    for channel in CHANNELS:
        queues.waiter(channel)
    for _ in range(chance.choice([1, 10, 100, 1000, 20_000])):
        view[chance.randrange(len(view))] = chance.randrange(256)
    for attached in (lambda: queues, lambda: QueueSegment(view, no_limit)):
        with suppress(*ALLOWED):
            use(attached(), 0.5)


def test_a_segment_of_another_version_names_both():
    view = memory()
    view.cast("I")[VERSION_WORD] = 9
    with pytest.raises(IncompatibleSegment) as caught:
        QueueSegment(view, no_limit)
    assert (caught.value.found, caught.value.expected) == (9, VERSION)
    assert "format 9" in str(caught.value)


@pytest.mark.parametrize(
    ("word", "value"),
    [
        (0, 5),
        (BLOCK_BYTES_WORD, 256),
        (SIZE_WORD, 3),
        (SIZE_WORD, 1 << 20),
        (2 * ALLOCATED_LONG, 30),
    ],
)
def test_a_damaged_header_is_found_on_attaching(word, value):
    view = memory()
    view.cast("I")[word] = value
    with pytest.raises(CorruptSegment):
        QueueSegment(view, no_limit)


def test_what_is_too_small_is_no_segment():
    with pytest.raises(CorruptSegment):
        QueueSegment(memoryview(bytearray(100)), no_limit)
    with pytest.raises(ValueError, match="100 bytes"):
        QueueSegment.format(memoryview(bytearray(100)), 100, no_limit)
