"""Archives and histories against recomputation from scratch, and gains that can be worked out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moalign.errors import DefinitionError
from moalign.front import Archive, hypervolume, hypervolume_history, non_dominated


def test_gains_are_the_new_areas() -> None:
    """(1,3) covers 3; (3,1) adds 2; (2,2) adds the unit square between; (3,3) has 9 in place of the 6 so far."""
    archive = Archive([0, 0])
    assert [archive.insert(p) for p in [(1, 3), (3, 1), (2, 2), (2, 1), (2, 2), (9, 0), (3, 3)]] == [
        3,
        2,
        1,
        0,
        0,
        0,
        3,
    ]
    assert archive.hypervolume == 9 and archive.points.tolist() == [[3, 3]]


@pytest.mark.parametrize("objectives", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("kind", ["cube", "sphere", "ties"])
def test_history_is_the_hypervolume_of_every_beginning(objectives: int, kind: str) -> None:
    points = np.abs(np.random.default_rng(objectives).standard_normal((90, objectives)))
    if kind == "sphere":
        points /= np.linalg.norm(points, axis=1, keepdims=True)
    if kind == "ties":
        points = np.round(points * 2) / 2
    corner = np.full(objectives, 0.05)
    wanted = [hypervolume(points[: k + 1], corner, unattained="ignore") for k in range(len(points))]
    np.testing.assert_allclose(hypervolume_history(points, corner), wanted, rtol=1e-12, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(*[st.integers(-1, 4)] * 3), min_size=1, max_size=25), st.booleans())
def test_an_archive_keeps_the_front_above_its_corner(points: list[tuple[int, ...]], plane: bool) -> None:
    matrix = np.array(points, dtype=float)[:, : 2 if plane else 3]
    archive = Archive(np.zeros(matrix.shape[1]))
    gains = [archive.insert(row) for row in matrix]
    front = matrix[non_dominated(matrix)]
    front = front[(front > 0).all(axis=1)]
    assert sorted(map(tuple, archive.points)) == sorted(map(tuple, front)) and len(archive) == len(front)
    assert min(gains) >= 0
    assert archive.hypervolume == pytest.approx(hypervolume(matrix, archive_corner(matrix), unattained="ignore"))


def archive_corner(matrix: np.ndarray) -> np.ndarray:
    return np.zeros(matrix.shape[1])


def scattered(kind: str, count: int, objectives: int) -> np.ndarray:
    """Returns points of one of the kinds that histories meet, in random order unless their name says otherwise."""
    rng = np.random.default_rng([count, objectives])
    sphere = np.abs(rng.standard_normal((count, objectives)))
    sphere /= np.linalg.norm(sphere, axis=1, keepdims=True)
    if kind == "clusters":
        return rng.random((5, objectives))[rng.integers(5, size=count)] + 1e-3 * sphere
    if kind == "ties":
        return np.round(sphere * 12) / 12
    if kind == "cliff":  # a front in the first two objectives, the others free
        angle = rng.random(count) * np.pi / 2
        return np.column_stack([np.cos(angle), np.sin(angle), rng.random((count, objectives - 2))])
    if kind == "improving":
        return sphere * np.linspace(0.5, 1, count)[:, None]
    return sphere[np.argsort(sphere[:, 0])] if kind == "sorted front" else sphere


@pytest.mark.parametrize("kind", ["front", "sorted front", "clusters", "ties", "cliff", "improving"])
@pytest.mark.parametrize("objectives", [3, 4])
def test_long_histories_are_those_of_an_archive(kind: str, objectives: int) -> None:
    """A thousand points: divided into groups several times, against points that arrive one by one."""
    points, corner = scattered(kind, 1000, objectives) - 3.0, np.full(objectives, -3.0)
    archive = Archive(corner)
    gains = [archive.insert(row) for row in points]
    history = hypervolume_history(points, corner)
    np.testing.assert_allclose(np.diff(history, prepend=0.0), gains, rtol=1e-9, atol=1e-13)
    assert history[-1] == pytest.approx(hypervolume(points, corner), rel=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(*[st.integers(-1, 5)] * 3), min_size=1, max_size=40), st.integers(1, 4))
def test_a_history_does_not_depend_on_how_points_are_divided(points: list[tuple[int, ...]], leaf: int) -> None:
    """On small whole numbers every volume is exact, with many ties and repeated points."""
    matrix = np.array(points, dtype=float)
    wanted = [hypervolume(matrix[: k + 1], np.zeros(3), unattained="ignore") for k in range(len(matrix))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("moalign.front.history.LEAF", leaf)
        assert hypervolume_history(matrix, np.zeros(3)).tolist() == wanted


def test_a_history_of_nothing_and_bad_points() -> None:
    assert hypervolume_history(np.zeros((0, 2)), [0, 0]).tolist() == []
    with pytest.raises(DefinitionError, match="at least 2 objectives"):
        Archive([0.0])
    for bad in ((1, 2), (1, 2, np.nan)):
        with pytest.raises(DefinitionError, match="3 finite numbers"):
            Archive([0, 0, 0]).insert(bad)
