"""A study of three trials with two objectives, and the numbers that finish one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moalign.store import Measured, Store, StudyStore


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "runs")


@pytest.fixture
def study(store: Store) -> StudyStore:
    study = store.create("hh", {"method": {"beta": 0.1}, "seed": 7}, info={"versions": {"moalign": "0.1.0"}, "seed": 7})
    with study.drive():
        study.add_trials([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]], ["helpful", "harmless"])
    return study


@pytest.fixture
def measured() -> Callable[..., Measured]:
    """Makes a full measurement; keyword arguments replace entries."""

    def make(**changes: Any) -> Measured:
        entries: dict[str, Any] = {
            "values": np.array([0.25, -1.5]),
            "standard_errors": [0.125, 0.0],
            "kl": 6.5,
            "kl_standard_error": 0.5,
            "columns": {"win_rate": 0.75},
            "prompt_values": np.array([[0.0, -1.0], [0.5, -2.0]]),
            "feasible": True,
        }
        return Measured(**{**entries, **changes})  # type: ignore[typeddict-item]

    return make
