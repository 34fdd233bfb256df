"""The channel layer over one or several Redis servers; needs ``channels-layers[redis]``."""

from __future__ import annotations

from ._layer import RedisChannelLayer

__all__ = ["RedisChannelLayer"]
