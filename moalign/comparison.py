"""All methods on the embedded problem, with the same budget, judged against the exact optimum.

A budget is a number of policy steps: a policy step trains one policy on up to 32 responses. Methods with one policy per
weight vector spend it on ten policies, others on fewer for longer; what is spent is counted in response tokens.
Every reply to the held-out prompts is known, so all numbers but seconds are exact for the trained policies.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, final

import numpy as np
import torch

from moalign.arrays import FloatArray
from moalign.data import load_prompts, toy
from moalign.demo import BETA, ToyFacts, reference_corner, toy_facts, toy_study
from moalign.errors import DefinitionError
from moalign.front import Interval, bootstrap_over_prompts, expected_utility, hypervolume, iqm, stratified_bootstrap
from moalign.methods import CMORL, DPA, MODPO, MORLHF, GroupDPO, MaxMin, PolicySet, RiC, Soups
from moalign.methods.base import Method
from moalign.methods.serving import Selection
from moalign.oracle import PolicyValues, gain_share, kl_target, maximin, oracle, policy_values
from moalign.policy.adapters import LoRA
from moalign.policy.engine import Engine
from moalign.policy.generate import Sampling
from moalign.policy.on_policy import Rollouts
from moalign.policy.train import StepRecord, Training
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

    many = Sampling(samples=32, max_new_tokens=TOKENS)
    return {
        "MODPO": MODPO(beta=BETA, training=training(1, 16)),
        "MORLHF": MORLHF(beta=BETA, **on_policy(1)),
        "Soups": Soups(experts=MORLHF(beta=BETA, **on_policy(2))),
        "C-MORL": CMORL(
            initial=MORLHF(beta=BETA, **on_policy(0.8)),
            lattice=2,
            constant_ratio=True,
            measured=(64, 256),
            **on_policy(0.5),
        ),
        "DPA": DPA(sampling=many, best_of=8, units=9, training=training(3, 32)),
        "RiC": RiC(sampling=many, training=training(6, 32)),
        "MaxMin": MaxMin(beta=BETA, **on_policy(2)),
        "GroupDPO": GroupDPO(beta=BETA, training=training(2, 32)),
    }


@final
@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One method with one seed.

    Attributes:
        shares: of the oracle's gain in w . R - beta KL, for every weight vector.
        hypervolume: of the exact values, over the oracle's; its interval is over held-out prompts.
        at_equal_kl: mean over weights of the gain in w . R over that of the optimum with the same KL.
        expected_utility: mean over a fine lattice of the best w . R, minus the base's, over the oracle's at the same
            beta; more KL gives more of it.
        worst_group: min_g R_g - beta KL of the policy that has most of it, as share of the maximin optimum's gain.
        policies: stored.
        trained, generated: response tokens.
        seconds: CPU time of the training.
        points: (KL, mean gain in w . R) of what serves each weight vector.
    """

    method: str
    seed: int
    shares: tuple[float, ...]
    hypervolume: tuple[float, float, float]
    at_equal_kl: float
    expected_utility: float
    worst_group: float
    policies: int
    trained: int
    generated: int
    seconds: float
    points: tuple[tuple[float, float], ...]

    @property
    def share(self) -> float:
        return float(np.mean(self.shares))


def compare(
    seed: int,
    names: Sequence[str] | None = None,
    steps: int = STEPS,
    on_method: Callable[[str, int], None] = lambda name, seed: None,
    on_step: Callable[[str, StepRecord, int], None] = lambda name, record, steps: None,
) -> list[Outcome]:
    """Returns the outcome of each method for one seed of problem and training.

    Args:
        seed: of the split, the model, the pairs and the training.
        names: of `contenders`; all when None.
        steps: of each of ten policies, see `contenders`.
        on_method, on_step: progress.

    Raises:
        DefinitionError: an unknown method; names the known ones.
    """
    known = contenders(steps)
    chosen = list(known) if names is None else list(names)
    unknown = [name for name in chosen if name not in known]
    if unknown:
        raise DefinitionError(f"unknown method {unknown[0]!r}; compare knows {', '.join(known)}.")
    study, facts = toy_study(seed), toy_facts(seed)
    problem = replace(study.problem, prompts=load_prompts(list(facts.split.train)))
    found = []
    for name in chosen:
        on_method(name, seed)
        spent = {"trained": 0, "generated": 0}

        def count(
            training: str, record: StepRecord, total: int, name: str = name, spent: dict[str, int] = spent
        ) -> None:
            spent["trained"] += record.trained
            spent["generated"] += record.generated
            on_step(name, record, total)

        engine = Engine(problem.policy, seed=seed, device="cpu", on_step=count)
        weights = WEIGHTS if name not in ("MaxMin", "GroupDPO") else np.full((1, 3), 1 / 3)
        started = time.process_time()
        policies = known[name].fit(problem, weights, engine)
        seconds = time.process_time() - started
        spent["generated"] += engine.generated
        found.append(judge(name, seed, policies, engine, facts, spent, seconds))
    return found


def judge(
    name: str, seed: int, policies: PolicySet, engine: Engine, facts: ToyFacts, spent: Mapping[str, int], seconds: float
) -> Outcome:
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
    possible = float((FINE * facts.oracle(FINE, BETA).rewards.numpy()).sum(axis=1).mean()) - start
    return Outcome(
        method=name,
        seed=seed,
        shares=tuple(gain_share(best, rewards=exact.rewards, kl=exact.kl).tolist()),
        hypervolume=(volume.value, volume.low, volume.high),
        at_equal_kl=_at_equal_kl(exact, gains, facts),
        expected_utility=(expected_utility(rewards, FINE) - start) / possible,
        worst_group=_worst_group(rewards, kl, reference, facts),
        policies=len(policies),
        trained=spent["trained"],
        generated=spent["generated"],
        seconds=seconds,
        points=tuple(zip(kl.tolist(), gains.tolist(), strict=True)),
    )


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
    kl = exact.kl.clamp(min=1e-3)
    betas = kl_target(table, WEIGHTS, kl, log_base=base)
    best = oracle(table, WEIGHTS, betas, log_base=base)
    possible = (WEIGHTS * (best.rewards - best.reference_rewards).numpy()).sum(axis=1)
    return float((gains / possible).mean())


def _worst_group(rewards: FloatArray, kl: FloatArray, reference: FloatArray, facts: ToyFacts) -> float:
    best = maximin(torch.from_numpy(facts.rewards), BETA, log_base=torch.from_numpy(facts.log_base)).value
    reached = float((rewards.min(axis=1) - BETA * kl).max())
    return (reached - reference.min()) / (best - reference.min())


SCORES = ("share", "hypervolume", "at_equal_kl", "expected_utility", "worst_group")
COSTS = ("policies", "trained", "generated", "seconds")


def summary(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Returns one row per method: interquartile means with stratified bootstrap intervals over seeds, mean costs.

    Scores are resampled seed by seed within each weight vector (the share), or seed by seed (the others).
    """
    rows = []
    for name in dict.fromkeys(o.method for o in outcomes):
        own = [o for o in outcomes if o.method == name]
        row: dict[str, Any] = {"method": name, "seeds": len(own)}
        for score in SCORES:
            row[score] = _score(own, score)
        row["lowest_share"] = min(min(o.shares) for o in own)
        row.update({cost: float(np.mean([getattr(o, cost) for o in own])) for cost in COSTS})
        rows.append(row)
    return rows


def _score(outcomes: Sequence[Outcome], score: str) -> dict[str, float]:
    if score == "hypervolume" and len(outcomes) == 1:  # one seed: the interval over prompts
        found = Interval(*outcomes[0].hypervolume)
    else:
        columns: list[tuple[float, ...]] = []
        for o in outcomes:
            values = {"share": o.shares, "hypervolume": o.hypervolume[:1]}
            columns.append(values[score] if score in values else (float(getattr(o, score)),))
        found = stratified_bootstrap(np.array(columns), iqm, replications=4 * RESAMPLES)
    return {k: float(v) for k, v in asdict(found).items() if k in ("value", "low", "high")}


def optimum_curve(facts: ToyFacts) -> list[tuple[float, float]]:
    """Returns (KL, gain in w . R) of the exact optimum at a range of beta, mean over `WEIGHTS`, ordered by KL."""
    curve = []
    for beta in np.geomspace(20, 0.08, 25):
        best = facts.oracle(WEIGHTS, float(beta))
        gains = (WEIGHTS * (best.rewards - best.reference_rewards).numpy()).sum(axis=1)
        curve.append((float(best.kl.mean()), float(gains.mean())))
    return curve
