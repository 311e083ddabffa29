"""Policies of any method on the embedded problem, judged against the exact optimum.

The twin of the judge by samples in `sampled.py`: every reply to the held-out prompts is known, so all numbers but
seconds are exact for the trained policies.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from moalign.arrays import FloatArray
from moalign.comparison.contest import Costs
from moalign.comparison.outcomes import Outcome
from moalign.data import toy
from moalign.demo import BETA, ToyFacts, reference_corner
from moalign.front import bootstrap_over_prompts, expected_utility, hypervolume
from moalign.methods import PolicySet
from moalign.methods.serving import Selection
from moalign.oracle import Optimum, PolicyValues, constrained, gain_share, kl_target, maximin, oracle, policy_values
from moalign.policy.engine import Engine
from moalign.weights import grid

WEIGHTS = grid(3, 3)  # what every method is asked for
FINE = grid(3, 20)  # of the expected utility
RESAMPLES = 500


def judge(facts: ToyFacts, method: str, seed: int, policies: PolicySet, engine: Engine, costs: Costs) -> Outcome:
    """Returns what the policies that serve `WEIGHTS` are worth exactly, on all replies to the held-out prompts."""
    table, base = torch.from_numpy(facts.rewards), torch.from_numpy(facts.log_base)
    served = [policies.for_weights(w) for w in WEIGHTS]
    exact = policy_values(_log_policy(served, engine, facts), table, log_base=base)
    best = facts.oracle(WEIGHTS, BETA)
    reference = best.reference_rewards.numpy()
    rewards, kl = exact.rewards.numpy(), exact.kl.numpy()
    corner = reference_corner(best)
    top = hypervolume(best.rewards.numpy(), corner)
    volume = bootstrap_over_prompts(
        exact.prompt_rewards.numpy(), lambda points: hypervolume(points, corner) / top, resamples=RESAMPLES
    )
    gains = (WEIGHTS * (rewards - reference)).sum(axis=1)
    start = float((FINE @ reference).mean())
    possible = expected_utility(facts.oracle(FINE, BETA).rewards.numpy(), FINE) - start
    within = _within(policies, engine, facts)
    fair = maximin(table, BETA, log_base=base)
    worst_group, others = group_shares(rewards, kl, reference, fair)
    against = policies.facts.get("maxmin", {}).get("weights")
    return Outcome(
        method=method,
        seed=seed,
        shares=tuple(gain_share(best, rewards=exact.rewards, kl=exact.kl).tolist()),
        hypervolume=(volume.value, volume.low, volume.high),
        at_equal_kl=at_equal_kl(exact, WEIGHTS, table, base),
        expected_utility=(expected_utility(rewards, FINE) - start) / possible,
        worst_group=worst_group,
        others=others,
        saddle_gap=_saddle_gap(np.array(against), rewards, kl, facts) if against is not None else None,
        policies=len(policies),
        trained=costs.trained,
        generated=costs.generated,
        seconds=costs.seconds,
        points=tuple(zip(kl.tolist(), gains.tolist(), strict=True)),
        constrained=float(np.mean([share for share, _ in within])) if within else None,
        violation=max(violation for _, violation in within) if within else None,
    )


def _within(policies: PolicySet, engine: Engine, facts: ToyFacts) -> list[tuple[float, float]]:
    """Returns `constrained_shares` of the policies that were trained under bounds; none of other methods."""
    entries = policies.facts.get("cmorl", {}).get("archive", [])
    rows = [i for i, entry in enumerate(entries) if "raises" in entry]
    if not rows:
        return []
    names, prompts = list(toy.rewards()), facts.split.held_out
    replies = [(p, r) for p in prompts for r in toy.enumerate_responses(p)]
    responses = engine.encode([p for p, _ in replies], [r for _, r in replies])
    log_policy = engine.log_probs(responses, policies.stack.select(rows)).reshape(len(rows), len(prompts), -1)
    raised = [names.index(entries[i]["raises"]) for i in rows]
    bounds = np.array([entries[i]["at_least"] for i in rows])
    table, base = torch.from_numpy(facts.rewards), torch.from_numpy(facts.log_base)
    return constrained_shares(torch.from_numpy(log_policy), raised, bounds, table, BETA, base)


def constrained_shares(
    log_policy: torch.Tensor, raised: Sequence[int], bounds: FloatArray, rewards: torch.Tensor, beta: float,
    log_base: torch.Tensor,
) -> list[tuple[float, float]]:  # fmt: skip
    """Returns (share of the exact gain, largest shortfall in reward units) of policies that were trained under bounds.

    One that raises objective k under R_j >= c_j is compared with the exact optimum F of R_k - beta KL under these
    bounds by R_k - beta KL - sum_j lambda_j max(c_j - R_j, 0), lambda the optimum's multipliers. No policy has more
    than F of it, whatever it violates; reserves earn nothing. The share is of what F is above the base policy.

    Args:
        log_policy: log-probs of all candidates [policies, prompts, candidates].
        raised: the objective that each raises.
        bounds: least rewards [policies, objectives]; that of the raised objective is not used.
        rewards: of all candidates [prompts, candidates, objectives].
        beta: KL strength.
        log_base: log-probs under the base [prompts, candidates].
    """
    exact = policy_values(log_policy, rewards, log_base=log_base)
    nothing = policy_values(log_base, rewards, log_base=log_base).rewards.numpy()
    found = []
    for k, least, reached, kl in zip(raised, bounds, exact.rewards.numpy(), exact.kl.tolist(), strict=True):
        target = np.eye(rewards.shape[-1])[k]
        at_least = np.where(target > 0, -np.inf, least)
        best = constrained(rewards, target, beta, at_least, log_base=log_base)
        price = best.weights.numpy() - target
        short = np.maximum(at_least - reached, 0)
        value = reached[k] - beta * kl - price @ short
        start = nothing[k] - price @ np.maximum(at_least - nothing, 0)
        found.append((float((value - start) / (best.value - start)), float(short.max())))
    return found


def _log_policy(served: Sequence[Selection], engine: Engine, facts: ToyFacts) -> torch.Tensor:
    """Returns log-probs [weights, prompts, replies] of all replies, each policy reading what is written for it."""
    prompts = facts.split.held_out
    replies = [(p, r) for p in prompts for r in toy.enumerate_responses(p)]
    known: dict[Any, FloatArray] = {}
    rows = []
    for one in served:
        key = (one.policy, one.shares, one.text)
        if key not in known:
            told = [p if one.text is None else one.text(p) for p, _ in replies]
            known[key] = engine.log_probs(engine.encode(told, [r for _, r in replies]), one.adapter)[0]
        rows.append(known[key].reshape(len(prompts), -1))
    return torch.from_numpy(np.stack(rows))


def at_equal_kl(exact: PolicyValues, weights: FloatArray, rewards: torch.Tensor, log_base: torch.Tensor) -> float:
    """Returns the gain in w . R over that of the optimum with the same KL, mean over the weights.

    Args:
        exact: of the policies that serve them, one row each.
        weights: [weights, objectives].
        rewards: of all candidates [prompts, candidates, objectives].
        log_base: log-probs under the base [prompts, candidates].
    """
    most = oracle(rewards, weights, 1e-3, log_base=log_base).kl  # of nearly always the best reply: the largest gain
    kl = torch.minimum(exact.kl.clamp(min=1e-3), 0.999 * most)
    best = oracle(rewards, weights, kl_target(rewards, weights, kl, log_base=log_base), log_base=log_base)
    reached, possible = (
        (weights * (own - best.reference_rewards).numpy()).sum(axis=1) for own in (exact.rewards, best.rewards)
    )
    return float((reached / possible).mean())


def group_shares(rewards: FloatArray, kl: FloatArray, reference: FloatArray, best: Optimum) -> tuple[float, float]:
    """Returns what the worst group and the others gain over the base, over what the maximin optimum gives them.

    Of the policy with the largest min_g R_g - beta KL: the share of the optimum's gain in it, and the mean reward gain
    of the groups but the worst, over theirs at the optimum. A majority pays no more than the optimum takes from it if
    the second is 1 or more.

    Args:
        rewards, kl: of the policies [policies, groups] and [policies].
        reference: rewards of the base [groups].
        best: the maximin optimum.
    """
    values = rewards.min(axis=1) - best.beta * kl
    chosen = rewards[int(values.argmax())]
    start, others = float(reference.min()), np.arange(len(chosen)) != chosen.argmin()
    possible = (best.rewards.numpy() - reference)[others].mean()
    return (float(values.max()) - start) / (best.value - start), float((chosen - reference)[others].mean() / possible)


def _saddle_gap(weights: FloatArray, rewards: FloatArray, kl: FloatArray, facts: ToyFacts) -> float:
    """Returns how much more than the best of these policies any policy could have against the best of these weights."""
    bound = float(facts.oracle(weights, BETA).value.min())
    return bound - float((rewards.min(axis=1) - BETA * kl).max())


def optimum_curve(facts: ToyFacts) -> list[tuple[float, float]]:
    """Returns (KL, gain in w . R) of the exact optimum at a range of beta, mean over `WEIGHTS`, ordered by KL."""
    curve = []
    for beta in np.geomspace(20, 0.08, 25):
        best = facts.oracle(WEIGHTS, float(beta))
        gains = (WEIGHTS * (best.rewards - best.reference_rewards).numpy()).sum(axis=1)
        curve.append((float(best.kl.mean()), float(gains.mean())))
    return curve
