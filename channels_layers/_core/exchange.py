"""What one client sends and receives inside its own process: the rules, without the waiting.

Laws: as in `mailboxes`, the caller holds the layer's lock, but for `try_offer`, `receive` and
`resume`, and tells the time. Receivers that should be woken are returned; the caller wakes them.

`try_offer`, `fan_out`, `receive` and `resume` are the path of every message. What would be a
small function elsewhere is written out in them: each call costs a twentieth of a send.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final, NoReturn, cast

from ..errors import ChannelFull, MessageTooLarge
from .ledger import Ledger
from .mailbox import NEVER, Copy, Family, Letter, Line, Mailbox, Place, Waiter
from .mailboxes import WEIGHED_BYTES, Mailboxes, Rules
from .names import check_channel
from .patience import Asking
from .statistics import Dropped, Tally

# A receiver that finds its message waiting returns at once, but for one in so many calls, which
# lets the other tasks run first; a pass of the loop costs as much as several messages.
_CALLS_PER_PAUSE: Final = 64
# What came later expires later, as far as that is within the precision of others' clocks: the
# order of several channels is that of the ends of their messages.
_PRECISION_S: Final = 0.01
_TICK_S: Final = 1e-7
_PAUSE_MASK: Final = 63  # a sender pauses whenever 64 more messages than before are unread


class Exchange:
    """Queues, groups and waiting receivers of one client."""

    def __init__(
        self,
        rules: Rules,
        new_waiter: Callable[[], Waiter],
        wake_soon: Callable[[Waiter], None],
        lost_of: Callable[[Sequence[Waiter]], list[Waiter]],
    ) -> None:
        self.mailboxes = Mailboxes(rules, lost_of)
        self.by_name = self.mailboxes.by_name
        self.served = 1  # messages that were received so far, about
        self.next_beat = NEVER  # when something may be due
        self.session = object()  # another one after each shut()
        self._new_waiter = new_waiter
        self._wake_soon = wake_soon
        self._rules = rules
        self._expiry = rules.expiry
        self.accepted = self.mailboxes.accepted
        self.unlogged = self.mailboxes.unlogged
        self.heirs = self.mailboxes.heirs
        self._light_bytes = min(WEIGHED_BYTES, rules.max_message_bytes)
        self._last_end = 0.0  # of the last message that came from others
        self._tickets = 0  # receivers that have waited in a family or on several channels

    # Sending

    def try_offer(self, channel: str, payload: bytes, now: float) -> bool:
        """Queue `payload` on `channel` without the lock, where that is possible.

        False when it was not queued and `offer` must do it.
        """
        mailbox = self.by_name.get(channel)
        if mailbox is None or now >= self.next_beat or len(payload) > self._light_bytes:
            return False
        # SYNC own-queue: pairs with the order in Mailbox._own_queue(). Looked at first, so that
        # where there is room the queue is the mailbox's own.
        free_until = mailbox.free_until
        letters = mailbox.letters
        queued = len(letters)
        if queued >= free_until or queued & _PAUSE_MASK == _PAUSE_MASK or mailbox.waiting:
            return False
        letter = (now + self._expiry, payload, None)
        letters.append(letter)
        # SYNC get-in-line: pairs with the look at `letters` in receive().
        # SYNC retire: pairs with the look at `letters` in Mailboxes._retire_mailbox().
        # SYNC adopt: pairs with the look at `letters` in Mailboxes.open_family().
        if (
            mailbox.waiting
            or not mailbox.is_expiring
            or len(letters) > mailbox.free_until
            or self.by_name.get(channel) is not mailbox
        ):
            try:
                letters.remove(letter)
            except ValueError:
                pass  # somebody has it already
            else:
                return False
        tally = mailbox.accepted
        if now >= tally.turns_at:
            tally.turn(now)
        tally.total += 1
        self.accepted.total += 1  # its seconds turn with the beat
        return True

    def offer(self, channel: str, payload: bytes, now: float) -> Waiter | None:
        """Queue `payload` on `channel`; return the receiver to wake.

        Raises:
            ChannelFull: the channel holds as many unread messages as it may.
            InvalidName: `channel` breaks the rule for names.
            MessageTooLarge: `payload` is longer than a message may be.
        """
        if len(payload) > self._rules.max_message_bytes:
            raise MessageTooLarge(len(payload), self._rules.max_message_bytes)
        if now >= self.next_beat:
            self._beat(now)
        mailboxes = self.mailboxes
        mailbox = self.by_name.get(channel)
        if mailbox is None:
            mailbox = mailboxes.open(check_channel(channel), now)
        if not mailboxes.has_room(mailbox, now):
            self._refuse(mailbox, now)
        weight = None
        if len(payload) > WEIGHED_BYTES:
            weight = mailboxes.weigh(payload)
            if weight is None:
                self._refuse(mailbox, now)
        return self._put(mailbox, (now + self._expiry, payload, weight), now)

    def fan_out(  # noqa: C901  # one pass over all members, written out
        self, group: str, payload: bytes, now: float, lifetime: float | None = None
    ) -> list[Waiter]:
        """Queue one copy of `payload` for each member of `group`; return the receivers to wake.

        A member without room misses it, and the loss is counted. The copies expire in `lifetime`
        seconds, or as all messages that are sent here.
        """
        if now >= self.next_beat:
            self._beat(now)
        mailboxes = self.mailboxes
        weight = mailboxes.weigh(payload) if len(payload) > WEIGHED_BYTES else None
        has_memory = weight is not None or len(payload) <= WEIGHED_BYTES
        letter = Copy((now + (self._expiry if lifetime is None else lifetime), payload, weight))
        woken = []
        unusual = []
        members = mailboxes.groups.members(group)
        for mailbox, ends_at in members.items():
            letters = mailbox.letters
            if (
                ends_at <= now
                or not mailbox.is_expiring
                or mailbox.family is not None
                or len(letters) + len(mailbox.granted) >= mailbox.capacity
                or (letters and letters[0][0] <= now)
                or not has_memory
            ):
                unusual.append(mailbox)  # it may leave the group, which must not change here
                continue
            tally = mailbox.accepted
            if now >= tally.turns_at:
                tally.turn(now)
            tally.total += 1
            waiter = mailbox.put_untold(letter)
            if waiter is not None:
                woken.append(waiter)
            elif (ledger := mailbox.ledger) is not None:
                if ledger.tells_later:
                    ledger.changed[mailbox] = None
                else:
                    ledger.note(mailbox)
        copies = len(members) - len(unusual)
        for mailbox in unusual:
            if self._may_have_copy(group, mailbox, now, has_memory=has_memory):
                copies += 1
                waiter = mailbox.put(letter)
                if waiter is not None:
                    woken.append(waiter)
        self.accepted.total += copies
        if weight is not None:
            mailboxes.share(weight, copies)
        return woken

    # Receiving

    def receive(self, channel: str, clock: Callable[[], float]) -> bytes | Waiter | None:
        """Take the oldest message of `channel`, or get in line for the next; without the lock.

        Returns:
            The payload; or a waiter that is in line, or will be woken; or None when `join`
            must look closer.
        """
        mailbox = self.by_name.get(channel)
        if mailbox is None or not mailbox.is_checked or mailbox.family is not None:
            return None
        letters = mailbox.letters
        if letters:
            now = clock()
            try:
                if (
                    mailbox.granted
                    or letters[0][0] <= now
                    or not self.served % _CALLS_PER_PAUSE  # join() lets the other tasks run
                ):
                    return None
                letter = letters.popleft()
            except IndexError:  # another thread's receiver was faster
                return None
            self.served = mailbox.served = self.served + 1
            mailbox.read_at = now
            if letter[2] is not None:
                self.mailboxes.lighten(letter, mailbox)
            elif (ledger := mailbox.ledger) is not None:
                if ledger.tells_later or not ledger.is_note_due(len(letters), mailbox.capacity):
                    ledger.changed[mailbox] = None
                else:
                    ledger.note(mailbox)
            return letter[1]
        if mailbox.granted:  # perhaps to a receiver whose loop has closed: join() looks
            return None
        waiter = self._new_waiter()
        mailbox.waiting[waiter] = None
        # SYNC get-in-line: pairs with the look at `waiting` in Mailbox.put().
        # SYNC retire: pairs with the look at `waiting` in Mailboxes._retire_mailbox().
        if (mailbox.letters or self.by_name.get(channel) is not mailbox) and (
            mailbox.waiting.pop(waiter, self) is None
        ):
            return None
        return waiter

    def resume(self, channel: str, waiter: Waiter, clock: Callable[[], float]) -> bytes | None:
        """Take the message that a waiter of `receive` was woken for; without the lock.

        None when `resume_slowly` must look closer.
        """
        mailbox = self.by_name.get(channel)
        if mailbox is None or mailbox.family is not None:
            return None
        now = clock()
        letter = mailbox.granted.get(waiter)
        if letter is None or letter[0] <= now:
            return None
        letter = mailbox.granted.pop(waiter, None)
        if letter is None:  # another thread has flushed the layer, or moved the letters
            return None
        self.served = mailbox.served = self.served + 1
        mailbox.read_at = now
        if letter[2] is not None:
            self.mailboxes.lighten(letter, mailbox)
        return letter[1]

    def admit(self, channel: str, now: float) -> None:
        """Let `receive` serve `channel`, which this client may read."""
        self.mailboxes.open(channel, now).is_checked = True

    def join(
        self, channels: Iterable[str], now: float, asking: Asking | None = None
    ) -> tuple[Place, bytes | None]:
        """Get in line on `channels`, behind those who wait already.

        While others are being asked for messages of some of the channels, it gets in line only
        where that takes none from here, and takes none; `join_rest` is to follow.

        Returns:
            The place; and a message, if there is one and nobody is before it. If not, the place
            is in line, or was granted one behind the others and will be woken.
        """
        if now >= self.next_beat:
            self._beat(now)
        mailboxes = self.mailboxes
        lines = tuple(mailboxes.open_line(name, now) for name in dict.fromkeys(channels))
        for line in lines:
            line.read_at = now
            mailboxes.take_back_all_lost(line)
        self._tickets += 1
        place = Place(self._new_waiter(), lines, self._tickets)
        if asking is not None:
            for line in lines:
                is_asked = line.name in asking.names
                if is_asked or not (asking.is_alone or self._ready(line, now)):
                    line.waiting[place.waiter] = place
            return place, None
        for line in lines:
            line.waiting[place.waiter] = place
        return self._look_around(place, now)

    def join_rest(self, place: Place, now: float) -> tuple[Place, bytes | None]:
        """Get in line also where `place` has left messages to others; returns as `join` does."""
        if place.mailbox is not None:
            return self.resume_slowly(place, now)
        # By name: a flush may have ended the mailboxes in which it does not wait.
        place.lines = tuple(self.mailboxes.open_again(line, now) for line in place.lines)
        for line in place.lines:
            line.waiting.setdefault(place.waiter, place)
        return self._look_around(place, now)

    def resume_slowly(self, place: Place, now: float) -> tuple[Place, bytes | None]:
        """Take the message that `place` was woken for, or stay in line.

        Returns:
            The place and its message; or, when that is gone (expired or flushed), a new place
            at the front, as `join` returns it.
        """
        for line in place.lines:
            line.read_at = now
        mailbox = place.mailbox
        letter = None if mailbox is None else mailbox.granted.pop(place.waiter, None)
        if mailbox is not None and letter is not None:
            self.mailboxes.lighten(letter, mailbox)
            if letter[0] > now:
                self._count_served(mailbox)
                return place, letter[1]
            self.mailboxes.count_dropped(mailbox, Dropped.EXPIRED)
        for line in place.lines:
            line.waiting.pop(place.waiter, None)
        # By name: a flush may have ended the mailboxes in which it waited.
        lines = tuple(self.mailboxes.open_again(line, now) for line in place.lines)
        heir = Place(self._new_waiter(), lines, place.since)
        for line in heir.lines:
            # No call and no loop in this line, so no other thread can get in line meanwhile.
            line.waiting = {heir.waiter: heir, **line.waiting}
        return self._look_around(heir, now)

    def place_of(self, channel: str, waiter: Waiter) -> Place:
        """Return the place of a waiter of `receive`."""
        mailbox = self.by_name.get(channel)
        if mailbox is None:
            return Place(waiter, (Mailbox(channel, 1),), 0)  # for its name: it has ended
        place = Place(waiter, (mailbox,), 0)
        place.mailbox = mailbox
        return place

    def leave(self, place: Place, now: float) -> Waiter | None:
        """Let a cancelled receiver go without a message; return who is to be woken instead."""
        for line in place.lines:
            line.waiting.pop(place.waiter, None)
            line.read_at = now
        heir = None if place.mailbox is None else place.mailbox.take_back(place.waiter)
        for line in place.lines:
            self.mailboxes.retire(line, now)
        return heir

    def bury(self, lost: Iterable[Waiter]) -> list[Waiter]:
        """Pass on what was granted to receivers that can never resume; looks at all mailboxes.

        Returns:
            The receivers that are to be woken instead.
        """
        dead = set(lost)
        heirs = []
        for mailbox in list(self.by_name.values()):
            heirs += [mailbox.take_back(waiter) for waiter in dead & mailbox.granted.keys()]
        return [heir for heir in heirs if heir is not None]

    def is_pause_due(self, channel: str) -> bool:
        """Say whether a sender on `channel` should let the readers run."""
        mailbox = self.by_name.get(channel)
        return mailbox is not None and not (mailbox.unread & _PAUSE_MASK)

    # With a backend

    def keep_ledger(self, ledger: Ledger) -> None:
        """Tell others by `ledger` how full the client's own channels are; before any is used."""
        self.mailboxes.ledger = ledger

    def offer_here(self, channel: str, payload: bytes, now: float) -> tuple[bool, Waiter | None]:
        """Queue a message on an own channel that others write to as well, if that is exact.

        Nothing that was sent before may still be on its way to `channel`.

        Returns:
            Whether it was queued; if not, it must go the way of all others. And whom to wake.

        Raises:
            ChannelFull: the channel holds as many unread messages as it may.
        """
        if now >= self.next_beat:
            self._beat(now)
        mailbox = self.by_name.get(channel) or self.mailboxes.open(check_channel(channel), now)
        ledger = mailbox.ledger
        if ledger is None or mailbox.family is not None or len(payload) > WEIGHED_BYTES:
            return False, None
        has_room = self.mailboxes.has_room(mailbox, now)
        if mailbox.letters or not mailbox.waiting:
            place = mailbox.place
            if not place:
                return False, None
            # SYNC claim: pairs with the look at `queued` in Inbox.offer(). Counted first, so that
            # this or the other process sees that the last room is taken.
            ledger.counts[place] = mailbox.queued + 1
            if ledger.counts[place - 1]:
                ledger.note(mailbox)
                return False, None
        if not has_room:
            ledger.note(mailbox)
            self._refuse(mailbox, now)
        return True, self._put(mailbox, (now + self._expiry, payload, None), now)

    def accept(
        self, channel: str, payload: bytes, lifetime: float, now: float
    ) -> tuple[Waiter | None, Mailbox]:
        """Queue a message on an own channel that has been counted as having room for it."""
        mailbox = self.by_name.get(channel) or self.mailboxes.open(channel, now)
        tally = mailbox.accepted
        if now >= tally.turns_at:
            tally.turn(now)
        tally.total += 1
        self.accepted.total += 1
        if lifetime <= 0:
            self.mailboxes.count_expired(mailbox, 1, now)
            return None, mailbox
        weight = self.mailboxes.weigh(payload) if len(payload) > WEIGHED_BYTES else None
        ends_at = now + lifetime
        if 0 <= self._last_end - ends_at < _PRECISION_S:
            ends_at = self._last_end + _TICK_S
        self._last_end = ends_at
        letter = (ends_at, payload, weight)
        if not mailbox.is_expiring:
            self.mailboxes.watch(mailbox, letter[0])
        waiter = mailbox.put_untold(letter)
        if waiter is None:
            if mailbox.ledger is not None:
                mailbox.ledger.changed[mailbox] = None
            if len(mailbox.letters) > mailbox.capacity or mailbox.family is not None:
                self.mailboxes.drop_copy(mailbox)
        return waiter, mailbox

    def _put(self, mailbox: Mailbox, letter: Letter, now: float) -> Waiter | None:
        mailbox.accepted.add(1, now)
        self.accepted.total += 1
        if not mailbox.is_expiring:
            self.mailboxes.watch(mailbox, letter[0])
        return mailbox.put(letter)

    def tell_gap(self, payload: bytes, now: float) -> list[Waiter]:
        """Queue `payload` for every channel with a live reader; return the receivers to wake."""
        read = [box for box in self.by_name.values() if self.mailboxes.is_read(box, now)]
        letter = (now + self._expiry, payload, None)
        # A channel that lives in the backend has nothing to queue, but for who waits here.
        told = [mailbox for mailbox in read if mailbox.waiting or not mailbox.is_staging]
        found = [mailbox.put(letter) for mailbox in told]
        return [waiter for waiter in found if waiter is not None]

    def stage(self, channel: str, now: float) -> None:
        """Let `channel` be one that lives in the backend, with only its receivers here."""
        self.mailboxes.open(channel, now).is_staging = True

    def hand(self, channel: str, payload: bytes, lifetime: float, now: float) -> Waiter | None:
        """Give `payload` to a receiver of a channel that lives in the backend, if one waits."""
        mailbox = self.by_name.get(channel)
        if mailbox is None and self.mailboxes.has_family(channel):
            self.stage(channel, now)
            mailbox = self.by_name[channel]
        if mailbox is None or not (mailbox.waiting or mailbox.family is not None):
            return None
        letter = (now + lifetime, payload, None)
        waiter = mailbox.put(letter)
        if waiter is None:
            mailbox.letters.remove(letter)
            self.mailboxes.lighten(letter, mailbox)
        return waiter

    def take_ended(self) -> list[tuple[str, str]]:
        """Return the memberships (group, channel) that have ended here since the last call."""
        groups = self.mailboxes.groups
        ended, groups.ended = groups.ended or [], []
        return [
            (group, channel)
            for group, channel in ended
            if self.by_name.get(channel) not in groups.members(group)
        ]

    def take_surplus(self, line: Line, now: float) -> list[tuple[str, list[tuple[bytes, float]]]]:
        """Remove what receivers of channels of the backend have left behind at `line`.

        Returns:
            By channel, the payloads with the seconds that each has left, oldest first.
        """
        surplus: list[tuple[str, list[tuple[bytes, float]]]] = []
        mailbox = line if isinstance(line, Mailbox) else cast("Family", line).front()
        while mailbox is not None and mailbox.letters and not line.waiting:
            letters = [(letter[1], letter[0] - now) for letter in mailbox.letters]
            surplus.append((mailbox.name, letters))
            self.mailboxes.empty(mailbox, queued_only=True)
            mailbox = None if isinstance(line, Mailbox) else cast("Family", line).front()
        return surplus

    def group_add(self, group: str, channel: str, now: float) -> None:
        """Make `channel` a member of `group`, or renew its membership."""
        mailbox = self.mailboxes.open(channel, now)
        self.mailboxes.add_member(group, mailbox, now)

    def group_discard(self, group: str, channel: str, now: float) -> None:
        """End the membership of `channel` in `group`, if there is one."""
        mailbox = self.by_name.get(channel)
        if mailbox is not None:
            self.mailboxes.groups.discard(group, mailbox)
            self.mailboxes.retire(mailbox, now)

    def group_channels(self, group: str, now: float) -> list[str]:
        """Return the names of the current members of `group`."""
        members = list(self.mailboxes.groups.members(group))
        return [mailbox.name for mailbox in members if self._is_member(group, mailbox, now)]

    # Ending

    def shut(self, client: str, now: float) -> list[Waiter]:
        """Drop what is `client`'s own, and return every receiver, none of them in line any more.

        Messages on channels that are not its own stay, also those that a receiver was woken for.
        """
        self.session = object()
        waiters: dict[Waiter, None] = {}
        for line in self.mailboxes.lines():
            waiting = list(line.waiting)
            waiters |= dict.fromkeys(waiting)
            for waiter in waiting:
                line.waiting.pop(waiter, None)
        for mailbox in list(self.by_name.values()):
            granted = list(mailbox.granted)
            waiters |= dict.fromkeys(granted)
            for waiter in reversed(granted):
                mailbox.take_back(waiter)
        self.mailboxes.forget_client(client, now)
        return list(waiters)

    def _beat(self, now: float) -> None:
        self.mailboxes.beat(now)
        self.next_beat = self.mailboxes.next_beat

    def _look_around(self, place: Place, now: float) -> tuple[Place, bytes | None]:
        """Take a message for `place`, which is in line, from the line served least recently."""
        for line in sorted(place.lines, key=_last_served):
            mailbox = self._ready(line, now)
            if mailbox is not None:
                is_alone = not mailbox.granted
                # Where a message is in the queue nobody else waits: it is granted to `place`.
                mailbox.grant()
                if is_alone and place.mailbox is mailbox and self.served % _CALLS_PER_PAUSE:
                    return self.resume_slowly(place, now)
                self._wake_soon(place.waiter)
                break
        return place, None

    def _ready(self, line: Line, now: float) -> Mailbox | None:
        """Return a mailbox of `line` with a message that nobody was woken for."""
        if isinstance(line, Family):
            mailbox = line.front()
            while mailbox is not None and self.mailboxes.drop_expired(mailbox, now):
                mailbox = line.front()
            return mailbox
        mailbox = self.by_name[line.name]
        self.mailboxes.drop_expired(mailbox, now)
        return mailbox if mailbox.letters else None

    def _is_member(self, group: str, mailbox: Mailbox, now: float) -> bool:
        """Expire what is due in `mailbox`, then say whether it is still in `group`."""
        self.mailboxes.drop_expired(mailbox, now)
        ends_at = self.mailboxes.groups.members(group).get(mailbox)
        if ends_at is None:
            return False
        if self.mailboxes.is_member(mailbox, ends_at, now):
            return True
        self.mailboxes.groups.end(group, mailbox)
        return False

    def _may_have_copy(self, group: str, mailbox: Mailbox, now: float, *, has_memory: bool) -> bool:
        """Say whether `mailbox` is still a member of `group` and has room; count it if so."""
        if not self._is_member(group, mailbox, now):
            return False
        if not has_memory or not self.mailboxes.has_room(mailbox, now):
            self.mailboxes.count_dropped(mailbox, Dropped.FULL)
            return False
        mailbox.accepted.add(1, now)
        if not mailbox.is_expiring:
            self.mailboxes.watch(mailbox, now + self._expiry)
        return True

    def _count_served(self, mailbox: Mailbox) -> None:
        self.served = mailbox.served = self.served + 1
        if mailbox.family is not None:
            mailbox.family.served = self.served

    def _refuse(self, mailbox: Mailbox, now: float) -> NoReturn:
        if mailbox.refused is None:
            mailbox.refused = Tally()
        mailbox.refused.add(1, now)
        self.mailboxes.refused.add(1, now)
        raise ChannelFull(mailbox.name, mailbox.capacity)


def _last_served(line: Line) -> int:
    return line.served
