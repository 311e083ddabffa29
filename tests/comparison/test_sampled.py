"""The judge by samples: gains at equal KL against what is known, its interval, and policies of a real model."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

import moalign as ma
from moalign.comparison.contest import Costs
from moalign.comparison.sampled import Yardstick, equal_kl
from moalign.diagnostics import compare_at_equal_kl
from moalign.methods import PolicySet
from moalign.policy.adapters import AdapterStack
from moalign.policy.engine import Engine
from tests.tiny import HELD_OUT, PROMPTS, save_model, shortness, vowels

WEIGHTS = np.array([[1.0, 0.0], [0.5, 0.5]])


def normal(prompts: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((prompts, 200, 2))


def test_shares_are_those_at_equal_kl_and_the_interval_surrounds_their_mean() -> None:
    """Normal rewards gain |w| sqrt(2 KL): 1 and sqrt(.5) at KL .5, of which .6 and .3 sqrt(.5) are .6 and .3."""
    rng = np.random.default_rng(1)
    gains = np.array([[0.6], [0.3 * math.sqrt(0.5)]]) + 0.5 * rng.standard_normal((2, 400))
    gains -= gains.mean(axis=1, keepdims=True) - np.array([[0.6], [0.3 * math.sqrt(0.5)]])
    kl = np.full((2, 400), 0.5)
    shares, (value, low, high), effective = equal_kl(normal(400), WEIGHTS, gains, kl)
    assert shares == pytest.approx([0.6, 0.3], abs=0.02) and value == pytest.approx(shares.mean(), abs=1e-6)
    assert low < value < high and 0.03 < high - low < 0.15
    assert 60 < effective < 100  # 200 exp(-2 KL) = 74


def test_the_interval_follows_a_resample_as_if_its_strength_were_solved_again() -> None:
    """Half of the prompts with half the KL each: the first-order share is within 2 % of the one solved for them."""
    candidates, part = normal(300), slice(0, 150)
    gains = np.abs(np.random.default_rng(2).standard_normal((2, 300)))
    kl = np.concatenate([np.full((2, 150), 0.45), np.full((2, 150), 0.55)], axis=1)
    solved = compare_at_equal_kl(candidates[part], WEIGHTS, gains[:, part].mean(axis=1), kl[:, part].mean(axis=1))
    of_all = compare_at_equal_kl(candidates, WEIGHTS, gains.mean(axis=1), kl.mean(axis=1))
    followed = of_all.gain + of_all.beta * (0.45 - 0.5)
    assert gains[:, part].mean(axis=1) / followed == pytest.approx(solved.share, rel=0.05)
    assert abs(followed / solved.gain - 1).max() < abs(of_all.gain / solved.gain - 1).max()


def test_a_kl_beyond_the_candidates_has_no_share() -> None:
    """200 samples reach at most log 200 = 5.3 nats; a mean over the other weights alone would flatter."""
    kl = np.stack([np.full(50, 0.5), np.full(50, 9.0)])
    shares, bounds, _ = equal_kl(normal(50), WEIGHTS, np.ones((2, 50)), kl)
    assert np.isnan(shares).tolist() == [False, True] and np.isnan(bounds).all()


def test_a_policy_like_the_base_gains_nothing_and_one_with_larger_rewards_does(tmp_path: Path) -> None:
    """Adapters that start at zero are the base: no KL, and gains within their error of zero."""
    policy = ma.Policy(save_model(tmp_path))
    objectives = (ma.Objective("vowels", reward=vowels), ma.Objective("short", reward=shortness))
    problem = ma.Problem(policy=policy, objectives=objectives, prompts=PROMPTS)
    yardstick = Yardstick(
        problem=problem,
        evaluation=ma.Evaluation(prompts=HELD_OUT, samples=16, max_new_tokens=6),
        candidates=problem.candidates(HELD_OUT, samples=32, max_new_tokens=6, device="cpu"),
        weights=WEIGHTS,
        measures={"characters": lambda prompts, responses: max(map(len, responses))},
    )
    engine = Engine(policy, seed=0, device="cpu")
    stack = AdapterStack.initial(engine.language_model.model, ma.LoRA(rank=2), 1, 0)
    costs = Costs(trained=7, sampled=5, drawn=6)
    found = yardstick("nothing", 3, PolicySet(stack, WEIGHTS[:1], (("none", 0),)), engine, costs)
    assert (found.method, found.seed, found.policies) == ("nothing", 3, 1)
    assert (found.trained, found.generated) == (7, 11)
    assert found.kl == pytest.approx(0, abs=1e-6) and abs(found.gain) < 4 * found.gain_error
    assert found.hypervolume[1] <= found.hypervolume[0] <= found.hypervolume[2]
    assert len(found.points) == len(found.shares) == 2 and 0 < found.worst["characters"] <= 6
    assert found.worst["reference_loss"] > 0
