"""All mailboxes of one client: how they come, fill, expire and go.

Laws: the caller holds the layer's lock during every call and tells the time; nothing here waits,
wakes or logs. What should be logged is left in `unlogged`.
"""

from __future__ import annotations

import sys
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from .capacity import Capacities
from .groups import Groups
from .ledger import Ledger
from .mailbox import NEVER, Copy, Family, Letter, Line, Mailbox, Waiter, Weight
from .names import client_of, non_local_part
from .statistics import Dropped, Statistics, Tally, statistics_of
from .wheel import Wheel

# A payload up to this size is bounded by its channel's capacity alone: weighing each message
# would cost a tenth of the time of sending it.
WEIGHED_BYTES: Final = 4096

_CHECKS_PER_BEAT: Final = 32  # due mailboxes looked at by one call: some 20 µs


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How long things last, in seconds, and how much may wait, in messages and bytes."""

    expiry: float
    group_expiry: float
    idle: float
    capacities: Capacities
    shares_capacity: bool  # among all channels of one non-local part
    renews_memberships: bool
    message_memory: int
    max_message_bytes: int


class Mailboxes:
    """The mailboxes of one client by channel name.

    One that has carried messages stays, for its numbers, until it is empty, groupless and idle.
    """

    def __init__(self, rules: Rules, lost_of: Callable[[Sequence[Waiter]], list[Waiter]]) -> None:
        self.rules = rules
        self._lost_of = lost_of
        self.by_name: dict[str, Mailbox] = {}
        self.groups = Groups()
        self.accepted = Tally()
        self.refused = Tally()
        self.dropped: Counter[Dropped] = Counter()
        self.unlogged: list[tuple[str, Dropped]] = []
        self.ledger: Ledger | None = None  # of the client's own channels
        self.heirs: list[Waiter] = []  # to be woken: they have got what lost receivers left
        self.next_beat = NEVER  # when to call beat() again
        self._families: dict[str, Family] = {}
        self._read_at: dict[str, float] = {}  # of process-specific channels without a mailbox
        self._weight_bytes = 0  # of the large payloads that wait
        self._lighter: deque[Weight] = deque()  # of copies that have been taken since
        self._expiring: Wheel[Mailbox] = Wheel()
        self._idling: Wheel[str] = Wheel()
        self._in_idling: set[str] = set()  # names, so that coming and going leaves one entry
        self._ending: Wheel[str] = Wheel()
        self._in_ending: set[str] = set()  # names, for the same reason
        self._due_expiring: list[Mailbox] = []
        self._due_idling: list[str] = []
        self._due_ending: list[str] = []

    # Coming and going

    def open(self, name: str, now: float) -> Mailbox:
        """Return the mailbox of a channel, a new one if there is none."""
        mailbox = self.by_name.get(name)
        if mailbox is None:
            mailbox = Mailbox(name, self.rules.capacities.of(name))
            mailbox.read_at = self._read_at.pop(name, NEVER)
            if self.ledger is not None and client_of(name) == self.ledger.owner:
                mailbox.ledger = self.ledger
            self.by_name[name] = mailbox
            self._watch_idling(name, now)
            prefix = non_local_part(name)
            if prefix is not None and (self.rules.shares_capacity or prefix in self._families):
                self._adopt(mailbox, self.open_family(prefix, now))
        return mailbox

    def open_family(self, prefix: str, now: float) -> Family:
        """Return the family of the channels that begin with `prefix`, which ends in "!"."""
        family = self._families.get(prefix)
        if family is None:
            family = self._families[prefix] = Family(prefix)
            self._watch_idling(prefix, now)
            members = [box for name, box in self.by_name.items() if name.startswith(prefix)]
            for mailbox in members:
                self._adopt(mailbox, family)
            # SYNC adopt: pairs with the look at `free_until` in Exchange.try_offer(). Whoever sends
            # without the lock has queued its letter before this, or sees the family and goes back.
            family.pending = sum(mailbox.unread for mailbox in members)
            family.granting.update(mailbox for mailbox in members if mailbox.granted)
            queued = [entry for mailbox in members for entry in _timed(mailbox)]
            queued.sort(key=lambda entry: entry[0])
            family.arrivals.extend((mailbox, letter) for _, mailbox, letter in queued)
        return family

    def open_line(self, name: str, now: float) -> Line:
        """Return the line in which a receiver of `name` waits."""
        return self.open_family(name, now) if name.endswith("!") else self.open(name, now)

    def open_again(self, line: Line, now: float) -> Line:
        """Return the line of the same name, which may have ended since."""
        found = self.open_line(line.name, now)
        if isinstance(found, Mailbox) and isinstance(line, Mailbox):
            found.is_staging = found.is_staging or line.is_staging
        return found

    def last_served(self, name: str) -> int:
        """Return the layer's count of receives at the last one that `name` served; 0: none yet."""
        line = self.by_name.get(name) or self._families.get(name)
        return 0 if line is None else line.served

    def has_family(self, name: str) -> bool:
        """Say whether receivers wait, or have waited, for all channels with the name's prefix."""
        return non_local_part(name) in self._families

    def retire(self, line: Line, now: float) -> None:
        """Let a mailbox or family go if nothing depends on it.

        One that has carried messages stays, with its numbers, until it is idle.
        """
        if line.waiting:
            return
        if isinstance(line, Mailbox):
            if not (line.accepted.total or line.refused or line.dropped):
                self._retire_mailbox(line, now)
        elif isinstance(line, Family) and not line.members and not self._was_read(line, now):
            self._families.pop(line.name, None)

    def is_read(self, mailbox: Mailbox, now: float) -> bool:
        """Say whether the channel has a live reader."""
        if mailbox.waiting or mailbox.granted or self._was_read(mailbox, now):
            return True
        family = mailbox.family
        return family is not None and (bool(family.waiting) or self._was_read(family, now))

    def clear(self, now: float) -> None:
        """Forget every message and every membership; receivers go on waiting."""
        for family in self._families.values():
            family.arrivals.clear()
        for mailbox in list(self.by_name.values()):
            self.empty(mailbox)
            self.groups.discard_all(mailbox)
            self.retire(mailbox, now)

    def forget_client(self, client: str, now: float) -> None:
        """Drop the unread messages and the memberships of the channels that `client` owns."""
        for mailbox in list(self.by_name.values()):
            if client_of(mailbox.name) == client:
                self.empty(mailbox)
                self.groups.discard_all(mailbox)
                self._retire_mailbox(mailbox, now)
            else:
                self.retire(mailbox, now)
        self._read_at.clear()

    def empty(self, mailbox: Mailbox, *, queued_only: bool = False) -> None:
        """Remove the unread messages of `mailbox`; with `queued_only` not what is granted."""
        while mailbox.letters:
            try:
                self.lighten(mailbox.letters.popleft(), mailbox)
            except IndexError:  # a receiver in another thread was faster
                break
        if queued_only:
            return
        for waiter in list(mailbox.granted):
            letter = mailbox.granted.pop(waiter, None)
            if letter is not None:
                self.lighten(letter, mailbox)

    # Memberships

    def add_member(self, group: str, mailbox: Mailbox, now: float) -> None:
        """Make `mailbox` a member of `group`, or renew its membership."""
        ends_at = now + self.rules.group_expiry
        self.groups.add(group, mailbox, ends_at)
        self._watch_ending(mailbox, ends_at, now)

    def _watch_ending(self, mailbox: Mailbox, ends_at: float, now: float) -> None:
        """Look at the memberships of `mailbox` when the first ends, if others are to hear of it.

        What ends later than the mailbox is looked at anyway is watched from then on, so that
        those who come and go leave nothing behind for long.
        """
        if self.groups.ended is None or ends_at - now > self.rules.idle:
            return
        if mailbox.name not in self._in_ending:
            self._in_ending.add(mailbox.name)
            self._ending.add(mailbox.name, ends_at)

    def _check_ending(self, name: str, now: float) -> None:
        self._in_ending.discard(name)
        mailbox = self.by_name.get(name)
        if mailbox is not None:
            self._end_memberships(mailbox, now)

    # Filling and expiring

    def watch(self, mailbox: Mailbox, expires_at: float) -> None:
        """Look at `mailbox` at `expires_at`, when its oldest message expires."""
        mailbox.is_expiring = True
        self._expiring.add(mailbox, expires_at)

    def lighten(self, letter: Letter, mailbox: Mailbox) -> None:
        """Account for a `letter` that has left `mailbox`; needs the lock only in a family."""
        if letter[2] is not None:
            self._lighter.append(letter[2])
        if mailbox.family is not None:
            mailbox.family.pending -= 1
        if mailbox.ledger is not None:
            mailbox.ledger.note(mailbox)

    def has_room(self, mailbox: Mailbox, now: float) -> bool:
        """Drop what has expired, and say whether `mailbox` may take one more message."""
        if mailbox.granted:
            self.take_back_lost(mailbox)
        self.drop_expired(mailbox, now)
        family = mailbox.family
        room = mailbox.capacity
        if mailbox.ledger is not None:
            room -= mailbox.ledger.coming(mailbox)
        if family is None or not self.rules.shares_capacity:
            return mailbox.unread < room
        while family.pending >= room:
            oldest = family.front()
            if oldest is None or not self.drop_expired(oldest, now):
                return False
        return True

    def drop_copy(self, mailbox: Mailbox) -> None:
        """Drop the newest copy of a group's message if more is queued than `mailbox` may hold.

        Who sent its last message directly had not heard of all copies, and was promised room.
        """
        family = mailbox.family
        if family is not None and self.rules.shares_capacity:
            queued, entries = family.queued, list(family.arrivals)
        else:
            entries = [(mailbox, letter) for letter in list(mailbox.letters)]
            queued = len(entries)
        if queued <= mailbox.capacity:
            return
        for member, letter in reversed(entries):
            if isinstance(letter, Copy):
                with suppress(ValueError):  # a receiver has it
                    member.letters.remove(letter)
                    self.lighten(letter, member)
                    self.count_dropped(member, Dropped.FULL)
                    return

    def take_back_all_lost(self, line: Line) -> None:
        """Take back what was granted at `line` to receivers whose loop closed."""
        if isinstance(line, Mailbox):
            self.take_back_lost(line)
        elif isinstance(line, Family):
            for mailbox in list(line.granting):
                self.take_back_lost(mailbox)
                if not mailbox.granted:
                    line.granting.discard(mailbox)

    def take_back_lost(self, mailbox: Mailbox) -> None:
        """Take back what was granted to receivers whose loop closed before they resumed."""
        if not mailbox.granted:
            return
        for waiter in self._lost_of(list(mailbox.granted)):
            heir = mailbox.take_back(waiter)
            if heir is not None:
                self.heirs.append(heir)

    def weigh(self, payload: bytes) -> Weight | None:
        """Count a large payload against the memory for messages; None when that is used up."""
        while self._lighter:
            weight = self._lighter.popleft()
            weight.copies -= 1
            if weight.copies <= 0:
                self._weight_bytes -= weight.size_bytes
        if self._weight_bytes + len(payload) > self.rules.message_memory:
            return None
        self._weight_bytes += len(payload)
        return Weight(len(payload))

    def share(self, weight: Weight, copies: int) -> None:
        """Let `copies` mailboxes hold the payload, and its sender no more."""
        weight.copies += copies
        self._lighter.append(weight)

    def drop_expired(self, mailbox: Mailbox, now: float) -> int:
        """Drop the messages of `mailbox` that have waited too long; return how many."""
        count = 0
        letters = mailbox.letters
        # One expiry per layer keeps the letters in the order of their ends.
        while letters and (letter := letters[0])[0] <= now:
            try:
                letters.remove(letter)  # and no other, should a receiver have just taken it
            except ValueError:
                continue
            self.lighten(letter, mailbox)
            count += 1
        if count:
            self.count_expired(mailbox, count, now)
        return count

    def count_expired(self, mailbox: Mailbox, count: int, now: float) -> None:
        """Count what expired unread; a channel that nobody reads leaves its groups."""
        self.count_dropped(mailbox, Dropped.EXPIRED, count)
        if "!" in mailbox.name and not self.is_read(mailbox, now):
            self.groups.end_all(mailbox)

    def count_dropped(self, mailbox: Mailbox, reason: Dropped, count: int = 1) -> None:
        """Count dropped messages of `mailbox`; the first of each reason is to be logged."""
        self.dropped[reason] += count
        if mailbox.dropped is None:
            mailbox.dropped = Counter()
        if not mailbox.dropped[reason]:
            self.unlogged.append((mailbox.name, reason))
        mailbox.dropped[reason] += count

    def is_member(self, mailbox: Mailbox, ends_at: float, now: float) -> bool:
        """Say whether a membership that would end at `ends_at` lasts, renewed by its reader."""
        if ends_at > now:
            return True
        if not self.rules.renews_memberships or "!" not in mailbox.name:
            return False
        if mailbox.waiting or mailbox.granted or (mailbox.family and mailbox.family.waiting):
            return True
        read_at = max(mailbox.read_at, mailbox.family.read_at if mailbox.family else NEVER)
        return read_at + self.rules.idle + self.rules.group_expiry > now

    # The passing of time

    def beat(self, now: float, most: int = _CHECKS_PER_BEAT) -> None:
        """Look at some of the mailboxes whose time has come, so that no call looks at all."""
        if now >= self.accepted.turns_at:
            self.accepted.turn(now)
        self._due_expiring += self._expiring.due(now)
        self._due_idling += self._idling.due(now)
        self._due_ending += self._ending.due(now)
        for _ in range(min(most, len(self._due_expiring))):
            self._expire(self._due_expiring.pop(), now)
        for _ in range(min(most, len(self._due_idling))):
            self._check_idle(self._due_idling.pop(), now)
        for _ in range(min(most, len(self._due_ending))):
            self._check_ending(self._due_ending.pop(), now)
        is_done = not (self._due_expiring or self._due_idling or self._due_ending)
        self.next_beat = int(now) + 1.0 if is_done else now

    def settle(self, now: float) -> None:
        """Look at all mailboxes whose time has come."""
        self.beat(now, sys.maxsize)

    def statistics(self, now: float) -> Statistics:
        """Return the numbers of all channels together."""
        self.settle(now)
        oldest = [letter[0] for box in self.by_name.values() if (letter := box.oldest())]
        return statistics_of(
            self.accepted,
            self.refused,
            self.dropped,
            pending=sum(mailbox.unread for mailbox in self.by_name.values()),
            max_age=max(0.0, now - (min(oldest) - self.rules.expiry)) if oldest else 0.0,
            now=now,
        )

    def channel_statistics(self, name: str, now: float) -> Statistics:
        """Return the numbers of one channel since it came to life."""
        mailbox = self.by_name.get(name)
        if mailbox is None:
            return statistics_of(Tally(), Tally(), Counter(), pending=0, max_age=0.0, now=now)
        self.drop_expired(mailbox, now)
        oldest = mailbox.oldest()
        return statistics_of(
            mailbox.accepted,
            mailbox.refused or Tally(),
            mailbox.dropped or Counter(),
            pending=mailbox.unread,
            max_age=max(0.0, now - (oldest[0] - self.rules.expiry)) if oldest else 0.0,
            now=now,
        )

    def lines(self) -> Iterator[Line]:
        """Return all mailboxes and families."""
        yield from self.by_name.values()
        yield from self._families.values()

    def _adopt(self, mailbox: Mailbox, family: Family) -> None:
        mailbox.family = family
        mailbox.free_until = 0
        family.members += 1

    def _retire_mailbox(self, mailbox: Mailbox, now: float) -> None:
        if mailbox.letters or mailbox.granted or mailbox.groups or not self._is_here(mailbox):
            return
        del self.by_name[mailbox.name]
        # SYNC retire: pairs with the look at `by_name` in Exchange.receive(). Whoever got in
        # line, or sent, before the mailbox was gone is seen here; after that it sees it gone.
        if mailbox.waiting or mailbox.letters:
            self.by_name[mailbox.name] = mailbox
            return
        ledger = mailbox.ledger
        if ledger is not None and ledger.ended is not None and mailbox.accepted.total:
            ledger.ended.append(mailbox.name)
        if mailbox.family is not None:
            mailbox.family.members -= 1
            mailbox.family.granting.discard(mailbox)
        if "!" in mailbox.name and self._was_read(mailbox, now):
            # Whether it has a live reader must be known when it joins a group later.
            self._read_at[mailbox.name] = mailbox.read_at
            self._watch_idling(mailbox.name, now)

    def _was_read(self, line: Line, now: float) -> bool:
        return line.read_at + self.rules.idle > now

    def _expire(self, mailbox: Mailbox, now: float) -> None:
        mailbox.is_expiring = False
        self.take_back_lost(mailbox)
        self.drop_expired(mailbox, now)
        oldest = mailbox.oldest()
        if oldest is not None:
            # What was granted has a second more to be taken, or to be lost with its receiver.
            self.watch(mailbox, oldest[0] if mailbox.letters else max(oldest[0], now + 1.0))
        elif not self.is_read(mailbox, now):
            self.retire(mailbox, now)

    def _check_idle(self, name: str, now: float) -> None:
        self._in_idling.discard(name)
        line = self.by_name.get(name) or self._families.get(name)
        if line is None:
            if self._read_at.get(name, NEVER) + self.rules.idle > now:
                self._watch_idling(name, now)
            else:
                self._read_at.pop(name, None)
            return
        for waiter in self._lost_of(list(line.waiting)):
            line.waiting.pop(waiter, None)
        if isinstance(line, Mailbox):
            self.take_back_lost(line)
            self._end_memberships(line, now)
        if not line.waiting and not self._was_read(line, now):
            self._end(line, now)
        if self._is_here(line):
            self._watch_idling(name, now)

    def _end_memberships(self, mailbox: Mailbox, now: float) -> None:
        lasting = []
        for group, ends_at in self.groups.of(mailbox):
            if not self.is_member(mailbox, ends_at, now):
                self.groups.end(group, mailbox)
            elif ends_at > now:  # and is not renewed by its reader
                lasting.append(ends_at)
        if lasting:
            self._watch_ending(mailbox, min(lasting), now)

    def _end(self, line: Line, now: float) -> None:
        if isinstance(line, Mailbox):
            self._retire_mailbox(line, now)
        else:
            self.retire(line, now)

    def _watch_idling(self, name: str, now: float) -> None:
        if name not in self._in_idling:
            self._in_idling.add(name)
            self._idling.add(name, now + self.rules.idle)

    def _is_here(self, line: Line) -> bool:
        lines = self.by_name if isinstance(line, Mailbox) else self._families
        return lines.get(line.name) is line


def _timed(mailbox: Mailbox) -> list[tuple[float, Mailbox, Letter]]:
    """Return the letters with about the time of their arrival, which never decreases.

    That is when they expire. Letters of other processes may have shorter lives than those before
    them, and still come after them.
    """
    latest = 0.0
    timed = []
    for letter in list(mailbox.letters):  # a receiver in another thread may take one
        latest = max(latest, letter[0])
        timed.append((latest, mailbox, letter))
    return timed
