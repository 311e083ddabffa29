"""A problem whose every response is known: one prompt, one token, a vocabulary of 16; two rewards in conflict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

import moalign as ma
from moalign.policy.batches import Responses
from moalign.policy.engine import Engine
from moalign.policy.on_policy import Rollouts
from tests.models import tiny_model, tiny_tokenizer

PROMPT = "da"
BETA = 0.5


def many(prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
    """What the larger group likes: what the base says anyway."""
    return [{"a": 1.5, "c": -0.2, "g": 0.8, "k": 0.9}.get(r, 0.0) for r in responses]


def few(prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
    """What the smaller group likes, which the larger one does not."""
    return [{"a": -0.8, "c": 1.4, "g": 0.5, "k": -0.6, "l": 1.2}.get(r, 0.0) for r in responses]


def problem() -> ma.Problem:
    return ma.Problem(
        policy=ma.Policy(tiny_model(vocabulary=16), tiny_tokenizer(16)),
        objectives=(ma.Objective("many", many), ma.Objective("few", few)),
        prompts=[PROMPT],
    )


def short_training(steps: int, learning_rate: float = 1e-2) -> dict[str, Any]:
    """On-policy settings: 64 samples of one token."""
    return {
        "rollouts": Rollouts(sampling=ma.Sampling(samples=64, max_new_tokens=1)),
        "training": ma.Training(steps=steps, batch_size=1, learning_rate=learning_rate, warmup=0.05),
    }


@dataclass(frozen=True)
class Known:
    """All responses, what the base thinks of them [1, 16] and their rewards [1, 16, 2]."""

    responses: Responses
    log_base: Tensor
    rewards: Tensor


def all_answers(engine: Engine) -> Known:
    prompt = engine.encode_prompt(PROMPT)
    responses = Responses(
        prompts=(prompt,), prompt_of=np.zeros(16, dtype=np.int64), completions=tuple((i,) for i in range(16))
    )
    texts = [engine.language_model.decode_response(prompt, (i,)) for i in range(16)]
    rewards = np.stack([many([], texts), few([], texts)], axis=1)
    return Known(responses, torch.from_numpy(engine.log_probs(responses)), torch.from_numpy(rewards)[None])
