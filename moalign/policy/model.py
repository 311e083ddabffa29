"""The base policy: which model and tokenizer, how texts become tokens, and hidden states become log-probabilities.

`Policy` is the description that stands in a study (a folder, or a loaded model); `LanguageModel` is the loaded, frozen
thing. Prompts and responses are always tokenised separately and their ids concatenated, so that the border between
them never moves.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn

from moalign.errors import DefinitionError, ModelError
from moalign.policy.batches import PaddedRows, Responses
from moalign.policy.head import is_frozen_projection
from moalign.policy.native import NativeModel, agrees, native_model
from moalign.policy.packing import PackedRows

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float64": torch.float64}
Rows = PaddedRows | PackedRows
FULL_HASH_BYTES = 1 << 30  # weight files up to this size are hashed whole, larger ones at both ends


@final
@dataclass(frozen=True)
class Policy:
    """The base policy of a problem: a Hugging Face causal language model that stays frozen.

    Attributes:
        source: folder of the model, a name in the local Hugging Face cache, or a loaded `PreTrainedModel`.
        tokenizer: needed only with a loaded model; otherwise read from the same folder.
        dtype: "float32", "bfloat16" or "float64": base weights and activations. Adapters are float32 at least.
        max_length: longest prompt plus response in tokens; the model's context length when None.
        truncate: cut over-long prompts on the left and responses on the right (counted) instead of refusing them.
        download: allow a name to be fetched from the model hub. Off: an absent folder fails at once.
    """

    source: Any
    tokenizer: Any = None
    dtype: str = "float32"
    max_length: int | None = None
    truncate: bool = False
    download: bool = False

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise DefinitionError(f"Policy dtype {self.dtype!r} is unknown; use one of {', '.join(DTYPES)}.")
        if isinstance(self.source, nn.Module) and self.tokenizer is None:
            raise DefinitionError("Policy was given a loaded model without its tokenizer; pass tokenizer=...")
        if not isinstance(self.source, (str, Path, nn.Module)):
            raise DefinitionError(
                f"Policy source must be a folder or a loaded model, got {type(self.source).__name__}."
            )

    def problems(self) -> list[str]:
        """Returns one sentence per reason why this policy cannot be loaded; reads only file names."""
        try:
            self.folder()
        except ModelError as error:
            return [str(error)]
        return []

    def folder(self) -> Path | None:
        """Returns the local folder of the model, or None for a model in memory.

        Raises:
            ModelError: the folder (or cached name) does not exist, and downloading is off or failed.
        """
        if isinstance(self.source, nn.Module):
            return None
        path = Path(self.source).expanduser()
        if path.is_dir():
            if not (path / "config.json").is_file():
                raise ModelError(f"Policy folder {path} has no config.json; save the model with save_pretrained there.")
            return path
        if path.is_absolute() or str(self.source).startswith((".", "~")) or str(self.source).count("/") > 1:
            raise ModelError(f"Policy folder {self.source} does not exist (looked in {Path.cwd()}).")
        from huggingface_hub import snapshot_download

        try:
            return Path(snapshot_download(str(self.source), local_files_only=not self.download))
        except Exception as error:
            hint = "" if self.download else " To fetch it from the model hub, say Policy(..., download=True)."
            raise ModelError(
                f"Policy {str(self.source)!r} is neither a folder in {Path.cwd()} nor in the local model cache.{hint}"
            ) from error

    def __fingerprint__(self) -> dict[str, Any]:
        folder = self.folder()
        weights = _hash_model(self.source) if folder is None else _hash_folder(folder)
        return {
            "kind": "policy",
            "weights": weights,
            "dtype": self.dtype,
            "max_length": self.max_length,
            "truncate": self.truncate,
        }

    def load(self, device: str | torch.device | None = None) -> LanguageModel:
        """Returns the frozen model on `device` (an accelerator when there is one, if None).

        Raises:
            ModelError: files are missing or unreadable, or the model has no output head.
        """
        place = torch.device(device) if device is not None else default_device()
        folder = self.folder()
        if folder is None:
            model, tokenizer = copy.deepcopy(self.source), self.tokenizer
        else:
            model, tokenizer = _load_folder(folder, DTYPES[self.dtype], self.tokenizer)
        model = model.to(device=place, dtype=DTYPES[self.dtype]).eval().requires_grad_(False)
        return LanguageModel(model, tokenizer, max_length=self.max_length, truncate=self.truncate)


def default_device() -> torch.device:
    """Returns the accelerator if torch sees one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@final
class LanguageModel:
    """A frozen causal language model with its tokenizer.

    `hidden` runs the transformer body; `logits` applies the output head to selected positions only. Whether body plus
    head reproduces the model's own logits (soft-capping, logit scales) is checked once at construction; when it does
    not, `hidden` returns the full logits and `logits` is the identity.

    Attributes:
        native: a faster pass over the same weights for given responses, or None; it is compared with the model once.
    """

    def __init__(self, model: Any, tokenizer: Any, *, max_length: int | None = None, truncate: bool = False) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.truncate = truncate
        config = model.config
        context = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None) or 2048
        if max_length is not None and max_length > context:
            raise ModelError(f"max_length {max_length} exceeds the model's context of {context} tokens.")
        self.max_length = int(max_length or context)
        self.eos_ids = self._stop_tokens()
        self.pad_id = next(
            (int(i) for i in (tokenizer.pad_token_id, config.pad_token_id) if isinstance(i, int)), self.eos_ids[0]
        )
        self._head = model.get_output_embeddings()
        self._split = self._head is not None and self._head_is_linear()
        self.native: NativeModel | None = self._checked_native() if self._split else None

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def vocabulary(self) -> int:
        return int(self.model.config.vocab_size)

    def hidden(self, ids: Tensor, **inputs: Any) -> Any:
        """Returns (states [rows, tokens, width], key-value cache or None) for token `ids` [rows, tokens]."""
        inputs.setdefault("use_cache", False)
        if self._split:
            output = self.model.base_model(input_ids=ids, **inputs)
            return output.last_hidden_state, output.past_key_values
        output = self.model(input_ids=ids, **inputs)
        return output.logits, output.past_key_values

    def logits(self, states: Tensor) -> Tensor:
        """Returns logits [..., vocabulary] for states [..., width] as returned by `hidden`."""
        return self._head(states) if self._split else states

    @property
    def frozen_head(self) -> nn.Linear | None:
        """Returns the output head if it is a plain frozen projection of the hidden states."""
        return self._head if self._split and is_frozen_projection(self._head) else None

    def rows(self, responses: Responses, chosen: Sequence[int], multiple: int = 1) -> Rows:
        """Returns the chosen responses laid out for the pass that will compute them: packed where that is native.

        Packed prompts and completions are as long as they are, or padded to the next `multiple` of tokens above 1.
        """
        if self.native is not None:
            packed = PackedRows.build(responses, chosen, self.device, multiple)
            if packed.longest <= self.native.window:
                return packed
        return PaddedRows.build(responses, chosen, self.pad_id, self.device)

    def encode_prompt(self, prompt: Any) -> list[int]:
        """Returns the token ids of a prompt: text, or a conversation through the tokenizer's chat template.

        The ids start with the tokenizer's begin-of-sequence token if it uses one; they are never empty.
        """
        chat = getattr(self.tokenizer, "chat_template", None) if not isinstance(prompt, str) else None
        if chat:
            text = self._render_chat(prompt)
            ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        else:
            ids = self.tokenizer(str(prompt), split_special_tokens=True)["input_ids"]
            while ids and ids[-1] in self.eos_ids and ids[-1] != self.tokenizer.bos_token_id:
                ids = ids[:-1]
        if not ids:
            start = self.tokenizer.bos_token_id
            ids = [self.eos_ids[0] if start is None else start]
        return list(ids)

    def encode_response(self, response: str) -> list[int]:
        """Returns the token ids of a response, end-of-sequence token included (it is scored, too)."""
        ids = self.tokenizer(response, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return [*ids, self.eos_ids[0]]

    def fit_prompt(self, prompt: Sequence[int], response_tokens: int, what: str) -> tuple[int, ...]:
        """Returns the prompt's ids, cut on the left if `response_tokens` more do not fit and cutting is allowed.

        At least half of the context is left to the prompt; responses are then cut to what remains.

        Raises:
            ModelError: too long and the policy does not truncate; names `what`, lengths and limit.
        """
        excess = len(prompt) + response_tokens - self.max_length
        if excess <= 0:
            return tuple(prompt)
        if not self.truncate:
            raise ModelError(
                f"{what} has {len(prompt)} + {response_tokens} tokens (prompt + response), the limit is "
                f"{self.max_length}. Shorten it, drop it, or use Policy(..., truncate=True)."
            )
        keep = max(1, len(prompt) - excess, self.max_length // 2)
        return tuple(prompt[-keep:])

    def decode_response(self, prompt: Sequence[int], response: Sequence[int]) -> str:
        """Returns the response's text as it reads after the prompt (a leading space survives), without stop tokens."""
        ids = [i for i in response if i not in self.eos_ids]
        before = self.tokenizer.decode(list(prompt), skip_special_tokens=True)
        whole = self.tokenizer.decode([*prompt, *ids], skip_special_tokens=True)
        if whole.startswith(before):
            return str(whole[len(before) :])
        return str(self.tokenizer.decode(ids, skip_special_tokens=True))

    def _stop_tokens(self) -> tuple[int, ...]:
        generation = getattr(self.model, "generation_config", None)
        own, declared = self.tokenizer.eos_token_id, getattr(generation, "eos_token_id", None)
        listed = [own, *(declared if isinstance(declared, (list, tuple)) else [declared])]
        stops = tuple(dict.fromkeys(int(i) for i in listed if i is not None))
        if not stops:
            raise ModelError("The tokenizer has no end-of-sequence token; set tokenizer.eos_token before saving it.")
        return stops

    def _head_is_linear(self) -> bool:
        probe = torch.arange(4, device=self.device)[None] % self.vocabulary
        with torch.no_grad():
            own = self.model(input_ids=probe, use_cache=False).logits
            states = self.model.base_model(input_ids=probe, use_cache=False).last_hidden_state
            if states.shape[-1] != self._head.weight.shape[-1]:
                return False
            return bool(torch.allclose(own, self._head(states), rtol=1e-4, atol=1e-4))

    def _checked_native(self) -> NativeModel | None:
        native = native_model(self.model)
        if native is None or not agrees(native, lambda ids: self.hidden(ids)[0], self.vocabulary, self.device):
            return None
        return native

    def _render_chat(self, prompt: Any) -> str:
        special = [t for t in self.tokenizer.all_special_tokens if t]
        messages = []
        for role, content in prompt.messages:
            for token in special:  # text must not be able to end a turn
                content = content.replace(token, token[:1] + "\u200b" + token[1:])
            messages.append({"role": role, "content": content})
        return str(self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))


def _load_folder(folder: Path, dtype: torch.dtype, tokenizer: Any) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    bars: Any = logging
    shown = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    try:
        tokenizer = tokenizer or AutoTokenizer.from_pretrained(folder, **local)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, **local)
    except Exception as error:
        raise ModelError(f"Policy folder {folder} cannot be loaded as a causal language model: {error}") from error
    finally:
        if shown:
            bars.enable_progress_bar()
    return model, tokenizer


def _hash_folder(folder: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        if file.suffix not in {".json", ".safetensors", ".bin", ".model", ".jinja", ".txt"} or file.name.startswith(
            "."
        ):
            continue
        size = file.stat().st_size
        digest.update(f"{file.name}:{size}:".encode())
        with file.open("rb") as stream:
            if size <= FULL_HASH_BYTES:
                while block := stream.read(1 << 20):
                    digest.update(block)
            else:
                digest.update(stream.read(1 << 22))
                stream.seek(-(1 << 22), 2)
                digest.update(stream.read())
    return digest.hexdigest()


def _hash_model(model: Any) -> str:
    config = {k: v for k, v in model.config.to_dict().items() if k != "_name_or_path"}
    digest = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
