"""Texts as the features that models of users are fitted on: an embedding, centred, and lifted so that lines bend.

A reward that is linear in a sentence embedding cannot say "likes art, but dislikes being told so": topic and attitude
multiply. The lift replaces the embedding by its kernel principal components (Schoelkopf, Smola and Mueller 1998) under
a Gaussian kernel of median width, computed from landmarks (Nystroem's method; Williams and Seeger 2001). Everything
behind it stays linear and cheap, and the components are the same for every start and every user.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias, final

import numpy as np

from moalign.arrays import FloatArray
from moalign.data.tables import short_repr
from moalign.errors import DataError, RewardError

# n texts -> an array [n, dim] of finite numbers, a text's row whatever the others are
Embed: TypeAlias = Callable[[list[str]], Any]

_LANDMARKS = 1024  # of the kernel; more cost an eigenproblem of that size
_CHUNK = 4096  # texts whose kernel is held at once
_SMALLEST = 1e-6  # eigenvalues below this share of the largest are rounding


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Lift:
    """Centring and scaling, and the kernel components in between unless there are no landmarks."""

    landmarks: FloatArray  # [landmarks, dim]; none: the embedding itself is scaled
    basis: FloatArray  # [landmarks, components]
    width: float  # of the Gaussian kernel, in units of the embedding
    mean: FloatArray  # [components]
    scale: float  # root mean square length of the centred features of the items fitted on

    def __call__(self, embedded: FloatArray) -> FloatArray:
        """Returns the features [n, components] of embedded texts [n, dim]."""
        if not len(self.landmarks):
            return (embedded - self.mean) / self.scale
        parts = [
            np.exp(-_squared_distances(some, self.landmarks) / (2 * self.width**2)) @ self.basis
            for some in _chunks(embedded)
        ]
        return (np.concatenate(parts) - self.mean) / self.scale


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Features:
    """An embedding and its lift, as one function of texts.

    Features are centred, so the empty text (the zero vector) would be liked as much as the mean text. Where it takes
    part, every other text has a last feature of 1: how much anything is preferred to nothing.
    """

    embed: Embed
    lift: Lift
    empty: bool = False  # whether the empty text takes part
    cache: dict[str, FloatArray] = field(default_factory=dict, repr=False)  # features of the texts fitted on

    @property
    def dim(self) -> int:
        """The number of features."""
        return len(self.lift.mean) + self.empty

    def __call__(self, texts: Sequence[str]) -> FloatArray:
        """Returns the features [texts, dim]; the empty text is the zero vector.

        Raises:
            RewardError: the embedding fails, or returns anything else than a finite array [texts, dim].
        """
        new = [text for text in dict.fromkeys(texts) if text and text not in self.cache]
        found = dict(zip(new, self.of(embedded(self.embed, new)), strict=True)) if new else {}
        found[""] = np.zeros(self.dim)
        return np.stack([found[text] if text in found else self.cache[text] for text in texts])

    def of(self, rows: FloatArray) -> FloatArray:
        """Returns the features [n, dim] of embedded texts [n, embedding's dim]."""
        lifted = self.lift(rows)
        return np.hstack([lifted, np.ones((len(lifted), 1))]) if self.empty else lifted

    def __fingerprint__(self) -> dict[str, object]:
        """Returns what decides the features: the embedding and the numbers of the lift."""
        names = ("landmarks", "basis", "width", "mean", "scale")
        return {"embed": self.embed, "empty": self.empty, **{name: getattr(self.lift, name) for name in names}}


def fit_features(embed: Embed, texts: Sequence[str], components: int, seed: int) -> Features:
    """Returns the features fitted on texts: mean 0 and mean square length 1 over the distinct ones.

    Args:
        embed: the embedding, called once with all distinct texts.
        texts: items of the comparisons.
        components: of the kernel; 0 leaves the embedding as it is. Fewer come out where the texts do not span more.
        seed: of the choice of landmarks.

    Raises:
        RewardError: the embedding fails, or returns anything else than a finite array [texts, dim].
    """
    distinct = [text for text in dict.fromkeys(texts) if text]
    if not distinct:
        return Features(embed=embed, lift=_scaled(np.zeros((1, 1)), np.zeros((0, 1)), np.zeros((0, 1)), 1.0))
    rows = embedded(embed, distinct)
    found = Features(embed=embed, lift=_fit_lift(rows, components, seed), empty="" in texts)
    return replace(found, cache=dict(zip(distinct, found.of(rows), strict=True)))


def embedded(embed: Embed, texts: list[str]) -> FloatArray:
    """Returns what the embedding says of the texts, checked: float64 [texts, dim], finite.

    Raises:
        RewardError: names the shape, or the text whose row is not finite.
    """
    try:
        values = embed(texts)
        rows = np.asarray(values.detach().cpu() if hasattr(values, "detach") else values, dtype=np.float64)
    except Exception as error:  # whatever the user's code raises
        raise RewardError(f"the embedding failed on {len(texts)} texts: {type(error).__name__}: {error}") from error
    if rows.ndim != 2 or len(rows) != len(texts) or not rows.shape[1]:
        raise RewardError(f"the embedding returned shape {rows.shape} for {len(texts)} texts; expected [texts, dim].")
    bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if len(bad):
        raise RewardError(
            f"the embedding returned NaN or infinity for {len(bad)} of {len(texts)} texts, first for "
            f"{short_repr(texts[bad[0]])}. Remove these texts, or correct the embedding."
        )
    return rows


def check_variety(features: FloatArray) -> None:
    """Raises DataError if all rows are the same, so that no reward can tell the items apart."""
    if not len(features) or np.ptp(features, axis=0).max() <= 1e-9:
        raise DataError(
            f"the embedding gives the same vector for all {len(features)} items, so no reward can tell them apart. "
            "Compare different texts, or use another embedding."
        )


def _fit_lift(rows: FloatArray, components: int, seed: int) -> Lift:
    nothing = np.zeros((0, rows.shape[1]))
    if not components or len(rows) < 3:
        return _scaled(rows, nothing, np.zeros((0, rows.shape[1])), 1.0)
    keep = np.sort(np.random.default_rng(seed).permutation(len(rows))[:_LANDMARKS])
    landmarks = rows[keep]
    distances = _squared_distances(landmarks, landmarks)
    width = float(np.sqrt(np.median(distances[np.triu_indices(len(landmarks), 1)])))
    if width <= 1e-9:  # most texts share one vector: there is nothing to bend
        return _scaled(rows, nothing, np.zeros((0, rows.shape[1])), 1.0)
    values, vectors = np.linalg.eigh(np.exp(-distances / (2 * width**2)))
    used = np.flatnonzero(values > _SMALLEST * values[-1])[-components:]
    return _scaled(rows, landmarks, vectors[:, used] / np.sqrt(values[used]), width)


def _scaled(rows: FloatArray, landmarks: FloatArray, basis: FloatArray, width: float) -> Lift:
    columns = basis.shape[1] if len(landmarks) else rows.shape[1]
    raw = Lift(landmarks=landmarks, basis=basis, width=width, mean=np.zeros(columns), scale=1.0)
    lifted = raw(rows)
    mean = lifted.mean(axis=0)
    scale = float(np.sqrt(((lifted - mean) ** 2).sum(axis=1).mean()))
    return Lift(landmarks=landmarks, basis=basis, width=width, mean=mean, scale=scale if scale > 1e-12 else 1.0)


def _squared_distances(a: FloatArray, b: FloatArray) -> FloatArray:
    squares = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2 * a @ b.T
    return np.maximum(squares, 0.0)


def _chunks(rows: FloatArray) -> Iterator[FloatArray]:
    for start in range(0, max(len(rows), 1), _CHUNK):
        yield rows[start : start + _CHUNK]
