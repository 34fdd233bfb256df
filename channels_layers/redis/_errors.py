"""What can go wrong with a server, said inside this package and to users."""

from __future__ import annotations

from ..errors import BackendError, BackendTimeout, BackendUnavailable


class ServerUnavailable(BackendUnavailable):
    """A server cannot be reached or does not serve; nothing was done."""

    def __init__(self, shard: str, problem: str) -> None:
        super().__init__(shard)
        self.args = (shard, problem)
        self.problem = problem

    def __str__(self) -> str:
        return f"redis {self.shard}: {self.problem}; nothing was done"


class ServerSilent(BackendTimeout):
    """A server did not answer in time, or went away before it did; it may have been done."""

    def __init__(self, shard: str, problem: str) -> None:
        super().__init__(shard)
        self.args = (shard, problem)
        self.problem = problem

    def __str__(self) -> str:
        return f"redis {self.shard}: {self.problem}; it may have been done"


class ServerRefused(BackendError):
    """A server answered with an error that another attempt will not mend."""

    def __init__(self, shard: str, problem: str) -> None:
        super().__init__(shard)
        self.args = (shard, problem)
        self.problem = problem

    def __str__(self) -> str:
        return f"redis {self.shard}: {self.problem}"


class LinkBroken(Exception):
    """A connection is gone, or none could be made; another one may do."""


class NotServing(LinkBroken):
    """A server has answered that it does not serve now; what it was asked for was not done."""

    @property
    def is_full(self) -> bool:
        """Whether it has no memory for more, and still does what makes room."""
        return str(self).startswith("OOM")
