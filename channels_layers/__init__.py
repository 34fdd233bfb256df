"""Channel layers: messages between the processes of an application."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._core.statistics import Statistics
    from .config import configure, from_url, get_channel_layer
    from .errors import (
        BackendError,
        BackendTimeout,
        BackendUnavailable,
        ChannelFull,
        ChannelLayerError,
        ConfigurationError,
        ForeignChannel,
        InvalidName,
        LayerClosed,
        MessageTooLarge,
        NotSerializable,
        UnsupportedByBackend,
        UsageError,
    )
    from .guarantees import Guarantees
    from .ipc import IPCChannelLayer
    from .layer import ChannelLayer
    from .memory import InMemoryChannelLayer
    from .redis import RedisChannelLayer

_HOMES = {
    "BackendError": "errors",
    "BackendTimeout": "errors",
    "BackendUnavailable": "errors",
    "ChannelFull": "errors",
    "ChannelLayer": "layer",
    "ChannelLayerError": "errors",
    "ConfigurationError": "errors",
    "ForeignChannel": "errors",
    "Guarantees": "guarantees",
    "IPCChannelLayer": "ipc",
    "InMemoryChannelLayer": "memory",
    "InvalidName": "errors",
    "LayerClosed": "errors",
    "MessageTooLarge": "errors",
    "NotSerializable": "errors",
    "RedisChannelLayer": "redis",
    "Statistics": "_core.statistics",
    "UnsupportedByBackend": "errors",
    "UsageError": "errors",
    "configure": "config",
    "from_url": "config",
    "get_channel_layer": "config",
}

__all__ = [
    "BackendError",
    "BackendTimeout",
    "BackendUnavailable",
    "ChannelFull",
    "ChannelLayer",
    "ChannelLayerError",
    "ConfigurationError",
    "ForeignChannel",
    "Guarantees",
    "IPCChannelLayer",
    "InMemoryChannelLayer",
    "InvalidName",
    "LayerClosed",
    "MessageTooLarge",
    "NotSerializable",
    "RedisChannelLayer",
    "Statistics",
    "UnsupportedByBackend",
    "UsageError",
    "configure",
    "from_url",
    "get_channel_layer",
]


def __getattr__(name: str) -> Any:
    """Import what is asked for, so that nobody pays for a backend that they do not use."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f".{home}", __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
