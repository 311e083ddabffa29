"""The exact judge: an untrained policy scores zero, and only the optimum has all of its gain."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import moalign as ma
from moalign.comparison.contest import Costs
from moalign.comparison.exact import WEIGHTS, at_equal_kl, constrained_shares, group_shares, judge, optimum_curve
from moalign.demo import toy_facts, toy_policy
from moalign.methods import PolicySet
from moalign.oracle import maximin, policy_values
from moalign.policy.adapters import AdapterStack
from moalign.policy.engine import Engine


@pytest.mark.slow
def test_a_policy_that_learned_nothing_has_nothing_of_the_optimum() -> None:
    facts = toy_facts(0)
    engine = Engine(toy_policy(0), seed=0, device="cpu")
    stack = AdapterStack.initial(engine.language_model.model, ma.LoRA(rank=2), 1, 0)
    policies = PolicySet(stack, np.full((1, 3), 1 / 3), (("none", 0),))
    found = judge(facts, "nothing", 0, policies, engine, Costs())
    assert found.shares == pytest.approx([0] * len(WEIGHTS), abs=1e-3)
    assert found.worst_group == pytest.approx(0, abs=1e-3) and found.at_equal_kl == pytest.approx(0, abs=1e-3)
    assert found.expected_utility == pytest.approx(0, abs=1e-3) and 0 < found.hypervolume[0] < 0.5
    curve = optimum_curve(facts)
    assert all(np.diff([k for k, _ in curve]) > 0) and all(np.diff([g for _, g in curve]) > 0)


def test_only_the_constrained_optimum_has_all_of_its_gain() -> None:
    """One prompt, four answers, max R_1 - 0.5 KL under R_2 >= .75: the optimum is the tilt by (1, 1.427010).

    More reward at the price of the bound, and more of the bound than was asked for, are both less than the optimum.
    """
    rewards = torch.tensor([[[1, 0], [0.8, 0.6], [0.5, 0.9], [0, 1]]], dtype=torch.float64)
    base = torch.full((1, 4), 0.25, dtype=torch.float64).log()
    tilts = torch.tensor([[1, 1.427010], [1, 0], [1, 2.5], [0, 0]], dtype=torch.float64)
    log_policy = (base + torch.einsum("pam,km->kpa", rewards, tilts) / 0.5).log_softmax(-1)
    found = constrained_shares(log_policy, [0] * 4, np.tile([9.0, 0.75], (4, 1)), rewards, 0.5, base)
    shares, short = zip(*found, strict=True)
    assert shares[0] == pytest.approx(1, abs=1e-5) and shares[3] == pytest.approx(0, abs=1e-9)
    assert all(share < 0.99 for share in shares[1:])
    assert short[1] == pytest.approx(0.75 - 0.399634, abs=1e-6) and short[0] == pytest.approx(0, abs=1e-6)
    assert short[2] == 0


def test_only_the_maximin_optimum_has_all_of_the_worst_groups_gain() -> None:
    """Two groups, two answers, r = (1, 0) and (0, 3), uniform base, beta 0.1: pi = (3/4, 1/4), value 0.7369."""
    rewards = torch.tensor([[[1, 0], [0, 3]]], dtype=torch.float64)
    best = maximin(rewards, 0.1)
    log_policy = torch.tensor([[0.75, 0.25], [0.5, 0.5], [0.6, 0.4], [0.9, 0.1]], dtype=torch.float64).log()
    found = policy_values(log_policy[:, None], rewards)
    reference = found.rewards[1].numpy()
    both = [group_shares(found.rewards[[k]].numpy(), found.kl[[k]].numpy(), reference, best) for k in range(4)]
    assert best.value == pytest.approx(0.7369, abs=1e-4)
    assert both[0] == pytest.approx((1, 1), abs=1e-5) and both[1] == pytest.approx((0, 0), abs=1e-9)
    assert 0 < both[2][0] < 1 and both[3][0] < 0  # too little, and at the price of the other group
    assert group_shares(found.rewards.numpy(), found.kl.numpy(), reference, best) == both[0]


def test_optima_of_any_beta_have_all_of_the_gain_at_their_kl() -> None:
    """Two weights, one prompt: tilts by w / beta of any beta score one, the other weights' less, the base nothing."""
    rewards = torch.tensor([[[1, 0], [0.8, 0.6], [0.5, 0.9], [0, 1]]], dtype=torch.float64)
    base = torch.full((1, 4), 0.25, dtype=torch.float64).log()
    weights = np.array([[0.7, 0.3], [0.2, 0.8]])

    def share(own: np.ndarray, betas: list[float]) -> float:
        tilts = torch.from_numpy(own / np.array(betas)[:, None])
        log_policy = (base + torch.einsum("pam,km->kpa", rewards, tilts)).log_softmax(-1)
        return at_equal_kl(policy_values(log_policy, rewards, log_base=base), weights, rewards, base)

    assert share(weights, [0.2, 1.5]) == pytest.approx(1, abs=1e-6)
    assert share(weights[::-1], [0.2, 1.5]) < 0.9
