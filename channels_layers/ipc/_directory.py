"""Who is attached, and who is in which group: a small SQLite database in shared memory.

SQLite in its write-ahead mode survives the death of a process at any moment, lets readers read
while one writes, and tells cheaply whether another process has changed anything, which is what
makes a cache of groups cheap.

Laws:

- Whoever writes holds the lock of the board, so that writers do not meet inside SQLite, and one
  that is stopped in the middle can be named.
- A connection must not live through a fork: the child would believe in locks that only its parent
  has. So it is closed before each fork, and opened again by the next call.
- Nothing read from it is trusted. What cannot be read raises `SegmentDamaged`, and the database is
  made anew: with all clients that live, each of which then enters its memberships again.
  Pages that were changed into other valid ones cannot be told from what was written.
- A call is short; where another process is in the way it waits some milliseconds at most.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

from .. import _fork
from ._errors import SegmentClosed, SegmentDamaged, SegmentHeld, SharedMemoryFull
from ._segment import check_ours

T = TypeVar("T")

SLOTS: Final = 256  # clients at once; as many as there are bits in a queue's list of who waits

_PAGE_BYTES: Final = 4096
_CHECKPOINT_PAGES: Final = 64  # the log grows to a quarter of a megabyte, and is used anew
_SQL_ERRORS: Final = (sqlite3.Error, UnicodeDecodeError, MemoryError)  # of a damaged one as well
_BUSY: Final = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_READS: Final = 10
_READ_AGAIN_S: Final = 0.0005
_CACHED_GROUPS: Final = 100_000  # after that the cache begins anew

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS client (
    id TEXT PRIMARY KEY, slot INTEGER UNIQUE NOT NULL, pid INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS member (
    room TEXT NOT NULL, channel TEXT NOT NULL, owner TEXT NOT NULL, ends_at REAL NOT NULL,
    PRIMARY KEY (room, channel)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS member_owner ON member (owner, ends_at);
CREATE INDEX IF NOT EXISTS member_room ON member (room, owner);
"""
# One step of the index for each owner; DISTINCT would walk over all members.
_OWNERS: Final = """
WITH RECURSIVE one(owner) AS (
    SELECT min(owner) FROM member WHERE room = :room AND owner > ''
    UNION ALL
    SELECT (SELECT min(owner) FROM member WHERE room = :room AND owner > one.owner)
    FROM one WHERE one.owner IS NOT NULL
)
SELECT owner FROM one WHERE owner IS NOT NULL
"""
_ADD: Final = """
INSERT INTO member VALUES (?, ?, ?, ?)
ON CONFLICT DO UPDATE SET owner = excluded.owner, ends_at = excluded.ends_at
"""


class Busy(Exception):
    """Another connection is in the way for a moment; try again."""


class Attached(NamedTuple):
    """One client, as the others know it."""

    id: str
    slot: int  # its bit in the lists of who waits
    pid: int


class Members(NamedTuple):
    """Where a message to a group has to go."""

    owners: tuple[str, ...]  # clients
    others: tuple[tuple[str, float], ...]  # channels of no client, and until when


class Directory:
    """The database of one prefix, for all layers of this process."""

    def __init__(self, path: Path, max_bytes: int, generation: Callable[[], int]) -> None:
        """Name the database; it is opened by the first call.

        Args:
            path: Where; its folder is closed to other users.
            max_bytes: How much shared memory it may use.
            generation: Returns another number when another process has made it anew.
        """
        self._path = path
        self._generation = generation
        self._is_closed = False
        self._opened_at = 0  # the generation of the connection
        self._max_pages = max(16, max_bytes // _PAGE_BYTES)
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._own_changes = 0
        self._known: tuple[int, int] = (-1, -1)
        self._members: dict[str, Members] = {}
        self._clients: dict[str, Attached] = {}
        _fork.around(self, Directory._quiesce, Directory._resume)
        _fork.in_child(self, Directory._begin_in_child)

    def close(self) -> None:
        """Let go of the database; no call opens it again before `reopen`."""
        with self._lock:
            self._drop_connection()
            self._is_closed = True

    def reopen(self) -> None:
        """Let calls open it again."""
        self._is_closed = False

    def make_anew(self, clients: Iterable[Attached], seconds: float) -> None:
        """Begin an empty one with these clients, under the guard and the lock of the board.

        Raises:
            SegmentHeld: another process was in the way for too long.
        """
        ends_at = time.monotonic() + seconds
        with self._lock:
            self._drop_connection()
            for suffix in ("", "-wal", "-shm", "-journal"):
                self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
        for client in clients:
            while not self._has_entered_again(client):  # others open it at this moment
                if time.monotonic() > ends_at:
                    raise SegmentHeld("directory", 0)
                time.sleep(_READ_AGAIN_S)

    def enter_again(self, client: Attached) -> Attached:
        """Enter a client that is missing, under the lock of the board; return how it is entered."""
        statement = "INSERT OR IGNORE INTO client VALUES (?, ?, ?)"
        self._write(lambda database: database.execute(statement, client))
        entered = self.clients().get(client.id)
        return self.add_client(client.id) if entered is None else entered  # its slot is taken

    # Clients

    def add_client(self, client_id: str) -> Attached:
        """Enter a client of this process, under the lock of the board.

        Raises:
            SharedMemoryFull: as many clients as there may be are attached.
        """

        def add(database: sqlite3.Connection) -> Attached:
            rows = database.execute("SELECT slot FROM client").fetchall()
            taken = {slot for (slot,) in rows}
            free = next((slot for slot in range(SLOTS) if slot not in taken), None)
            if free is None:
                raise SharedMemoryFull("directory", f"{SLOTS} clients are attached already")
            row = Attached(client_id, free, os.getpid())
            database.execute("INSERT INTO client VALUES (?, ?, ?)", row)
            return row

        return self._write(add)

    def remove_client(self, client_id: str) -> None:
        """Forget a client and its memberships, under the lock of the board."""

        def remove(database: sqlite3.Connection) -> None:
            database.execute("BEGIN")
            database.execute("DELETE FROM member WHERE owner = ?", (client_id,))
            database.execute("DELETE FROM client WHERE id = ?", (client_id,))
            database.execute("COMMIT")

        self._write(remove)

    def clients(self) -> dict[str, Attached]:
        """Return all clients that are entered, alive or not, by id."""
        with self._lock:
            self._patiently(self._refresh)
            return self._clients

    # Groups

    def add_member(self, group: str, channel: str, owner: str, ends_at: float) -> None:
        """Make `channel` of the client `owner` a member; "" where no client owns it.

        Under the lock of the board.
        """
        self._write(lambda database: database.execute(_ADD, (group, channel, owner, ends_at)))

    def add_members(self, owner: str, members: Iterable[tuple[str, str, float]]) -> None:
        """Make some (group, channel, until when) of a client members, under the board's lock."""
        rows = [(group, channel, owner, ends_at) for group, channel, ends_at in members]
        self._write(lambda database: database.executemany(_ADD, rows))

    def discard_members(self, members: Iterable[tuple[str, str]]) -> None:
        """Remove some (group, channel), under the lock of the board."""
        rows = list(members)
        statement = "DELETE FROM member WHERE room = ? AND channel = ?"
        self._write(lambda database: database.executemany(statement, rows))

    def renew_members(
        self, members: Iterable[tuple[str, str]], ends_at: float, *, due_at: float
    ) -> None:
        """Let some (group, channel), due at `due_at`, last longer; under the board's lock."""
        rows = [(ends_at, group, channel, due_at) for group, channel in members]
        statement = "UPDATE member SET ends_at = ? WHERE room = ? AND channel = ? AND ends_at <= ?"
        self._write(lambda database: database.executemany(statement, rows))

    def end_members(self, members: Iterable[tuple[str, str]], *, due_at: float) -> None:
        """Remove some (group, channel), but not those renewed beyond `due_at`; under that lock."""
        rows = [(group, channel, due_at) for group, channel in members]
        statement = "DELETE FROM member WHERE room = ? AND channel = ? AND ends_at <= ?"
        self._write(lambda database: database.executemany(statement, rows))

    def discard_ended(self, now: float) -> None:
        """Remove the memberships of nobody's channels that have ended, under the board's lock."""
        statement = "DELETE FROM member WHERE owner = '' AND ends_at <= ?"
        self._write(lambda database: database.execute(statement, (now,)))

    def clear_members(self) -> None:
        """Remove every membership, under the lock of the board."""
        self._write(lambda database: database.execute("DELETE FROM member"))

    def due(self, owner: str, now: float, most: int = 1000) -> list[tuple[str, str]]:
        """Return some memberships (group, channel) of `owner` that end unless they are renewed."""
        statement = "SELECT room, channel FROM member WHERE owner = ? AND ends_at <= ? LIMIT ?"
        return self._read(statement, (owner, now, most))

    def has_due(self, owner: str, now: float) -> bool:
        """Say whether any membership of `owner` is due."""
        return bool(self.due(owner, now, 1))

    def is_member(self, group: str, channel: str, owner: str) -> bool:
        """Say whether `channel` of the client `owner` is in `group`."""
        statement = "SELECT 1 FROM member WHERE room = ? AND channel = ? AND owner = ?"
        return bool(self._read(statement, (group, channel, owner)))

    def members_of(self, owner: str) -> list[tuple[str, str]]:
        """Return all memberships (group, channel) of a client."""
        return self._read("SELECT room, channel FROM member WHERE owner = ?", (owner,))

    def members(self, group: str) -> Members:
        """Return where a message to `group` has to go; cached until anything changes."""
        with self._lock:
            self._patiently(self._refresh)
            found = self._members.get(group)
            if found is None:
                if len(self._members) >= _CACHED_GROUPS:
                    self._members = {}
                found = self._patiently(lambda: _members_of(self._open(), group))
                self._members[group] = found
            return found

    def channels(self, group: str, now: float) -> list[tuple[str, str]]:
        """Return the members of `group` and their owners."""
        statement = (
            "SELECT channel, owner FROM member WHERE room = ? AND (owner <> '' OR ends_at > ?)"
        )
        return self._read(statement, (group, now))

    # Helpers

    def _has_entered_again(self, client: Attached) -> bool:
        with contextlib.suppress(Busy):
            self.enter_again(client)
            return True
        return False

    def _read(self, statement: str, values: tuple[Any, ...]) -> list[Any]:
        with self._lock:
            return self._patiently(lambda: self._open().execute(statement, values).fetchall())

    def _write(self, change: Callable[[sqlite3.Connection], T]) -> T:
        with self._lock:
            return self._tried(lambda: self._changed(self._open(), change))

    def _changed(
        self, database: sqlite3.Connection, change: Callable[[sqlite3.Connection], T]
    ) -> T:
        self._own_changes += 1
        try:
            return change(database)
        finally:
            if database.in_transaction:
                with contextlib.suppress(*_SQL_ERRORS):
                    database.execute("ROLLBACK")

    def _patiently(self, read: Callable[[], T]) -> T:
        """Read, again where another process was in the way; that is rare, and over at once.

        Raises:
            Busy: it is not over.
        """
        for _ in range(_READS):
            with contextlib.suppress(Busy):
                return self._tried(read)
            time.sleep(_READ_AGAIN_S)
        raise Busy

    def _tried(self, call: Callable[[], T]) -> T:
        """Return what a call returns; what SQLite raises is translated."""
        try:
            return call()
        except SegmentDamaged as exc:
            exc.generation = self._opened_at
            raise
        except _SQL_ERRORS as exc:
            problem = _translated(exc)
            if isinstance(problem, SegmentDamaged):
                problem.generation = self._opened_at
            raise problem from exc

    def _refresh(self) -> None:
        """Forget what is cached if anybody has changed anything."""
        database = self._open()
        (version,) = database.execute("PRAGMA data_version").fetchone()
        if (version, self._own_changes) == self._known:
            return
        # All at once: a cursor that an error keeps would keep the connection open beyond its end.
        rows = database.execute("SELECT id, slot, pid FROM client").fetchall()
        clients = [_client(*row) for row in rows]
        self._members = {}
        self._clients = {client.id: client for client in clients}
        self._known = (version, self._own_changes)

    def _open(self) -> sqlite3.Connection:
        if self._is_closed:
            raise SegmentClosed("directory")
        if self._opened_at != self._generation():
            self._drop_connection()
        if self._connection is None:
            self._opened_at = self._generation()
            self._touch()
            database = sqlite3.connect(
                self._path, timeout=0, isolation_level=None, check_same_thread=False
            )
            try:
                database.execute(f"PRAGMA page_size = {_PAGE_BYTES}")
                database.execute("PRAGMA journal_mode = WAL")
                database.execute("PRAGMA synchronous = OFF")  # it is memory, not a disk
                database.execute(f"PRAGMA max_page_count = {self._max_pages}")
                database.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
                database.executescript(_SCHEMA)
            except _SQL_ERRORS as exc:
                database.close()
                raise _translated(exc) from exc
            except BaseException:
                database.close()
                raise
            self._connection = database
            self._known = (-1, -1)
        return self._connection

    def _touch(self) -> None:
        """See that the file is there, ours, and closed to others, which SQLite does not look at."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            os.close(os.open(self._path, flags, 0o600))
        except FileExistsError:
            with contextlib.suppress(FileNotFoundError):
                check_ours(self._path.name, os.lstat(self._path))
        except OSError as exc:
            raise SharedMemoryFull("directory", f"cannot be made ({exc.strerror})") from exc

    def _drop_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _quiesce(self) -> None:
        self._lock.acquire()
        self._drop_connection()

    def _resume(self) -> None:
        self._lock.release()

    def _begin_in_child(self) -> None:
        self._lock = threading.Lock()
        self._connection = None


def _members_of(database: sqlite3.Connection, group: str) -> Members:
    owners = database.execute(_OWNERS, {"room": group}).fetchall()
    others = database.execute(
        "SELECT channel, ends_at FROM member WHERE room = ? AND owner = ''", (group,)
    ).fetchall()
    if not all(isinstance(name, str) for name, *_ in owners + others) or not all(
        isinstance(ends_at, float) for _, ends_at in others
    ):
        raise SegmentDamaged("the directory: a member that is none")
    return Members(tuple(owner for (owner,) in owners), tuple(others))


def _client(client_id: object, slot: object, pid: object) -> Attached:
    is_name = isinstance(client_id, str) and client_id.isalnum()
    if is_name and isinstance(slot, int) and 0 <= slot < SLOTS and isinstance(pid, int):
        return Attached(str(client_id), slot, pid)
    raise SegmentDamaged("the directory: a client that is none")


def _translated(exc: Exception) -> Exception:
    """Return what `exc` means to a caller."""
    code = getattr(exc, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
    if code in _BUSY:
        return Busy()
    if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
        return SharedMemoryFull("directory", f"group_memory or shared memory is used up ({exc})")
    if code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        return SharedMemoryFull("directory", f"cannot be opened ({exc})")
    return SegmentDamaged(f"the directory: {exc}")
