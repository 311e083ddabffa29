"""A problem small enough to know everything: one prompt, one word as the answer, two groups that disagree.

What every method reaches on it is compared with the exact optimum, as on the embedded problem, in seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, final

from benchmarks.workload import EOS, RESERVED, SIZES, model, tokenizer

BETA = 0.5
TOKENS, PROMPT = 16, "t7"
GROUPS = ("many", "few")
AGREEMENT = -0.5  # correlation of what they like
SCALE = 15  # of the random weights, from a deviation of 0.02 to 0.3: the model has preferences of its own


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
        words: all that can be said.
        said: all tokens, as samples of one.
        written: all words, as texts that end.
    """

    engine: Any
    problem: Any
    words: Sequence[str]
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

    def served(self, policies: Any, weights: Any) -> Any:
        """Returns log-probs [weights, 1, tokens] of all tokens said, by what serves the weights."""
        import numpy as np
        import torch

        rows = []
        for one in map(policies.for_weights, weights):
            told = PROMPT if one.text is None else one.text(PROMPT)
            said = replace(self.said, prompts=(self.engine.encode_prompt(told),))
            rows.append(self.engine.log_probs(said, one.adapter))
        return torch.from_numpy(np.concatenate(rows)[:, None])


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
    return Small(engine, problem, words, said, engine.encode([PROMPT] * len(words), words))


def small_methods() -> dict[str, Any]:
    """Returns every method with settings for the small problem."""
    import moalign as ma
    from moalign.methods import CMORL, DPA, MODPO, MORLHF, GroupDPO, MaxMin, RiC
    from moalign.policy.on_policy import Rollouts

    def on_policy(samples: int, steps: int = 200) -> dict[str, Any]:
        return {
            "rollouts": Rollouts(sampling=ma.Sampling(samples=samples, max_new_tokens=1)),
            "training": ma.Training(steps=steps, batch_size=1, learning_rate=1e-2, warmup=0.05),
        }

    def paired(steps: int = 200) -> ma.Training:
        return ma.Training(steps=steps, batch_size=64, learning_rate=1e-2)

    many = ma.Sampling(samples=256, max_new_tokens=1)
    words = tuple(f"t{i}" for i in range(RESERVED, RESERVED + 7))
    return {
        "MODPO": MODPO(beta=BETA, training=paired()),
        "MORLHF": MORLHF(beta=BETA, **on_policy(64)),
        "C-MORL": CMORL(
            initial=MORLHF(beta=BETA, **on_policy(64)), lattice=1, centre=True, keep=0.5, measured=(2, 2048),
            **on_policy(64, 300),
        ),
        "DPA": DPA(
            iterations=1, sampling=many, best_of=16, first_directions=512, prefix="", words=words, training=paired()
        ),
        "RiC": RiC(
            iterations=2, sampling=many, quantile=0.9, words=words[:5], training=paired(), online=paired()
        ),
        "MaxMin": MaxMin(beta=BETA, rate=0.1, **on_policy(256, 300)),
        "GroupDPO": GroupDPO(beta=BETA, rate=0.5, training=paired()),
    }  # fmt: skip


def small_share(method: str, small: Small) -> float:
    """Returns what a method reaches on the small problem, as share of what its exact optimum gains over the base."""
    import numpy as np

    import moalign as ma
    from moalign.comparison.exact import at_equal_kl, constrained_shares, group_shares
    from moalign.oracle import gain_share, maximin, oracle, policy_values

    weights = np.full((1, 2), 0.5) if method in ("MaxMin", "GroupDPO") else ma.grid(2, steps=4)
    policies = small_methods()[method].fit(small.problem, weights, small.engine)
    if method == "GroupDPO":
        log_policy, base, _ = small.known(small.written, policies.stack)
        return loss_share(small, (log_policy[0, 0] - base[0]).numpy())
    if method == "MODPO":  # learns from texts that end
        log_policy, base, rewards = small.known(small.written, policies.stack)
    elif method == "C-MORL":
        log_policy, base, rewards = small.known(small.said, policies.stack)
    else:
        _, base, rewards = small.known(small.said)
        log_policy = small.served(policies, weights)
    exact = policy_values(log_policy, rewards, log_base=base)
    if method == "MaxMin":
        reference = policy_values(base, rewards, log_base=base).rewards.numpy()
        best = maximin(rewards, BETA, log_base=base)
        return group_shares(exact.rewards.numpy(), exact.kl.numpy(), reference, best)[0]
    if method in ("DPA", "RiC"):
        return at_equal_kl(exact, weights, rewards, base)
    if method == "C-MORL":
        entries = policies.facts["cmorl"]["archive"]
        rows = [i for i, entry in enumerate(entries) if "raises" in entry]
        raised = [GROUPS.index(entries[i]["raises"]) for i in rows]
        bounds = np.array([entries[i]["at_least"] for i in rows])
        within = constrained_shares(log_policy[rows], raised, bounds, rewards, BETA, base)
        return float(np.mean([share for share, _ in within]))
    best_of_weights = oracle(rewards, weights, BETA, log_base=base)
    return float(gain_share(best_of_weights, rewards=exact.rewards, kl=exact.kl).mean())


def loss_share(small: Small, ratios: Any) -> float:
    """Returns how far the largest group loss has fallen from log 2, as share of what the exact minimax has.

    The loss of a group is convex in the log-ratios of the words, so its minimax over groups is a convex program.

    Args:
        small: the problem.
        ratios: log policy / base of every word [words].
    """
    import numpy as np
    from scipy.optimize import minimize

    place = {word: i for i, word in enumerate(small.words)}
    pairs = small.problem.objectives[0].pairs  # all groups judge the same
    first, second = ([place[w] for w in side] for side in (pairs.chosen, pairs.rejected))
    labels = np.stack([o.pairs.labels for o in small.problem.objectives])  # [groups, pairs]

    def losses(f: Any) -> Any:
        h = BETA * (f[first] - f[second])
        return (np.logaddexp(0, -h) + (1 - labels) * h).mean(axis=1)

    def slopes(f: Any) -> Any:
        h = BETA * (f[first] - f[second])
        of_pair = BETA * (1 - labels - 1 / (1 + np.exp(h))) / len(first)
        found = np.zeros((len(labels), len(f)))
        for group, row in enumerate(of_pair):
            np.add.at(found[group], first, row)
            np.subtract.at(found[group], second, row)
        return found

    words = len(small.words)
    bound = {  # of (log-ratios, the largest loss)
        "type": "ineq",
        "fun": lambda x: x[-1] - losses(x[:-1]),
        "jac": lambda x: np.column_stack([-slopes(x[:-1]), np.ones(len(labels))]),
    }
    best = minimize(
        lambda x: x[-1], np.append(np.zeros(words), np.log(2)), jac=lambda x: np.append(np.zeros(words), 1.0),
        constraints=[bound], method="SLSQP", options={"maxiter": 500, "ftol": 1e-12},
    )  # fmt: skip
    assert best.success, best.message
    return float((np.log(2) - losses(ratios).max()) / (np.log(2) - best.fun))
