"""The channel layer over Redis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self
from urllib.parse import quote

from .._core.capacity import ChannelCapacity
from ..config import query_options
from ..errors import ConfigurationError, UnsupportedByBackend
from ..layer import ChannelLayer
from ..options import MIB, CapacityScope, LayerOptions
from ._hosts import Host, addresses, urls_of

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
        given: object = prefix
        if not isinstance(given, str) or not given:
            raise ConfigurationError("prefix", f"must be a str that is not empty, got {given!r}")
        seconds: object = rotation
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or seconds <= 0:
            raise ConfigurationError("rotation", f"must be more than 0 seconds, got {rotation!r}")
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
        super().__init__(options, RedisBackend(servers, base, options, rotation))

    @classmethod
    def from_url(cls, url: str) -> Self:
        """Make a layer from ``redis://host:1,host:2/0?prefix=…``; one shard for each host.

        Raises:
            ConfigurationError: the URL describes no layer.
        """
        return cls(urls_of(url), **query_options(cls, url))
