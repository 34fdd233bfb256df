"""The copies of one group message that go to other clients and into queues."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from ._errors import HeldMidway, SegmentClosed, SegmentDamaged, SegmentHeld, SharedMemoryFull
from ._jobs import Job, completed
from ._layout import GROUP_MESSAGE
from ._routes import QueueRoute, pushed

if TYPE_CHECKING:
    from ._attachment import Attachment
    from ._peer import Peer


class Copies:
    """What becomes of them; a member without room misses the message, which is counted.

    All are on their way, each in its turn, before `arrive` waits for the first: whatever this
    client sends afterwards comes after them.
    """

    def __init__(self, attached: Attachment, group: str, payload: bytes, expires_at: float) -> None:
        """Begin with no copies.

        Args:
            attached: Who sends.
            group: To whom.
            payload: The encoded message.
            expires_at: Seconds on the machine's clock.
        """
        self._attached = attached
        self._group = group
        self._payload = payload
        self._expires_at = expires_at
        self._jobs: list[Job[None]] = []
        self._is_put = False  # at least one of them
        self._problem: Exception | None = None  # why one was missed

    def send(self, peer: Peer) -> None:
        """Put one copy for all members of a client into its inbox."""
        attached, inbox = self._attached, peer.inbox
        large, owner, longest = attached.place.large, peer.row.id, inbox.longest_payload
        parcel = large.parcel(owner, self._payload, longest, self._expires_at)
        name, epoch = self._group.encode(), attached.place.epoch

        def push() -> None:
            try:
                parcel.check()
                kind = GROUP_MESSAGE | parcel.flag
                is_put = inbox.push(kind, name, parcel.payload, self._expires_at, epoch)
            except SegmentDamaged:
                inbox.reset()
                is_put = False
            except SharedMemoryFull as exc:
                self._problem = exc
                is_put = False
            if is_put:
                self._is_put = True
            else:
                inbox.miss(self._group)
                parcel.drop()
            peer.wake()

        with contextlib.suppress(SegmentClosed):  # a client that is gone has no members
            self._post(
                attached.line_of(peer).post(push, before=parcel.prepare, otherwise=parcel.drop)
            )

    def enqueue(self, channel: str, capacity: int) -> None:
        """Put one copy into the queue of a member that no client owns."""
        attached = self._attached
        try:
            queue = attached.place.queues.of(channel)
        except SharedMemoryFull as exc:
            self._problem = exc
            attached.own.inbox.miss()
            return
        route = QueueRoute(attached, queue, channel, capacity)
        large, longest = attached.place.large, route.longest
        parcel = large.parcel(route.owner, self._payload, longest, self._expires_at)

        def copy() -> int | None:
            parcel.check()
            return route.copy(parcel.payload, self._expires_at, parcel.flag)

        def push() -> None:
            try:
                slot = pushed(route, copy)
            except SharedMemoryFull as exc:
                self._problem = exc
                route.miss()
                slot = None
            if slot is not None:
                self._is_put = True
                attached.wake(slot, channel)
            else:
                parcel.drop()

        self._post(route.line.post(push, before=parcel.prepare, otherwise=parcel.drop))

    async def arrive(self, *, has_own: bool) -> None:
        """Wait until all are where they should be.

        Args:
            has_own: Whether the message has reached members of this client already.

        Raises:
            SharedMemoryFull: nobody got it, for want of memory.
            HeldMidway: some got it, but not those whose lock another process holds.
            SegmentHeld: the same, where nobody got it.

        Cancellation:
            They arrive all the same.
        """
        held: SegmentHeld | None = None
        for job in self._jobs:
            try:
                await completed([job])
            except SegmentClosed:
                pass
            except SegmentHeld as exc:
                held = exc
        if self._is_put or has_own:
            if held is not None:
                raise HeldMidway(*held.args) from held
        elif held is not None or self._problem is not None:
            raise held or self._problem  # type: ignore[misc]  # one of them is there

    def _post(self, job: Job[None] | None) -> None:
        if job is not None:
            self._jobs.append(job)
