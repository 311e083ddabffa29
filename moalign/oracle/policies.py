"""Trained policies against the exact optimum, on the same candidates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from moalign.errors import DefinitionError
from moalign.oracle.candidates import candidates
from moalign.oracle.optimum import OracleResult


@final
@dataclass(frozen=True, kw_only=True)
class PolicyValues:
    """Policies restricted to the candidates. Fields without `prompt_` are over prompts; KL in nats."""

    rewards: Float[Tensor, "*policies objectives"]  # expected rewards
    kl: Float[Tensor, "*policies"]  # to the base probabilities
    mass_mean: Float[Tensor, "*policies"]  # probability on the candidates before it was renormalised; 1 is complete
    mass_min: Float[Tensor, "*policies"]  # and at the prompt that has least
    prompt_rewards: Float[Tensor, "*policies prompts objectives"]
    prompt_kl: Float[Tensor, "*policies prompts"]
    prompt_mass: Float[Tensor, "*policies prompts"]


@torch.no_grad()
def policy_values(
    log_policy: Float[Tensor, "*policies prompts candidates"],
    rewards: Float[Tensor, "prompts candidates objectives"],
    *,
    log_base: Float[Tensor, "prompts candidates"] | None = None,
    mask: Bool[Tensor, "prompts candidates"] | None = None,
) -> PolicyValues:
    """Returns expected rewards and KL of every policy, renormalised on the candidates.

    No such policy exceeds the oracle's value. What renormalising hides is the probability a policy puts outside the
    candidates: always read `mass_mean` beside the rewards.

    Args:
        log_policy: log-probabilities of the candidates under each policy, in nats, if the candidates are everything
            that can be said. If they are samples of the reference policy: log policy - log reference - log(candidates),
            since each sample stands for that share of the reference.
        rewards, log_base, mask: as in `oracle`.

    Raises:
        DefinitionError: arguments that `oracle` refuses, another shape, NaN or +inf, or a policy without any
            probability on the candidates of a prompt.
    """
    given = candidates(rewards, log_base=log_base, mask=mask)
    if log_policy.shape[-2:] != given.log_base.shape:
        wanted = f"[*policies, prompts, candidates] ending in {tuple(given.log_base.shape)}"
        raise DefinitionError(f"log_policy must have shape {wanted}, got {tuple(log_policy.shape)}.")
    log_policy = log_policy.detach().to(given.rewards).masked_fill(~given.used, -torch.inf)
    log_mass = log_policy.logsumexp(-1)  # [*policies, prompts]
    if not bool(log_mass.isfinite().all()):
        places = (~log_mass.isfinite()).nonzero()[:5].tolist()
        raise DefinitionError(
            f"log_policy is NaN, +inf, or -inf for all candidates at (policy, prompt) {places}. Check that the "
            "log-probs belong to these candidates."
        )
    log_share = log_policy - log_mass[..., None]
    share = log_share.exp()
    prompt_rewards = torch.einsum("...pn,pnm->...pm", share, given.rewards) + given.centre
    prompt_kl = torch.where(share > 0, share * (log_share - given.log_base), 0).sum(-1).clamp_min(0)
    mass = log_mass.exp()
    return PolicyValues(
        rewards=prompt_rewards.mean(-2),
        kl=prompt_kl.mean(-1),
        mass_mean=mass.mean(-1),
        mass_min=mass.amin(-1),
        prompt_rewards=prompt_rewards,
        prompt_kl=prompt_kl,
        prompt_mass=mass,
    )


def pooled_log_base(
    log_members: Float[Tensor, "members prompts candidates"],
    log_reference: Float[Tensor, "prompts candidates"],
    counts: Float[Tensor, " members"] | None = None,
) -> Float[Tensor, "prompts candidates"]:
    """Returns `log_base` for candidates that were drawn from several policies and pooled.

    Samples of the reference alone hardly show what strong policies say. Pooled with samples of the policies themselves,
    each candidate stands for reference / mixture of the reference, and the oracle's value comes near to a true ceiling
    of the policies. Look at the effective sample sizes all the same.

    Args:
        log_members: log-probs of every candidate under every policy that candidates were drawn from, nats; the
            reference among them as a rule.
        log_reference: log-probs of every candidate under the reference.
        counts: candidates drawn from each member, equal when None.

    Source: the balance heuristic of multiple importance sampling (Veach and Guibas 1995).
    """
    members = len(log_members)
    drawn = torch.ones(members) if counts is None else counts
    if drawn.shape != (members,) or not bool((drawn > 0).all()) or log_members.shape[1:] != log_reference.shape:
        raise DefinitionError(
            "pooled_log_base needs log_members [members, prompts, candidates], log_reference [prompts, candidates] and "
            f"counts [members] > 0, got {tuple(log_members.shape)}, {tuple(log_reference.shape)}, {drawn.tolist()}."
        )
    shares = (drawn / drawn.sum()).log().to(log_members)
    return (log_reference - (log_members + shares[:, None, None]).logsumexp(0)).log_softmax(-1)


def regret(
    result: OracleResult, *, rewards: Float[Tensor, "weights objectives"], kl: Float[Tensor, " weights"]
) -> Float[Tensor, " weights"]:
    """Returns how much less than the optimum each policy attains of weights . rewards - beta * kl, in reward units.

    Policy k is judged at the k-th weights and beta of `result`. On the same candidates this is beta times the mean KL
    of the policy to the optimum, hence never negative; numbers from fresh generations may cross zero.

    Args:
        result: the oracle at the policies' weights.
        rewards, kl: of the policies, such as those of `policy_values`.
    """
    return result.value - _attained(result, rewards, kl)


def gain_share(
    result: OracleResult,
    *,
    rewards: Float[Tensor, "weights objectives"],
    kl: Float[Tensor, " weights"],
    reference_rewards: Float[Tensor, " objectives"] | None = None,
) -> Float[Tensor, " weights"]:
    """Returns the share of the possible gain over the reference policy that each policy attains.

    (J - J_reference) / (value - J_reference) with J = weights . rewards - beta * kl: 1 for the optimum, 0 for the
    reference policy, negative for worse than doing nothing. NaN where the reference policy is already optimal, as for
    weights under which all candidates are equally good.

    Args:
        result: the oracle at the policies' weights.
        rewards, kl: of the policies, such as those of `policy_values`.
        reference_rewards: of the reference policy; None takes its exact values from `result`.
    """
    reference = result.reference_rewards if reference_rewards is None else reference_rewards.to(result.value)
    start = result.weights @ reference
    room = result.value - start
    rounding = 16 * torch.finfo(room.dtype).eps * (result.value.abs() + start.abs())
    return torch.where(room > rounding, (_attained(result, rewards, kl) - start) / room, torch.nan)


def _attained(result: OracleResult, rewards: Tensor, kl: Tensor) -> Tensor:
    return (result.weights * rewards.to(result.value)).sum(-1) - result.beta * kl.to(result.value)
