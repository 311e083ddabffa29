"""Rewards learned from preferences or ratings: one trunk, one linear head per objective, one folder.

`fit_reward_model` learns, `LearnedRewards` holds all heads, and `learned["helpful"]` is the reward of one objective. On
a frozen trunk every text is embedded once (see `embeddings.py`) and the heads are solved for; with `finetune` the trunk
is trained, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np

from moalign.arrays import FloatArray
from moalign.errors import DefinitionError
from moalign.rewards.embeddings import Embedding
from moalign.rewards.examples import Examples, Learnable, as_examples, fit_heads
from moalign.rewards.heads import Head
from moalign.rewards.model import RewardModel
from moalign.rewards.recipes import BradleyTerry, FineTuning, Regression
from moalign.store.fingerprint import describe


@final
@dataclass(frozen=True, eq=False)
class LearnedReward:
    """The reward of one objective: weights . vector + bias, in log-odds (pairs) or in the units of its ratings."""

    embedding: Embedding
    name: str
    weights: FloatArray  # [dim]
    bias: float
    alone: bool = False  # the response is embedded without its prompt

    def __call__(self, prompts: Sequence[str], responses: Sequence[str]) -> FloatArray:
        """Returns the reward of each response, float64 [n]."""
        vectors = self.embedding(responses) if self.alone else self.embedding(prompts, responses)
        return vectors.astype(np.float64) @ self.weights + self.bias

    def check(self) -> None:
        """Raises ModelError if the trunk's folder is gone."""
        self.embedding.check()


@final
@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class LearnedRewards(Mapping[str, LearnedReward]):
    """The rewards of several objectives on one trunk, by name."""

    embedding: Embedding
    names: tuple[str, ...]
    weights: FloatArray  # [objectives, dim]
    bias: FloatArray  # [objectives]
    penalties: tuple[float, ...] = ()  # what each head was fitted with
    alone: bool = False  # responses are embedded without their prompts

    def __post_init__(self) -> None:
        for name, dimensions in (("weights", 2), ("bias", 1)):
            array = np.array(getattr(self, name), dtype=np.float64)
            array.setflags(write=False)
            object.__setattr__(self, name, array)
            if array.ndim != dimensions or len(array) != len(self.names) or not np.isfinite(array).all():
                raise DefinitionError(
                    f"{name} must hold finite numbers for {len(self.names)} objectives, got shape {array.shape}.",
                    where="LearnedRewards",
                )

    def __getitem__(self, name: str) -> LearnedReward:
        if name not in self.names:
            raise DefinitionError(f"there is no reward {name!r}; there are {self._shown}.")
        k = self.names.index(name)
        return LearnedReward(self.embedding, name, self.weights[k], float(self.bias[k]), self.alone)

    @property
    def _shown(self) -> str:
        return ", ".join(name if name.isprintable() else repr(name) for name in self.names)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        return f"<LearnedRewards {self._shown} on {self.weights.shape[1]} features>"

    def __call__(self, prompts: Sequence[str], responses: Sequence[str]) -> FloatArray:
        """Returns all rewards of each response, float64 [n, objectives]; texts are embedded once."""
        vectors = self.embedding(responses) if self.alone else self.embedding(prompts, responses)
        return vectors.astype(np.float64) @ self.weights.T + self.bias

    def save(self, folder: str | Path, *, copy_trunk: bool = False) -> None:
        """Writes the heads and what they stand on; see `learned_folder.save`."""
        from moalign.rewards.learned_folder import save

        save(self, folder, copy_trunk=copy_trunk)

    def export(self, folder: str | Path) -> dict[str, RewardModel]:
        """Writes an ordinary sequence-classification folder; returns its `RewardModel` per objective."""
        from moalign.rewards.learned_folder import export

        return export(self, folder)


def fit_reward_model(
    data: Learnable,
    embedding: Embedding,
    *,
    how: BradleyTerry | Regression | None = None,
    start: LearnedRewards | None = None,
    finetune: FineTuning | None = None,
) -> LearnedRewards:
    """Returns rewards learned from preferences (Bradley-Terry) or from ratings (regression).

    Args:
        data: `PreferencePairs` (one reward per value of their column `objective`, else one called "reward"), a mapping
            from objectives to pairs, or ratings of several attributes with NaN where one was not given.
        embedding: the trunk. Its vectors are computed once and kept on disk.
        how: `BradleyTerry(...)` or `Regression(...)`; the default of the data's kind when None.
        start: rewards on the same embedding, such as a regression's; pairs of objectives of the same names are then
            fitted from there (arXiv 2410.01257 gains from it).
        finetune: also train LoRA adapters on the trunk, starting from the heads on the frozen one.

    Raises:
        DataError: vectors that are not finite or all the same; an objective nobody rated or compared.
        DefinitionError: settings that do not fit the data.

    Warns:
        NumericsWarning: ratings all equal, labels all 0.5, or too few prompts to choose a penalty.
    """
    return fit_examples(as_examples(data), embedding, how, start, finetune)


def fit_examples(
    examples: Examples,
    embedding: Embedding,
    how: BradleyTerry | Regression | None = None,
    start: LearnedRewards | None = None,
    finetune: FineTuning | None = None,
) -> LearnedRewards:
    """Returns what `fit_reward_model` does, for examples that were read already."""
    recipe = _recipe(examples, how)
    if start is not None and (examples.ratings is not None or describe(start.embedding) != describe(embedding)):
        raise DefinitionError("start needs pairs, and rewards on the same embedding.", where="fit_reward_model")
    known = {} if start is None else {n: Head(w, float(b), 0.0) for n, w, b in zip(
        start.names, start.weights, start.bias, strict=True)}  # fmt: skip
    if finetune is None:
        heads = fit_heads(examples.embedded(embedding), examples, recipe, known)
    else:
        from moalign.rewards.finetune import fine_tune

        embedding, heads = fine_tune(embedding, examples, recipe, known, finetune)
    return LearnedRewards(
        embedding=embedding, names=examples.names, weights=np.stack([h.weights for h in heads]),
        bias=np.array([h.bias for h in heads]), penalties=tuple(h.penalty for h in heads),
        alone=examples.prompts is None,
    )  # fmt: skip


def _recipe(examples: Examples, how: BradleyTerry | Regression | None) -> BradleyTerry | Regression:
    wanted = BradleyTerry if examples.ratings is None else Regression
    if how is None:
        return wanted()
    if not isinstance(how, wanted):
        kind = "pairs" if examples.ratings is None else "ratings"
        raise DefinitionError(f"{kind} are fitted by {wanted.__name__}, got how={how!r}.", where="fit_reward_model")
    return how
