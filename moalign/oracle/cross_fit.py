"""Honest reports of chosen optima: choose on some candidates, report on the others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from moalign.arrays import FloatArray
from moalign.errors import DefinitionError
from moalign.oracle.optimum import OracleResult, oracle

SMALLEST_FOLD = 8  # candidates


@final
@dataclass(frozen=True, kw_only=True)
class CrossFit:
    """A choice among weights, as it looks where it was made and elsewhere; means over folds."""

    chosen: tuple[int, ...]  # position of the chosen weights, one per fold
    chosen_rewards: Float[Tensor, "folds objectives"]  # on the candidates that chose, optimistic
    held_out_rewards: Float[Tensor, "folds objectives"]  # on the others
    held_out_kl: Float[Tensor, " folds"]

    @property
    def rewards(self) -> Float[Tensor, " objectives"]:
        """Expected rewards of the chosen optima on candidates that had no part in the choice."""
        return self.held_out_rewards.mean(0)


def cross_fit(
    rewards: Float[Tensor, "prompts candidates objectives"],
    weights: Float[Tensor, "weights objectives"] | Float[FloatArray, "weights objectives"],
    beta: float | Float[Tensor, " weights"],
    choose: Callable[[OracleResult], int],
    *,
    folds: int = 2,
    seed: int = 0,
) -> CrossFit:
    """Returns what choosing one of `weights` is worth, chosen on all folds of the candidates but one, judged on that.

    A nonlinear goal, such as the largest minimum, read off the candidates that chose is too good to be true.

    Args:
        rewards: of samples of the reference policy, the same number for every prompt.
        weights, beta: as in `oracle`.
        choose: the optima on the choosing candidates -> position of the chosen weights, as
            `lambda found: int(found.rewards.amin(-1).argmax())`.
        folds: parts of each prompt's candidates; every part is held out once.
        seed: of the random split, one for each prompt.

    Raises:
        DefinitionError: arguments that `oracle` refuses, or folds of fewer than 8 candidates.
    """
    prompts, count = rewards.shape[:2]
    if folds < 2 or count // folds < SMALLEST_FOLD:
        raise DefinitionError(
            f"folds must be at least 2 and leave {SMALLEST_FOLD} of the {count} candidates in each, got {folds}."
        )
    draws = torch.rand(prompts, count, generator=torch.Generator().manual_seed(seed))
    fold = (draws.argsort(-1).argsort(-1) * folds // count).to(rewards.device)  # [prompts, candidates]
    chosen, inside, outside, kl = [], [], [], []
    for held_out in range(folds):
        choosing = oracle(rewards, weights, beta, mask=fold != held_out, per_prompt=False)
        place = choose(choosing)
        judged = oracle(rewards, weights, beta, mask=fold == held_out, per_prompt=False)
        chosen.append(place)
        inside.append(choosing.rewards[place])
        outside.append(judged.rewards[place])
        kl.append(judged.kl[place])
    return CrossFit(
        chosen=tuple(chosen), chosen_rewards=torch.stack(inside), held_out_rewards=torch.stack(outside),
        held_out_kl=torch.stack(kl),
    )  # fmt: skip
