"""Policies of any method on a real model, judged by samples: what they gain, beside the best at their own KL.

The twin of the exact judge in `embedded.py`, for problems whose responses cannot be enumerated. The optimum is
estimated from samples of the base policy, reweighted by exp(w . r / beta), with the beta that has the same mean KL. The
reweighting looks at every response, where a policy generalises: a share of one is out of reach.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np
import torch

from moalign.arrays import FloatArray
from moalign.candidates import CandidateSet
from moalign.comparison.contest import Costs
from moalign.diagnostics import compare_at_equal_kl
from moalign.evaluation import Evaluation, Judged, draw, judge
from moalign.front import bootstrap_over_prompts, hypervolume
from moalign.methods.base import PolicySet
from moalign.methods.serving import Selection
from moalign.oracle import oracle
from moalign.policy.adapters import AdapterStack
from moalign.policy.engine import Engine
from moalign.problem import Problem
from moalign.scoring import Scorer

RESAMPLES = 1000
MARGIN = 0.5  # the hypervolume's corner lies this far below the base policy, in reward units
LEAST_KL = 1e-3  # nats; below, a policy is the base and there is no gain to compare with

Bounds = tuple[float, float, float]  # value, low, high: 95 %, over prompts


@final
@dataclass(frozen=True, kw_only=True)
class SampledOutcome:
    """One method with one seed; means over the weight vectors that it was asked for.

    Attributes:
        at_equal_kl: gain in w . R over that of the best reweighting of base samples with the policy's KL; NaN where
            the samples are too few to show such a KL.
        shares: the same for every weight vector.
        gain, gain_error: in w . R over the base, reward units, and its standard error over prompts.
        kl: nats per response; points has each policy's.
        hypervolume: of the mean rewards, over the base policy's less `MARGIN`.
        effective: candidates that the reweighting rests on, mean over prompts and weights.
        worst: the largest of each text measure over the weights, `reference_loss` (nats per token under the base)
            among them.
        policies: stored.
        trained, generated: response tokens.
        seconds: CPU time of the training.
        points: (KL, gain in w . R) for every weight vector.
    """

    method: str
    seed: int
    at_equal_kl: Bounds
    shares: tuple[float, ...]
    gain: float
    gain_error: float
    kl: float
    hypervolume: Bounds
    effective: float
    worst: Mapping[str, float]
    policies: int
    trained: int
    generated: int
    seconds: float
    points: tuple[tuple[float, float], ...]


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class Yardstick:
    """How policies are judged: the same held-out prompts, samples of the base and weights for all of them.

    Attributes:
        problem: whose rewards count.
        evaluation: held-out prompts and samples per prompt.
        candidates: samples of the base policy for these prompts.
        weights: [weights, objectives] what every method is asked for.
        measures: of texts, (prompts, responses) -> one number, the larger the worse.
    """

    problem: Problem
    evaluation: Evaluation
    candidates: CandidateSet
    weights: FloatArray
    measures: Mapping[str, Callable[[Sequence[Any], Sequence[str]], float]] = field(default_factory=dict)

    def __call__(self, method: str, seed: int, policies: PolicySet, engine: Engine, costs: Costs) -> SampledOutcome:
        """Returns what the policies that serve `weights` are worth, on fresh samples of their own."""
        judged = self._judged([policies.for_weights(w) for w in self.weights], engine)
        prompt_rewards = np.stack([j.prompt_values for j in judged])
        kl = np.stack([_by_prompt(j, self.evaluation.samples) for j in judged])
        base = self.candidates.rewards.mean(axis=1)
        gains = np.einsum("kpm,km->kp", prompt_rewards - base, self.weights)
        corner = base.mean(axis=0) - MARGIN
        shares, bounds, effective = equal_kl(self.candidates.rewards, self.weights, gains, kl)
        volume = bootstrap_over_prompts(prompt_rewards, lambda points: hypervolume(points, corner, unattained="ignore"),
                                        resamples=RESAMPLES)  # fmt: skip
        rows = [
            (tuple(r["prompt"] for r in j.generations), tuple(r["response"] for r in j.generations)) for j in judged
        ]
        worst = {"reference_loss": max(j.columns["reference_loss"] for j in judged)}
        worst |= {name: max(measure(*texts) for texts in rows) for name, measure in self.measures.items()}
        of_prompt = gains.mean(axis=0)
        return SampledOutcome(
            method=method,
            seed=seed,
            at_equal_kl=bounds,
            shares=tuple(shares.tolist()),
            gain=float(of_prompt.mean()),
            gain_error=float(of_prompt.std(ddof=1) / math.sqrt(len(of_prompt))),
            kl=float(kl.mean()),
            hypervolume=(volume.value, volume.low, volume.high),
            effective=effective,
            worst=worst,
            policies=len(policies),
            trained=costs.trained,
            generated=costs.generated,
            seconds=costs.seconds,
            points=tuple(zip(kl.mean(axis=1).tolist(), gains.mean(axis=1).tolist(), strict=True)),
        )

    def _judged(self, served: Sequence[Selection], engine: Engine) -> list[Judged]:
        """Returns the judgement of each; policies that read the same text are sampled as one stack."""
        scorer, groups = Scorer(self.problem, engine), dict[Any, list[int]]()
        for number, one in enumerate(served):
            groups.setdefault((one.adapter.lora, one.text), []).append(number)
        found: dict[int, Judged] = {}
        for (_, text), members in groups.items():
            stack = AdapterStack.concatenate([served[m].adapter for m in members])
            for row, (member, drawn) in enumerate(
                zip(members, draw(self.evaluation, engine, stack, text), strict=True)
            ):
                found[member] = judge(self.evaluation, engine, scorer, drawn, stack.select([row]), text)
        return [found[number] for number in range(len(served))]


def equal_kl(
    candidates: FloatArray, weights: FloatArray, gains: FloatArray, kl: FloatArray, resamples: int = RESAMPLES
) -> tuple[FloatArray, Bounds, float]:
    """Returns each policy's share of the gain that is possible at its KL, their mean with bounds, effective samples.

    The bootstrap draws prompts for policies and optimum alike. A resample's KL differs from that for which the optimum
    was solved; it is followed to first order, d gain / d KL = beta, which is exact at the optimum.

    Args:
        candidates: rewards of samples of the base policy [prompts, candidates, objectives].
        weights: [policies, objectives].
        gains: of the policies over the base in w . R [policies, prompts].
        kl: nats per response [policies, prompts].
        resamples: of the bootstrap.
    """
    solved = compare_at_equal_kl(candidates, weights, gains.mean(axis=1), np.maximum(kl.mean(axis=1), LEAST_KL))
    if np.isnan(solved.share).any():  # a mean over the others alone would flatter
        return solved.share, (math.nan,) * 3, math.nan
    table = torch.from_numpy(candidates)
    plain = oracle(table, weights, torch.from_numpy(solved.beta))
    best = oracle(table, weights, torch.from_numpy(solved.beta), corrected=True)
    assert plain.prompt_kl is not None and best.prompt_rewards is not None  # kept by default
    possible = np.einsum("pkm,km->kp", best.prompt_rewards.numpy() - candidates.mean(axis=1)[:, None], weights)
    facts = np.stack([gains, kl, possible, plain.prompt_kl.numpy().T], axis=-1)

    def mean_share(means: FloatArray) -> float:
        gain, own, best_gain, best_kl = means.T
        return float((gain / (best_gain + solved.beta * (np.maximum(own, LEAST_KL) - best_kl))).mean())

    found = bootstrap_over_prompts(facts, mean_share, resamples=resamples)
    return solved.share, (found.value, found.low, found.high), float(solved.ess.mean())


def _by_prompt(judged: Judged, samples: int) -> FloatArray:
    return np.array([row["kl"] for row in judged.generations]).reshape(-1, samples).mean(axis=1)
