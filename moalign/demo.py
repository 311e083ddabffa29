"""The embedded study: customer-support replies by a tiny language model, judged against the exact optimum.

Every reply the model can give is known, so each policy is compared with the best policy at the same beta: its share of
the oracle's gain, (J(policy) - J(reference)) / (V - J(reference)) with J = w . rewards - beta KL.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch

from moalign.arrays import FloatArray
from moalign.data import PreferencePairs, load_prompts, toy
from moalign.evaluation import Evaluation
from moalign.front import Front, hypervolume
from moalign.methods import MODPO
from moalign.oracle import OracleResult, gain_share, oracle, policy_values, regret
from moalign.policy.adapters import AdapterStack, LoRA
from moalign.policy.engine import Engine
from moalign.policy.model import Policy
from moalign.policy.train import Training
from moalign.problem import Objective, Problem
from moalign.rewards import Standardize
from moalign.study import Study
from moalign.weights import grid

BETA = 0.4  # reward units (standard deviations under the base model) per nat
LABEL_SCALE = 2.0  # log-odds of a vote per reward unit
PAIRS = 3200
HELD_OUT_PAIRS = 640  # on held-out prompts, to judge the rewards by
VOTES = 5
CORNER = 0.1  # the reference point lies this share of the oracle front's range below its worst values


def toy_policy(seed: int = 0, on_step: Any = None) -> Policy:
    """Returns the tiny language model of the embedded problem; trained on first use (half a minute), cached."""
    return Policy(toy.toy_model_folder(seed, on_step=on_step))


@final
@dataclass(frozen=True, eq=False)
class ToyFacts:
    """What is known exactly about the embedded problem under the tiny model.

    Attributes:
        split: training and held-out prompts.
        log_base: log-probs of all replies to the held-out prompts [prompts, replies], in nats, not normalised.
        rewards: standardised rewards of these replies [prompts, replies, objectives].
        mean, scale: moments of the raw rewards on the training prompts.
        train_log_base: the same log-probs for the training prompts.
    """

    split: toy.Split
    log_base: FloatArray
    rewards: FloatArray
    mean: FloatArray
    scale: FloatArray
    train_log_base: FloatArray

    def oracle(self, weights: FloatArray, beta: float) -> OracleResult:
        """Returns the exact optima on the held-out prompts for every weight vector."""
        return oracle(torch.from_numpy(self.rewards), weights, beta, log_base=torch.from_numpy(self.log_base))


def toy_facts(seed: int = 0) -> ToyFacts:
    """Returns the exact facts of the embedded problem (computed once per machine, with the model)."""
    split = toy.split(seed)
    train = toy.base_log_probs(seed, split.train)
    held_out = toy.base_log_probs(seed, split.held_out)
    moments = toy.moments(split.train, train)
    rewards = (toy.reward_table(split.held_out) - moments.mean) / moments.scale
    return ToyFacts(split, held_out, rewards, moments.mean, moments.scale, train)


def toy_study(
    seed: int = 0,
    *,
    name: str = "demo",
    steps: int = 200,
    weight_steps: int = 3,
    pairs: int = PAIRS,
    samples: int = 16,
    on_step: Any = None,
) -> Study:
    """Returns MODPO on the embedded problem over a lattice of preference weights.

    Args:
        seed: of the split, the model, the pairs and the training.
        name: of the study.
        steps: optimiser steps.
        weight_steps: lattice steps; 3 gives 10 weight vectors over the 3 objectives.
        pairs: training pairs, each with one label per objective.
        samples: replies per held-out prompt in the evaluation.
        on_step: progress of the tiny model's first training.
    """
    policy = toy_policy(seed, on_step)
    facts = toy_facts(seed)
    drawn = votes(facts.split.train, facts.train_log_base, facts.scale, pairs, seed)
    held_out = votes(facts.split.held_out, facts.log_base, facts.scale, HELD_OUT_PAIRS, seed)
    objectives = [
        Objective(
            objective,
            reward=Standardize(reward, float(facts.mean[i]), float(facts.scale[i])),
            pairs=drawn[i],
            label_scale=LABEL_SCALE,
        )
        for i, (objective, reward) in enumerate(toy.rewards().items())
    ]
    weights = grid(len(objectives), steps=weight_steps)
    corner = reference_corner(facts.oracle(weights, BETA))
    return Study(
        name=name,
        problem=Problem(policy=policy, objectives=tuple(objectives)),
        method=MODPO(
            beta=BETA,
            training=Training(steps=steps, batch_size=16, learning_rate=4e-3, lora=LoRA(rank=8, alpha=16.0)),
        ),
        weights=weights,
        evaluation=Evaluation(
            prompts=load_prompts(list(facts.split.held_out)),
            samples=samples,
            max_new_tokens=48,
            reference_point=dict(zip(toy.rewards(), corner.tolist(), strict=True)),
            pairs=dict(zip(toy.rewards(), held_out, strict=True)),
        ),
        seed=seed,
    )


def votes(
    prompts: Sequence[str], log_base: FloatArray, scale: FloatArray, count: int, seed: int
) -> list[PreferencePairs]:
    """Returns `count` pairs of replies with each objective's share of votes; arguments as `toy.preference_pairs`."""
    drawn = toy.preference_pairs(
        prompts, count, log_base=log_base, scales=scale, votes=VOTES, label_scale=LABEL_SCALE, seed=seed
    )
    return [
        PreferencePairs(prompts=drawn.prompts, chosen=drawn.chosen, rejected=drawn.rejected, labels=labels)
        for labels in drawn.labels.T
    ]


def reference_corner(best: OracleResult) -> FloatArray:
    """Returns the hypervolume's corner: a little below the worst values of the oracle front, fixed before training."""
    values = best.rewards.numpy()
    return np.asarray(values.min(axis=0) - CORNER * np.ptp(values, axis=0))


@final
@dataclass(frozen=True, eq=False)
class Comparison:
    """Trained policies against the exact optimum on all replies to the held-out prompts.

    Attributes:
        share: each policy's share of the oracle's gain in J [policies]; 1 is the optimum, 0 the reference.
        regret: V - J [policies], in reward units.
        gain: J - J of the reference [policies].
        mass: probability that a policy's reply is in the known set [policies].
        rewards, kl: exact values of the policies, renormalised on the known set.
        hypervolume, oracle_hypervolume: of the exact values and of the optimum, over the study's reference point.
    """

    weights: FloatArray
    share: FloatArray
    regret: FloatArray
    gain: FloatArray
    mass: FloatArray
    rewards: FloatArray
    kl: FloatArray
    hypervolume: float
    oracle_hypervolume: float
    best: OracleResult


def _log_policies(engine: Engine, policies: Sequence[Any], prompts: Sequence[str]) -> FloatArray:
    """Returns log-probs [policies, prompts, replies] of all replies; policies that read the same go as one stack."""
    groups: dict[Any, list[int]] = {}
    adapters = [policy.adapter(engine.language_model.model) for policy in policies]
    for number, (policy, adapter) in enumerate(zip(policies, adapters, strict=True)):
        groups.setdefault((adapter.lora, policy.text), []).append(number)
    found: list[Any] = [None] * len(policies)
    for (_, text), members in groups.items():
        asked = [(text(p) if text else p, r) for p in prompts for r in toy.enumerate_responses(p)]
        responses = engine.encode([p for p, _ in asked], [r for _, r in asked])
        stack = AdapterStack.concatenate([adapters[number] for number in members])
        for number, row in zip(members, engine.log_probs(responses, stack), strict=True):
            found[number] = row.reshape(len(prompts), -1)
    return np.stack(found)


def compare_with_oracle(study: Study, front: Front, facts: ToyFacts) -> Comparison:
    """Returns the exact judgement of every finished policy of a toy study."""
    engine = Engine(study.problem.policy, seed=study.seed)
    points = [p for p in front.points if p.policy is not None]
    log_policy = _log_policies(engine, [p.policy for p in points], facts.split.held_out)
    weights = np.array([p.weights for p in points])
    beta = study.method.kl_strength or BETA
    best = facts.oracle(weights, beta)
    exact = policy_values(
        torch.from_numpy(log_policy), torch.from_numpy(facts.rewards), log_base=torch.from_numpy(facts.log_base)
    )
    rewards, kl = exact.rewards.numpy(), exact.kl.numpy()
    j_reference = weights @ best.reference_rewards.numpy()
    j = (weights * rewards).sum(axis=1) - beta * kl
    return Comparison(
        weights=weights,
        share=gain_share(best, rewards=exact.rewards, kl=exact.kl).numpy(),
        regret=regret(best, rewards=exact.rewards, kl=exact.kl).numpy(),
        gain=j - j_reference,
        mass=exact.mass_mean.numpy(),
        rewards=rewards,
        kl=kl,
        hypervolume=hypervolume(rewards, front.reference_point),
        oracle_hypervolume=hypervolume(best.rewards.numpy(), front.reference_point),
        best=best,
    )
