"""A plain folder that an engine keeps its work in, for work that belongs to no study. One writer at a time."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import final

from moalign.errors import StoreError
from moalign.store import artefacts, checkpoints


@final
class FolderWorkspace:
    """Trainings, caches and checkpoints in `folder`; every entry appears by one rename, with checksums."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def training_folder(self, key: str) -> Path:
        return self.folder / "training" / key

    def cache_folder(self, key: str) -> Path:
        return self.folder / "cache" / key

    def publish(self, folder: Path) -> AbstractContextManager[Path]:
        """Returns `artefacts.publish` for a folder in here."""
        if self.folder.resolve() not in folder.resolve().parents:
            raise StoreError(f"{folder} is not inside {self.folder}.")
        return artefacts.publish(folder)

    def checkpoint(self, key: str) -> Path | None:
        """Returns the newest whole checkpoint of a training, or None."""
        return checkpoints.newest(self.training_folder(key))

    def save_checkpoint(self, key: str, step: int, write: Callable[[Path], None]) -> None:
        """Publishes what `write` puts into the folder it is given."""
        folder = self.training_folder(key)
        with self.publish(checkpoints.path_of(folder, step)) as hidden:
            write(hidden)
        checkpoints.prune(folder, step)

    def clear_checkpoint(self, key: str) -> None:
        """Removes all checkpoints of a training."""
        for _, path in checkpoints.existing(self.training_folder(key)):
            artefacts.remove(path)
