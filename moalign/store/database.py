"""The SQLite file of a study: its tables, its schema version, and transactions that cannot half-happen.

Write-ahead logging lets readers work while a driver writes; `synchronous=FULL` makes a committed row survive a power
cut; `BEGIN IMMEDIATE` takes the write lock at once, because a transaction that reads first and writes later fails with
"database is locked" however long it may wait. The file must lie on a disk of this machine, not on a network share.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import final

from moalign.errors import StoreError

SCHEMA_VERSION = 1
BUSY_SECONDS = 30.0

SCHEMA = """
CREATE TABLE lease (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    epoch INTEGER NOT NULL,
    held INTEGER NOT NULL,
    host TEXT NOT NULL,
    machine TEXT NOT NULL,
    pid INTEGER NOT NULL,
    process_start TEXT NOT NULL,
    heartbeat REAL NOT NULL
) STRICT;
INSERT INTO lease VALUES (1, 0, 0, '', '', 0, '', 0.0);
CREATE TABLE objectives (position INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;
CREATE TABLE trials (
    number INTEGER PRIMARY KEY,
    state TEXT NOT NULL CHECK (state IN ('waiting', 'training', 'evaluating', 'done', 'failed')),
    weights TEXT NOT NULL,
    objective_values TEXT,
    standard_errors TEXT,
    kl REAL,
    kl_standard_error REAL,
    columns TEXT,
    feasible INTEGER,
    error TEXT,
    started REAL,
    finished REAL,
    prompt_shape TEXT,
    prompt_values BLOB,
    CHECK (state <> 'done' OR objective_values IS NOT NULL)
) STRICT;
CREATE TABLE events (number INTEGER PRIMARY KEY, time REAL NOT NULL, kind TEXT NOT NULL, data TEXT NOT NULL) STRICT;
CREATE INDEX events_by_kind ON events (kind, number);
"""

# Version n -> the step from n to n + 1. The table `lease` is the same in all versions: it is read before an upgrade.
UPGRADES: dict[int, Callable[[sqlite3.Connection], None]] = {}


@final
class Database:
    """One connection to a study's facts, shared by the threads of a process.

    Args:
        path: the file; it must exist, see `create`.
        read_only: never write, not even to upgrade; also works in a folder that cannot be written.

    Raises:
        StoreError: missing, damaged, or written by a newer moalign.
    """

    def __init__(self, path: str | Path, *, read_only: bool = False) -> None:
        self.path = Path(path)
        self.read_only = read_only
        self._lock = threading.RLock()
        self._process = os.getpid()
        self._connection = self._open()

    @staticmethod
    def create(path: str | Path) -> None:
        """Makes a new file with empty tables of the current schema version."""
        with explained(Path(path)), closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.executescript(f"BEGIN IMMEDIATE; {SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """Yields the connection; each statement sees one consistent state.

        Raises:
            StoreError: the file cannot be read, or has an older schema, which only a driver may upgrade.
        """
        with self._lock, explained(self.path):
            if self.read_only and (version := self.version()) < SCHEMA_VERSION:
                raise StoreError(
                    f"{self.path} was written by an older moalign (schema {version}, now {SCHEMA_VERSION}). Run the "
                    "study again, or `moalign doctor --repair`: either upgrades the file and keeps all results."
                )
            yield self._current()

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """Yields the connection inside a transaction: all of the block is stored when it ends, or nothing of it."""
        with self._lock, explained(self.path):
            connection = self._current()
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:  # a full disk ends the transaction by itself
                    connection.execute("ROLLBACK")
                raise

    def version(self) -> int:
        """Returns the schema version of the file."""
        return int(self._current().execute("PRAGMA user_version").fetchone()[0])

    def upgrade(self) -> None:
        """Brings an older file to the current schema, in one transaction. Only for the holder of the lease."""
        with self.write() as connection:
            for version in range(self.version(), SCHEMA_VERSION):
                UPGRADES[version](connection)
                connection.execute(f"PRAGMA user_version = {version + 1}")

    def close(self) -> None:
        """Closes the connection; the object cannot be used afterwards."""
        if os.getpid() == self._process:
            with self._lock:
                self._connection.close()

    def _current(self) -> sqlite3.Connection:
        if os.getpid() != self._process:  # SQLite connections must not be carried across a fork
            self._process, self._connection = os.getpid(), self._open()
        return self._connection

    def _open(self) -> sqlite3.Connection:
        if not self.path.is_file():
            raise StoreError(f"{self.path} is missing, so the results of this study are gone. Restore it from a copy.")
        with explained(self.path):
            try:
                connection = self._connect("mode=ro" if self.read_only else "mode=rw")
            except sqlite3.OperationalError as error:
                # Without the right to make the log's index file, the main file is all there is to read.
                log = self.path.with_name(f"{self.path.name}-wal")
                refused = error.sqlite_errorname in ("SQLITE_READONLY_DIRECTORY", "SQLITE_CANTOPEN")
                if not (self.read_only and refused) or (log.exists() and log.stat().st_size > 0):
                    raise
                connection = self._connect("mode=ro&immutable=1")
        return connection

    def _connect(self, mode: str) -> sqlite3.Connection:
        connection = sqlite3.connect(
            f"{self.path.absolute().as_uri()}?{mode}",
            uri=True,
            isolation_level=None,  # transactions are written out, see `write`
            timeout=BUSY_SECONDS,
            check_same_thread=False,  # guarded by the lock
        )
        try:
            connection.row_factory = sqlite3.Row
            connection.execute("PRAGMA synchronous = FULL")
            version = int(connection.execute("PRAGMA user_version").fetchone()[0])
            if not 1 <= version <= SCHEMA_VERSION:
                raise StoreError(self._version_problem(version))
        except BaseException:
            connection.close()
            raise
        return connection

    def _version_problem(self, version: int) -> str:
        if version < 1:
            return f"{self.path} is not a results file of moalign. Restore it from a copy, or use another folder."
        return (
            f"{self.path} was written by a newer moalign (schema {version}; this one knows up to {SCHEMA_VERSION}). "
            "Install the newer version; nothing was changed."
        )


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turns errors of SQLite into a StoreError that names the file and the next step."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorname", "")
        hint = "Run `moalign doctor` for an integrity check."
        if code.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            hint = f"Another process held it for more than {BUSY_SECONDS:g} s; run the same command again."
        elif code == "SQLITE_FULL":
            hint = "The disk is full: make room and run the same command again; all finished trials are kept."
        raise StoreError(f"{path}: {error}. {hint}") from error
