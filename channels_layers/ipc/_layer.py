"""The channel layer between all processes of one machine."""

from __future__ import annotations

import sys
from typing import Final

from .._core.capacity import ChannelCapacity
from ..errors import ConfigurationError, UnsupportedByBackend
from ..layer import ChannelLayer
from ..options import MIB, CapacityScope, LayerOptions, check_prefix

_SMALLEST_MEMORY: Final = 16 * MIB  # of messages: two rings, some queues and a large message
_SMALLEST_GROUPS: Final = MIB


class IPCChannelLayer(ChannelLayer):
    """Channels and groups between all processes of one machine that use the same prefix.

    Nothing has to be installed or started: messages go through POSIX shared memory. Groups do not
    span machines. For the common arguments see `LayerOptions`.

    Args:
        prefix: Layers with the same prefix, of the same user, reach one another.
        message_memory: Bytes of shared memory for messages, of all processes together. Half of
            it is for inboxes, a 256th for each process; half for channels that no client owns.
        group_memory: Bytes of shared memory for the names of clients, groups and members.

    Raises:
        ConfigurationError: an option has a wrong value.
        UnsupportedByBackend: this is not Linux.
    """

    def __init__(
        self,
        prefix: str = "asgi",
        message_memory: int = 48 * MIB,
        group_memory: int = 8 * MIB,
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
    ) -> None:
        if sys.platform != "linux":
            raise UnsupportedByBackend(f"the platform {sys.platform}", "IPCChannelLayer")
        from ._backend import IPCBackend
        from ._room import Sizes

        check_prefix(prefix)
        _check_memory("message_memory", message_memory, _SMALLEST_MEMORY)
        _check_memory("group_memory", group_memory, _SMALLEST_GROUPS)
        options = LayerOptions(
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
        )
        sizes = Sizes(message_memory=message_memory, group_memory=group_memory)
        super().__init__(options, IPCBackend(prefix, sizes, options))


def _check_memory(field: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigurationError(field, f"must be a whole number of bytes, got {value!r}")
    if value < least:
        raise ConfigurationError(field, f"must be at least {least} bytes, got {value}")
