"""Tilts by all weights of a fine regular lattice over three objectives, far fewer exponentials than weights.

On the lattice w = (i, j, g - i - j) / g the factor exp(w . r / beta) is a product of one factor in i and one in j. A
tile of t x t weights is then one matrix product over the candidates, [t, n] x [n, t * columns], and costs 2 t + 1
exponentials per candidate instead of t^2. Factors are taken relative to the middle of the tile, and tiles are kept so
small that no factor leaves the range of float32.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from moalign.oracle.candidates import Candidates
from moalign.oracle.tilt import LARGE_REACH, SMALL_REACH, MeanTilt

FEWEST_WEIGHTS = 10_000  # with fewer of them attention is as quick
LARGEST_TILE = 64
SMALLEST_TILE = 16
PROMPTS_AT_ONCE = 16  # a tile's factors and results stay in the caches
EXPONENT = 30.0  # largest exponent of one factor; the product of two stays far below float32's 88
ROUNDINGS = 8  # units in the last place by which a weight may miss its place on the lattice


class Lattice(NamedTuple):
    """A regular lattice: weights row k is (i[k], j[k], g - i[k] - j[k]) / g."""

    g: int
    i: Tensor  # [weights]
    j: Tensor  # [weights]


def lattice_of(weights: Tensor) -> Lattice | None:
    """Returns the lattice that the rows of `weights` [weights, 3] are, each point once in any order; else None."""
    count, objectives = weights.shape
    g = math.isqrt(8 * count + 1) // 2 - 1  # (g + 1) (g + 2) / 2 points
    if objectives != 3 or count < FEWEST_WEIGHTS or (g + 1) * (g + 2) // 2 != count:
        return None
    places = (weights.double() * g).round().long()
    on_it = ((weights - (places.double() / g).to(weights)).abs() <= ROUNDINGS * torch.finfo(weights.dtype).eps).all()
    on_it &= (places >= 0).all() & (places.sum(-1) == g).all()
    i, j = places[:, 0], places[:, 1]
    return Lattice(g, i, j) if bool(on_it) and int(torch.bincount(i * (g + 1) + j).amax()) == 1 else None


def lattice_means(given: Candidates, lattice: Lattice, beta: float) -> MeanTilt | None:
    """Returns the means over prompts at all weights of the lattice, or None where attention is the better way.

    Agrees with attention to the rounding of the dtype.

    Args:
        given: candidates with three objectives.
        lattice: from `lattice_of`.
        beta: KL strength of all weights.
    """
    extent = given.rewards.abs().amax((0, 1)) / beta  # [objectives], in nats
    if not SMALL_REACH <= float(extent.min()) <= float(extent.max()) <= LARGE_REACH:
        return None
    along = [(given.rewards[..., k] - given.rewards[..., 2]) / beta for k in (0, 1)]  # [prompts, candidates]
    steepest = max(float(a.abs().amax()) for a in along)
    side = min(LARGEST_TILE, int(2 * EXPONENT * lattice.g / steepest))
    if side < SMALLEST_TILE:
        return None
    last = given.rewards[..., 2] / beta + given.log_base
    judged = given.values.shape[-1]
    content = torch.cat([given.rewards, given.values, torch.ones_like(last)[..., None]], -1).mT.contiguous()
    table = given.rewards.new_zeros(lattice.g + 1, lattice.g + 1, 3 + judged + 1, dtype=torch.float64)
    for start in range(0, len(last), PROMPTS_AT_ONCE):
        some = slice(start, start + PROMPTS_AT_ONCE)
        _add_prompts(table, along[0][some], along[1][some], last[some], content[some], side)
    found = table[lattice.i, lattice.j] / len(last)  # [weights, columns]
    weights = torch.stack([lattice.i, lattice.j, lattice.g - lattice.i - lattice.j], -1).double() / lattice.g
    rewards, log_z = found[:, :3], found[:, -1]
    kl = ((rewards * weights).sum(-1) / beta - log_z).clamp_min(0)
    return MeanTilt(rewards, found[:, 3:-1], log_z, kl)


def _add_prompts(table: Tensor, first: Tensor, second: Tensor, last: Tensor, content: Tensor, side: int) -> None:
    """Adds rewards, values and log Z of some prompts to `table` [g + 1, g + 1, columns], tile by tile."""
    g = len(table) - 1
    for low_i in range(0, g + 1, side):
        a = torch.arange(low_i, min(low_i + side, g + 1), device=last.device).to(last) / g
        rows = torch.mul((a - a.mean())[:, None], first[:, None]).exp_()  # [prompts, side, candidates]
        for low_j in range(0, g + 1 - low_i, side):
            b = torch.arange(low_j, min(low_j + side, g + 1), device=last.device).to(last) / g
            scores = last + a.mean() * first + b.mean() * second
            middle = scores.logsumexp(-1, keepdim=True)  # log Z at the middle of the tile
            columns = torch.mul((b - b.mean())[:, None], second[:, None]).exp_().mul_((scores - middle).exp_()[:, None])
            weighed = (columns[:, :, None] * content[:, None]).flatten(1, 2)  # [prompts, side * columns, candidates]
            sums = (rows @ weighed.mT).reshape(len(rows), len(a), len(b), -1)  # [prompts, side, side, columns]
            z = sums[..., -1:]
            tile = table[low_i : low_i + side, low_j : low_j + side]
            tile[..., :-1] += (sums[..., :-1] / z).sum(0, dtype=torch.float64)
            tile[..., -1] += (z.squeeze(-1).log() + middle[..., None]).sum(0, dtype=torch.float64)
