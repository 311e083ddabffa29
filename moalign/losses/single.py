"""Losses of single responses with a thumb up or down: BCO and KTO.

They take rewards, beta * log-ratio for one objective (`collective_reward`), or what remains of it once the other
objectives' margins are taken out (`objective_reward`): so margins compose with them, and shifts are computed after.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from moalign.losses.log_probs import at_least_float32
from moalign.losses.pairwise import Pair


def bco(
    rewards: Pair,
    desirable: Bool[Tensor, "*#stack batch"],
    *,
    shift: float | Tensor,
    undesirable_weight: float | Pair = 1.0,
) -> Float[Tensor, "*stack batch"]:
    """Returns the loss of a binary classifier whose logit is reward - shift.

    Args:
        rewards: in log-odds units; with gradient.
        desirable: True for a thumb up.
        shift: running mean of all rewards (`RunningMean`), without gradient.
        undesirable_weight: of the thumbs down, from `density_ratio_weight` where prompts of the two classes differ.

    Source: arXiv 2404.04656, equation 8.
    """
    z = at_least_float32(rewards) - shift
    down = -F.logsigmoid(-z) * undesirable_weight
    return (-F.logsigmoid(z)).where(desirable, down)


def bco_pair(rewards_chosen: Pair, rewards_rejected: Pair) -> Float[Tensor, "*stack batch"]:
    """Returns the classifier's loss of a pair without shift; never below the DPO loss of the same rewards."""
    return -F.logsigmoid(at_least_float32(rewards_chosen)) - F.logsigmoid(-at_least_float32(rewards_rejected))


def density_ratio_weight(desirable_probability: Pair, low: float = 0.5, high: float = 10.0) -> Pair:
    """Returns p / (1 - p) clipped: how much more likely a prompt is among the desirable (arXiv 2404.04656, section 4).

    Args:
        desirable_probability: probability that a prompt stems from the desirable class, from a balanced classifier.
        low, high: limits of the weight.
    """
    p = at_least_float32(desirable_probability)
    return (p / (1 - p + 1e-8)).clamp(low, high)


def kto(
    rewards: Pair,
    desirable: Bool[Tensor, "*#stack batch"],
    *,
    baseline: float | Tensor,
    weight_desirable: float = 1.0,
    weight_undesirable: float = 1.0,
) -> Float[Tensor, "*stack batch"]:
    """Returns weight * (1 - sigmoid(+-(reward - baseline))): the prospect-theoretic value of a response, as a loss.

    Bounded by the weights, so its gradient vanishes on both tails. Choose the weights so that the product of weight and
    number of examples is between one and 4/3 times larger for the desirable ones, changing only one.

    Args:
        rewards: beta * log-ratio; with gradient.
        desirable: True for a thumb up.
        baseline: `kto_baseline`, without gradient; 0 is the form known as unpaired APO-zero.

    Source: arXiv 2402.01306, equation 8.
    """
    z = at_least_float32(rewards) - baseline
    return ((-z).sigmoid() * weight_desirable).where(desirable, z.sigmoid() * weight_undesirable)


def kto_baseline(mismatched_rewards: Pair) -> Float[Tensor, "*stack"]:
    """Returns max(0, mean) of rewards of MISMATCHED (prompt, response) pairs, detached: beta times the KL's estimate.

    Args:
        mismatched_rewards: rewards of prompt i with the response to prompt i + 1 of the batch; at least 4 are wanted.
    """
    return at_least_float32(mismatched_rewards).detach().mean(-1).clamp_min(0)


@final
@dataclass(frozen=True)
class RunningMean:
    """The mean of all rewards seen so far, of both classes (arXiv 2404.04656). Belongs into the checkpoint.

    Attributes:
        value: the mean, in reward units.
        count: rewards seen.
    """

    value: float = 0.0
    count: int = 0

    def update(self, rewards: Tensor) -> RunningMean:
        """Returns the mean with a batch of rewards added."""
        n = rewards.numel()
        if n == 0:
            return self
        mean = float(at_least_float32(rewards).detach().mean())
        count = self.count + n
        return RunningMean(self.value + (mean - self.value) * n / count, count)
