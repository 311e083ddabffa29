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
from benchmarks.workload import EOS, RESERVED, SIZES, model, tokenizer

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
# The small problem: 16 tokens, all that can be said to the one prompt, and two groups that like different ones.
TOKENS, PROMPT = 16, "t7"
GROUPS = ("many", "few")
AGREEMENT = -0.5  # correlation of what they like
SCALE = 15  # of the random weights, from a deviation of 0.02 to 0.3: the model has preferences of its own


def embedded_rows(seeds: Sequence[int]) -> list[Row]:
    """Returns the rows of the embedded problem at the full budget."""
    from moalign.comparison.embedded import compare

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
class Liked:
    """The reward of a group: by the word, 0 for silence; of unit variance over words."""

    values: tuple[tuple[str, float], ...]

    def __call__(self, prompts: Sequence[Any], responses: Sequence[str]) -> list[float]:
        known = dict(self.values)
        return [known.get(r.strip(), 0.0) for r in responses]


@final
@dataclass(frozen=True)
class Small:
    """A random model that answers one token, and two groups that disagree.

    Attributes:
        engine, problem: the model; the objectives, with pairs of all words and exact labels.
        said: all tokens, as samples of one.
        written: all words, as texts that end.
    """

    engine: Any
    problem: Any
    said: Any
    written: Any

    def known(self, responses: Any, adapters: Any = None) -> tuple[Any, Any, Any]:
        """Returns log-probs of the adapters [policies, 1, responses], of the base [1, responses], and rewards."""
        import torch

        decode = self.engine.language_model.decode_response
        texts = [decode((), tuple(i for i in ids if i != EOS)) for ids in responses.completions]
        rewards = torch.tensor([o.reward([], texts) for o in self.problem.objectives]).double()
        policy = None if adapters is None else torch.from_numpy(self.engine.log_probs(responses, adapters))[:, None]
        return policy, torch.from_numpy(self.engine.log_probs(responses)), rewards.T[None]


def small_problem(seed: int) -> Small:
    """Returns the small problem."""
    import numpy as np
    import torch

    import moalign as ma
    from moalign.policy.batches import Responses
    from moalign.policy.engine import Engine

    base = model(replace(SIZES["tiny"], vocabulary=TOKENS), seed)
    with torch.no_grad():
        for weight in base.parameters():
            weight.mul_(SCALE if weight.ndim > 1 else 1)
    policy = ma.Policy(base, tokenizer(TOKENS))
    engine = Engine(policy, seed=seed, device="cpu")
    words = [f"t{i}" for i in range(RESERVED, TOKENS)]
    said = Responses(
        prompts=(engine.encode_prompt(PROMPT),),
        prompt_of=np.zeros(TOKENS, dtype=np.int64),
        completions=tuple((i,) for i in range(TOKENS)),
    )
    pairs = [(a, b) for i, a in enumerate(words) for b in words[:i]]

    liked = np.random.default_rng([seed, 8]).multivariate_normal([0, 0], [[1, AGREEMENT], [AGREEMENT, 1]], len(words))

    def objective(group: int) -> Any:
        value = dict(zip(words, liked[:, group].tolist(), strict=True))
        labels = [1 / (1 + np.exp(value[b] - value[a])) for a, b in pairs]
        chosen, rejected = zip(*pairs, strict=True)
        given = ma.PreferencePairs(
            prompts=(PROMPT,) * len(pairs), chosen=chosen, rejected=rejected, labels=np.array(labels)
        )
        return ma.Objective(GROUPS[group], Liked(tuple(value.items())), pairs=given)

    problem = ma.Problem(policy=policy, objectives=(objective(0), objective(1)), prompts=[PROMPT])
    return Small(engine, problem, said, engine.encode([PROMPT] * len(words), words))


def small_shares(seed: int) -> dict[str, float]:
    """Returns what each method reaches on the small problem, as share of what the optimum gains over the base."""
    import numpy as np

    import moalign as ma
    from moalign.comparison.embedded import constrained_shares
    from moalign.methods import CMORL, MODPO, MORLHF, MaxMin
    from moalign.oracle import gain_share, maximin, oracle, policy_values
    from moalign.policy.on_policy import Rollouts

    small, weights = small_problem(seed), ma.grid(2, steps=4)
    sampled: dict[str, Any] = {"rollouts": Rollouts(sampling=ma.Sampling(samples=64, max_new_tokens=1)),
               "training": ma.Training(steps=200, batch_size=1, learning_rate=1e-2, warmup=0.05)}  # fmt: skip
    paired = ma.Training(steps=200, batch_size=64, learning_rate=1e-2)
    found = {}
    for name, method, responses in (
        ("MODPO", MODPO(beta=BETA, training=paired), small.written),
        ("MORLHF", MORLHF(beta=BETA, **sampled), small.said),
    ):
        policies = method.fit(small.problem, weights, small.engine)
        log_policy, base, rewards = small.known(responses, policies.stack)
        exact = policy_values(log_policy, rewards, log_base=base)
        best = oracle(rewards, weights, BETA, log_base=base)
        found[name] = float(gain_share(best, rewards=exact.rewards, kl=exact.kl).mean())
    start = MORLHF(beta=BETA, **sampled)
    cmorl = CMORL(initial=start, lattice=1, centre=True, keep=0.75, measured=(2, 2048), **sampled)
    policies = cmorl.fit(small.problem, weights, small.engine)
    log_policy, base, rewards = small.known(small.said, policies.stack)
    entries = policies.facts["cmorl"]["archive"]
    rows = [i for i, entry in enumerate(entries) if "raises" in entry]
    raised = [GROUPS.index(entries[i]["raises"]) for i in rows]
    bounds = np.array([entries[i]["at_least"] for i in rows])
    within = constrained_shares(log_policy[rows], raised, bounds, rewards, BETA, base)
    found["C-MORL"] = float(np.mean([share for share, _ in within]))
    many = {"rollouts": Rollouts(sampling=ma.Sampling(samples=256, max_new_tokens=1)),
            "training": replace(sampled["training"], steps=300)}  # fmt: skip
    policies = MaxMin(beta=BETA, rate=0.1, **many).fit(small.problem, np.full((1, 2), 0.5), small.engine)
    exact = policy_values(small.known(small.said, policies.stack)[0], rewards, log_base=base)
    nothing = float(policy_values(base, rewards, log_base=base).rewards.min())
    most = maximin(rewards, BETA, log_base=base).value
    found["MaxMin"] = (float(exact.rewards[0].min() - BETA * exact.kl[0]) - nothing) / (most - nothing)
    return found


def small_rows(seeds: Sequence[int]) -> list[Row]:
    """Returns the rows of the small problem."""
    found = [small_shares(seed) for seed in seeds]
    return [
        _row(f"{name}, one-token responses", FLOORS[name][1], [f[name] for f in found], WITHIN) for name in found[0]
    ]


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
