"""Plain JSON beside a study's records, for pages whose facts come from elsewhere: users, rewards, data, tuning.

A sidecar is one file in the study's folder, written whole, validated when read. Whoever computes its facts builds the
model and calls `save(folder)`; the dashboard and the figures call `load(folder)`. Numbers must be finite.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Self

import pydantic

from moalign.errors import StoreError
from moalign.figures.text import between, number
from moalign.store import write_text_atomic


class Sidecar(pydantic.BaseModel):
    """What all of them share: strict types, no unknown fields, finite numbers, immutable."""

    model_config = pydantic.ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    FILE: ClassVar[str]

    def save(self, folder: str | Path) -> Path:
        """Writes the file into the folder of a study and returns its path; it appears complete or not at all."""
        path = Path(folder) / self.FILE
        write_text_atomic(path, self.model_dump_json(indent=1) + "\n")
        return path

    @classmethod
    def load(cls, folder: str | Path) -> Self | None:
        """Returns what the folder of a study holds; None without a file.

        Raises:
            StoreError: the file does not say what it should; lists the first reasons with their place.
        """
        path = Path(folder) / cls.FILE
        try:
            return cls.model_validate_json(path.read_bytes(), strict=False)
        except FileNotFoundError:
            return None
        except pydantic.ValidationError as error:
            reasons = [f"{'.'.join(map(str, e['loc'])) or 'the file'}: {e['msg']}" for e in error.errors()[:5]]
            raise StoreError(f"{path} cannot be read: {'; '.join(reasons)}. Write it again.") from error


class Fact(pydantic.BaseModel):
    """A number with its bounds, where they are known."""

    model_config = pydantic.ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    value: float
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return number(self.value, 3)
        return between(self.low, self.value, self.high)
