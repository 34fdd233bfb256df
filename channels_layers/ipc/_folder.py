"""The folder of one prefix, closed to other users, and the guard that is locked to change it."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from .. import _fork
from ._errors import SegmentHeld, SegmentRefused, SharedMemoryFull
from ._segment import locked_by

_BUSY_S: Final = 0.001  # between two tries to lock the guard


def folder_name(prefix: str) -> str:
    digest = hashlib.sha256(prefix.encode()).hexdigest()[:16]
    return f"channels-layers-{os.geteuid()}-{digest}"


class Guard:
    """The lock of a folder, which whoever holds it may remove."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextmanager
    def held(self, seconds: float) -> Iterator[None]:
        """Hold the guard of the folder, which is there then; blocks.

        Raises:
            SegmentHeld: another process holds it for too long.
            SegmentRefused: the folder belongs to another user.
        """
        with _threads.lock:
            descriptor = self._locked_guard(seconds)
            try:
                yield
            finally:
                os.close(descriptor)

    def _locked_guard(self, seconds: float) -> int:
        """Open and lock the guard of a folder that is still there then."""
        ends_at = time.monotonic() + seconds
        while True:
            self._make_folder()
            path = self.folder / "guard"
            try:
                flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
                descriptor = os.open(path, flags, 0o600)
            except FileNotFoundError:  # somebody has just removed the folder
                continue
            except OSError as exc:
                with contextlib.suppress(OSError):
                    self.folder.rmdir()  # if it is empty
                raise SharedMemoryFull(path.name, f"cannot be opened ({exc.strerror})") from exc
            try:
                fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.stat(path).st_ino == os.fstat(descriptor).st_ino:
                    return descriptor
            except FileNotFoundError:
                pass
            except OSError:
                if time.monotonic() > ends_at:
                    pid = locked_by(descriptor, 0)
                    os.close(descriptor)
                    raise SegmentHeld("guard", pid) from None
                time.sleep(_BUSY_S)
            os.close(descriptor)

    def _make_folder(self) -> None:
        try:
            self.folder.mkdir(mode=0o700)
        except FileExistsError:
            pass
        except OSError as exc:
            raise SharedMemoryFull(self.folder.name, f"cannot be made ({exc.strerror})") from exc
        try:
            found = os.lstat(self.folder)
        except FileNotFoundError:
            return
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            raise SegmentRefused(self.folder.name, f"belongs to user {found.st_uid}, not to us")
        if found.st_mode & 0o077:
            problem = f"is open to others (mode {found.st_mode & 0o777:o})"
            raise SegmentRefused(self.folder.name, problem)


class _Threads:
    """Lets one thread of this process at a time hold a guard, whichever."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        _fork.in_child(self, _Threads.__init__)


_threads: Final = _Threads()
