"""Random programs against simple models: an exchange, its groups, and names."""

from __future__ import annotations

import string
from collections import deque

from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from office import Office

from channels_layers._core.groups import Groups
from channels_layers._core.mailbox import Mailbox
from channels_layers._core.names import (
    MAX_NAME,
    check_channel,
    check_group,
    check_prefix,
    client_of,
    non_local_part,
)
from channels_layers.errors import InvalidName

LETTERS = "abXYZ019.-_"
EXPIRY = 10  # seconds
CAPACITY = 3  # messages

texts = st.text(LETTERS, min_size=1, max_size=20)
labels = st.text(LETTERS.replace(".", ""), min_size=1, max_size=20)


# Names


@given(prefix=texts, client=labels, local=texts)
def test_a_process_specific_name_can_be_taken_apart(prefix, client, local):
    name = check_channel(f"{prefix}.{client}!{local}")
    assert non_local_part(name) + local == name
    assert non_local_part(name) == f"{prefix}.{client}!"
    assert client_of(name) == client


@given(text=texts, local=texts)
def test_other_names_have_no_client(text, local):
    for name in (text, f"{text}?{local}"):
        assert check_channel(name) == name
        assert non_local_part(name) is None
        assert client_of(name) is None


def accepts(check, name, **options):
    """Say whether `name` is allowed; it comes back as it is, or in the error."""
    try:
        found = check(name, **options)
    except InvalidName as error:
        found, is_allowed = error.name, False
    else:
        is_allowed = True
    assert found == name
    return is_allowed


@settings(max_examples=100, deadline=None)
@given(name=st.text(max_size=5) | st.text(LETTERS + "!?\né", max_size=MAX_NAME + 5))
@example("a\n")
@example("a!b!c")
def test_any_text_is_a_name_as_it_is_or_an_invalid_name(name):
    is_plain = set(name) <= set(string.ascii_letters + string.digits + "._-!?")
    has_length = 1 <= len(name) <= MAX_NAME
    has_one_mark = name.count("!") + name.count("?") <= 1
    is_name = is_plain and has_length and has_one_mark and not name.endswith("?")
    assert accepts(check_channel, name, receiving=True) == is_name
    assert accepts(check_channel, name) == (is_name and not name.endswith("!"))
    assert accepts(check_group, name) == (is_plain and has_length and not {*"!?"} & {*name})


@given(name=st.text(LETTERS + "!?", min_size=1, max_size=20))
def test_a_prefix_is_the_begin_of_a_channel_name(name):
    is_begin = accepts(check_channel, f"{name}1") and "!" not in name
    assert accepts(check_prefix, name) == (is_begin and "?" not in name[:-1] and name != "?")


# Groups


memberships = st.tuples(st.sampled_from("gh"), st.sampled_from("abc"))
steps = st.tuples(st.sampled_from(["add", "add", "discard", "end", "all"]), memberships)


@settings(max_examples=200, deadline=None)
@given(program=st.lists(steps, max_size=30))
def test_groups_are_sets_of_memberships(program):
    groups, model = Groups(), {}
    boxes = {name: Mailbox(name, 1) for name in "abc"}
    for moment, (step, (group, name)) in enumerate(program):
        if step == "add":
            groups.add(group, boxes[name], moment)
            model[group, name] = moment
        elif step == "all":
            groups.discard_all(boxes[name])
            model = {key: ends_at for key, ends_at in model.items() if key[1] != name}
        else:
            getattr(groups, step)(group, boxes[name])
            model.pop((group, name), None)
    found = {(g, box.name): at for g in "gh" for box, at in groups.members(g).items()}
    assert found == model
    for name, box in boxes.items():
        of_box = {(g, name): at for g, at in groups.of(box)}
        assert of_box == {key: at for key, at in model.items() if key[1] == name}


# An exchange


class Clerk:
    """What an exchange should do, with a deque for each channel and one line of receivers."""

    def __init__(self):
        self.now = 0.0
        self.queues = {}  # channel to a deque of (expires_at, payload)
        self.receivers = {}  # number to channels, in the order in which they began to wait
        self.promised = {}  # number to channel: woken, not resumed yet
        self.groups = {}

    def unread(self, channel):
        queue = self.queues.setdefault(channel, deque())
        fresh = [letter for letter in queue if letter[0] > self.now]
        self.queues[channel] = deque(fresh)
        return self.queues[channel]

    def has_room(self, channel):
        return len(self.unread(channel)) < CAPACITY

    def put(self, channel, payload):
        self.unread(channel).append((self.now + EXPIRY, payload))


CHANNELS = ("a", "b", "x.C!1", "x.C!2")
LINES = (("a",), ("b",), ("a", "b"), ("x.C!1",), ("x.C!2", "a"))


class ExchangeMachine(RuleBasedStateMachine):
    """Each channel is a queue: what comes out went in, once, in order, and in time."""

    lines = LINES

    @initialize()
    def begin(self):
        self.office = Office(expiry=EXPIRY, capacity=CAPACITY, idle=1000, group_expiry=100_000)
        self.office.now = 0.0
        self.clerk = Clerk()
        self.places = {}  # waiter to place
        self.line = []  # waiters that were not woken, in the order in which they began to wait
        self.seen = 0  # of those that the office has woken
        self.numbers = iter(range(10**6))

    def payload(self):
        return b"%d" % next(self.numbers)

    @rule(channel=st.sampled_from(CHANNELS))
    def send(self, channel):
        payload, has_room = self.payload(), self.clerk.has_room(channel)
        assert self.office.send(channel, payload) == has_room
        if has_room:
            self.clerk.put(channel, payload)
        self.check_woken()

    @rule(group=st.sampled_from("gh"))
    def group_send(self, group):
        payload = self.payload()
        self.office.fan_out(group, payload)
        for channel in self.clerk.groups.get(group, ()):
            if self.clerk.has_room(channel):
                self.clerk.put(channel, payload)
        self.check_woken()

    @rule(group=st.sampled_from("gh"), channel=st.sampled_from(CHANNELS[:2]))
    def group_add(self, group, channel):
        self.office.add(group, channel)
        self.clerk.groups.setdefault(group, {})[channel] = None

    @rule(group=st.sampled_from("gh"), channel=st.sampled_from(CHANNELS[:2]))
    def group_discard(self, group, channel):
        self.office.discard(group, channel)
        self.clerk.groups.get(group, {}).pop(channel, None)

    @rule(data=st.data())
    def receive(self, data):
        channels = data.draw(st.sampled_from(self.lines))
        place, payload = self.office.exchange.join(channels, self.office.now)
        self.note(place, payload)

    @precondition(lambda self: self.woken_places())
    @rule(data=st.data())
    def resume(self, data):
        waiter = data.draw(st.sampled_from(self.woken_places()))
        place, payload = self.office.resume_slowly(self.places.pop(waiter))
        self.note(place, payload, is_first=True)

    @precondition(lambda self: self.places)
    @rule(data=st.data())
    def cancel(self, data):
        waiter = data.draw(st.sampled_from(sorted(self.places)))
        place = self.places.pop(waiter)
        if waiter in self.line:
            self.line.remove(waiter)
        self.office.leave(place)
        self.check_woken()

    @rule(seconds=st.sampled_from([0.25, 1, 4, EXPIRY]))
    def pass_time(self, seconds):
        if self.woken_places():
            seconds = 0  # what expires between wake and resume has tests of its own
        self.office.now += seconds
        self.clerk.now = self.office.now

    @precondition(lambda self: not self.woken_places())
    @rule()
    def flush(self):
        self.office.mailboxes.clear(self.office.now)
        self.clerk.queues.clear()
        self.clerk.groups.clear()

    @invariant()
    def counts_agree(self):
        for channel in CHANNELS:
            pending = self.office.statistics(channel)["messages_pending"]
            assert pending == len(self.clerk.unread(channel))

    @invariant()
    def members_agree(self):
        for group in "gh":
            assert set(self.office.members(group)) == set(self.clerk.groups.get(group, ()))

    @invariant()
    def nobody_waits_where_a_message_is(self):
        waited_for = {line.name for waiter in self.line for line in self.places[waiter].lines}
        for channel in CHANNELS:
            if not waited_for & {channel, non_local_part(channel)}:
                continue
            assert len(self.clerk.unread(channel)) == self.granted(channel)

    def granted(self, channel):
        mailbox = self.office.exchange.by_name.get(channel)
        return len(mailbox.granted) if mailbox else 0

    def woken_places(self):
        return sorted(waiter for waiter in self.places if waiter not in self.line)

    def note(self, place, payload, *, is_first=False):
        """Note who waits now, or that `payload` is the right one."""
        if payload is not None:
            channel = place.mailbox.name
            expected = self.clerk.unread(channel)
            assert payload in [letter[1] for letter in expected]
            before = self.payloads_before(channel, payload)
            assert len(before) <= self.granted(channel)
            self.clerk.queues[channel] = deque(one for one in expected if one[1] != payload)
        else:
            self.places[place.waiter] = place
            self.line.insert(0 if is_first else len(self.line), place.waiter)
        self.check_woken()

    def payloads_before(self, channel, payload):
        payloads = [letter[1] for letter in self.clerk.unread(channel)]
        return payloads[: payloads.index(payload)]

    def check_woken(self):
        """Check that those who were woken since are the first of those who wait there."""
        for waiter in self.office.woken[self.seen :]:
            mailbox = self.places[waiter].mailbox
            lines = {mailbox, mailbox.family}
            rivals = [one for one in self.line if lines & {*self.places[one].lines}]
            assert rivals[0] == waiter
            self.line.remove(waiter)
        self.seen = len(self.office.woken)

    def teardown(self):
        if not hasattr(self, "office"):
            return
        for place in self.places.values():
            self.office.leave(place)
        for channel in CHANNELS:
            left = [letter[1] for letter in self.clerk.unread(channel)]
            assert self.office.take_all(channel) == left


class FamilyMachine(ExchangeMachine):
    """The same with readers of a whole non-local part."""

    lines = (*LINES, ("x.C!",), ("x.C!", "a"), ("x.C!1", "x.C!"))


ExchangeMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestExchange = ExchangeMachine.TestCase
FamilyMachine.TestCase.settings = ExchangeMachine.TestCase.settings
TestFamily = FamilyMachine.TestCase


programs = st.lists(
    st.sampled_from(["put", "put", "wait", "wait", "resume", "cancel"]), max_size=40
)


@settings(max_examples=200, deadline=None)
@given(program=programs, data=st.data())
def test_a_mailbox_is_a_queue_whoever_is_cancelled(program, data):
    box, sent, waiters, woken = Mailbox("jobs", 100), 0, iter(range(100)), []
    unread = deque()
    for step in program:
        heir = None
        if step == "put":
            heir = box.put((0.0, b"%d" % sent, None))
            unread.append(b"%d" % sent)
            sent += 1
        elif step == "wait":
            box.waiting[next(waiters)] = None
            heir = box.grant()
        elif woken:
            waiter = data.draw(st.sampled_from(woken))
            if step == "resume":
                payload = box.granted.pop(waiter)[1]
                assert unread.index(payload) == woken.index(waiter)
                unread.remove(payload)
            else:
                heir = box.take_back(waiter)
            woken.remove(waiter)
        woken += [] if heir is None else [heir]
        assert list(box.granted) == woken == sorted(woken)
        kept = [*box.granted.values(), *box.letters]
        assert [letter[1] for letter in kept] == list(unread)
        assert not (box.letters and box.waiting)
