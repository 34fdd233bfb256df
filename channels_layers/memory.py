"""The channel layer inside one process."""

from __future__ import annotations

from ._core.capacity import ChannelCapacity
from .layer import ChannelLayer
from .options import MIB, CapacityScope, LayerOptions


class InMemoryChannelLayer(ChannelLayer):
    """Channels and groups between the tasks, threads and event loops of one process.

    Each object is a world of its own: two of them do not reach each other, and neither does a
    forked child. For the arguments see `LayerOptions`. Nothing here can forget or stall, so
    `on_gap`, `timeout` and `lease` are checked and then never come into play.
    """

    def __init__(
        self,
        expiry: float = 60,
        group_expiry: float = 86_400,
        capacity: int = 100,
        channel_capacity: ChannelCapacity | None = None,
        *,
        capacity_scope: CapacityScope = "channel",
        renew_memberships: bool = True,
        on_gap: str | None = None,
        timeout: float = 5,
        lease: float = 10,
        max_message_bytes: int = 4 * MIB,
        idle: float | None = None,
        message_memory: int = 256 * MIB,
    ) -> None:
        super().__init__(
            LayerOptions(
                expiry=expiry,
                group_expiry=group_expiry,
                capacity=capacity,
                channel_capacity=channel_capacity,
                capacity_scope=capacity_scope,
                renew_memberships=renew_memberships,
                on_gap=on_gap,
                timeout=timeout,
                lease=lease,
                max_message_bytes=max_message_bytes,
                idle=idle,
                message_memory=message_memory,
            )
        )
