"""What can be wrong with a study on disk, and setting damaged folders aside."""

from __future__ import annotations

import os
from pathlib import Path
from sqlite3 import Connection

from moalign.errors import ArtefactError, StoreError
from moalign.store.artefacts import MANIFEST, leftovers, verify
from moalign.store.definition import STUDY_FILE, StudyFile
from moalign.store.fingerprint import fingerprint
from moalign.store.records import REFERENCE, Finding

DAMAGED = "damaged"  # the folder, inside the study, that damaged folders are moved into


def database_findings(connection: Connection, path: Path) -> list[Finding]:
    """Returns what SQLite's own check finds in the file."""
    lines = [row[0] for row in connection.execute("PRAGMA quick_check(5)")]
    remedy = f"Restore it from a copy, or recover the rows with `sqlite3 {path.name} .recover`."
    return [Finding(kind="database", place=path, problem=line, remedy=remedy) for line in lines if line != "ok"]


def unreadable_finding(path: Path, error: StoreError) -> Finding:
    """Returns the finding for a file that SQLite could not even check."""
    return Finding(
        kind="database", place=path, problem=str(error), remedy="Restore the file from a copy if this stays."
    )


def definition_findings(folder: Path, content: StudyFile) -> list[Finding]:
    """Returns whether study.json was edited after the study began."""
    if fingerprint(content.definition) == content.fingerprint:
        return []
    return [
        Finding(
            kind="definition",
            place=folder / STUDY_FILE,
            problem="the definition does not match its fingerprint, so the file was edited after the study began",
            remedy="Restore it from a copy; for another definition start another study.",
        )
    ]


def folder_findings(folder: Path, *, driven: bool) -> list[Finding]:
    """Returns damaged artefact folders, and what killed processes left behind unless a driver is at work (`driven`)."""
    findings = [] if driven else leftover_findings(folder)
    for path in _artefacts(folder):
        try:
            verify(path)
        except ArtefactError as error:
            remedy = "`moalign doctor --repair` sets it aside; running the study again makes it anew."
            findings.append(Finding(kind="damaged", place=path, problem=str(error), remedy=remedy))
    return findings


def leftover_findings(folder: Path) -> list[Finding]:
    """Returns what killed processes left half-written."""
    problem, remedy = "a process was killed while it wrote this", "The next run of the study removes it."
    return [Finding(kind="leftover", place=path, problem=problem, remedy=remedy) for path in leftovers(folder)]


def trial_number(folder: Path, place: Path) -> int | None:
    """Returns the number of the trial whose artefact folder `place` is, or None for other folders."""
    if place.parent != folder / "trials":
        return None
    return REFERENCE if place.name == "reference" else int(place.name) if place.name.isdecimal() else None


def set_aside(folder: Path, damaged: Path) -> Path:
    """Moves a damaged folder of the study `folder` below damaged/, under its old path and a free number."""
    relative = damaged.relative_to(folder)
    number = 1
    while (place := folder / DAMAGED / relative.parent / f"{relative.name}-{number}").exists():
        number += 1
    place.parent.mkdir(parents=True, exist_ok=True)
    damaged.rename(place)
    return place


def _artefacts(folder: Path) -> list[Path]:
    """Folders that must have a valid manifest: those with one, all trials and all checkpoints."""
    found: list[Path] = []
    for place, names, files in os.walk(folder):
        path = Path(place)
        names[:] = sorted(name for name in names if not name.startswith(".") and path / name != folder / DAMAGED)
        if MANIFEST in files or path.parent == folder / "trials" or path.name.startswith("checkpoint-"):
            found.append(path)
            names.clear()
    return found
