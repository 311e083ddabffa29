"""A folder of studies, one folder each."""

from __future__ import annotations

import difflib
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

from moalign.errors import StoreError, StudyChangedError
from moalign.store.artefacts import clear_leftovers, hidden_sibling, sync_folder
from moalign.store.database import Database
from moalign.store.definition import STUDY_FILE, check_name, read_study_file, write_study_file
from moalign.store.differences import differences
from moalign.store.fingerprint import fingerprint
from moalign.store.study_store import DATABASE_FILE, StudyStore

_STALE_SECONDS = 3600.0  # a study takes far less time to create: what is older was left by a killed process


@final
class Store:
    """The studies in one folder, such as "runs". The folder is made when the first study is.

    Raises:
        StoreError: `root` is a file.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        if self.root.exists() and not self.root.is_dir():
            raise StoreError(f"{self.root} is a file. Studies are stored in a folder: choose another path.")

    def __repr__(self) -> str:
        return f"<Store {str(self.root)!r}>"

    def names(self) -> list[str]:
        """Returns the names of all studies, sorted."""
        if not self.root.is_dir():
            return []
        return sorted(p.name for p in self.root.iterdir() if not p.name.startswith(".") and (p / STUDY_FILE).is_file())

    def study(self, name: str) -> StudyStore:
        """Returns an existing study.

        Raises:
            StoreError: there is none of this name; suggests near names.
        """
        names = self.names()
        if name in names:
            return StudyStore(self.root / name)
        near = difflib.get_close_matches(str(name), names, n=3)
        if near:
            hint = f" Did you mean {' or '.join(repr(n) for n in near)}?"
        else:
            hint = " It holds no studies yet." if not names else ""
        raise StoreError(f"There is no study {name!r} in {self.root}.{hint} `moalign ls` shows all studies.")

    def create(self, name: str, description: Mapping[str, Any], *, info: Mapping[str, Any]) -> StudyStore:
        """Returns the study of this name: the existing one if its fingerprint is the same, else a new one.

        Args:
            name: of the study and its folder.
            description: what `describe` returned for the definition.
            info: further facts for study.json that do not belong to the definition: versions, seed, data hash.

        Raises:
            DefinitionError: the name cannot be a folder.
            StudyChangedError: the name is taken by another definition; lists the differences field by field.
            StoreError: the place is taken by something else.
        """
        check_name(name)
        folder = self.root / name
        if not (folder / STUDY_FILE).is_file():
            self._make(folder, description, info)
        study = StudyStore(folder)
        if study.fingerprint != fingerprint(description):
            lines = "".join(f"\n  {line}" for line in differences(study.description, description))
            study.close()
            raise StudyChangedError(
                f"Study {name!r} in {self.root} has another definition:{lines}\nGive the changed study another name, "
                f'or pass on_change="fork" to store it as {self.fork_name(name, description)!r}.'
            )
        return study

    def fork_name(self, name: str, description: Mapping[str, Any]) -> str:
        """Returns `name` if it is free or taken by an equal definition, else the first such of name-2, name-3, ..."""
        check_name(name)
        candidate, number = name, 1
        while self._taken_by_other(candidate, description):
            number += 1
            candidate = f"{name}-{number}"
        return candidate

    def _taken_by_other(self, name: str, description: Mapping[str, Any]) -> bool:
        if name not in self.names():
            return (self.root / name).exists()
        return read_study_file(self.root / name).fingerprint != fingerprint(description)

    def _make(self, folder: Path, description: Mapping[str, Any], info: Mapping[str, Any]) -> None:
        """Makes a study beside its place and renames it there, so that of two processes exactly one makes it."""
        self.root.mkdir(parents=True, exist_ok=True)
        clear_leftovers(self.root, deep=False, older_than=_STALE_SECONDS)
        hidden = hidden_sibling(folder, "new")
        hidden.mkdir()
        try:
            write_study_file(hidden, folder.name, description, info)
            Database.create(hidden / DATABASE_FILE)
            sync_folder(hidden)
            _place(hidden, folder)
        finally:
            shutil.rmtree(hidden, ignore_errors=True)


def _place(hidden: Path, folder: Path) -> None:
    try:
        hidden.rename(folder)
    except OSError as error:
        if not (folder / STUDY_FILE).is_file():  # else another process was faster, and its study is the study
            raise StoreError(f"{folder} is taken, but not by a study ({error}). Choose another study name.") from error
    sync_folder(folder.parent)
