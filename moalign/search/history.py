"""What a search for preference weights knows when it proposes the next ones, and what every search must offer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, final

import numpy as np

from moalign.arrays import BoolArray, FloatArray, IntArray
from moalign.front import hypervolume
from moalign.weights import grid

SAME = 1e-4  # weight vectors nearer than this (largest difference) count as one
POOL = 300  # candidates of the searches that choose from a lattice, about


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class History:
    """Everything measured so far, and the yardsticks. Rewards are maximised, in reward units; KL in nats.

    Attributes:
        weights: of the policies measured so far [policies, objectives].
        values: their rewards [policies, objectives].
        errors: standard errors of these; zeros if exact.
        kl: to the reference policy [policies]; NaN where unknown.
        feasible: which are within the study's limits [policies]; all when None.
        pending: weights that are being trained, or failed [pending, objectives].
        reference_point: corner of the hypervolume [objectives].
        kl_strength: beta of what the policies maximise, w . r - beta KL; None if there is none.
        predict: weights [weights, objectives] -> rewards of the oracle's optima, without any training.
        pool: weights to choose among [candidates, objectives], for searches that choose from a list; a fine lattice of
            about 300 when None.
        seed: of everything random.
    """

    weights: FloatArray
    values: FloatArray
    errors: FloatArray
    kl: FloatArray
    reference_point: FloatArray
    feasible: BoolArray | None = None
    pending: FloatArray | None = None
    kl_strength: float | None = None
    predict: Callable[[FloatArray], FloatArray] | None = None
    pool: FloatArray | None = None
    seed: int = 0

    @property
    def objectives(self) -> int:
        return len(self.reference_point)

    @property
    def tried(self) -> FloatArray:
        """Weights that were measured, are pending, or failed [tried, objectives]."""
        parts = [self.weights] if self.pending is None else [self.weights, self.pending]
        return np.concatenate([p.reshape(-1, self.objectives) for p in parts])

    @property
    def front_values(self) -> FloatArray:
        """Rewards of the policies within the limits [policies, objectives]."""
        return self.values if self.feasible is None else self.values[self.feasible]

    def volume(self) -> float:
        """Returns the hypervolume of the policies so far."""
        return hypervolume(self.front_values, self.reference_point, unattained="ignore")


@final
@dataclass(frozen=True, kw_only=True)
class Stall:
    """Ends a search when the hypervolume has grown by less than a share of itself in each of the last rounds.

    Attributes:
        gain: share of the hypervolume that a round must add, > 0.
        rounds: rounds in a row that may add less, at least 1.
    """

    gain: float = 1e-3
    rounds: int = 2

    def reached(self, volumes: list[float]) -> bool:
        """Returns whether to stop, from the hypervolume before the first and after each round."""
        last = volumes[-self.rounds - 1 :]
        if len(last) <= self.rounds or volumes[-self.rounds - 1] <= 0:
            return False
        return all(after - before < self.gain * after for before, after in zip(last, last[1:], strict=False))


class Search(Protocol):
    """How the next preference weights are chosen. Implementations are frozen keyword-only dataclasses."""

    @property
    def trials(self) -> int:
        """Policies in all."""

    @property
    def batch(self) -> int:
        """Policies of one round, which are trained as one stack."""

    @property
    def stop(self) -> Stall | None:
        """When to end before all trials are used."""

    @property
    def needs_oracle(self) -> bool:
        """Whether `propose` reads `History.predict`."""

    def problems(self, objectives: int) -> list[str]:
        """Returns one sentence per reason why this search cannot run."""

    def propose(self, history: History, count: int) -> FloatArray:
        """Returns at most `count` new weight vectors [weights, objectives]; none when nothing is left to gain."""


@final
@dataclass(frozen=True, kw_only=True)
class Budget:
    """The fields that all searches share, checked in one place."""

    trials: int
    batch: int
    stop: Stall | None = field(default=None)

    def problems(self, name: str) -> list[str]:
        """Returns what is wrong with the budget of the search called `name`."""
        found = [
            f"{name} {what} must be a whole number >= 1, got {value!r}."
            for what, value in (("trials", self.trials), ("batch", self.batch))
            if isinstance(value, bool) or not isinstance(value, int) or value < 1
        ]
        if self.stop is not None and not (self.stop.gain > 0 and self.stop.rounds >= 1):
            found.append(f"{name} stop must have gain > 0 and rounds >= 1, got {self.stop!r}.")
        return found


def smallest_lattice(objectives: int, points: int) -> FloatArray:
    """Returns the simplex lattice with the fewest steps that has at least `points` weight vectors."""
    steps = 1
    while len(lattice := grid(objectives, steps)) < points and objectives > 1:
        steps += 1
    return lattice


def candidates(history: History) -> FloatArray:
    """Returns the weight vectors to choose among that were not tried yet."""
    pool = smallest_lattice(history.objectives, POOL) if history.pool is None else history.pool
    return pool[new_rows(pool, history.tried)]


def new_rows(rows: FloatArray, known: FloatArray) -> IntArray:
    """Returns the positions of the rows that equal no known row within `SAME`."""
    if not len(known):
        return np.arange(len(rows))
    nearest = np.abs(rows[:, None] - known[None]).max(axis=2).min(axis=1)
    return np.flatnonzero(nearest > SAME)


def corners_and_centre(objectives: int) -> FloatArray:
    """Returns all weight on each objective in turn, then equal weights [objectives + 1, objectives]."""
    return np.concatenate([np.eye(objectives), np.full((1, objectives), 1 / objectives)])


def first_round(objectives: int, count: int) -> FloatArray:
    """Returns `count` weight vectors as a search may begin with: corners, centre, then those of a lattice."""
    start = corners_and_centre(objectives)
    lattice = smallest_lattice(objectives, count + len(start))
    return np.concatenate([start, lattice[new_rows(lattice, start)]])[:count]
