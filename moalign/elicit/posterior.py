"""What a person's answers say about their preference weights: particles on the simplex.

Pure numpy; the same answers give the same particles, in whatever order they were given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from moalign.arrays import FloatArray
from moalign.elicit.answers import Answer, AnswerModel, Told

PARTICLES = 2048
MOVES = 6  # Metropolis steps of each particle after resampling


@final
@dataclass(frozen=True, eq=False)
class Posterior:
    """Equally weighted draws of a person.

    Attributes:
        weights: preference weights [particles, objectives].
        thresholds: differences of utility from which they call a response clearly better [particles].
    """

    weights: FloatArray
    thresholds: FloatArray

    @property
    def mean(self) -> FloatArray:
        return self.weights.mean(axis=0)

    @property
    def sd(self) -> FloatArray:
        return self.weights.std(axis=0)

    def some(self, count: int) -> Posterior:
        """Returns about `count` of the draws, evenly among them."""
        step = max(len(self.weights) // count, 1)
        return Posterior(self.weights[::step], self.thresholds[::step])


def posterior(
    model: AnswerModel, differences: FloatArray, answers: Sequence[Answer], seed: int, particles: int = PARTICLES
) -> Posterior:
    """Returns draws from the distribution of weights and threshold given all answers.

    Tempered sequential Monte Carlo: the likelihood is raised from power 0 to 1 in steps that keep half of the
    particles effective; after each step they are resampled and moved by Metropolis on the logits of the weights and the
    logarithm of the threshold.

    Args:
        model: of the answers.
        differences: r_first - r_second [answers, objectives].
        answers: to each.
        seed: of the draws.
        particles: how many.
    """
    rng = np.random.default_rng([seed, 41])
    objectives = differences.shape[1]
    weights = rng.dirichlet(np.full(objectives, model.concentration), size=particles)
    normal = rng.standard_normal(particles)  # the threshold is model.threshold * exp(model.threshold_sd * normal)
    if not answers or objectives == 1:
        return Posterior(weights, _thresholds(model, normal))
    told = Told.of(differences, answers)
    state = np.vstack([np.log(np.maximum(weights, 1e-12)).T, normal])  # [objectives + 1, particles]
    likelihood = _log_likelihood(model, told, state)
    power = 0.0
    while power < 1:
        step = _next_step(likelihood, 1 - power)
        power += step
        chosen = _systematic(likelihood * step, rng)
        state, likelihood = _moved(model, told, state[:, chosen], likelihood[chosen], power, rng)
    return Posterior(_softmax(state[:-1]).T, _thresholds(model, state[-1]))


def _thresholds(model: AnswerModel, normal: FloatArray) -> FloatArray:
    return model.threshold * np.exp(model.threshold_sd * normal)


def _log_likelihood(model: AnswerModel, told: Told, state: FloatArray) -> FloatArray:
    return model.log_likelihood(told, _softmax(state[:-1]).T, _thresholds(model, state[-1]))


def _log_prior(model: AnswerModel, state: FloatArray) -> FloatArray:
    """Returns the log-density of logits, of which only differences count (prod w_j^concentration), and threshold."""
    logs = np.log(np.maximum(_softmax(state[:-1]), 1e-300)).sum(axis=0)
    density: FloatArray = model.concentration * logs - state[-1] ** 2 / 2
    return density


def _next_step(likelihood: FloatArray, most: float) -> float:
    """Returns the largest step of the power that leaves half of the particles effective, by bisection."""

    def effective(step: float) -> float:
        w = np.exp(step * (likelihood - likelihood.max()))
        return float(w.sum() ** 2 / (w**2).sum())

    if effective(most) >= len(likelihood) / 2:
        return most
    low, high = 0.0, most
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if effective(middle) >= len(likelihood) / 2 else (low, middle)
    return max(low, 1e-6)


def _systematic(log_weights: FloatArray, rng: np.random.Generator) -> FloatArray:
    shares = np.exp(log_weights - log_weights.max())
    places = (rng.random() + np.arange(len(shares))) / len(shares)
    return np.minimum(np.searchsorted(np.cumsum(shares) / shares.sum(), places), len(shares) - 1)


def _moved(
    model: AnswerModel,
    told: Told,
    state: FloatArray,
    likelihood: FloatArray,
    power: float,
    rng: np.random.Generator,
) -> tuple[FloatArray, FloatArray]:
    """Returns particles after Metropolis steps at a power of the likelihood."""
    state = _centred(state)
    prior = _log_prior(model, state)
    for _ in range(MOVES):
        scale = 2.4 / np.sqrt(len(state) - 1) * np.maximum(state.std(axis=1, keepdims=True), 1e-3)
        proposed = state + scale * rng.standard_normal(state.shape) * rng.choice([0.2, 0.6, 1.0], state.shape[1])
        proposed = _centred(proposed)
        new_prior, new = _log_prior(model, proposed), _log_likelihood(model, told, proposed)
        accept = np.log(rng.random(state.shape[1])) < power * (new - likelihood) + new_prior - prior
        state = np.where(accept, proposed, state)
        likelihood, prior = np.where(accept, new, likelihood), np.where(accept, new_prior, prior)
    return state, likelihood


def _centred(state: FloatArray) -> FloatArray:
    return np.vstack([state[:-1] - state[:-1].mean(axis=0), state[-1]])


def _softmax(logits: FloatArray) -> FloatArray:
    """Returns weights on the simplex [objectives, particles]."""
    e = np.exp(logits - logits.max(axis=0))
    return e / e.sum(axis=0)
