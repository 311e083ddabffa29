"""The file of facts: versions, transactions, and what survives a killed process."""

from __future__ import annotations

import os
import random
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from moalign.errors import StoreError
from moalign.store import Measured, StudyStore, database
from moalign.store.database import SCHEMA_VERSION, Database

STORED = Path(__file__).parent / "stored"  # files as older versions wrote them; never edited, only added to

WRITER = """
import sys
from moalign.store import StudyStore
study = StudyStore(sys.argv[1])
with study.drive():
    n = len(study.events())
    while True:
        study.add_event("row", {"n": n})
        print(n, flush=True)
        n += 1
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    Database.create(tmp_path / "store.db")
    return tmp_path / "store.db"


def restore(folder: Path, version: int) -> Path:
    """A database from a stored dump."""
    connection = sqlite3.connect(folder / "store.db")
    connection.executescript((STORED / f"version_{version}.sql").read_text(encoding="utf-8"))
    connection.close()
    return folder / "store.db"


def set_version(path: Path, version: int) -> None:
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {version}")
    connection.close()


def schema(path: Path) -> list[tuple[str, str]]:
    connection = sqlite3.connect(path)
    rows = connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name").fetchall()
    connection.close()
    return [(name, " ".join(sql.split())) for name, sql in rows]


class TestVersions:
    def test_a_stored_file_of_version_1_is_read(self, study: StudyStore) -> None:
        study.close()
        (study.folder / "store.db").unlink()
        restore(study.folder, 1)
        old = StudyStore(study.folder)
        with old.drive():
            pass
        done, failed, waiting = old.trials()
        assert (done.state, done.values, done.kl, done.columns) == ("done", (0.25, -1.5), 6.5, {"win_rate": 0.75})
        assert done.prompt_values is not None and done.prompt_values.tolist() == [[0.0, -1.0], [0.5, -2.0]]
        assert (failed.state, failed.error, waiting.state) == ("failed", "boom", "waiting")
        reference = old.reference()
        assert reference is not None and reference.kl == 0.0 and old.objectives == ("helpful", "harmless")
        assert [(e.kind, e.data) for e in old.events()] == [("step", {"loss": 0.5})]

    def test_the_schema_did_not_change_without_a_new_version(self, path: Path, tmp_path: Path) -> None:
        (tmp_path / "old").mkdir()
        assert schema(restore(tmp_path / "old", SCHEMA_VERSION)) == schema(path)

    @pytest.mark.parametrize("read_only", [True, False])
    def test_a_newer_file_is_refused_unchanged(self, tmp_path: Path, read_only: bool) -> None:
        path = restore(tmp_path, 1)
        set_version(path, 99)
        content = path.read_bytes()
        with pytest.raises(StoreError, match=r"newer moalign \(schema 99; this one knows up to 1\).*Install"):
            Database(path, read_only=read_only)
        assert path.read_bytes() == content

    def test_an_older_file_is_upgraded_by_a_driver_and_only_by_one(
        self, study: StudyStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def add_column(connection: sqlite3.Connection) -> None:
            connection.execute("ALTER TABLE trials ADD COLUMN mood TEXT")

        monkeypatch.setattr(database, "SCHEMA_VERSION", 3)
        monkeypatch.setattr(database, "UPGRADES", {1: add_column, 2: lambda connection: None})
        with pytest.raises(StoreError, match=r"older moalign \(schema 1, now 3\).*doctor --repair"):
            study.trials()
        study.repair()
        assert len(study.trials()) == 3 and study._reader.version() == 3

    def test_an_upgrade_that_fails_leaves_the_old_version(
        self, study: StudyStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM trials")
            raise RuntimeError("half-way")

        monkeypatch.setattr(database, "SCHEMA_VERSION", 3)
        monkeypatch.setattr(database, "UPGRADES", {1: lambda connection: None, 2: fail})
        with pytest.raises(RuntimeError), study.drive():
            pass
        monkeypatch.undo()
        assert len(study.trials()) == 3 and study._reader.version() == 1

    @pytest.mark.parametrize("content", [b"", b"not a database" * 100])
    def test_something_else_is_refused(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "store.db").write_bytes(content)
        with pytest.raises(StoreError, match=r"store\.db"):
            Database(tmp_path / "store.db")


class TestTransactions:
    INSERT = "INSERT INTO events (time, kind, data) VALUES (0.0, 'x', '{}')"

    def count(self, database: Database) -> int:
        with database.read() as connection:
            return int(connection.execute("SELECT count(*) FROM events").fetchone()[0])

    def test_an_exception_takes_the_whole_block_back(self, path: Path) -> None:
        facts = Database(path)
        with pytest.raises(KeyboardInterrupt), facts.write() as connection:
            connection.execute(self.INSERT)
            raise KeyboardInterrupt
        assert self.count(facts) == 0
        with facts.write() as connection:
            connection.execute(self.INSERT)
        assert self.count(facts) == 1

    def test_durability_settings(self, path: Path) -> None:
        """synchronous 2 is FULL: a commit returns after the log is on the disk."""
        with Database(path).read() as connection:
            assert connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
            assert connection.execute("PRAGMA synchronous").fetchone()[0] == 2

    def test_numbers_of_the_wrong_type_cannot_be_stored_at_all(self, path: Path) -> None:
        with pytest.raises(StoreError, match="cannot store BLOB"), Database(path).write() as connection:
            connection.execute("INSERT INTO trials (number, state, weights, kl) VALUES (0, 'waiting', '[]', x'00')")

    def test_threads_share_one_connection(self, path: Path) -> None:
        facts = Database(path)

        def work() -> None:
            for _ in range(20):
                with facts.write() as connection:
                    connection.execute(self.INSERT)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert self.count(facts) == 80

    def test_a_lock_that_is_never_given_back_is_explained(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(database, "BUSY_SECONDS", 0.05)
        with Database(path).write(), pytest.raises(StoreError, match="Another process held it"), Database(path).write():
            pass

    def test_a_study_in_a_folder_that_cannot_be_written_is_read(self, path: Path) -> None:
        """Write protection does not stop root, who therefore reads as another user, in a folder all may enter."""
        program = "import os, sys; from moalign.store.database import Database; os.getuid() or os.setuid(65534)\n"
        program += "with Database(sys.argv[1], read_only=True).read() as connection:\n"
        program += "    print(*connection.execute('SELECT epoch FROM lease').fetchone())"
        with tempfile.TemporaryDirectory() as name:
            copy = Path(name) / "store.db"
            copy.write_bytes(path.read_bytes())
            os.chmod(name, 0o555)
            shown = subprocess.run([sys.executable, "-c", program, copy], capture_output=True, text=True, check=False)
            os.chmod(name, 0o755)
        assert shown.stdout.strip() == "0", shown.stderr


@pytest.mark.slow
def test_killed_writers_lose_no_acknowledged_row(study: StudyStore, measured: Callable[..., Measured]) -> None:
    """Six times a driver is killed without warning in the middle of its writes; each next one continues at once.

    A row whose number was printed was acknowledged. Rows beyond may exist (committed, killed before printing), but the
    numbers 0, 1, 2, ... have no gap and no repeat.
    """
    chance = random.Random(7)
    for _ in range(6):
        command = [sys.executable, "-c", WRITER, str(study.folder)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            first = process.stdout.readline()
            time.sleep(chance.uniform(0.0, 0.3))
            process.kill()
            acknowledged = [int(line) for line in (first, *process.stdout) if line.endswith("\n")]
        stored = [event.data["n"] for event in study.events()]
        assert acknowledged and stored == list(range(len(stored)))
        assert acknowledged[-1] < len(stored) <= acknowledged[-1] + 2
    with study.drive():
        study.finish_trial(0, **measured())
    assert study.check() == []
