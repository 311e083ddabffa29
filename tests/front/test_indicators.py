"""Indicators against worked numbers, closed forms, brute force and invariances."""

from __future__ import annotations

import warnings
from itertools import combinations, product
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pymoo.indicators.hv import HV
from pymoo.indicators.igd_plus import IGDPlus

from moalign.errors import DefinitionError, NumericsWarning
from moalign.front import (
    cardinality,
    epsilon_additive,
    expected_utility,
    hypervolume,
    hypervolume_contributions,
    hypervolume_improvement,
    igd,
    igd_plus,
    infer_reference_point,
    maximum_utility_loss,
    non_dominated,
    sparsity,
)

F = [[1, 3], [2, 2], [3, 1]]
Z = [[1, 2.5], [2, 1], [0.5, 0.5]]
CORNER = [0, 0]
W = [[1, 0], [0.5, 0.5], [0, 1]]

small_sets = st.tuples(st.integers(1, 6), st.integers(1, 4)).flatmap(
    lambda shape: arrays(np.float64, shape, elements=st.integers(-1, 4).map(float))
)


def union_of_boxes(points: np.ndarray, corner: np.ndarray) -> float:
    """Inclusion and exclusion over all subsets: |A or B| = |A| + |B| - |A and B|, for boxes [corner, p]."""
    return sum(
        (-1) ** (size + 1) * np.prod(np.maximum(np.min(subset, axis=0) - corner, 0))
        for size in range(1, len(points) + 1)
        for subset in combinations(points, size)
    )


def quiet_hypervolume(points, corner) -> float:
    return hypervolume(points, corner, unattained="ignore")


def test_hypervolume_by_hand() -> None:
    """F: columns of width 1 and heights 3, 2, 1 give 6. Z: (1,2.5) gives 2.5, (2,1) adds 1 x 1, (.5,.5) nothing."""
    assert hypervolume(F, CORNER) == 6
    assert hypervolume(Z, CORNER) == 3.5
    assert hypervolume([[3.0]], [1.0]) == 2


@pytest.mark.parametrize(("objectives", "total"), [(2, 7), (3, 7), (4, 7), (5, 8), (6, 8)])
def test_hypervolume_of_a_staircase_in_any_dimension(objectives: int, total: int) -> None:
    """All positive integer vectors of a given sum.

    The unit cube below a positive integer vector v is covered exactly when sum(v) <= total, and there are
    C(total, objectives) such vectors.
    """
    stairs = [v for v in product(range(1, total), repeat=objectives) if sum(v) == total]
    shuffled = np.random.default_rng(0).permutation(np.array(stairs, dtype=float))
    assert hypervolume(shuffled, np.zeros(objectives)) == pytest.approx(comb(total, objectives), rel=1e-12)


@settings(max_examples=30, deadline=None)
@given(small_sets)
def test_hypervolume_equals_inclusion_exclusion(points: np.ndarray) -> None:
    corner = np.zeros(points.shape[1])
    assert quiet_hypervolume(points, corner) == pytest.approx(union_of_boxes(points, corner), rel=1e-12, abs=1e-12)


def test_hypervolume_agrees_with_pymoo_on_negated_values() -> None:
    points = np.random.default_rng(1).random((60, 4))
    assert hypervolume(points, np.zeros(4)) == pytest.approx(HV(ref_point=np.zeros(4))(-points), rel=1e-12)


@settings(max_examples=30, deadline=None)
@given(small_sets, st.randoms(use_true_random=False))
def test_hypervolume_invariances(points: np.ndarray, random) -> None:
    """Order, repetition, dominated rows, translation; scaling by a multiplies by prod(a); adding a row never lowers."""
    objectives = points.shape[1]
    corner, scale = np.zeros(objectives), np.arange(1, objectives + 1) / 2
    value = quiet_hypervolume(points, corner)
    order = random.sample(range(len(points)), len(points))
    close = {"rel": 1e-12, "abs": 1e-12}
    assert quiet_hypervolume(points[order], corner) == pytest.approx(value, **close)
    assert quiet_hypervolume(np.vstack([points, points, points - 1]), corner) == pytest.approx(value, **close)
    assert quiet_hypervolume(points + 5, corner + 5) == pytest.approx(value, **close)
    assert quiet_hypervolume(points * scale, corner) == pytest.approx(value * np.prod(scale), **close)
    assert quiet_hypervolume(points[:-1], corner) <= value + 1e-12


def test_a_point_that_is_not_above_the_corner_everywhere_adds_nothing() -> None:
    assert hypervolume([*F, [-1, 50], [0, 9]], CORNER) == 6


def test_unattained_reference_point_warns_raises_or_stays_quiet() -> None:
    with pytest.warns(NumericsWarning, match="objective 0: reference point 0, best value -1"):
        assert hypervolume([[-1, 5]], CORNER) == 0
    with pytest.raises(DefinitionError, match="lower reference point"):
        hypervolume([[-1, 5]], CORNER, unattained="raise")
    with pytest.raises(DefinitionError, match="never all of them by one"):
        hypervolume([[-1, 5], [5, -1]], CORNER, unattained="raise")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert hypervolume([[-1, 5]], CORNER, unattained="ignore") == 0
        assert hypervolume(np.zeros((0, 2)), CORNER) == 0


def test_contributions_by_hand() -> None:
    """Each step of F has one unit square of its own; the square of a repeated point belongs to neither copy."""
    assert hypervolume_contributions(F, CORNER).tolist() == [1, 1, 1]
    assert hypervolume_contributions([[1, 3], [2, 2], [3, 1], [2, 2]], CORNER).tolist() == [1, 0, 1, 0]


@settings(max_examples=30, deadline=None)
@given(small_sets)
def test_contributions_are_what_is_lost_without_the_row(points: np.ndarray) -> None:
    corner = np.zeros(points.shape[1])
    total = quiet_hypervolume(points, corner)
    lost = [total - quiet_hypervolume(np.delete(points, i, axis=0), corner) for i in range(len(points))]
    exclusive = hypervolume_contributions(points, corner)
    np.testing.assert_allclose(exclusive, lost, atol=1e-9)
    assert exclusive.sum() <= total + 1e-9
    assert (exclusive[~non_dominated(points, keep_duplicates=True)] == 0).all()


@settings(max_examples=30, deadline=None)
@given(small_sets)
def test_improvement_is_what_a_row_adds(points: np.ndarray) -> None:
    corner = np.zeros(points.shape[1])
    rest, candidates = points[:-1], points[-1:] + [[0.5] * points.shape[1], [0.0] * points.shape[1]]
    gains = [quiet_hypervolume(np.vstack([rest, q]), corner) - quiet_hypervolume(rest, corner) for q in candidates]
    np.testing.assert_allclose(hypervolume_improvement(rest, candidates, corner), gains, atol=1e-9)


def test_improvement_keeps_its_digits_beside_a_large_hypervolume() -> None:
    """The new sliver is 1e-9 x 1; the difference of two volumes near 1e12 could not show it."""
    gain = hypervolume_improvement([[1e6, 1e6]], [[1e6 + 1e-9, 1.0]], CORNER)
    assert gain[0] == pytest.approx((1e6 + 1e-9 - 1e6) * 1.0, rel=1e-3)


def test_distances_to_a_reference_set_by_hand() -> None:
    """Nearest in Z: (1,3) -> (1,2.5) at .5; (2,2) -> (2,1) at 1; (3,1) -> (2,1) at 1: mean 2.5 / 3, all shortfalls.

    The largest shift needed is 1, for (2,2) and (3,1).
    """
    assert igd(Z, F) == pytest.approx(2.5 / 3)
    assert igd_plus(Z, F) == pytest.approx(2.5 / 3)
    assert epsilon_additive(Z, F) == pytest.approx(1)


def test_dominating_the_reference_set() -> None:
    """F + 1 dominates F: no shortfall, yet every point of F is sqrt(2) away from its nearest one; the shift is -1."""
    better = np.array(F) + 1
    assert igd_plus(better, F) == 0
    assert igd(better, F) == pytest.approx(np.sqrt(2))
    assert epsilon_additive(better, F) == -1


def test_a_set_is_at_no_distance_from_itself() -> None:
    assert igd(F, F) == igd_plus(F, F) == epsilon_additive(F, F) == maximum_utility_loss(F, F, W) == 0


def test_igd_plus_agrees_with_pymoo_only_on_negated_values() -> None:
    generator = np.random.default_rng(2)
    points, reference = generator.random((20, 3)), generator.random((30, 3)) + 0.3
    assert igd_plus(points, reference) == pytest.approx(IGDPlus(-reference)(-points), rel=1e-12)


def test_expected_utility_by_hand() -> None:
    """Best sums for (1,0), (.5,.5), (0,1): F 3, 2, 3; Z 2, 1.75, 2.5."""
    assert expected_utility(F, W) == pytest.approx(8 / 3)
    assert expected_utility(Z, W) == pytest.approx(6.25 / 3)


def test_expected_utility_is_the_same_when_cut_into_chunks() -> None:
    generator = np.random.default_rng(3)
    points, weights = generator.standard_normal((10_000, 3)), generator.dirichlet(np.ones(3), 50)
    assert expected_utility(points, weights) == pytest.approx((weights @ points.T).max(axis=1).mean(), rel=1e-12)


def test_adding_points_never_lowers_expected_utility() -> None:
    assert expected_utility([*Z, *F], W) >= max(expected_utility(Z, W), expected_utility(F, W))


def test_maximum_utility_loss_by_hand_and_signed() -> None:
    """Losses of Z against F: 3-2, 2-1.75, 3-2.5. The other way round the least gain of F is .25, a loss of -.25."""
    assert maximum_utility_loss(Z, F, W) == pytest.approx(1)
    assert maximum_utility_loss(F, Z, W) == pytest.approx(-0.25)


def test_sparsity_by_hand() -> None:
    """F: two gaps of 1 in each of two objectives, (1+1+1+1) / 2; repeated and dominated rows do not count."""
    assert sparsity(F) == 2
    assert sparsity([*F, [2, 2], [2, 1]]) == 2
    assert sparsity(F[:1]) == 0


def test_cardinality_counts_distinct_non_dominated_rows() -> None:
    assert cardinality([*F, [2, 2], [2, 1]]) == 3
    assert cardinality(np.zeros((0, 2))) == 0


def test_reference_point_a_tenth_below_the_nadir() -> None:
    """F ranges over [1, 3] in both objectives: 1 - .1 * 2. A single point steps down by a tenth of its size."""
    np.testing.assert_allclose(infer_reference_point(F), [0.8, 0.8])
    np.testing.assert_allclose(infer_reference_point([*F, [0.0, 0.0]]), [0.8, 0.8])  # dominated: does not count
    np.testing.assert_allclose(infer_reference_point([[1, 3]]), [0.9, 2.7])
    np.testing.assert_allclose(infer_reference_point([[0, -3]], scale=0.2), [-0.2, -3.6])
    assert hypervolume([[0, -3]], infer_reference_point([[0, -3]])) > 0


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan")])
def test_reference_point_needs_a_positive_scale(scale: float) -> None:
    with pytest.raises(DefinitionError, match="scale"):
        infer_reference_point(F, scale)


@pytest.mark.parametrize(
    "call",
    [
        lambda points: hypervolume(points, CORNER),
        lambda points: hypervolume_contributions(points, CORNER),
        lambda points: hypervolume_improvement(points, F, CORNER),
        lambda points: hypervolume_improvement(F, points, CORNER),
        lambda points: igd(points, F),
        lambda points: igd(F, points),
        lambda points: igd_plus(points, F),
        lambda points: epsilon_additive(points, F),
        lambda points: expected_utility(points, W),
        lambda points: expected_utility(F, points),
        lambda points: maximum_utility_loss(points, F, W),
        lambda points: maximum_utility_loss(F, points, W),
        sparsity,
        cardinality,
        infer_reference_point,
    ],
)
def test_every_indicator_refuses_nan_by_row_and_a_bare_point(call) -> None:
    with pytest.raises(DefinitionError, match="rows 1"):
        call([[1.0, 2.0], [np.nan, 1.0]])
    with pytest.raises(DefinitionError, match="two dimensions"):
        call([1.0, 2.0])


@pytest.mark.parametrize(
    "call",
    [
        lambda points: igd(points, F),
        lambda points: igd_plus(F, points),
        lambda points: epsilon_additive(points, F),
        lambda points: expected_utility(points, W),
        lambda points: maximum_utility_loss(points, F, W),
        infer_reference_point,
    ],
)
def test_indicators_without_a_meaning_for_an_empty_set_refuse_it(call) -> None:
    with pytest.raises(DefinitionError, match="empty"):
        call(np.zeros((0, 2)))


def test_an_empty_set_has_no_volume_contributions_or_gaps() -> None:
    empty = np.zeros((0, 2))
    assert hypervolume(empty, CORNER) == sparsity(empty) == 0
    assert hypervolume_contributions(empty, CORNER).shape == hypervolume_improvement(F, empty, CORNER).shape == (0,)
    assert hypervolume_improvement(empty, F, CORNER).tolist() == [3, 4, 3]


def test_shapes_must_agree() -> None:
    with pytest.raises(DefinitionError, match="reference_point"):
        hypervolume(F, [0, 0, 0])
    with pytest.raises(DefinitionError, match="3 columns but points has 2"):
        igd(F, [[1, 2, 3]])
    with pytest.raises(DefinitionError, match="infinite"):
        hypervolume([[np.inf, 1]], CORNER)


def test_the_input_is_left_as_it_was() -> None:
    points, corner = np.array(F, dtype=float), np.zeros(2)
    hypervolume(points, corner), hypervolume_contributions(points, corner), igd(points, points)
    assert points.tolist() == F and corner.tolist() == [0, 0]
