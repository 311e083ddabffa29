"""Pairwise losses as three interchangeable parts: log-odds of a pair, margins of other objectives, a link.

    loss = link(with_margins(logits(...), ...))

| loss | logits | link | source |
|---|---|---|---|
| DPO, cDPO | `dpo_logits` | `logistic` (with label_smoothing) | arXiv 2305.18290 |
| hinge | `dpo_logits` | `hinge` | arXiv 2305.10425 |
| f-DPO | `f_dpo_logits` | `logistic` | arXiv 2309.16240 |
| LN-DPO | `ln_dpo_logits` | `logistic` | arXiv 2407.15229 |
| rDPO | `dpo_logits` | `robust` | arXiv 2403.00409 |
| TDPO1, TDPO2 | `tdpo_logits` | `logistic` | arXiv 2404.11999 |
| MODPO | any, then `with_margins` | any | arXiv 2310.03708 |

Losses that regress a log-ratio instead (IPO, CoPG) are in `regression`, those of single responses in `single`.
Log-probs are sums over completion tokens in nats; all is computed in float32 at least, one number per pair.
"""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from moalign.errors import DefinitionError
from moalign.losses.arguments import check_plain_numbers, check_shapes
from moalign.losses.divergences import Divergence, f_dpo_score
from moalign.losses.log_probs import at_least_float32

Pair = Float[Tensor, "*#stack batch"]
PerPolicy = float | Float[Tensor, "*#stack"]


def dpo_logits(
    *,
    policy_chosen: Pair,
    policy_rejected: Pair,
    reference_chosen: Pair,
    reference_rejected: Pair,
    beta: PerPolicy,
) -> Float[Tensor, "*stack batch"]:
    """Returns beta * (log-ratio of chosen - log-ratio of rejected): the log-odds that chosen is preferred.

    Args:
        policy_chosen, policy_rejected: log-probs under the policy, in nats.
        reference_chosen, reference_rejected: log-probs under the reference policy; zeros give the reference-free form.
        beta: KL strength > 0, in reward units per nat; one number, or one per stack entry.

    Raises:
        DefinitionError: shapes that do not fit together, or a plain number outside its range.

    Source: arXiv 2305.18290, equation 7.
    """
    chosen, rejected = _log_ratios("dpo", policy_chosen, policy_rejected, reference_chosen, reference_rejected, beta)
    return per_pair(beta) * (chosen - rejected)


def f_dpo_logits(
    *,
    policy_chosen: Pair,
    policy_rejected: Pair,
    reference_chosen: Pair,
    reference_rejected: Pair,
    beta: PerPolicy,
    divergence: Divergence,
) -> Float[Tensor, "*stack batch"]:
    """Returns beta * (f'(u_chosen) - f'(u_rejected)): DPO whose penalty is beta D_f instead of beta KL.

    Forward KL, Jensen-Shannon and alpha-divergences bound the score from above, so that a single likely answer cannot
    saturate the loss; the push comes from the rejected side. Arguments as in `dpo_logits`; with `ReverseKL()` it is
    DPO.

    Source: arXiv 2309.16240, theorem 1.
    """
    chosen, rejected = _log_ratios("f_dpo", policy_chosen, policy_rejected, reference_chosen, reference_rejected, beta)
    return per_pair(beta) * (f_dpo_score(chosen, divergence) - f_dpo_score(rejected, divergence))


def ln_dpo_logits(
    *,
    policy_chosen: Pair,
    policy_rejected: Pair,
    reference_chosen: Pair,
    reference_rejected: Pair,
    length_chosen: Pair,
    length_rejected: Pair,
    beta: PerPolicy = 2.0,
) -> Float[Tensor, "*stack batch"]:
    """Returns the log-odds with log-ratios per token, which takes away the reward of length.

    Args:
        length_chosen, length_rejected: scored completion tokens, the end of sequence included; at least 1 is used.
        beta: larger than DPO's, because log-ratios are per token: 1 to 10.

    Source: arXiv 2407.15229.
    """
    chosen, rejected = _log_ratios("ln_dpo", policy_chosen, policy_rejected, reference_chosen, reference_rejected, beta)
    return per_pair(beta) * (chosen / tokens(length_chosen) - rejected / tokens(length_rejected))


def tdpo_logits(
    *,
    policy_chosen: Pair,
    policy_rejected: Pair,
    reference_chosen: Pair,
    reference_rejected: Pair,
    sequence_kl_chosen: Pair,
    sequence_kl_rejected: Pair,
    beta: PerPolicy = 0.1,
    alpha: float | None = 0.5,
) -> Float[Tensor, "*stack batch"]:
    """Returns the log-odds of token-level DPO, which also hold the token-wise forward KL along each response.

    Args:
        sequence_kl_chosen, sequence_kl_rejected: sum over completion tokens of KL(reference || policy) of the next
            token, in nats, with gradient (see `policy_gradient.token_kl`).
        alpha: weight of the KL difference, with the chosen response's KL held fixed in the gradient (TDPO2); 0 is
            DPO. None is TDPO1: weight one and nothing held fixed.

    Source: arXiv 2404.11999, equations 15 and 18.
    """
    chosen, rejected = _log_ratios("tdpo", policy_chosen, policy_rejected, reference_chosen, reference_rejected, beta)
    kl_chosen, kl_rejected = at_least_float32(sequence_kl_chosen), at_least_float32(sequence_kl_rejected)
    extra = kl_chosen - kl_rejected if alpha is None else alpha * (kl_chosen.detach() - kl_rejected)
    return per_pair(beta) * (chosen - rejected + extra)


def with_margins(
    logits: Pair,
    *,
    margin_chosen: Float[Tensor, "*#stack batch margins"],
    margin_rejected: Float[Tensor, "*#stack batch margins"],
    trained_weight: PerPolicy,
    margin_weights: Float[Tensor, "*#stack margins"],
) -> Float[Tensor, "*stack batch"]:
    """Returns (logits - margin_weights . difference of margins) / trained_weight.

    What remains of a policy's collective reward for the trained objective once the other objectives are taken out; in
    front of any link it makes a multi-objective loss. Zero margins and a trained weight of one change nothing.

    Args:
        logits: log-odds of the pairs from any of the functions above.
        margin_chosen, margin_rejected: rewards of the other objectives, a difference of one being a log-odds of one.
        trained_weight: weight > 0 of the objective that the pairs were labelled for.
        margin_weights: weights of the other objectives, in the order of the margins' last axis.

    Raises:
        DefinitionError: shapes that do not fit together, or a plain number outside its range.

    Source: arXiv 2310.03708, section 3. With f-DPO the equivalent problem is max w . r - beta D_f.
    """
    check_shapes(
        "with_margins",
        logits=(logits, "batch"),
        margin_chosen=(margin_chosen, "batch margins"),
        margin_rejected=(margin_rejected, "batch margins"),
        margin_weights=(margin_weights, "margins"),
        trained_weight=(trained_weight, ""),
    )
    check_plain_numbers("with_margins", trained_weight=trained_weight)
    margin = weighted(margin_weights, at_least_float32(margin_chosen) - at_least_float32(margin_rejected))
    return (at_least_float32(logits) - margin) / per_pair(trained_weight)


def logistic(logits: Pair, labels: Pair | None = None, label_smoothing: float = 0.0) -> Float[Tensor, "*stack batch"]:
    """Returns the expected -log sigmoid of the log-odds.

    Args:
        logits: log-odds that chosen is preferred.
        labels: probability in [0, 1] that it is, such as a share of votes; None means certain.
        label_smoothing: assumed rate of flipped labels, in [0, 0.5) (cDPO). The minimum lies at log-odds of
            log((1 - rate) / rate).
    """
    check_plain_numbers("logistic", label_smoothing=label_smoothing)
    z = at_least_float32(logits)
    if labels is None and label_smoothing == 0:
        return -F.logsigmoid(z)
    certain = 1.0 if labels is None else at_least_float32(labels)
    better = (1 - label_smoothing) * certain + label_smoothing * (1 - certain)
    return -better * F.logsigmoid(z) - (1 - better) * F.logsigmoid(-z)


def hinge(logits: Pair) -> Float[Tensor, "*stack batch"]:
    """Returns max(0, 1 - logits). A pair beyond the margin no longer moves the policy (arXiv 2305.10425)."""
    return F.relu(1 - at_least_float32(logits))


def robust(logits: Pair, flip_rate: float = 0.1) -> Float[Tensor, "*stack batch"]:
    """Returns the loss whose mean over labels flipped at `flip_rate` is the loss of the clean labels.

    Negative for well-separated pairs and unbounded below: the slope never vanishes, so stop early, or use weight decay
    and rates up to 0.3. Unlike cDPO, which adds the other order, it subtracts it.

    Raises:
        DefinitionError: a flip rate outside [0, 0.5).

    Source: arXiv 2403.00409, equation 6.
    """
    if not 0 <= flip_rate < 0.5:
        raise DefinitionError(f"robust needs the rate of flipped labels in [0, 0.5), got {flip_rate:g}.")
    z = at_least_float32(logits)
    return (flip_rate * F.logsigmoid(-z) - (1 - flip_rate) * F.logsigmoid(z)) / (1 - 2 * flip_rate)


def weighted(weights: Tensor, margins: Tensor) -> Tensor:
    """Returns margin_weights . margins, [*stack, margins] with [*stack, batch, margins] to [*stack, batch]."""
    return (at_least_float32(weights).unsqueeze(-2) * margins).sum(-1)


def per_pair(value: float | Tensor) -> float | Tensor:
    """Returns a value per stack entry with an axis for the batch: [*stack] to [*stack, 1]."""
    return at_least_float32(value).unsqueeze(-1) if isinstance(value, Tensor) else value


def tokens(lengths: Tensor) -> Tensor:
    """Returns lengths of at least one."""
    return lengths.clamp_min(1)


def _log_ratios(
    where: str, policy_chosen: Tensor, policy_rejected: Tensor, reference_chosen: Tensor, reference_rejected: Tensor,
    beta: float | Tensor,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    check_shapes(
        where,
        policy_chosen=(policy_chosen, "batch"),
        policy_rejected=(policy_rejected, "batch"),
        reference_chosen=(reference_chosen, "batch"),
        reference_rejected=(reference_rejected, "batch"),
        beta=(beta, ""),
    )
    check_plain_numbers(where, beta=beta)
    chosen = at_least_float32(policy_chosen) - at_least_float32(reference_chosen)
    return chosen, at_least_float32(policy_rejected) - at_least_float32(reference_rejected)
