"""How reliable answers are: margins as probabilities, and the mixture of one user from few answers.

    P(chosen preferred | margin) = lapse / 2 + (1 - lapse) sigma(margin / temperature)

The lapse is the share of answers that say nothing (twice the flip rate). Without it one slip of a finger, at a large
margin, outweighs many right answers; with it a new user is placed well after five (Bayes' rule below).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np

from moalign.arrays import FloatArray
from moalign.errors import DefinitionError

_TEMPERATURES = np.geomspace(0.2, 10.0, 25)  # in units of the mean size of a margin
_LAPSES = np.linspace(0.0, 0.6, 13)


@final
@dataclass(frozen=True, kw_only=True)
class Noise:
    """The answer model: `temperature` in reward units, `lapse` in [0, 1)."""

    temperature: float = 1.0
    lapse: float = 0.0

    def __post_init__(self) -> None:
        if not (np.isfinite(self.temperature) and self.temperature > 0 and 0 <= self.lapse < 1):
            raise DefinitionError(
                f"noise needs temperature > 0 and lapse in [0, 1), got {self.temperature} and {self.lapse}."
            )

    def probability(self, margins: FloatArray) -> FloatArray:
        """Returns the probability that the chosen item is preferred, of margins in reward units."""
        sigma = 0.5 * (1 + np.tanh(0.5 * np.asarray(margins) / self.temperature))  # no overflow at any margin
        return self.lapse / 2 + (1 - self.lapse) * sigma

    def log_loss(self, margins: FloatArray, labels: FloatArray) -> FloatArray:
        """Returns -log P of soft labels in nats, one per margin; probabilities are held above 1e-12."""
        p = self.probability(margins).clip(1e-12, 1 - 1e-12)
        return -(labels * np.log(p) + (1 - labels) * np.log(1 - p))


def fit_noise(margins: FloatArray, labels: FloatArray) -> Noise:
    """Returns the answer model of least log-loss on held-out margins [n] and labels [n], from a grid."""
    choices = [
        (float(Noise(temperature=t, lapse=e).log_loss(margins, labels).mean()), e, t)
        for t in map(float, _TEMPERATURES * max(float(np.abs(margins).mean()), 1e-9))
        for e in map(float, _LAPSES)
    ]
    _, lapse, temperature = min(choices)
    return Noise(temperature=temperature, lapse=lapse)


def posterior(log_prior: FloatArray, margins: FloatArray, labels: FloatArray, noise: Noise) -> FloatArray:
    """Returns the probability of each candidate user after some answers: Bayes' rule, [candidates].

    Args:
        log_prior: [candidates], up to a constant.
        margins: [candidates, answers], what each candidate thinks of each answer, in reward units.
        labels: [answers], probability that the chosen item is preferred.
        noise: the answer model.
    """
    logits = log_prior - noise.log_loss(margins, labels).sum(axis=1)
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()
