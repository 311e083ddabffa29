"""MaxMin and its welfares reach the saddle points and optima that the oracle computes; limits are exact."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import moalign as ma
from moalign.methods import MORLHF, MaxMin
from moalign.methods.welfare import CVaR, Mean, Nash, PowerMean, Worst, marginal_weights
from moalign.oracle import best_utility, maximin, policy_values
from moalign.policy.engine import Engine
from moalign.policy.on_policy import Rollouts
from moalign.policy.train import constant
from moalign.store import Store
from tests.methods.enumerable import BETA, all_answers, problem, short_training

EVEN = np.array([[0.5, 0.5]])


def fitted(method: Any, weights: np.ndarray = EVEN) -> tuple[Any, Any]:
    """Trains on the enumerable problem; returns the policies and their exact values."""
    study = problem()
    engine = Engine(study.policy, seed=0, device="cpu")
    policies = method.fit(study, weights, engine)
    known = all_answers(engine)
    log_policy = torch.from_numpy(engine.log_probs(known.responses, policies.stack))[:, None]
    return policies, policy_values(log_policy, known.rewards, log_base=known.log_base)


@pytest.mark.slow
def test_the_policy_reaches_the_saddle_point() -> None:
    """value = min_g F_g - beta KL is within 5% of the maximin optimum's gain; weights and utilities agree."""
    known = all_answers(Engine(problem().policy, seed=0, device="cpu"))
    best = maximin(known.rewards, BETA, log_base=known.log_base)
    start = float(policy_values(known.log_base, known.rewards, log_base=known.log_base).rewards.min())
    policies, exact = fitted(MaxMin(beta=BETA, rate=0.1, **short_training(steps=120)))
    value = float(exact.rewards[0].min() - BETA * exact.kl[0])
    assert 0.95 < (value - start) / (best.value - start) <= 1 + 1e-6
    assert exact.rewards[0].tolist() == pytest.approx(best.rewards.tolist(), abs=0.03)
    facts = policies.facts["maxmin"]
    assert facts["weights"][0] == pytest.approx(best.weights.tolist(), abs=0.03)
    assert facts["utilities"][0] == pytest.approx(exact.rewards[0].tolist(), abs=0.12)
    assert 0 <= facts["gap"][0] < 0.15


@pytest.mark.slow
@pytest.mark.parametrize(
    ("welfare", "utility"),
    [
        (Nash(disagreement=-0.2), lambda r: 0.5 * (r + 0.2).log().sum()),
        (PowerMean(power=-1.0, floor=-0.2), lambda r: 1 / (0.5 / (r + 0.2)).sum()),
        (Worst(temperature=0.4), lambda r: -0.4 * torch.logsumexp(-r / 0.4 + np.log(0.5), 0)),
    ],
)
def test_other_welfares_reach_the_optimum_of_the_oracle(welfare: Any, utility: Callable[..., Any]) -> None:
    known = all_answers(Engine(problem().policy, seed=0, device="cpu"))
    best = best_utility(known.rewards, utility, BETA, log_base=known.log_base)
    start = float(utility(policy_values(known.log_base, known.rewards, log_base=known.log_base).rewards))
    _, exact = fitted(MaxMin(beta=BETA, welfare=welfare, **short_training(steps=60)))
    value = float(utility(exact.rewards[0]) - BETA * exact.kl[0])
    assert 0.95 < (value - start) / (best.value - start) <= 1 + 1e-6


def test_one_group_is_single_reward_alignment_and_the_mean_is_the_weighted_sum() -> None:
    """To the bit: with one group, or one that has all the share, every welfare trains like MORLHF."""
    shares = np.array([[1.0, 0.0], [0.25, 0.75]])
    settings = short_training(steps=4)
    linear, _ = fitted(MORLHF(beta=BETA, **settings), shares)
    mean, _ = fitted(MaxMin(beta=BETA, welfare=Mean(), **settings), shares)
    assert mean.stack.matrix.equal(linear.stack.matrix)
    linear, _ = fitted(MORLHF(beta=BETA, **settings), np.eye(2))
    for inner in ("mirror", "gradient", "sample"):
        alone, _ = fitted(MaxMin(beta=BETA, inner=inner, **settings), np.eye(2))
        assert alone.stack.matrix.equal(linear.stack.matrix), inner


def test_a_run_that_is_stopped_goes_on_with_the_same_bits_and_the_same_adversary(tmp_path: Path) -> None:
    study, method = problem(), MaxMin(beta=BETA, **short_training(steps=6))
    whole = Engine(study.policy, seed=0, device="cpu")
    wanted = method.fit(study, EVEN, whole)
    records = Store(tmp_path).create("x", {}, info={})
    with records.drive():
        calls = iter([False, False, True])
        stopped = Engine(study.policy, workspace=records, seed=0, device="cpu", should_stop=lambda: next(calls))
        with pytest.raises(KeyboardInterrupt):
            method.fit(study, EVEN, stopped)
        again = Engine(study.policy, workspace=records, seed=0, device="cpu")
        policies = method.fit(study, EVEN, again)
        loaded = Engine(study.policy, workspace=records, seed=0, device="cpu")
        assert method.fit(study, EVEN, loaded).facts == policies.facts == wanted.facts
    assert policies.stack.matrix.equal(wanted.stack.matrix)
    assert np.array_equal(again.dual("maxmin"), whole.dual("maxmin"))


def test_mirror_ascent_moves_by_the_differences_of_utilities() -> None:
    """After T batches of utilities F: weights in proportion to exp(-rate T F), whatever is added to all of F."""
    method = MaxMin(rate=0.5, training=ma.Training(schedule=constant, warmup=0))
    shares = torch.tensor([[0.25, 0.25, 0.5, 0.0]], dtype=torch.float64)
    utilities = torch.tensor([[0.3, -0.2, 0.1, -9.0]], dtype=torch.float64)
    states = []
    for shift in (0.0, 7.0):
        dual = torch.cat([shares, torch.zeros(1, 9, dtype=torch.float64)], dim=1)
        for _ in range(3):
            dual = method._move((utilities + shift)[:, None, None], {}, {"dual": dual, "shares": shares})
        states.append(dual[0, :4])
    wanted = shares * torch.exp(-0.5 * 3 * utilities) * (shares > 0)
    assert states[0].tolist() == pytest.approx((wanted / wanted.sum())[0].tolist(), abs=1e-12)
    assert states[1].tolist() == pytest.approx(states[0].tolist(), abs=1e-12)


def test_the_hard_minimum_puts_all_weight_on_the_worst_group_of_the_batch() -> None:
    method = MaxMin(inner="gradient", memory=0.0, baseline=(0.0, 1.0))
    shares = torch.full((2, 2), 0.5, dtype=torch.float64)
    rewards = torch.tensor([[0.2, 0.9], [0.2, 2.0]], dtype=torch.float64)[:, None, None]  # regrets .2, -.1 and .2, 1
    dual = torch.cat([shares, torch.zeros(2, 5, dtype=torch.float64)], dim=1)
    assert method._move(rewards, {}, {"dual": dual, "shares": shares})[:, :2].tolist() == [[0, 1], [1, 0]]


def test_per_sample_minimum_is_another_objective() -> None:
    """r_1 = (1, 0), r_2 = (0, 1): each response's minimum is 0, though both groups could have 1/2."""
    rewards = torch.eye(2, dtype=torch.float64)[None, None]
    policy = {"shares": torch.full((1, 2), 0.5, dtype=torch.float64)}
    assert MaxMin(inner="sample")._utility(rewards, policy).tolist() == [[[0, 0]]]


U = torch.tensor([[0.2, 0.5, 1.4]], dtype=torch.float64)
A = torch.tensor([[0.2, 0.3, 0.5]], dtype=torch.float64)


@pytest.mark.parametrize(
    ("welfare", "wanted"),
    [
        (Mean(), A[0].tolist()),
        (Worst(), [1, 0, 0]),
        (CVaR(level=1.0), A[0].tolist()),
        (CVaR(level=0.2), [1, 0, 0]),
        (CVaR(level=0.4), [0.5, 0.5, 0]),
        (Nash(), (A / U)[0].tolist()),
        (Nash(disagreement=(0.0, 0.1, 0.4)), [1.0, 0.75, 0.5]),
        (PowerMean(power=1.0), A[0].tolist()),
        (PowerMean(power=-float("inf")), [1, 0, 0]),
        (Worst(temperature=0.3), torch.softmax(A.log() - U / 0.3, -1)[0].tolist()),
    ],
)
def test_marginal_weights_of_welfares(welfare: Any, wanted: list[float]) -> None:
    assert marginal_weights(welfare, U, A)[0].tolist() == pytest.approx(wanted, abs=1e-12)


def test_welfares_agree_at_their_limits_and_a_tie_is_shared() -> None:
    worst = marginal_weights(Worst(), U, A)
    assert marginal_weights(Worst(temperature=1e-3), U, A).tolist()[0] == pytest.approx(worst.tolist()[0], abs=1e-6)
    assert marginal_weights(Worst(temperature=1e6), U, A).tolist()[0] == pytest.approx(A.tolist()[0], abs=1e-5)
    geometric, nash = marginal_weights(PowerMean(power=0.0), U, A), marginal_weights(Nash(), U, A)
    assert (geometric / geometric.sum()).tolist()[0] == pytest.approx((nash / nash.sum()).tolist()[0], abs=1e-9)
    tie = torch.tensor([[0.2, 0.2, 0.9]], dtype=torch.float64)
    assert marginal_weights(Worst(), tie, A).tolist() == [[0.5, 0.5, 0]]
    absent = torch.tensor([[0.0, 0.4, 0.6]], dtype=torch.float64)
    for welfare in (Worst(), Worst(temperature=0.2), CVaR(level=0.4), Nash(), PowerMean(power=-1)):
        assert marginal_weights(welfare, U, absent)[0, 0] == 0, welfare
    below = torch.tensor([[-3.0, 0.5, 1.0]], dtype=torch.float64)
    assert marginal_weights(Nash(least=0.1), below, A)[0].tolist() == pytest.approx([2.0, 0.6, 0.5])


def test_refusals() -> None:
    study = problem()
    assert "2 groups" in MaxMin(baseline=(1.0,)).problems(study, EVEN)[0]
    assert "there are 2" in MaxMin(welfare=Nash(disagreement=(0, 0, 0))).problems(study, EVEN)[0]
    without = ma.Problem(policy=study.policy, objectives=study.objectives)
    assert "prompts" in MaxMin().problems(without, EVEN)[0]
    with pytest.raises(ma.DefinitionError, match=r"rate must be > 0, got 0") as caught:
        MaxMin(rate=0, inner="mirror", welfare=Mean())
    assert "for the minimum" in str(caught.value)
    with pytest.raises(ma.DefinitionError, match="favours inequality"):
        PowerMean(power=2)
    with pytest.raises(ma.DefinitionError, match="level must be"):
        CVaR(level=0)
    assert Rollouts().sampling.samples >= 2
