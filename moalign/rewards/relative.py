"""Rewards compared with what the reference policy scores on the same prompt: centred, log-sigmoid, win rate.

They keep the order of the responses to a prompt. `LogSigmoid` and `WinRate` change how much prompts and objectives
count against each other; dividing rewards by their spread per prompt afterwards (as group-normalised advantages do)
undoes most of that.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import final

import numpy as np

from moalign.arrays import FloatArray
from moalign.errors import DefinitionError, NumericsWarning, RewardError
from moalign.rewards.references import References, recognised
from moalign.rewards.scalarisation import log_sigmoid
from moalign.rewards.score import Reward, check_inside, check_wrapped
from moalign.rewards.transforms import mid_rank, scores

FEWEST_FOR_QUANTILE = 8  # reference responses per prompt


@final
@dataclass(frozen=True, eq=False)
class Centre:
    """reward - what the reference policy scores on the same prompt (its mean, or a quantile)."""

    reward: Reward
    references: References
    quantile: float | None = None  # in [0, 1]; None for the mean
    fallback: float | None = None  # reward units, for prompts without references; None refuses them

    def __post_init__(self) -> None:
        check_wrapped(self.reward, type(self).__name__)
        check_references(self.reward, self.references, type(self).__name__)
        _check_numbers(type(self).__name__, self.references, self.quantile, self.fallback)

    def check(self) -> None:
        """Raises what the reward finds wrong with itself before it is used."""
        check_inside(self.reward)

    def __call__(self, prompts: Sequence[str], responses: Sequence[str]) -> FloatArray:
        """Returns the rewards above the reference, float64 [n]."""
        return _above_reference(self, prompts, responses)

    @cached_property
    def _values(self) -> dict[str, float]:
        return self.references.values(self.quantile)


@final
@dataclass(frozen=True, eq=False)
class LogSigmoid:
    """log sigmoid(scale * (reward - reference)): the log-probability of beating the reference (arXiv 2402.00742).

    Responses far above the reference gain little more, those far below are worth as much as before: the worst prompts
    and objectives are raised first, and their sum (`AllOf`) is the log-probability that all objectives are good. A
    reference that is too low switches the signal off; one that is too high gives back the plain reward.

    Attributes:
        reward: log-odds of a preference per unit (Bradley-Terry), or `scale` brings it there.
        references: of the same reward, see `moalign.rewards.references`.
        quantile: in [0, 1]; which quantile of a prompt's reference rewards is good. None takes their mean.
        scale: log-odds per reward unit, > 0.
        fallback: reference value for prompts without references, reward units; None refuses such prompts.
    """

    reward: Reward
    references: References
    quantile: float | None = 0.85
    scale: float = 1.0
    fallback: float | None = None

    def __post_init__(self) -> None:
        check_wrapped(self.reward, type(self).__name__)
        check_references(self.reward, self.references, type(self).__name__)
        _check_numbers(type(self).__name__, self.references, self.quantile, self.fallback)
        if not (math.isfinite(self.scale) and self.scale > 0):
            raise DefinitionError(f"scale must be finite and > 0, got {self.scale}.", where="LogSigmoid")

    def check(self) -> None:
        """Raises what the reward finds wrong with itself before it is used."""
        check_inside(self.reward)

    def __call__(self, prompts: Sequence[str], responses: Sequence[str]) -> FloatArray:
        """Returns log-probabilities, float64 [n], at most 0."""
        return np.asarray(log_sigmoid(self.scale * _above_reference(self, prompts, responses)))

    @cached_property
    def _values(self) -> dict[str, float]:
        return self.references.values(self.quantile)


@final
@dataclass(frozen=True, eq=False)
class WinRate:
    """The share of a prompt's reference responses with a lower reward; equal ones count half.

    Its mean over reference responses is 1/2 on every prompt. The mean over groups of people is their Borda count
    against the reference policy: `Aggregate([WinRate(...), ...], Linear(shares))`.
    """

    reward: Reward
    references: References

    def __post_init__(self) -> None:
        check_wrapped(self.reward, "WinRate")
        check_references(self.reward, self.references, "WinRate")

    def check(self) -> None:
        """Raises what the reward finds wrong with itself before it is used."""
        check_inside(self.reward)

    def __call__(self, prompts: Sequence[str], responses: Sequence[str]) -> FloatArray:
        """Returns shares in [0, 1], float64 [n]."""
        known = self.references.by_prompt
        texts = [str(prompt) for prompt in prompts]
        refuse_unknown(texts, self.references)
        values = scores(self.reward, prompts, responses)
        ranks = [mid_rank(value, np.sort(known[text])) for text, value in zip(texts, values, strict=True)]
        return np.array(ranks, dtype=np.float64)


def check_references(reward: Reward, references: object, where: str) -> None:
    """Raises DefinitionError unless these are references of this reward."""
    if not isinstance(references, References):
        raise DefinitionError(
            f"references must be References, got {type(references).__name__}. Measure them once with"
            " moalign.rewards.references(reward, prompts, responses).",
            where=where,
        )
    if references.reward is not None and references.reward != recognised(reward):
        raise DefinitionError(
            "the references were measured with another reward (or another state of it) than the one transformed."
            " Measure them again.",
            where=where,
        )


def refuse_unknown(prompts: Sequence[str], references: References, hint: str = "") -> None:
    """Raises RewardError if the references lack a prompt."""
    unknown = [prompt for prompt in dict.fromkeys(prompts) if prompt not in references.by_prompt]
    if unknown:
        raise RewardError(
            f"no reference responses for {len(unknown)} prompts, the first being {unknown[0][:60]!r}. Measure"
            f" references for all prompts that are trained and evaluated on{hint}."
        )


def _above_reference(transform: Centre | LogSigmoid, prompts: Sequence[object], responses: Sequence[str]) -> FloatArray:
    texts = [str(prompt) for prompt in prompts]
    if transform.fallback is None:
        refuse_unknown(texts, transform.references, ", or give fallback=")
    known = [transform._values.get(text, transform.fallback) for text in texts]
    return scores(transform.reward, prompts, responses) - np.array(known, dtype=np.float64)


def _check_numbers(where: str, references: References, quantile: float | None, fallback: float | None) -> None:
    problems = []
    if quantile is not None and not 0 <= quantile <= 1:
        problems.append(f"quantile must be in [0, 1], got {quantile}.")
    if fallback is not None and not math.isfinite(fallback):
        problems.append(f"fallback must be finite, got {fallback}.")
    if problems:
        raise DefinitionError(problems, where=where)
    if quantile is not None and references.fewest < FEWEST_FOR_QUANTILE:
        warnings.warn(
            f"{where}: the {quantile:g} quantile of {references.fewest} reference responses is mostly chance."
            f" Sample at least {FEWEST_FOR_QUANTILE} per prompt (64 are better), or use the mean: quantile=None.",
            NumericsWarning,
            stacklevel=4,
        )
