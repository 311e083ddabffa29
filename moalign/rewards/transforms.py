"""Rewards on another scale: standardised, clipped, ranked, or less a penalty for length.

Preference weights compare objectives only if a unit of each means something alike, and one outlier must not decide a
mean. Constants are fixed numbers that enter a study's fingerprint: a transform that adapted to each batch would make
the reward of a text depend on its neighbours, and the optimised trade-off drift.

An affine transform of a reward is the same as another weight, so it keeps the policies that linear weights can reach.
`Clip` and `Quantile` are curved: they keep the order of responses (up to ties) and change what trades for what.
Transforms that compare within a prompt are in `relative.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from moalign.arrays import FloatArray
from moalign.errors import DefinitionError, RewardError
from moalign.rewards.functions import token_count
from moalign.rewards.score import Reward, check_inside, check_wrapped, reward_name, score


@final
@dataclass(frozen=True)
class Standardize:
    """(reward - mean) / scale."""

    reward: Reward
    mean: float  # reward units
    scale: float  # reward units, > 0

    def __post_init__(self) -> None:
        check_wrapped(self.reward, "Standardize")
        problems = []
        if not math.isfinite(self.mean):
            problems.append(f"mean must be finite, got {self.mean}.")
        if not (math.isfinite(self.scale) and self.scale > 0):
            problems.append(f"scale must be finite and > 0, got {self.scale}. To turn a cost around use negate.")
        if problems:
            raise DefinitionError(problems, where="Standardize")

    def check(self) -> None:
        """Raises what the reward finds wrong with itself before it is used."""
        check_inside(self.reward)

    def __call__(self, prompts: Sequence[str], responses: Sequence[str]) -> FloatArray:
        """Returns the rewards in units of `scale`, float64 [n]."""
        return (scores(self.reward, prompts, responses) - self.mean) / self.scale


@final
@dataclass(frozen=True)
class Clip:
    """The reward, but at least `low` and at most `high`."""

    reward: Reward
    low: float  # reward units; -inf for no lower bound
    high: float  # reward units, > low; inf for no upper bound

    def __post_init__(self) -> None:
        check_wrapped(self.reward, "Clip")
        if not self.low < self.high:
            raise DefinitionError(f"low must be < high, got {self.low} and {self.high}.", where="Clip")

    def check(self) -> None:
        """Raises what the reward finds wrong with itself before it is used."""
        check_inside(self.reward)

    def __call__(self, prompts: Sequence[str], responses: Sequence[str]) -> FloatArray:
        """Returns the clipped rewards, float64 [n]."""
        return np.clip(scores(self.reward, prompts, responses), self.low, self.high)


@final
@dataclass(frozen=True)
class LengthPenalty:
    """reward - per_unit * max(length - free, 0)."""

    reward: Reward
    per_unit: float = 0.01  # reward units per unit of length, > 0
    free: float = 100.0  # length without penalty, >= 0
    length: Reward = token_count

    def __post_init__(self) -> None:
        check_wrapped(self.reward, "LengthPenalty")
        check_wrapped(self.length, "LengthPenalty")
        problems = []
        if not (math.isfinite(self.per_unit) and self.per_unit > 0):
            problems.append(f"per_unit must be finite and > 0, got {self.per_unit}.")
        if not (math.isfinite(self.free) and self.free >= 0):
            problems.append(f"free must be finite and >= 0, got {self.free}.")
        if problems:
            raise DefinitionError(problems, where="LengthPenalty")

    def check(self) -> None:
        """Raises what the reward or the length finds wrong with itself before it is used."""
        check_inside(self.reward)
        check_inside(self.length)

    def __call__(self, prompts: Sequence[str], responses: Sequence[str]) -> FloatArray:
        """Returns the rewards less the penalty, float64 [n]."""
        excess = np.maximum(scores(self.length, prompts, responses) - self.free, 0.0)
        return scores(self.reward, prompts, responses) - self.per_unit * excess


@final
@dataclass(frozen=True, eq=False)
class Quantile:
    """The share of a fixed sample of rewards that lies below; equal rewards count half, so it is in [0, 1]."""

    reward: Reward
    sample: FloatArray  # [n], reward units, finite and not all equal

    def __post_init__(self) -> None:
        check_wrapped(self.reward, "Quantile")
        sample = np.sort(np.asarray(self.sample, dtype=np.float64), axis=None)
        if len(sample) < 2 or not np.isfinite(sample).all() or sample[0] == sample[-1]:
            raise DefinitionError(
                f"sample must hold at least 2 different finite rewards, got {len(sample)}: {sample[:5].tolist()}.",
                where="Quantile",
            )
        sample.setflags(write=False)
        object.__setattr__(self, "sample", sample)

    def check(self) -> None:
        """Raises what the reward finds wrong with itself before it is used."""
        check_inside(self.reward)

    def __call__(self, prompts: Sequence[str], responses: Sequence[str]) -> FloatArray:
        """Returns the places of the rewards in the sample, float64 [n]."""
        return mid_rank(scores(self.reward, prompts, responses), self.sample)


def mid_rank(values: FloatArray, ordered: FloatArray) -> FloatArray:
    """Returns (number below + half the number equal) / n of each value in a sorted sample [n]."""
    below, upto = (np.searchsorted(ordered, values, side=side) for side in ("left", "right"))
    return (below + upto) / (2 * len(ordered))


def standardize(reward: Reward, prompts: Sequence[object], responses: Sequence[str]) -> Standardize:
    """Returns the reward scaled so that these responses have mean 0 and population standard deviation 1.

    Fit it on samples of the reference policy; the constants found then stay as they are.

    Raises:
        DefinitionError: fewer than 2 responses.
        RewardError: the reward fails, or has the same value for all responses.
    """
    values = _fitting_sample("standardize", reward, prompts, responses)
    return Standardize(reward, mean=float(values.mean()), scale=float(values.std()))


def quantiles(reward: Reward, prompts: Sequence[object], responses: Sequence[str]) -> Quantile:
    """Returns the reward as its quantile among these responses; fit it on samples of the reference policy.

    Raises:
        DefinitionError: fewer than 2 responses.
        RewardError: the reward fails, or has the same value for all responses.
    """
    return Quantile(reward, _fitting_sample("quantiles", reward, prompts, responses))


def _fitting_sample(what: str, reward: Reward, prompts: Sequence[object], responses: Sequence[str]) -> FloatArray:
    if len(responses) < 2:
        raise DefinitionError(f"{what} needs at least 2 responses, got {len(responses)}.")
    name = reward_name(reward)
    values = score(reward, prompts, responses, name=name)
    if values.std() <= 1e-12 * float(np.abs(values).max()):  # rounding alone gives a tiny spread; also 0 <= 0
        raise RewardError(
            f"reward {name!r} is {values[0]:g} for all {len(values)} responses, so it has no scale."
            " Fit on responses that differ in it."
        )
    return values


def scores(reward: Reward, prompts: Sequence[object], responses: Sequence[str]) -> FloatArray:
    """Returns the rewards that a transform starts from, float64 [n]."""
    return score(reward, prompts, responses, name=reward_name(reward))
