"""MaxMin: one policy that is as good as possible for the group that it serves worst, or best for another welfare.

Groups are the problem's objectives: rewards that are given, or those of an EM mixture of people
(`Mixture().fit(...).as_objectives()`, arXiv 2402.08925). The policy maximises W(F) - beta KL, F_g being the expected
reward of group g and W the minimum or another welfare, by on-policy steps on sum_g weight_g r_g. An adversary moves
the weights after every batch: by mirror ascent towards the groups that are worse off (arXiv 2402.08925, section 4, with
the averaging update instead of the worst group's alone, which chatters), or to the welfare's gradient at the running
means of F.

A preference weight vector is the groups' shares: groups without a share do not count, and the welfares that know shares
(all but the minimum) use them. So every vector has its policy, and the even one is the usual choice.

Needs: prompts, and a reward for every group on one scale: `Standardize` them, since comparisons say nothing about the
unit or the zero of a group's reward. `baseline` measures each group from its own zero, such as the best it could have.
Differs from the released code in taking the minimum over groups' means; the code takes it for each response, which is
`inner="sample"` here: a policy that pleases one group with some responses and another with others scores low there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, final

import numpy as np
import torch
from torch import Tensor

from moalign.arrays import FloatArray
from moalign.errors import DefinitionError
from moalign.methods.base import PolicySet, WeightSpace
from moalign.methods.measuring import Measured, measure
from moalign.methods.welfare import Welfare, Worst, marginal_weights, welfare_problems
from moalign.policy.engine import Engine
from moalign.policy.generate import Sampling
from moalign.policy.on_policy import Rollouts
from moalign.policy.train import Training
from moalign.problem import Problem
from moalign.scoring import Scorer
from moalign.store import describe

MEASURED_PROMPTS, MEASURED = 64, 512  # training prompts and responses on which the gap is measured
TAIL = 0.98  # memory of the weights' running mean, which is what is reported


@final
@dataclass(frozen=True, kw_only=True)
class MaxMin:
    """Max-min policy optimisation over groups (arXiv 2402.08925), and other welfares of groups.

    Attributes:
        beta: KL strength in reward units per nat, > 0, common to all groups.
        welfare: W: `Worst()` is the minimum; `Nash`, `CVaR`, `PowerMean`, `Mean`, or a smooth `Worst(temperature)`.
        inner: who chooses the weights of groups. "mirror" (for the minimum): multiplied by exp(-rate F_g) after every
            batch; "gradient": the welfare's gradient at the running means of F, which for the minimum is all weight on
            the worst group; "sample": no weights, the welfare of each single response is its reward.
        rate: of mirror ascent, per reward unit, at the peak of the training's schedule, which it follows: weights that
            move to the end answer the noise of the last batches, and the policy follows them.
        memory: of the running means of F for inner="gradient"; 0 looks at the last batch alone.
        floor: the least weight of a group in mirror ascent, relative to an even one, so that none vanishes for ever.
        baseline: subtracted from every group's reward, reward units; such as the best that each group could have.
        rollouts: responses per prompt, their length, and how often a batch of samples is used.
        training: optimiser steps, prompts per step, learning rate, adapters.
    """

    weight_space: ClassVar[WeightSpace] = "simplex"

    beta: float = 0.1
    welfare: Welfare = field(default_factory=Worst)
    inner: Literal["auto", "mirror", "gradient", "sample"] = "auto"
    rate: float = 0.1
    memory: float = 0.9
    floor: float = 1e-3
    baseline: tuple[float, ...] | None = None
    rollouts: Rollouts = field(default_factory=Rollouts)
    training: Training = field(default_factory=lambda: Training(batch_size=8))

    def __post_init__(self) -> None:
        limits = {
            "beta must be > 0": (self.beta, math.isfinite(self.beta) and self.beta > 0),
            "rate must be > 0": (self.rate, math.isfinite(self.rate) and self.rate > 0),
            "memory must be in [0, 1)": (self.memory, 0 <= self.memory < 1),
            "floor must be in (0, 1)": (self.floor, 0 < self.floor < 1),
            "inner must be auto, mirror, gradient or sample": (
                self.inner, self.inner in ("auto", "mirror", "gradient", "sample"),
            ),
        }  # fmt: skip
        wrong = [f"MaxMin {rule}, got {value!r}." for rule, (value, ok) in limits.items() if not ok]
        if self.inner == "mirror" and self.welfare != Worst():
            wrong.append('MaxMin inner="mirror" is for the minimum, Worst(); other welfares have a gradient.')
        if wrong:
            raise DefinitionError(wrong)
        if self.baseline is not None:
            object.__setattr__(self, "baseline", tuple(float(b) for b in self.baseline))

    @property
    def kl_strength(self) -> float | None:
        return self.beta

    def problems(self, problem: Problem, weights: FloatArray) -> list[str]:
        """Returns what is missing to sample from, and numbers that are not one per group."""
        groups = len(problem.names)
        found = welfare_problems(self.welfare, groups)
        if problem.prompts is None:
            found.append("MaxMin samples responses during training; give the problem prompts=...")
        if self.baseline is not None and len(self.baseline) != groups:
            found.append(f"MaxMin baseline has {len(self.baseline)} numbers, but there are {groups} groups.")
        return found

    def fit(self, problem: Problem, weights: FloatArray, engine: Engine) -> PolicySet:
        """Returns one policy per row of shares `weights` [weights, groups], and what its groups have in the facts."""
        assert problem.prompts is not None  # checked by `problems`
        prompts, scorer = list(dict.fromkeys(problem.prompts)), Scorer(problem, engine)
        groups = weights.shape[1]
        columns = {
            "shares": weights,
            "beta": np.full(len(weights), self.beta),
            "dual": np.concatenate([weights, np.zeros((len(weights), 2 * groups + 1))], axis=1),
        }
        facts = describe({"method": self, "objectives": problem.objectives})
        stack = engine.train_on_policy(
            "maxmin", prompts, scorer, self._utility, columns, self.training, self.rollouts, facts, move=self._move
        )
        shown = prompts[:MEASURED_PROMPTS]
        sampling = Sampling(
            samples=math.ceil(MEASURED / len(shown)), max_new_tokens=self.rollouts.sampling.max_new_tokens
        )
        found = measure("maxmin", shown, sampling, stack, scorer, engine)
        report = self._report(problem.names, weights, Adversary.of(engine.dual("maxmin")), found)
        trainings = tuple(("maxmin", row) for row in range(len(weights)))
        return PolicySet(stack, weights, trainings, facts={"maxmin": report})

    def _move(self, rewards: Tensor, columns: Mapping[str, Tensor], policy: Mapping[str, Tensor]) -> Tensor:
        """Returns the adversary's state after a batch of rewards [policies, prompts, samples, groups]."""
        state, shares = Adversary.of(policy["dual"]), policy["shares"]
        utilities = rewards.mean(dim=(1, 2)) - self._zero(rewards)
        count = state.count + 1
        kept = self.memory * (1 - self.memory ** (count - 1)) / (1 - self.memory**count)  # of a mean without bias
        means = kept * state.means + (1 - kept) * utilities
        if self._inner == "mirror":
            rate = self.training.rate(int(state.count.max()), peak=self.rate)
            weights = state.weights * torch.exp(-rate * (utilities - utilities.mean(-1, keepdim=True)))
            weights = weights / weights.sum(-1, keepdim=True)
            least = self.floor / (shares > 0).sum(-1, keepdim=True)
            weights = weights.maximum(least).where(shares > 0, 0)
            weights = weights / weights.sum(-1, keepdim=True)
        else:
            weights = marginal_weights(self.welfare, means, shares)
        kept = TAIL * (1 - TAIL ** (count - 1)) / (1 - TAIL**count)
        return torch.cat([weights, means, kept * state.average + (1 - kept) * weights, count], dim=-1)

    def _utility(self, rewards: Tensor, policy: Mapping[str, Tensor]) -> Tensor:
        """Returns what a policy is rewarded with [policies, prompts, samples]."""
        if self._inner == "sample":
            reward = rewards - self._zero(rewards)
            return self.welfare(reward, policy["shares"][:, None, None].expand_as(reward))
        weights = policy["dual"][:, : rewards.shape[-1]]
        return (rewards * weights[:, None, None]).sum(-1)

    @property
    def _inner(self) -> str:
        return self.inner if self.inner != "auto" else "mirror" if self.welfare == Worst() else "gradient"

    def _zero(self, like: Tensor) -> Tensor:
        return torch.tensor(self.baseline or (0.0,), dtype=like.dtype, device=like.device)

    def _report(
        self, names: tuple[str, ...], shares: FloatArray, adversary: Adversary, found: Measured
    ) -> dict[str, Any]:
        """Returns, for every policy, what its groups have, the weights at the end, and the saddle-point gap.

        The gap sum_g weight_g F_g - min_g F_g >= 0 is what the adversary could still win against this policy: at the
        maximin optimum all groups with weight are equally badly off.
        """
        utilities = found.rewards - np.array(self.baseline or (0.0,))
        weights = adversary.average.numpy()
        facts: dict[str, Any] = {
            "groups": list(names),
            "shares": shares.tolist(),
            "utilities": utilities.tolist(),
            "standard_errors": [[None if math.isnan(e) else e for e in row] for row in found.standard_errors.tolist()],
            "kl": found.kl.tolist(),
        }
        if self._inner != "sample":
            facts["weights"] = weights.tolist()
        if self.welfare == Worst() and self._inner != "sample":
            counted = np.where(shares > 0, utilities, np.inf)
            facts["gap"] = ((weights * utilities).sum(axis=1) - counted.min(axis=1)).tolist()
        return facts


@final
@dataclass(frozen=True, eq=False)
class Adversary:
    """The adversary's state, [policies, groups] each, in the columns of a training's `dual`.

    Attributes:
        weights: of the groups.
        means: running means of the groups' utilities, reward units.
        average: running mean of the weights.
        count: batches seen [policies, 1].
    """

    weights: Tensor
    means: Tensor
    average: Tensor
    count: Tensor

    @staticmethod
    def of(dual: Tensor | FloatArray) -> Adversary:
        values = torch.as_tensor(dual)
        groups = (values.shape[-1] - 1) // 3
        return Adversary(*torch.tensor_split(values, (groups, 2 * groups, 3 * groups), dim=-1))
