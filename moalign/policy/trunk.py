"""What lies below the lowest adapter, computed once for all policies and all epochs.

The frozen blocks below the first adapted one give every token the same activations in every step. They are computed
in one pass over the data set and kept as one array [tokens, width], in a memory-mapped file where there is a
workspace; a batch then reads its tokens' rows. Whether that pays depends only on data and settings, so a resumed
training takes the same way as an uninterrupted one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray

from moalign.policy.adapters import AdapterStack
from moalign.policy.batches import PreferenceData, Responses, steps_per_epoch
from moalign.policy.model import LanguageModel
from moalign.policy.native import Trunk
from moalign.policy.packing import PackedRows, TokenTable, packed_passes
from moalign.policy.step import Batch
from moalign.policy.tensors import to_device
from moalign.policy.train import Training
from moalign.policy.workspace import Workspace
from moalign.store import is_complete, verify

MOST_BYTES_IN_MEMORY = 1 << 30
MOST_BYTES_ON_DISK = 1 << 35
TOKENS_PER_PASS = 1 << 12
FILE = "trunk.npy"
_STORED = {torch.bfloat16: np.dtype(np.int16), torch.float16: np.dtype(np.int16)}  # numpy has no bfloat16: its bits


@final
@dataclass(frozen=True, eq=False)
class TrunkCache:
    """Activations of every token of a data set after the lowest `depth` blocks.

    Attributes:
        depth: number of blocks below the first adapter.
        table: numbers of the tokens.
        activations: [tokens, width]; half precision as its bits.
        dtype: of the activations.
    """

    depth: int
    table: TokenTable
    activations: NDArray[np.generic]
    dtype: torch.dtype

    def __call__(self, batch: Batch, stack: AdapterStack) -> Trunk:
        """Returns the batch's activations on the stack's device."""
        numbers = self.table.of(batch.responses.tolist(), batch.multiple)
        rows = torch.from_numpy(self.activations[numbers]).view(self.dtype)
        return Trunk(self.depth, to_device(rows, stack.matrix.device)[None])


def trunk_cache(
    language_model: LanguageModel,
    data: PreferenceData,
    stack: AdapterStack,
    training: Training,
    workspace: Workspace | None,
) -> TrunkCache | None:
    """Returns the cached activations below the stack's adapters, or None where there are none or they do not pay.

    They pay when the training sees the data more than once and the array is not too large.
    """
    native, responses = language_model.native, data.responses
    if native is None or training.steps <= steps_per_epoch(data, training.batch_size, training.by_prompt):
        return None
    depth, table = native.depth(site.name for site in stack.sites), TokenTable(responses)
    shape = (len(table), int(language_model.model.config.hidden_size))
    dtype = next(language_model.model.parameters()).dtype
    most = MOST_BYTES_IN_MEMORY if workspace is None else MOST_BYTES_ON_DISK
    if depth == 0 or shape[0] * shape[1] * dtype.itemsize > most or responses.longest > native.window:
        return None
    stored = _STORED.get(dtype) or np.dtype(str(dtype).removeprefix("torch."))
    if workspace is None:
        activations = np.empty(shape, stored)
        _fill(activations, language_model, responses, depth, table)
        return TrunkCache(depth, table, activations, dtype)
    folder = workspace.cache_folder(f"trunk-{depth}-{responses.key()[:16]}")
    if is_complete(folder):
        verify(folder)
    else:
        with workspace.publish(folder) as target:
            file = np.lib.format.open_memmap(target / FILE, mode="w+", dtype=stored, shape=shape)
            _fill(file, language_model, responses, depth, table)
            file.flush()
    return TrunkCache(depth, table, np.load(folder / FILE, mmap_mode="r"), dtype)


@torch.no_grad()
def _fill(
    activations: NDArray[np.generic], language_model: LanguageModel, responses: Responses, depth: int, table: TokenTable
) -> None:
    """Writes the activations after `depth` blocks of all tokens."""
    assert language_model.native is not None
    for chosen in packed_passes(responses, 1, TOKENS_PER_PASS, TOKENS_PER_PASS):
        rows = PackedRows.build(responses, chosen, language_model.device)
        x = language_model.native.below(depth, rows).x[0].cpu()
        activations[table.of(chosen)] = (x.view(torch.int16) if x.dtype in _STORED else x).numpy()
