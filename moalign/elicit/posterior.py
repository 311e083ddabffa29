"""What a person's answers say about their preference weights: particles on the simplex.

A person prefers response a to b with probability e/2 + (1 - e) sigma(lambda w . (r_a - r_b)): the more their own
utility differs, the surer, and now and then (e) by mistake. Pure numpy; the same answers give the same particles, in
whatever order they were given.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np

from moalign.arrays import FloatArray

PARTICLES = 2048
MOVES = 6  # Metropolis steps of each particle after resampling


@final
@dataclass(frozen=True, kw_only=True)
class AnswerModel:
    """How reliable answers are.

    Attributes:
        rationality: lambda, log-odds per unit of utility, > 0. Utilities are scaled so that the responses that may be
            asked about span about one unit.
        lapse: share of answers that are given at random, in [0, 1).
        concentration: of the symmetric Dirichlet prior; 1 is uniform on the simplex.
    """

    rationality: float = 10.0
    lapse: float = 0.02
    concentration: float = 1.0

    def probability(self, weights: FloatArray, differences: FloatArray) -> FloatArray:
        """Returns the probability that the first is preferred [differences, weights].

        Args:
            weights: [weights, objectives] on the simplex.
            differences: r_first - r_second [differences, objectives].
        """
        utility = differences @ weights.T
        return self.lapse / 2 + (1 - self.lapse) * _sigmoid(self.rationality * utility)


@final
@dataclass(frozen=True, eq=False)
class Posterior:
    """Equally weighted draws of preference weights [particles, objectives]."""

    weights: FloatArray

    @property
    def mean(self) -> FloatArray:
        return self.weights.mean(axis=0)

    @property
    def sd(self) -> FloatArray:
        return self.weights.std(axis=0)


def posterior(
    model: AnswerModel, differences: FloatArray, answers: FloatArray, seed: int, particles: int = PARTICLES
) -> Posterior:
    """Returns draws from the weights' distribution given all answers.

    Tempered sequential Monte Carlo: the likelihood is raised from power 0 to 1 in steps that keep half of the
    particles effective; after each step they are resampled and moved by Metropolis on the logits of the weights.

    Args:
        model: of the answers.
        differences: r_first - r_second [answers, objectives].
        answers: 1 where the first was preferred, 0 the second, 0.5 for no preference [answers].
        seed: of the draws.
        particles: how many.
    """
    rng = np.random.default_rng([seed, 41])
    objectives = differences.shape[1]
    weights = rng.dirichlet(np.full(objectives, model.concentration), size=particles)
    if not len(answers) or objectives == 1:
        return Posterior(weights)
    order = np.lexsort(np.column_stack([differences, answers]).T)
    differences, answers = differences[order], answers[order]
    logits = np.log(np.maximum(weights, 1e-12))
    likelihood = _log_likelihood(model, weights, differences, answers)
    power = 0.0
    while power < 1:
        step = _next_step(likelihood, 1 - power)
        power += step
        chosen = _systematic(likelihood * step, rng)
        logits, likelihood = logits[chosen], likelihood[chosen]
        logits, likelihood = _moved(model, logits, likelihood, differences, answers, power, rng)
    return Posterior(_softmax(logits))


def information_gain(model: AnswerModel, weights: FloatArray, differences: FloatArray) -> FloatArray:
    """Returns the expected bits of information, in nats, of the answer to each question about the weights [questions].

    IG = h(p) - mean_s h(p_s), h the entropy of a yes or no (Houlsby et al., arXiv 1112.5745): 0 <= IG <= log 2, and 0
    when all particles agree on p, as for equal responses.
    """
    p = model.probability(weights, differences)
    return np.maximum(_entropy(p.mean(axis=1)) - _entropy(p).mean(axis=1), 0.0)


def choice_gain(model: AnswerModel, weights: FloatArray, differences: FloatArray, utilities: FloatArray) -> FloatArray:
    """Returns how much better a policy chosen after the answer to each question is than one chosen now [questions].

    The expected value of information for one answer: sum_o P(o) max_x E[u_x | o] - max_x E[u_x] >= 0. It is 0 where no
    answer would change the choice.

    Args:
        model: of the answers.
        weights: particles [particles, objectives].
        differences: r_first - r_second [questions, objectives].
        utilities: of every policy for every particle, in a unit that particles share [particles, policies].
    """
    mean = utilities.mean(axis=0)
    first = model.probability(weights, differences) @ utilities / len(utilities)  # P(first) E[u | first]
    return np.maximum(first.max(axis=1) + (mean - first).max(axis=1) - mean.max(), 0.0)


def _log_likelihood(
    model: AnswerModel, weights: FloatArray, differences: FloatArray, answers: FloatArray
) -> FloatArray:
    p = np.clip(model.probability(weights, differences), 1e-300, 1 - 1e-16)
    return answers @ np.log(p) + (1 - answers) @ np.log1p(-p)


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
    logits: FloatArray,
    likelihood: FloatArray,
    differences: FloatArray,
    answers: FloatArray,
    power: float,
    rng: np.random.Generator,
) -> tuple[FloatArray, FloatArray]:
    """Returns particles after Metropolis steps at a power of the likelihood.

    Only differences of logits count. The density of the prior in them is proportional to prod w_j^concentration.
    """
    logits = logits - logits.mean(axis=1, keepdims=True)
    prior = model.concentration * np.log(np.maximum(_softmax(logits), 1e-300)).sum(axis=1)
    for _ in range(MOVES):
        scale = 2.4 / np.sqrt(logits.shape[1] - 1) * np.maximum(logits.std(axis=0), 1e-3)
        proposed = logits + scale * rng.standard_normal(logits.shape) * rng.choice([0.2, 0.6, 1.0], (len(logits), 1))
        proposed -= proposed.mean(axis=1, keepdims=True)
        weights = _softmax(proposed)
        new_prior = model.concentration * np.log(np.maximum(weights, 1e-300)).sum(axis=1)
        new = _log_likelihood(model, weights, differences, answers)
        accept = np.log(rng.random(len(logits))) < power * (new - likelihood) + new_prior - prior
        logits = np.where(accept[:, None], proposed, logits)
        likelihood, prior = np.where(accept, new, likelihood), np.where(accept, new_prior, prior)
    return logits, likelihood


def _sigmoid(x: FloatArray) -> FloatArray:
    return 0.5 * (1 + np.tanh(0.5 * x))


def _softmax(logits: FloatArray) -> FloatArray:
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def _entropy(p: FloatArray) -> FloatArray:
    q = np.clip(p, 1e-12, 1 - 1e-12)
    return -q * np.log(q) - (1 - q) * np.log1p(-q)
