"""Interpolating trained adapters: exact in the weights they add up to.

A mixture sum_i s_i B_i A_i is itself a LoRA adapter, whose A stacks all A_i and whose B puts all s_i B_i side by side.
Averaging A and B instead, as is sometimes done, gives (sum s_i B_i)(sum s_i A_i): another matrix. Mixing needs adapters
that started alike (see `AdapterStack.initial`), else the policies between them have no reason to be good.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from moalign.arrays import FloatArray
from moalign.errors import DefinitionError
from moalign.policy.adapters import AdapterStack, Site


def mixture(stack: AdapterStack, shares: Sequence[float] | FloatArray) -> AdapterStack:
    """Returns one adapter that adds sum_i shares[i] * delta_i to every frozen weight.

    The rank is the sum over the adapters with a share other than zero; a single share of one gives that adapter itself,
    bit for bit. Shares need not sum to one: what is missing is the base's (interpolation with the reference policy).

    Args:
        stack: the trained adapters.
        shares: one finite number per adapter.

    Raises:
        DefinitionError: another number of shares than adapters, or one that is not finite.
    """
    given = np.asarray(shares, dtype=np.float64)
    if given.shape != (len(stack),) or not np.isfinite(given).all():
        raise DefinitionError(f"A mixture of {len(stack)} adapters needs as many finite shares, got {given.tolist()}.")
    used = np.flatnonzero(given).tolist() or [0]
    if len(used) == 1:
        return scaled(stack.select(used), float(given[used[0]]))
    rank = stack.lora.rank * len(used)
    sites, pieces, start = [], [], 0
    for site in stack.sites:
        a, b = site.views(stack.matrix[used])  # [used, rank, in], [used, out, rank]
        share = torch.as_tensor(given[used], dtype=b.dtype, device=b.device)[:, None, None]
        wide = replace(site, start=start, rank=rank)
        pieces += [a.reshape(-1), (share * b).permute(1, 0, 2).reshape(-1)]  # [used * rank, in], [out, used * rank]
        sites.append(wide)
        start += wide.size
    lora = replace(stack.lora, rank=rank, alpha=stack.lora.alpha * len(used))  # the scale alpha / rank stays
    return AdapterStack(lora, tuple(sites), torch.cat(pieces)[None])


def scaled(stack: AdapterStack, factor: float | Sequence[float]) -> AdapterStack:
    """Returns the adapters with their deltas multiplied: interpolated with the base, or extrapolated beyond 1.

    Args:
        stack: the adapters.
        factor: one number, or one per block of layers: the layers are cut from bottom to top into as many blocks of
            about equal size. Projections outside the layers count to the lowest block.

    Source: weight averaging with the reference against the alignment tax, arXiv 2309.06256; its per-block ratios are
    chosen there by a reward proxy, here they are given.
    """
    factors = [float(f) for f in factor] if isinstance(factor, Sequence) else [float(factor)]
    if not factors or not np.isfinite(factors).all():
        raise DefinitionError(f"Adapters are scaled by one finite number or one per block of layers, got {factor!r}.")
    if all(f == 1.0 for f in factors):
        return stack
    matrix = stack.matrix.clone()
    for site in stack.sites:
        _, b = site.views(matrix)
        b.mul_(factors[_block(site, stack.sites, len(factors))])
    return AdapterStack(stack.lora, stack.sites, matrix)


def _block(site: Site, sites: Sequence[Site], blocks: int) -> int:
    layers = 1 + max((s.layer for s in sites if s.layer is not None), default=0)
    return min(blocks - 1, (site.layer or 0) * blocks // layers)
