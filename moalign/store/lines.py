"""The JSON lines of a trial's folder: its generations and the course of its training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from moalign.errors import StoreError
from moalign.store.study_store import StudyStore


def load_generations(records: StudyStore, trial: int) -> list[dict[str, Any]]:
    """Returns the recorded generations of a trial, one row per sample; empty if it has none.

    Raises:
        StoreError: a line that is not JSON; names it.
    """
    return _lines(records.trial_folder(trial) / "generations.jsonl")


def load_reference_generations(records: StudyStore) -> list[dict[str, Any]]:
    """Returns the same of the untrained reference policy.

    Raises:
        StoreError: a line that is not JSON; names it.
    """
    return _lines(records.cache_folder("reference") / "generations.jsonl")


def load_metrics(records: StudyStore, trial: int) -> list[dict[str, Any]]:
    """Returns one row per optimiser step of a trial's training (step, loss, ...); empty if it has none.

    Raises:
        StoreError: a line that is not JSON; names it.
    """
    return _lines(records.trial_folder(trial) / "metrics.jsonl")


def _lines(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    rows: list[dict[str, Any]] = []
    with path.open(encoding="utf-8") as stream:
        for number, line in enumerate(stream, 1):
            try:
                rows.append(json.loads(line))
            except ValueError as error:
                raise StoreError(f"{path} line {number} is not JSON ({error}). `moalign doctor` checks it.") from error
    return rows
