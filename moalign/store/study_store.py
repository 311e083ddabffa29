"""One study on disk: its definition, the facts about its trials, and the folders of its artefacts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from sqlite3 import Connection
from typing import Any, Unpack, final

from numpy.typing import ArrayLike

from moalign.arrays import as_matrix
from moalign.errors import StoreError
from moalign.store import artefacts, checkpoints, integrity, trials
from moalign.store.database import Database
from moalign.store.definition import check_name, read_study_file
from moalign.store.lease import Holder, Lease, read_holder
from moalign.store.records import (
    REFERENCE,
    EventRecord,
    Finding,
    Measured,
    State,
    TrialRecord,
    event_record,
    measurement_row,
)

DATABASE_FILE = "store.db"


@final
class StudyStore:
    """The folder of one study. Reading needs nothing; writing needs the lease: `with study.drive(): ...`.

    Made by `Store.create` and `Store.study`. One object may be used by several threads.

    Args:
        folder: the folder with study.json and store.db.

    Raises:
        StoreError: the folder does not hold a readable study.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.name = self.folder.name
        self._file = read_study_file(self.folder)
        self.description: Mapping[str, Any] = self._file.definition
        self.fingerprint: str = self._file.fingerprint
        self.info: Mapping[str, Any] = self._file.info
        self._path = self.folder / DATABASE_FILE
        self._reader = Database(self._path, read_only=True)
        self._lease: Lease | None = None
        self._writer: Database | None = None

    def __repr__(self) -> str:
        return f"<StudyStore {str(self.folder)!r}>"

    def close(self) -> None:
        """Closes the connection for reading; the object cannot be used afterwards."""
        self._reader.close()

    # ---- the right to write

    @contextmanager
    def drive(self) -> Iterator[StudyStore]:
        """Yields this study with the right to write, until the block ends.

        On entering, an older file is upgraded, what killed processes left half-written is removed, and trials that a
        dead driver left training or evaluating wait again.

        Raises:
            StudyBusyError: another driver is running the study; says which, and when to try again.
        """
        with Lease(self._path, self.name) as lease:
            writer = Database(self._path)
            try:
                writer.upgrade()
                artefacts.clear_leftovers(self.folder)
                self._lease, self._writer = lease, writer
                with self._write() as connection:
                    trials.restart(connection, "training", "evaluating")
                yield self
            finally:
                self._lease = self._writer = None
                writer.close()

    def driver(self) -> Holder | None:
        """Returns who is running the study now, or None."""
        with self._reader.read() as connection:
            holder = read_holder(connection)
        return holder if holder.alive() else None

    @contextmanager
    def _write(self) -> Iterator[Connection]:
        """One transaction, refused if the lease has passed to another driver."""
        lease, writer = self._lease, self._writer
        if lease is None or writer is None:
            raise StoreError(f"Study '{self.name}' is open for reading only. Write inside `with study.drive():`.")
        with writer.write() as connection:
            lease.check(connection)
            yield connection

    # ---- trials

    @property
    def objectives(self) -> tuple[str, ...]:
        """The names of the objectives in axis order; empty before the first `add_trials`."""
        with self._reader.read() as connection:
            return trials.read_objectives(connection)

    def add_trials(self, weights: ArrayLike, objectives: Sequence[str]) -> None:
        """Adds one waiting trial per row of `weights` [trials, objectives]; row i is trial i.

        Trials that exist already stay as they are: the call may be repeated, also with rows appended. A method
        without preference weights passes rows without columns.

        Raises:
            StoreError: other objectives than stored, or other weights than stored for a trial.
            DefinitionError: weights that are not a table of finite numbers, or not one per objective.
        """
        table, names = as_matrix(weights, "weights"), tuple(objectives)
        if table.shape[1] not in (0, len(names)):
            raise StoreError(f"weights has {table.shape[1]} columns for {len(names)} objectives: {', '.join(names)}.")
        with self._write() as connection:
            trials.add(connection, table, names, self.name)

    def trials(self, *, prompt_values: bool = True) -> list[TrialRecord]:
        """Returns all trials by number; without `prompt_values` faster, for tables and plots of many trials."""
        with self._reader.read() as connection:
            return trials.read_all(connection, prompt_values=prompt_values)

    def revision(self) -> tuple[object, ...]:
        """Returns what changes when a trial or an event is added or changed, to notice news without reading all."""
        with self._reader.read() as connection:
            return trials.revision(connection)

    def trial(self, number: int) -> TrialRecord:
        """Returns one trial.

        Raises:
            StoreError: there is no such trial; says which exist.
        """
        with self._reader.read() as connection:
            return trials.require(connection, number, self.name)

    def reference(self) -> TrialRecord | None:
        """Returns the measured reference policy (number -1, no weights), or None before it is measured."""
        with self._reader.read() as connection:
            return trials.read(connection, REFERENCE)

    def set_state(self, number: int, state: State, error: str | None = None) -> None:
        """Moves an unfinished trial to another state; `error` says why it failed. `finish_trial` makes it done.

        Raises:
            StoreError: no such trial or state, or the trial is done.
        """
        with self._write() as connection:
            trials.set_state(connection, number, state, error, self.name)

    def finish_trial(self, number: int, **measured: Unpack[Measured]) -> None:
        """Stores what was measured (see `Measured`) and makes the trial done, in one transaction.

        Raises:
            StoreError: a number that is NaN or infinite, a wrong shape, no such trial, or one that is done already.
        """
        row = measurement_row(f"Trial {number} of study '{self.name}'", self.objectives, measured)
        with self._write() as connection:
            trials.finish(connection, number, row, self.name)

    def set_reference(self, **measured: Unpack[Measured]) -> None:
        """Stores, once, what was measured of the untrained reference policy; after `add_trials`.

        Raises:
            StoreError: as `finish_trial`, or a reference that is stored already.
        """
        row = measurement_row(f"The reference policy of study '{self.name}'", self.objectives, measured)
        with self._write() as connection:
            trials.add_reference(connection, row, self.name)

    def reset_failed(self) -> list[int]:
        """Makes all failed trials wait again and returns their numbers."""
        with self._write() as connection:
            return trials.restart(connection, "failed")

    # ---- events

    def add_event(self, kind: str, data: Mapping[str, Any]) -> None:
        """Adds an event with the current time; `data` is plain JSON without NaN."""
        text = artefacts.json_text(dict(data), f"Event '{kind}' of study '{self.name}'")
        with self._write() as connection:
            _insert_event(connection, kind, text)

    def events(self, kind: str | None = None, *, after: int = 0) -> list[EventRecord]:
        """Returns the events in order, of one kind or of all, beginning after event number `after`."""
        query = "SELECT * FROM events WHERE number > ? AND (? IS NULL OR kind = ?) ORDER BY number"
        with self._reader.read() as connection:
            return [event_record(row) for row in connection.execute(query, (after, kind, kind))]

    # ---- folders

    def trial_folder(self, number: int) -> Path:
        """Returns the folder of a trial's artefacts, trials/0014; of the reference policy for number -1."""
        return self.folder / "trials" / ("reference" if number == REFERENCE else f"{number:04d}")

    def training_folder(self, key: str) -> Path:
        """Returns the folder of one training, training/<key>."""
        check_name(key, "The training key")
        return self.folder / "training" / key

    def cache_folder(self, key: str) -> Path:
        """Returns the folder of something that can be computed again, cache/<key>."""
        check_name(key, "The cache key")
        return self.folder / "cache" / key

    def publish(self, folder: str | Path) -> AbstractContextManager[Path]:
        """Returns `artefacts.publish` for a folder of this study; it only appears while the lease is held."""
        if self.folder.resolve() not in Path(folder).resolve().parents:
            raise StoreError(
                f"{folder} is not inside {self.folder}. Use trial_folder, training_folder or cache_folder."
            )
        return artefacts.publish(folder, guard=self._write)

    def checkpoint(self, key: str) -> Path | None:
        """Returns the newest checkpoint of a training whose checksums match, or None."""
        return checkpoints.newest(self.training_folder(key))

    def save_checkpoint(self, key: str, step: int, write: Callable[[Path], None]) -> None:
        """Publishes the files that `write` puts into the folder it is given; keeps the newest two checkpoints."""
        folder = self.training_folder(key)
        with self.publish(checkpoints.path_of(folder, step)) as hidden:
            write(hidden)
        with self._write():
            checkpoints.prune(folder, step)

    def clear_checkpoint(self, key: str) -> None:
        """Removes all checkpoints of a training, once its result is stored."""
        with self._write():
            for _, path in checkpoints.existing(self.training_folder(key)):
                artefacts.remove(path)

    # ---- integrity

    def check(self) -> list[Finding]:
        """Returns what is wrong on disk: database, definition, damaged folders, half-written leftovers."""
        try:
            with self._reader.read() as connection:
                findings = integrity.database_findings(connection, self._path)
            driven = self.driver() is not None
        except StoreError as error:
            findings, driven = [integrity.unreadable_finding(self._path, error)], False
        findings += integrity.definition_findings(self.folder, self._file)
        return findings + integrity.folder_findings(self.folder, driven=driven)

    def repair(self) -> list[Finding]:
        """Repairs what can be repaired and returns what was found before.

        An older file is upgraded and leftovers are removed. Damaged folders are set aside under `damaged/`; a trial
        whose folder was damaged waits again, its former values stay as an event "repair". A damaged database or
        definition is only reported.

        Raises:
            StudyBusyError: the study is being run.
        """
        leftovers = integrity.leftover_findings(self.folder)
        with self.drive():
            findings = self.check()
            for finding in (finding for finding in findings if finding.kind == "damaged"):
                with self._write() as connection:
                    aside = integrity.set_aside(self.folder, finding.place)
                    number = integrity.trial_number(self.folder, finding.place)
                    former = None if number is None else trials.forget(connection, number)
                    data = {"problem": finding.problem, "aside": aside.as_posix(), "trial": former}
                    _insert_event(connection, "repair", artefacts.json_text(data, "The event 'repair'"))
        return leftovers + findings


def _insert_event(connection: Connection, kind: str, data: str) -> None:
    connection.execute("INSERT INTO events (time, kind, data) VALUES (?, ?, ?)", (time.time(), kind, data))
