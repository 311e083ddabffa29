"""Preference losses as functions of log-probabilities: DPO (arXiv 2305.18290) and MODPO (arXiv 2310.03708).

Every function here takes log-probs that are sums over completion tokens in nats, maximises rewards, returns one number
per pair (the caller reduces) and computes in float32 at least. Leading `*stack` axes are free and broadcast: a stack of
policies, of preference weights, or none. Reference log-probs and margin rewards should come without gradient; nothing
is detached here.

Losses check shapes and plain Python numbers, which costs nothing in a training loop. Values inside tensors would cost
one device synchronisation per step, so `check_modpo_arguments` looks at them once, before the loop.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from moalign.losses.arguments import check_plain_numbers, check_shapes
from moalign.losses.log_probs import at_least_float32
from moalign.losses.pairwise import dpo_logits, hinge, logistic, per_pair, weighted, with_margins


def dpo(
    *,
    policy_chosen: Float[Tensor, "*#stack batch"],
    policy_rejected: Float[Tensor, "*#stack batch"],
    reference_chosen: Float[Tensor, "*#stack batch"],
    reference_rejected: Float[Tensor, "*#stack batch"],
    beta: float | Float[Tensor, "*#stack"],
    labels: Float[Tensor, "*#stack batch"] | None = None,
    label_smoothing: float = 0.0,
) -> Float[Tensor, "*stack batch"]:
    """Returns the DPO loss of every pair, -log sigmoid(beta * (log-ratio of chosen - log-ratio of rejected)).

    Args:
        policy_chosen, policy_rejected: log-probs under the policy, in nats.
        reference_chosen, reference_rejected: log-probs under the reference policy, in nats.
        beta: KL strength > 0, in reward units per nat; one number, or one per stack entry.
        labels: probability in [0, 1] that `chosen` is the better one, such as a share of votes; None means certain.
        label_smoothing: assumed rate of flipped labels, in [0, 0.5).

    Raises:
        DefinitionError: shapes that do not fit together, or a plain number outside its range.

    Source: arXiv 2305.18290, equation 7. Soft labels give the expectation of the loss over the label.
    """
    z = dpo_logits(
        policy_chosen=policy_chosen,
        policy_rejected=policy_rejected,
        reference_chosen=reference_chosen,
        reference_rejected=reference_rejected,
        beta=beta,
    )
    check_shapes("dpo", policy_chosen=(policy_chosen, "batch"), labels=(labels, "batch"))
    return logistic(z, labels, label_smoothing)


def modpo(
    *,
    policy_chosen: Float[Tensor, "*#stack batch"],
    policy_rejected: Float[Tensor, "*#stack batch"],
    reference_chosen: Float[Tensor, "*#stack batch"],
    reference_rejected: Float[Tensor, "*#stack batch"],
    margin_chosen: Float[Tensor, "*#stack batch margins"],
    margin_rejected: Float[Tensor, "*#stack batch margins"],
    trained_weight: float | Float[Tensor, "*#stack"],
    margin_weights: Float[Tensor, "*#stack margins"],
    beta: float | Float[Tensor, "*#stack"],
    labels: Float[Tensor, "*#stack batch"] | None = None,
    label_smoothing: float = 0.0,
) -> Float[Tensor, "*stack batch"]:
    """Returns the MODPO loss of every pair, -log sigmoid(z) with z from `modpo_logits`.

    With all weight on the trained objective this is the DPO loss. Its exact minimiser is the reference policy tilted by
    exp(weights . rewards / beta), the optimum of the KL-regularised weighted reward.

    Args:
        policy_chosen, policy_rejected, reference_chosen, reference_rejected, margin_chosen, margin_rejected,
            trained_weight, margin_weights, beta: see `modpo_logits`.
        labels: probability in [0, 1] that `chosen` is the better one, such as a share of votes; None means certain.
        label_smoothing: assumed rate of flipped labels, in [0, 0.5).

    Raises:
        DefinitionError: shapes that do not fit together, or a plain number outside its range.

    Source: the MODPO loss of arXiv 2310.03708, section 3. Differs from the official code by soft labels and label
    smoothing, which it does not have; without them the two agree.
    """
    z = modpo_logits(
        policy_chosen=policy_chosen,
        policy_rejected=policy_rejected,
        reference_chosen=reference_chosen,
        reference_rejected=reference_rejected,
        margin_chosen=margin_chosen,
        margin_rejected=margin_rejected,
        trained_weight=trained_weight,
        margin_weights=margin_weights,
        beta=beta,
    )
    check_shapes("modpo", policy_chosen=(policy_chosen, "batch"), labels=(labels, "batch"))
    return logistic(z, labels, label_smoothing)


def modpo_hinge(
    *,
    policy_chosen: Float[Tensor, "*#stack batch"],
    policy_rejected: Float[Tensor, "*#stack batch"],
    reference_chosen: Float[Tensor, "*#stack batch"],
    reference_rejected: Float[Tensor, "*#stack batch"],
    margin_chosen: Float[Tensor, "*#stack batch margins"],
    margin_rejected: Float[Tensor, "*#stack batch margins"],
    trained_weight: float | Float[Tensor, "*#stack"],
    margin_weights: Float[Tensor, "*#stack margins"],
    beta: float | Float[Tensor, "*#stack"],
) -> Float[Tensor, "*stack batch"]:
    """Returns the hinge form of MODPO for every pair, max(0, 1 - z); arguments and refusals as in `modpo_logits`.

    It has no Bradley-Terry reading: a pair beyond the margin no longer moves the policy.
    """
    z = modpo_logits(
        policy_chosen=policy_chosen,
        policy_rejected=policy_rejected,
        reference_chosen=reference_chosen,
        reference_rejected=reference_rejected,
        margin_chosen=margin_chosen,
        margin_rejected=margin_rejected,
        trained_weight=trained_weight,
        margin_weights=margin_weights,
        beta=beta,
    )
    return hinge(z)


def modpo_logits(
    *,
    policy_chosen: Float[Tensor, "*#stack batch"],
    policy_rejected: Float[Tensor, "*#stack batch"],
    reference_chosen: Float[Tensor, "*#stack batch"],
    reference_rejected: Float[Tensor, "*#stack batch"],
    margin_chosen: Float[Tensor, "*#stack batch margins"],
    margin_rejected: Float[Tensor, "*#stack batch margins"],
    trained_weight: float | Float[Tensor, "*#stack"],
    margin_weights: Float[Tensor, "*#stack margins"],
    beta: float | Float[Tensor, "*#stack"],
) -> Float[Tensor, "*stack batch"]:
    """Returns z, the log-odds that the policy, read as a reward model of the trained objective, gives each pair.

    z = (beta * difference of log-ratios - margin_weights . difference of margins) / trained_weight. It equals the
    difference of the two `objective_reward` values; subtracting first keeps digits when the weight is small.

    Args:
        policy_chosen, policy_rejected: log-probs under the policy, in nats.
        reference_chosen, reference_rejected: log-probs under the reference policy, in nats.
        margin_chosen, margin_rejected: rewards of the other objectives, scaled so that a difference of one is a
            log-odds of one. They are not multiplied by beta: a margin read off a DPO policy contains its own beta.
        trained_weight: weight > 0 of the objective the pairs were annotated for; one number or one per stack entry.
        margin_weights: weights of the other objectives, in the order of the margins' last axis. Together with
            `trained_weight` they need not sum to one.
        beta: KL strength > 0, in reward units per nat; one number, or one per stack entry.

    Raises:
        DefinitionError: shapes that do not fit together, or a plain number outside its range.

    Source: arXiv 2310.03708, section 3.
    """
    check_shapes(
        "modpo",
        policy_chosen=(policy_chosen, "batch"),
        policy_rejected=(policy_rejected, "batch"),
        reference_chosen=(reference_chosen, "batch"),
        reference_rejected=(reference_rejected, "batch"),
        margin_chosen=(margin_chosen, "batch margins"),
        margin_rejected=(margin_rejected, "batch margins"),
        margin_weights=(margin_weights, "margins"),
        trained_weight=(trained_weight, ""),
        beta=(beta, ""),
    )
    check_plain_numbers("modpo", beta=beta, trained_weight=trained_weight)
    z = dpo_logits(
        policy_chosen=policy_chosen,
        policy_rejected=policy_rejected,
        reference_chosen=reference_chosen,
        reference_rejected=reference_rejected,
        beta=beta,
    )
    return with_margins(
        z,
        margin_chosen=margin_chosen,
        margin_rejected=margin_rejected,
        trained_weight=trained_weight,
        margin_weights=margin_weights,
    )


def objective_reward(
    *,
    policy: Float[Tensor, "*#stack batch"],
    reference: Float[Tensor, "*#stack batch"],
    margins: Float[Tensor, "*#stack batch margins"],
    trained_weight: float | Float[Tensor, "*#stack"],
    margin_weights: Float[Tensor, "*#stack margins"],
    beta: float | Float[Tensor, "*#stack"],
) -> Float[Tensor, "*stack batch"]:
    """Returns the reward of the trained objective that the policy implies for each response, up to a prompt constant.

    (beta * log-ratio - margin_weights . margins) / trained_weight: what is left of the policy's collective reward once
    the other objectives are taken out. For metrics; arguments as in `modpo_logits`, in reward units.

    Source: arXiv 2310.03708, section 3.
    """
    collective = collective_reward(policy=policy, reference=reference, beta=beta)
    return (collective - weighted(margin_weights, at_least_float32(margins))) / per_pair(trained_weight)


def collective_reward(
    *,
    policy: Float[Tensor, "*#stack batch"],
    reference: Float[Tensor, "*#stack batch"],
    beta: float | Float[Tensor, "*#stack"],
) -> Float[Tensor, "*stack batch"]:
    """Returns the weighted sum of all rewards that the policy implies for each response, beta * log-ratio.

    Up to a prompt constant, in reward units. Equals `objective_reward` only when the trained objective has all weight.
    """
    return per_pair(beta) * (at_least_float32(policy) - at_least_float32(reference))
