"""The studies of a folder, read again only when something in them has changed. Nothing is ever written."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

from moalign.errors import StoreError
from moalign.figures import StudyView, study_view
from moalign.store import Store, StudyStore

_Stamp = tuple[tuple[int, int, int] | None, ...]


@final
@dataclass
class _Shelf:
    """One study: its open records and what they showed when last read."""

    records: StudyStore
    identity: int  # inode of the database: another one is another study of the same name
    lock: threading.Lock = field(default_factory=threading.Lock)
    stamp: _Stamp = ()
    facts: object = None
    view: StudyView | None = None
    version: int = 0


@final
class Library:
    """Reads studies for the pages.

    Args:
        root: folder of studies; it may still be missing or empty.

    Raises:
        StoreError: `root` is a file.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._store = Store(root)
        self._lock = threading.Lock()
        self._shelves: dict[str, _Shelf] = {}

    def names(self) -> list[str]:
        """Returns the names of all studies, the last changed one first."""

        def changed(name: str) -> int:
            stamp = _stamp(self.root / name)
            return max((facts[0] for facts in stamp if facts), default=0)

        return sorted(self._store.names(), key=changed, reverse=True)

    def records(self, name: str) -> StudyStore:
        """Returns the open records of a study.

        Raises:
            StoreError: there is none of this name (any more).
        """
        return self._shelf(name).records

    def view(self, name: str) -> StudyView:
        """Returns what a study shows now.

        Raises:
            StoreError: there is none of this name (any more), or it cannot be read.
        """
        return self._fresh(name)[0]

    def beside(self, name: str) -> str:
        """Returns a text that changes when a file beside the records that a page is arranged by comes, goes or changes.

        Raises:
            StoreError: there is no study of this name (any more).
        """
        return str(_stamp(self.records(name).folder)[2:])

    def version(self, name: str) -> str:
        """Returns a text that changes when the study shows something else; empty when it cannot be read."""
        try:
            view, number = self._fresh(name)
        except StoreError:
            return ""
        return f"{name}:{number}:{view.progress}"

    def _fresh(self, name: str) -> tuple[StudyView, int]:
        shelf = self._shelf(name)
        with shelf.lock:
            stamp = _stamp(shelf.records.folder)
            alive = shelf.records.driver() is not None
            if shelf.view is None or stamp != shelf.stamp or alive != (shelf.view.driver is not None):
                facts = _facts(shelf.records, alive, stamp)
                if facts != shelf.facts:
                    shelf.view, shelf.version = study_view(shelf.records), shelf.version + 1
                shelf.stamp, shelf.facts = stamp, facts
            assert shelf.view is not None
            return shelf.view, shelf.version

    def _shelf(self, name: str) -> _Shelf:
        with self._lock:
            shelf = self._shelves.get(name)
            try:
                identity = (self.root / name / "store.db").stat().st_ino
            except OSError:
                identity = -1
            if shelf is not None and shelf.identity != identity:
                self._shelves.pop(name)
                shelf.records.close()
                shelf = None
            if shelf is None:
                shelf = self._shelves[name] = _Shelf(self._store.study(name), identity)
            return shelf


def _stamp(folder: Path) -> _Stamp:
    """When and how the files of a study that are read here last changed."""
    names = ("store.db", "store.db-wal", "people.json", "calibration.json", "data.json", "tuning.json")
    return tuple(_stat(folder / name) for name in names)


def _stat(path: Path) -> tuple[int, int, int] | None:
    try:
        facts = path.stat()
    except OSError:
        return None
    return facts.st_mtime_ns, facts.st_size, facts.st_ino


def _facts(records: StudyStore, alive: bool, stamp: _Stamp) -> object:
    """What a view depends on. A driver's sign of life changes the file, but nothing that is shown."""
    return alive, records.revision(), stamp[2:]
