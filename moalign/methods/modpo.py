"""Multi-objective direct preference optimisation (MODPO, arXiv 2310.03708).

For each preference weight vector w, one objective k is trained from its preference pairs, and the rewards of all
others enter as margins, so that the policy's optimum is that of max E[w . r] - beta KL(policy || reference). All
policies are trained as one stack.

Needs: preference pairs for the trained objectives (given, or sampled from the reference and labelled by the reward),
and a reward for every objective: a function, a reward model, or one learned by DPO from pairs.
Assumes: label noise is Bradley-Terry in the trained objective's reward times its `label_scale`.
Differs from the official code in taking the trained objective with the largest weight by default, which keeps 1 / w_k
small, and in training the corners of the simplex (where another w_i is 0) like any other weights: with all weight on
the trained objective the loss is DPO's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, final

import numpy as np
import torch
from torch import Tensor

from moalign.arrays import FloatArray, IntArray
from moalign.errors import DefinitionError
from moalign.losses import modpo, warn_small_trained_weight
from moalign.methods.base import PolicySet, WeightSpace
from moalign.policy.adapters import AdapterStack
from moalign.policy.batches import PreferenceData
from moalign.policy.engine import Engine
from moalign.policy.train import Training
from moalign.preferences import SampledPairs, preference_data
from moalign.problem import Problem
from moalign.scoring import Scorer
from moalign.store import describe


@final
@dataclass(frozen=True, kw_only=True)
class MODPO:
    """Multi-objective DPO (arXiv 2310.03708, section 3: the loss over chosen and rejected with margin rewards).

    Attributes:
        beta: KL strength in reward units per nat, > 0: the policies maximise w . r - beta KL.
        trained: name of the objective whose pairs are trained on; None takes the largest weight of each policy.
        label_smoothing: assumed flip rate of labels, in [0, 0.5).
        sampled: how pairs are made for objectives that have none.
        training: optimiser steps, batch size, learning rate, adapters.
    """

    weight_space: ClassVar[WeightSpace] = "simplex"

    beta: float = 0.1
    trained: str | None = None
    label_smoothing: float = 0.0
    sampled: SampledPairs = field(default_factory=SampledPairs)
    training: Training = field(default_factory=Training)

    def __post_init__(self) -> None:
        wrong = []
        if not (math.isfinite(self.beta) and self.beta > 0):
            wrong.append(f"MODPO beta must be > 0, got {self.beta}.")
        if not 0 <= self.label_smoothing < 0.5:
            wrong.append(f"MODPO label_smoothing must be in [0, 0.5), got {self.label_smoothing}.")
        if wrong:
            raise DefinitionError(wrong)

    @property
    def kl_strength(self) -> float | None:
        return self.beta

    def problems(self, problem: Problem, weights: FloatArray) -> list[str]:
        """Returns every reason to refuse: unknown trained objective, or one whose weight is zero somewhere."""
        if self.trained is None:
            return []
        if self.trained not in problem.names:
            return [f"MODPO trains on objective {self.trained!r}, but the problem has {', '.join(problem.names)}."]
        k = problem.names.index(self.trained)
        return [
            f"MODPO divides by the weight of the trained objective {self.trained!r} (index {k}), but weights[{i}] "
            f"gives it {row[k]:g}. Drop that vector, train another objective, or leave `trained` out."
            for i, row in enumerate(weights)
            if row[k] <= 0
        ]

    def fit(self, problem: Problem, weights: FloatArray, engine: Engine) -> PolicySet:
        """Returns one policy per row of `weights` [weights, objectives]."""
        return self.fit_each([self] * len(weights), problem, weights, engine)

    def stacks_with(self, other: object) -> bool:
        """Returns whether policies of both settings can be trained as one stack, as `fit_each` does.

        They may differ in beta, and in the steps and the learning rate of the training.
        """
        if not isinstance(other, MODPO):
            return False
        training = replace(other.training, steps=self.training.steps, learning_rate=self.training.learning_rate)
        return replace(other, beta=self.beta, training=training) == self

    def fit_each(self, settings: Sequence[MODPO], problem: Problem, weights: FloatArray, engine: Engine) -> PolicySet:
        """Returns one policy per row of `weights` [weights, objectives], each trained with its own settings.

        Args:
            settings: one per row, all of which `stacks_with` this one.
            problem, weights, engine: as in `fit`.
        """
        training = replace(self.training, steps=max(s.training.steps for s in settings))
        data = preference_data(problem, Scorer(problem, engine), engine, self.sampled)
        trained = self._trained_objectives(problem, weights)
        own = _own_columns(settings)
        stacks: dict[int, tuple[AdapterStack, str, IntArray]] = {}
        for name, members, rows in _groups(problem, trained, data):
            columns = self._policy_columns(problem, weights[members], trained[members])
            columns |= {column: values[members] for column, values in own.items()}
            facts = describe({"label_smoothing": self.label_smoothing, "training": training})
            stack = engine.train(name, data.keep(rows), self._loss, columns, training, facts)
            stacks[len(stacks)] = (stack, name, members)
        order = np.argsort(np.concatenate([members for _, _, members in stacks.values()]))
        rows_of = [(name, row) for _, name, members in stacks.values() for row in range(len(members))]
        joined = AdapterStack.concatenate([stack for stack, _, _ in stacks.values()])
        return PolicySet(joined.select(order.tolist()), weights, tuple(rows_of[i] for i in order))

    def _trained_objectives(self, problem: Problem, weights: FloatArray) -> IntArray:
        """Returns the trained objective's index k per policy [weights]."""
        if self.trained is None:
            trained = weights.argmax(axis=1)
        else:
            trained = np.full(len(weights), problem.names.index(self.trained))
        warn_small_trained_weight(torch.from_numpy(weights[np.arange(len(weights)), trained]))
        return trained

    def _policy_columns(self, problem: Problem, weights: FloatArray, trained: IntArray) -> dict[str, np.ndarray]:
        others = np.array([[i for i in range(len(problem.names)) if i != k] for k in trained], dtype=np.int64)
        return {
            "trained": trained.astype(np.int64),
            "others": others.reshape(len(trained), -1),
            "trained_weight": weights[np.arange(len(trained)), trained],
            "margin_weights": np.take_along_axis(weights, others.reshape(len(trained), -1), axis=1),
            "label_scale": np.array([problem.objectives[k].label_scale for k in trained]),
        }

    def _loss(self, first: Tensor, second: Tensor, batch: Mapping[str, Tensor], policy: Mapping[str, Tensor]) -> Tensor:
        """Returns losses [policies, batch]; labels and rewards are those of each policy's own trained objective."""
        scale = policy["label_scale"]
        others = policy["others"]  # [policies, objectives - 1]
        margins = [
            scale[:, None, None]
            * batch[f"rewards_{side}"][:, others].transpose(0, 1)  # [policies, batch, objectives - 1]
            for side in ("first", "second")
        ]
        return modpo(
            policy_chosen=first,
            policy_rejected=second,
            reference_chosen=batch["reference_first"],
            reference_rejected=batch["reference_second"],
            margin_chosen=margins[0],
            margin_rejected=margins[1],
            trained_weight=policy["trained_weight"],
            margin_weights=policy["margin_weights"],
            beta=scale * policy["beta"],
            labels=batch["labels"][:, policy["trained"]].T,
            label_smoothing=self.label_smoothing,
        )


def _own_columns(settings: Sequence[MODPO]) -> dict[str, np.ndarray]:
    """Returns what each policy has of its own [policies]; rates and steps only where they differ."""
    columns = {"beta": np.array([s.beta for s in settings])}
    if len({(s.training.learning_rate, s.training.steps) for s in settings}) > 1:
        columns["learning_rate"] = np.array([s.training.learning_rate for s in settings])
        columns["steps"] = np.array([s.training.steps for s in settings], dtype=np.int64)
    return columns


def _groups(problem: Problem, trained: IntArray, data: PreferenceData) -> list[tuple[str, IntArray, np.ndarray]]:
    """Returns (training name, policies, usable pairs) per stack: policies whose objectives label the same pairs."""
    labelled = ~np.isnan(data.pair_columns["labels"])  # [pairs, objectives]
    groups: dict[bytes, list[int]] = {}
    for policy, k in enumerate(trained):
        groups.setdefault(labelled[:, k].tobytes(), []).append(policy)
    result = []
    for members in groups.values():
        names = sorted({problem.names[trained[m]] for m in members})
        result.append(("modpo-" + "-".join(names), np.array(members), labelled[:, trained[members[0]]]))
    return result
