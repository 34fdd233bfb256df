"""The channel layer over Redis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Self, TypeAlias
from urllib.parse import quote

from .._core.capacity import ChannelCapacity
from ..config import query_options
from ..errors import ConfigurationError, UnsupportedByBackend
from ..layer import ChannelLayer
from ..options import MIB, CapacityScope, LayerOptions, check_prefix, check_seconds
from ._hosts import Host, addresses, urls_of

AfterFailover: TypeAlias = Literal["drop", "redeliver"]

_WIRE_FORMAT = 1  # in all keys: layers of another one do not meet


class RedisChannelLayer(ChannelLayer):
    """Channels and groups between all processes that reach the same Redis servers.

    For the common arguments see `LayerOptions`. It needs asyncio, as redis-py does; the sender
    and the receiver may be in any event loops and threads.

    Args:
        hosts: The servers, one for each shard: URLs, ``(host, port)`` or mappings with
            ``address`` and, if the label should be another, ``name``. None: localhost:6379.
        prefix: Layers with the same prefix on the same servers reach one another.
        symmetric_encryption_keys: Not there yet; None.
        serializer_format: ``"msgpack"``; others are not there yet.
        random_prefix_length: Accepted, as channels_redis has it; no effect.
        rotation: Seconds after which receivers of normal channels wait on another shard.
        after_failover: What becomes of the messages in a normal channel when its server went back
            in time: ``"drop"`` them, counted, since some may have been read; or ``"redeliver"``.

    Raises:
        ConfigurationError: an option has a wrong value.
        UnsupportedByBackend: an option is not there yet.
    """

    def __init__(
        self,
        hosts: Host | Sequence[Host] | None = None,
        prefix: str = "asgi",
        expiry: float = 60,
        group_expiry: float = 86_400,
        capacity: int = 100,
        channel_capacity: ChannelCapacity | None = None,
        symmetric_encryption_keys: Sequence[Any] | None = None,
        random_prefix_length: int = 12,
        serializer_format: str = "msgpack",
        *,
        rotation: float = 5,
        after_failover: AfterFailover = "drop",
        capacity_scope: CapacityScope = "channel",
        renew_memberships: bool = True,
        on_gap: str | None = None,
        timeout: float = 5,
        lease: float = 10,
        max_message_bytes: int = 4 * MIB,
        idle: float | None = None,
    ) -> None:
        del random_prefix_length
        if symmetric_encryption_keys:
            raise UnsupportedByBackend("symmetric_encryption_keys (yet)", "RedisChannelLayer")
        if serializer_format != "msgpack":
            what = f"serializer_format={serializer_format!r} (yet)"
            raise UnsupportedByBackend(what, "RedisChannelLayer")
        check_prefix(prefix)
        check_seconds("rotation", rotation)
        if after_failover not in ("drop", "redeliver"):
            problem = f"must be 'drop' or 'redeliver', got {after_failover!r}"
            raise ConfigurationError("after_failover", problem)
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
        servers = addresses(hosts)
        try:
            from ._backend import RedisBackend
        except ImportError as exc:
            problem = "needs the packages redis and uhashring: pip install 'channels-layers[redis]'"
            raise ConfigurationError("RedisChannelLayer", problem) from exc
        # Quoted, so that no prefix with a colon meets the keys of another.
        base = f"{quote(prefix, safe='')}:{_WIRE_FORMAT}:"
        redelivers = after_failover == "redeliver"
        backend = RedisBackend(servers, base, options, rotation, redelivers=redelivers)
        super().__init__(options, backend)

    @classmethod
    def from_url(cls, url: str) -> Self:
        """Make a layer from ``redis://host:1,host:2/0?prefix=…``; one shard for each host.

        Raises:
            ConfigurationError: the URL describes no layer.
        """
        urls, rest = urls_of(url)
        return cls(urls, **query_options(cls, rest))
