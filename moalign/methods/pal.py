"""PAL policies: prototypes of people as objectives, a person's mixture of them as preference weights.

`IdealPoint` or `Mixture` (moalign.rewards) learn what kinds of people want and where each person stands; here that
becomes policies. The problem's objectives are the prototypes, `people.as_objectives()`, and a study's weights are
mixtures, such as `spread_mixtures(people, 8)`. Somebody new is placed by a few answers and served by `for_user`,
without any training.

An ideal point's reward is not linear in its prototypes: a person half way between two prototypes likes what lies half
way, which neither prototype may like. With `people` given, each policy is trained on the exact reward of its mixture;
without, on the weighted sum of the objectives, which is exact for `Mixture` alone.

Needs: prompts, and rewards of people. Source: arXiv 2406.08469; the policies are those of `MORLHF`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, final

import numpy as np
from torch import Tensor

from moalign.arrays import FloatArray
from moalign.errors import DefinitionError
from moalign.methods.base import PolicySet, WeightSpace
from moalign.methods.serving import Interpolated, Nearest, Serving
from moalign.policy.engine import Engine
from moalign.policy.on_policy import Rollouts
from moalign.policy.train import Training
from moalign.problem import Problem
from moalign.rewards import PersonalRewards
from moalign.scoring import Scorer
from moalign.store import describe


@final
@dataclass(frozen=True, kw_only=True)
class PAL:
    """Policies for mixtures of prototypes of people (arXiv 2406.08469).

    Attributes:
        people: whose mixtures the weights are; None takes a person's reward to be the weighted sum of the objectives.
        beta: KL strength > 0, per nat, in the unit of the objectives (log-odds over the prototype's spread).
        interpolate: train the prototypes alone, and serve mixtures by interpolating their policies.
        rollouts: responses per prompt, their length, and how often a batch of samples is used.
        training: optimiser steps, prompts per step, learning rate, adapters.
    """

    weight_space: ClassVar[WeightSpace] = "simplex"

    people: PersonalRewards | None = None
    beta: float = 0.1
    interpolate: bool = False
    rollouts: Rollouts = field(default_factory=Rollouts)
    training: Training = field(default_factory=lambda: Training(batch_size=8))

    def __post_init__(self) -> None:
        wrong = []
        if not (math.isfinite(self.beta) and self.beta > 0):
            wrong.append(f"PAL beta must be > 0, got {self.beta}.")
        if not (self.people is None or isinstance(self.people, PersonalRewards)):
            wrong.append(f"PAL people must be what IdealPoint or Mixture fit, got {type(self.people).__name__}.")
        if wrong:
            raise DefinitionError(wrong)

    @property
    def kl_strength(self) -> float | None:
        return self.beta

    def problems(self, problem: Problem, weights: FloatArray) -> list[str]:
        """Returns what is missing to sample from, and objectives that are not one per prototype."""
        found = []
        if problem.prompts is None:
            found.append("PAL samples responses during training; give the problem prompts=...")
        if self.people is not None and self.people.prototypes != len(problem.names):
            found.append(
                f"PAL serves mixtures of {self.people.prototypes} prototypes, but the problem has the objectives "
                f"{', '.join(problem.names)}. Use objectives=people.as_objectives()."
            )
        return found

    def fit(self, problem: Problem, weights: FloatArray, engine: Engine) -> PolicySet:
        """Returns one policy per row of mixtures `weights` [weights, prototypes], or per prototype if interpolated."""
        assert problem.prompts is not None  # checked by `problems`
        mixtures = np.eye(len(problem.names)) if self.interpolate else weights
        columns: dict[str, np.ndarray] = {"beta": np.full(len(mixtures), self.beta), "mixture": mixtures}
        score: Any = Scorer(problem, engine)
        if self.people is not None:
            score = _Personal(self.people, mixtures)
            columns["mixture"] = np.eye(len(mixtures))  # each policy has a reward of its own
        facts = describe({"method": self, "objectives": problem.objectives})
        prompts = list(dict.fromkeys(problem.prompts))
        stack = engine.train_on_policy(
            "pal", prompts, score, _own_reward, columns, self.training, self.rollouts, facts
        )  # fmt: skip
        serving: Serving = Interpolated() if self.interpolate else Nearest()
        return PolicySet(stack, mixtures, tuple(("pal", row) for row in range(len(mixtures))), serving)


@final
@dataclass(frozen=True, eq=False)
class _Personal:
    """The exact rewards of some mixtures, in the unit of the prototypes' objectives."""

    people: PersonalRewards
    mixtures: FloatArray

    def __call__(self, prompts: Sequence[Any], responses: Sequence[str]) -> FloatArray:
        """Returns rewards [responses, mixtures]; at a prototype they are its objective's."""
        return self.people.standardised(self.mixtures, prompts, responses)


def _own_reward(rewards: Tensor, policies: Mapping[str, Tensor]) -> Tensor:
    return (rewards * policies["mixture"][:, None, None]).sum(-1)


class Serves(Protocol):
    """What has policies for weights: a front, or a set of policies."""

    def for_weights(self, weights: Any) -> Any: ...


def for_user(policies: Serves, people: PersonalRewards, answers: object, *, user: str = "new user") -> Any:
    """Returns what serves a person of whom only some answers are known; a front's generates and exports.

    Args:
        policies: a front of a study whose objectives are the prototypes, or a PolicySet.
        people: the rewards that the prototypes are from.
        answers: comparisons, see `load_comparisons`; none gives the policy of the average person.
        user: the name that stands in the answers, if one does.
    """
    return policies.for_weights(people.with_user(user, answers).mixture(user))


def spread_mixtures(people: PersonalRewards, count: int) -> FloatArray:
    """Returns up to `count` users' mixtures [count, prototypes] that leave nobody far from one of them.

    The first is the mixture nearest to everybody's mean; each further one is the farthest from those before (L1), which
    is within a factor of two of the best cover. Fewer come back where users have no more different mixtures.
    """
    if count < 1:
        raise DefinitionError(f"count must be >= 1, got {count}.")
    mixtures = people.mixtures
    distance = np.abs(mixtures - mixtures.mean(axis=0)).sum(axis=1)
    chosen = [int(distance.argmin())]
    nearest = np.full(len(mixtures), np.inf)
    while True:
        nearest = np.minimum(nearest, np.abs(mixtures - mixtures[chosen[-1]]).sum(axis=1))
        if len(chosen) == count or nearest.max() < 1e-6:
            return np.asarray(mixtures[chosen])
        chosen.append(int(nearest.argmax()))
