"""Ensembles of rewards that were learned from the same data: cautious where their members disagree (arXiv 2310.02743).

An ensemble is an `Aggregate` of its members, each brought to mean 0 and spread 1 on reference responses: a member with
a lower offset would win every worst case, and a variance has the square of the reward's unit. `WorstCase()` takes the
lowest member, `UncertaintyWeighted()` and `LowerConfidenceBound()` subtract what the members disagree by. Members that
share a trunk share its blind spots: where all are wrong together, no ensemble sees it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, final

import numpy as np

from moalign.errors import DefinitionError
from moalign.rewards.aggregate import Aggregate
from moalign.rewards.aggregators import Linear
from moalign.rewards.embeddings import Embedding
from moalign.rewards.examples import Examples, Learnable, as_examples
from moalign.rewards.learned import LearnedRewards, fit_examples
from moalign.rewards.reach import Aggregator, Reach
from moalign.rewards.recipes import BradleyTerry, Regression
from moalign.rewards.score import Reward
from moalign.rewards.transforms import standardize

MEMBERS = 5  # four or five suffice; with three there is a visible gap


@final
@dataclass(frozen=True)
class UncertaintyWeighted:
    """mean over members - strength * variance over members (divided by their number, not that less one)."""

    reach: ClassVar[Reach] = Reach.ONE_POINT
    strength: float = 0.5  # per unit of reward, >= 0; 0 is the mean, 0.1 is the published value for PPO

    def __post_init__(self) -> None:
        _not_negative("UncertaintyWeighted", "strength", self.strength)

    def __call__(self, values: Any) -> Any:
        """Returns the combined rewards [...] of values [..., members], numpy or torch."""
        mean, variance = _moments(values)
        return mean - self.strength * variance


@final
@dataclass(frozen=True)
class LowerConfidenceBound:
    """mean over members - width * standard deviation over members. A relative of the above, not from that paper."""

    reach: ClassVar[Reach] = Reach.ONE_POINT
    width: float = 1.0  # standard deviations, >= 0

    def __post_init__(self) -> None:
        _not_negative("LowerConfidenceBound", "width", self.width)

    def __call__(self, values: Any) -> Any:
        """Returns the combined rewards [...] of values [..., members], numpy or torch."""
        mean, variance = _moments(values)
        return mean - self.width * variance**0.5


def ensemble(
    members: Sequence[Reward],
    prompts: Sequence[object],
    responses: Sequence[str],
    *,
    by: Aggregator | None = None,
    normalise: bool = True,
) -> Aggregate:
    """Returns one reward of several that measure the same.

    Args:
        members: two or more rewards.
        prompts, responses: samples of the reference policy on which each member is brought to mean 0 and spread 1;
            the constants found stay as they are.
        by: `UncertaintyWeighted()`, `LowerConfidenceBound()` or `WorstCase()`; the mean when None.
        normalise: False takes the members as they are.

    Raises:
        DefinitionError: fewer than two members.
        RewardError: a member fails, or is constant on these responses.
    """
    if len(members) < 2:
        raise DefinitionError(f"an ensemble needs two or more members, got {len(members)}.")
    chosen = [standardize(m, prompts, responses) for m in members] if normalise else list(members)
    names = tuple(f"member {i}" for i in range(len(members)))
    return Aggregate(chosen, Linear([1 / len(members)] * len(members)) if by is None else by, names)


def fit_ensemble(
    data: Learnable,
    embedding: Embedding,
    *,
    how: BradleyTerry | Regression | None = None,
    members: int = MEMBERS,
    seed: int = 0,
) -> tuple[LearnedRewards, ...]:
    """Returns members fitted on resampled prompts of the same data.

    The heads on a frozen trunk have one solution whatever the seed, so members differ by the prompts they were fitted
    on (drawn with replacement), where the paper's differ by initial weights and data order. Each text is embedded once.

    Raises:
        DefinitionError: fewer than two members; otherwise as `fit_reward_model`.
    """
    if type(members) is not int or members < 2:
        raise DefinitionError(f"an ensemble needs two or more members, got {members!r}.")
    examples = as_examples(data)
    return tuple(
        fit_examples(_resampled(examples, np.random.default_rng((seed, i))), embedding, how) for i in range(members)
    )


def _resampled(examples: Examples, random: np.random.Generator) -> Examples:
    """Returns pairs, or ratings, of prompts drawn with replacement; a prompt drawn twice counts twice."""
    groups = examples.groups
    distinct = {group: i for i, group in enumerate(dict.fromkeys(groups))}
    place = np.array([distinct[group] for group in groups])
    times = np.bincount(random.integers(0, len(distinct), len(distinct)), minlength=len(distinct))[place]
    if examples.ratings is None:
        drawn = tuple(p.select(np.repeat(np.arange(len(p)), times[p.chosen])) for p in examples.pairs)
        return replace(examples, pairs=drawn)
    return examples.select(np.repeat(np.arange(len(place)), times))


def _moments(values: Any) -> tuple[Any, Any]:
    mean = values.mean(-1)
    return mean, ((values - mean[..., None]) ** 2).mean(-1)


def _not_negative(where: str, name: str, value: float) -> None:
    if not (math.isfinite(value) and value >= 0):
        raise DefinitionError(f"{name} must be finite and >= 0, got {value!r}.", where=where)
