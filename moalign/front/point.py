"""One trained and evaluated policy: its preference weights, measured values and a handle to use it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import numpy as np

from moalign.arrays import FloatArray, as_vector
from moalign.errors import DefinitionError


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class Point:
    """One policy among the points of a front. Arrays are read-only copies.

    Raises:
        DefinitionError: values or weights that are not finite vectors, a negative standard error; all are listed.
    """

    trial: int  # identifies the policy within its study
    weights: FloatArray  # [objectives] preference weights, or [0] for a method without weights
    values: FloatArray  # [objectives] expected rewards, in reward units, maximised
    standard_errors: FloatArray  # [objectives] of the values; NaN where unknown
    kl: float  # to the reference policy, nats per completion; NaN where unknown
    kl_standard_error: float  # NaN where unknown
    columns: Mapping[str, float | int] = field(default_factory=dict)  # side columns, such as mean_tokens
    feasible: bool = True  # within the limits of the study
    policy: Any = None  # handle with export(path) and generate(prompts, ...); None when only numbers were kept

    def __post_init__(self) -> None:
        values = frozen_copy(as_vector(self.values, f"values of trial {self.trial}"))
        errors = frozen_copy(np.asarray(self.standard_errors, dtype=np.float64))
        problems = []
        if errors.shape != values.shape:
            problems.append(
                f"standard_errors of trial {self.trial} has shape {errors.shape}, values has {values.shape}; "
                "one standard error belongs to each value (NaN where unknown)."
            )
        if (errors < 0).any() or self.kl_standard_error < 0:
            problems.append(f"standard errors of trial {self.trial} must be >= 0 or NaN.")
        if problems:
            raise DefinitionError(problems)
        set_field = object.__setattr__
        set_field(self, "weights", frozen_copy(as_vector(self.weights, f"weights of trial {self.trial}")))
        set_field(self, "values", values)
        set_field(self, "standard_errors", errors)
        set_field(self, "kl", float(self.kl))
        set_field(self, "kl_standard_error", float(self.kl_standard_error))
        set_field(self, "columns", {str(name): float(value) for name, value in self.columns.items()})

    def export(self, path: str | Path) -> Any:
        """Returns what the policy's own export returns after writing it to the folder `path`.

        Raises:
            DefinitionError: this point carries numbers only.
        """
        return self._handle().export(path)

    def generate(self, prompts: str | Sequence[str], **options: Any) -> Any:
        """Returns the policy's responses to `prompts`; options are those of the policy.

        Raises:
            DefinitionError: this point carries numbers only.
        """
        return self._handle().generate(prompts, **options)

    def __repr__(self) -> str:
        weights = ", ".join(f"{w:.3g}" for w in self.weights)
        values = ", ".join(f"{v:.3g}" for v in self.values)
        kl = "unknown" if math.isnan(self.kl) else f"{self.kl:.3g} nats"
        return f"<Point trial {self.trial}: weights ({weights}), values ({values}), KL {kl}>"

    def _handle(self) -> Any:
        if self.policy is None:
            raise DefinitionError(
                f"The point of trial {self.trial} carries numbers only, no policy. "
                "Load the front from the study's results folder to use its policies."
            )
        return self.policy


def frozen_copy(array: FloatArray) -> FloatArray:
    """Returns a read-only float64 copy of `array`."""
    copy = np.array(array, dtype=np.float64)
    copy.flags.writeable = False
    return copy
