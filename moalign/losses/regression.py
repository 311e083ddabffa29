"""Losses that regress differences of log-ratios to a target: IPO, CoPG, GPO, DNO's soft target, and SFT terms (RPO).

Margins of other objectives enter the target, not the log-odds: the wanted reward difference of a pair is
w_k (reward difference of the trained objective) + w_others . (differences of the others).
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from moalign.errors import DefinitionError
from moalign.losses.log_probs import at_least_float32
from moalign.losses.pairwise import Pair, PerPolicy, logistic, per_pair, tokens, weighted


def ipo(
    log_ratio_chosen: Pair,
    log_ratio_rejected: Pair,
    *,
    tau: PerPolicy = 0.1,
    length_chosen: Pair | None = None,
    length_rejected: Pair | None = None,
    gap: float | Pair = 0.5,
) -> Float[Tensor, "*stack batch"]:
    """Returns (difference of log-ratios - gap / tau)^2: no saturation, the log-ratios stop at a finite distance.

    Args:
        log_ratio_chosen, log_ratio_rejected: log policy - log reference, in nats.
        tau: KL strength > 0.
        length_chosen, length_rejected: completion tokens; log-ratios are then taken per token, as the authors do for
            language models, because the summed loss grows with length.
        gap: wanted reward difference; one half is IPO's, `target_gap` gives it with margins.

    Source: arXiv 2310.12036, equation 17.
    """
    chosen, rejected = at_least_float32(log_ratio_chosen), at_least_float32(log_ratio_rejected)
    if (length_chosen is None) != (length_rejected is None):
        raise DefinitionError("ipo needs the lengths of both responses, or of neither.")
    if length_chosen is not None and length_rejected is not None:
        chosen, rejected = chosen / tokens(length_chosen), rejected / tokens(length_rejected)
    return (chosen - rejected - gap / per_pair(tau)) ** 2


def target_gap(
    gap: float | Pair,
    *,
    margin_chosen: Float[Tensor, "*#stack batch margins"],
    margin_rejected: Float[Tensor, "*#stack batch margins"],
    trained_weight: PerPolicy,
    margin_weights: Float[Tensor, "*#stack margins"],
) -> Float[Tensor, "*stack batch"]:
    """Returns w_k * gap + w_others . (difference of margins): the collective reward difference to regress to."""
    margin = weighted(margin_weights, at_least_float32(margin_chosen) - at_least_float32(margin_rejected))
    return per_pair(trained_weight) * gap + margin


def copg(
    log_ratio_first: Pair, log_ratio_second: Pair, *, reward_gap: Pair | float, beta: PerPolicy = 0.1
) -> Float[Tensor, "*stack batch"]:
    """Returns the contrastive policy gradient loss of a pair, -(gap * D - beta / 2 D^2), D the log-ratio difference.

    Any two responses to a prompt, from any policy, and no importance weights: the unique minimiser over all pairs is
    the reference tilted by exp(reward / beta). Its value is beta / 2 (D - gap / beta)^2 up to a constant.

    Args:
        reward_gap: reward of the first response minus that of the second, w . r with several objectives.

    Source: arXiv 2406.19185, equation 9.
    """
    difference = at_least_float32(log_ratio_first) - at_least_float32(log_ratio_second)
    return -(reward_gap * difference - 0.5 * per_pair(beta) * difference**2)


def gpo(log_ratio: Pair, mean_preference: Pair, *, beta: PerPolicy = 0.001) -> Float[Tensor, "*stack batch"]:
    """Returns (log-ratio to the last round's policy - mean preference / beta)^2 of single responses.

    Args:
        mean_preference: mean score of the response over samples of the last round's policy (see
            `rewards.preference_embedding`), or its mean winning probability minus one half (SPPO, arXiv 2405.00675).

    Source: arXiv 2410.02197; its normaliser is taken as zero, since mean scores sum to zero.
    """
    return (at_least_float32(log_ratio) - at_least_float32(mean_preference) / per_pair(beta)) ** 2


def dno(
    log_ratio_first: Pair, log_ratio_second: Pair, *, reward_first: Pair, reward_second: Pair, eta: PerPolicy = 0.1
) -> Float[Tensor, "*stack batch"]:
    """Returns the cross-entropy between the soft label sigmoid(reward difference) and the policy's log-odds.

    Log-ratios are to the last round's policy, and a response's reward is its mean winning probability against that
    policy. A large reward gap gives DPO with the last round's policy as reference.

    Source: arXiv 2404.03715, algorithm 1.
    """
    difference = at_least_float32(log_ratio_first) - at_least_float32(log_ratio_second)
    label = (at_least_float32(reward_first) - at_least_float32(reward_second)).sigmoid()
    return logistic(per_pair(eta) * difference, label.expand(difference.shape))


def sft_term(policy_chosen: Pair, *, weight: float, length_chosen: Pair | None = None) -> Float[Tensor, "*stack batch"]:
    """Returns weight * -log policy(chosen): what RPO adds to DPO to keep the chosen response likely.

    Args:
        weight: eta * beta for the sum (eta 0.005), or alpha for the mean per token (1.0).
        length_chosen: completion tokens; the log-prob is then taken per token.

    Source: arXiv 2405.16436 (sum), arXiv 2404.19733 (mean).
    """
    chosen = at_least_float32(policy_chosen)
    return -weight * (chosen if length_chosen is None else chosen / tokens(length_chosen))
