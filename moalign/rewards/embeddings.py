"""One vector per text from the frozen body of any Hugging Face model, computed once and kept on disk.

`Embedding` describes which model and how its hidden states are pooled. The weights are loaded when a text is asked for
that is not in the cache. Supports encoders (BERT, RoBERTa, ...) and decoder-only models stored as safetensors; does not
support encoder-decoder models or models that bring their own code. Nothing is ever downloaded.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from moalign.errors import DataWarning, DefinitionError, ModelError
from moalign.rewards.layout import batches, template_problems
from moalign.rewards.model import DTYPES, file_hash, folder_files
from moalign.rewards.trunk import POOLINGS, Trunk, load_trunk, model_fingerprint
from moalign.rewards.vectors import VectorCache, text_key
from moalign.store.cache import cache_root
from moalign.store.fingerprint import describe, fingerprint

Matrix = NDArray[np.float32]
PIECE = 512  # texts between two writes to the cache


@final
@dataclass(frozen=True)
class Embedding:
    """Texts, or prompts with responses, as vectors: float32 [n, dim], a text's row whatever the others are.

    Called with one list it embeds texts, each in the tokenizer's own special tokens; over-long ones lose their end.
    Called with two it embeds pairs, laid out as `RewardModel` does; over-long ones lose the prompt's beginning.
    """

    source: Any  # folder of a model, or a loaded `PreTrainedModel`, which must not change afterwards
    _: KW_ONLY
    tokenizer: Any = None  # needed only with a loaded model; otherwise read from the same folder
    pooling: str | None = None  # see trunk.POOLINGS; None: the last token if decoder-only, else the mean
    normalize: bool = False  # scale every vector to Euclidean length 1
    template: str | None = None  # text with {prompt} and {response}, for pairs; None: the tokenizer's layout
    max_length: int | None = None  # tokens; the most the model takes when None
    dtype: str = "float32"  # of the weights
    batch_size: int = 32  # texts per forward pass; changes speed and memory only
    device: str | None = None  # such as "cuda:0"; torch's default device when None
    cache: str | Path | bool = True  # folder of the cache; True: the user's cache folder, False: none

    def __post_init__(self) -> None:
        problems = []
        loaded = not isinstance(self.source, (str, Path))
        if loaded and not hasattr(self.source, "state_dict"):
            problems.append(f"source must be a folder or a loaded model, got {type(self.source).__name__}.")
        elif loaded and self.tokenizer is None:
            problems.append("a loaded model needs its tokenizer; pass tokenizer=...")
        if self.pooling not in (None, *POOLINGS):
            problems.append(f"pooling must be one of {', '.join(map(repr, POOLINGS))}, got {self.pooling!r}.")
        if self.dtype not in DTYPES:
            problems.append(f"dtype must be the text {', '.join(map(repr, DTYPES))}, got {self.dtype!r}.")
        for field in ("batch_size", "max_length"):
            value = getattr(self, field)
            if not (value is None and field == "max_length") and (type(value) is not int or value < 1):
                problems.append(f"{field} must be a whole number >= 1, got {value!r}.")
        if self.template is not None:
            problems += template_problems(self.template)
        if problems:
            raise DefinitionError(problems, where="Embedding")

    @property
    def path(self) -> Path | None:
        """The model's folder as an absolute path; None for a loaded model."""
        return Path(self.source).expanduser().absolute() if isinstance(self.source, (str, Path)) else None

    def check(self) -> None:
        """Raises ModelError if there is no model folder; loads no weights."""
        path = self.path
        if path is not None and not (path / "config.json").is_file():
            what = "has no config.json" if path.is_dir() else "is a file" if path.exists() else "does not exist"
            raise ModelError(f"embedding: the folder {path} {what}. Give a local folder; nothing is downloaded.")

    def __call__(self, texts: Sequence[object], responses: Sequence[str] | None = None) -> Matrix:
        """Returns the vectors of texts, or of pairs of prompts and responses, float32 [n, dim].

        Raises:
            ModelError: an unusable folder, a text without a single token, or vectors that are not finite.
            StoreError: the cache cannot be used.

        Warns:
            DataWarning: once per model, when texts are cut to fit `max_length`; what is cut is not embedded.
        """
        if responses is not None and len(texts) != len(responses):
            raise DefinitionError(f"embedding needs one response per prompt, got {len(texts)} and {len(responses)}.")
        whole = [(str(t),) for t in texts] if responses is None else [
            (str(p), str(r)) for p, r in zip(texts, responses, strict=True)
        ]  # fmt: skip
        keys = [text_key(parts) for parts in whole]
        cache = self._cache()
        found = cache.get(list(dict.fromkeys(keys))) if cache else {}
        wanted = {key: parts for key, parts in zip(keys, whole, strict=True) if key not in found}
        for start in range(0, len(wanted), PIECE):
            some = list(wanted)[start : start + PIECE]
            new = dict(zip(some, self._embed([wanted[key] for key in some]), strict=True))
            if cache:
                cache.put(new)  # what is done stays done when the rest is interrupted
            found |= new
        return np.stack([found[key] for key in keys]) if keys else np.zeros((0, self.trunk().width), np.float32)

    def trunk(self) -> Trunk:
        """Returns the loaded body; the same object for the same folder."""
        self.check()
        if self.path is not None:
            trunk = load_trunk(self.path, self.dtype, self.device, self.pooling == "pooler")
        else:
            trunk = Trunk(self.source, self.tokenizer, f"the loaded {type(self.source).__name__}")
        trunk.check_pooling(self.pool(trunk.causal))
        return trunk

    def pool(self, causal: bool) -> str:
        """Returns the pooling that is used for a decoder-only model, or for an encoder."""
        return self.pooling or ("last" if causal else "mean")

    def __fingerprint__(self) -> dict[str, object]:
        """Returns what decides the vectors: the model's content and the fields, but not where it lies."""
        self.check()
        weights = model_fingerprint(self.source) if self.path is None else _folder_hash(self.path, _state(self.path))
        return {
            "kind": "embedding",
            **{name: getattr(self, name) for name in ("pooling", "normalize", "template", "max_length", "dtype")},
            "weights": weights,
            "tokenizer": None if self.tokenizer is None else _tokenizer_hash(self.tokenizer),
        }

    def _cache(self) -> VectorCache | None:
        if self.cache is False:
            return None
        folder = cache_root(None if self.cache is True else self.cache) / "embeddings"
        return VectorCache(folder / f"{fingerprint(describe(self))[:24]}.sqlite")

    def _embed(self, texts: list[tuple[str, ...]]) -> Matrix:
        import torch

        trunk = self.trunk()
        pooling = self.pool(trunk.causal)
        rows, cut, fits = trunk.rows(texts, self.template, self.max_length)
        if cut and not trunk.cut:
            lost = "their end" if len(texts[0]) == 1 else "the beginning of the prompt"
            warnings.warn(
                f"embedding by {trunk.called}: {cut} of {len(texts)} texts exceed {fits} tokens and lose {lost}.",
                DataWarning,
                stacklevel=3,
            )
        trunk.cut += cut
        vectors = np.empty((len(rows), trunk.width), np.float32)
        with torch.inference_mode(), trunk.evaluating():
            for batch in batches(rows, self.batch_size, trunk.tokenizer.pad_token_id, trunk.device):
                values = trunk.pooled(batch, pooling)
                if self.normalize:
                    values = torch.nn.functional.normalize(values, dim=1)
                vectors[batch.rows] = values.cpu().numpy()
        bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
        if len(bad):
            raise ModelError(
                f"embedding by {trunk.called}: the vectors of {len(bad)} of {len(texts)} texts are not finite, first "
                f"{texts[bad[0]][-1][:60]!r}. Use dtype='float32', or another model."
            )
        return vectors


def _state(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """Returns name, size and time of change of the files that make the model: what is read again when it changes."""
    facts = ((path, path.stat()) for path in folder_files(folder))
    return tuple((path.name, stat.st_size, stat.st_mtime_ns) for path, stat in facts)


@lru_cache(maxsize=64)
def _folder_hash(folder: Path, state: object) -> str:
    return fingerprint({path.name: file_hash(path) for path in folder_files(folder)})


def _tokenizer_hash(tokenizer: Any) -> str:
    return fingerprint({"tokens": tokenizer.backend_tokenizer.to_str(), "class": type(tokenizer).__name__})
