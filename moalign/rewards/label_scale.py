"""How many log-odds of a preference one unit of a reward is worth, measured on labelled pairs."""

from __future__ import annotations

import numpy as np

from moalign.data.pairs import PreferencePairs
from moalign.errors import RewardError
from moalign.rewards.score import Reward, reward_name, score

_DECISIVE = 50.0  # log-odds of the median pair at which labels count as without noise


def label_scale(reward: Reward, pairs: PreferencePairs) -> float:
    """Returns the s > 0 of greatest likelihood in P(chosen preferred) = sigmoid(s * (r_chosen - r_rejected)).

    It is the `label_scale` of an `Objective` with these pairs and this reward, and the `scale` that makes a reward fit
    for `LogSigmoid`. Measure it on pairs that the reward was not trained on: on its own training pairs a reward model
    looks surer than it is.

    Args:
        reward: anything that scores texts.
        pairs: with labels in [0, 1] and optional weights.

    Raises:
        RewardError: the reward fails, contradicts the labels, or explains every one of them, which has no finite scale.
    """
    name = reward_name(reward)
    differences = score(reward, pairs.prompts, pairs.chosen, name=name) - score(
        reward, pairs.prompts, pairs.rejected, name=name
    )
    weights = np.ones(len(pairs)) if pairs.weight is None else pairs.weight
    decided = (differences != 0) & (weights > 0)
    if not decided.any():
        raise RewardError(f"reward {name!r} has the same value for both replies of every pair, so it has no scale.")
    return _likeliest(differences[decided], pairs.labels[decided], weights[decided], name)


def _likeliest(differences: np.ndarray, labels: np.ndarray, weights: np.ndarray, name: str) -> float:
    from scipy.optimize import brentq
    from scipy.special import expit

    unit = float(np.median(np.abs(differences)))

    def slope(log_odds: float) -> float:  # of the negative log-likelihood, which is convex in s = log_odds / unit
        return float((weights * differences / unit * (expit(log_odds * differences / unit) - labels)).sum())

    if slope(0.0) >= 0:
        raise RewardError(
            f"reward {name!r} is on average higher for the reply that was not preferred, so its scale is not positive."
            " Is it a cost (write negate), or the wrong objective?"
        )
    if slope(_DECISIVE) < 0:
        raise RewardError(
            f"reward {name!r} explains (nearly) all of {len(labels)} labels, so their noise cannot be measured. Give"
            " more pairs, or pairs that the reward was not trained on."
        )
    return float(brentq(slope, 0.0, _DECISIVE, xtol=1e-12)) / unit
