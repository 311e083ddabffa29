"""Diagnoses of a study from what its folder holds: no model is loaded and nothing is sampled again."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from jaxtyping import Float

from moalign.arrays import FloatArray
from moalign.errors import DefinitionError, StoreError
from moalign.front import Front
from moalign.measures import (
    Curve,
    OverOptimisation,
    distinct,
    fit_curve,
    kl_estimates,
    length_controlled_win_rate,
    over_optimisation,
    preferences,
    self_bleu,
    starc,
)
from moalign.results import load_front
from moalign.store import StudyStore
from moalign.store.lines import load_generations, load_reference_generations

FEWEST_PROMPTS = 10  # for a win rate at equal length, which is a regression over prompts


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class Diagnosis:
    """A study's front with diagnoses as columns, and how its rewards relate.

    Columns, per policy: kl_k1, kl_k3 (estimates of the KL from log-probs, nats), win_<objective> and win (in the
    policy's own weights; shares of wins against the reference on the same prompts), win_length_controlled (from 10
    prompts on), characters, distinct_2, and self_bleu (within prompts; NaN for a single sample).
    """

    front: Front
    reward_distances: Float[np.ndarray, "objectives objectives"] | None  # STARC on the reference's samples
    gamed: tuple[int, ...]  # trials whose win rate owes much to length


def diagnose(records: StudyStore) -> Diagnosis:
    """Returns the diagnosis of a finished study, from the responses that its evaluation kept.

    Raises:
        StoreError: nothing has been evaluated yet, or the responses of the reference are not kept.
    """
    front = load_front(records)
    reference = _Samples.read(load_reference_generations(records), front.objectives)
    columns: list[dict[str, float]] = []
    gamed = []
    for point in front:
        samples = _Samples.read(load_generations(records, point.trial), front.objectives)
        found, owes = _columns(samples, reference, point.weights, front.objectives)
        columns.append(found)
        if owes:
            gamed.append(point.trial)
    several = reference.rewards.shape[1] > 1
    return Diagnosis(
        front=front.with_columns(columns),
        reward_distances=starc(reference.rewards) if several else None,
        gamed=tuple(gamed),
    )


@final
@dataclass(frozen=True, kw_only=True)
class ProxyCheck:
    """One objective taken for the proxy of another one, over all policies of a study."""

    proxy: str
    held_out: str
    choice: OverOptimisation  # among the front's points
    curve: Curve | None  # of the held-out gain over KL; None with fewer than three policies to fit
    correlation: float  # Spearman's, over policies; NaN for fewer than three


def proxy_check(front: Front, proxy: str, held_out: str) -> ProxyCheck:
    """Returns whether optimising `proxy` went on to serve `held_out`: choice, curve over KL, rank correlation.

    Measure a held-out judge as an objective of the study without weight to use this.

    Raises:
        DefinitionError: names that are not objectives of the front, or no policies.
    """
    from scipy.stats import spearmanr

    unknown = [name for name in (proxy, held_out) if name not in front.objectives]
    if unknown or not len(front):
        reason = f"no objective {', '.join(unknown)}" if unknown else "no policies"
        raise DefinitionError(
            f"The front of {front.study} has {reason}; its objectives: {', '.join(front.objectives)}."
        )
    first, second = (front.F[:, front.objectives.index(name)] for name in (proxy, held_out))
    varied = len(front) > 2 and np.ptp(first) > 0 and np.ptp(second) > 0
    return ProxyCheck(
        proxy=proxy,
        held_out=held_out,
        choice=over_optimisation(front.KL, first, second),
        curve=_curve(front, second, held_out),
        correlation=float(spearmanr(first, second).statistic) if varied else math.nan,
    )


def _curve(front: Front, values: FloatArray, name: str) -> Curve | None:
    if front.reference is None or not np.isfinite(front.KL).all():
        return None
    try:
        return fit_curve(front.KL, values - front.reference.values[front.objectives.index(name)])
    except DefinitionError:  # too few policies away from the reference
        return None


@final
@dataclass(frozen=True, eq=False)
class _Samples:
    """What one policy answered, by prompt."""

    rewards: Float[np.ndarray, "prompts samples objectives"]
    log_ratio: FloatArray  # [prompts, samples]
    characters: FloatArray  # [prompts, samples]
    words: list[list[list[str]]]  # [prompts][samples]

    @staticmethod
    def read(rows: Sequence[dict[str, Any]], objectives: Sequence[str]) -> _Samples:
        if not rows:
            raise StoreError("the responses of this study's evaluation are not kept, so there is nothing to diagnose.")
        ordered = sorted(rows, key=lambda row: (row["prompt_index"], row["sample"]))
        prompts = len({row["prompt_index"] for row in ordered})
        shape = (prompts, len(ordered) // prompts)
        words = [str(row["response"]).split() for row in ordered]
        return _Samples(
            rewards=np.array([[row["rewards"][n] for n in objectives] for row in ordered]).reshape(*shape, -1),
            log_ratio=np.array([row["log_prob"] - row["reference_log_prob"] for row in ordered]).reshape(shape),
            characters=np.array([float(len(row["response"])) for row in ordered]).reshape(shape),
            words=[words[p * shape[1] : (p + 1) * shape[1]] for p in range(prompts)],
        )


def _columns(
    samples: _Samples, reference: _Samples, weights: FloatArray, objectives: Sequence[str]
) -> tuple[dict[str, float], bool]:
    """Returns one policy's diagnoses, and whether length explains much of its win rate."""
    estimates = kl_estimates(samples.log_ratio)
    found = {"kl_k1": estimates.k1, "kl_k3": estimates.k3}
    for j, name in enumerate(objectives):
        found[f"win_{name}"] = float(preferences(samples.rewards[:, :, j], reference.rewards[:, :, j]).mean())
    owes = False
    if len(weights) == len(objectives):
        wins = preferences(samples.rewards @ weights, reference.rewards @ weights)
        longer = samples.characters.mean(axis=1) - reference.characters.mean(axis=1)
        found["win"] = float(wins.mean())
        if len(wins) >= FEWEST_PROMPTS:
            controlled = length_controlled_win_rate(wins, longer, resamples=0)
            found["win_length_controlled"], owes = controlled.value.value, controlled.gamed
    found["characters"] = float(samples.characters.mean())
    found["distinct_2"] = distinct((text for prompt in samples.words for text in prompt), 2)
    found["self_bleu"] = float(np.mean([self_bleu(prompt) for prompt in samples.words]))
    return found, owes
