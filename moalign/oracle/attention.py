"""Softmax attention with its log-sum-exp, the kernel behind every tilt; fused where torch has such a kernel.

torch's public attention hides log Z. Its CPU kernel returns it, but is an internal operator; for CUDA there is a kernel
of our own. Either is used only after a probe against the written-out form on this very build. Everywhere else the
written-out form is computed in pieces of bounded size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor

SCORES_ON_CPU = 1 << 20  # scores formed at once by the written-out form: 4 MiB in float32, near the caches
SCORES_ON_ACCELERATOR = 1 << 26  # and where launching a kernel costs more than its memory
PROBE_TOLERANCE = 1e-4  # relative; a kernel with another convention is off by far more


def attention(queries: Tensor, keys: Tensor, content: Tensor) -> tuple[Tensor, Tensor]:
    """Returns (averages [prompts, queries, width of content], log-sum-exp [prompts, queries]) of attention at scale 1.

    Args:
        queries: [queries, width], shared by all prompts.
        keys, content: [prompts, candidates, width], on a CPU of one width. Of bfloat16 operands products are added up
            in float32, the softmax and the results are float32.
    """
    # those kernels would round the averages of bfloat16
    kernel = None if keys.dtype == torch.bfloat16 else _kernel(keys.device, keys.dtype)
    if kernel is None:
        return _in_pieces(queries, keys, content)
    with _full_precision():
        return kernel(queries, keys, content)


def written_out(queries: Tensor, keys: Tensor, content: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the same as `attention` with all scores in memory, products in the full precision of the dtype."""
    with _full_precision():
        scores = _product(queries.expand(len(keys), *queries.shape), keys.mT)  # [prompts, queries, candidates]
        top = scores.amax(-1, keepdim=True)
        shares = scores.sub_(top).exp_()
        total = shares.sum(-1, keepdim=True)
        parts = [shares] if content.dtype != torch.bfloat16 else twofold(shares)
        averages = sum(_product(part, content) for part in parts) / total
        return averages, (top + total.log()).squeeze(-1)


def twofold(values: Tensor) -> tuple[Tensor, Tensor]:
    """Returns two bfloat16 tensors whose sum is `values` to 2^-17 of their size."""
    high = values.bfloat16()
    return high, (values - high).bfloat16()


def _product(left: Tensor, right: Tensor) -> Tensor:
    """Returns the product of two batches of matrices; of bfloat16 ones in float32, as matrix units add them up."""
    if left.dtype != torch.bfloat16:
        return left @ right
    if left.device.type == "cuda":
        return torch.bmm(left, right, out_dtype=torch.float32)
    return left.float() @ right.float()  # products of two bfloat16 numbers are exact in float32


def _in_pieces(queries: Tensor, keys: Tensor, content: Tensor) -> tuple[Tensor, Tensor]:
    prompts, candidates, _ = keys.shape
    most = SCORES_ON_CPU if keys.device.type == "cpu" else SCORES_ON_ACCELERATOR
    step = max(1, most // (prompts * candidates))
    parts = [written_out(some, keys, content) for some in torch.split(queries, step)]
    return torch.cat([averages for averages, _ in parts], 1), torch.cat([log_z for _, log_z in parts], 1)


Kernel = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


@cache
def _kernel(device: torch.device, dtype: torch.dtype) -> Kernel | None:
    """Returns the fused kernel of a device if this build of torch has it and it computes what is meant, else None."""
    kernel = {"cpu": _on_cpu, "cuda": _on_cuda}.get(device.type)
    if kernel is None:
        return None
    generator = torch.Generator().manual_seed(0)
    draw = [torch.randn(*shape, 8, generator=generator, dtype=dtype).to(device) for shape in ((5,), (3, 7), (3, 7))]
    try:
        found = kernel(*draw)
    except Exception:  # whatever this build lacks
        return None
    wanted = written_out(*draw)
    near = [
        torch.allclose(a, b, rtol=PROBE_TOLERANCE, atol=PROBE_TOLERANCE) for a, b in zip(found, wanted, strict=True)
    ]
    return kernel if all(near) else None


def _on_cpu(queries: Tensor, keys: Tensor, content: Tensor) -> tuple[Tensor, Tensor]:
    operator: Any = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    asked = queries.expand(len(keys), 1, *queries.shape)  # one head
    averages, log_z = operator(asked, keys[:, None], content[:, None], 0.0, False, scale=1.0)
    return averages[:, 0], log_z.reshape(len(keys), len(queries))


def _on_cuda(queries: Tensor, keys: Tensor, content: Tensor) -> tuple[Tensor, Tensor]:
    from moalign.oracle.cuda import attention  # Triton is there where CUDA is

    return attention(queries, keys, content)


@contextmanager
def _full_precision() -> Iterator[None]:
    """Within the context float32 products are float32: TF32 would round logits of 60 by 2e-2."""
    before = torch.get_float32_matmul_precision()
    if before == "highest":
        yield
        return
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
