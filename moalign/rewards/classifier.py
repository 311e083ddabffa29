"""Loading a sequence-classification model and scoring batches of pairs with it; `layout.py` says what it reads.

Pooling. The last token of a decoder-only model is found from the lengths. The library's own pooling looks for the
padding token instead, and reads the wrong position when texts end in it.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, final

import numpy as np

from moalign.arrays import FloatArray
from moalign.errors import DataWarning, ModelError
from moalign.rewards.layout import Layout, TokenBatch, batches, longest
from moalign.rewards.trunk import quietly

OFFSETS = "reward_offsets"  # in config.json: constants to add, for heads that the library gives no bias
_MOST_LOADED = 8  # models kept in memory


@final
class Classifier:
    """One loaded model and tokenizer. `cut` and `scored` count pairs over the life of the process."""

    def __init__(self, model: Any, tokenizer: Any, folder: Path) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.causal = _is_causal(model, folder)
        self.limit = longest(model, tokenizer)
        self.cut = 0
        self.scored = 0

    def scores(
        self, prompts: Sequence[str], responses: Sequence[str], *, name: str, template: str | None, index: int,
        batch_size: int, max_length: int | None,
    ) -> FloatArray:  # fmt: skip
        """Returns output `index` of the head for each pair, float64 [n]; arguments as in `RewardModel`."""
        called = f"reward model {name!r}"
        layout = Layout(
            self.tokenizer, causal=self.causal, template=template, max_length=max_length, limit=self.limit, name=called
        )
        rows, cut = layout.rows(prompts, responses)
        self._count(called, layout.fits, cut, len(rows))
        values = np.zeros(len(rows))
        device = next(self.model.parameters()).device
        for batch in batches(rows, batch_size, self.tokenizer.pad_token_id, device):
            values[batch.rows] = self._forward(batch, index)
        return values

    def _count(self, called: str, fits: int | None, cut: int, scored: int) -> None:
        if cut and not self.cut:
            warnings.warn(
                f"{called}: {cut} of {scored} pairs exceed the {fits} tokens that fit and lose the"
                " beginning of the prompt. RewardModel.truncated() keeps count.",
                DataWarning,
                stacklevel=4,
            )
        self.cut += cut
        self.scored += scored

    def _forward(self, batch: TokenBatch, index: int) -> FloatArray:
        import torch

        with torch.inference_mode():
            if self.causal:
                states = self.model.base_model(
                    input_ids=batch.ids, attention_mask=batch.mask, use_cache=False
                ).last_hidden_state
                last = states[
                    torch.arange(len(batch.rows), device=states.device), batch.last
                ].float()  # [batch, hidden]
                head = self.model.score
                bias = None if head.bias is None else head.bias.float()
                outputs = torch.nn.functional.linear(last, head.weight.float(), bias)
            else:
                outputs = self.model(**batch.inputs(self.tokenizer)).logits.float()
        offsets = getattr(self.model.config, OFFSETS, None) or [0.0] * outputs.shape[1]
        return outputs[:, index].double().cpu().numpy() + float(offsets[index])


@lru_cache(maxsize=_MOST_LOADED)
def load_classifier(folder: Path, dtype: str, device: str | None) -> Classifier:
    """Returns the model of a local folder in evaluation mode; the same object for the same arguments.

    Raises:
        ModelError: the folder cannot be loaded, or lacks weights of the head.
    """
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    local = {"local_files_only": True, "trust_remote_code": False}
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), **local)
        with quietly():
            model, info = AutoModelForSequenceClassification.from_pretrained(
                str(folder), dtype=getattr(torch, dtype), use_safetensors=True, output_loading_info=True, **local
            )
    except Exception as error:  # a damaged folder fails in many places of three libraries
        raise ModelError(f"{folder} cannot be loaded as a reward model: {type(error).__name__}: {error}") from error
    absent = sorted(info["missing_keys"]) + sorted(str(key) for key in info["mismatched_keys"])
    if absent:
        raise ModelError(f"{folder} lacks weights that would be random: {', '.join(absent[:5])}. Save the whole model.")
    if not getattr(tokenizer, "is_fast", False):
        raise ModelError(f"{folder} has a slow tokenizer. Save the fast one (tokenizer.json) into the folder.")
    target = torch.get_default_device() if device is None else torch.device(device)
    return Classifier(model.to(target).eval(), tokenizer, folder)


def _is_causal(model: Any, folder: Path) -> bool:
    import torch
    from transformers import MODEL_FOR_MASKED_LM_MAPPING

    if isinstance(getattr(model, "score", None), torch.nn.Linear):
        return True
    if type(model.config) in MODEL_FOR_MASKED_LM_MAPPING:
        return False
    raise ModelError(
        f"{folder}: the head of {type(model).__name__} is neither an encoder's nor a linear layer called 'score', "
        "so it is not known which token it reads. Wrap the model in a function of prompts and responses."
    )
