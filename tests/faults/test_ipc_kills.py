"""Processes that are killed at random instants; the others go on and lose nothing but theirs."""

from __future__ import annotations

import random
import time
from collections import Counter, defaultdict

import ipc_roles as roles
from ipc_processes import until

WRITERS = 4
READERS = 3  # and the witness


class Storm:
    """Writers, readers and a witness that is never killed; a new one for each that is."""

    def __init__(self, processes, prefix, folder):
        self.processes, self.prefix, self.folder = processes, prefix, folder
        self.begun = Counter()
        self.killed = Counter()
        self.live = []
        self.witness = self.start("witness")
        self.name = self.witness.told()
        self.live = [self.start(kind) for kind in ["write"] * WRITERS + ["read"] * READERS]
        for one in self.live:
            one.told()

    def start(self, kind):
        self.begun[kind] += 1
        number = self.begun[kind]
        values = [self.prefix.name, str(self.folder / f"{kind}-{number}")]
        if kind == "write":
            values += [f"w{number}", self.name]
        process = self.processes.start(getattr(roles, kind), *values)
        process.kind = kind
        return process

    def kill_one(self, chance):
        """Kill one, and start another like it."""
        place = chance.randrange(len(self.live))
        victim = self.live[place]
        victim.kill()
        self.killed[victim.kind] += 1
        self.live[place] = self.start(victim.kind)

    def end(self):
        """Let all end in peace; return what they have noted."""
        for kind in ("write", "read"):
            for process in self.live:
                if process.kind == kind:
                    process.say()
            for process in self.live:
                if process.kind == kind:
                    assert process.ended() == 0
        drain = self.start("drain")
        self.members = drain.told()
        self.witness.say()
        assert self.witness.ended() == 0  # with all that was sent to it, before the rest is flushed
        drain.say()
        assert drain.ended() == 0
        return Noted(self.folder)


class Noted:
    """All notes together."""

    def __init__(self, folder):
        self.wrong = []
        self.longest = 0.0
        self.dropped = {}  # by reason
        self.begun = set()
        self.sent = defaultdict(set)
        self.came = defaultdict(list)  # kind, or kind and file -> (writer, number)
        for path in folder.iterdir():
            # The kernel may stop a killed process inside its last line, at the end of a page.
            for line in path.read_text().split("\n")[:-1]:
                self._note(path.name, *line.split(" "))

    def _note(self, name, kind, *values):
        if kind == "x":
            self.wrong.append((name, *values))
        elif kind == "m":
            self.longest = max(self.longest, float(values[0]))
        elif kind == "l":
            self.dropped[values[1]] = int(values[0])
        else:
            one = (values[0], int(values[1]))
            if kind == "b":
                self.begun.add(one)
            elif kind[0] == "e":
                self.sent[kind[1]].add(one)
            else:
                self.came[kind].append(one)
                self.came[kind, name].append(one)


def storm(processes, prefix, folder, kills, seed):
    chance = random.Random(seed)
    weather = Storm(processes, prefix, folder)
    for _ in range(kills):
        time.sleep(chance.uniform(0.0, 0.06))  # the random instant
        weather.kill_one(chance)
    return weather, weather.end()


def test_killed_processes_cost_others_nothing(processes, prefix, tmp_path, is_long, tell):
    kills = 300 if is_long else 24
    weather, noted = storm(processes, prefix, tmp_path, kills, 1)
    counts = {kind: len(ones) for kind, ones in noted.came.items() if isinstance(kind, str)}
    lost = noted.sent["r"] - set(noted.came["r"])
    tell(
        f"{kills} kills: {counts} came, {len(lost)} lost by {weather.killed['read']} readers,"
        f" longest call {noted.longest:.3f} s"
    )
    assert noted.wrong == []
    # Nothing twice, nothing that nobody sent.
    assert [one for one, times in Counter(noted.came["r"]).items() if times > 1] == []
    assert set(noted.came["r"]) <= noted.begun
    # A killed reader has at most one message in hand.
    assert len(lost) <= weather.killed["read"]
    # The witness has all that was sent to it, once and in order, direct and through the group.
    direct, copies = noted.came["d"], noted.came["g", "witness-1"]
    assert noted.sent["d"] - set(direct) == set()
    missed = noted.sent["g"] - set(copies)
    assert missed == set(), f"dropped: {noted.dropped}"
    for ones in [direct, copies]:
        by_writer = defaultdict(list)
        for writer, number in ones:
            by_writer[writer].append(number)
        for numbers in by_writer.values():
            assert numbers == sorted(set(numbers))
    for file in tmp_path.glob("read-*"):
        copies = noted.came["g", file.name]
        assert len(copies) == len(set(copies))
    singly = noted.came["p"]
    assert len(singly) == len(set(singly))
    # Only the witness is left, and it has left since.
    assert weather.members == [weather.name]
    assert prefix.files() == []


def test_progress_is_made_between_any_two_kills(processes, prefix, tmp_path):
    """Whoever is killed, wherever: the rest goes on at once."""
    weather = Storm(processes, prefix, tmp_path)
    chance = random.Random(7)
    for _ in range(8):
        before = _size(tmp_path)
        weather.kill_one(chance)
        until(lambda at=before: _size(tmp_path) > at + 2000, "the others go on", 20)
    noted = weather.end()
    assert noted.wrong == []


def _size(folder):
    return sum(path.stat().st_size for path in folder.iterdir())
