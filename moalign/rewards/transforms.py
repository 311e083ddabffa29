"""Rewards on another scale: standardised, or clipped.

Preference weights compare objectives only if a unit of each means something alike, and one outlier must not decide a
mean. Constants are fixed numbers: a transform that adapted to each batch would make the reward of a text depend on
its neighbours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from moalign.arrays import FloatArray
from moalign.errors import DefinitionError, RewardError
from moalign.rewards.score import Reward, check_reward, reward_name, score


@final
@dataclass(frozen=True)
class Standardize:
    """(reward - mean) / scale."""

    reward: Reward
    mean: float  # reward units
    scale: float  # reward units, > 0

    def __post_init__(self) -> None:
        check_reward(self.reward)
        problems = []
        if not math.isfinite(self.mean):
            problems.append(f"mean must be finite, got {self.mean}.")
        if not (math.isfinite(self.scale) and self.scale > 0):
            problems.append(f"scale must be finite and > 0, got {self.scale}. To turn a cost around use negate.")
        if problems:
            raise DefinitionError(problems, where="Standardize")

    def __call__(self, prompts: Sequence[str], responses: Sequence[str]) -> FloatArray:
        """Returns the rewards in units of `scale`, float64 [n]."""
        return (score(self.reward, prompts, responses, name=reward_name(self.reward)) - self.mean) / self.scale


@final
@dataclass(frozen=True)
class Clip:
    """The reward, but at least `low` and at most `high`."""

    reward: Reward
    low: float  # reward units; -inf for no lower bound
    high: float  # reward units, > low; inf for no upper bound

    def __post_init__(self) -> None:
        check_reward(self.reward)
        if not self.low < self.high:
            raise DefinitionError(f"low must be < high, got {self.low} and {self.high}.", where="Clip")

    def __call__(self, prompts: Sequence[str], responses: Sequence[str]) -> FloatArray:
        """Returns the clipped rewards, float64 [n]."""
        return np.clip(score(self.reward, prompts, responses, name=reward_name(self.reward)), self.low, self.high)


def standardize(reward: Reward, prompts: Sequence[object], responses: Sequence[str]) -> Standardize:
    """Returns the reward scaled so that these responses have mean 0 and population standard deviation 1.

    Fit it on samples of the reference policy; the constants found then stay as they are.

    Raises:
        DefinitionError: fewer than 2 responses.
        RewardError: the reward fails, or has the same value for all responses.
    """
    if len(responses) < 2:
        raise DefinitionError(f"standardize needs at least 2 responses, got {len(responses)}.")
    name = reward_name(reward)
    values = score(reward, prompts, responses, name=name)
    mean, scale = float(values.mean()), float(values.std())
    if scale <= 1e-12 * float(np.abs(values).max()):  # rounding alone gives a tiny spread; also 0 <= 0
        raise RewardError(
            f"reward {name!r} is {values[0]:g} for all {len(values)} responses, so it has no scale."
            " Fit on responses that differ in it."
        )
    return Standardize(reward, mean=mean, scale=scale)
