"""Losses and updates for preferences that no single reward explains: SRPO, GPM, Nash mirror prox, momentum (APO).

Iterative methods are given as their one update; sampling and rounds belong to a method.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from moalign.losses.log_probs import at_least_float32
from moalign.losses.pairwise import Pair, logistic


def srpo(
    *,
    generation_chosen: Pair,
    generation_rejected: Pair,
    chosen_given_rejected: Pair,
    rejected_given_chosen: Pair,
    chosen_given_chosen: Pair,
    rejected_given_rejected: Pair,
    beta: float = 0.05,
    mix: float = 0.5,
) -> Float[Tensor, "*stack batch"]:
    """Returns (1 - mix) * generation loss + mix * improvement loss of self-improving robust preference optimisation.

    A policy and its own improver (which sees a response in its context) play a game whose optimum needs no
    Bradley-Terry model; at the optimum both residuals are zero.

    Args:
        generation_chosen, generation_rejected: log-ratios of the responses to the prompt alone, in nats.
        chosen_given_rejected, ...: log-ratios of the first response when the second stands in the context.
        beta: KL strength of both policies.
        mix: weight of the improvement loss, in [0, 1].

    Source: arXiv 2406.01660, equations 8 and 11.
    """
    g_chosen, g_rejected = at_least_float32(generation_chosen), at_least_float32(generation_rejected)
    better, worse = at_least_float32(chosen_given_rejected), at_least_float32(rejected_given_chosen)
    kept_best, kept_worst = at_least_float32(chosen_given_chosen), at_least_float32(rejected_given_rejected)
    up = 0.5 - beta * (better - kept_worst)
    down = -0.5 - beta * (worse - kept_best)
    generation = (0.5 - 0.5 * beta * (g_chosen - g_rejected + better - worse)) ** 2
    return (1 - mix) * generation + mix * 0.5 * (up**2 + down**2)


def preference_score(
    first: Float[Tensor, "*#stack batch dims"],
    second: Float[Tensor, "*#stack batch dims"],
    scales: Float[Tensor, "*#stack batch blocks"] | Float[Tensor, " blocks"] | None = None,
) -> Float[Tensor, "*stack batch"]:
    """Returns s(first, second) = sum_b scales_b (v1[2b] v2[2b+1] - v1[2b+1] v2[2b]); positive: the first is preferred.

    Skew-symmetric, so s(y, y) = 0 exactly; it can hold cycles, and embeddings (reward, constant) give Bradley-Terry.

    Args:
        first, second: embeddings of two responses to a prompt, an even number of dims.
        scales: weight per block of two dims, >= 0; ones when None.

    Source: arXiv 2410.02197, equation 6.
    """
    a, b = (at_least_float32(v).reshape(*v.shape[:-1], -1, 2) for v in (first, second))
    cross = a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]
    return (cross if scales is None else cross * scales).sum(-1)


def gpm(score: Pair, *, tau: float = 0.1, labels: Pair | None = None) -> Float[Tensor, "*stack batch"]:
    """Returns -log sigmoid(score / tau): the preference model's loss for `preference_score` of (chosen, rejected)."""
    return logistic(at_least_float32(score) / tau, labels)


def nash_step(
    log_policy: Float[Tensor, "*stack responses"],
    log_reference: Float[Tensor, "*stack responses"],
    preference: Float[Tensor, "*stack responses"],
    *,
    beta: float,
    eta: float,
) -> Float[Tensor, "*stack responses"]:
    """Returns log argmax P(. > opponent) - beta KL(. to reference) - KL(. to policy) / eta over enumerable responses.

    Nash mirror prox takes it twice from the same policy: against itself, then against the half step's result.

    Args:
        preference: probability that each response beats the opponent.

    Source: arXiv 2505.19731, algorithm 1.
    """
    z = (log_policy + eta * beta * log_reference + eta * preference) / (1 + eta * beta)
    return z.log_softmax(-1)


def extrapolate(new: Tensor, old: Tensor, momentum: float = 0.3) -> Tensor:
    """Returns new + momentum * (new - old), for parameters or logits: accelerated (Nesterov) preference optimisation.

    The result is the next round's reference and sampling policy; 0 is iterative DPO. Of logits, normalise afterwards.

    Source: arXiv 2410.06293, algorithm 1.
    """
    return torch.lerp(old, new, 1.0 + momentum)
