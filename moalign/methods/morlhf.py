"""MORLHF: reinforcement learning on the scalarised reward, for all preference weights at once.

Every policy maximises E[w . r] - beta KL(policy || reference) on its own samples: a step draws responses of all
policies in one batch, judges each by its reward less the KL penalty against the prompt's other samples (leave-one-out
baseline, arXiv 2402.14740), and takes one step for the whole stack. It needs no preference pairs and reaches responses
the base policy hardly ever gives, at the price of sampling and scoring during training.

Needs: prompts, and a reward for every objective. Its optimum is MODPO's with exact labels: the base tilted by
exp(w . r / beta).
Differs from the PPO baseline of arXiv 2310.03708 and arXiv 2402.10207 in having no critic and no adaptive KL
coefficient: beta is the problem's, so that policies of different weights can be compared.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, final

import numpy as np
from torch import Tensor

from moalign.arrays import FloatArray
from moalign.errors import DefinitionError
from moalign.methods.base import PolicySet, WeightSpace
from moalign.policy.engine import Engine
from moalign.policy.on_policy import Rollouts
from moalign.policy.train import Training
from moalign.problem import Problem
from moalign.scoring import Scorer
from moalign.store import describe


@final
@dataclass(frozen=True, kw_only=True)
class MORLHF:
    """Policy gradient on w . r - beta KL (arXiv 2310.03708, section 2; baseline of arXiv 2402.14740).

    Attributes:
        beta: KL strength in reward units per nat, > 0.
        rollouts: responses per prompt, their length, and how often a batch of samples is used.
        training: optimiser steps, prompts per step, learning rate, adapters.
    """

    weight_space: ClassVar[WeightSpace] = "simplex"

    beta: float = 0.1
    rollouts: Rollouts = field(default_factory=Rollouts)
    training: Training = field(default_factory=lambda: Training(batch_size=8))

    def __post_init__(self) -> None:
        if not (math.isfinite(self.beta) and self.beta > 0):
            raise DefinitionError(f"MORLHF beta must be > 0, got {self.beta}.")

    @property
    def kl_strength(self) -> float | None:
        return self.beta

    def problems(self, problem: Problem, weights: FloatArray) -> list[str]:
        """Returns a reason to refuse if there is nothing to sample from."""
        if problem.prompts is None:
            return ["MORLHF samples responses during training; give the problem prompts=..."]
        return []

    def fit(self, problem: Problem, weights: FloatArray, engine: Engine) -> PolicySet:
        """Returns one policy per row of `weights` [weights, objectives]."""
        assert problem.prompts is not None  # checked by `problems`
        prompts = list(dict.fromkeys(problem.prompts))
        columns = {"weights": weights, "beta": np.full(len(weights), self.beta)}
        facts = describe({"rollouts": self.rollouts, "training": self.training, "objectives": problem.objectives})
        scorer = Scorer(problem, engine)
        stack = engine.train_on_policy(
            "morlhf", prompts, scorer, weighted_reward, columns, self.training, self.rollouts, facts
        )
        return PolicySet(stack, weights, tuple(("morlhf", row) for row in range(len(weights))))


def weighted_reward(rewards: Tensor, policies: Mapping[str, Tensor]) -> Tensor:
    """Returns w . r [policies, prompts, samples] of `rewards` [policies, prompts, samples, objectives]."""
    return (rewards * policies["weights"][:, None, None]).sum(-1)
