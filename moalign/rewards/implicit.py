"""A reward that is learned from an objective's own preference pairs, as the ratio of two policies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn, final

from moalign.errors import DefinitionError, RewardError


@final
@dataclass(frozen=True, kw_only=True)
class ImplicitReward:
    """Marks an objective whose reward is learned by DPO from its pairs.

    The study trains an adapter pi_m on the pairs and uses m(x, y) = beta_m * (log pi_m(y|x) - log pi_ref(y|x)), with
    log-probabilities summed over the completion tokens in nats (arXiv 2310.03708, section 3). `beta` is beta_m in
    both places: training with one value and scoring with another would scale the margins away from the units of the
    Bradley-Terry model. Only differences between responses to one prompt mean anything.
    """

    beta: float = 0.1  # reward units per nat, as in the formula above; > 0
    learning_rate: float = 1e-3  # Adam's; > 0
    steps: int = 200  # optimiser steps
    rank: int = 8  # LoRA rank of pi_m
    batch_size: int = 16  # pairs per step

    def __post_init__(self) -> None:
        problems = [
            f"{name} must be finite and > 0, got {value}."
            for name, value in (("beta", self.beta), ("learning_rate", self.learning_rate))
            if not (math.isfinite(value) and value > 0)
        ]
        problems += [
            f"{name} must be a whole number >= 1, got {value!r}."
            for name, value in (("steps", self.steps), ("rank", self.rank), ("batch_size", self.batch_size))
            if isinstance(value, bool) or not isinstance(value, int) or value < 1
        ]
        if problems:
            raise DefinitionError(problems, where="ImplicitReward")

    def __call__(self, prompts: Sequence[str], responses: Sequence[str]) -> NoReturn:
        """Raises RewardError: before a study has trained pi_m there is nothing to score with."""
        raise RewardError(
            "ImplicitReward has no values of its own: it is learned from the objective's pairs inside a study. "
            "Give the objective pairs=... and run the study, or use a reward that scores texts directly."
        )
