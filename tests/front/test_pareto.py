"""Dominance against hand-made examples, a brute-force loop and pymoo (which minimises)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pymoo.util.nds.non_dominated_sorting import NonDominatedSorting

from moalign.errors import DefinitionError
from moalign.front import crowding_distance, non_dominated, pareto_rank

STAIRS = [[1, 3], [2, 2], [3, 1]]
WITH_COPIES = [[1, 3], [2, 2], [3, 1], [2, 2], [2, 1]]  # a repetition and a dominated row

# Few distinct values, so that ties and repetitions are frequent.
small_sets = st.tuples(st.integers(1, 12), st.integers(1, 4)).flatmap(
    lambda shape: arrays(np.float64, shape, elements=st.integers(0, 3).map(float))
)


def dominates(a: np.ndarray, b: np.ndarray) -> bool:
    return bool((a >= b).all() and (a > b).any())


def test_mask_marks_the_first_of_equal_rows_or_all_of_them() -> None:
    """(2,1) is dominated by (2,2); equal rows do not dominate each other."""
    assert non_dominated(WITH_COPIES).tolist() == [True, True, True, False, False]
    assert non_dominated(WITH_COPIES, keep_duplicates=True).tolist() == [True, True, True, True, False]


@settings(max_examples=30, deadline=None)
@given(small_sets)
def test_mask_agrees_with_comparing_all_pairs(points: np.ndarray) -> None:
    expected = [not any(dominates(other, row) for other in points) for row in points]
    assert non_dominated(points, keep_duplicates=True).tolist() == expected
    first = [bool(keep) and not (points[:i] == points[i]).all(axis=1).any() for i, keep in enumerate(expected)]
    assert non_dominated(points).tolist() == first


@settings(max_examples=30, deadline=None)
@given(small_sets)
def test_rank_is_the_number_of_peeled_fronts(points: np.ndarray) -> None:
    ranks = pareto_rank(points)
    left, rank = np.ones(len(points), dtype=bool), 0
    while left.any():
        layer = np.flatnonzero(left)[non_dominated(points[left], keep_duplicates=True)]
        assert (ranks[layer] == rank).all()
        left[layer] = False
        rank += 1


def test_first_front_agrees_with_pymoo_on_negated_values() -> None:
    points = np.random.default_rng(0).random((200, 3)).round(1)
    front = NonDominatedSorting().do(-points, only_non_dominated_front=True)
    assert set(np.flatnonzero(non_dominated(points, keep_duplicates=True))) == set(front.tolist())


def test_minus_infinity_is_comparable_and_plus_infinity_is_not() -> None:
    assert non_dominated([[-np.inf, 1.0], [0.0, 0.0]]).tolist() == [True, True]
    with pytest.raises(DefinitionError, match=r"\+inf in rows \[1\]"):
        non_dominated([[0.0, 1.0], [np.inf, 0.0]])


@pytest.mark.parametrize("function", [non_dominated, pareto_rank, crowding_distance])
def test_nan_is_refused_by_row_and_one_point_must_be_a_row(function) -> None:
    with pytest.raises(DefinitionError, match="rows 1, 3"):
        function([[0.0, 1.0], [np.nan, 1.0], [1.0, 1.0], [1.0, np.nan]])
    with pytest.raises(DefinitionError, match="two dimensions"):
        function([1.0, 2.0])


@pytest.mark.parametrize("function", [non_dominated, pareto_rank, crowding_distance])
def test_an_empty_set_gives_an_empty_result(function) -> None:
    assert function(np.zeros((0, 3))).shape == (0,)


def test_the_input_is_left_as_it_was() -> None:
    points = np.array(WITH_COPIES, dtype=float)
    non_dominated(points), pareto_rank(points), crowding_distance(points)
    assert points.tolist() == WITH_COPIES


def test_crowding_by_hand() -> None:
    """Ranges are 5 and 5. Row (1,4): (3-0)/5 + (5-2)/5 = 1.2. Row (3,2): (5-1)/5 + (4-0)/5 = 1.6."""
    np.testing.assert_allclose(crowding_distance([[0, 5], [1, 4], [3, 2], [5, 0]]), [np.inf, 1.2, 1.6, np.inf])


def test_crowding_ignores_order_repetitions_and_constant_objectives() -> None:
    rows = np.array([[0.0, 5.0], [1.0, 4.0], [3.0, 2.0], [5.0, 0.0]])
    order = np.array([2, 0, 3, 1])
    np.testing.assert_allclose(crowding_distance(rows[order]), crowding_distance(rows)[order])
    np.testing.assert_allclose(crowding_distance(np.vstack([rows, rows[1:2]])), [np.inf, 1.2, 1.6, np.inf, 0.0])
    constant = np.column_stack([rows, np.full(4, 7.0)])
    np.testing.assert_allclose(crowding_distance(constant), crowding_distance(rows))


def test_two_distinct_rows_are_infinitely_far_apart() -> None:
    assert crowding_distance([[1, 2], [1, 2], [2, 1]]).tolist() == [np.inf, 0.0, np.inf]
