"""Whether the native pass gives the states of the model that it stands for, tried out on a few tokens."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from moalign.policy.batches import PaddedRows, Responses
from moalign.policy.native.model import NativeModel
from moalign.policy.native.projections import Adapters
from moalign.policy.packing import PackedRows

TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-4}  # of the largest state
COARSE_TOLERANCE = 5e-2  # for types of fewer bits


@torch.no_grad()
def agrees(native: NativeModel, own_states: Callable[[Tensor], Tensor], vocabulary: int, device: torch.device) -> bool:
    """Returns whether both give the same states for three responses to two short prompts.

    Args:
        native: the pass to check.
        own_states: the model's states [rows, tokens, width] for padded ids [rows, tokens].
        vocabulary: number of tokens.
        device: where the model is.
    """
    ids = [i % vocabulary for i in range(3, 12)]
    probe = Responses(
        prompts=(tuple(ids[:3]), tuple(ids[3:4])),
        prompt_of=np.array([0, 1, 0]),
        completions=(tuple(ids[4:7]), tuple(ids[5:9]), (ids[0],)),
    )
    packed = PackedRows.build(probe, [0, 1, 2], device)
    padded = PaddedRows.build(probe, [0, 1, 2], ids[0], device)
    own = own_states(padded.ids)[padded.row, padded.position]
    states = native.states(packed, Adapters())[0]
    # both list the tokens of a row in order, so sorting by row aligns them
    difference = (states[packed.row.argsort(stable=True)] - own).abs().max()
    return bool(difference <= TOLERANCE.get(own.dtype, COARSE_TOLERANCE) * own.abs().max())
