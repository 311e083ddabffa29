"""What trained policies reach on some prompts, measured on fresh samples of their own while a method is at work."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from moalign.arrays import FloatArray
from moalign.front.intervals import clustered_mean
from moalign.policy.adapters import AdapterStack
from moalign.policy.engine import Engine
from moalign.policy.generate import Sampling
from moalign.scoring import Scorer


@final
@dataclass(frozen=True, eq=False)
class Measured:
    """Expected rewards and KL of policies.

    Attributes:
        rewards: [policies, objectives].
        standard_errors: of the rewards, clustered by prompt.
        kl: to the base, nats per response [policies].
    """

    rewards: FloatArray
    standard_errors: FloatArray
    kl: FloatArray


def measure(
    name: str, prompts: Sequence[Any], sampling: Sampling, stack: AdapterStack | None, scorer: Scorer, engine: Engine
) -> Measured:
    """Returns what each policy of a stack (the base without one) reaches on the prompts; drawn once and remembered.

    Args:
        name: what the caller calls these policies.
        prompts: one or more; standard errors are NaN for a single one.
        sampling: responses per prompt; all policies share the random numbers.
        stack, scorer, engine: as elsewhere.
    """
    base = hashlib.sha256(repr((list(map(str, prompts)), sampling)).encode()).hexdigest()[:16]
    content = (
        base
        if stack is None
        else hashlib.sha256(stack.matrix.detach().cpu().contiguous().numpy().tobytes()).hexdigest()[:16]
    )
    found = engine.remember(f"measured-{name}-{content}", lambda: _measure(prompts, sampling, stack, scorer, engine))
    return Measured(found["rewards"], found["standard_errors"], found["kl"])


def _measure(
    prompts: Sequence[Any], sampling: Sampling, stack: AdapterStack | None, scorer: Scorer, engine: Engine
) -> dict[str, np.ndarray]:
    seed = int(np.random.default_rng([engine.seed, 3]).integers(1 << 31))  # not the numbers that training drew
    rewards, errors, kl = [], [], []
    for policy, drawn in enumerate(engine.generate(prompts, sampling, stack, seed)):
        own = scorer([prompts[g.prompt] for g in drawn], [g.text for g in drawn])
        mean = clustered_mean(own.reshape(len(prompts), sampling.samples, -1))
        rewards.append(mean.mean)
        errors.append(mean.standard_error)
        one = None if stack is None else stack.select([policy])
        divergence, _, _ = engine.kl(engine.sampled(prompts, drawn, sampling), one)
        kl.append(divergence.mean())
    return {"rewards": np.stack(rewards), "standard_errors": np.stack(errors), "kl": np.array(kl)}
