"""What DPA and RiC would reach on the embedded problem if they imitated perfectly: the figures of their pages.

All replies are known, so the best of n per direction and the base conditioned on scores can be written out.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from moalign.comparison import exact as judged
from moalign.comparison.exact import WEIGHTS
from moalign.data import toy
from moalign.demo import ToyFacts, toy_facts
from moalign.methods.conditioning import ScoreText
from moalign.methods.ric import asked_directions, reached_scores
from moalign.oracle import best_of_n_kl, policy_values

pytestmark = pytest.mark.slow  # needs the tiny language model


@pytest.fixture(scope="module")
def facts() -> ToyFacts:
    return toy_facts(0)


def at_equal_kl(policy: np.ndarray, facts: ToyFacts) -> tuple[float, float]:
    """Returns (gain over the optimum's at the same KL, mean KL) of probabilities [weights, prompts, replies]."""
    log_policy = torch.from_numpy(np.log(np.maximum(policy, 1e-300)))
    rewards, log_base = torch.from_numpy(facts.rewards), torch.from_numpy(facts.log_base)
    exact = policy_values(log_policy, rewards, log_base=log_base)
    return judged.at_equal_kl(exact, WEIGHTS, rewards, log_base), float(exact.kl.mean())


def base(log_probs: np.ndarray) -> np.ndarray:
    probs = np.exp(log_probs)
    return np.asarray(probs / probs.sum(axis=1, keepdims=True))


def best_of(n: int, probs: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Returns the distribution of the best of n draws [prompts, replies]; equals share in proportion to the base."""
    rows = []
    for p, s in zip(probs, scores, strict=True):
        _, rank = np.unique(s.round(9), return_inverse=True)
        mass = np.bincount(rank, p)
        up_to = np.minimum(mass.cumsum(), 1.0)
        rows.append(p * ((up_to**n - np.r_[0, up_to[:-1]] ** n) / mass)[rank])
    return np.array(rows)


@pytest.mark.parametrize(("n", "share"), [(2, 0.935), (8, 0.969), (32, 0.986)])
def test_best_of_n_is_nearly_the_optimum_of_its_kl(facts: ToyFacts, n: int, share: float) -> None:
    policy = np.array([best_of(n, base(facts.log_base), facts.rewards @ w) for w in WEIGHTS])
    found, kl = at_equal_kl(policy, facts)
    assert found == pytest.approx(share, abs=0.005)
    assert 0.9 * best_of_n_kl(n) < kl < best_of_n_kl(n)  # some replies tie


@pytest.mark.parametrize(
    ("mapping", "low", "high"), [("reached", 0.86, 0.93), ("linf", 0.8, 0.9), ("l2", 0.65, 0.8), ("linear", 0.2, 0.5)]
)
def test_the_mapping_bounds_what_conditioning_on_scores_can_reach(
    facts: ToyFacts, mapping: str, low: float, high: float
) -> None:
    """The base among replies whose words are those asked for; where no reply has them, the nearest."""
    rng = np.random.default_rng(0)
    table = (toy.reward_table(facts.split.train) - facts.mean) / facts.scale
    pairs = zip(table, base(facts.train_log_base), strict=True)
    scores = np.concatenate([rewards[rng.choice(len(p), 256, p=p)] for rewards, p in pairs])
    lowest, highest = np.quantile(scores, (0.02, 0.98), axis=0).round(1)
    writer = ScoreText(
        names=toy.OBJECTIVES,
        low=tuple(lowest),
        high=tuple(highest),
        words=tuple("abcde"),
        mapping=mapping,  # type: ignore[arg-type]
        reached=reached_scores(scores, asked_directions(WEIGHTS, 0), 0.02),
    )
    have = np.rint(np.clip((facts.rewards - lowest) / (highest - lowest), 0, 1) * 4)
    rows = []
    for w in WEIGHTS:
        distance = np.abs(have - ["abcde".index(word) for word in writer(w).after.split()]).sum(axis=-1)
        chosen = np.where(distance == distance.min(axis=1, keepdims=True), base(facts.log_base), 0)
        rows.append(chosen / chosen.sum(axis=1, keepdims=True))
    assert low < at_equal_kl(np.array(rows), facts)[0] < high
