"""How near every method comes to the exact optimum.

Usual size: the embedded problem, three seeds, one budget for all methods (`moalign compare`), every policy judged on
all replies to held-out prompts; half an hour on one core. With --quick a smaller problem, whose responses are single
words, by the same measures: there the methods have to come within 5 % of the optimum's value.

A row is a share of what the exact optimum gains, median over seeds with the smallest and the largest; for stored
policies, the number of a lattice's policies over the method's.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, final

from benchmarks.common import Options, Row, parse, run

FLOORS = {  # method: (score, what it is, least)
    "MODPO": ("share", "share of the gain in w . R - beta KL, mean over weights / exact optimum", 0.9),
    "MORLHF": ("share", "share of the gain in w . R - beta KL, mean over weights / exact optimum", 0.9),
    "C-MORL": ("constrained", "share of the gain under each extension's bounds / exact constrained optimum", 0.9),
    "DPA": ("at_equal_kl", "gain in w . R, mean over weights / exact optimum of equal KL", 0.8),
    "RiC": ("at_equal_kl", "gain in w . R, mean over weights / exact optimum of equal KL", 0.8),
    "MaxMin": ("worst_group", "gain of the worst group / exact maximin optimum", 0.8),
}
LATTICE = 10  # policies of MODPO and MORLHF
WITHIN = 0.95  # of the optimum's gain, on the small problem
BETA = 0.5
WORDS, PROMPTS = 12, 2  # of the small problem: all responses are one word
SCALE = 8  # of the random weights, so that a prompt changes what is said; more makes words rare
SILENCE = -3.0  # reward of a response that is not a word


def embedded_rows(seeds: Sequence[int]) -> list[Row]:
    """Returns the rows of the embedded problem at the full budget."""
    from moalign.comparison import compare

    found = []
    for seed in seeds:
        for outcome in compare(seed, list(FLOORS), on_method=lambda name, seed: print(name, seed, file=sys.stderr)):
            found.append(outcome)
    rows = []
    for method, (score, peer, floor) in FLOORS.items():
        rows.append(_row(method, peer, [getattr(o, score) for o in found if o.method == method], floor))
    for method in ("C-MORL", "DPA", "RiC"):
        stored = [LATTICE / o.policies for o in found if o.method == method]
        rows.append(_row(f"{method}, policies stored", f"lattice of {LATTICE}", stored, 1.0))
    return rows


@final
@dataclass(frozen=True)
class Table:
    """The reward of every word after every prompt; of silence, the lowest."""

    entries: tuple[tuple[str, str, float], ...]

    def __call__(self, prompts: Sequence[Any], responses: Sequence[str]) -> list[float]:
        known = {(p, w): value for p, w, value in self.entries}
        return [known.get((str(p), r.strip()), SILENCE) for p, r in zip(prompts, responses, strict=True)]


@final
@dataclass(frozen=True)
class Small:
    """A random model with a reward for every word after every prompt, where a response is one word.

    Attributes:
        engine, problem: the model; prompts and objectives, with pairs of all words and exact labels.
        said: all words after all prompts, as samples of one token.
        written: the same as texts, which the model ends.
        rewards: [prompts, words, objectives].
    """

    engine: Any
    problem: Any
    said: Any
    written: Any
    rewards: Any

    def log_probs(self, responses: Any, adapters: Any = None) -> Any:
        """Returns log-probs [policies, prompts, words]; without adapters of the base [prompts, words]."""
        import torch

        found = torch.from_numpy(self.engine.log_probs(responses, adapters))
        shape = (PROMPTS, WORDS)
        return found.view(*shape) if adapters is None else found.view(len(found), *shape)


def small_problem(seed: int) -> Small:
    """Returns the small problem; rewards have unit variance, and two of the three objectives are at odds."""
    import numpy as np
    import torch

    import moalign as ma
    from benchmarks.workload import RESERVED, SIZES, model, tokenizer
    from moalign.policy.batches import Responses
    from moalign.policy.engine import Engine

    size = replace(SIZES["tiny"], vocabulary=RESERVED + WORDS)
    base = model(size, seed)
    with torch.no_grad():
        for weight in base.parameters():
            weight.mul_(SCALE if weight.ndim > 1 else 1)
    policy = ma.Policy(base, tokenizer(size.vocabulary))
    engine = Engine(policy, seed=seed, device="cpu")
    words = [f"t{i}" for i in range(RESERVED, size.vocabulary)]
    prompts = words[:PROMPTS]
    scores = np.random.default_rng([seed, 8]).standard_normal((PROMPTS, WORDS, 3))
    scores[..., 1] = 0.8 * scores[..., 1] - 0.6 * scores[..., 0]
    table = {(p, w): scores[i, j] for i, p in enumerate(prompts) for j, w in enumerate(words)}
    ids = tuple(engine.encode_prompt(p) for p in prompts)
    said = Responses(
        prompts=ids,
        prompt_of=np.repeat(np.arange(PROMPTS), WORDS),
        completions=tuple((RESERVED + i,) for i in range(WORDS)) * PROMPTS,
    )
    written = engine.encode([p for p in prompts for _ in words], words * PROMPTS)
    every = [(p, i, j) for p in range(PROMPTS) for i in range(WORDS) for j in range(i)]

    def objective(name: str, k: int) -> Any:
        pairs = ma.PreferencePairs(
            prompts=tuple(prompts[p] for p, _, _ in every),
            chosen=tuple(words[i] for _, i, _ in every),
            rejected=tuple(words[j] for _, _, j in every),
            labels=np.array([1 / (1 + np.exp(scores[p, j, k] - scores[p, i, k])) for p, i, j in every]),
        )

        return ma.Objective(
            name, Table(tuple(sorted((p, w, float(row[k])) for (p, w), row in table.items()))), pairs=pairs
        )

    objectives = tuple(objective(name, k) for k, name in enumerate("abc"))
    problem = ma.Problem(policy=policy, objectives=objectives, prompts=prompts)
    return Small(engine, problem, said, written, torch.from_numpy(scores))


def small_shares(seed: int) -> dict[str, float]:
    """Returns what each method reaches on the small problem, as share of what the optimum gains over the base."""
    import numpy as np

    import moalign as ma
    from moalign.comparison import constrained_shares
    from moalign.methods import CMORL, MODPO, MORLHF, MaxMin
    from moalign.oracle import gain_share, maximin, oracle, policy_values
    from moalign.policy.on_policy import Rollouts

    small, weights = small_problem(seed), ma.grid(3, steps=2)
    sampled = {"rollouts": Rollouts(sampling=ma.Sampling(samples=64, max_new_tokens=1)),
               "training": ma.Training(steps=150, batch_size=PROMPTS, learning_rate=1e-2)}  # fmt: skip
    paired = ma.Training(steps=200, batch_size=64, learning_rate=2e-2)

    def fitted(method: Any, asked: Any, responses: Any) -> tuple[Any, Any, Any]:
        policies = method.fit(small.problem, asked, small.engine)
        base = small.log_probs(responses)
        exact = policy_values(small.log_probs(responses, policies.stack), small.rewards, log_base=base)
        return policies, exact, base

    found = {}
    for name, method, responses in (
        ("MODPO", MODPO(beta=BETA, training=paired), small.written),
        ("MORLHF", MORLHF(beta=BETA, **sampled), small.said),
    ):
        _, exact, base = fitted(method, weights, responses)
        best = oracle(small.rewards, weights, BETA, log_base=base)
        found[name] = float(gain_share(best, rewards=exact.rewards, kl=exact.kl).mean())
    start = MORLHF(beta=BETA, **sampled)
    cmorl = CMORL(initial=start, lattice=1, centre=True, keep=0.5, measured=(PROMPTS, 3072), **sampled)
    policies, exact, base = fitted(cmorl, weights, small.said)
    entries = policies.facts["cmorl"]["archive"]
    rows = [i for i, entry in enumerate(entries) if "raises" in entry]
    within = constrained_shares(
        small.log_probs(small.said, policies.stack.select(rows)), ["abc".index(entries[i]["raises"]) for i in rows],
        np.array([entries[i]["at_least"] for i in rows]), small.rewards, BETA, base,
    )  # fmt: skip
    found["C-MORL"] = float(np.mean([share for share, _ in within]))
    policies, exact, base = fitted(MaxMin(beta=BETA, **sampled), np.full((1, 3), 1 / 3), small.said)
    nothing = float(policy_values(base, small.rewards, log_base=base).rewards.min())
    most = maximin(small.rewards, BETA, log_base=base).value
    found["MaxMin"] = (float(exact.rewards[0].min() - BETA * exact.kl[0]) - nothing) / (most - nothing)
    return found


def small_rows(seeds: Sequence[int]) -> list[Row]:
    """Returns the rows of the small problem."""
    found = [small_shares(seed) for seed in seeds]
    return [_row(f"{name}, one-word responses", FLOORS[name][1], [f[name] for f in found], WITHIN) for name in found[0]]


def _row(what: str, peer: str, values: Sequence[float], floor: float | None) -> Row:
    middle, low, high = (round(v, 3) for v in (statistics.median(values), min(values), max(values)))
    return Row(what, peer, middle, low, high, floor)


def measure(options: Options) -> list[Row]:
    """Returns all rows."""
    import torch

    torch.set_num_threads(options.threads)
    seeds = range(options.seed, options.seed + options.repeats(2, 3))
    return small_rows(seeds) + ([] if options.quick else embedded_rows(seeds))


if __name__ == "__main__":
    run(measure, parse("How near every method comes to the exact optimum."), ("torch", "transformers"))
