"""Rewards of responses on every objective of a problem, implicit rewards included."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, final

import numpy as np
from torch import Tensor

from moalign.arrays import FloatArray
from moalign.data.pairs import PreferencePairs
from moalign.losses.preference import dpo
from moalign.policy.adapters import AdapterStack, LoRA
from moalign.policy.engine import Engine
from moalign.policy.train import Training
from moalign.policy.workspace import Workspace
from moalign.problem import Objective, Problem
from moalign.rewards import ImplicitReward, score
from moalign.store import describe, fingerprint
from moalign.tokenised import merged_pairs, tokenised_pairs


@final
class Scorer:
    """Scores responses on every objective of a problem; learns implicit rewards first (remembered by the engine)."""

    def __init__(self, problem: Problem, engine: Engine) -> None:
        self.problem = problem
        self.engine = engine
        self._implicit: dict[str, Any] = {}
        for objective in problem.objectives:
            if isinstance(objective.reward, ImplicitReward) and objective.pairs is not None:
                self._implicit[objective.name] = learn_implicit_reward(objective, engine)

    def within(self, workspace: Workspace) -> Scorer:
        """Returns the same scorer, model and learned rewards included, that keeps its work elsewhere."""
        other = copy.copy(self)
        other.engine = self.engine.within(workspace)
        return other

    def __call__(self, prompts: Sequence[Any], responses: Sequence[str]) -> FloatArray:
        """Returns rewards [responses, objectives]; prompt i belongs to response i.

        Raises:
            RewardError: a reward failed or did not return one finite number per response; names the objective.
        """
        return np.stack([self._one(objective, prompts, responses) for objective in self.problem.objectives], axis=1)

    def _one(self, objective: Objective, prompts: Sequence[Any], responses: Sequence[str]) -> FloatArray:
        adapter = self._implicit.get(objective.name)
        if adapter is None:
            return score(objective.reward, prompts, responses, name=objective.name)
        encoded = self.engine.encode(prompts, responses)
        ratio = self.engine.log_probs(encoded, adapter)[0] - self.engine.reference_log_probs(encoded)
        return np.asarray(objective.reward.beta * ratio)

    def log_odds(self, name: str, pairs: PreferencePairs) -> FloatArray:
        """Returns what an objective's reward predicts of pairs, computed once per content and kept by the engine.

        That is `label_scale` times the reward of chosen minus that of rejected: log-odds that chosen is preferred
        [pairs].

        Raises:
            RewardError: as for a call.
        """
        [objective] = [o for o in self.problem.objectives if o.name == name]

        def compute() -> dict[str, FloatArray]:
            rewards = self._one(objective, pairs.prompts * 2, pairs.chosen + pairs.rejected)
            chosen, rejected = rewards.reshape(2, len(pairs))
            return {"log_odds": objective.label_scale * (chosen - rejected)}

        key = fingerprint(describe({"objective": objective, "pairs": pairs}))
        return self.engine.remember(f"log-odds-{key[:16]}", compute)["log_odds"]

    def remembered(self, prompts: Sequence[Any], responses: Sequence[str]) -> FloatArray:
        """Returns the same as a call, computed once per content and kept by the engine."""
        digest = hashlib.sha256(fingerprint(describe(self.problem.objectives)).encode())
        for prompt, response in zip(prompts, responses, strict=True):
            digest.update(f"{prompt}\0{response}\0".encode())
        key = f"rewards-{digest.hexdigest()[:16]}"
        return self.engine.remember(key, lambda: {"rewards": self(prompts, responses)})["rewards"]


def learn_implicit_reward(objective: Objective, engine: Engine) -> AdapterStack:
    """Returns the DPO-trained adapter (a stack of one) whose log-ratio to the base is the objective's reward / beta."""
    reward = objective.reward
    assert objective.pairs is not None  # checked by Objective
    prompts, first, second, labels = merged_pairs({0: objective.pairs}, 1)
    data = tokenised_pairs(engine, prompts, first, second, labels)
    training = Training(
        steps=reward.steps,
        batch_size=reward.batch_size,
        learning_rate=reward.learning_rate,
        lora=LoRA(rank=reward.rank, alpha=2.0 * reward.rank),
    )
    facts = {"reward": describe(reward), "training": describe(training)}
    beta = {"beta": np.array([reward.beta])}
    return engine.train(f"implicit-{objective.name}", data, _dpo_loss, beta, training, facts)


def _dpo_loss(first: Tensor, second: Tensor, batch: Mapping[str, Tensor], policy: Mapping[str, Tensor]) -> Tensor:
    return dpo(
        policy_chosen=first,
        policy_rejected=second,
        reference_chosen=batch["reference_first"],
        reference_rejected=batch["reference_second"],
        beta=policy["beta"],
        labels=batch["labels"][:, 0],
    )
