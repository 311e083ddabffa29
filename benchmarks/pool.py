"""Many policies of the embedded problem, trained once as one stack and judged exactly, for searches to choose among.

Training a policy at a weight vector of the pool is then a look-up, so that searches can be compared over many runs. The
pool is the lattice of 91 weight vectors. Searches that choose from a list choose from it; what the others propose
counts as its nearest neighbour in the pool.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

STEPS = 12  # of the lattice: 91 weight vectors
TRAINING_STEPS = 200
SAMPLES = 64  # of the base policy per training prompt behind a prediction
ERROR = 0.06  # standard error of a policy's mean reward in the demo's evaluation, 16 samples per held-out prompt


@final
@dataclass(frozen=True, eq=False)
class Pool:
    """Exact values of trained policies and of the optimum, on all replies to the held-out prompts.

    Attributes:
        weights: [policies, objectives].
        values, kl: of the trained policies [policies, objectives], [policies].
        errors: standard errors that the demo's evaluation (16 samples per held-out prompt) has [objectives].
        facts: what is known of the embedded problem.
        corners: named reference points [objectives].
    """

    weights: Any
    values: Any
    kl: Any
    errors: Any
    facts: Any
    corners: dict[str, Any]

    def measured(self, rows: Any, rng: Any) -> Any:
        """Returns the values of some policies with the noise of an evaluation [rows, objectives]."""
        return self.values[rows] + self.errors * rng.standard_normal((len(rows), self.values.shape[1]))

    def nearest(self, weights: Any) -> list[int]:
        """Returns the position of the nearest policy for each weight vector."""
        import numpy as np

        return np.abs(self.weights[None] - np.asarray(weights)[:, None]).sum(axis=2).argmin(axis=1).tolist()

    def sampled_oracle(self, seed: int) -> Any:
        """Returns the oracle's prediction as a study has it: from 64 samples of the base for each training prompt."""
        import numpy as np
        import torch

        from moalign.data import toy
        from moalign.demo import BETA
        from moalign.oracle import oracle

        rng, facts = np.random.default_rng([seed, 5]), self.facts
        rewards = (toy.reward_table(facts.split.train) - facts.mean) / facts.scale
        base = np.exp(facts.train_log_base - facts.train_log_base.max(axis=1, keepdims=True))
        chosen = np.stack([rng.choice(len(p), size=SAMPLES, p=p / p.sum()) for p in base])
        table = torch.from_numpy(np.take_along_axis(rewards, chosen[:, :, None], axis=1))
        return lambda weights: oracle(table, weights, BETA, corrected=True, per_prompt=False).rewards.numpy()


def trained_pool(seed: int) -> Pool:
    """Returns the pool of trained policies; about three minutes on one core the first time, then from the cache."""
    import numpy as np

    from moalign.demo import toy_facts
    from moalign.weights import grid

    weights = grid(3, STEPS)
    file = _folder() / f"pool-{seed}-{_version(seed)}.npz"
    if file.is_file():
        stored = np.load(file)
        values, kl = stored["values"], stored["kl"]
    else:
        print(f"training {len(weights)} policies of seed {seed} as one stack, once", file=sys.stderr, flush=True)
        values, kl = _train(seed, weights)
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez(file, values=values, kl=kl)
    return _pool(toy_facts(seed), weights, values, kl)


def exact_pool(seed: int) -> Pool:
    """Returns the pool as perfect training would make it: the optima themselves; nothing is trained."""
    from moalign.demo import BETA, toy_facts
    from moalign.weights import grid

    facts, weights = toy_facts(seed), grid(3, STEPS)
    best = facts.oracle(weights, BETA)
    return _pool(facts, weights, best.rewards.numpy(), best.kl.numpy())


def _pool(facts: Any, weights: Any, values: Any, kl: Any) -> Pool:
    import numpy as np

    from moalign.demo import BETA, reference_corner
    from moalign.weights import grid

    base = np.exp(facts.log_base - facts.log_base.max(axis=1, keepdims=True))
    base = base / base.sum(axis=1, keepdims=True)
    mean = np.einsum("pn,pnm->pm", base, facts.rewards)
    spread = np.sqrt(np.einsum("pn,pnm->m", base, (facts.rewards - mean.mean(axis=0)) ** 2) / len(mean))
    corners = {
        "default reference point": mean.mean(axis=0) - 0.5 * spread,  # as Evaluation(reference_point="auto")
        "demo's wide reference point": reference_corner(facts.oracle(grid(3, 3), BETA)),
    }
    return Pool(weights, values, kl, np.full(3, ERROR), facts, corners)


def _train(seed: int, weights: Any) -> tuple[Any, Any]:
    import torch

    from moalign.data import toy
    from moalign.demo import toy_facts, toy_study
    from moalign.oracle import policy_values
    from moalign.policy.engine import Engine

    study, facts = toy_study(seed, steps=TRAINING_STEPS), toy_facts(seed)
    engine = Engine(study.problem.policy, seed=seed)
    stack = study.method.fit(study.problem, weights, engine).stack
    texts = [(p, r) for p in facts.split.held_out for r in toy.enumerate_responses(p)]
    responses = engine.encode([p for p, _ in texts], [r for _, r in texts])
    logs = engine.log_probs(responses, stack).reshape(len(stack), len(facts.split.held_out), -1)
    exact = policy_values(
        torch.from_numpy(logs), torch.from_numpy(facts.rewards), log_base=torch.from_numpy(facts.log_base)
    )
    return exact.rewards.numpy(), exact.kl.numpy()


def _folder() -> Path:
    from moalign.store.cache import cache_root

    return cache_root(None) / "benchmarks"


def _version(seed: int) -> str:
    """Returns a short fingerprint of the study whose policies a pool holds."""
    from moalign.demo import toy_study
    from moalign.store import fingerprint

    return fingerprint([toy_study(seed, steps=TRAINING_STEPS).describe(), STEPS])[:10]
