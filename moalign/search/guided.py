"""Searches that predict the front: by a Gaussian process over the weights, or by the oracle before any training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np

from moalign import surrogate
from moalign.arrays import FloatArray
from moalign.errors import DefinitionError
from moalign.front import hypervolume, hypervolume_improvement
from moalign.search.history import (
    Budget,
    History,
    Stall,
    candidates,
    corners_and_centre,
    new_rows,
)

LENGTH = 0.35  # distance in weights over which the shortfall of trained policies is alike
HORIZON = 16  # policies that are planned together, more change little about which come first
REFRESHED = 16  # gains computed anew at once
PASSES = 2  # rounds of exchanges that improve a plan


@final
@dataclass(frozen=True, kw_only=True)
class HypervolumeGuided:
    """Chooses by the expected gain in hypervolume under Gaussian processes from weights to rewards.

    Starts with the corners and the centre; then qLogNEHVI (arXiv 2310.20708) over a fine lattice of weights.

    Attributes:
        trials: policies in all.
        batch: policies of one round, trained as one stack.
        stop: when to end earlier; never when None.
    """

    trials: int
    batch: int = 4
    stop: Stall | None = None
    needs_oracle = False

    def __post_init__(self) -> None:
        problems = Budget(trials=self.trials, batch=self.batch, stop=self.stop).problems("HypervolumeGuided")
        if problems:
            raise DefinitionError(problems)

    def problems(self, objectives: int) -> list[str]:
        return [] if objectives >= 2 else ["HypervolumeGuided needs two objectives or more."]

    def propose(self, history: History, count: int) -> FloatArray:
        """Returns the start, then the weights with the largest expected gain, one given the others."""
        start = corners_and_centre(history.objectives)
        start = start[new_rows(start, history.tried)][:count]
        pool = candidates(history)
        if len(start) or len(history.weights) < surrogate.FEWEST or not len(pool):
            return start
        model = surrogate.fit(history.weights[:, :-1], history.values, history.seed)
        chosen: list[int] = []
        waiting = history.tried[len(history.weights) :, :-1]
        for _ in range(min(count, len(pool))):
            gain = model.gain(history.reference_point, np.concatenate([waiting, pool[chosen][:, :-1]]))(pool[:, :-1])
            gain[chosen] = -np.inf
            chosen.append(int(gain.argmax()))
        return pool[chosen]


@final
@dataclass(frozen=True, kw_only=True)
class OracleGuided:
    """Plans with the oracle front, which costs no training, and corrects the plan by what trained policies reached.

    The oracle gives the rewards of the optimum at any weights. Predicted is that plus the shortfall of the policies
    trained so far, smoothed over the weights (a Gaussian process with fixed length). The next sixteen trials are
    planned together, greedily and then by exchanges, so that their hypervolume with the measured policies is largest;
    the round trains those that add the most.

    Attributes:
        trials: policies in all.
        batch: policies of one round, trained as one stack.
        stop: when to end earlier; never when None.
        smallest_gain: a plan whose best point is predicted to add less than this share of the hypervolume ends the
            search.
    """

    trials: int
    batch: int = 4
    stop: Stall | None = None
    smallest_gain: float = 0.0
    needs_oracle = True

    def __post_init__(self) -> None:
        problems = Budget(trials=self.trials, batch=self.batch, stop=self.stop).problems("OracleGuided")
        if not (np.isfinite(self.smallest_gain) and self.smallest_gain >= 0):
            problems.append(f"OracleGuided smallest_gain must be finite and >= 0, got {self.smallest_gain!r}.")
        if problems:
            raise DefinitionError(problems)

    def problems(self, objectives: int) -> list[str]:
        return [] if objectives >= 2 else ["OracleGuided needs two objectives or more."]

    def propose(self, history: History, count: int) -> FloatArray:
        """Returns the next weights of the plan."""
        pool = candidates(history)
        if history.predict is None:
            raise DefinitionError("OracleGuided needs the oracle's predictions: History(predict=...).")
        if not len(pool):
            return pool
        predicted = expected(pool, history)
        waiting = history.tried[len(history.weights) :]
        known = history.front_values
        if len(waiting):
            known = np.concatenate([known, expected(waiting, history)])
        remaining = min(max(min(self.trials - len(history.tried), HORIZON), count), len(pool))
        rows = plan(predicted, known, history.reference_point, remaining)
        rows = [rows[i] for i in greedy(predicted[rows], known, history.reference_point, min(count, len(rows)))]
        return pool[rows[: self._worthwhile(predicted[rows], known, history.reference_point)]]

    def _worthwhile(self, points: FloatArray, known: FloatArray, corner: FloatArray) -> int:
        """Returns how many of the points, in order of their gain, are worth training."""
        volumes = [
            hypervolume(np.concatenate([known, points[:n]]), corner, unattained="ignore")
            for n in range(len(points) + 1)
        ]
        gains = np.diff(volumes)
        return int(np.sum((gains > 0) & (gains >= self.smallest_gain * volumes[-1])))


def expected(weights: FloatArray, history: History) -> FloatArray:
    """Returns the rewards that training at `weights` is expected to reach [weights, objectives].

    Oracle plus smoothed residual: with one measured policy of no error it is met exactly, far from all of them the
    oracle stands alone.
    """
    assert history.predict is not None
    predicted = history.predict(weights)
    if not len(history.weights):
        return predicted
    residual = history.values - history.predict(history.weights)
    noise = (history.errors**2).mean(axis=0)
    signal = np.maximum((residual**2).mean(axis=0) - noise, 1e-2 * noise + 1e-12)  # [objectives]

    def kernel(a: FloatArray, b: FloatArray) -> FloatArray:
        return np.exp(-0.5 * ((a[:, None] - b[None]) ** 2).sum(axis=2) / LENGTH**2)

    among, across = kernel(history.weights, history.weights), kernel(weights, history.weights)
    shift = [
        across @ np.linalg.solve(among + np.diag(history.errors[:, j] ** 2 / signal[j] + 1e-9), residual[:, j])
        for j in range(history.objectives)
    ]
    return predicted + np.stack(shift, axis=1)


def plan(points: FloatArray, known: FloatArray, reference_point: FloatArray, count: int) -> list[int]:
    """Returns which `count` of the points together with the known ones have a large hypervolume.

    Greedy, which reaches at least 1 - 1/e of the best gain (hypervolume is submodular), then exchanges of single
    points for better ones.

    Args:
        points: candidates [candidates, objectives].
        known: points that are there anyway [known, objectives].
        reference_point: [objectives].
        count: at most as many as there are candidates.
    """
    chosen = greedy(points, known, reference_point, count)
    for _ in range(PASSES):
        changed = False
        for place in range(len(chosen)):
            others = chosen[:place] + chosen[place + 1 :]
            gain = hypervolume_improvement(np.concatenate([known, points[others]]), points, reference_point)
            gain[others] = -np.inf
            best = int(gain.argmax())
            if gain[best] > gain[chosen[place]] * (1 + 1e-9):
                chosen[place], changed = best, True
        if not changed:
            break
    return chosen


def greedy(points: FloatArray, known: FloatArray, reference_point: FloatArray, count: int) -> list[int]:
    """Returns `count` positions, each adding the most hypervolume after those before it.

    A point adds less the more is there, so only points that could still add the most are computed anew.
    """
    chosen: list[int] = []
    most = hypervolume_improvement(known, points, reference_point)  # bounds from above once something is chosen
    while len(chosen) < count:
        fresh = np.zeros(len(points), dtype=bool) if chosen else np.ones(len(points), dtype=bool)
        there = np.concatenate([known, points[chosen]])
        while not fresh[best := int(most.argmax())]:
            stale = np.flatnonzero(~fresh)
            some = stale[np.argsort(-most[stale], kind="stable")[:REFRESHED]]
            most[some] = np.minimum(most[some], hypervolume_improvement(there, points[some], reference_point))
            fresh[some] = True
        chosen.append(best)
        most[best] = -np.inf
    return chosen
