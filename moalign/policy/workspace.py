"""Where an engine keeps what it has computed, and how it finds it again."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol, final

import numpy as np
import torch

from moalign.policy.export import load_arrays, save_arrays
from moalign.store import is_complete, verify


class Workspace(Protocol):
    """Where the engine keeps its work; a study's store is one."""

    def training_folder(self, key: str) -> Path: ...
    def cache_folder(self, key: str) -> Path: ...
    def publish(self, folder: Path) -> AbstractContextManager[Path]: ...
    def checkpoint(self, key: str) -> Path | None: ...
    def save_checkpoint(self, key: str, step: int, write: Callable[[Path], None]) -> None: ...
    def clear_checkpoint(self, key: str) -> None: ...


@final
class Memory:
    """Named arrays that are computed once: kept in memory, and in the workspace's cache if there is one."""

    def __init__(self, workspace: Workspace | None) -> None:
        self._workspace = workspace
        self._known: dict[str, dict[str, np.ndarray]] = {}

    def __call__(self, key: str, compute: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """Returns the arrays that `compute` gives, from the cache if this key was computed before."""
        if key in self._known:
            return self._known[key]
        folder = None if self._workspace is None else self._workspace.cache_folder(key)
        stored = None if folder is None else stored_folder(folder)
        if stored is not None:
            arrays = {name: tensor.numpy() for name, tensor in load_arrays(stored).items()}
        else:
            arrays = compute()
            if self._workspace is not None and folder is not None:
                with self._workspace.publish(folder) as target:
                    save_arrays(target, {n: torch.from_numpy(np.ascontiguousarray(a)) for n, a in arrays.items()})
        self._known[key] = arrays
        return arrays


def stored_folder(folder: Path) -> Path | None:
    """Returns the folder if it was published whole, None if there is none yet.

    Raises:
        ArtefactError: a file in it does not match its checksum.
    """
    if not is_complete(folder):
        return None
    verify(folder)
    return folder
