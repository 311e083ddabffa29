"""AdamW on a stack of adapters: a learning rate per policy, and policies that stop earlier than others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor


@final
class StackAdamW:
    """AdamW (arXiv 1711.05101) over the rows of one matrix; rows never mix, so each is stepped as if it were alone.

    Args:
        matrix, gradient: [policies, parameters]; `matrix` is changed in place.
        first_moment, second_moment: [policies, parameters], changed in place.
        step: steps that these moments have seen.
        betas, weight_decay: of AdamW.
    """

    def __init__(
        self,
        matrix: Tensor,
        gradient: Tensor,
        first_moment: Tensor,
        second_moment: Tensor,
        step: int,
        betas: tuple[float, float],
        weight_decay: float,
    ) -> None:
        self._rows = [torch.nn.Parameter(row, requires_grad=False) for row in matrix]  # views, not copies
        self._gradients = list(gradient)
        self._adamw = torch.optim.AdamW(self._rows, betas=betas, weight_decay=weight_decay, fused=True)
        for row, first, second in zip(self._rows, first_moment, second_moment, strict=True):
            taken = torch.tensor(float(step), dtype=torch.float32, device=matrix.device)
            self._adamw.state[row] = {"exp_avg": first, "exp_avg_sq": second, "step": taken}

    def step(self, rates: Sequence[float], active: Sequence[int]) -> None:
        """Steps the rows named by `active`, each at its own learning rate; the others stay as they are."""
        for row in self._rows:
            row.grad = None
        for policy in active:
            self._rows[policy].grad = self._gradients[policy]
        [defaults] = self._adamw.param_groups[:1]
        self._adamw.param_groups = [
            defaults | {"params": [self._rows[k] for k in active if rates[k] == rate], "lr": rate}
            for rate in sorted({rates[k] for k in active})
        ]  # one fused call per learning rate
        self._adamw.step()
