"""Checkpoints of one training: folders `checkpoint-<step>`, of which the newest whole one counts."""

from __future__ import annotations

from pathlib import Path

from moalign.errors import ArtefactError
from moalign.store.artefacts import is_complete, remove, verify

_PREFIX = "checkpoint-"
KEPT = 2  # the newest, and the one before in case the newest is damaged


def path_of(folder: Path, step: int) -> Path:
    """Returns the folder of the checkpoint after `step` optimiser steps."""
    return folder / f"{_PREFIX}{step}"


def newest(folder: Path) -> Path | None:
    """Returns the newest checkpoint whose checksums match, or None; damaged ones are passed over."""
    for _, path in reversed(existing(folder)):
        try:
            verify(path)
        except ArtefactError:
            continue
        return path
    return None


def prune(folder: Path, step: int) -> None:
    """Keeps checkpoint `step`, just written, and the newest whole one before it.

    Later ones are removed as well: training went back to before them because they could not be read.
    """
    earlier = [(number, path) for number, path in existing(folder) if number < step]
    whole = [path for _, path in earlier if is_complete(path)]
    kept = {path_of(folder, step), *whole[-(KEPT - 1) :]}
    for _, path in existing(folder):
        if path not in kept:
            remove(path)


def existing(folder: Path) -> list[tuple[int, Path]]:
    """Returns all checkpoint folders, whole or not, by rising step."""
    if not folder.is_dir():
        return []
    steps = ((path.name.removeprefix(_PREFIX), path) for path in folder.iterdir() if path.name.startswith(_PREFIX))
    return sorted((int(step), path) for step, path in steps if step.isascii() and step.isdigit())
