from ._layer import IPCChannelLayer

__all__ = ["IPCChannelLayer"]
