"""All methods on the embedded problem, with the same budget, judged against the exact optimum.

A budget is a number of policy steps: a policy step trains one policy on up to 32 responses. Methods with one policy per
weight vector spend it on ten policies, others on fewer for longer; what is spent is counted in response tokens.
Every reply to the held-out prompts is known, so all numbers but seconds are exact for the trained policies.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from moalign.arrays import FloatArray
from moalign.comparison.contest import Costs, contest
from moalign.comparison.outcomes import Outcome, load_outcomes, save_outcome
from moalign.data import load_prompts, toy
from moalign.demo import BETA, ToyFacts, reference_corner, toy_facts, toy_study
from moalign.errors import DefinitionError
from moalign.front import bootstrap_over_prompts, expected_utility, hypervolume
from moalign.methods import CMORL, DPA, MODPO, MORLHF, GroupDPO, MaxMin, PolicySet, RiC, Soups
from moalign.methods.base import Method
from moalign.methods.serving import Selection
from moalign.oracle import Optimum, PolicyValues, constrained, gain_share, kl_target, maximin, oracle, policy_values
from moalign.policy.adapters import LoRA
from moalign.policy.engine import Engine
from moalign.policy.generate import Sampling
from moalign.policy.on_policy import Rollouts
from moalign.policy.train import StepRecord, Training
from moalign.store import describe, fingerprint
from moalign.weights import grid

WEIGHTS = grid(3, 3)  # what every method is asked for
FINE = grid(3, 20)  # of the expected utility
STEPS = 200  # of each of the ten policies; the budget is ten times that
RESAMPLES = 500
TOKENS = 48  # of the longest reply


def contenders(steps: int = STEPS) -> dict[str, Method]:
    """Returns every method with settings that spend about 10 * steps policy steps, or less."""

    def training(share: float, batch_size: int) -> Training:
        return Training(steps=max(1, round(share * steps)), batch_size=batch_size, learning_rate=4e-3,
                        lora=LoRA(rank=8, alpha=16.0))  # fmt: skip

    rollouts = Rollouts(sampling=Sampling(samples=4, max_new_tokens=TOKENS))

    def on_policy(share: float) -> dict[str, Any]:
        return {"rollouts": rollouts, "training": training(share, 8)}

    many = Sampling(samples=256, max_new_tokens=TOKENS)  # the more replies, the less one policy learns by heart
    return {
        "MODPO": MODPO(beta=BETA, training=training(1, 16)),
        "MORLHF": MORLHF(beta=BETA, **on_policy(1)),
        "Soups": Soups(experts=MORLHF(beta=BETA, **on_policy(2))),
        "C-MORL": CMORL(
            initial=MORLHF(beta=BETA, **on_policy(1)),
            lattice=1,
            centre=True,
            keep=0.35,
            constant_ratio=True,
            measured=(64, 256),
            **on_policy(0.9),
        ),
        "DPA": DPA(
            iterations=1,
            sampling=many,
            best_of=32,
            first_directions=256,
            prefix="",
            words=toy.ITEMS[:7],
            training=training(7.5, 32),
        ),
        "RiC": RiC(
            iterations=3,
            sampling=replace(many, samples=96),
            quantile=0.9,
            words=toy.ITEMS[:5],
            training=training(2.5, 32),
            online=training(2.25, 32),
        ),
        "MaxMin": MaxMin(  # of 128 responses a step: the worst group's utility is the mean of noisy rewards
            beta=BETA,
            rollouts=Rollouts(sampling=Sampling(samples=8, max_new_tokens=TOKENS)),
            training=training(2.5, 16),
        ),
        "GroupDPO": GroupDPO(beta=0.25, rate=0.5, training=training(5, 32)),  # votes in conflict average to flat ones
    }


def compare(
    seed: int,
    names: Sequence[str] | None = None,
    steps: int = STEPS,
    save: Path | None = None,
    on_method: Callable[[str, int], None] = lambda name, seed: None,
    on_step: Callable[[str, StepRecord, int], None] = lambda name, record, steps: None,
) -> list[Outcome]:
    """Returns the outcome of each method for one seed of problem and training.

    Args:
        seed: of the split, the model, the pairs and the training.
        names: of `contenders`; all when None.
        steps: of each of ten policies, see `contenders`.
        save: file of outcomes. A method that it has for this seed with these very settings is not trained again; every
            other one is added when it is done.
        on_method, on_step: progress.

    Raises:
        DefinitionError: an unknown method; names the known ones.
        DataError: `save` holds something else than outcomes.
    """
    known = contenders(steps)
    chosen = list(known) if names is None else list(names)
    unknown = [name for name in chosen if name not in known]
    if unknown:
        raise DefinitionError(f"unknown method {unknown[0]!r}; compare knows {', '.join(known)}.")
    saved = [] if save is None else load_outcomes(save)
    done = {(o.method, o.settings): o for o in saved if o.seed == seed}
    study, facts = toy_study(seed), toy_facts(seed)
    problem = replace(study.problem, prompts=load_prompts(list(facts.split.train)))
    found = []
    for name in chosen:
        settings = fingerprint(describe(known[name]))
        if (name, settings) in done:
            found.append(done[name, settings])
            continue
        weights = WEIGHTS if name not in ("MaxMin", "GroupDPO") else np.full((1, 3), 1 / 3)
        [outcome] = contest(
            {name: (known[name], weights)}, problem, seed, partial(judge, facts), on_method=on_method, on_step=on_step
        )
        found.append(replace(outcome, settings=settings))
        if save is not None:
            save_outcome(save, found[-1])
    return found


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
        at_equal_kl=_at_equal_kl(exact, gains, facts),
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


def _at_equal_kl(exact: PolicyValues, gains: FloatArray, facts: ToyFacts) -> float:
    table, base = torch.from_numpy(facts.rewards), torch.from_numpy(facts.log_base)
    most = oracle(table, WEIGHTS, 1e-3, log_base=base).kl  # of nearly always the best reply, whose gain is the largest
    kl = torch.minimum(exact.kl.clamp(min=1e-3), 0.999 * most)
    betas = kl_target(table, WEIGHTS, kl, log_base=base)
    best = oracle(table, WEIGHTS, betas, log_base=base)
    possible = (WEIGHTS * (best.rewards - best.reference_rewards).numpy()).sum(axis=1)
    return float((gains / possible).mean())


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
