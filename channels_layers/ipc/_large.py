"""Messages too large for a ring or a queue, each in a file of its own until it is read."""

from __future__ import annotations

import math
import os
import secrets
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final

from ._errors import SharedMemoryFull
from ._layout import IN_A_FILE

_LAST_MOMENT: Final = 10**12  # in the name of a file that never expires


class LargeMessages:
    """The files of one prefix, ``large-CLIENT-MOMENT-RANDOM``; MOMENT is when it expires."""

    def __init__(self, folder: Path, check_room: Callable[[int], None]) -> None:
        """Use a folder.

        Args:
            folder: Of the prefix.
            check_room: Raises `SharedMemoryFull` where so many bytes more would be too many.
        """
        self._folder = folder
        self._check_room = check_room

    def store(self, client_id: str, payload: bytes, expires_at: float) -> bytes:
        """Put a large payload into a file of its own; return the file's name.

        Whoever is killed with it in hand leaves the file; it is removed when it has expired.

        Raises:
            SharedMemoryFull: there is no room for it.
        """
        moment = min(math.ceil(expires_at), _LAST_MOMENT)
        name = f"large-{client_id}-{moment}-{secrets.token_hex(6)}"
        self._check_room(len(payload))
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            descriptor = os.open(self._folder / name, flags, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, len(payload))
                os.write(descriptor, payload)
            except BaseException:
                (self._folder / name).unlink()
                raise
            finally:
                os.close(descriptor)
        except OSError as exc:
            raise SharedMemoryFull(name, f"shared memory is full ({exc.strerror})") from exc
        return name.encode()

    def load(self, name: bytes, *, keep: bool = False) -> bytes | None:
        """Take the payload out of a file; None where that is not a file of ours."""
        path = self._path(name)
        if path is None:
            return None
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return None
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
                return None
            return os.read(descriptor, found.st_size)
        finally:
            os.close(descriptor)
            if not keep:
                self.drop(name)

    def drop(self, name: bytes) -> None:
        """Remove a file that nobody will read."""
        path = self._path(name)
        if path is not None:
            path.unlink(missing_ok=True)

    def parcel(self, owner: str, payload: bytes, longest: int, expires_at: float) -> Parcel:
        """Return a payload for a ring or queue in which no more than `longest` bytes fit."""
        return Parcel(self, owner, payload, longest, expires_at)

    def _path(self, name: bytes) -> Path | None:
        text = name.decode("ascii", "replace")
        is_ours = text.startswith("large-") and text.replace("-", "").isalnum()
        return self._folder / text if is_ours else None


class Parcel:
    """A payload on its way to somebody: as it is or, where it is too long, in a file.

    Attributes:
        payload: What to put into the ring or queue.
        flag: What to add to its kind there.
    """

    __slots__ = ("_expires_at", "_large", "_owner", "_problem", "flag", "payload", "prepare")

    def __init__(
        self, large: LargeMessages, owner: str, payload: bytes, longest: int, expires_at: float
    ) -> None:
        self.payload = payload
        self.flag = 0
        self._large = large
        self._owner = owner
        self._expires_at = expires_at
        self._problem: Exception | None = None
        # What must be done before it is sent, which takes long; None where nothing must.
        self.prepare = self._store if len(payload) > longest else None

    def check(self) -> None:
        """See that it can be sent.

        Raises:
            SharedMemoryFull: there was no room for its file.
        """
        if self._problem is not None:
            raise self._problem

    def drop(self) -> None:
        """Remove its file; it was not sent."""
        if self.flag:
            self.flag = 0
            self._large.drop(self.payload)

    def _store(self) -> None:
        try:
            self.payload = self._large.store(self._owner, self.payload, self._expires_at)
            self.flag = IN_A_FILE
        except SharedMemoryFull as exc:
            self._problem = exc
