"""MORLHF reaches the Gibbs optimum of every weight on a problem whose every response is known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

import moalign as ma
from moalign.methods import MORLHF
from moalign.policy.batches import Responses
from moalign.policy.engine import Engine
from moalign.policy.on_policy import Rollouts
from tests.models import tiny_model, tiny_tokenizer


def early(prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
    return [1.0 if r and r in "adgj" else 0.0 for r in responses]


def cyclic(prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
    return [ord(r) % 4 / 3 if r else 0.0 for r in responses]


@pytest.mark.slow
@pytest.mark.parametrize(("reuse", "steps"), [(1, 140), (2, 110)])
def test_every_policy_reaches_the_gibbs_optimum(reuse: int, steps: int) -> None:
    """Responses of one token of a vocabulary of 16: softmax(log reference + w . r / beta) is known for every weight.

    The share of the oracle's gain in J = w . r - beta KL must exceed 0.97, each probability agree within 0.012.
    """
    policy = ma.Policy(tiny_model(vocabulary=16), tiny_tokenizer(16))
    problem = ma.Problem(
        policy=policy, objectives=(ma.Objective("early", early), ma.Objective("cyclic", cyclic)), prompts=["cab"]
    )
    beta, weights = 0.5, ma.grid(2, steps=2)
    method = MORLHF(
        beta=beta,
        rollouts=Rollouts(sampling=ma.Sampling(samples=64, max_new_tokens=1), reuse=reuse),
        training=ma.Training(steps=steps, batch_size=1, learning_rate=1e-2, warmup=0.05),
    )
    engine = Engine(policy, seed=0, device="cpu")
    policies = method.fit(problem, weights, engine)
    prompt = engine.encode_prompt("cab")
    all_tokens = Responses(
        prompts=(prompt,), prompt_of=np.zeros(16, dtype=np.int64), completions=tuple((i,) for i in range(16))
    )
    reference = engine.log_probs(all_tokens)[0]
    texts = [engine.language_model.decode_response(prompt, (i,)) for i in range(16)]
    rewards = np.stack([early([], texts), cyclic([], texts)], axis=1)
    for w, log_policy in zip(weights, engine.log_probs(all_tokens, policies.stack), strict=True):
        best = reference + rewards @ w / beta
        best -= np.logaddexp.reduce(best)
        assert np.exp(log_policy) == pytest.approx(np.exp(best), abs=0.012)
        value, top, bottom = (
            float((np.exp(p) * (rewards @ w - beta * (p - reference))).sum()) for p in (log_policy, best, reference)
        )
        assert (value - bottom) / (top - bottom) > 0.97


def test_refusals() -> None:
    pairs = ma.PreferencePairs(prompts=("p", "q"), chosen=("a", "b"), rejected=("b", "a"), labels=np.ones(2))
    problem = ma.Problem(
        policy=ma.Policy(tiny_model(), tiny_tokenizer()), objectives=(ma.Objective("early", early, pairs=pairs),)
    )
    assert "give the problem prompts" in MORLHF().problems(problem, np.ones((1, 1)))[0]
    with pytest.raises(ma.DefinitionError, match="beta must be > 0, got -1"):
        MORLHF(beta=-1)
