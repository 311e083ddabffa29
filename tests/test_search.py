"""Searches for preference weights: on a problem whose exact front is known, and inside a study."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import moalign as ma
from moalign.errors import DefinitionError
from moalign.front import hypervolume
from moalign.oracle import oracle
from moalign.policy.export import load_arrays
from moalign.rounds import CANDIDATES, PROMPTS
from moalign.search import (
    Dirichlet,
    History,
    HypervolumeGuided,
    LargestGap,
    Lattice,
    OptimisticSupport,
    OracleGuided,
    Search,
    Stall,
)
from moalign.search.guided import expected, plan
from moalign.search.support import corner_weights, priorities
from moalign.store import Store, StudyStore
from tests.tiny import save_model, tiny_study

BETA = 0.25
CORNER = np.full(3, -1.0)


class Bandit:
    """Sixty candidates with normal rewards: training is exact, so policies are the oracle's optima."""

    def __init__(self, seed: int, objectives: int = 3) -> None:
        self.rewards = torch.from_numpy(np.random.default_rng(seed).standard_normal((1, 60, objectives)))

    def __call__(self, weights: Any) -> tuple[np.ndarray, np.ndarray]:
        found = oracle(self.rewards, np.asarray(weights), BETA)
        return found.rewards.numpy(), found.kl.numpy()

    def history(self, weights: np.ndarray, corner: np.ndarray = CORNER, **more: Any) -> History:
        values, kl = self(weights) if len(weights) else (np.zeros(weights.shape), np.zeros(0))
        given = {"values": values, "errors": np.zeros_like(values), "kl": kl, "predict": lambda w: self(w)[0]}
        return History(weights=weights, reference_point=corner, kl_strength=BETA, **{**given, **more})


def searched(search: Search, bandit: Bandit, corner: np.ndarray = CORNER) -> Iterator[np.ndarray]:
    """Yields all weights after each round."""
    weights = np.zeros((0, len(corner)))
    while len(weights) < search.trials:
        history = bandit.history(weights, corner)
        new = search.propose(history, min(search.batch, search.trials - len(weights)))
        if not len(new):
            return
        assert np.array_equal(new, search.propose(history, min(search.batch, search.trials - len(weights))))
        weights = np.concatenate([weights, new])
        yield weights


SEARCHES = [
    Lattice(trials=10, batch=3),
    Dirichlet(trials=10, batch=3),
    LargestGap(trials=10, batch=3),
    OptimisticSupport(trials=10, batch=3),
    HypervolumeGuided(trials=6, batch=2),
    OracleGuided(trials=6, batch=3),
]


@pytest.mark.parametrize("search", SEARCHES, ids=lambda s: type(s).__name__)
def test_every_search_proposes_new_weights_on_the_simplex(search: Search) -> None:
    """Also: the same history gives the same proposal, whatever ran before (asserted while searching)."""
    *_, weights = searched(search, Bandit(0))
    assert weights.shape == (search.trials, 3)
    assert (weights >= 0).all() and weights.sum(axis=1) == pytest.approx(1)
    apart = np.abs(weights[:, None] - weights[None]).max(axis=2) + np.eye(len(weights))
    assert apart.min() > 1e-4


@pytest.mark.parametrize("search", SEARCHES, ids=lambda s: type(s).__name__)
def test_weights_that_failed_or_are_in_training_are_not_proposed_again(search: Search) -> None:
    weights = ma.grid(3, steps=1)
    first = search.propose(Bandit(1).history(weights), 2)
    second = search.propose(Bandit(1).history(weights, pending=first), 2)
    assert np.abs(first[:, None] - second[None]).max(axis=2).min() > 1e-4


def test_a_lattice_search_ends_with_the_whole_lattice_and_begins_with_its_corners() -> None:
    first, *_, whole = searched(Lattice(trials=10, batch=3), Bandit(0))
    assert sorted(map(tuple, first)) == sorted(map(tuple, np.eye(3)))
    assert sorted(map(tuple, whole)) == sorted(map(tuple, ma.grid(3, steps=3)))


def test_two_objectives_are_halved_at_the_widest_gap() -> None:
    """Rewards 0, 1, 10 along the line: the middle of the second edge is next, then the middle of the third quarter."""
    weights = np.array([[0.0, 1.0], [0.5, 0.5], [1.0, 0.0]])
    history = History(
        weights=weights,
        values=np.array([[0.0, 10.0], [1.0, 9.0], [10.0, 0.0]]),
        errors=np.zeros((3, 2)),
        kl=np.zeros(3),
        reference_point=np.zeros(2),
    )
    assert LargestGap(trials=9).propose(history, 1) == pytest.approx(np.array([[0.75, 0.25]]))
    assert LargestGap(trials=9).propose(history, 3)[1:, 0] == pytest.approx(np.array([0.625, 0.875]))


# ---------------------------------------------------------------------------------------------------- linear support


def test_corner_weights_are_where_two_policies_are_equally_good() -> None:
    """u1 = 2w, u2 = 1 (with w the first weight): they cross at w = 1/2; a KL cost of 0.5 on the first moves it to .75.

    2w - 0.5 = 1 gives w = 0.75. A policy below both everywhere adds no corner.
    """
    values = np.array([[2.0, 0.0], [1.0, 1.0], [0.2, 0.2]])
    corners = corner_weights(values, np.zeros(3))
    assert sorted(corners[:, 0]) == pytest.approx([0, 0.5, 1])
    moved = corner_weights(values, np.array([0.5, 0.0, 0.0]))
    assert sorted(moved[:, 0]) == pytest.approx([0, 0.75, 1])


def test_the_possible_gain_is_that_of_the_convex_bound() -> None:
    """Optima 2 and 1 at the ends bound the middle by 1.5; the known policies give 1 there: at most 0.5 to gain."""
    history = History(
        weights=np.eye(2),
        values=np.array([[2.0, 0.0], [1.0, 1.0]]),
        errors=np.zeros((2, 2)),
        kl=np.zeros(2),
        reference_point=np.zeros(2),
    )
    middle = np.array([[0.5, 0.5]])
    assert priorities(middle, history, np.zeros(2)) == pytest.approx([0.5])
    noisy = replace(history, errors=np.full((2, 2), 0.1))  # two standard errors of 0.1 at each end
    assert priorities(middle, noisy, np.zeros(2)) == pytest.approx([0.7])


def test_linear_support_ends_within_its_tolerance_everywhere() -> None:
    """Utilities are w . r - beta KL; exact training loses at most the tolerance at any weights (2000 tried)."""
    bandit, tolerance = Bandit(0), 0.05
    *_, weights = searched(OptimisticSupport(trials=100, batch=6, tolerance=tolerance), bandit)
    assert 5 < len(weights) < 120
    values, kl = bandit(weights)
    anywhere = ma.dirichlet(3, 2000, seed=1)
    best, best_kl = bandit(anywhere)
    optimum = (anywhere * best).sum(axis=1) - BETA * best_kl
    loss = optimum - (anywhere @ values.T - BETA * kl).max(axis=1)
    assert -1e-9 < loss.min() and loss.max() <= tolerance + 5e-3  # the extremes are trained a little inside


# ------------------------------------------------------------------------------------------------------------ guided


def test_oracle_guided_weights_beat_lattice_and_random_ones() -> None:
    """Three bandits; with six policies more hypervolume than the lattice with ten."""

    def volume(search: Search, seed: int) -> float:
        bandit = Bandit(seed)
        corner = bandit(ma.grid(3, steps=3))[0].min(axis=0)
        *_, weights = searched(search, bandit, corner)
        return hypervolume(bandit(weights)[0], corner, unattained="ignore")

    def mean(search: Search) -> float:
        return float(np.mean([volume(search, seed) for seed in range(3)]))

    lattice, random = mean(Lattice(trials=10, batch=10)), mean(Dirichlet(trials=10, batch=10))
    assert mean(OracleGuided(trials=6, batch=3)) > lattice
    assert mean(OracleGuided(trials=10, batch=5)) > 1.05 * max(lattice, random)


def test_gaussian_processes_beat_lattice_and_random_weights() -> None:
    """Three bandits with two objectives, eight policies each."""

    def mean(search: Search) -> float:
        volumes = []
        for seed in range(3):
            bandit = Bandit(seed, objectives=2)
            corner = bandit(ma.grid(2, steps=10))[0].min(axis=0)
            *_, weights = searched(search, bandit, corner)
            volumes.append(hypervolume(bandit(weights)[0], corner, unattained="ignore"))
        return float(np.mean(volumes))

    guided = mean(HypervolumeGuided(trials=8, batch=3))
    assert guided > mean(Lattice(trials=8, batch=8)) and guided > 1.2 * mean(Dirichlet(trials=8, batch=8))


def test_a_plan_is_as_good_as_the_best_subset_of_a_small_pool() -> None:
    from itertools import combinations

    bandit = Bandit(2)
    points = bandit(ma.grid(3, steps=4))[0]
    corner = points.min(axis=0) - 0.1
    best = max(hypervolume(points[list(some)], corner) for some in combinations(range(len(points)), 3))
    chosen = plan(points, np.zeros((0, 3)), corner, 3)
    assert hypervolume(points[chosen], corner) >= 0.98 * best


def test_the_prediction_follows_what_training_reached() -> None:
    """Policies reach 0.3 less than the oracle: predicted at a trained point exactly so, between them nearly so."""
    bandit = Bandit(3)
    weights = ma.grid(3, steps=3)
    values = bandit(weights)[0] - 0.3
    history = bandit.history(weights, values=values)
    assert expected(weights, history) == pytest.approx(values, abs=1e-3)
    between = ma.dirichlet(3, 50, seed=0, alpha=3.0)
    assert expected(between, history) == pytest.approx(bandit(between)[0] - 0.3, abs=0.05)
    nothing_yet = bandit.history(np.zeros((0, 3)))
    assert expected(between, nothing_yet) == pytest.approx(bandit(between)[0])


def test_a_search_ends_when_the_plan_adds_too_little() -> None:
    *_, weights = searched(OracleGuided(trials=40, batch=5, smallest_gain=0.04), Bandit(0))
    assert 5 <= len(weights) < 20


def test_a_search_stalls_after_rounds_of_little_gain() -> None:
    stall = Stall(gain=0.01, rounds=2)
    assert not stall.reached([0, 1.0, 1.001]) and not stall.reached([0, 1.0, 1.2, 1.201])
    assert stall.reached([0, 1.0, 1.001, 1.002])
    assert not Stall(rounds=2).reached([0.0, 0.0, 0.0, 0.0])  # nothing is above the reference point yet


@pytest.mark.parametrize("make", [Lattice, Dirichlet, LargestGap, OptimisticSupport, HypervolumeGuided, OracleGuided])
def test_impossible_budgets_are_refused(make: Any) -> None:
    with pytest.raises(DefinitionError) as caught:
        make(trials=0, batch=-1, stop=Stall(gain=0))
    assert len(caught.value.problems) == 3 and make.__name__ in str(caught.value)


# ---------------------------------------------------------------------------------------------------------- in a study


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model"))


def search_study(model: Path, search: Search, **changes: Any) -> ma.Study:
    return tiny_study(model, weights=None, search=search, **changes)


def test_a_study_trains_the_rounds_of_its_search(model: Path, tmp_path: Path) -> None:
    """Two rounds; what the second is depends on the first; running again proposes and trains nothing."""
    study = search_study(model, OracleGuided(trials=4, batch=2))
    front = ma.run(study, store=tmp_path)
    records = Store(tmp_path).study("tiny")
    rounds = [event.data["weights"] for event in records.events("round")]
    assert [len(weights) for weights in rounds] == [2, 2] and np.array_equal(np.concatenate(rounds), front.X)
    assert len(records.events("trained")) == 2
    assert records.events("round")[1].data["hypervolume"] >= 0
    config = json.loads((records.trial_folder(3) / "config.json").read_text())
    assert list(config["weights"].values()) == front.X[3].tolist()
    for number, at in zip(range(4), (0, 0, 1, 1), strict=True):  # each has the log of the round that trained it
        lines = (records.trial_folder(number) / "metrics.jsonl").read_text().splitlines()
        assert losses_of(records)[at][number % 2] == pytest.approx([json.loads(line)["loss"] for line in lines])
    events = len(records.events())
    again = ma.run(study, store=tmp_path)
    assert np.array_equal(again.F, front.F) and len(Store(tmp_path).study("tiny").events()) == events


def test_the_oracle_asks_the_candidates_of_the_store(model: Path, tmp_path: Path) -> None:
    """A study draws none when somebody drew them before, and leaves its own to whoever comes later."""
    study = search_study(model, OracleGuided(trials=2, batch=2))
    options = {"samples": CANDIDATES, "max_new_tokens": study.evaluation.max_new_tokens, "seed": study.seed}
    drawn = study.problem.candidates(store=tmp_path, **options)
    kept = sorted((tmp_path / "_candidates").rglob("*"))
    front = ma.run(study, store=tmp_path)
    assert len(drawn.prompts) <= PROMPTS and sorted((tmp_path / "_candidates").rglob("*")) == kept
    elsewhere = tmp_path / "other"
    assert np.array_equal(ma.run(study, store=elsewhere).X, front.X)
    names = [p.relative_to(elsewhere) for p in sorted((elsewhere / "_candidates").rglob("*"))]
    assert names == [p.relative_to(tmp_path) for p in kept]


def losses_of(records: StudyStore) -> list[list[list[float]]]:
    """Returns [round][policy] losses per step, in the order in which the rounds were trained."""
    found = sorted((records.folder / "training").glob("*/training.json"), key=lambda file: file.stat().st_mtime_ns)
    return [load_arrays(file.parent)["loss"].T.tolist() for file in found]


def test_an_interrupted_search_goes_on_with_the_same_rounds(model: Path, tmp_path: Path) -> None:
    class StopAfter:
        def __init__(self, policies: int) -> None:
            self.left = policies

        def on_policy(self, point: Any) -> None:
            self.left -= 1
            if self.left == 0:
                raise ma.StopStudy("enough for now")

    study = search_study(model, LargestGap(trials=4, batch=2))
    whole = ma.run(study)
    for _ in range(4):
        front = ma.run(study, store=tmp_path, callbacks=[StopAfter(1)])
    assert np.array_equal(front.X, whole.X) and np.array_equal(front.F, whole.F)


def test_a_search_and_weights_exclude_each_other(model: Path) -> None:
    with pytest.raises(DefinitionError, match="not both"):
        tiny_study(model, search=Lattice(trials=3))
    with pytest.raises(DefinitionError, match="moalign.search"):
        tiny_study(model, weights=None, search="lattice")
    with pytest.raises(DefinitionError, match="weights is empty"):
        tiny_study(model, weights=None)


def test_a_search_is_part_of_the_definition(model: Path) -> None:
    one, other = (search_study(model, Lattice(trials=n)).describe() for n in (3, 4))
    assert one != other and "search" not in tiny_study(model).describe()
