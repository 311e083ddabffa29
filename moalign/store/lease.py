"""One driver per study: the lease says who may write, and its epoch keeps a driver that lost it from writing.

A driver shows its life every few seconds. It counts as gone after a minute of silence, or at once if it ran on this
machine and its process no longer exists. Whoever takes over raises the epoch; each write compares it inside its own
transaction, so a driver that was only asleep cannot mix its results with those of its successor.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from sqlite3 import Connection, Row
from types import TracebackType
from typing import final

from moalign.errors import StoreError, StudyBusyError
from moalign.store.database import Database

HEARTBEAT_SECONDS = 5.0
EXPIRY_SECONDS = 60.0


@final
@dataclass(frozen=True, kw_only=True)
class Holder:
    """Who held the lease last, and when it last showed life (seconds since 1970)."""

    epoch: int
    held: bool
    host: str
    machine: str
    pid: int
    process_start: str
    heartbeat: float

    def silence(self) -> float:
        """Returns the seconds since the last sign of life; clocks of two machines may differ, so never negative."""
        return max(0.0, time.time() - self.heartbeat)

    def alive(self) -> bool:
        """Returns whether the holder must be assumed to be running."""
        if not self.held or abs(time.time() - self.heartbeat) > EXPIRY_SECONDS:
            return False
        if (self.host, self.machine) != (socket.gethostname(), machine_identity()):
            return True
        start = process_start(self.pid)
        return start is not None and (start == self.process_start or "" in (start, self.process_start))

    def __str__(self) -> str:
        return f"{self.host} (pid {self.pid}, last sign of life {self.silence():.0f} s ago)"


@final
class Lease:
    """Context manager: the lease of one study, held until the block ends.

    Args:
        path: the database file of the study.
        study: its name, for messages.

    Raises:
        StudyBusyError: on entering, while another driver is alive.
    """

    def __init__(self, path: Path, study: str) -> None:
        self.study = study
        self.epoch = 0
        self._path = path
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name=f"lease of {study}", daemon=True)

    def __enter__(self) -> Lease:
        database = Database(self._path)
        try:
            with database.write() as connection:
                holder = read_holder(connection)
                if holder.alive():
                    raise StudyBusyError(
                        f"Study '{self.study}' is already being run by {holder}. Wait until it ends, or stop it; after "
                        f"{EXPIRY_SECONDS:g} s without a sign of life the same command takes over."
                    )
                self.epoch = holder.epoch + 1
                connection.execute(
                    "UPDATE lease SET held = 1, epoch = ?, host = ?, machine = ?, pid = ?, process_start = ?, "
                    "heartbeat = ?",
                    (self.epoch, socket.gethostname(), machine_identity(), os.getpid(), _own_start(), time.time()),
                )
        finally:
            database.close()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        database = Database(self._path)
        try:
            with database.write() as connection:
                connection.execute("UPDATE lease SET held = 0 WHERE epoch = ?", (self.epoch,))
        finally:
            database.close()

    def check(self, connection: Connection) -> None:
        """Returns if this driver still holds the lease; call it inside the transaction that writes.

        Raises:
            StudyBusyError: another driver took over meanwhile.
        """
        holder = read_holder(connection)
        if holder.epoch != self.epoch:
            raise StudyBusyError(
                f"Study '{self.study}' was taken over by {holder}, because this run had shown no life for more than "
                f"{EXPIRY_SECONDS:g} s. This result was not stored; what was stored before is kept. Stop this run."
            )

    def _beat(self) -> None:
        """Shows life until the lease is released or lost. A failed beat is tried again: expiry allows several."""
        database: Database | None = None
        while not self._stop.wait(HEARTBEAT_SECONDS):
            try:
                database = database or Database(self._path)
                with database.write() as connection:
                    beat = "UPDATE lease SET heartbeat = ? WHERE epoch = ?"
                    if connection.execute(beat, (time.time(), self.epoch)).rowcount == 0:
                        break
            except StoreError:
                continue
        if database is not None:
            database.close()


def read_holder(connection: Connection) -> Holder:
    """Returns the last holder of the lease."""
    row: Row = connection.execute("SELECT * FROM lease").fetchone()
    facts = {name: row[name] for name in row.keys() if name not in ("only", "held")}  # noqa: SIM118
    return Holder(held=bool(row["held"]), **facts)


def machine_identity() -> str:
    """Returns what tells apart machines, boots and containers of one host name; process ids only compare within it."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def process_start(pid: int) -> str | None:
    """Returns a mark of when a process of this machine started, or None if there is no such process.

    A process id may be given out again; its start time may not. It is "" where the system does not tell.
    """
    try:
        # The second field is the program's name in parentheses, which may itself hold spaces and parentheses.
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return None if fields[0] in "ZX" else fields[19]  # a zombie has ended; field 22 of the line is the start
    except (OSError, IndexError):
        pass  # no such process, no /proc, or a process of another user that /proc hides: ask the system
    if os.name != "nt":  # on Windows the same call would send an interrupt
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return None
        except OSError:
            pass
    return ""


def _own_start() -> str:
    return process_start(os.getpid()) or ""
