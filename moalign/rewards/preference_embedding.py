"""Preferences that no reward can have: the general preference model (arXiv 2410.02197).

Each response gets an embedding v in R^2k, linear in its features, and

    s(i > j) = <R v_i, v_j> = sum_l (v_i[2l] v_j[2l+1] - v_i[2l+1] v_j[2l]),    P(i > j) = sigma(s / temperature)

R is skew-symmetric, so s(i > j) = -s(j > i) holds exactly, and cycles (a over b over c over a) can be told. A constant
feature makes Bradley-Terry one of the models. Block strengths are 1; prompt-dependent ones are not supported. Users are
not told apart: fit it to one group's comparisons.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import final

import numpy as np
import torch

from moalign.arrays import FloatArray
from moalign.data.comparisons import load_comparisons
from moalign.errors import DefinitionError
from moalign.rewards.people.features import Embed, Features, check_variety, fit_features
from moalign.rewards.people.personal import item_text
from moalign.rewards.voting import lottery_of_margins


@final
@dataclass(frozen=True, kw_only=True)
class PreferenceEmbedding:
    """Settings of the general preference model."""

    dim: int = 4  # 2k, even; k blocks represent any preferences of 2k + 1 responses
    temperature: float = 0.1
    lift: int = 256  # kernel components of the embedding; 0 takes it as it is
    steps: int = 300  # Adam steps on all comparisons
    learning_rate: float = 0.05
    decay: float = 1e-4  # L2 inside Adam
    seed: int = 0

    def __post_init__(self) -> None:
        problems = []
        if type(self.dim) is not int or self.dim < 2 or self.dim % 2:
            problems.append(f"dim must be an even whole number >= 2, got {self.dim!r}.")
        for name, least in (("lift", 0), ("steps", 1)):
            if type(getattr(self, name)) is not int or getattr(self, name) < least:
                problems.append(f"{name} must be a whole number >= {least}, got {getattr(self, name)!r}.")
        for name in ("temperature", "learning_rate"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                problems.append(f"{name} must be finite and > 0, got {getattr(self, name)}.")
        if not (math.isfinite(self.decay) and self.decay >= 0):
            problems.append(f"decay must be finite and >= 0, got {self.decay}.")
        if problems:
            raise DefinitionError(problems, where="PreferenceEmbedding")

    def fit(self, comparisons: object, *, embed: Embed) -> GeneralPreference:
        """Returns the preferences fitted by the mean of softplus(-s / temperature), with soft labels.

        Args:
            comparisons: see `load_comparisons`; users are ignored, and may be absent.
            embed: texts -> array [texts, dim]; a text's row must not depend on the other texts.

        Raises:
            DataError: unusable rows, or items that all have the same features.
            RewardError: the embedding fails.
        """
        given = load_comparisons(comparisons, user="everybody")
        texts = [item_text(item, whole=True) for item in given.items]
        features = fit_features(embed, texts, self.lift, self.seed)
        check_variety(features(texts))
        x = torch.tensor(_with_constant(features(texts)), dtype=torch.float32)
        chosen, rejected = torch.tensor(given.chosen), torch.tensor(given.rejected)
        labels = torch.tensor(given.labels, dtype=torch.float32)
        draw = torch.Generator().manual_seed(self.seed)
        size = 1 / (x.shape[1] + 1)
        weights = torch.nn.Parameter(size * torch.randn(self.dim, x.shape[1], generator=draw))
        optimiser = torch.optim.Adam([weights], lr=self.learning_rate, weight_decay=self.decay)
        for _ in range(self.steps):
            v = x @ weights.T
            logits = skew_scores(v[chosen], v[rejected]) / self.temperature
            loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        return GeneralPreference(
            features=features, weights=weights.detach().double().numpy(), temperature=self.temperature
        )  # fmt: skip


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class GeneralPreference:
    """Fitted preferences between responses to one prompt."""

    features: Features = field(repr=False)
    weights: FloatArray = field(repr=False)  # [2k, features + 1]
    temperature: float

    def embeddings(self, prompts: Sequence[object], responses: Sequence[str]) -> FloatArray:
        """Returns v of each response, [responses, 2k]."""
        if len(prompts) != len(responses):
            raise DefinitionError(f"one response per prompt is needed, got {len(prompts)} and {len(responses)}.")
        texts = [item_text((str(p), str(r)), whole=True) for p, r in zip(prompts, responses, strict=True)]
        return _with_constant(self.features(texts)) @ self.weights.T

    def margins(self, prompt: object, responses: Sequence[str]) -> FloatArray:
        """Returns the log-odds that row is preferred to column, skew-symmetric [responses, responses]."""
        v = torch.tensor(self.embeddings([prompt] * len(responses), responses))
        return (skew_scores(v[:, None], v[None]) / self.temperature).numpy()

    def probabilities(self, prompt: object, responses: Sequence[str]) -> FloatArray:
        """Returns the probability that row is preferred to column, [responses, responses]; P + P^T = 1."""
        return 0.5 * (1 + np.tanh(0.5 * self.margins(prompt, responses)))

    def against(self, prompt: object, responses: Sequence[str], opponents: Sequence[str]) -> FloatArray:
        """Returns the mean log-odds of each response over opponents, [responses]: its reward against their policy."""
        both = self.margins(prompt, [*responses, *opponents])
        return both[: len(responses), len(responses) :].mean(axis=1)

    def nash(self, prompt: object, responses: Sequence[str]) -> FloatArray:
        """Returns probabilities [responses] that no response beats on average: the game's equilibrium."""
        return lottery_of_margins(self.margins(prompt, responses))


def skew_scores(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Returns s(first > second) [...] of embeddings [..., 2k]; s(a > b) = -s(b > a) exactly."""
    return (first[..., 0::2] * second[..., 1::2] - first[..., 1::2] * second[..., 0::2]).sum(-1)


def intransitivity(margins: FloatArray) -> float:
    """Returns the share of skew-symmetric margins that no reward explains, in [0, 1].

    ||A - grad r||^2 / ||A||^2 with r_i = mean_j A_ij, the least-squares reward: 0 for differences of a reward, 1 for a
    pure cycle; 0 where every margin is 0.
    """
    total = float((margins**2).sum())
    reward = margins.mean(axis=1)
    rest = margins - (reward[:, None] - reward)
    return float((rest**2).sum()) / total if total > 0 else 0.0


def _with_constant(features: FloatArray) -> FloatArray:
    return np.hstack([features, np.ones((len(features), 1))])
