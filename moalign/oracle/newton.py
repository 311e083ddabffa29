"""Newton's method for a smooth convex function of few non-negative variables, whose sum may be fixed at one."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

RIDGE = 1e-12  # of the largest curvature, added to directions without any
ARMIJO = 1e-4  # share of the promised decrease that a step has to bring
MOST_HALVINGS = 50


class Local(NamedTuple):
    """A function at a point."""

    value: float
    size: float  # of the terms that the value is the difference of, for its rounding
    gradient: Tensor  # [variables]
    hessian: Tensor  # [variables, variables], PSD


def step(at: Tensor, here: Local, evaluate: Callable[[Tensor], Local], *, fixed_sum: bool) -> tuple[Tensor, Local]:
    """Returns the next point and the function there; the same point when no step along the feasible set descends.

    Args:
        at: the variables, all >= 0.
        here: the function there.
        evaluate: the function anywhere in the feasible set.
        fixed_sum: whether the sum of the variables must not change.
    """
    direction = _direction(at, here, fixed_sum)
    slope = float(here.gradient @ direction)
    if not slope < 0:
        return at, here
    to_zero = torch.where(direction < 0, at / -direction.clamp_max(-torch.finfo(at.dtype).tiny), torch.inf)
    length = min(1.0, float(to_zero.amin()))
    rounding = 16 * torch.finfo(at.dtype).eps * here.size  # near the optimum no decrease is larger
    for _ in range(MOST_HALVINGS):
        moved = torch.where(to_zero <= length, 0, at + length * direction).clamp_min(0)  # exactly 0 at the boundary
        if fixed_sum:
            moved = moved / moved.sum()
        there = evaluate(moved)
        if there.value <= here.value + ARMIJO * length * slope + rounding:
            return moved, there
        length /= 2
    return at, here


def _direction(at: Tensor, here: Local, fixed_sum: bool) -> Tensor:
    """Returns the Newton direction over the variables that are free to move; zero for the others."""
    level = float(at @ here.gradient) if fixed_sum else 0.0
    free = (at > 0) | (here.gradient < level)
    while True:
        direction = _solved(here, free, fixed_sum)
        blocked = free & (at <= 0) & (direction < 0)
        if not blocked.any():
            return direction
        free = free & ~blocked


def _solved(here: Local, free: Tensor, fixed_sum: bool) -> Tensor:
    direction = torch.zeros_like(here.gradient)
    rows = free.nonzero().flatten()
    if not len(rows):
        return direction
    curvature = here.hessian[rows][:, rows]
    ridge = RIDGE * float(here.hessian.diagonal().amax().clamp_min(torch.finfo(curvature.dtype).tiny))
    system = curvature + ridge * torch.eye(len(rows), dtype=curvature.dtype, device=curvature.device)
    right = -here.gradient[rows]
    if fixed_sum:
        ones = torch.ones_like(right)
        system = torch.cat([torch.cat([system, ones[:, None]], 1), torch.cat([ones, ones.new_zeros(1)])[None]])
        right = torch.cat([right, right.new_zeros(1)])
    direction[rows] = torch.linalg.lstsq(system, right[:, None], driver="gelsd").solution[: len(rows), 0]
    return direction
