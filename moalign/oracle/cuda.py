"""Softmax attention with its log-sum-exp on CUDA, in the full precision of the dtype.

Triton comes with torch's builds for CUDA. A program takes some queries and one prompt and walks over the prompt's
candidates twice, for the largest score and for the sums; scores and probabilities stay in registers. Keys are a handful
of numbers wide: matrix units have nothing to do for them, and TF32 would round logits of 60 by 2e-2.
"""

# mypy: disable-error-code="assignment, no-untyped-call, no-untyped-def, untyped-decorator"
# Triton reads annotations itself, so its functions have none.

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

QUERIES = 256  # of one program
WARPS = 4


@triton.jit
def _score(query, key, WIDTH: tl.constexpr):
    score = query[0] * tl.load(key)
    for d in tl.static_range(1, WIDTH):
        score += query[d] * tl.load(key + d)
    return score


@triton.jit
def _program(
    queries, keys, content, averages, log_z, asked, candidates,
    WIDTH: tl.constexpr, COLUMNS: tl.constexpr, QUERIES: tl.constexpr,
):  # fmt: skip
    prompt = tl.program_id(1).to(tl.int64)
    rows = tl.program_id(0) * QUERIES + tl.arange(0, QUERIES)
    inside = rows < asked
    query = ()
    for d in tl.static_range(WIDTH):
        query = query + (tl.load(queries + rows * WIDTH + d, mask=inside, other=0.0),)
    keys += prompt * candidates * WIDTH
    content += prompt * candidates * COLUMNS
    top = _score(query, keys, WIDTH)
    for number in range(1, candidates):
        top = tl.maximum(top, _score(query, keys + number * WIDTH, WIDTH))
    total = tl.zeros_like(top)
    sums = ()
    for _ in tl.static_range(COLUMNS):
        sums = sums + (tl.zeros_like(top),)
    for number in range(candidates):
        share = tl.exp(_score(query, keys + number * WIDTH, WIDTH) - top)
        total += share
        grown = ()
        for d in tl.static_range(COLUMNS):
            grown = grown + (sums[d] + share * tl.load(content + number * COLUMNS + d),)
        sums = grown
    averages += prompt * asked * COLUMNS
    for d in tl.static_range(COLUMNS):
        tl.store(averages + rows * COLUMNS + d, sums[d] / total, mask=inside)
    tl.store(log_z + prompt * asked + rows, top + tl.log(total), mask=inside)


def attention(queries: Tensor, keys: Tensor, content: Tensor) -> tuple[Tensor, Tensor]:
    """Returns (averages [prompts, queries, columns], log-sum-exp [prompts, queries]).

    Args:
        queries: [queries, width], shared by all prompts.
        keys: [prompts, candidates, width].
        content: [prompts, candidates, columns].
    """
    prompts, candidates, width = keys.shape
    columns = content.shape[-1]
    averages = keys.new_empty(prompts, len(queries), columns)
    log_z = keys.new_empty(prompts, len(queries))
    grid = (triton.cdiv(len(queries), QUERIES), prompts)
    with torch.cuda.device_of(keys):
        _program[grid](
            queries.contiguous(), keys.contiguous(), content.contiguous(), averages, log_z, len(queries), candidates,
            WIDTH=width, COLUMNS=columns, QUERIES=QUERIES, num_warps=WARPS,
        )  # fmt: skip
    return averages, log_z
