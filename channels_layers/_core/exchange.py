"""What one client sends and receives inside its own process: the rules, without the waiting.

Laws: as in `mailboxes`, the caller holds the layer's lock and tells the time. Receivers that
should be woken are returned, and the caller wakes them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NoReturn, TypeAlias

from ..errors import ChannelFull
from .mailbox import NEVER, Family, Line, Mailbox, Waiter
from .mailboxes import WEIGHED_BYTES, Mailboxes, Rules
from .statistics import Dropped, Tally

Taken: TypeAlias = tuple[str, bytes]  # full channel name, payload


class Exchange:
    """Queues, groups and waiting receivers of one client."""

    def __init__(self, rules: Rules) -> None:
        self.mailboxes = Mailboxes(rules)
        self._rules = rules
        self.by_name = self.mailboxes.by_name  # looked up at every call
        self._tickets = 0  # receivers that have waited so far
        self._served = 0  # messages that were received so far

    # Sending

    def offer(self, channel: str, payload: bytes, now: float) -> Waiter | None:
        """Queue `payload` on `channel`; return the receiver to wake.

        Raises:
            ChannelFull: the channel holds as many unread messages as it may.
        """
        mailboxes = self.mailboxes
        if now >= mailboxes.next_beat:
            mailboxes.beat(now)
        mailbox = self.by_name.get(channel) or mailboxes.open(channel, now)
        if (
            len(mailbox.letters) >= mailbox.capacity or mailbox.family is not None
        ) and not mailboxes.has_room(mailbox, now):
            self._refuse(mailbox, int(now))
        weight = None
        if len(payload) > WEIGHED_BYTES:
            weight = mailboxes.weigh(payload)
            if weight is None:
                self._refuse(mailbox, int(now))
        mailboxes.put(mailbox, (now + self._rules.expiry, payload, weight), int(now))
        mailboxes.accepted.add(1, int(now))
        return mailbox.grant() if mailbox.waiting or mailbox.family is not None else None

    def fan_out(self, group: str, payload: bytes, now: float) -> list[Waiter]:
        """Queue one copy of `payload` for each member of `group`; return the receivers to wake.

        A member without room misses it, and the loss is counted.
        """
        mailboxes = self.mailboxes
        if now >= mailboxes.next_beat:
            mailboxes.beat(now)
        weight = None
        if len(payload) > WEIGHED_BYTES:
            weight = mailboxes.weigh(payload)
        has_memory = weight is not None or len(payload) <= WEIGHED_BYTES
        letter = (now + self._rules.expiry, payload, weight)
        second = int(now)
        accepted = 0
        woken = []
        for mailbox, ends_at in list(mailboxes.groups.members(group).items()):
            letters = mailbox.letters
            if (ends_at <= now or (letters and letters[0][0] <= now)) and not self._is_member(
                group, mailbox, now
            ):
                continue
            is_plain = mailbox.family is None and len(letters) < mailbox.capacity
            if not has_memory or not (is_plain or mailboxes.has_room(mailbox, now)):
                mailboxes.count_dropped(mailbox, Dropped.FULL)
                continue
            mailboxes.put(mailbox, letter, second)
            accepted += 1
            waiter = mailbox.grant()
            if waiter is not None:
                woken.append(waiter)
        mailboxes.accepted.add(accepted, second)
        mailboxes.unweigh(weight)
        return woken

    # Receiving

    def take(self, channel: str, now: float) -> bytes | None:
        """Return the oldest message of `channel` if nobody is before the caller, else None.

        None may also mean that `join` must look closer.
        """
        mailboxes = self.mailboxes
        if now >= mailboxes.next_beat:
            mailboxes.beat(now)
        mailbox = self.by_name.get(channel)
        if mailbox is None or mailbox.permits or mailbox.read_at == NEVER:
            return None
        if not mailbox.letters or mailbox.letters[0][0] <= now:
            return None
        return self._hand_over(mailbox, 0, (mailbox,), now)[1]

    def join(self, channels: Iterable[str], waiter: Waiter, now: float) -> Taken | None:
        """Let `waiter` wait on `channels`, behind those who wait already.

        Returns:
            Its message, if there is one and nobody is before it. If not, it is in line; it may
            hold a permit already, and must then be woken to `resume` behind the others.
        """
        mailboxes = self.mailboxes
        waiter.lines = tuple(
            mailboxes.open_family(name, now) if name.endswith("!") else mailboxes.open(name, now)
            for name in dict.fromkeys(channels)
        )
        self._tickets += 1
        waiter.since = self._tickets
        for line in waiter.lines:
            line.waiting[waiter] = None
            line.read_at = now
            if isinstance(line, Mailbox):
                self._take_back_lost_permits(line, now)
        mailbox = self._grant_any(waiter, now)
        if mailbox is not None and mailbox.permits[0] is waiter:
            return self.resume(waiter, now)
        return None

    def resume(self, waiter: Waiter, now: float) -> Taken | None:
        """Let a woken `waiter` take its message.

        Returns:
            The channel and the payload; or None when the message is gone (expired or flushed)
            and the receiver is back in line, at the front.
        """
        for line in waiter.lines:
            line.read_at = now
        mailbox = waiter.permit
        while mailbox is not None:
            index = mailbox.redeem(waiter)
            self.mailboxes.drop_expired(mailbox, now)
            if index < len(mailbox.letters):
                return self._hand_over(mailbox, index, waiter.lines, now)
            for line in waiter.lines:
                line.waiting = {waiter: None, **line.waiting}
            mailbox = self._grant_any(waiter, now)
        return None

    def leave(self, waiter: Waiter, now: float) -> Waiter | None:
        """Let a cancelled `waiter` go without a message; return who is to be woken instead."""
        mailbox = waiter.permit
        for line in waiter.lines:
            line.waiting.pop(waiter, None)
            line.read_at = now
        heir = None
        if mailbox is not None:
            mailbox.redeem(waiter)
            heir = mailbox.grant()
        for line in waiter.lines:
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

        Messages on channels that are not its own stay.
        """
        waiters: dict[Waiter, None] = {}
        for line in list(self.mailboxes.lines()):
            waiters |= line.waiting
            line.waiting = {}
            if isinstance(line, Mailbox):
                waiters |= dict.fromkeys(line.permits)
                line.permits = []
        for waiter in waiters:
            waiter.lines = ()
            waiter.permit = None
        self.mailboxes.forget_client(client, now)
        return list(waiters)

    def _hand_over(
        self, mailbox: Mailbox, index: int, lines: Iterable[Line], now: float
    ) -> Taken:
        self._served += 1
        mailbox.served = self._served
        if mailbox.family is not None:
            mailbox.family.served = self._served
        for line in lines:
            line.read_at = now
        return mailbox.name, self.mailboxes.take(mailbox, index)[1]

    def _grant_any(self, waiter: Waiter, now: float) -> Mailbox | None:
        """Grant `waiter` a message, from the line that was served least recently."""
        for line in sorted(waiter.lines, key=_last_served):
            mailbox = self._unclaimed(line, now)
            if mailbox is not None:
                # Where a message is unclaimed nobody else waits, so it is `waiter` who gets it.
                mailbox.grant()
                return waiter.permit
        return None

    def _unclaimed(self, line: Line, now: float) -> Mailbox | None:
        """Return a mailbox of `line` that has a message without a permit."""
        if isinstance(line, Family):
            mailbox = line.unclaimed()
            while mailbox is not None and self.mailboxes.drop_expired(mailbox, now):
                mailbox = line.unclaimed()
            return mailbox
        mailbox = self.by_name[line.name]
        self.mailboxes.drop_expired(mailbox, now)
        return mailbox if mailbox.has_unclaimed else None

    def _take_back_lost_permits(self, mailbox: Mailbox, now: float) -> None:
        """Pass on the permits of receivers whose event loop has closed before they resumed."""
        for lost in [waiter for waiter in mailbox.permits if waiter.is_lost()]:
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

    def _refuse(self, mailbox: Mailbox, second: int) -> NoReturn:
        if mailbox.refused is None:
            mailbox.refused = Tally()
        mailbox.refused.add(1, second)
        self.mailboxes.refused.add(1, second)
        raise ChannelFull(mailbox.name, mailbox.capacity)


def _last_served(line: Line) -> int:
    return line.served
