"""Files in shared memory: create, attach, lock, unlink.

Laws:

- One process opens one file once, whatever the number of its layers. A POSIX record lock belongs
  to the process, and closing any descriptor of the file gives it up.
- The kernel drops a record lock when its holder dies, and a forked child never has it. Threads of
  one process exclude each other by a lock of their own, which a child makes anew.
- Every byte is allocated before it is touched, so that a full file system is an error and not a
  SIGBUS. Who shortens a file that others have attached kills them; no code can help that.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import stat
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from .. import _fork
from . import _layout
from ._errors import SegmentClosed, SegmentDamaged, SegmentHeld, SegmentRefused, SharedMemoryFull
from ._mapping import map_file
from ._semaphore import Semaphore

_FLOCK: Final = struct.Struct("hhqqi4x")  # struct flock of 64-bit Linux
_LOCK_BYTE: Final = 0  # whoever has it may change the segment
_LIFE_BYTE: Final = 1  # its owner has it while it lives
_TRY: Final = fcntl.LOCK_EX | fcntl.LOCK_NB
_UNLOCK: Final = fcntl.LOCK_UN
_TRIES: Final = 8  # some 10 µs; whoever holds a lock does so for less, unless it lost its processor
_POLL_S: Final = 0.02  # how long to wait for a semaphore that may never be posted
_CONTENDED: Final = _layout.CONTENDED_OFFSET // 4
_lockf: Final = fcntl.lockf


class Lock:
    """The lock of one segment, between threads and between processes."""

    def __init__(self, name: str, descriptor: int, view: memoryview, semaphore: Semaphore) -> None:
        self._name = name
        self._descriptor = descriptor
        self._words = view.cast("I")
        self._semaphore = semaphore
        self._threads = threading.Lock()
        self._is_closed = False

    def try_acquire(self) -> bool:
        """Take the lock if it is free; never waits.

        Raises:
            SegmentClosed: nobody can have it any more.
        """
        if not self._threads.acquire(False):  # by name it takes longer
            if self._is_closed:
                raise SegmentClosed(self._name)
            return False
        tries = _TRIES
        while True:
            try:
                _lockf(self._descriptor, _TRY, 1, _LOCK_BYTE)
                return True
            except OSError as exc:
                tries -= 1
                is_taken = exc.errno in (errno.EACCES, errno.EAGAIN, errno.EDEADLK)
                if not is_taken or not tries:
                    self._threads.release()
                    if is_taken:
                        return False
                    raise

    def acquire(self, seconds: float, check: Callable[[], None] | None = None) -> None:
        """Wait for the lock; blocks the thread.

        Args:
            seconds: How long at most.
            check: Is called now and then; what it raises ends the wait.

        Raises:
            SegmentHeld: it was not to be had in time; the error names who has it.
        """
        ends_at = time.monotonic() + seconds
        while not self.try_acquire():
            if check is not None:
                check()
            if time.monotonic() >= ends_at:
                raise SegmentHeld(self._name, self._holder())
            self._words[_CONTENDED] = 1
            self._semaphore.wait(_POLL_S)

    def release(self) -> None:
        """Give the lock back, and wake one who waits for it."""
        _lockf(self._descriptor, _UNLOCK, 1, _LOCK_BYTE)
        is_contended = self._words[_CONTENDED]
        self._threads.release()
        if is_contended:
            self._words[_CONTENDED] = 0
            self._semaphore.post()

    def close(self) -> None:
        """Let nobody have it any more, once whoever has it has let go."""
        self._threads.acquire()
        self._is_closed = True

    @property
    def is_closed(self) -> bool:
        """Whether nobody can have it any more."""
        return self._is_closed

    def _holder(self) -> int:
        pid = locked_by(self._descriptor, _LOCK_BYTE)
        return os.getpid() if not pid and self._threads.locked() else pid


class Segment:
    """One attached file; made by `create` and `attach` of a `Segments`."""

    def __init__(self, path: Path, descriptor: int, kind: int, size_bytes: int) -> None:
        self.path = path
        self._kind = kind
        self.size_bytes = size_bytes
        self.users = 1
        self.is_alive_here = False  # its owner is a layer of this process
        self._descriptor = descriptor
        self.view = map_file(descriptor, size_bytes)
        semaphore = Semaphore(self.view, _layout.SEMAPHORE_OFFSET)
        self.lock = Lock(path.name, descriptor, self.view[: _layout.BODY_OFFSET], semaphore)

    def allocate_range(self, offset: int, size_bytes: int) -> None:
        """See to it that `size_bytes` from `offset` on may be touched.

        Raises:
            SharedMemoryFull: the file system has no room for them.
        """
        _allocate(self._descriptor, offset, size_bytes, self.path.name)

    @property
    def allocated_bytes(self) -> int:
        """How much of it has been allocated."""
        return os.fstat(self._descriptor).st_blocks * 512

    def claim_life(self) -> None:
        """Show that the owner lives, until this process ends or detaches."""
        _lockf(self._descriptor, _TRY, 1, _LIFE_BYTE)
        self.is_alive_here = True

    def mend_header(self) -> None:
        """Write again what every segment begins with, should it be damaged."""
        header = _layout.HEADER.pack(_layout.MAGIC, _layout.VERSION, self._kind, self.size_bytes)
        if self.view[: len(header)] != header:
            self.view[: len(header)] = header

    def is_same_file(self) -> bool:
        """Whether the path still leads to this file."""
        try:
            there = os.stat(self.path)
        except FileNotFoundError:
            return False
        here = os.fstat(self._descriptor)
        return (there.st_ino, there.st_dev) == (here.st_ino, here.st_dev)

    def is_owner_alive(self) -> bool:
        """Whether somebody shows that they live."""
        return self.is_alive_here or bool(locked_by(self._descriptor, _LIFE_BYTE))

    def close(self) -> None:
        """Let go of the file and of all its locks.

        The memory goes with the last object that refers to it: another thread may be looking.
        """
        self.lock.close()
        os.close(self._descriptor)


class Segments:
    """All files that this process has attached, each of them once."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._by_path: dict[Path, Segment] = {}
        _fork.in_child(self, Segments._begin_in_child)

    def create(
        self,
        path: Path,
        kind: int,
        size_bytes: int,
        allocated_bytes: int,
        fill: Callable[[Segment], None],
    ) -> Segment:
        """Make a file, or attach it where another process was faster.

        Args:
            path: Where.
            kind: What it is, as in `_layout`.
            size_bytes: Its length.
            allocated_bytes: How much of it may be touched at once.
            fill: Writes the body; nobody else sees the file before.

        Raises:
            SharedMemoryFull: there is no room for it.
        """
        with self._lock:
            if path in self._by_path:
                return self.attach(path, kind)
            hidden = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
            segment = self._make(hidden, kind, size_bytes, allocated_bytes)
            try:
                fill(segment)
                segment.view[0:8] = _layout.MAGIC.to_bytes(8, "little")
                _publish(hidden, path)
            except FileExistsError:
                segment.close()
                return self.attach(path, kind)
            except BaseException:
                segment.close()
                raise
            finally:
                hidden.unlink(missing_ok=True)
            segment.path = path
            self._by_path[path] = segment
            return segment

    def attach(self, path: Path, kind: int) -> Segment:
        """Attach a file that exists.

        Raises:
            FileNotFoundError: it does not.
            SegmentRefused: it belongs to somebody else, or another version made it.
            SegmentDamaged: it is no segment, or was shortened.
        """
        with self._lock:
            segment = self._by_path.get(path)
            if segment is not None and segment.is_same_file():
                segment.users += 1
                return segment
            descriptor = _opened(path)
            try:
                size_bytes = _checked_size(path, descriptor, kind)
                segment = Segment(path, descriptor, kind, size_bytes)
            except BaseException:
                os.close(descriptor)
                raise
            self._by_path[path] = segment
            return segment

    def repair(
        self,
        path: Path,
        kind: int,
        size_bytes: int,
        allocated_bytes: int,
        fill: Callable[[Segment], None],
    ) -> Segment:
        """Write a damaged file anew where it is, since others may have it attached.

        Args: as for `create`.

        Raises:
            SharedMemoryFull: there is no room for it.
            SegmentHeld: another process is at it.
            SegmentRefused: it belongs to somebody else.
        """
        with self._lock:
            descriptor = _opened(path)
            try:
                size_bytes = max(size_bytes, _own(path, descriptor).st_size)
                os.ftruncate(descriptor, size_bytes)  # never shorter
                _allocate(descriptor, 0, allocated_bytes, path.name)
                segment = Segment(path, descriptor, kind, size_bytes)
            except BaseException:
                os.close(descriptor)
                raise
            try:
                segment.lock.acquire(0)
                try:
                    if not _is_sound(path, descriptor, kind):  # or another was faster
                        fill(segment)
                        segment.mend_header()
                finally:
                    segment.lock.release()
            except BaseException:
                segment.close()
                raise
            self._by_path[path] = segment
            return segment

    def is_usable(self, path: Path, kind: int) -> bool:
        """Whether a file that nobody has attached can be attached."""
        with self._lock:
            try:
                descriptor = _opened(path)
            except SegmentRefused:
                return False
            try:
                return _is_sound(path, descriptor, kind)
            finally:
                os.close(descriptor)

    def detach(self, segment: Segment) -> None:
        """Undo one `create` or `attach`."""
        with self._lock:
            segment.users -= 1
            if segment.users:
                return
            if self._by_path.get(segment.path) is segment:
                del self._by_path[segment.path]
            segment.close()

    def is_owner_alive(self, path: Path) -> bool:
        """Whether the owner of a file that need not be attached lives."""
        with self._lock:  # closing must not give up the lock that another thread takes meanwhile
            segment = self._by_path.get(path)
            if segment is not None and segment.is_same_file():
                return segment.is_owner_alive()
            try:
                descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
            except OSError:
                return False
            try:
                return bool(locked_by(descriptor, _LIFE_BYTE))
            finally:
                os.close(descriptor)

    def _make(self, path: Path, kind: int, size_bytes: int, allocated_bytes: int) -> Segment:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            descriptor = os.open(path, flags, 0o600)
        except OSError as exc:
            raise SharedMemoryFull(path.name, f"cannot be created ({exc.strerror})") from exc
        try:
            os.ftruncate(descriptor, size_bytes)
            _allocate(descriptor, 0, allocated_bytes, path.name)
            segment = Segment(path, descriptor, kind, size_bytes)
        except BaseException:
            os.close(descriptor)
            path.unlink()
            raise
        _layout.HEADER.pack_into(segment.view, 0, 0, _layout.VERSION, kind, size_bytes)
        Semaphore(segment.view, _layout.SEMAPHORE_OFFSET).make()
        return segment

    def _begin_in_child(self) -> None:
        """Close what the parent had open; its maps go when nothing refers to them any more."""
        for segment in {id(one): one for one in self._by_path.values()}.values():
            with contextlib.suppress(OSError):
                os.close(segment._descriptor)
        self._lock = threading.RLock()
        self._by_path = {}


segments: Final = Segments()


def _publish(hidden: Path, path: Path) -> None:
    """Give a finished file its name, unless another process was faster."""
    try:
        os.link(hidden, path)
    except FileExistsError:
        raise
    except OSError as exc:
        raise SharedMemoryFull(path.name, f"cannot be made ({exc.strerror})") from exc


def _opened(path: Path) -> int:
    """Open a file that exists.

    Raises:
        FileNotFoundError: it does not.
        SegmentRefused: it cannot be opened.
    """
    try:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        raise
    except OSError as exc:
        raise SegmentRefused(path.name, f"cannot be opened ({exc.strerror})") from exc


def _own(path: Path, descriptor: int) -> os.stat_result:
    found = os.fstat(descriptor)
    check_ours(path.name, found)
    return found


def check_ours(name: str, found: os.stat_result) -> None:
    """See that a file is one of ours, and that nobody else may use it.

    Raises:
        SegmentRefused: it is not.
    """
    if not stat.S_ISREG(found.st_mode):
        raise SegmentRefused(name, "is no regular file")
    if found.st_uid != os.geteuid():
        raise SegmentRefused(name, f"belongs to user {found.st_uid}, not to us")
    if found.st_mode & 0o077:
        raise SegmentRefused(name, f"may be used by others (mode {found.st_mode & 0o777:o})")


def _is_sound(path: Path, descriptor: int, kind: int) -> bool:
    try:
        _checked_size(path, descriptor, kind)
    except (SegmentDamaged, SegmentRefused):
        return False
    return True


def _checked_size(path: Path, descriptor: int, kind: int) -> int:
    """Return the length of the file behind `descriptor`, if it is a segment of ours."""
    found = _own(path, descriptor)
    header = os.pread(descriptor, _layout.HEADER.size, 0)
    if len(header) < _layout.HEADER.size:
        raise SegmentDamaged(f"{path.name}: {len(header)} bytes are no header")
    magic, version, found_kind, size_bytes = _layout.HEADER.unpack(header)
    if magic != _layout.MAGIC:
        raise SegmentDamaged(f"{path.name}: is no segment")
    if version != _layout.VERSION:
        wanted = _layout.VERSION
        raise SegmentRefused(path.name, f"has version {version} of the layout, not {wanted}")
    if found_kind != kind or size_bytes != found.st_size:
        raise SegmentDamaged(f"{path.name}: its length or kind is not what its header says")
    return int(size_bytes)


def _allocate(descriptor: int, offset: int, size_bytes: int, name: str) -> None:
    try:
        os.posix_fallocate(descriptor, offset, size_bytes)
    except OSError as exc:
        if exc.errno not in (errno.ENOSPC, errno.EDQUOT, errno.ENOMEM, errno.EFBIG):
            raise
        raise SharedMemoryFull(name, f"shared memory is full ({exc.strerror})") from exc


def locked_by(descriptor: int, byte: int) -> int:
    """Return the id of another process that has locked `byte`, or 0."""
    asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0)
    kind, _, _, _, pid = _FLOCK.unpack(fcntl.fcntl(descriptor, fcntl.F_GETLK, asked))
    return 0 if kind == fcntl.F_UNLCK else int(pid) or -1


@contextmanager
def held(lock: Lock, seconds: float) -> Iterator[None]:
    """Hold a segment's lock; blocks."""
    lock.acquire(seconds)
    try:
        yield
    finally:
        lock.release()
