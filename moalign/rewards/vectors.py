"""Vectors of texts on disk: one SQLite file per embedding, one row per text, so that no text is embedded twice.

Rows are keyed by the SHA-256 of the text and carry a checksum; a damaged row or file counts as absent, because
everything here can be made anew. Several processes may read and write at the same time.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import warnings
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TypeVar, final

import numpy as np
from numpy.typing import NDArray

from moalign.errors import DataWarning, StoreError

Vector = NDArray[np.float32]
T = TypeVar("T")
_REMEDY = "Give Embedding(cache=...) another folder, or False."
_TABLE = "CREATE TABLE IF NOT EXISTS vectors (text BLOB PRIMARY KEY, checksum INTEGER, vector BLOB) WITHOUT ROWID"
_ASKED_AT_ONCE = 500  # keys of one query
_PATIENCE = 30.0  # seconds to wait for another writer


def text_key(parts: Sequence[str]) -> bytes:
    """Returns the SHA-256 of a text (one part) or of a pair of prompt and response (two parts)."""
    return hashlib.sha256(json.dumps(list(parts)).encode()).digest()


@final
class VectorCache:
    """The vectors of one embedding in one file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def get(self, keys: Sequence[bytes]) -> dict[bytes, Vector]:
        """Returns the vectors that are there and undamaged."""
        if not self.path.is_file():
            return {}

        def read(database: sqlite3.Connection) -> dict[bytes, Vector]:
            found: dict[bytes, Vector] = {}
            for start in range(0, len(keys), _ASKED_AT_ONCE):
                some = keys[start : start + _ASKED_AT_ONCE]
                marks = ",".join("?" * len(some))
                rows = database.execute(f"SELECT * FROM vectors WHERE text IN ({marks})", list(some))
                found |= {text: np.frombuffer(v, "<f4") for text, checksum, v in rows if zlib.crc32(v) == checksum}
            return found

        return self._with(read) or {}

    def put(self, vectors: Mapping[bytes, Vector]) -> None:
        """Keeps vectors; one that is there already is replaced.

        Raises:
            StoreError: the file cannot be written; says where it lies.
        """
        rows = []
        for key, vector in vectors.items():
            content = np.ascontiguousarray(vector, "<f4").tobytes()
            rows.append((key, zlib.crc32(content), content))

        def write(database: sqlite3.Connection) -> None:
            with database:
                database.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?, ?)", rows)

        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"{self.path.parent} cannot be made: {error}. {_REMEDY}") from error
        self._with(write)

    def _with(self, work: Callable[[sqlite3.Connection], T]) -> T | None:
        """Returns what `work` does with the open file; None if the file was damaged, which is then removed."""
        try:
            with closing(sqlite3.connect(self.path, timeout=_PATIENCE)) as database:
                database.text_factory = bytes  # a damaged cell may claim to be text
                database.execute("PRAGMA journal_mode=WAL")
                database.execute("PRAGMA synchronous=NORMAL")  # what a power cut takes is made anew
                database.execute(_TABLE)
                return work(database)
        except sqlite3.OperationalError as error:  # locked, read-only, disk full
            raise StoreError(f"{self.path}: {error}. {_REMEDY}") from error
        except sqlite3.DatabaseError as error:
            warnings.warn(f"{self.path} is damaged ({error}) and is made anew.", DataWarning, stacklevel=5)
            self.path.unlink(missing_ok=True)
            return None
