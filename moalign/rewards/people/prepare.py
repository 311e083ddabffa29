"""Comparisons as tensors, their split for validation, and what a chosen model becomes for users."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor

from moalign.arrays import FloatArray, IntArray
from moalign.data.comparisons import Comparisons
from moalign.errors import DataWarning, DefinitionError
from moalign.rewards.people.em import Answers
from moalign.rewards.people.features import Embed, Features, check_variety, fit_features
from moalign.rewards.people.heads import Heads, as_tensor
from moalign.rewards.people.noise import Noise, fit_noise
from moalign.rewards.people.personal import PersonalRewards, item_text
from moalign.rewards.people.selection import FEWEST_HELD_OUT, Trial

_FLAT = 1e-9  # log-odds; a prototype whose rewards spread less is constant


@final
@dataclass(frozen=True, kw_only=True)
class Prepared:
    """Comparisons with features of their items, and which rows are held out to choose."""

    comparisons: Comparisons
    items: Features
    prompts: Features | None
    x: Tensor  # [items, dim], float64
    c: Tensor  # [items, prompt dim], float64
    fitted: IntArray  # rows to fit on
    held_out: IntArray  # rows to choose on

    def margins(self, heads: Heads, mixtures: FloatArray, rows: IntArray) -> FloatArray:
        """Returns reward of chosen minus reward of rejected, in the heads' units, [rows]."""
        given = self.comparisons
        w = as_tensor(mixtures[given.user[rows]])
        sides = [
            heads.rewards(self.x[i], self.c[i], w)
            for i in map(torch.from_numpy, (given.chosen[rows], given.rejected[rows]))
        ]
        return (sides[0] - sides[1]).numpy()

    @property
    def judged(self) -> IntArray:
        """The rows that decide: those held out, or those fitted on where there are none."""
        return self.held_out if len(self.held_out) else self.fitted

    def judge(self, heads: Heads, mixtures: FloatArray) -> tuple[FloatArray, Noise]:
        """Returns the log-loss of each judged row under the answer model fitted to them, and that model."""
        labels = self.comparisons.labels[self.judged]
        margins = self.margins(heads, mixtures, self.judged)
        if not len(self.held_out):  # margins on fitted rows are too sure of themselves to fit a scale to
            return Noise().log_loss(margins, labels), Noise()
        noise = fit_noise(margins, labels)
        return noise.log_loss(margins, labels), noise

    def personal(
        self, heads: Heads, mixtures: FloatArray, noise: Noise, candidates: FloatArray, log_prior: FloatArray,
        trials: Sequence[Trial],
    ) -> PersonalRewards:  # fmt: skip
        """Returns the rewards of users, with each prototype's mean and spread over the items.

        Warns:
            DataWarning: a prototype that gives every item the same reward.
        """
        corners = torch.eye(heads.prototypes, dtype=torch.float64)[:, None]
        each = (heads.rewards(self.x, self.c, corners) / noise.temperature).numpy()  # [K, items]
        spread = each.std(axis=1)
        flat = np.flatnonzero(spread <= _FLAT)
        if len(flat):
            warnings.warn(
                f"prototype {flat[0]} gives every item the same reward: its users' answers contradict each other, or "
                "it has none.",
                DataWarning,
                stacklevel=4,
            )
        return PersonalRewards(
            heads=heads, items=self.items, prompts=self.prompts, users=self.comparisons.users, mixtures=mixtures,
            candidates=candidates, log_prior=log_prior, noise=noise, centre=each.mean(axis=1),
            spread=np.where(spread <= _FLAT, 1.0, spread), trials=tuple(trials),
        )  # fmt: skip


def prepare(
    comparisons: Comparisons, embed: Embed, *, whole: bool, components: int, validation: float, seed: int
) -> Prepared:
    """Returns the comparisons ready to be fitted.

    Args:
        comparisons: of all users.
        embed: the embedding of texts.
        whole: an item's text is prompt and response (otherwise both are embedded apart).
        components: of the lift, 0 for none.
        validation: share of each user's comparisons that is held out to choose.
        seed: of the split and the lift.

    Raises:
        DataError: every item has the same features.
        RewardError: the embedding fails.

    Warns:
        DataWarning: too few comparisons per user to hold any out.
    """
    texts = [item_text(item, whole) for item in comparisons.items]
    items = fit_features(embed, texts, components, seed)
    x = items(texts)
    check_variety(x)
    prompts = None if whole else fit_features(embed, [prompt for prompt, _ in comparisons.items], components, seed)
    c = np.zeros((len(x), 0)) if prompts is None else prompts([prompt for prompt, _ in comparisons.items])
    fitted, held_out = comparisons.split(validation, seed=seed)
    if len(held_out) < FEWEST_HELD_OUT:
        if validation:
            warnings.warn(
                f"{len(comparisons)} comparisons by {len(comparisons.users)} users leave {len(held_out)} to choose on, "
                f"fewer than {FEWEST_HELD_OUT}: the start is chosen by its training loss, and probabilities are not "
                "calibrated.",
                DataWarning,
                stacklevel=4,
            )
        fitted, held_out = np.arange(len(comparisons)), np.zeros(0, dtype=np.int64)
    return Prepared(
        comparisons=comparisons, items=items, prompts=prompts, x=as_tensor(x), c=as_tensor(c), fitted=fitted,
        held_out=held_out,
    )  # fmt: skip


def answers_of(prepared: Prepared, rows: IntArray, *, by_user: bool = True) -> Answers:
    """Returns these comparisons for EM, with users (or each answer by itself) as the units."""
    given = prepared.comparisons
    unit = given.user[rows] if by_user else np.arange(len(rows))
    return Answers(
        features=prepared.x.float(), chosen=as_long(given.chosen[rows]), rejected=as_long(given.rejected[rows]),
        labels=torch.tensor(given.labels[rows], dtype=torch.float32), unit=as_long(unit),
        units=len(given.users) if by_user else len(rows),
    )  # fmt: skip


def as_long(values: IntArray) -> Tensor:
    """Returns positions as a tensor."""
    return torch.tensor(values, dtype=torch.int64)


def numbers_of(asked: int | Sequence[int], name: str, most: int, what: str) -> tuple[int, ...]:
    """Returns the numbers of prototypes to try, ascending.

    Raises:
        DefinitionError: no whole numbers >= 1, or all of them larger than there are users.

    Warns:
        DataWarning: some of several are larger, and are left out.
    """
    numbers = sorted({asked} if isinstance(asked, int) else set(asked))
    fitting = tuple(k for k in numbers if k <= most)
    if not fitting:
        raise DefinitionError(
            f"{name} is {numbers[0]}, but the comparisons have only {most} {what}. Each "
            f"needs one at least: use {name}={most}, or give comparisons of more {what}."
        )
    if len(fitting) < len(numbers):
        left = ", ".join(str(k) for k in numbers if k > most)
        warnings.warn(f"{name} {left} left out: there are only {most} {what}.", DataWarning, stacklevel=4)
    return fitting


def number_problems(asked: object, name: str) -> list[str]:
    """Returns a sentence if this is neither a whole number >= 1 nor several of them."""
    values = asked if isinstance(asked, (list, tuple, range)) else [asked]
    if len(values) and all(type(k) is int and k >= 1 for k in values):
        return []
    return [f"{name} must be a whole number >= 1 or several of them, got {asked!r}."]
