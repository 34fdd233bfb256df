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
