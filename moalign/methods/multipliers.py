"""Multipliers of lower bounds on expected rewards, moved batch by batch.

They go down the dual g(lambda), whose gradient is the slack of the bounds. Policies follow them with a delay, and on
its own that makes both swing. So policies see multipliers plus a penalty on the shortfall, which is the gradient of the
augmented Lagrangian: it damps, and adds nothing where bounds are met, or are slack at lambda = 0 (as the proportional
part of arXiv 2007.03964).

The state is one row per policy: what the policy sees, its multipliers (1 for the objective that is raised), running
mean rewards [objectives each], and the number of batches seen.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from moalign.arrays import FloatArray

LARGEST = 1e2  # beyond, a bound is as good as infeasible and the policy only chases it
MEMORY = 0.8  # of the running means of rewards that shortfalls are read from


def started(first: FloatArray) -> FloatArray:
    """Returns the state before the first batch, of the multipliers [policies, objectives], 1 for what is raised."""
    return np.concatenate([first, first, np.zeros_like(first), np.zeros((len(first), 1))], axis=1)


def seen(state: Tensor, objectives: int) -> Tensor:
    """Returns what the policies are trained for: weights of the rewards [policies, objectives]."""
    return state[:, :objectives]


def reached(state: FloatArray, objectives: int) -> FloatArray:
    """Returns the multipliers without penalties [policies, objectives], 1 for what is raised."""
    return state[:, objectives : 2 * objectives]


def moved(
    state: Tensor, rewards: Tensor, bounds: Tensor, raised: Tensor, *, rate: Tensor, penalty: Tensor,
    sharpness: float | None = None,
) -> Tensor:  # fmt: skip
    """Returns the state after a batch.

    Args:
        state: [policies, 3 objectives + 1].
        rewards: means of the batch [policies, objectives].
        bounds: least rewards [policies, objectives].
        raised: which objective each policy raises [policies, objectives], whose multiplier stays 1.
        rate: of the multipliers, per reward unit and batch [policies, 1].
        penalty: of a shortfall, per reward unit [policies, 1].
        sharpness: of a logarithmic barrier in front of the bounds, per reward unit; None for none.
    """
    m = rewards.shape[-1]
    _, multipliers, mean, count = torch.tensor_split(state, (m, 2 * m, 3 * m), dim=-1)
    kept = MEMORY * (1 - MEMORY**count) / (1 - MEMORY ** (count + 1))  # of a mean without bias
    mean = kept * mean + (1 - kept) * rewards
    now, lasting = (
        _stepped(multipliers, bounds - mean, size, sharpness).masked_fill(raised, 1) for size in (penalty, rate)
    )
    return torch.cat([now, lasting, mean, count + 1], dim=-1)


def _stepped(multipliers: Tensor, short: Tensor, size: Tensor, sharpness: float | None) -> Tensor:
    """Returns multipliers after a step along the shortfall and the proximal step of what keeps them in range.

    That is lambda >= 0, or the barrier's -log(lambda) / sharpness, at whose optimum lambda is 1 / (sharpness * slack).
    """
    there = multipliers + size * short
    inward = 0.0 if sharpness is None else 4 * size / sharpness
    return ((there + (there.square() + inward).sqrt()) / 2).clamp(max=LARGEST)
