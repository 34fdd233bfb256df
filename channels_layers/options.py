"""The options that every layer takes, checked when the layer is made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from ._core.capacity import Capacities, ChannelCapacity
from ._core.mailboxes import Rules
from .errors import ConfigurationError

CapacityScope = Literal["channel", "process"]

MIB: Final = 1024 * 1024
LEAST_SECONDS: Final = 0.001  # what servers count in
MOST_SECONDS: Final = 1e9  # some thirty years; much more than that, and clocks cannot count it


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerOptions:
    """What may be set on every layer.

    Attributes:
        expiry: Seconds after which an unread message is dropped; fractions are allowed.
        group_expiry: Seconds after the last `group_add` at which a membership ends.
        capacity: Unread messages that a channel may hold.
        channel_capacity: Globs or compiled patterns of names to capacities; first match wins.
        capacity_scope: ``"channel"``, or ``"process"``: one capacity for all channels with the
            same non-local part.
        renew_memberships: Whether a process-specific channel with a live reader stays in its
            groups beyond `group_expiry`.
        on_gap: The type of the message that readers get when the backend forgot; None: no
            message.
        timeout: Seconds within which a backend must answer.
        lease: Seconds without a sign of life after which a client counts as dead.
        max_message_bytes: Size of the largest encoded message.
        idle: Seconds after its last `receive` at which a channel has no live reader any more;
            None: three times `expiry`, at least 300.
        message_memory: Bytes that unread messages may use in this process. Those of at most
            4 KiB are not counted; their channels' capacities bound them.
    """

    expiry: float = 60.0
    group_expiry: float = 86_400.0
    capacity: int = 100
    channel_capacity: ChannelCapacity | None = None
    capacity_scope: CapacityScope = "channel"
    renew_memberships: bool = True
    on_gap: str | None = None
    timeout: float = 5.0
    lease: float = 10.0
    max_message_bytes: int = 4 * MIB
    idle: float | None = None
    message_memory: int = 256 * MIB

    def __post_init__(self) -> None:
        for field in ("expiry", "group_expiry", "timeout", "lease"):
            check_seconds(field, getattr(self, field))
        if self.idle is not None:
            check_seconds("idle", self.idle)
        for field in ("max_message_bytes", "message_memory"):
            _check_bytes(field, getattr(self, field))
        if self.capacity_scope not in ("channel", "process"):
            raise ConfigurationError(
                "capacity_scope", f"must be 'channel' or 'process', got {self.capacity_scope!r}"
            )
        if not isinstance(self.renew_memberships, bool):
            raise ConfigurationError(
                "renew_memberships", f"must be True or False, got {self.renew_memberships!r}"
            )
        on_gap: object = self.on_gap
        if on_gap is not None and (not isinstance(on_gap, str) or not on_gap):
            raise ConfigurationError("on_gap", f"must be a message type or None: {self.on_gap!r}")
        Capacities(self.capacity, self.channel_capacity)

    def rules(self) -> Rules:
        """Return the part that governs queues and groups."""
        return Rules(
            expiry=self.expiry,
            group_expiry=self.group_expiry,
            # Three expiries, and no less than five minutes: a reader that is busy is not dead.
            idle=max(3 * self.expiry, 300.0) if self.idle is None else self.idle,
            capacities=Capacities(self.capacity, self.channel_capacity),
            shares_capacity=self.capacity_scope == "process",
            renews_memberships=self.renew_memberships,
            message_memory=self.message_memory,
            max_message_bytes=self.max_message_bytes,
        )


def check_seconds(field: str, value: object) -> None:
    """Check a number of seconds, fractions allowed.

    Raises:
        ConfigurationError: it is none, or less than a millisecond, or more than a lifetime.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigurationError(field, f"must be a number of seconds, got {value!r}")
    if not LEAST_SECONDS <= value <= MOST_SECONDS:
        limits = f"{LEAST_SECONDS} to {MOST_SECONDS:.0f} seconds"
        raise ConfigurationError(field, f"must be {limits}, got {value}")


def _check_bytes(field: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigurationError(field, f"must be a whole number of bytes, got {value!r}")
    if value < 1:
        raise ConfigurationError(field, f"must be at least 1 byte, got {value}")


def check_prefix(prefix: object) -> None:
    """Check that layers can be told apart by `prefix`.

    Raises:
        ConfigurationError: they cannot.
    """
    if not isinstance(prefix, str) or not prefix:
        raise ConfigurationError("prefix", f"must be a str that is not empty, got {prefix!r}")
