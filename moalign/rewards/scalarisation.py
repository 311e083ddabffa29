"""Several rewards to one number: pure functions of numpy arrays and torch tensors alike.

Rewards come as `values` [..., objectives], higher is better, with any leading axes; the result [...] is to be maximised
as well. Losses of the literature (Chebyshev and its relatives) therefore appear with a minus sign. Per-objective
arguments (`weights`, `ideal`, ...) broadcast against `values`, so one row per policy is fine. Tensors keep their
gradients; where a minimum or a sorting is not differentiable, the result has the subgradient of torch.

NaN rewards give NaN. Weights are taken as they come; `moalign.rewards.aggregators` holds the checked, named forms.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from array_api_compat import array_namespace, device, is_torch_array

from moalign.arrays import FloatArray, IntArray
from moalign.errors import DefinitionError

Array: TypeAlias = Any  # numpy array or torch tensor: what goes in comes out
PerObjective: TypeAlias = Any  # number, sequence, array or tensor that broadcasts to [..., objectives]

_ALL_UNLIKELY = -30.0  # nats: below, log(1 - prod(1 - p)) is log(sum p) to double precision


def linear(values: Array, weights: PerObjective) -> Array:
    """Returns sum_i w_i r_i."""
    values, weights = floats(values, weights)
    return (weights * values).sum(-1)


def chebyshev(
    values: Array, weights: PerObjective, ideal: PerObjective, *, augment: float = 0.0, plain: bool = False
) -> Array:
    """Returns -(max_i g_i + augment * sum_i g_i) with the weighted shortfalls g_i = w_i (ideal_i - r_i).

    Args:
        values: [..., objectives].
        weights: >= 0.
        ideal: reward units, better than every value.
        augment: rho >= 0; 0.05 is usual, and 0 the Chebyshev scalarisation itself.
        plain: whether the sum is over the unweighted shortfalls ideal_i - r_i.
    """
    values, weights, ideal = floats(values, weights, ideal)
    xp = array_namespace(values)
    shortfall = ideal - values
    worst_one = xp.max(weights * shortfall, axis=-1)
    if augment == 0:
        return -worst_one
    return -(worst_one + augment * (shortfall if plain else weights * shortfall).sum(-1))


def smooth_chebyshev(values: Array, weights: PerObjective, ideal: PerObjective, mu: float = 0.01) -> Array:
    """Returns -mu log sum_i exp(g_i / mu) with g as in `chebyshev`: at most mu log(objectives) below it.

    The gradient by r_i is w_i times the softmax of g / mu (Lin et al., ICML 2024, arXiv 2402.19078).

    Args:
        values: [..., objectives].
        weights: >= 0.
        ideal: reward units, better than every value.
        mu: > 0, in units of g; 0.01 suits objectives scaled to [0, 1].
    """
    values, weights, ideal = floats(values, weights, ideal)
    return -mu * log_sum_exp(weights * (ideal - values) / mu)


def generalised_mean(values: Array, weights: PerObjective, power: float) -> Array:
    """Returns (sum_i w_i r_i^p)^(1/p) for rewards > 0 and weights that sum to 1.

    p = 1 is the weighted sum, p -> 0 the geometric mean, -1 the harmonic mean, -inf and inf the least and the greatest
    reward with a positive weight. It grows with p and is concave for p <= 1.

    Raises:
        DefinitionError: a reward <= 0.
    """
    values, weights = floats(values, weights)
    xp = array_namespace(values)
    _refuse(values <= 0, values, "The generalised mean needs rewards > 0, got {}. Measure them from a lower floor.")
    if math.isinf(power):
        counted = xp.where(weights > 0, values, math.inf if power < 0 else 0.0)
        return xp.min(counted, axis=-1) if power < 0 else xp.max(counted, axis=-1)
    logs = xp.log(values)
    centre = (weights * logs).sum(-1)  # log of the geometric mean
    if power == 0:
        return xp.exp(centre)
    if abs(power) < 1:  # exact as p -> 0: the terms of first order in p cancel before they are divided by p
        spread = xp.expm1(power * (logs - centre[..., None]))
        return xp.exp(centre + xp.log1p((weights * spread).sum(-1)) / power)
    log_weights = xp.where(weights > 0, xp.log(xp.where(weights > 0, weights, 1.0)), -math.inf)
    return xp.exp(log_sum_exp(power * logs + log_weights) / power)


def ordered_mean(values: Array, weights: PerObjective) -> Array:
    """Returns the ordered weighted average sum_k v_k r_(k), with r_(1) <= r_(2) <= ... the sorted rewards.

    Weights that do not increase make it concave and fair: (1, 0, ...) is the worst reward, equal ones are the mean.
    """
    values, weights = floats(values, weights)
    return (weights * array_namespace(values).sort(values, axis=-1)).sum(-1)


def cvar(values: Array, level: float, shares: PerObjective | None = None) -> Array:
    """Returns the mean reward of the worst `level` share (conditional value at risk, lower tail).

    Args:
        values: [..., objectives], or groups.
        level: in (0, 1]; 1 is the mean. An objective on the boundary counts with the part that is inside.
        shares: size of each group, summing to 1; equal when None.
    """
    if shares is None:
        (values,) = floats(values)
        return ordered_mean(values, cvar_weights(values.shape[-1], level))
    values, shares = floats(values, shares)
    xp = array_namespace(values)
    order = xp.argsort(values, axis=-1)
    sizes = xp.take_along_axis(shares + xp.zeros_like(values), order, axis=-1)
    before = xp.cumulative_sum(sizes, axis=-1) - sizes
    inside = xp.minimum(xp.clip(level - before, min=0.0), sizes)
    return (inside * xp.take_along_axis(values, order, axis=-1)).sum(-1) / level


def cvar_weights(objectives: int, level: float) -> FloatArray:
    """Returns the weights [objectives] with which `ordered_mean` is the CVaR at this level."""
    inside = np.clip(level * objectives - np.arange(objectives), 0, 1)
    return inside / inside.sum()


def leximin_weights(objectives: int, resolution: float, spread: float) -> FloatArray:
    """Returns the weights [objectives] with which `ordered_mean` orders rewards by leximin.

    Leximin compares the worst rewards, then the second worst, and so on. Weights in the ratio q = d / (d + s) do so
    exactly where all rewards are multiples of the resolution d within a range of width s: a gain of d at place k then
    outweighs losing s at all later ones, q^k d > s (q^(k+1) + q^(k+2) + ...).

    Args:
        objectives: number of rewards.
        resolution: smallest difference that matters, reward units, > 0.
        spread: largest difference between two rewards, reward units, >= resolution.
    """
    # Just below the limit, so that rounding does not turn the smallest difference into a tie.
    powers = np.power(0.999 * resolution / (resolution + spread), np.arange(objectives))
    return powers / powers.sum()


def leximin_ranks(values: FloatArray) -> IntArray:
    """Returns the place of each point of `values` [points, objectives] in the leximin order, [points].

    0 is the worst; points with the same sorted rewards share a place. A rank depends on the other points, so it
    chooses among policies or candidates; as the reward of a text use `ordered_mean` with `leximin_weights`.
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64), axis=-1)
    return np.unique(ordered, axis=0, return_inverse=True)[1].reshape(-1)  # rows in lexicographic order


def worst(values: Array) -> Array:
    """Returns min_i r_i."""
    (values,) = floats(values)
    return array_namespace(values).min(values, axis=-1)


def soft_worst(values: Array, temperature: float) -> Array:
    """Returns -t log mean_i exp(-r_i / t), between the least reward (t -> 0) and the mean (t -> inf)."""
    (values,) = floats(values)
    return -temperature * (log_sum_exp(-values / temperature) - math.log(values.shape[-1]))


def nash_welfare(values: Array, weights: PerObjective, disagreement: PerObjective) -> Array:
    """Returns sum_i a_i log(r_i - d_i), d being what each objective has without an agreement.

    Raises:
        DefinitionError: a reward that is not above its disagreement value.
    """
    values, weights, disagreement = floats(values, weights, disagreement)
    gains = values - disagreement
    _refuse(gains <= 0, values, "Nash welfare needs rewards above the disagreement values, got {}. Lower these.")
    return (weights * array_namespace(values).log(gains)).sum(-1)


def all_of(log_probabilities: Array, weights: PerObjective = 1.0) -> Array:
    """Returns log prod_i p_i^a_i, the logical AND of independent events (arXiv 2402.00742).

    Args:
        log_probabilities: log p_i <= 0 [..., objectives], as `log_sigmoid` gives them.
        weights: exponents a_i >= 0.

    Raises:
        DefinitionError: a value above 0, which is no log-probability.
    """
    return linear(_log_probabilities(log_probabilities), weights)


def any_of(log_probabilities: Array) -> Array:
    """Returns log(1 - prod_i (1 - p_i)), the logical OR of independent events, without cancellation.

    Raises:
        DefinitionError: a value above 0, which is no log-probability.
    """
    values = _log_probabilities(log_probabilities)
    xp = array_namespace(values)
    unlikely = xp.all(values < _ALL_UNLIKELY, axis=-1)
    none = log_complement(xp.where(unlikely[..., None], -1.0, values)).sum(-1)  # log of "no event happens"
    return xp.where(unlikely, log_sum_exp(values), log_complement(none))


def log_sigmoid(values: Array) -> Array:
    """Returns log(1 / (1 + exp(-z))), exact for any finite z; its derivative is 1 - sigmoid(z)."""
    values = _floating(values)
    xp = array_namespace(values)
    magnitude = xp.abs(values)
    return 0.5 * (values - magnitude) - xp.log1p(xp.exp(-magnitude))  # min(z, 0) with the derivative 1/2 at 0


def log_complement(values: Array) -> Array:
    """Returns log(1 - exp(u)) for log-probabilities u <= 0; u = 0 counts as the largest number below it."""
    values = _floating(values)
    xp = array_namespace(values)
    values = xp.minimum(values, xp.full_like(values, -float(xp.finfo(values.dtype).tiny)))
    likely = values > -math.log(2)
    # Each branch sees harmless numbers where the other is taken, or its gradient would be NaN there.
    near, far = xp.where(likely, values, -1.0), xp.where(likely, -1.0, values)
    return xp.where(likely, xp.log(-xp.expm1(near)), xp.log1p(-xp.exp(far)))


def log_sum_exp(values: Array) -> Array:
    """Returns log sum_i exp(v_i) over the last axis without overflow."""
    xp = array_namespace(values)
    most = xp.max(values, axis=-1)
    most = xp.where(xp.isfinite(most), most, 0.0)
    return most + xp.log(xp.exp(values - most[..., None]).sum(-1))


def floats(values: Array, *others: PerObjective) -> tuple[Array, ...]:
    """Returns all arguments as floating arrays of the library, dtype and device of `values`.

    Raises:
        DefinitionError: `values` without objectives, or arguments that do not fit them.
    """
    values = _floating(values)
    if values.ndim == 0 or values.shape[-1] == 0:
        raise DefinitionError(f"Rewards must have an axis of objectives, got shape {tuple(values.shape)}.")
    found = [values]
    for other in others:
        fitting = _alike(other, values)
        if fitting.ndim and fitting.shape[-1] not in (1, values.shape[-1]):
            raise DefinitionError(f"{fitting.shape[-1]} numbers are given for {values.shape[-1]} objectives.")
        found.append(fitting)
    return tuple(found)


def _floating(values: Array) -> Array:
    if is_torch_array(values):
        return values if values.dtype.is_floating_point else values.double()
    values = np.asarray(values)
    return values if values.dtype.kind == "f" else values.astype(np.float64)


def _alike(other: PerObjective | Sequence[float], values: Array) -> Array:
    if is_torch_array(other):
        return other.to(values) if is_torch_array(values) else other.detach().cpu().numpy().astype(values.dtype)
    xp = array_namespace(values)
    return xp.asarray(np.asarray(other, dtype=np.float64), dtype=values.dtype, device=device(values))


def _log_probabilities(values: Array) -> Array:
    (values,) = floats(values)
    _refuse(values > 0, values, "Log-probabilities are at most 0, got {}. Give rewards that went through LogSigmoid.")
    return values


def _refuse(wrong: Array, values: Array, message: str) -> None:
    if bool(wrong.any()):
        raise DefinitionError(message.format(f"{float((values + 0 * wrong)[wrong].reshape(-1)[0]):g}"))
