"""How reward heads are fitted: settings of Bradley-Terry, regression and fine-tuning; pairs as rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import numpy as np
from numpy.typing import NDArray

from moalign.arrays import FloatArray, IntArray
from moalign.errors import DefinitionError

if TYPE_CHECKING:
    from moalign.policy.adapters import LoRA  # loads torch

PENALTIES = tuple(float(p) for p in np.geomspace(1e-1, 1e5, 13))

Columns = NDArray[Any]


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class PairRows:
    """Preference pairs of one objective as places in a matrix of vectors."""

    chosen: IntArray  # [pairs]
    rejected: IntArray  # [pairs]
    labels: FloatArray  # [pairs], probability that chosen is preferred
    margin: FloatArray | None = None  # [pairs], reward units
    strength: FloatArray | None = None  # [pairs], >= 0

    def __len__(self) -> int:
        return len(self.chosen)

    def select(self, rows: IntArray) -> PairRows:
        """Returns the pairs at these places."""
        return PairRows(
            chosen=self.chosen[rows],
            rejected=self.rejected[rows],
            labels=self.labels[rows],
            margin=None if self.margin is None else self.margin[rows],
            strength=None if self.strength is None else self.strength[rows],
        )


@final
@dataclass(frozen=True, kw_only=True)
class BradleyTerry:
    """How pairs are fitted; `losses.reward.bradley_terry` is the loss.

    Attributes:
        margin_scale: reward units of difference that a unit of the pairs' `margin` column asks for; 0 is plain BT.
        scaled: count each pair as often as its |margin| says (scaled BT); pairs of margin 0 are ties and drop out.
        label_smoothing: assumed rate of flipped labels, in [0, 0.5); leads to smaller rewards.
        flip_rate: known rate of flipped labels, in [0, 0.5); the loss is corrected for them without bias.
        centring: factor of (r_chosen + r_rejected)^2, which also shrinks the rewards. Without it only their mean over
            all responses is zero, not that of every prompt.
        penalties: candidates for the ridge penalty, each >= 0; a single one is taken as it is.
    """

    margin_scale: float = 0.0
    scaled: bool = False
    label_smoothing: float = 0.0
    flip_rate: float = 0.0
    centring: float = 0.0
    penalties: tuple[float, ...] = PENALTIES

    def __post_init__(self) -> None:
        problems = _penalty_problems(self.penalties)
        for name in ("margin_scale", "centring"):
            value = getattr(self, name)
            if not (np.isfinite(value) and value >= 0):
                problems.append(f"{name} must be finite and >= 0, got {value!r}.")
        for name in ("label_smoothing", "flip_rate"):
            if not 0 <= getattr(self, name) < 0.5:
                problems.append(f"{name} must be in [0, 0.5), got {getattr(self, name)!r}.")
        if self.label_smoothing and self.flip_rate:
            problems.append("label_smoothing and flip_rate contradict each other; use one of them.")
        if problems:
            raise DefinitionError(problems, where="BradleyTerry")

    def columns(self, pairs: PairRows) -> dict[str, Columns | None]:
        """Returns labels, margin and strength as the loss takes them."""
        strength = pairs.strength
        if self.scaled and pairs.margin is not None:
            strength = np.abs(pairs.margin) * (1.0 if strength is None else strength)
        margin = None if not self.margin_scale or pairs.margin is None else self.margin_scale * np.abs(pairs.margin)
        return {"labels": pairs.labels, "margin": margin, "strength": strength}

    def loss(self, chosen: Any, rejected: Any, columns: dict[str, Any]) -> Any:
        """Returns the loss of every pair [batch] for rewards as tensors, the centring included."""
        from moalign.losses.reward import bradley_terry, centring

        losses = bradley_terry(
            chosen=chosen, rejected=rejected, label_smoothing=self.label_smoothing, flip_rate=self.flip_rate, **columns
        )
        return losses + self.centring * centring(chosen=chosen, rejected=rejected) if self.centring else losses


@final
@dataclass(frozen=True, kw_only=True)
class Regression:
    """How ratings are fitted: ridge regression, one penalty per objective.

    Attributes:
        intercept: fit a constant, on standardised vectors; False: none, on the vectors as they are.
        penalties: candidates for the ridge penalty, each >= 0; a single one is taken as it is.
    """

    intercept: bool = True
    penalties: tuple[float, ...] = PENALTIES

    def __post_init__(self) -> None:
        if problems := _penalty_problems(self.penalties):
            raise DefinitionError(problems, where="Regression")


@final
@dataclass(frozen=True, kw_only=True)
class FineTuning:
    """How the trunk is trained.

    Attributes:
        steps: optimiser steps; 1 or more.
        batch_size: pairs, or rated responses, of each objective in a step.
        learning_rate: AdamW's, of the adapters; rises over the first tenth of the steps and falls linearly to zero.
        head_learning_rate: of the heads, on vectors of unit scale.
        weight_decay: AdamW's, of the adapters.
        lora: rank, scale and adapted projections; rank 16 and alpha 32 on all of them when None.
        validation: share of the prompts held out to choose the step, in (0, 1).
        evaluations: how often the held-out loss is measured.
        seed: of the adapters, the held-out prompts and the data order.
    """

    steps: int = 200
    batch_size: int = 16
    learning_rate: float = 1e-4
    head_learning_rate: float = 1e-3
    weight_decay: float = 0.0
    lora: LoRA | None = None
    validation: float = 0.1
    evaluations: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        problems = [
            f"{name} must be a whole number >= 1, got {getattr(self, name)!r}."
            for name in ("steps", "batch_size", "evaluations")
            if type(getattr(self, name)) is not int or getattr(self, name) < 1
        ]
        problems += [
            f"{name} must be finite and > 0, got {getattr(self, name)!r}."
            for name in ("learning_rate", "head_learning_rate")
            if not (np.isfinite(getattr(self, name)) and getattr(self, name) > 0)
        ]
        if not 0 < self.validation < 1:
            problems.append(f"validation must be in (0, 1), got {self.validation!r}.")
        if problems:
            raise DefinitionError(problems, where="FineTuning")

    def rate(self, step: int) -> float:
        """Returns the factor of the learning rates at step 0 .. steps - 1."""
        warm = max(self.steps // 10, 1)
        return min((step + 1) / warm, (self.steps - step) / max(self.steps - warm, 1), 1.0)


def _penalty_problems(penalties: Sequence[float]) -> list[str]:
    if penalties and all(np.isfinite(p) and p >= 0 for p in penalties):
        return []
    return [f"penalties must be one or more finite numbers >= 0, got {penalties!r}."]
