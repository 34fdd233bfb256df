"""Forgetting all of a prefix, on every shard and in every client."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import anyio

from .._loops import new_waiter
from ..errors import BackendUnavailable
from ._broadcast import SLACK, Spread
from ._session import Session
from ._shard import Shard

_HEARD_S: Final = 1.0  # how long to wait for clients to hear of it; they hear it anyway
_POLL_S: Final = 0.005


async def flush(session: Session) -> None:
    """See `Backend.flush`.

    Raises:
        ServerUnavailable: the only shard does not answer; nothing was flushed.
        ServerSilent: one of the shards does not answer; the others are flushed.
    """
    ends_at, flush_id = time.monotonic() + session.seconds, secrets.token_hex(8)
    if len(session.shards) == 1:
        await session.home.lane.do("flush", flush_id, then=partial(_flushed, session.home))
    else:
        flushing = Spread(new_waiter(), ends_at)

        def begin() -> None:
            for shard in session.shards:
                went = flushing.begin(shard.label)
                then = partial(_flushed, shard, went=went)
                lane = session.use(shard.index).lane
                lane.post("flush", flush_id, then=then, gives_up_at=ends_at)
            flushing.end()

        session.call(begin)
        await flushing.arrived(ends_at + session.seconds * SLACK)
    ends_at = min(ends_at, time.monotonic() + _HEARD_S)
    for shard in session.shards:
        with contextlib.suppress(BackendUnavailable):
            while await shard.lane.do("unseen", shard.flushed, ends_at=ends_at):  # noqa: ASYNC110
                await anyio.sleep(_POLL_S)


def _flushed(
    shard: Shard, result: list[bytes] | None, went: Callable[[Any], None] | None = None
) -> None:
    """Hear that a shard is flushed, and let it clean up what is left, some at a time."""
    if result is not None:
        shard.flushed = int(result[0])
        if not shard.is_home:  # which hears of it by its inbox
            shard.generation = shard.flushed
        _clean(shard, True)
    if went is not None:
        went(result)


def _clean(shard: Shard, has_more: object) -> None:
    if has_more:
        shard.lane.post("clean", then=partial(_clean, shard))
