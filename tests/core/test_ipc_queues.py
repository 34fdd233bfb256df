"""The queues in shared memory: against a model, killed at any instruction, and damaged."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from segments import copy, drained, memory, no_limit, push, room, segment

from channels_layers.errors import ChannelFull
from channels_layers.ipc import _entries, _letters
from channels_layers.ipc._queue_layout import (
    FIRST_BLOCK,
    NODE_ROOM,
    blocks_for,
)
from channels_layers.ipc._queues import QueueSegment

CHANNELS = ("jobs", "http.body?x", "s.D!a", "s.D!b", "s.E!a")
FAMILIES = ("s.D!", "s.E!")


def test_messages_come_out_in_the_order_in_which_they_went_in():
    queues = segment()
    for payload in (b"a", b"", b"c" * NODE_ROOM, b"d" * (NODE_ROOM + 1), b"e" * 5000):
        push(queues, "jobs", payload, expires_at=7.5, kind=3)
    assert queues.take("jobs", 1.0) == ("jobs", b"a", 7.5, 3)
    assert [len(p) for p in drained(queues, "jobs")] == [0, NODE_ROOM, NODE_ROOM + 1, 5000]
    assert queues.take("jobs", 1.0) is None
    assert queues.take("other", 1.0) is None


def test_a_channel_holds_exactly_its_capacity():
    queues = segment()
    for _ in range(3):
        push(queues, "jobs", b"x", capacity=3)
    with pytest.raises(ChannelFull) as caught:
        push(queues, "jobs", b"x", capacity=3)
    assert caught.value.capacity == 3
    assert copy(queues, "jobs", b"x", capacity=3) is None
    numbers = queues.statistics_of("jobs", 0.0)
    assert numbers["messages_count"] == 3
    assert numbers["channel_full_count"] == 1
    assert numbers["dropped_count"]["full"] == 1


def test_expired_messages_do_not_count_wherever_they_stand():
    queues = segment()
    push(queues, "jobs", b"late", expires_at=60.0)
    push(queues, "jobs", b"soon", expires_at=1.0, kind=1)
    push(queues, "jobs", b"last", expires_at=60.0)
    assert push(queues, "jobs", b"new", now=2.0, capacity=3) == -1
    assert queues.released == [b"soon"]
    assert queues.statistics(2.0)["dropped_count"]["expired"] == 1
    assert drained(queues, "jobs", 2.0) == [b"late", b"last", b"new"]


def test_an_expired_message_is_never_taken():
    queues = segment()
    push(queues, "jobs", b"a", expires_at=1.0)
    push(queues, "jobs", b"b", expires_at=2.0)
    assert queues.take("jobs", 1.0)[1] == b"b"


def test_messages_that_were_handed_back_come_first_and_need_no_capacity():
    queues = segment()
    push(queues, "jobs", b"c")
    queues.push_front("jobs", [(b"a", 60.0, 0), (b"gone", 1.0, 5), (b"b", 60.0, 0)], 1.0)
    assert queues.released == [b"gone"]
    assert queues.statistics(1.0)["messages_count"] == 1
    assert queues.statistics(1.0)["messages_pending"] == 3
    push(queues, "jobs", b"d")
    queues.push_front("jobs", [(b"0" * 3000, 60.0, 0)], 1.0)
    assert drained(queues, "jobs", 1.0) == [b"0" * 3000, b"a", b"b", b"c", b"d"]


def test_messages_handed_back_to_an_empty_channel_are_followed_by_new_ones():
    queues = segment()
    assert queues.push_front("jobs", [], 0.0) == -1
    queues.push_front("jobs", [(b"a", 60.0, 0), (b"b", 60.0, 0)], 0.0)
    push(queues, "jobs", b"c")
    assert drained(queues, "jobs") == [b"a", b"b", b"c"]


def test_a_non_local_part_takes_the_oldest_of_all_its_channels():
    queues = segment()
    for channel, payload in (("s.D!b", b"1"), ("s.D!a", b"2"), ("s.D!b", b"3"), ("s.E!a", b"x")):
        push(queues, channel, payload)
    queues.push_front("s.D!a", [(b"0", 60.0, 0)], 0.0)
    taken = [queues.take("s.D!", 0.0)[:2] for _ in range(4)]
    assert taken == [("s.D!a", b"0"), ("s.D!b", b"1"), ("s.D!a", b"2"), ("s.D!b", b"3")]
    assert queues.take("s.D!", 0.0) is None
    assert drained(queues, "s.E!a") == [b"x"]


def test_nothing_is_sent_to_a_non_local_part():
    queues = segment()
    queues.wait("s.D!", 1)
    with pytest.raises(ValueError, match="non-local"):
        push(queues, "s.D!", b"x")


def test_clients_that_wait_are_woken_in_turn():
    queues = segment()
    assert push(queues, "jobs", b"x") == -1
    for slot in (3, 250, 64):
        assert queues.wait("jobs", slot)
    assert [push(queues, "jobs", b"x") for _ in range(4)] == [3, 64, 250, -1]
    for slot in (250, 3, 64):
        queues.wait("jobs", slot)
    assert queues.waiter("jobs") == 3
    assert queues.unwait("jobs", 250) == 64
    for slot in (3, 64):
        queues.wait("jobs", slot)
    assert queues.forget_client(3) == {64}
    assert push(queues, "jobs", b"x") == -1


def test_a_family_s_waiters_are_woken_for_each_of_its_channels():
    queues = segment()
    queues.wait("s.D!", 7)
    queues.wait("s.D!a", 9)
    assert queues.waiter("s.D!") == -1
    assert {push(queues, "s.D!a", b"x") for _ in range(2)} == {7, 9}
    assert push(queues, "s.D!b", b"x") == -1
    queues.wait("s.D!", 7)
    assert push(queues, "s.D!b", b"x") == 7
    assert push(queues, "s.E!a", b"x") == -1
    queues.wait("s.D!", 7)
    queues.wait("s.D!a", 9)
    assert queues.waiter("s.D!") == 7
    assert queues.unwait("s.D!", 7) == -1
    assert queues.waiter("s.D!a") == 9


def test_who_waits_without_messages_or_is_unknown_is_not_woken():
    queues = segment()
    assert queues.waiter("jobs") == -1
    assert queues.unwait("jobs", 1) == -1
    queues.wait("jobs", 1)
    queues.wait("jobs", 2)
    assert queues.unwait("jobs", 1) == -1
    assert queues.forget_client(2) == set()


@pytest.mark.parametrize("slot", [-1, 256])
def test_a_slot_has_eight_bits(slot):
    with pytest.raises(ValueError, match="slot"):
        segment().wait("jobs", slot)


def test_clearing_drops_the_messages_and_keeps_the_numbers_and_who_waits():
    queues = segment()
    queues.wait("s.D!", 4)
    for channel in CHANNELS:
        push(queues, channel, channel.encode(), kind=1)
        push(queues, channel, b"x" * 2000)
    queues.wait("s.D!", 4)
    queues.clear()
    assert Counter(queues.released) == Counter(name.encode() for name in CHANNELS)
    assert queues.is_empty(0.0)
    assert queues.statistics(0.0)["messages_count"] == 2 * len(CHANNELS)
    assert queues.statistics(0.0)["messages_pending"] == 0
    assert push(queues, "s.D!a", b"y") == 4
    assert drained(queues, "s.D!") == [b"y"]


def test_a_segment_is_empty_when_what_it_holds_has_expired():
    queues = segment()
    assert queues.is_empty(0.0)
    push(queues, "jobs", b"x", expires_at=1.0)
    assert not queues.is_empty(0.5)
    assert queues.is_empty(1.0)


def test_numbers_are_kept_for_each_channel_and_for_all():
    queues = segment()
    for _ in range(10):
        push(queues, "jobs", b"x", now=99.5, expires_at=200.0)
    push(queues, "s.D!a", b"x", now=100.2, expires_at=200.0)
    jobs = queues.statistics_of("jobs", 100.25)
    assert jobs["messages_count_per_second"] == pytest.approx(7.5)
    assert jobs["messages_max_age"] == pytest.approx(0.75)
    assert queues.channels(100.25) == {
        "jobs": jobs,
        "s.D!a": queues.statistics_of("s.D!a", 100.25),
    }
    together = queues.statistics(100.25)
    assert together["messages_count"] == together["messages_pending"] == 11
    assert together["messages_count_per_second"] == pytest.approx(8.5)
    assert queues.statistics_of("other", 0.0)["messages_count"] == 0


def test_a_full_segment_refuses_and_forgets_channels_that_hold_nothing():
    queues = segment(20)
    for number in range(10):  # ten entries, ten messages
        push(queues, f"c{number}", b"x")
    with pytest.raises(ChannelFull):
        push(queues, "c10", b"x", now=1.0)
    assert copy(queues, "c0", b"x") is None
    assert not queues.wait("c10", 1)
    with pytest.raises(ChannelFull):
        queues.push_front("c10", [(b"x", 60.0, 0)], 2.0)
    assert drained(queues, "c3") == [b"x"]
    push(queues, "c10", b"y", now=3.0)
    assert drained(queues, "c10") == [b"y"]
    assert queues.wait("c10", 1)


def test_a_full_segment_drops_what_has_expired():
    queues = segment(4)
    push(queues, "a", b"x", expires_at=1.0)
    push(queues, "b", b"x")
    push(queues, "b", b"y", now=2.0)
    assert drained(queues, "b", 2.0) == [b"x", b"y"]


def test_a_message_longer_than_the_segment_is_refused():
    with pytest.raises(ChannelFull):
        push(segment(20), "jobs", b"x" * 20_000)


def test_memory_is_allocated_by_need_and_its_end_is_an_error():
    size_bytes = 1 << 21
    grown = []
    limit = [size_bytes]

    def grow(total_bytes):
        if total_bytes > limit[0]:
            raise OSError(28, "No space left on device")
        grown.append(total_bytes)

    view = memoryview(bytearray(b"\xff") * size_bytes)
    QueueSegment.format(view, size_bytes, grow)
    queues = QueueSegment(view, grow)
    limit[0] = 1 << 19
    for number in range((1 << 10) - FIRST_BLOCK - 1):
        push(queues, "jobs", b"%d" % number, capacity=2000)
    with pytest.raises(OSError, match="space"):
        push(queues, "jobs", b"x", capacity=2000)
    with pytest.raises(OSError, match="space"):
        queues.push_front("other", [(b"x", 60.0, 0)], 1.0)
    assert not queues.wait("other", 1)
    assert grown == [1 << 18, 1 << 19]
    assert bytes(view[1 << 19 :]).count(0xFF) == size_bytes - (1 << 19)
    assert len(drained(QueueSegment(view, grow), "jobs")) == (1 << 10) - FIRST_BLOCK - 1
    limit[0] = size_bytes
    push(queues, "jobs", b"x" * (1 << 20))
    assert grown[-1] > 1 << 20


@pytest.mark.parametrize(
    "use",
    [
        lambda queues: drained(queues, "jobs"),
        lambda queues: push(queues, "jobs", b"x", capacity=2000),
        lambda queues: push(queues, "jobs", b"x" * (1 << 19), capacity=2000),
        lambda queues: push(queues, "jobs", b"x", now=2.0, expires_at=3.0, capacity=900),
        lambda queues: queues.push_front("jobs", [(b"x", 60.0, 0)] * 600, 0.0),
        lambda queues: queues.take("jobs", 2.0),
        lambda queues: queues.take("s.D!", 2.0),
        lambda queues: queues.statistics(2.0),
        lambda queues: queues.drop_expired(2.0, most=2000),
        lambda queues: queues.forget_client(1),
        lambda queues: queues.clear(),
    ],
)
def test_a_segment_that_another_process_has_grown_is_measured_again(use):
    view = memoryview(bytearray(1 << 22))
    QueueSegment.format(view, 1 << 22, no_limit)
    mine, other = QueueSegment(view, no_limit), QueueSegment(view, no_limit)
    push(mine, "jobs", b"first")
    for number in range(900):
        push(other, "jobs", b"x", capacity=1000, expires_at=1.0)
        push(other, f"s.D!{number}", b"x", expires_at=1.0)
    use(mine)
    assert len(other.channels(0.0)) == 901


def test_a_place_that_has_become_another_channel_s_is_not_used():
    view = memory()
    mine, other = QueueSegment(view, no_limit), QueueSegment(view, no_limit)
    push(mine, "jobs", b"x", expires_at=1.0)
    for _ in range(4):
        other.drop_expired(400.0)
    numbers = {"expires_at": 500.0, "now": 400.0}
    push(other, "later", b"later's", **numbers)
    assert mine.take("jobs", 400.0) is None
    push(mine, "jobs", b"jobs'", **numbers)
    push(mine, "jobs", b"jobs'", **numbers)
    assert drained(other, "later", 400.0) == [b"later's"]
    assert drained(mine, "jobs", 400.0) == [b"jobs'", b"jobs'"]


def test_a_full_segment_forgets_first_what_was_not_used_for_longest(monkeypatch):
    monkeypatch.setattr(_letters, "_RECLAIMED", 1)
    queues = segment(7)
    for now, channel in ((50.0, "b"), (10.0, "a"), (90.0, "c")):
        push(queues, channel, b"x", now=now, expires_at=now + 60)
        assert drained(queues, channel, now) == [b"x"]
    for size in (1, NODE_ROOM + 1):
        push(queues, "c", b"x" * size, now=100.0, expires_at=160.0)
    assert set(queues.channels(101.0)) == {"a", "b", "c"}
    for _ in range(2):
        push(queues, "c", b"x", now=101.0, expires_at=160.0)
    assert set(queues.channels(101.0)) == {"b", "c"}


def test_the_sweeper_drops_and_forgets_a_part_in_each_call():
    queues = segment(64)
    for number in range(30):
        push(queues, f"c{number}", b"x", expires_at=1.0)
    before = queues.statistics(0.0)["messages_pending"]
    queues.drop_expired(2.0, most=8)
    dropped = queues.channels(0.5)
    assert before == 30
    assert 0 < sum(s["dropped_count"]["expired"] for s in dropped.values()) < 30
    for _ in range(30):
        queues.drop_expired(2.0, most=8)
    assert len(queues.channels(2.0)) == 30
    for _ in range(30):
        queues.drop_expired(400.0, most=8)
    assert queues.channels(400.0) == {}
    assert queues.statistics(400.0)["dropped_count"]["expired"] == 30
    assert room(queues) == 63


def test_the_sweeper_comes_back_to_a_channel_that_was_too_much_for_one_call():
    queues = segment(64)
    for _ in range(30):
        push(queues, "jobs", b"x", expires_at=1.0)
    queues.drop_expired(2.0, most=10)
    assert queues.statistics_of("jobs", 0.0)["messages_pending"] == 20
    queues.drop_expired(2.0, most=10)
    assert queues.statistics_of("jobs", 0.0)["messages_pending"] == 10


def test_names_are_remembered_only_up_to_a_number(monkeypatch):
    monkeypatch.setattr(_entries, "_MOST_PLACES", 2)
    queues = segment()
    for _ in range(2):
        for channel in CHANNELS:
            push(queues, channel, b"x")
    assert [len(drained(queues, channel)) for channel in CHANNELS] == [2] * 5


def test_names_with_one_hash_are_told_apart(monkeypatch):
    monkeypatch.setattr(_entries.zlib, "crc32", lambda name: 5)
    queues = segment()
    for channel in CHANNELS:
        push(queues, channel, channel.encode(), expires_at=1.0)
    assert [drained(queues, channel) for channel in CHANNELS] == [[c.encode()] for c in CHANNELS]
    queues.drop_expired(1000.0)
    assert room(queues) == 63


# A model --------------------------------------------------------------------------------------

POOL = 26
CAPACITY = 4


class Model(RuleBasedStateMachine):
    """Dicts and lists that do the same as a small segment."""

    @initialize()
    def begin(self):
        self.view = memory(POOL)
        self.queues = QueueSegment(self.view, no_limit)
        self.letters = {channel: [] for channel in CHANNELS}  # (order, payload, expires_at, kind)
        self.waiting = {channel: set() for channel in (*CHANNELS, *FAMILIES)}
        self.numbers = Counter()
        self.released = Counter()
        self.now = 100.0
        self.back = self.front = 0
        self.made = 0

    def payload(self, size):
        self.made += 1
        return (b"%d." % self.made).ljust(size, b".")

    def expire(self):
        for channel, letters in self.letters.items():
            for letter in letters:
                if letter[2] <= self.now:
                    self.numbers["expired"] += 1
                    self.released.update([letter[1]] if letter[3] else [])
            self.letters[channel] = [letter for letter in letters if letter[2] > self.now]

    def fits(self, channel, needed):
        """Return whether `needed` blocks are there when all that can be forgotten is."""
        full = {name for name, letters in self.letters.items() if letters} | {channel}
        families = {name[: name.index("!") + 1] for name in full if "!" in name}
        entries = full | families | {name for name, slots in self.waiting.items() if slots}
        used = sum(blocks_for(len(x[1])) for letters in self.letters.values() for x in letters)
        return used + len(entries) + needed <= POOL

    def woken(self, channel, slot):
        waiting = set(self.waiting[channel])
        if "!" in channel:
            waiting |= self.waiting[channel[: channel.index("!") + 1]]
        assert slot in waiting if waiting else slot == -1
        self.no_more(channel, slot)

    def no_more(self, channel, slot):
        """Who was told of a message does not wait any more."""
        for name in {channel, channel[: channel.find("!") + 1]} & self.waiting.keys():
            self.waiting[name].discard(slot)

    @rule(
        channel=st.sampled_from(CHANNELS),
        size=st.sampled_from([4, 100, NODE_ROOM, NODE_ROOM + 1, 2000]),
        expiry=st.sampled_from([0.2, 5.0, 60.0]),
        kind=st.sampled_from([0, 0, 7]),
        is_copy=st.booleans(),
    )
    def push(self, channel, size, expiry, kind, is_copy):
        payload = self.payload(size)
        letter = {"expires_at": self.now + expiry, "capacity": CAPACITY, "kind": kind}
        self.now += 0.0625  # longer than a full segment is not searched for
        self.expire()
        name = "full" if is_copy else "refused"
        try:
            function = self.queues.push_copy if is_copy else self.queues.push
            slot = function(channel, payload, now=self.now, **letter)
        except ChannelFull:
            slot = None
        has_room = len(self.letters[channel]) < CAPACITY
        assert (slot is not None) == (has_room and self.fits(channel, blocks_for(size)))
        if slot is None:
            self.numbers[name] += 1
            return
        self.numbers["accepted"] += 1
        self.back += 1
        self.letters[channel].append((self.back, payload, letter["expires_at"], kind))
        self.woken(channel, slot)

    @rule(
        channel=st.sampled_from(CHANNELS),
        expiries=st.lists(st.sampled_from([-1.0, 1.0, 60.0]), max_size=3),
    )
    def push_front(self, channel, expiries):
        self.now += 0.0625
        self.expire()
        letters = [(self.payload(600), self.now + expiry, 7) for expiry in expiries]
        live = [letter for letter in letters if letter[1] > self.now]
        fits = self.fits(channel, len(live) * blocks_for(600))
        try:
            slot = self.queues.push_front(channel, letters, self.now)
        except ChannelFull:
            assert not fits
            return
        assert fits
        for payload, expires_at, kind in reversed(live):
            self.front -= 1
            self.letters[channel].insert(0, (self.front, payload, expires_at, kind))
        self.released.update(x[0] for x in letters if x not in live)
        self.numbers["expired"] += len(letters) - len(live)
        if self.letters[channel]:
            self.woken(channel, slot)
        elif slot >= 0:  # told of a message that has expired since
            self.no_more(channel, slot)

    @rule(channel=st.sampled_from(CHANNELS + FAMILIES))
    def take(self, channel):
        self.expire()
        names = [n for n in CHANNELS if n == channel or (channel in FAMILIES and channel in n)]
        oldest = min(((self.letters[n][0], n) for n in names if self.letters[n]), default=None)
        found = self.queues.take(channel, self.now)
        if oldest is None:
            assert found is None
        else:
            letter, name = oldest
            assert found == (name, *letter[1:])
            self.letters[name].pop(0)

    @rule(channel=st.sampled_from(CHANNELS + FAMILIES), slot=st.sampled_from([0, 63, 64, 255]))
    def wait(self, channel, slot):
        if self.queues.wait(channel, slot):
            self.waiting[channel].add(slot)

    @rule(channel=st.sampled_from(CHANNELS + FAMILIES), slot=st.sampled_from([0, 63, 64, 255]))
    def unwait(self, channel, slot):
        self.waiting[channel].discard(slot)
        other = self.queues.unwait(channel, slot)
        if other >= 0:
            whole = channel[: channel.index("!") + 1] if "!" in channel else channel
            assert other in self.waiting[channel] | self.waiting[whole]
            self.no_more(channel, other)

    @rule(slot=st.sampled_from([0, 63, 64, 255]))
    def forget(self, slot):
        instead = self.queues.forget_client(slot)
        assert slot not in instead
        for channel, slots in self.waiting.items():
            slots.discard(slot)
            for other in instead & slots:  # somewhere it waits no more: it begins again
                if not self.queues.wait(channel, other):
                    slots.discard(other)

    @rule(seconds=st.sampled_from([0.5, 4.0, 30.0, 400.0]))
    def pass_time(self, seconds):
        self.now += seconds

    @rule(most=st.sampled_from([1, 5, 64]))
    def sweep(self, most):
        self.queues.drop_expired(self.now, most)

    @rule()
    def clear(self):
        self.expire()
        self.queues.statistics(self.now)
        self.queues.clear()
        for letters in self.letters.values():
            self.released.update(x[1] for x in letters if x[3])
            letters.clear()

    @rule()
    def attach_again(self):
        self.expire()
        self.released -= Counter(self.queues.released)
        self.queues = QueueSegment(self.view, no_limit)

    @rule()
    def compare(self):
        self.expire()
        numbers = self.queues.statistics(self.now)
        assert numbers["messages_count"] == self.numbers["accepted"]
        assert numbers["messages_pending"] == sum(map(len, self.letters.values()))
        assert numbers["channel_full_count"] == self.numbers["refused"]
        assert numbers["dropped_count"]["full"] == self.numbers["full"]
        assert numbers["dropped_count"]["expired"] == self.numbers["expired"]
        assert Counter(self.queues.released) == self.released
        assert self.queues.is_empty(self.now) == (not any(self.letters.values()))
        for channel, letters in self.letters.items():
            of_channel = self.queues.statistics_of(channel, self.now)
            assert of_channel["messages_pending"] == len(letters)

    def teardown(self):
        self.compare()


Model.TestCase.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestAgainstAModel = Model.TestCase
