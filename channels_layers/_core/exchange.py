"""What one client sends and receives inside its own process: the rules, without the waiting.

Laws: as in `mailboxes`, the caller holds the layer's lock, but for `receive` and `resume`, and
tells the time. Receivers that should be woken are returned, and the caller wakes them.

`offer`, `fan_out`, `receive` and `resume` are the path of every message. What would be a small
function elsewhere is written out in them: each call costs a twentieth of a send.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NoReturn

from ..errors import ChannelFull, LayerClosed
from .mailbox import Family, Line, Mailbox, Waiter
from .mailboxes import WEIGHED_BYTES, Mailboxes, Rules
from .statistics import Dropped, Tally


class Exchange:
    """Queues, groups and waiting receivers of one client."""

    def __init__(self, rules: Rules, new_waiter: Callable[[], Waiter]) -> None:
        self.mailboxes = Mailboxes(rules)
        self.by_name = self.mailboxes.by_name
        self.served = 0  # messages that were received so far, about
        self._new_waiter = new_waiter
        self._rules = rules
        self._expiry = rules.expiry
        self._tickets = 0  # receivers that have waited in a family or on several channels

    # Sending

    def offer(self, channel: str, payload: bytes, now: float) -> Waiter | None:
        """Queue `payload` on `channel`; return the receiver to wake.

        Raises:
            ChannelFull: the channel holds as many unread messages as it may.
        """
        mailboxes = self.mailboxes
        if now >= mailboxes.next_beat:
            mailboxes.beat(now)
        mailbox = self.by_name.get(channel)
        if mailbox is None:
            mailbox = mailboxes.open(channel, now)
        weight = None
        if (
            len(mailbox.letters) + len(mailbox.granted) >= mailbox.capacity
            or mailbox.family is not None
            or len(payload) > WEIGHED_BYTES
        ):
            if not mailboxes.has_room(mailbox, now):
                self._refuse(mailbox, now)
            if len(payload) > WEIGHED_BYTES:
                weight = mailboxes.weigh(payload)
                if weight is None:
                    self._refuse(mailbox, now)
        expires_at = now + self._expiry
        tally = mailbox.accepted
        if now >= tally.turns_at:
            tally.turn(now)
        tally.total += 1
        mailboxes.accepted.total += 1  # its seconds turn with the beat
        if not mailbox.is_expiring:
            mailboxes.watch(mailbox, expires_at)
        return mailbox.put((expires_at, payload, weight))

    def fan_out(self, group: str, payload: bytes, now: float) -> list[Waiter]:
        """Queue one copy of `payload` for each member of `group`; return the receivers to wake.

        A member without room misses it, and the loss is counted.
        """
        mailboxes = self.mailboxes
        if now >= mailboxes.next_beat:
            mailboxes.beat(now)
        weight = mailboxes.weigh(payload) if len(payload) > WEIGHED_BYTES else None
        has_memory = weight is not None or len(payload) <= WEIGHED_BYTES
        expires_at = now + self._expiry
        letter = (expires_at, payload, weight)
        woken = []
        copies = 0
        for mailbox, ends_at in list(mailboxes.groups.members(group).items()):
            letters = mailbox.letters
            if (ends_at <= now or (letters and letters[0][0] <= now)) and not self._is_member(
                group, mailbox, now
            ):
                continue
            if not has_memory or (
                (
                    len(letters) + len(mailbox.granted) >= mailbox.capacity
                    or mailbox.family is not None
                )
                and not mailboxes.has_room(mailbox, now)
            ):
                mailboxes.count_dropped(mailbox, Dropped.FULL)
                continue
            copies += 1
            tally = mailbox.accepted
            if now >= tally.turns_at:
                tally.turn(now)
            tally.total += 1
            if not mailbox.is_expiring:
                mailboxes.watch(mailbox, expires_at)
            waiter = mailbox.put(letter)
            if waiter is not None:
                woken.append(waiter)
        mailboxes.accepted.total += copies
        if weight is not None:
            mailboxes.share(weight, copies)
        return woken

    # Receiving

    def receive(self, channel: str, now: float) -> bytes | Waiter | None:
        """Take the oldest message of `channel`, or get in line for the next; without the lock.

        Returns:
            The payload; or a waiter that is in line; or None when `join` must look closer.
        """
        mailbox = self.by_name.get(channel)
        if mailbox is None or not mailbox.is_checked or mailbox.family is not None:
            return None
        letters = mailbox.letters
        if letters:
            try:
                if mailbox.granted or letters[0][0] <= now:
                    return None
                letter = letters.popleft()
            except IndexError:  # another thread's receiver was faster
                return None
            self.served = mailbox.served = self.served + 1
            mailbox.read_at = now
            if letter[2] is not None:
                self.mailboxes.lighten(letter, mailbox)
            return letter[1]
        waiter = self._new_waiter()
        waiter.mailbox = mailbox
        mailbox.waiting[waiter] = None
        # SYNC get-in-line: pairs with the look at `waiting` in Mailbox.put().
        # SYNC retire: pairs with the look at `waiting` in Mailboxes._retire_mailbox().
        if (mailbox.letters or self.by_name.get(channel) is not mailbox) and (
            mailbox.waiting.pop(waiter, self) is None
        ):
            return None
        return waiter

    def join(self, channels: Iterable[str], now: float) -> tuple[Waiter, bytes | None]:
        """Get in line on `channels`, behind those who wait already.

        Returns:
            The waiter; and its message, if there is one and nobody is before it. If not, it
            may have been granted one already, and must then be woken behind the others.
        """
        mailboxes = self.mailboxes
        if now >= mailboxes.next_beat:
            mailboxes.beat(now)
        lines: tuple[Line, ...] = tuple(
            mailboxes.open_family(name, now) if name.endswith("!") else mailboxes.open(name, now)
            for name in dict.fromkeys(channels)
        )
        for line in lines:
            line.read_at = now
            if isinstance(line, Mailbox):
                line.is_checked = True
                self._take_back_lost(line, now)
        self._tickets += 1
        return self._get_in_line(lines, self._tickets, now)

    def resume(self, waiter: Waiter, now: float) -> bytes | None:
        """Take the message that `waiter` was woken for; without the lock.

        None when `resume_slowly` must look closer.
        """
        mailbox = waiter.mailbox
        if mailbox is None or mailbox.family is not None or waiter.lines:
            return None
        letter = mailbox.granted.get(waiter)
        if letter is None or letter[0] <= now or mailbox.granted.pop(waiter, None) is None:
            return None
        self.served = mailbox.served = self.served + 1
        mailbox.read_at = now
        if letter[2] is not None:
            self.mailboxes.lighten(letter, mailbox)
        return letter[1]

    def resume_slowly(self, waiter: Waiter, now: float) -> tuple[Waiter, bytes | None]:
        """Take the message that `waiter` was woken for, or stay in line.

        Returns:
            The waiter and its message; or, when that is gone (expired or flushed), a new
            waiter that has its place at the front, as `join` returns it.

        Raises:
            LayerClosed: the layer was closed while it waited.
        """
        if waiter.is_closed:
            raise LayerClosed
        mailbox = waiter.mailbox
        lines = waiter.lines or _only(mailbox)
        for line in lines:
            line.read_at = now
        letter = None if mailbox is None else mailbox.granted.pop(waiter, None)
        if mailbox is not None and letter is not None:
            self.mailboxes.lighten(letter, mailbox)
            if letter[0] > now:
                self._count_served(mailbox)
                return waiter, letter[1]
            self.mailboxes.count_dropped(mailbox, Dropped.EXPIRED)
        for line in lines:
            line.waiting.pop(waiter, None)
        return self._get_in_line(lines, waiter.since, now, is_first=True)

    def leave(self, waiter: Waiter, now: float) -> Waiter | None:
        """Let a cancelled `waiter` go without a message; return who is to be woken instead."""
        mailbox = waiter.mailbox
        lines = waiter.lines or _only(mailbox)
        for line in lines:
            line.waiting.pop(waiter, None)
            line.read_at = now
        heir = None if mailbox is None else mailbox.take_back(waiter)
        for line in lines:
            self.mailboxes.retire(line, now)
        return heir

    # Groups

    def group_add(self, group: str, channel: str, now: float) -> None:
        """Make `channel` a member of `group`, or renew its membership."""
        mailbox = self.mailboxes.open(channel, now)
        self.mailboxes.groups.add(group, mailbox, now + self._rules.group_expiry)

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
        waiters: dict[Waiter, None] = {}
        for line in self.mailboxes.lines():
            waiters |= line.waiting
            for waiter in list(line.waiting):
                line.waiting.pop(waiter, None)
        for mailbox in list(self.by_name.values()):
            waiters |= dict.fromkeys(mailbox.granted)
            for waiter in reversed(list(mailbox.granted)):
                mailbox.take_back(waiter)
        for waiter in waiters:
            waiter.is_closed = True
        self.mailboxes.forget_client(client, now)
        return list(waiters)

    def _get_in_line(
        self, lines: tuple[Line, ...], since: int, now: float, *, is_first: bool = False
    ) -> tuple[Waiter, bytes | None]:
        """Let a new waiter wait at `lines`, and look whether one has a message for it."""
        waiter = self._new_waiter()
        only = lines[0]
        if len(lines) == 1 and isinstance(only, Mailbox) and only.family is None:
            waiter.mailbox = only  # the usual case, kept small
        else:
            waiter.lines = lines
            waiter.since = since
        for line in lines:
            if is_first:
                line.waiting = {waiter: None, **line.waiting}
            else:
                line.waiting[waiter] = None
        for line in sorted(lines, key=_last_served):
            mailbox = self._ready(line, now)
            if mailbox is not None:
                is_alone = not mailbox.granted
                # Where a message is in the queue nobody else waits: it is granted to `waiter`.
                mailbox.grant()
                if is_alone and waiter in mailbox.granted:
                    return self.resume_slowly(waiter, now)
                break
        return waiter, None

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

    def _take_back_lost(self, mailbox: Mailbox, now: float) -> None:
        """Pass on what was granted to receivers whose event loop closed before they resumed."""
        for lost in [waiter for waiter in mailbox.granted if waiter.is_lost()]:
            self.leave(lost, now)

    def _is_member(self, group: str, mailbox: Mailbox, now: float) -> bool:
        """Expire what is due in `mailbox`, then say whether it is still in `group`."""
        self.mailboxes.drop_expired(mailbox, now)
        ends_at = self.mailboxes.groups.members(group).get(mailbox)
        if ends_at is None:
            return False
        if self.mailboxes.is_member(mailbox, ends_at, now):
            return True
        self.mailboxes.groups.discard(group, mailbox)
        return False

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


def _only(mailbox: Mailbox | None) -> tuple[Line, ...]:
    return () if mailbox is None else (mailbox,)
