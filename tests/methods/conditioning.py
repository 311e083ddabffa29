"""A problem of one-token responses for conditioned policies: the best letter turns with the wanted direction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

import moalign as ma
from moalign.methods.base import PolicySet
from moalign.policy.batches import Responses
from moalign.policy.engine import Engine
from tests.models import tiny_model, tiny_tokenizer

LETTERS = "abcdefghijklmnopqrstuvwxyz"
PROMPTS = ["pick: ", "pick a: ", "pick b: "]


def angle(letter: str) -> float:
    """Returns the letter's direction, from -45 degrees for a to 45 for z."""
    return float(np.deg2rad(-45 + 90 * LETTERS.index(letter) / 25))


def along(prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
    return [float(np.cos(angle(r))) if r and r in LETTERS else 0.0 for r in responses]


def across(prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
    return [float(np.sin(angle(r))) if r and r in LETTERS else 0.0 for r in responses]


def problem(**pairs: Any) -> ma.Problem:
    return ma.Problem(
        policy=ma.Policy(tiny_model(), tiny_tokenizer()),
        objectives=(ma.Objective("a", along, **pairs), ma.Objective("b", across)),
        prompts=PROMPTS,
    )


def expected_rewards(
    engine: Engine, policies: PolicySet | None, weights: np.ndarray, rewards: Any = (along, across)
) -> np.ndarray:
    """Returns exact expected rewards [weights, objectives] over all responses; of the base without policies."""
    size = engine.language_model.vocabulary
    rows = []
    for w in weights:
        served = None if policies is None else policies.for_weights(w)
        values = []
        for prompt in PROMPTS:
            told = prompt if served is None or served.text is None else served.text(prompt)
            ids = engine.encode_prompt(told)
            every = Responses(
                prompts=(ids,), prompt_of=np.zeros(size, dtype=np.int64), completions=tuple((i,) for i in range(size))
            )
            probs = np.exp(engine.log_probs(every, None if served is None else served.adapter)[0])
            texts = [engine.language_model.decode_response(ids, (i,)) for i in range(size)]
            values.append(probs @ np.stack([reward([], texts) for reward in rewards], axis=1))
        rows.append(np.mean(values, axis=0))
    return np.array(rows)
