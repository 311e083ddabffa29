"""Further indicators on the worked sets: F = {(1,3),(2,2),(3,1)}, Z = {(1,2.5),(2,1),(.5,.5)}, utopian (4,4)."""

from __future__ import annotations

import math

import moocore
import numpy as np
import pytest

from moalign import front
from moalign.errors import DefinitionError

F = np.array([[1.0, 3], [2, 2], [3, 1]])
Z = np.array([[1, 2.5], [2, 1], [0.5, 0.5]])
W = [[1, 0], [0.5, 0.5], [0, 1]]


def test_generational_distances() -> None:
    """From Z to F: (1,2.5) is .5 away, (2,1) is 1, (.5,.5) is |(1.5,1.5)| = 2.1213 away: mean 1.2071, all short."""
    assert front.gd_plus(Z, F) == pytest.approx(1.207107, abs=1e-6)
    assert front.gd(Z, F) == pytest.approx((0.5 + 1 + 1.5 * math.sqrt(2)) / 3)
    assert front.gd(F, F) == front.gd_plus(F, F) == 0
    assert front.gd_plus(F + 1, F) == 0 < front.gd(F + 1, F)
    assert front.hausdorff(Z, F) == pytest.approx(1.207107, abs=1e-6)  # IGD is .8333


def test_multiplicative_epsilon() -> None:
    """(3,1) is reached by (2,1) times 1.5, by (1,2.5) times 3; (2,2) by (1,2.5) times 2 or (2,1) times 2: 2 in all."""
    assert front.epsilon_multiplicative(Z, F) == pytest.approx(2)
    assert front.epsilon_multiplicative(2 * F, F) == pytest.approx(0.5)
    with pytest.raises(DefinitionError, match="positive"):
        front.epsilon_multiplicative(Z - 1, F)


def test_r2() -> None:
    """F at w = (1,0): 4 - 3 = 1; (.5,.5): .5 * 2 = 1 by (2,2); (0,1): 1. Z over all weights: 1.4."""
    assert front.r2(F, W, [4, 4]) == pytest.approx(1)
    assert front.r2_exact(Z, [4, 4]) == pytest.approx(1.4)
    many = np.linspace(0, 1, 2001)
    assert front.r2(Z, np.column_stack([many, 1 - many]), [4, 4]) == pytest.approx(1.4, abs=1e-3)
    assert front.r2(np.vstack([F, [3, 3]]), W, [4, 4]) < front.r2(F, W, [4, 4])
    with pytest.raises(DefinitionError, match="utopian"):
        front.r2(F, W, [2, 4])
    with pytest.raises(DefinitionError, match="two objectives"):
        front.r2_exact(np.ones((1, 3)), [2, 2, 2])


def test_spacing() -> None:
    """{(0,5),(1,4),(4,0)}: L1 distances to the nearest are 2, 2, 7; their deviation is 2.357."""
    assert front.spacing([[0, 5], [1, 4], [4, 0]]) == pytest.approx(2.357023, abs=1e-6)
    assert front.spacing(F) == 0 and front.spacing(F[:1]) == 0
    assert front.spacing([[0, 5], [1, 4], [4, 0], [1, 4], [0, 0]]) == pytest.approx(2.357023, abs=1e-6)


def test_normalised_hypervolume() -> None:
    """Z has 3.5 of the box of 4 by 4 above 0; a point beyond the ideal fills the box."""
    assert front.normalised_hypervolume(Z, [0, 0], [4, 4]) == pytest.approx(3.5 / 16)
    assert front.normalised_hypervolume([[9, 9]], [0, 0], [4, 4]) == 1
    with pytest.raises(DefinitionError, match="must exceed"):
        front.normalised_hypervolume(Z, [0, 0], [4, 0])


def test_supported_points_are_those_some_weights_choose() -> None:
    """(1.5,1.5) loses to (0,4) and (4,0) at every w; (2,2) ties with them at (.5,.5) and is supported weakly."""
    assert front.supported([[0, 4], [1.5, 1.5], [4, 0]]).tolist() == [True, False, True]
    tie = [[0, 4], [2, 2], [4, 0], [4, 0]]
    assert front.supported(tie).tolist() == [True, False, True, False]
    assert front.supported(tie, weak=True).tolist() == [True, True, True, False]
    points = np.random.default_rng(0).standard_normal((60, 3))
    weights = np.random.default_rng(1).dirichlet(np.ones(3), 4000)
    assert set(np.unique((weights @ points.T).argmax(1))) <= set(np.flatnonzero(front.supported(points)))
    everything = front.expected_utility(points, weights)
    assert front.expected_utility(points[front.supported(points)], weights) == pytest.approx(everything)


def test_largest_loss_is_the_limit_of_many_weights() -> None:
    """Z against F: at w = (1,0) F has 3 and Z has 2, a loss of 1; at (0,1) .5; the whole simplex finds no more."""
    assert front.largest_utility_loss(Z, F) == pytest.approx(1)
    assert front.largest_utility_loss(F, F) == pytest.approx(0, abs=1e-9)
    assert front.largest_utility_loss(F + 0.25, F) == pytest.approx(-0.25)
    draw = np.random.default_rng(0)
    points, others = draw.random((2, 15, 3))
    weights = draw.dirichlet(np.ones(3), 20_000)
    near, exact = front.maximum_utility_loss(points, others, weights), front.largest_utility_loss(points, others)
    assert near <= exact + 1e-12 and near == pytest.approx(exact, abs=0.01)


def test_approximate_hypervolume_is_near_the_exact_one() -> None:
    points = np.random.default_rng(0).random((40, 4))
    exact = front.hypervolume(points, np.zeros(4))
    assert front.hypervolume_approximate(points, np.zeros(4), samples=20_000) == pytest.approx(exact, rel=0.02)
    assert front.hypervolume_approximate(points, np.ones(4)) == 0


def test_deployed_utility_has_no_winners_curse() -> None:
    """20 equal policies measured with noise 1: the chosen ones look 1.87 better than they are."""
    generator = np.random.default_rng(0)
    first, second = generator.standard_normal((2, 20, 2))
    weights = [[1, 0], [0, 1]]
    assert front.deployed_utility(first, first, weights) == pytest.approx(front.expected_utility(first, weights))
    gaps = [
        front.deployed_utility(*generator.standard_normal((2, 20, 2)), weights) for _ in range(300)
    ]  # mean 0, standard error .04
    assert np.mean(gaps) == pytest.approx(0, abs=0.15)


def test_attainment() -> None:
    """Three runs: (2,2) is attained by two; the median surface is (1,3),(2,2),(3,1), the worst (1,2),(2,1)."""
    runs = [[[1, 3], [3, 1]], [[2, 3], [3, 2]], [[2, 2]]]
    assert front.attainment(runs, [[2, 2], [3, 3], [1, 1]]).tolist() == pytest.approx([2 / 3, 0, 1])
    surface = {share: sorted(map(tuple, front.attainment_surface(runs, share))) for share in (1 / 3, 0.5, 1.0)}
    assert surface[0.5] == [(1, 3), (2, 2), (3, 1)]
    assert surface[1 / 3] == [(2, 3), (3, 2)] and surface[1.0] == [(1, 2), (2, 1)]
    empty = [*runs, np.zeros((0, 2))]
    assert len(front.attainment_surface(empty, 1.0)) == 0
    assert sorted(map(tuple, front.attainment_surface(empty, 0.75))) == [(1, 2), (2, 1)]
    assert front.attainment(empty, [[2, 2]]).tolist() == [0.5]


def test_attainment_surfaces_attain_what_they_say() -> None:
    runs = [np.random.default_rng(k).random((12, 3)) for k in range(5)]
    for share in (0.2, 0.6, 1.0):
        corners = front.attainment_surface(runs, share)
        assert (front.attainment(runs, corners) >= share - 1e-12).all()
        assert (front.attainment(runs, corners + 1e-9) < share).all()


def test_the_vorobev_expectation_worked_out() -> None:
    """Volumes 5, 8, 4, mean 17/3; two of three runs attain {(1,3), (2,2), (3,1)} with volume 6, all of them only 3.

    That surface contains the first and third run, and lies within the second: 1, 2 and 2 of volume differ.
    """
    runs = [[(1, 3), (3, 1)], [(2, 3), (3, 2)], [(2, 2)]]
    found = front.vorobev(runs, [0, 0])
    assert sorted(map(tuple, found.surface)) == [(1, 3), (2, 2), (3, 1)] and found.share == pytest.approx(2 / 3)
    assert found.hypervolume == pytest.approx(17 / 3) and found.deviation == pytest.approx(5 / 3)
    alone = front.vorobev(runs[:1], [0, 0])
    assert sorted(map(tuple, alone.surface)) == [(1, 3), (3, 1)] and alone.deviation == 0
    with pytest.raises(DefinitionError, match="reference_point"):
        front.vorobev(runs, [0, 0, 0])


@pytest.mark.parametrize("objectives", [2, 3])
def test_the_vorobev_deviation_is_moocore_s(objectives: int) -> None:
    """moocore looks for the threshold by halving percentages and minimises; the deviation is taken at our surface."""
    rng = np.random.default_rng(objectives)
    runs = [np.abs(rng.standard_normal((12, objectives))) for _ in range(7)]
    found = front.vorobev(runs, np.zeros(objectives))
    points, sets = -np.concatenate(runs), np.repeat(np.arange(1, 8), 12)
    wanted = moocore.vorob_dev(points, sets=sets, ref=np.zeros(objectives), ve=-found.surface)
    assert found.deviation == pytest.approx(wanted, rel=1e-9) and found.deviation > 0
    volumes = [front.hypervolume(front.attainment_surface(runs, k / 7), np.zeros(objectives)) for k in range(1, 8)]
    assert found.share == max(k for k, v in enumerate(volumes, 1) if v >= found.hypervolume) / 7
