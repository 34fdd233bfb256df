"""Questions of one client to others, about the numbers of their channels, and its answers.

A question has a number, which comes back with the answer, so that any number of callers may ask
at once. A record that finds no room is no error: whoever asks does so again until its time is
up, and an answer that nobody waits for any more is let go of.
"""

from __future__ import annotations

import contextlib
import struct
import time
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Final, cast

import anyio

from .._loops import LoopWaiter, new_waiter, wake
from ..codecs.msgpack import decode, encode
from ..statistics import Statistics
from ._directory import Busy
from ._errors import (
    BackendUnavailable,
    SegmentClosed,
    SegmentDamaged,
    SegmentHeld,
    SegmentRefused,
    Unanswered,
)
from ._layout import ANSWER, QUESTION

if TYPE_CHECKING:
    from ._attachment import Attachment
    from ._peer import Peer

TALK: Final = (QUESTION, ANSWER)  # kinds of records

_ANSWERED_S: Final = 1.0  # how long to wait for another client's numbers: two of its beats
_AGAIN_S: Final = 0.1  # between two tries
_MOST: Final = 4096  # questions that wait at once
_NUMBER: Final = struct.Struct("<Q")
_NEVER: Final = float("inf")


class _Question:
    """One that waits for its answer."""

    __slots__ = ("answer", "waiter")

    def __init__(self) -> None:
        self.answer: Statistics | None = None
        self.waiter: LoopWaiter | None = None


class Questions:
    """What one client that is attached asks, and is asked."""

    def __init__(self, attached: Attachment) -> None:
        self._attached = attached
        self._numbers = count(1)
        self._waiting: dict[int, _Question] = {}
        self._is_closed = False

    # Asking

    async def ask(self, peer: Peer, channel: str) -> Statistics | None:
        """Return the numbers of a channel of another client, or None where that is gone.

        Raises:
            Unanswered: it has not told them in time.
            SegmentClosed: this client was closed meanwhile.
            SegmentRefused: too many wait already.

        Cancellation:
            Nothing to undo.
        """
        if len(self._waiting) >= _MOST:
            raise SegmentRefused(peer.segment.path.name, f"{_MOST} questions wait already")
        number, question = next(self._numbers), _Question()
        self._waiting[number] = question
        try:
            return await self._answered(peer, channel, number, question)
        finally:
            self._waiting.pop(number, None)

    async def _answered(
        self, peer: Peer, channel: str, number: int, question: _Question
    ) -> Statistics | None:
        attached = self._attached
        seconds = min(_ANSWERED_S, attached.seconds)
        ends_at = time.monotonic() + seconds
        payload = _NUMBER.pack(number) + attached.row.id.encode()
        put = partial(self._push, peer, QUESTION, channel, payload)
        attached.listen()  # the answer wakes this loop
        is_put = False
        while (left := ends_at - time.monotonic()) > 0:
            is_gone = peer.is_closed or not peer.segment.is_owner_alive()
            if self._is_closed:  # which lets go of all others as well
                raise SegmentClosed(attached.own.segment.path.name)
            if is_gone:
                return None
            # SYNC answer: pairs with the look at `waiter` in _hear_answer(). Made first, so that
            # an answer is seen below or wakes it.
            waiter = question.waiter = new_waiter()
            with anyio.move_on_after(min(left, _AGAIN_S)):
                with contextlib.suppress(SegmentClosed, SegmentHeld):  # gone, or stopped
                    is_put = await attached.line_of(peer).run(put) or is_put
                if question.answer is None and not self._is_closed:
                    await waiter
            if question.answer is not None:
                return question.answer
            attached.catch_up()
        raise Unanswered(peer.row.id, peer.row.pid, channel, seconds, is_asked=is_put)

    def _hear_answer(self, payload: bytes) -> None:
        (number,) = _NUMBER.unpack_from(payload)
        question = self._waiting.get(number)
        if question is None:
            return  # whoever asked has given up, or has it already
        answer = decode(payload[_NUMBER.size :])
        numbers = {key: answer[key] for key in Statistics.__annotations__}
        # SYNC answer: pairs with the look at `answer` in _answered().
        question.answer = cast("Statistics", numbers)
        if question.waiter is not None:
            wake((question.waiter,))

    # Being asked

    def hear(self, kind: int, channel: str, payload: bytes) -> None:
        """Deal with a record of `TALK`; never waits. One that makes no sense is let go of."""
        if kind == QUESTION:
            with contextlib.suppress(BackendUnavailable, Busy, SegmentDamaged, struct.error):
                self._answer(channel, payload)
        else:
            with contextlib.suppress(KeyError, TypeError, ValueError, struct.error):
                self._hear_answer(payload)

    def _answer(self, channel: str, payload: bytes) -> None:
        attached = self._attached
        (number,) = _NUMBER.unpack_from(payload)
        peer = attached.place.peer(payload[_NUMBER.size :].decode("ascii", "replace"))
        if peer is not None:
            numbers = _NUMBER.pack(number) + encode(dict(attached.numbers_of(channel)))
            attached.line_of(peer).post(partial(self._push, peer, ANSWER, channel, numbers))

    def _push(self, peer: Peer, kind: int, channel: str, payload: bytes) -> bool:
        """Put a record into an inbox, under its lock; False where it has no room."""
        epoch = self._attached.place.epoch
        try:
            is_put = peer.inbox.push(kind, channel.encode(), payload, _NEVER, epoch)
        except SegmentDamaged:
            peer.inbox.reset()
            is_put = False
        peer.wake()
        return is_put

    def close(self) -> None:
        """Let those who wait go, with an error."""
        self._is_closed = True
        waiters = [question.waiter for question in list(self._waiting.values())]
        wake([waiter for waiter in waiters if waiter is not None])
