"""The body of a Hugging Face model, without its head: hidden states, pooled to one vector per text."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, final

from moalign.errors import ModelError
from moalign.rewards.layout import Layout, TokenBatch, TokenRow, longest
from moalign.store.fingerprint import canonical, describe

POOLINGS = ("mean", "first", "last", "pooler")  # of all tokens, of one token, or what a BERT-like model's head reads
_MOST_LOADED = 4  # models kept in memory


@final
class Trunk:
    """A loaded body with its tokenizer. `cut` counts over-long texts over the life of the object."""

    def __init__(self, model: Any, tokenizer: Any, called: str) -> None:
        if not getattr(tokenizer, "is_fast", False):
            raise ModelError(f"{called} needs a fast tokenizer (tokenizer.json), got {type(tokenizer).__name__}.")
        if getattr(model.config, "is_encoder_decoder", False):
            raise ModelError(f"{called} is an encoder-decoder model; use an encoder or a decoder-only model.")
        self.model = getattr(model, "base_model", model)
        self.tokenizer = tokenizer
        self.called = called
        self.causal = is_causal(model.config)
        self.limit = longest(model, tokenizer)
        self.cut = 0

    @property
    def device(self) -> Any:
        return next(self.model.parameters()).device

    @property
    def width(self) -> int:
        """How many numbers a token's state has."""
        return int(self.model.config.hidden_size)

    def rows(
        self, texts: Sequence[Sequence[str]], template: str | None, max_length: int | None
    ) -> tuple[list[TokenRow], int, int | None]:
        """Returns the laid-out texts (text,) or pairs (prompt, response), how many were cut, and what fits."""
        alone = len(texts[0]) == 1
        layout = Layout(
            self.tokenizer, causal=self.causal, template=template, max_length=max_length, limit=self.limit,
            name=self.called, alone=alone,
        )  # fmt: skip
        rows, cut = layout.rows(["" if alone else text[0] for text in texts], [text[-1] for text in texts])
        return rows, cut, layout.fits

    def pooled(self, batch: TokenBatch, pooling: str) -> Any:
        """Returns one vector per row [batch, width], float32, as `pooling` of the last hidden states says."""
        import torch

        if self.causal:
            output = self.model(input_ids=batch.ids, attention_mask=batch.mask, use_cache=False)
        else:
            output = self.model(**batch.inputs(self.tokenizer))
        if pooling == "pooler":
            return output.pooler_output.float()
        states = output.last_hidden_state.float()
        if pooling == "mean":
            mask = batch.mask[:, :, None].to(states.dtype)
            return (states * mask).sum(1) / mask.sum(1)
        places = batch.last if pooling == "last" else torch.zeros_like(batch.last)
        return states[torch.arange(len(states), device=states.device), places]

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Switches dropout off within the block."""
        training = self.model.training
        self.model.eval()
        try:
            yield
        finally:
            self.model.train(training)

    def check_pooling(self, pooling: str) -> None:
        """Raises ModelError if the model has no pooler but is asked for it."""
        if pooling == "pooler" and getattr(self.model, "pooler", None) is None:
            raise ModelError(f"{self.called} has no pooler; use pooling 'mean', 'first' or 'last'.")


@lru_cache(maxsize=_MOST_LOADED)
def load_trunk(folder: Path, dtype: str, device: str | None, pooler: bool) -> Trunk:
    """Returns the body of a local folder in evaluation mode; the same object for the same arguments.

    Raises:
        ModelError: the folder cannot be loaded, or lacks weights (those of a pooler count only with `pooler`).
    """
    import torch
    from transformers import AutoModel, AutoTokenizer

    local = {"local_files_only": True, "trust_remote_code": False}
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), **local)
        with quietly():  # a body does not use the weights of a head, which the library reports at length
            model, info = AutoModel.from_pretrained(
                str(folder), dtype=getattr(torch, dtype), use_safetensors=True, output_loading_info=True, **local
            )
    except Exception as error:  # a damaged folder fails in many places of three libraries
        raise ModelError(f"{folder} cannot be loaded as a model: {type(error).__name__}: {error}") from error
    absent = [key for key in sorted(info["missing_keys"]) if pooler or not key.startswith("pooler.")]
    if absent:
        raise ModelError(f"{folder} lacks weights that would be random: {', '.join(absent[:5])}. Save the whole model.")
    target = torch.get_default_device() if device is None else torch.device(device)
    return Trunk(model.to(target).eval().requires_grad_(False), tokenizer, f"model {folder.name!r}")


@contextmanager
def quietly() -> Iterator[None]:
    """Keeps transformers from printing progress bars and load reports within the block."""
    from transformers.utils import logging

    bars: Any = logging
    level, shown = bars.get_verbosity(), bars.is_progress_bar_enabled()
    bars.set_verbosity_error()
    bars.disable_progress_bar()
    try:
        yield
    finally:
        bars.set_verbosity(level)
        if shown:
            bars.enable_progress_bar()


def is_causal(config: Any) -> bool:
    """Returns whether a configuration is that of a decoder-only model, whose last token has seen the whole text."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_MASKED_LM_MAPPING

    return type(config) in MODEL_FOR_CAUSAL_LM_MAPPING and type(config) not in MODEL_FOR_MASKED_LM_MAPPING


def model_fingerprint(model: Any) -> str:
    """Returns the SHA-256 of a loaded model's configuration and weights."""
    config = {key: value for key, value in model.config.to_dict().items() if key != "_name_or_path"}
    digest = hashlib.sha256(repr(sorted(config.items(), key=lambda item: item[0])).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(canonical(describe({name: tensor})).encode())
    return digest.hexdigest()
