"""Gradients replayed from CUDA graphs: one launch instead of a thousand, for models so small that launches cost most.

A graph repeats the same kernels on the same memory, so a batch is copied into the place of the first batch of its
shape. Shapes repeat because batches are padded to multiples of `MULTIPLE` tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any, final

import torch
from torch import Tensor

from moalign.errors import ModelError
from moalign.policy.packing import PackedRows
from moalign.policy.tensors import map_tensors

if TYPE_CHECKING:
    from moalign.policy.native import Trunk
    from moalign.policy.step import Batch

MULTIPLE = 32  # tokens to which prompts and completions are padded
MOST_GRAPHS = 16  # each keeps its activations; batches of further shapes are computed as usual
WARM_UPS = 3

Gradients = Callable[["Batch", "Trunk | None", slice | list[int]], tuple[Tensor, Tensor]]
Capture = Callable[[Callable[[], None]], Callable[[], object]]


@final
class Replayed:
    """Computes what `compute` computes, from a graph per shape of batch and slice of policies.

    Args:
        compute: (batch, trunk, policies) -> (losses, gradients); reads parameters from memory that stays the same.
        capture: turns work without arguments and results into its replay.
    """

    def __init__(self, compute: Gradients, capture: Capture) -> None:
        self._compute, self._capture = compute, capture
        self._graphs: dict[Hashable, tuple[list[Tensor], Callable[[], object], dict[str, Any]]] = {}

    def __call__(self, batch: Batch, trunk: Trunk | None, policies: slice | list[int]) -> tuple[Tensor, Tensor]:
        """Returns (losses [policies, pairs], gradients [policies, parameters]); valid until the next call."""
        if isinstance(policies, list) or not isinstance(batch.rows, PackedRows):
            return self._compute(batch, trunk, policies)  # a list selects copies, and padded rows have any shape
        tensors = _tensors((batch, trunk))
        key = (policies.start, policies.stop, batch.rows.rows, *((t.shape, t.dtype) for t in tensors))
        if key not in self._graphs:
            if len(self._graphs) == MOST_GRAPHS:
                return self._compute(batch, trunk, policies)
            place = map_tensors((batch, trunk), torch.clone)
            found: dict[str, Any] = {}

            def work() -> None:
                found["result"] = self._compute(*place, policies)

            self._graphs[key] = (_tensors(place), self._capture(work), found)
        places, replay, found = self._graphs[key]
        for static, tensor in zip(places, tensors, strict=True):
            static.copy_(tensor)
        replay()
        losses, gradients = found["result"]
        return losses, gradients


def cuda_capture(work: Callable[[], None]) -> Callable[[], object]:
    """Returns the replay of the CUDA graph of `work`.

    Raises:
        ModelError: the work waits for the device somewhere, which a graph cannot.
    """
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARM_UPS):
            work()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            work()
    except RuntimeError as error:
        raise ModelError(
            f"This model or loss cannot be captured in a CUDA graph ({error}). Leave Training(graphs=True) out."
        ) from error
    return graph.replay


def _tensors(value: Any) -> list[Tensor]:
    found: list[Tensor] = []

    def note(tensor: Tensor) -> Tensor:
        found.append(tensor)
        return tensor

    map_tensors(value, note)
    return found
