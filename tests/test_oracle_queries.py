"""Optima of goals: maximin, constrained, utilities, each against its certificate; best-of-n; honest choices."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from moalign.errors import DefinitionError
from moalign.oracle import (
    best_of_n,
    best_of_n_kl,
    best_utility,
    constrained,
    cross_fit,
    kl_target,
    maximin,
    oracle,
    prompt_maximin,
)
from moalign.weights import grid

F64 = torch.float64
FOUR = torch.tensor([[[1.0, 0.2], [0.1, 0.9], [0.5, 0.5], [0.7, 0.3]]], dtype=F64)


def normal(seed: int, prompts: int = 30, count: int = 24, objectives: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(prompts, count, objectives, generator=generator, dtype=F64) + torch.arange(objectives)


def ascended(rewards: Tensor, goal, beta: float) -> float:
    """Returns the best of goal(R) - beta * KL by gradient ascent on the logits of every prompt's policy."""
    logits = torch.zeros(rewards.shape[:2], dtype=F64, requires_grad=True)
    optimiser = torch.optim.LBFGS([logits], max_iter=400, tolerance_grad=1e-12, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        log_policy = logits.log_softmax(-1)
        policy = log_policy.exp()
        expected = (policy[..., None] * rewards).sum(1).mean(0)
        value = goal(expected) - beta * (policy * (log_policy + math.log(rewards.shape[1]))).sum(-1).mean()
        (-value).backward()
        return -value.detach()

    optimiser.step(loss)
    return -float(loss())


# --- maximin ---------------------------------------------------------------------------------------------------------


def test_worked_maximin() -> None:
    """Two groups, four answers, beta .2: weights (.398, .602) make both groups' rewards .52483, KL .02528."""
    found = maximin(FOUR, 0.2)
    assert found.weights.tolist() == pytest.approx([0.39797, 0.60203], abs=5e-5)
    assert found.rewards.tolist() == pytest.approx([0.52483, 0.52483], abs=5e-6)
    assert found.kl == pytest.approx(0.02528, abs=5e-6)
    assert found.value == pytest.approx(0.519771, abs=1e-6) and 0 <= found.gap < 1e-9


@pytest.mark.parametrize("beta", [1e-3, 0.1, 5.0])
def test_maximin_has_equal_rewards_on_its_support_and_no_fixed_weights_do_better(beta: float) -> None:
    rewards = normal(1)
    found = maximin(rewards, beta)
    assert -1e-12 <= found.gap < 1e-8
    support = found.weights > 1e-9
    assert float(found.rewards[support].max() - found.rewards[support].min()) < 1e-6
    assert bool((found.rewards[~support] >= found.rewards[support].min() - 1e-9).all())
    others = oracle(rewards, grid(3, 8), beta)
    assert found.value >= float((others.rewards.amin(-1) - beta * others.kl).max()) - 1e-9
    assert found.bound <= float(others.value.min()) + 1e-9  # every weighted value is a bound of the maximin


def test_maximin_over_a_baseline_is_the_maximin_of_shifted_rewards() -> None:
    rewards, floor = normal(2), torch.tensor([0.5, -1.0, 2.0], dtype=F64)
    shifted, found = maximin(rewards - floor, 0.2), maximin(rewards, 0.2, baseline=floor)
    torch.testing.assert_close(found.rewards - floor, shifted.rewards, rtol=0, atol=1e-7)
    assert found.value == pytest.approx(shifted.value, abs=1e-8)
    assert not torch.allclose(found.weights, maximin(rewards, 0.2).weights, atol=0.01)


def test_fairness_at_every_prompt_is_stricter() -> None:
    """Each prompt alone is a maximin problem; a population may trade prompts against each other."""
    rewards = normal(12, prompts=6)
    strict = prompt_maximin(rewards, 0.2)
    alone = maximin(rewards[2:3], 0.2)
    assert strict.weights[2].tolist() == pytest.approx(alone.weights.tolist(), abs=1e-9)
    assert strict.prompt_kl[2].item() == pytest.approx(alone.kl)
    minima = strict.prompt_rewards.amin(-1).mean().item() - 0.2 * strict.prompt_kl.mean().item()
    assert strict.value == pytest.approx(minima, abs=1e-8)
    assert strict.value <= maximin(rewards, 0.2).value + 1e-9 and 0 <= strict.gap + 1e-12 < 1e-7
    one = prompt_maximin(rewards[:1], 0.2)
    assert one.value == pytest.approx(maximin(rewards[:1], 0.2).value)


def test_one_group_is_plain_alignment() -> None:
    rewards = normal(3, objectives=1)
    found, plain = maximin(rewards, 0.3), oracle(rewards, [[1.0]] * torch.ones(1, 1).numpy(), 0.3)
    assert found.value == pytest.approx(plain.value.item()) and found.weights.tolist() == [1.0]


# --- constrained -----------------------------------------------------------------------------------------------------


def test_constraints_hold_with_complementary_slackness() -> None:
    """One bound binds, one is slack: its multiplier is 0. Ascent with a penalty comes from below to the same value."""
    rewards, weights = normal(4), torch.tensor([1.0, 0.0, 0.0], dtype=F64)
    free = oracle(rewards, weights[None], 0.3)
    floor = torch.tensor([-math.inf, free.rewards[0, 1].item() + 0.4, free.rewards[0, 2].item() - 0.5])
    found = constrained(rewards, weights, 0.3, floor)
    multipliers = found.weights - weights
    assert found.rewards[1].item() == pytest.approx(floor[1].item(), abs=1e-7)
    assert multipliers[1] > 0 and multipliers[[0, 2]].tolist() == [0, 0]
    assert abs(found.gap) < 1e-7 and found.violation < 1e-8

    penalty = 1e3
    reached = ascended(
        rewards, lambda r: r[0] - penalty * (floor.nan_to_num(neginf=-99).to(F64) - r).clamp_min(0).square().sum(), 0.3
    )
    # a quadratic penalty may exceed the constrained value by multiplier^2 / (4 penalty), no more
    assert found.value - 2e-3 <= reached <= found.value + float(multipliers.square().sum()) / (4 * penalty) + 1e-9


@pytest.mark.parametrize("iterations", [0, 1, 2])
def test_bounds_hold_before_the_end(iterations: int) -> None:
    """Stopped early, the dual bound still lies above the optimum's value, and by the multipliers times the slack."""
    rewards, weights = normal(4), torch.tensor([1.0, 0.0, 0.0], dtype=F64)
    floor = torch.tensor([-math.inf, 1.6, 1.9], dtype=F64)
    best, early = (
        constrained(rewards, weights, 0.3, floor),
        constrained(rewards, weights, 0.3, floor, iterations=iterations),
    )
    assert early.bound >= best.value - 1e-9 and early.iterations == iterations
    multipliers = (early.weights - weights)[1:]
    dual = oracle(rewards, early.weights[None], 0.3).value.item() - float(multipliers @ floor[1:])
    assert early.bound == pytest.approx(dual, abs=1e-10)
    assert maximin(rewards, 0.3, iterations=iterations).bound >= maximin(rewards, 0.3).value - 1e-12
    assert maximin(rewards, 0.3, iterations=iterations).value <= maximin(rewards, 0.3).bound + 1e-12


def test_bounds_that_do_not_bind_change_nothing() -> None:
    rewards, weights = normal(5), torch.tensor([0.2, 0.3, 0.5], dtype=F64)
    found, free = constrained(rewards, weights, 0.2, torch.full((3,), -9.0)), oracle(rewards, weights[None], 0.2)
    assert found.iterations == 0 and found.weights.tolist() == weights.tolist()
    torch.testing.assert_close(found.rewards, free.rewards[0], rtol=0, atol=1e-12)
    assert found.simplex_beta == pytest.approx(0.2)


def test_nearly_infeasible_bounds_ask_for_a_tiny_beta() -> None:
    rewards = normal(6)
    most = rewards.amax(1).mean(0)
    found = constrained(rewards, torch.tensor([1.0, 0, 0]), 0.3, torch.tensor([-math.inf, float(most[1]) - 0.01, 0.0]))
    assert found.violation < 1e-7 and found.simplex_beta < 0.03 and found.kl > 2
    torch.testing.assert_close(
        oracle(rewards, found.simplex_weights[None], found.simplex_beta).rewards[0], found.rewards, rtol=0, atol=1e-9
    )


def test_unattainable_bounds_are_refused_alone_and_together() -> None:
    rewards = normal(7, objectives=1)
    opposed = torch.cat([rewards, -rewards], -1)
    with pytest.raises(DefinitionError, match="objective 0 must reach 99, but always giving its best candidate has"):
        constrained(opposed, torch.tensor([1.0, 0.0]), 0.2, torch.tensor([99.0, -math.inf]))
    with pytest.raises(DefinitionError, match="no policy on the candidates has objective 0 >= 0.5, objective 1 >= 0.5"):
        constrained(opposed, torch.tensor([1.0, 0.0]), 0.2, torch.tensor([0.5, 0.5]))
    with pytest.raises(DefinitionError, match="at_least must be 2 numbers"):
        constrained(opposed, torch.tensor([1.0, 0.0]), 0.2, torch.tensor([math.nan, 0.0]))


# --- utilities -------------------------------------------------------------------------------------------------------


UTILITIES = {
    "nash": lambda r: (r + 2).log().sum(),
    "soft minimum": lambda r: -(-8 * r).exp().mean().log() / 8,
    "power mean": lambda r: ((r + 3).pow(-2).mean()).pow(-0.5),
    "linear": lambda r: 0.2 * r[0] + 0.5 * r[1] + 0.3 * r[2],
}


@pytest.mark.parametrize("name", UTILITIES)
@pytest.mark.parametrize("beta", [0.3, 2.0])
def test_utilities_meet_their_bound_and_direct_ascent(name: str, beta: float) -> None:
    rewards, utility = normal(8, prompts=6, count=12) - torch.arange(3), UTILITIES[name]
    found = best_utility(rewards, utility, beta)
    assert -1e-12 <= found.gap < 1e-8
    gradient = torch.autograd.functional.jacobian(utility, found.rewards)  # weights = gradient of the utility at R
    torch.testing.assert_close(found.weights, gradient, rtol=1e-3, atol=1e-3)
    assert ascended(rewards, utility, beta) == pytest.approx(found.value, abs=1e-6)


def test_a_utility_outside_its_domain_needs_a_start() -> None:
    rewards = normal(9, objectives=2)
    best = oracle(rewards, [[1.0, 1.0]] * torch.ones(1, 2).numpy(), 0.05).rewards[0]
    near = best - torch.tensor([0.02, 0.02], dtype=F64)  # log(R - d) exists only beyond d
    with pytest.raises(DefinitionError, match=r"not finite at the rewards .* Pass start="):
        best_utility(rewards, lambda r: (r - near).log().sum(), 0.05, start=torch.tensor([1.0, 0.0]))
    found = best_utility(rewards, lambda r: (r - near).log().sum(), 0.05, start=torch.tensor([1.0, 1.0]))
    assert found.gap < 1e-7 and bool((found.rewards > near).all())


# --- best of n -------------------------------------------------------------------------------------------------------


def test_best_of_n_is_the_mean_over_all_subsets() -> None:
    """Six candidates with ties: every subset of n gives its best, ties split evenly; judges' values come along."""
    rewards = torch.tensor([[[0.0], [1.0], [1.0], [2.0], [2.0], [0.5]]], dtype=F64)
    judge = torch.tensor([[[5.0], [1.0], [3.0], [-1.0], [2.0], [0.0]]], dtype=F64)
    for n in range(1, 7):
        found = best_of_n(rewards, torch.ones(1, 1), n, values=judge)
        total = []
        for subset in itertools.combinations(range(6), n):
            top = max(rewards[0, i, 0].item() for i in subset)
            winners = [i for i in subset if rewards[0, i, 0] == top]
            total.append([top, sum(judge[0, i, 0].item() for i in winners) / len(winners)])
        means = torch.tensor(total, dtype=F64).mean(0)
        assert found.rewards.item() == pytest.approx(means[0].item())
        if n == 1:
            assert found.values.item() == pytest.approx(judge.mean().item())
    # two candidates tie at the top: with all six drawn, each of them half of the time
    assert best_of_n(rewards, torch.ones(1, 1), 6, values=judge).values.item() == pytest.approx(0.5)


def test_best_of_n_at_every_weight_with_padding() -> None:
    """n = 1 is the mean, n = N the best by the weights, with rewards of all objectives; padding never counts."""
    rewards = normal(10, prompts=5, count=9)
    mask = torch.ones(5, 9, dtype=torch.bool)
    mask[2, 6:] = False
    garbage = torch.where(mask[..., None], rewards, 99.0)
    weights = torch.as_tensor(grid(3, 2))
    mean = (rewards * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    torch.testing.assert_close(best_of_n(garbage, weights, 1, mask=mask).rewards[3], mean.mean(0), rtol=0, atol=1e-12)
    whole = normal(10, prompts=5, count=9)
    picks = (whole @ weights.T).argmax(1)  # [prompts, weights]
    wanted = torch.stack([whole[torch.arange(5), picks[:, k]].mean(0) for k in range(len(weights))])
    torch.testing.assert_close(best_of_n(whole, weights, 9).rewards, wanted, rtol=0, atol=1e-12)
    with pytest.raises(DefinitionError, match="n must be from 1 to 6"):
        best_of_n(garbage, weights, 7, mask=mask)


def test_best_of_n_is_nearly_as_good_as_the_tilt_of_equal_kl() -> None:
    """Normal rewards: best of 4 has 1.03 at KL .636; the tilt of that KL has sqrt(2 * .636) = 1.128."""
    rewards = torch.randn(400, 256, 1, generator=torch.Generator().manual_seed(0), dtype=F64)
    one = torch.ones(1, 1, dtype=F64)
    found = best_of_n(rewards, one, 4)
    assert found.kl_bound == pytest.approx(0.6363, abs=1e-4) and best_of_n_kl(16) == pytest.approx(1.8351, abs=1e-4)
    assert found.rewards.item() == pytest.approx(1.029, abs=0.01)
    tilt = oracle(rewards, one, kl_target(rewards, one, found.kl_bound)).rewards.item()
    assert found.rewards.item() < tilt == pytest.approx(1.128, abs=0.02)


# --- honest choices --------------------------------------------------------------------------------------------------


def test_choosing_flatters_and_other_candidates_tell() -> None:
    """One prompt, 16 candidates, beta .3, the best minimum of 11 weights: .31 on other candidates.

    Where it was chosen (8 candidates) it looks like .57. Means over 150 problems, standard errors near .03.
    """
    generator = torch.Generator().manual_seed(0)
    weights = grid(2, 10)
    inside, outside = [], []
    for seed in range(150):
        rewards = torch.randn(1, 16, 2, generator=generator, dtype=F64)
        found = cross_fit(rewards, weights, 0.3, lambda optima: int(optima.rewards.amin(-1).argmax()), seed=seed)
        inside.append(found.chosen_rewards.amin(-1).mean())
        outside.append(found.held_out_rewards.amin(-1).mean())
    assert float(torch.stack(outside).mean()) == pytest.approx(0.312, abs=0.09)
    assert float(torch.stack(inside).mean()) == pytest.approx(0.57, abs=0.09)


def test_every_candidate_is_held_out_once() -> None:
    """Nothing is chosen from one weight vector: held-out rewards at a huge beta average to the mean of all."""
    rewards = normal(11, prompts=7, count=24)
    found = cross_fit(rewards, grid(3, 1)[:1], 1e9, lambda optima: 0, folds=3)
    torch.testing.assert_close(found.rewards, rewards.mean((0, 1)), rtol=0, atol=1e-8)
    assert found.chosen == (0, 0, 0) and found.held_out_kl.shape == (3,)
    with pytest.raises(DefinitionError, match="leave 8 of the 24 candidates"):
        cross_fit(rewards, grid(3, 1), 1.0, lambda optima: 0, folds=4)
