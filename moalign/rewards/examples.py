"""What rewards are learned from, in one form: distinct responses, and pairs of them or ratings of them by objective."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, final

import numpy as np
from numpy.typing import NDArray

from moalign.arrays import FloatArray, IntArray
from moalign.data.pairs import PreferencePairs
from moalign.data.ratings import Ratings
from moalign.errors import DefinitionError
from moalign.rewards.embeddings import Embedding
from moalign.rewards.heads import Head, fit_pairs, fit_ratings
from moalign.rewards.recipes import BradleyTerry, PairRows, Regression

UNNAMED = "reward"  # the objective of pairs that name none


Learnable: TypeAlias = PreferencePairs | Ratings | Mapping[str, PreferencePairs]


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Examples:
    """Responses by row, and either `pairs` or `ratings` that refer to these rows."""

    names: tuple[str, ...]  # of the objectives
    responses: tuple[str, ...]
    prompts: tuple[str, ...] | None  # None: the responses stand alone
    pairs: tuple[PairRows, ...] = ()  # per objective
    ratings: FloatArray | None = None  # [responses, objectives]

    def embedded(self, embedding: Embedding) -> NDArray[np.float32]:
        """Returns the vectors of all responses [responses, dim]."""
        return embedding(self.responses) if self.prompts is None else embedding(self.prompts, self.responses)

    @property
    def groups(self) -> NDArray[np.object_]:
        """What must not be parted in cross-validation: the prompt of each response, or the response."""
        return np.array(self.responses if self.prompts is None else self.prompts, dtype=object)

    def parts(self) -> list[tuple[str, ...]]:
        """Returns each response as the parts of its text: (prompt, response), or (response,)."""
        if self.prompts is None:
            return [(response,) for response in self.responses]
        return list(zip(self.prompts, self.responses, strict=True))

    def ratings_table(self) -> FloatArray:
        """Returns the ratings [responses, objectives]; without any, all are missing."""
        if self.ratings is not None:
            return self.ratings
        return np.full((len(self.responses), len(self.names)), np.nan)

    def within(self, responses: NDArray[np.bool_]) -> Examples:
        """Returns the examples whose responses are marked; the rows stay as they are, unmarked ones are unused."""
        pairs = tuple(p.select(np.flatnonzero(responses[p.chosen] & responses[p.rejected])) for p in self.pairs)
        rated = None if self.ratings is None else np.where(responses[:, None], self.ratings, np.nan)
        return replace(self, pairs=pairs, ratings=rated)

    def select(self, rows: IntArray) -> Examples:
        """Returns these responses with their ratings, and without pairs."""
        return Examples(
            names=self.names, responses=tuple(self.responses[i] for i in rows),
            prompts=None if self.prompts is None else tuple(self.prompts[i] for i in rows),
            ratings=None if self.ratings is None else self.ratings[rows],
        )  # fmt: skip


def as_examples(data: Learnable) -> Examples:
    """Returns preference pairs or ratings in the common form.

    Raises:
        DefinitionError: neither of the two, or nothing in it.
    """
    if isinstance(data, PreferencePairs):
        return _from_pairs(_by_objective(data))
    if isinstance(data, Mapping):
        return _from_pairs(data)
    if not isinstance(data, Ratings):
        raise DefinitionError(f"rewards are learned from PreferencePairs or ratings, got {type(data).__name__}.")
    values = np.array(data.values, dtype=np.float64)
    prompts = None if data.prompts is None else tuple(map(str, data.prompts))
    return Examples(names=tuple(data.attributes), responses=tuple(data.responses), prompts=prompts, ratings=values)


def fit_heads(
    vectors: NDArray[np.float32], examples: Examples, how: BradleyTerry | Regression, start: Mapping[str, Head]
) -> list[Head]:
    """Returns one head per objective, solved for on fixed vectors [responses, dim]; pairs may `start` from heads."""
    groups = examples.groups
    if isinstance(how, Regression):
        return fit_ratings(vectors, examples.ratings_table(), examples.names, how, list(groups))
    return [
        fit_pairs(vectors, pairs, how, list(groups[pairs.chosen]), start.get(name), name)
        for name, pairs in zip(examples.names, examples.pairs, strict=True)
    ]


def _by_objective(pairs: PreferencePairs) -> dict[str, Any]:
    if pairs.objective is None:
        return {UNNAMED: pairs}
    column = np.array(pairs.objective)
    return {str(name): (pairs, np.flatnonzero(column == name)) for name in dict.fromkeys(pairs.objective)}


def _from_pairs(data: Mapping[str, Any]) -> Examples:
    if not data:
        raise DefinitionError("rewards are learned from pairs of one objective or more, got none.")
    places: dict[tuple[str, str], int] = {}
    rows = []
    for name, value in data.items():
        pairs, chosen = value if isinstance(value, tuple) else (value, None)
        if not isinstance(pairs, PreferencePairs):
            raise DefinitionError(f"the pairs of {name!r} must be PreferencePairs, got {type(pairs).__name__}.")
        rows.append(_rows(pairs, np.arange(len(pairs)) if chosen is None else chosen, places))
    prompts, responses = zip(*places, strict=True)
    return Examples(names=tuple(map(str, data)), responses=responses, prompts=prompts, pairs=tuple(rows))


def _rows(pairs: PreferencePairs, keep: IntArray, places: dict[tuple[str, str], int]) -> PairRows:
    sides = [
        np.array([places.setdefault((str(pairs.prompts[i]), side[i]), len(places)) for i in keep], dtype=np.int64)
        for side in (pairs.chosen, pairs.rejected)
    ]
    return PairRows(
        chosen=sides[0], rejected=sides[1], labels=pairs.labels[keep],
        margin=None if pairs.margin is None else pairs.margin[keep],
        strength=None if pairs.weight is None else pairs.weight[keep],
    )  # fmt: skip
