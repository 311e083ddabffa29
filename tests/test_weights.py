"""Weight lattices, random weights, and the reading of user-given weights."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moalign.errors import DefinitionError
from moalign.weights import dirichlet, energy, grid, label, named, normalize

NAMES = ("helpful", "harmless", "brief")


@pytest.mark.parametrize(
    ("objectives", "steps", "count"),
    [(1, 4, 1), (2, 5, 6), (3, 3, 10), (3, 12, 91), (4, 5, 56), (5, 4, 70), (6, 4, 126), (6, 12, 6188)],
)
def test_lattice_has_the_binomial_number_of_points(objectives, steps, count):
    """C(p + m - 1, m - 1): choosing the places of m - 1 bars among p stars and m - 1 bars; m=3, p=12: C(14, 2) = 91."""
    points = grid(objectives, steps)
    assert points.shape == (count, objectives)
    assert len(np.unique(points, axis=0)) == count
    assert count == math.comb(steps + objectives - 1, objectives - 1)


def test_small_lattice_row_by_row():
    """Halves on two edges, descending: the first vertex leads, the last one closes."""
    expected = [[1, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 1, 0], [0, 0.5, 0.5], [0, 0, 1]]
    assert grid(3, 2).tolist() == expected


@settings(max_examples=25, deadline=None)
@given(objectives=st.integers(1, 5), steps=st.integers(1, 7))
def test_lattice_rows_are_exact_multiples_on_the_simplex_in_descending_order(objectives, steps):
    points = grid(objectives, steps)
    parts = points * steps
    assert np.allclose(parts, np.round(parts), atol=1e-12, rtol=0)
    assert (points >= 0).all() and np.abs(points.sum(1) - 1).max() <= 1e-12
    rows = [tuple(row) for row in np.round(parts).astype(int)]
    assert rows == sorted(rows, reverse=True)
    for vertex in np.eye(objectives):
        assert (points == vertex).all(1).any()


def test_lattice_interior_needs_as_many_steps_as_objectives():
    """With p < m at least one part of every vector is zero; with p = m exactly (1/m, .., 1/m) is inside."""
    assert not (grid(4, 3) > 0).all(1).any()
    assert (grid(4, 4) > 0).all(1).sum() == 1


@pytest.mark.parametrize("arguments", [(0, 3), (3, 0), (3, True)])
def test_lattice_refuses_counts_that_are_not_positive(arguments):
    with pytest.raises(DefinitionError, match="whole number"):
        grid(*arguments)


def test_lattice_names_both_bad_counts():
    with pytest.raises(DefinitionError) as error:
        grid(0, -1)
    assert len(error.value.problems) == 2


def test_dirichlet_is_reproducible_and_uniform_in_the_mean():
    """With alpha 1, each of 3 weights has mean 1/3 and variance 2/(9 * 4) = 1/18: standard error .0037 at n 4000."""
    first, again = dirichlet(3, 4000, seed=7), dirichlet(3, 4000, seed=7)
    assert (first == again).all()
    assert (first != dirichlet(3, 4000, seed=8)).any()
    assert np.abs(first.sum(1) - 1).max() <= 1e-12 and (first >= 0).all()
    assert first.mean(0) == pytest.approx(np.full(3, 1 / 3), abs=5 * 0.0037)
    assert first.var(0) == pytest.approx(np.full(3, 1 / 18), rel=0.1)


def test_dirichlet_alpha_moves_from_corners_to_centre():
    """The largest entry approaches 1 as alpha falls and 1/3 as it grows."""
    largest = [dirichlet(3, 300, seed=0, alpha=a).max(1).mean() for a in (0.05, 1.0, 100.0)]
    assert largest[0] > 0.9 > largest[1] > 0.5 > largest[2]


@pytest.mark.parametrize("changed", [{"alpha": 0.0}, {"alpha": math.inf}, {"n": 0}, {"seed": -1}])
def test_dirichlet_refuses(changed):
    with pytest.raises(DefinitionError):
        dirichlet(**{"objectives": 3, "n": 2, "seed": 0, **changed})


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0, 1e300), min_size=1, max_size=5).filter(any), st.floats(1e-3, 1e3))
def test_normalize_lands_on_the_simplex_and_ignores_scale(values, factor):
    result = normalize(values)
    assert result.sum() == pytest.approx(1, abs=1e-12) and (result >= 0).all()
    assert normalize(np.array(values) / 1e4 * factor) == pytest.approx(result, rel=1e-9, abs=1e-290)


def test_normalize_keeps_shape_and_lists_every_bad_row():
    assert normalize([[2.0, 6.0], [1.0, 1.0]]).tolist() == [[0.25, 0.75], [0.5, 0.5]]
    with pytest.raises(DefinitionError) as error:
        normalize([[0.0, 0.0], [1.0, -1.0], [math.nan, 1.0], [1.0, 1.0], [math.inf, 1.0]])
    assert [p.split(" ")[0] for p in error.value.problems] == [f"weights[{i}]" for i in (0, 1, 2, 4)]
    with pytest.raises(DefinitionError, match="shape"):
        normalize([])


@pytest.mark.parametrize(
    "given_weights",
    [
        [[0.2, 0.0, 0.8]],
        [0.2, 0, 0.8],
        np.array([0.2, 0.0, 0.8]),
        {"brief": 0.8, "helpful": 0.2},
        [{"helpful": 0.2, "brief": 0.8}],
        ({"helpful": 0.2, "harmless": 0.0, "brief": 0.8},),
    ],
)
def test_every_spelling_of_one_weight_vector_is_the_same_row(given_weights):
    assert named(given_weights, NAMES).tolist() == [[0.2, 0.0, 0.8]]


def test_vectors_and_dicts_may_be_mixed_and_a_lattice_passes_unchanged():
    assert named([[1, 0, 0], {"brief": 1}], NAMES).tolist() == [[1, 0, 0], [0, 0, 1]]
    points = grid(3, 4)
    assert (named(points, NAMES) == points).all()


def test_all_problems_of_all_rows_arrive_in_one_error():
    rows = [
        {"helpfull": 0.5, "brief": 0.5},
        [0.5, 0.4, 0.0],
        [1.0, 0.0],
        [0.5, math.nan, 0.5],
        [1.5, -0.5, 0.0],
        {"helpful": "much"},
        {"helpful": 1.0},
    ]
    with pytest.raises(DefinitionError) as error:
        named(rows, NAMES)
    text = {p.split(" ")[0]: p for p in error.value.problems}
    assert sorted(text) == [f"weights[{i}]" for i in range(6)]
    assert "Did you mean 'helpful'?" in text["weights[0]"]
    assert "sums to 0.9" in text["weights[1]"] and "normalize" in text["weights[1]"]
    assert "2 entries" in text["weights[2]"] and "helpful, harmless, brief" in text["weights[2]"]
    assert "not finite" in text["weights[3]"]
    assert "negative" in text["weights[4]"]
    assert "not a vector of numbers" in text["weights[5]"]


def test_an_unknown_name_without_a_neighbour_lists_the_objectives():
    with pytest.raises(DefinitionError, match="The objectives are helpful, harmless, brief"):
        named({"zzz": 1.0}, NAMES)


@pytest.mark.parametrize("empty", [[], (), np.zeros((0, 3))])
def test_no_weights_at_all_is_refused(empty):
    with pytest.raises(DefinitionError, match="empty"):
        named(empty, NAMES)


@pytest.mark.parametrize("wrong", [3.0, "helpful", None, iter([1.0])])
def test_what_is_no_collection_of_weights_is_refused(wrong):
    with pytest.raises(DefinitionError, match="vectors, or dicts"):
        named(wrong, NAMES)


def test_a_table_with_its_own_column_order_is_refused():
    """Taking a table by position would give helpful the weight that its column name says belongs to brief."""
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame({"brief": [0.8], "helpful": [0.2]})
    with pytest.raises(DefinitionError, match="to_dict"):
        named(table, NAMES)
    assert named(table.to_dict("records"), NAMES).tolist() == [[0.2, 0.0, 0.8]]


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ([1 / 3, 0, 2 / 3], "helpful .33 brief .67"),
        ([1, 0, 0], "helpful 1"),
        ([0.004, 0.996, 0], "helpful .004 harmless 1"),
        ([0.5, 0.25, 0.25], "helpful .50 harmless .25 brief .25"),
        ([0, 0, 0], "no weight"),
    ],
)
def test_label(row, text):
    assert label(row, NAMES) == text


def test_label_needs_one_weight_per_name():
    with pytest.raises(DefinitionError, match="one weight per name"):
        label([0.5, 0.5], NAMES)


def test_weights_import_stays_light():
    heavy = "{'torch', 'scipy', 'pandas'} & set(sys.modules)"
    code = f"import sys, moalign.weights; sys.exit(bool({heavy}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(("objectives", "n"), [(2, 4), (3, 10), (3, 11), (4, 9)])
def test_energy_spreads_any_number_of_weights(objectives: int, n: int) -> None:
    """Corners are there, rows are on the simplex, and the nearest two are further apart than in random draws."""
    rows = energy(objectives, n)
    assert rows.shape == (n, objectives) and (rows >= 0).all() and np.abs(rows.sum(axis=1) - 1).max() < 1e-12
    assert rows.max(axis=0) == pytest.approx(1)
    assert np.array_equal(rows, energy(objectives, n))

    def nearest(weights: np.ndarray) -> float:
        gaps = np.linalg.norm(weights[:, None] - weights[None], axis=2)
        return float(gaps[np.triu_indices(n, 1)].min())

    assert nearest(rows) > 1.5 * max(nearest(dirichlet(objectives, n, seed)) for seed in range(5))
    if (objectives, n) == (3, 10):  # the lattice is the best arrangement of ten
        assert nearest(rows) == pytest.approx(nearest(grid(3, 3)), abs=0.01)


def test_energy_refuses_what_cannot_be_meant() -> None:
    for arguments, message in (
        ((1, 3), "2 objectives"),
        ((3, 2), "for each"),
        ((3, 0), "n must"),
        ((3, 4, -1), "seed"),
    ):
        with pytest.raises(DefinitionError, match=message):
            energy(*arguments)
