"""Scalarisations meet their limits, bounds and derivatives; numpy and torch give the same numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from moalign.errors import DefinitionError
from moalign.rewards import scalarisation as s

POSITIVE = st.lists(st.floats(0.01, 100), min_size=1, max_size=5)
REWARDS = st.lists(st.floats(-50, 50), min_size=1, max_size=5)
WEIGHTS = np.array([0.2, 0.3, 0.5])
R = np.array([1.0, 2.0, 4.0])
IDEAL = np.array([5.0, 5.0, 5.0])


def close(a, b, tolerance=1e-12):
    return a == pytest.approx(b, abs=tolerance, rel=tolerance)


def test_log_sigmoid_is_exact_where_the_plain_formula_overflows():
    """z = -800: log sigmoid = z; z = 800: -exp(-800) = 0; its derivative is 1 - sigmoid(z), 1/2 at 0."""
    z = torch.tensor([-800.0, -3.0, 0.0, 3.0, 800.0], dtype=torch.float64, requires_grad=True)
    values = s.log_sigmoid(z)
    values.sum().backward()
    assert values.tolist() == pytest.approx([-800, -3.0485873515737, -math.log(2), -0.04858735157374, 0])
    assert z.grad.tolist() == pytest.approx((1 - torch.sigmoid(z)).tolist())


def test_log_and_and_or_of_the_worked_rows():
    """Rows (3, -3), (0, 0), (1, 1): log AND -3.0972, -1.3863, -0.6265 and OR 0.9548, 0.75, 1 - sigmoid(-1)^2."""
    u = s.log_sigmoid(np.array([[3.0, -3.0], [0.0, 0.0], [1.0, 1.0]]))
    assert s.all_of(u) == pytest.approx([-3.0972, -1.3863, -0.6265], abs=5e-5)
    assert np.exp(s.any_of(u)) == pytest.approx([0.9548, 0.75, 1 - 0.2689414**2], abs=5e-5)
    assert s.linear([[3.0, -3.0], [0.0, 0.0]], [1, 1]).tolist() == [0, 0], "a plain sum cannot tell them apart"


@settings(max_examples=60, deadline=None)
@given(REWARDS)
def test_or_and_and_obey_de_morgan_and_or_is_at_least_the_likeliest(z):
    """OR(p) = 1 - AND(1 - p), and log(1 - sigmoid(z)) = log sigmoid(-z)."""
    z = np.array(z)
    either, neither = s.any_of(s.log_sigmoid(z)), s.all_of(s.log_sigmoid(-z))
    assert close(either, s.log_complement(neither), 1e-9)
    assert s.log_sigmoid(z).max() - 1e-12 <= either <= 0


def test_or_of_hopeless_and_of_certain_events_keeps_its_digits_and_its_gradient():
    """p = e^-700 and e^-800: log OR = -700. A certain event (u = 0) gives log OR 0, without NaN in the gradient."""
    u = torch.tensor([[-800.0, -700.0], [0.0, -1.0], [-1e-30, -1e-30]], dtype=torch.float64, requires_grad=True)
    values = s.any_of(u)
    values.sum().backward()
    assert values.tolist() == pytest.approx([-700, 0, 0], abs=1e-12)
    assert torch.isfinite(u.grad).all() and u.grad[0, 1] == 1


@settings(max_examples=60, deadline=None)
@given(POSITIVE, st.floats(-6, 6))
def test_the_generalised_mean_lies_between_its_limits_and_grows_with_the_power(values, power):
    values, weights = np.array(values), np.full(len(values), 1 / len(values))
    at = [float(s.generalised_mean(values, weights, p)) for p in (-math.inf, power, power + 0.5, math.inf)]
    assert at[0] == values.min() and at[3] == values.max()
    assert all(low <= high * (1 + 1e-9) for low, high in zip(at, at[1:], strict=False))


def test_the_generalised_mean_of_one_two_four():
    """w = (.2, .3, .5): p = 1 gives 2.8, p = -1 1 / (.2 + .15 + .125) = 2.10526, p = 0 2^(0.3 + 1.0) = 2^1.3."""
    for power, expected in (
        (1, 2.8),
        (-1, 1 / 0.475),
        (0, 2**1.3),
        (2, math.sqrt(9.4)),
        (0.5, (0.2 + 0.3 * 2**0.5 + 1) ** 2),
    ):
        assert close(float(s.generalised_mean(R, WEIGHTS, power)), expected)
    for tiny in (1e-15, 1e-9, -1e-9):  # continuous through p = 0; the plain formula is off by 1e-7 at 1e-9
        assert float(s.generalised_mean(R, WEIGHTS, tiny)) == pytest.approx(2**1.3, rel=1e-8)
    assert float(s.generalised_mean(R, [0, 0.5, 0.5], -math.inf)) == 2, "weight 0 does not count"
    assert float(s.generalised_mean(R, [0.5, 0.5, 0], 5000)) == pytest.approx(2, rel=1e-3)
    with pytest.raises(DefinitionError, match="rewards > 0, got -1"):
        s.generalised_mean([1.0, -1.0], [0.5, 0.5], -1)


def test_chebyshev_picks_the_middle_that_no_linear_weight_picks():
    """Points (1, 0), (0, 1), (.45, .45): linear never picks the third; shortfalls .5, .5, .275."""
    points = np.array([[1, 0], [0, 1], [0.45, 0.45]])
    assert all(s.linear(points, [w, 1 - w]).argmax() != 2 for w in np.linspace(0, 1, 101))
    assert s.chebyshev(points, [0.5, 0.5], [1, 1]).tolist() == pytest.approx([-0.5, -0.5, -0.275])
    assert s.smooth_chebyshev(points, [0.5, 0.5], [1, 1], 0.05) == pytest.approx([-0.5, -0.5, -0.3097], abs=5e-5)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(*[st.floats(-5, 5)] * 3), min_size=2, max_size=6), st.integers(0, 5))
def test_every_pareto_point_is_chebyshev_optimal_for_its_own_weights(points, which):
    """With w proportional to 1 / (ideal - R) all shortfalls of R are equal, so a better point would dominate R."""
    points = np.array(points)
    target = points[which % len(points)]
    if any((p >= target).all() and (p > target).any() for p in points):
        return
    weights = 1 / (6 - target)
    values = s.chebyshev(points, weights / weights.sum(), [6, 6, 6])
    own = s.chebyshev(target, weights / weights.sum(), [6, 6, 6])
    assert values.max() <= own + 1e-12


def test_augmentation_tells_a_weakly_efficient_tie_apart():
    """(1, 0) and (1, 1) against the ideal (2, 2): the largest shortfall with w = (.9, .1) is .9 for both."""
    points = [[1.0, 0.0], [1.0, 1.0]]
    assert s.chebyshev(points, [0.9, 0.1], [2, 2]).tolist() == pytest.approx([-0.9, -0.9])
    assert s.chebyshev(points, [0.9, 0.1], [2, 2], augment=0.05).tolist() == pytest.approx([-0.955, -0.95])
    plain = s.chebyshev(points, [0.9, 0.1], [2, 2], augment=0.05, plain=True)
    assert plain.tolist() == pytest.approx([-0.9 - 0.05 * 3, -0.9 - 0.05 * 2])


@settings(max_examples=40, deadline=None)
@given(REWARDS, st.floats(1e-3, 10))
def test_smooth_chebyshev_is_within_mu_log_m_and_its_gradient_is_a_softmax(values, mu):
    count = len(values)
    weights = np.full(count, 1 / count)
    hard, smooth = s.chebyshev(values, weights, 60), s.smooth_chebyshev(values, weights, 60, mu)
    assert hard - mu * math.log(count) - 1e-9 <= smooth <= hard + 1e-9
    tensor = torch.tensor(values, dtype=torch.float64, requires_grad=True)
    s.smooth_chebyshev(tensor, weights, 60, mu).backward()
    softmax = torch.softmax(torch.from_numpy(weights) * (60 - tensor.detach()) / mu, -1)
    assert tensor.grad.tolist() == pytest.approx((softmax / count).tolist(), abs=1e-9)


def test_ordered_means_cvar_and_the_fractional_atom():
    """Of 1, 2, 3, 4 the worst 37.5 % are 1 and half of 2: (1 + 0.5 * 2) / 1.5 = 4/3; 25 % is 1, all is 2.5."""
    values = np.array([3.0, 1.0, 4.0, 2.0])
    assert s.ordered_mean(values, [1, 0, 0, 0]) == 1 and s.ordered_mean(values, [0, 0, 0, 1]) == 4
    for level, expected in ((0.375, 4 / 3), (0.25, 1), (0.1, 1), (1, 2.5)):
        assert close(float(s.cvar(values, level)), expected)
        assert close(float(s.cvar(values, level, [0.25] * 4)), expected)
    # Groups of unequal size: the worst half holds all of group 2 (10 %), and 40 of the 60 % of group 0.
    assert close(float(s.cvar([5.0, 9.0, 1.0], 0.5, [0.6, 0.3, 0.1])), (0.1 * 1 + 0.4 * 5) / 0.5)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(-4, 4), min_size=3, max_size=3), min_size=2, max_size=6))
def test_leximin_weights_order_points_as_leximin_does(points):
    """The order by sorted tuples is leximin's definition; multiples of 1 within a spread of 8 are exact."""
    points = np.array(points, dtype=float)
    by_definition = sorted({tuple(sorted(p)) for p in points.tolist()})
    ranks = s.leximin_ranks(points)
    assert ranks.tolist() == [by_definition.index(tuple(sorted(p))) for p in points.tolist()]
    scores = s.ordered_mean(points, s.leximin_weights(3, 1, 8))
    assert all((scores[i] < scores[j]) == (ranks[i] < ranks[j]) for i in range(len(points)) for j in range(len(points)))


def test_soft_worst_lies_between_the_worst_and_the_mean_and_reaches_both():
    assert s.soft_worst(R, 1e-3) == pytest.approx(1, abs=2e-3) and s.soft_worst(R, 1e6) == pytest.approx(
        R.mean(), abs=1e-5
    )
    assert s.worst(R) < s.soft_worst(R, 1.0) < R.mean()


def test_nash_welfare_ignores_the_unit_of_an_objective():
    """Multiplying one gain by c adds a log c to every point, so the best point stays the best."""
    points = np.array([[1.0, 4.0], [2.0, 2.5], [4.0, 1.0]])
    plain = s.nash_welfare(points, [0.5, 0.5], 0)
    assert plain == pytest.approx([math.log(2), math.log(5) / 2, math.log(2)])
    scaled = s.nash_welfare(points * [1000, 1], [0.5, 0.5], 0)
    assert scaled - plain == pytest.approx([0.5 * math.log(1000)] * 3)
    with pytest.raises(DefinitionError, match="above the disagreement values, got 1"):
        s.nash_welfare(points, [0.5, 0.5], [1, 0])


FUNCTIONS = {
    "linear": lambda x: s.linear(x, WEIGHTS),
    "chebyshev": lambda x: s.chebyshev(x, WEIGHTS, IDEAL, augment=0.05),
    "smooth": lambda x: s.smooth_chebyshev(x, WEIGHTS, IDEAL, 0.5),
    "geometric": lambda x: s.generalised_mean(x, WEIGHTS, 0),
    "nearly geometric": lambda x: s.generalised_mean(x, WEIGHTS, 1e-6),
    "harmonic": lambda x: s.generalised_mean(x, [0, 0.5, 0.5], -1),
    "ordered": lambda x: s.ordered_mean(x, WEIGHTS),
    "cvar": lambda x: s.cvar(x, 0.5),
    "cvar of shares": lambda x: s.cvar(x, 0.5, WEIGHTS),
    "worst": s.worst,
    "soft worst": lambda x: s.soft_worst(x, 0.7),
    "nash": lambda x: s.nash_welfare(x, WEIGHTS, 0.5),
    "and": lambda x: s.all_of(-x, WEIGHTS),
    "or": lambda x: s.any_of(-x),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_numpy_and_torch_agree_leading_axes_are_free_and_gradients_are_right(name):
    function = FUNCTIONS[name]
    values = np.random.default_rng(0).uniform(0.6, 3, (2, 4, 3))
    batched = function(values)
    assert batched.shape == (2, 4)
    assert close(batched[1, 2], float(function(values[1, 2])))
    tensor = torch.from_numpy(values).requires_grad_()
    assert np.allclose(function(tensor).detach().numpy(), batched, atol=1e-13)
    assert torch.autograd.gradcheck(function, (tensor,))
    assert function(tensor.float()).dtype == torch.float32


def test_weights_may_differ_per_row_and_carry_gradients():
    weights = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64, requires_grad=True)
    values = torch.from_numpy(np.stack([R, R]))
    result = s.linear(values, weights)
    result.sum().backward()
    assert result.tolist() == [1, 4] and weights.grad.tolist() == values.tolist()


def test_arguments_that_do_not_fit_are_refused():
    with pytest.raises(DefinitionError, match="2 numbers are given for 3 objectives"):
        s.linear(R, [0.5, 0.5])
    with pytest.raises(DefinitionError, match="axis of objectives, got shape"):
        s.worst(np.zeros((4, 0)))
    with pytest.raises(DefinitionError, match="at most 0, got 1"):
        s.any_of([1.0, -1.0])
    assert s.worst(np.zeros((0, 3))).shape == (0,), "no rows is a result, no objectives is not"
    assert np.isnan(s.worst([math.nan, 1.0])), "NaN is not measured, and stays visible"
