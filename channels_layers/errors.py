"""Every exception that this package raises.

Three questions decide where a class stands: whose fault is it (`UsageError` or
`BackendError`), may the call be repeated (`BackendUnavailable` and below), and can it have
happened already (`BackendTimeout`). `ChannelFull` is neither: it is normal under load.
"""

from __future__ import annotations

try:
    # Existing `except channels.exceptions.ChannelFull` clauses must go on working.
    from channels.exceptions import ChannelFull as _ChannelFull
    from channels.exceptions import MessageTooLarge as _MessageTooLarge
except ImportError:

    class _ChannelFull(Exception):  # type: ignore[no-redef]  # stands in for Channels' own
        """Where Channels is not installed, nobody catches its exceptions."""

    class _MessageTooLarge(Exception):  # type: ignore[no-redef]  # stands in for Channels' own
        """Where Channels is not installed, nobody catches its exceptions."""


class ChannelLayerError(Exception):
    """The base of all errors here; never raised itself."""


class UsageError(ChannelLayerError):
    """The call is wrong; repeating it cannot help."""


class InvalidName(UsageError, TypeError):
    """A channel name, group name or prefix breaks the rule for names."""

    def __init__(self, name: object, rule: str) -> None:
        super().__init__(name, rule)
        self.name = name
        self.rule = rule

    def __str__(self) -> str:
        return f"{self.name!r} is not a valid name: {self.rule}"


class ForeignChannel(UsageError, ValueError):
    """`receive` was called on a process-specific channel of another live client."""

    def __init__(self, channel: str) -> None:
        super().__init__(channel)
        self.channel = channel

    def __str__(self) -> str:
        return f"channel {self.channel!r} belongs to another live client; only it may receive there"


class NotSerializable(UsageError, TypeError):
    """A message holds a value that no message may hold; raised before anything is sent."""

    def __init__(self, path: str, type_name: str) -> None:
        super().__init__(path, type_name)
        self.path = path
        self.type_name = type_name

    def __str__(self) -> str:
        return (
            f"{self.path}: {self.type_name} cannot be sent; a message is a dict with str keys of"
            " None, bool, int (64 bit), float, str, bytes, list, tuple and dict"
        )


class MessageTooLarge(_MessageTooLarge, UsageError, ValueError):
    """The encoded message exceeds `max_message_bytes`; raised before anything is sent."""

    def __init__(self, size_bytes: int, limit_bytes: int) -> None:
        super().__init__(size_bytes, limit_bytes)
        self.size_bytes = size_bytes
        self.limit_bytes = limit_bytes

    def __str__(self) -> str:
        return f"message of {self.size_bytes} bytes exceeds the limit of {self.limit_bytes} bytes"


class ConfigurationError(UsageError, ValueError):
    """An option is unknown or has a wrong value; raised when the layer is made."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(field, problem)
        self.field = field
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.field}: {self.problem}"


class UnsupportedByBackend(UsageError, NotImplementedError):
    """This backend cannot do what was asked, and says so instead of pretending."""

    def __init__(self, what: str, backend: str) -> None:
        super().__init__(what, backend)
        self.what = what
        self.backend = backend

    def __str__(self) -> str:
        return f"{self.backend} does not support {self.what}"


class LayerClosed(UsageError):
    """The layer was closed while this call waited; a new call opens it again."""

    def __str__(self) -> str:
        return "the channel layer was closed"


class ChannelFull(_ChannelFull, ChannelLayerError):
    """The channel holds as many unread messages as it may; slow down or drop, your choice."""

    def __init__(self, channel: str, capacity: int) -> None:
        super().__init__(channel, capacity)
        self.channel = channel
        self.capacity = capacity

    def __str__(self) -> str:
        return f"channel {self.channel!r} is full (capacity {self.capacity})"


class BackendError(ChannelLayerError):
    """Something outside this process is broken; `__cause__` says what."""

    def __init__(self, shard: str) -> None:
        super().__init__(shard)
        self.shard = shard

    def __str__(self) -> str:
        return f"{self.shard}: failed"


class BackendUnavailable(BackendError):
    """The backend could not be reached; nothing happened, so the call may be repeated."""

    def __str__(self) -> str:
        return f"{self.shard}: unavailable, nothing was done"


class BackendTimeout(BackendUnavailable):
    """The backend did not answer in time; what was asked may have happened."""

    def __str__(self) -> str:
        return f"{self.shard}: no answer in time, it may have been done"
