"""Policy gradients with a KL penalty, as losses whose gradient is the estimate: pure functions of log-probabilities.

On-policy samples y of a prompt have the penalised reward R(y) - beta (log policy - log reference). Its gradient with a
leave-one-out baseline is unbiased for E[R] - beta KL, and every single sample's advantage is zero once the policy is
the reference tilted by exp(R / beta): the noise vanishes at the optimum. The exact token-wise KL as a differentiated
penalty would be biased, since it ignores how tokens change later states; k3 as a differentiated penalty descends the
other KL. Both are for reporting.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from moalign.errors import DefinitionError
from moalign.losses.divergences import Divergence
from moalign.losses.log_probs import at_least_float32
from moalign.losses.pairwise import PerPolicy, per_pair

LARGEST_K3 = 20.0  # log-ratios beyond are clamped in k3 alone, whose exponential would swamp the mean


def penalised_rewards(
    rewards: Float[Tensor, "*#stack batch"],
    policy: Float[Tensor, "*#stack batch"],
    reference: Float[Tensor, "*#stack batch"],
    *,
    beta: PerPolicy,
) -> Float[Tensor, "*stack batch"]:
    """Returns R - beta (log policy - log reference), detached.

    Args:
        rewards: of every sample, w . r with several objectives, in reward units.
        policy, reference: summed log-probs of the samples, in nats.
        beta: KL strength, in reward units per nat; one number, or one per stack entry.

    Source: arXiv 2310.03708, section 2 (the MORLHF objective).
    """
    ratio = at_least_float32(policy) - at_least_float32(reference)
    return (at_least_float32(rewards) - per_pair(beta) * ratio).detach()


def leave_one_out(rewards: Float[Tensor, "*stack samples"]) -> Float[Tensor, "*stack samples"]:
    """Returns each sample's reward minus the mean of the prompt's other samples: an advantage that needs no critic.

    Args:
        rewards: of at least two samples of one prompt along the last axis.

    Source: arXiv 2402.14740 (RLOO); the same gradient as the contrastive one of arXiv 2406.19185 over all pairs.
    """
    n = rewards.shape[-1]
    if n < 2:
        raise DefinitionError(f"A leave-one-out baseline needs two or more samples per prompt, got {n}.")
    return (rewards - rewards.mean(-1, keepdim=True)) * (n / (n - 1))


def clipped_policy_gradient(
    policy: Float[Tensor, "*#stack tokens"],
    sampled: Float[Tensor, "*#stack tokens"],
    advantages: Float[Tensor, "*#stack tokens"],
    *,
    clip: float = 0.2,
) -> Float[Tensor, "*stack tokens"]:
    """Returns -min(ratio A, clip(ratio, 1 - clip, 1 + clip) A) per token, ratio = policy / policy that sampled.

    On fresh samples the ratio is one and the gradient that of -A log policy; on reused ones a token whose ratio has
    left the interval in the advantage's direction gets no gradient.

    Args:
        policy: log-prob of every token under the policy, in nats; with gradient.
        sampled: the same when the tokens were drawn.
        advantages: of the token's response.
        clip: half width of the interval, > 0; infinity does not clip.

    Source: arXiv 1707.06347, equation 7.
    """
    log_ratio = at_least_float32(policy) - at_least_float32(sampled)
    ratio = log_ratio.exp()
    inside = ratio.clamp(max(0.0, 1 - clip), 1 + clip)
    return -torch.minimum(ratio * advantages, inside * advantages)


def k1(log_ratio: Tensor) -> Tensor:
    """Returns log policy - log reference: its mean under the policy is KL(policy || reference); noisy, may be < 0."""
    return log_ratio


def k2(log_ratio: Tensor) -> Tensor:
    """Returns log-ratio squared / 2: biased, but its gradient under the policy is that of KL(policy || reference)."""
    return 0.5 * log_ratio**2


def k3(log_ratio: Tensor) -> Tensor:
    """Returns exp(-l) - 1 + l >= 0: unbiased for KL(policy || reference) under samples of the policy.

    For reports. Differentiated, its mean descends KL(reference || policy) instead. Token-wise values sum to an unbiased
    estimate of the sequence KL. Entries are clamped to [-20, 20] nats.
    """
    bounded = log_ratio.clamp(-LARGEST_K3, LARGEST_K3)
    return torch.expm1(-bounded) + bounded


def token_kl(
    logits_first: Float[Tensor, "*#stack tokens vocabulary"], logits_second: Float[Tensor, "*#stack tokens vocabulary"]
) -> Float[Tensor, "*stack tokens"]:
    """Returns KL(first || second) of the next-token distributions, in nats, computed in float32 at least."""
    first, second = (at_least_float32(logits).log_softmax(-1) for logits in (logits_first, logits_second))
    possible = first > -torch.inf  # tokens of probability zero cost nothing, and must not give 0 * inf
    ratio = first.where(possible, 0) - second.where(possible, 0)
    return (first.exp() * ratio).sum(-1)


def sequence_forward_kl(
    policy_logits: Float[Tensor, "*#stack tokens vocabulary"],
    reference_logits: Float[Tensor, "*#stack tokens vocabulary"],
    mask: Bool[Tensor, "*#stack tokens"],
) -> Float[Tensor, "*stack"]:
    """Returns the sum over selected tokens of KL(reference || policy), what token-level DPO (`tdpo_logits`) takes."""
    return token_kl(reference_logits, policy_logits).where(mask, 0).sum(-1)


def online_kl(
    policy: Float[Tensor, "*#stack samples"], reference: Float[Tensor, "*#stack samples"], *, centred: bool = False
) -> Float[Tensor, "*stack samples"]:
    """Returns (log-ratio, detached) * log policy of the policy's own samples: its gradient is that of the reverse KL.

    HyPO adds weight * mean of it to an offline DPO loss, so that the KL is controlled where pairs say nothing.

    Args:
        policy, reference: summed log-probs of samples of the policy, in nats.
        centred: subtract the samples' mean log-ratio, which lowers the variance.

    Source: arXiv 2406.01462, equation 5; default weight 1e-4.
    """
    own = at_least_float32(policy)
    ratio = (own - at_least_float32(reference)).detach()
    return (ratio - ratio.mean(-1, keepdim=True) if centred else ratio) * own


def f_dpg(
    policy: Float[Tensor, "*#stack samples"],
    log_target: Float[Tensor, "*#stack samples"],
    *,
    divergence: Divergence,
    sampled: Float[Tensor, "*#stack samples"] | None = None,
    baseline: float | Tensor = 0.0,
) -> Float[Tensor, "*stack samples"]:
    """Returns -(importance ratio * (pseudo-reward - baseline)) * log policy; its mean's gradient is that of D_f.

    The pseudo-reward is -f'(policy / target). Fitting the target reference * exp(reward / beta) by reverse KL is RL
    with a KL penalty; Jensen-Shannon is the paper's best all-round choice.

    Args:
        policy: summed log-probs of the samples, with gradient.
        log_target: log of the NORMALISED target's probability: log P - log Z, Z from `normaliser`.
        divergence: D_f(policy || target).
        sampled: log-probs under what drew the samples; None for the policy itself.
        baseline: mean pseudo-reward, for the variance only.

    Source: arXiv 2302.08215, theorem 1 and algorithm 1.
    """
    own = at_least_float32(policy)
    reward = -divergence.derivative((own - at_least_float32(log_target)).detach())
    weight = 1.0 if sampled is None else (own - at_least_float32(sampled)).detach().exp()
    return -weight * (reward - baseline) * own


def normaliser(
    log_scores: Float[Tensor, "*#stack samples"], sampled: Float[Tensor, "*#stack samples"]
) -> Float[Tensor, "*stack"]:
    """Returns log of the mean of P / q over samples of q: the log of the target's normaliser Z, detached."""
    ratio = (at_least_float32(log_scores) - at_least_float32(sampled)).detach()
    return ratio.logsumexp(-1) - torch.log(torch.tensor(float(ratio.shape[-1])))
