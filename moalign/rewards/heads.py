"""Linear heads, one per objective, on fixed vectors of texts, and the two convex problems that fit them.

Ratings are fitted by ridge regression in closed form, preferences by a penalised Bradley-Terry likelihood. Both take
`penalty * |w|^2 / 2` beside the SUM of half squared errors (or of pair losses), with features brought to mean 0 and
standard deviation 1 first; the constants are folded into the head afterwards. The penalty is chosen by cross-validation
that never parts the responses of one prompt.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from moalign.arrays import FloatArray, IntArray
from moalign.errors import DataError, NumericsWarning
from moalign.rewards.recipes import BradleyTerry, PairRows, Regression

FOLDS = 5
_UNSURE = 100.0  # the penalty where there is too little data to choose one


@final
@dataclass(frozen=True, eq=False)
class Head:
    """reward = weights . vector + bias, and the penalty it was fitted with."""

    weights: FloatArray  # [dim]
    bias: float
    penalty: float

    def __call__(self, vectors: NDArray[Any]) -> FloatArray:
        """Returns the rewards [n] of vectors [n, dim], float64."""
        return np.asarray(vectors, dtype=np.float64) @ self.weights + self.bias


@final
@dataclass(frozen=True, eq=False)
class Scaler:
    """(vector - mean) / scale, and how a head on the result becomes one on the vector."""

    mean: FloatArray
    scale: FloatArray

    @staticmethod
    def fitted(vectors: NDArray[Any], whether: bool = True) -> Scaler:
        """Returns the scaler of these rows, or the identity; columns that do not vary keep their scale."""
        wide = np.asarray(vectors, dtype=np.float64)
        if not whether:
            return Scaler(np.zeros(wide.shape[1]), np.ones(wide.shape[1]))
        spread = wide.std(axis=0)
        still = spread <= 1e-9 * np.maximum(np.abs(wide).max(axis=0, initial=0), 1e-30)
        return Scaler(wide.mean(axis=0), np.where(still, 1.0, spread))

    def __call__(self, vectors: NDArray[Any]) -> FloatArray:
        return (np.asarray(vectors, dtype=np.float64) - self.mean) / self.scale

    def head(self, weights: FloatArray, bias: float, penalty: float) -> Head:
        """Returns the head on unscaled vectors."""
        folded = weights / self.scale
        return Head(folded, float(bias - folded @ self.mean), penalty)

    def weights(self, head: Head) -> FloatArray:
        """Returns what `head` weighs scaled vectors with."""
        return head.weights * self.scale


def fit_ratings(
    vectors: NDArray[Any], ratings: FloatArray, names: Sequence[str], how: Regression, groups: Sequence[object]
) -> list[Head]:
    """Returns one head per objective, the exact minimiser of its masked ridge problem.

    Args:
        vectors: [n, dim].
        ratings: [n, objectives], NaN where not rated.
        names: of the objectives, for messages.
        how: the settings.
        groups: what cross-validation keeps together, such as the prompt [n].

    Raises:
        DataError: vectors that are not finite or all the same, infinite ratings, an objective nobody rated.

    Warns:
        NumericsWarning: an objective whose ratings are all equal: its head is that constant.
    """
    check_vectors(vectors)
    scaler = Scaler.fitted(vectors, how.intercept)
    features, group = scaler(vectors), numbered(groups)
    heads = []
    for k, name in enumerate(names):
        rated = ~np.isnan(ratings[:, k])
        x, y = features[rated], ratings[rated, k]
        if not len(y):
            raise DataError(f"objective {name!r} is never rated. Drop it, or give ratings of it.")
        if not np.isfinite(y).all():
            raise DataError(f"objective {name!r} has infinite ratings, first in row {np.flatnonzero(rated)[0]}.")
        if np.ptp(y) == 0 and how.intercept:
            warnings.warn(f"all {len(y)} ratings of {name!r} are {y[0]:g}: its reward is constant.", NumericsWarning, 3)
        scale = float(np.abs(y).max()) or 1.0  # units of 1e-6 or 1e6 must not meet the rounding of the solver
        y = y / scale
        errors = functools.partial(_ridge_errors, x, y, how)
        chosen = _choose(how.penalties, group[rated], f"the ratings of {name!r}", errors)
        weights, bias = ridge(x, y, [chosen], how.intercept)
        heads.append(scaler.head(weights[0] * scale, float(bias[0]) * scale, chosen))
    return heads


def fit_pairs(
    vectors: NDArray[Any], pairs: PairRows, how: BradleyTerry, groups: Sequence[object], start: Head | None = None,
    name: str = "reward",
) -> Head:  # fmt: skip
    """Returns the head of the largest penalised Bradley-Terry likelihood; a convex problem, solved by L-BFGS.

    Args:
        vectors: [n, dim].
        pairs: of one objective.
        how: the settings.
        groups: what cross-validation keeps together, such as the prompt [pairs].
        start: a head, such as one fitted on ratings. It is brought to the scale of log-odds, and the penalty then holds
            on the distance from it instead of from zero.
        name: of the objective, for messages.

    Raises:
        DataError: vectors that are not finite or all the same; no pairs.

    Warns:
        NumericsWarning: the labels say nothing (all 0.5).
    """
    check_vectors(vectors)
    if not len(pairs):
        raise DataError(f"objective {name!r} has no pairs to learn from. Drop it, or give pairs of it.")
    if (pairs.chosen == pairs.rejected).all():
        raise DataError(f"all {len(pairs)} pairs of {name!r} compare a response with itself.")
    if (pairs.labels == 0.5).all():
        warnings.warn(
            f"all {len(pairs)} labels of {name!r} are 0.5: its reward is constant.", NumericsWarning, stacklevel=3
        )
    used = np.unique(np.concatenate([pairs.chosen, pairs.rejected]))
    scaler = Scaler.fitted(vectors[used])
    first, second = scaler(vectors[pairs.chosen]), scaler(vectors[pairs.rejected])
    origin = np.zeros(first.shape[1]) if start is None else scaler.weights(start)
    if start is not None:
        origin *= _log_odds_scale((first - second) @ origin, pairs, how)

    def errors(train: IntArray, test: IntArray) -> list[float]:
        path = _path(first[train], second[train], pairs.select(train), how, how.penalties, origin)
        return [_pair_loss(first[test], second[test], pairs.select(test), how, w) for w in path]

    chosen = _choose(how.penalties, numbered(groups), f"the pairs of {name!r}", errors)
    (solution,) = _path(first, second, pairs, how, (chosen,), origin)
    return scaler.head(solution[:-1], float(solution[-1]), chosen)


def ridge(x: FloatArray, y: FloatArray, penalties: Sequence[float], intercept: bool) -> tuple[FloatArray, FloatArray]:
    """Returns weights [penalties, dim] and biases [penalties] of min |y - Xw - b|^2 + penalty |w|^2, in closed form."""
    middle, level = (x.mean(axis=0), float(y.mean())) if intercept else (np.zeros(x.shape[1]), 0.0)
    u, s, vt = np.linalg.svd(x - middle, full_matrices=False)
    inner = u.T @ (y - level)
    lam = np.asarray(penalties)[:, None]
    kept = s > 1e-10 * s.max(initial=0) if len(s) else np.zeros(0, bool)
    shrunk = np.where(kept, s / np.where(kept, s**2 + lam, 1.0), 0.0)
    weights = (shrunk * inner) @ vt
    return weights, level - weights @ middle


def check_vectors(vectors: NDArray[Any]) -> None:
    """Raises DataError for vectors that are not finite, or that are the same for all texts."""
    if vectors.ndim != 2 or not vectors.size:
        raise DataError(f"the vectors of texts must be a table [n, dim], got shape {vectors.shape}.")
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(bad):
        raise DataError(
            f"the vectors of {len(bad)} of {len(vectors)} texts hold NaN or infinity, first that of row {bad[0]}. "
            "Remove these texts, or embed them anew."
        )
    if len(vectors) > 1 and np.ptp(vectors, axis=0).max() == 0:
        raise DataError(f"all {len(vectors)} texts have the same vector, so no reward can tell them apart.")


def numbered(groups: Sequence[object]) -> IntArray:
    """Returns groups as numbers in order of appearance."""
    places = {g: i for i, g in enumerate(dict.fromkeys(groups))}
    return np.array([places[g] for g in groups], dtype=np.int64)


def _choose(
    penalties: Sequence[float], group: IntArray, what: str, errors: Callable[[IntArray, IntArray], Sequence[float]]
) -> float:
    """Returns the penalty of the smallest cross-validated error; `errors` gives sums over the test rows."""
    if len(penalties) == 1:
        return penalties[0]
    count = len(np.unique(group))
    if count < 2 * FOLDS:
        warnings.warn(
            f"{what} come from {count} prompts, too few to choose a penalty; it is {_UNSURE:g}.", NumericsWarning, 4
        )
        return _UNSURE
    fold = np.random.default_rng(0).permutation(np.arange(group.max() + 1) % FOLDS)[group]
    total = np.zeros(len(penalties))
    for k in range(FOLDS):
        train, test = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
        if len(train) and len(test):
            total += np.asarray(errors(train, test))
    return penalties[int(np.argmin(total))]


def _ridge_errors(x: FloatArray, y: FloatArray, how: Regression, train: IntArray, test: IntArray) -> list[float]:
    weights, bias = ridge(x[train], y[train], how.penalties, how.intercept)
    return list(((x[test] @ weights.T + bias - y[test, None]) ** 2).sum(axis=0))


def _path(
    first: FloatArray, second: FloatArray, pairs: PairRows, how: BradleyTerry, penalties: Sequence[float],
    origin: FloatArray,
) -> list[FloatArray]:  # fmt: skip
    """Returns weights and bias [dim + 1] per penalty; each fit starts from that of the next larger penalty."""
    import torch
    from scipy.optimize import minimize

    x, y = torch.from_numpy(first), torch.from_numpy(second)
    columns = {name: None if c is None else torch.as_tensor(c) for name, c in how.columns(pairs).items()}
    centre = torch.from_numpy(np.r_[origin, 0.0])

    def objective(flat: FloatArray, penalty: float) -> tuple[float, FloatArray]:
        point = torch.from_numpy(flat).requires_grad_()
        weights, bias = point[:-1], point[-1]
        losses = how.loss(x @ weights + bias, y @ weights + bias, columns)
        # without centring nothing holds the bias; it then stays at zero, the mean reward of the responses
        total = losses.sum() + penalty / 2 * (weights - centre[:-1]).square().sum() + 1e-6 / 2 * bias.square()
        (gradient,) = torch.autograd.grad(total, point)
        return float(total.detach()), gradient.numpy()

    found: dict[float, FloatArray] = {}
    point = np.r_[origin, 0.0]
    for penalty in sorted(penalties, reverse=True):
        result = minimize(
            objective, point, args=(penalty,), jac=True, method="L-BFGS-B",
            options={"maxiter": 500, "maxfun": 700, "ftol": 1e-12, "gtol": 1e-7},
        )  # fmt: skip
        point = found[penalty] = result.x
    return [found[p] for p in penalties]


def _pair_loss(first: FloatArray, second: FloatArray, pairs: PairRows, how: BradleyTerry, point: FloatArray) -> float:
    import torch

    columns = {name: None if c is None else torch.as_tensor(c) for name, c in how.columns(pairs).items()}
    chosen, rejected = (torch.from_numpy(side @ point[:-1] + point[-1]) for side in (first, second))
    return float(how.loss(chosen, rejected, columns).sum())


def _log_odds_scale(differences: FloatArray, pairs: PairRows, how: BradleyTerry) -> float:
    """Returns the factor in [0, 1e6] by which differences of a rating predict the preferences best."""
    from scipy.optimize import minimize_scalar

    size = float(np.abs(differences).max(initial=0))
    if size == 0:
        return 0.0
    one = differences[:, None] / size

    def loss(factor: float) -> float:
        return _pair_loss(one, 0 * one, pairs, how, np.array([factor, 0.0]))

    return float(minimize_scalar(loss, bounds=(0.0, 100.0), method="bounded").x) / size
