"""A reward model: a Hugging Face sequence-classification folder that scores (prompt, response) pairs.

`RewardModel` describes which model and which of its outputs; `check` refuses an unusable folder by reading its JSON
files alone; the weights are loaded at the first call, once per process (see `classifier.py`). Supports encoders
(BERT, RoBERTa, ...) and decoder-only models with a linear `score` head, stored as safetensors. Does not support
encoder-decoder models, models that bring their own code, or pickled weights. Nothing is ever downloaded.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any, final

import numpy as np

from moalign.arrays import FloatArray
from moalign.errors import DefinitionError, ModelError
from moalign.rewards.layout import template_problems

DTYPES = ("float32", "bfloat16", "float16")
_HASHED_WHOLE = 256 * 2**20  # bytes; larger files are sampled
_BLOCK = 2**20  # bytes of one sample
_BLOCKS = 64  # samples of a larger file, first and last block included
_TEXT_FILES = ("config.json", "tokenizer*.json", "*.safetensors.index.json", "vocab.*", "merges.txt", "*.model")


@final
@dataclass(frozen=True)
class RewardModel:
    """A reward read from a sequence-classification folder, in the units of its head.

    Models trained with the Bradley-Terry loss are in log-odds already. Regression heads (0..4, 0..100) are not:
    wrap them in `Standardize`.
    """

    folder: str | Path
    _: KW_ONLY
    name: str | None = None  # for messages; the folder's name when None
    batch_size: int = 16  # texts per forward pass; changes speed and memory only
    max_length: int | None = None  # tokens; the most the model takes when None
    template: str | None = None  # text with {prompt} and {response}; None: the tokenizer's layout, see layout.py
    index: int = 0  # which output of the head; two-class classifiers usually have the wanted class at 1
    negate: bool = False  # True for cost models, whose higher values are worse
    dtype: str = "float32"  # of the weights; a decoder-only model's head is applied in float32
    device: str | None = None  # such as "cuda:0"; torch's default device when None

    def __post_init__(self) -> None:
        problems = []
        for field, least in (("batch_size", 1), ("max_length", 1), ("index", 0)):
            value = getattr(self, field)
            if not (value is None and field == "max_length") and (type(value) is not int or value < least):
                problems.append(f"{field} must be a whole number >= {least}, got {value!r}.")
        if self.dtype not in DTYPES:
            problems.append(f"dtype must be the text {', '.join(map(repr, DTYPES))}, got {self.dtype!r}.")
        if self.template is not None:
            problems += template_problems(self.template)
        if problems:
            raise DefinitionError(problems, where=f"RewardModel({str(self.folder)!r})")

    @property
    def path(self) -> Path:
        """The folder as an absolute path, so that a change of the working directory cannot change the model."""
        return Path(self.folder).expanduser().absolute()

    @property
    def label(self) -> str:
        """The name for messages."""
        return self.name or self.path.name

    def check(self) -> None:
        """Raises ModelError listing every reason why the folder cannot be a reward model; loads no weights."""
        problems = _folder_problems(self.path, self.index)
        if problems:
            raise ModelError(f"reward model {self.label!r}: {' '.join(problems)}")

    def __call__(self, prompts: Sequence[str], responses: Sequence[str]) -> FloatArray:
        """Returns the head's output for each pair, float64 [n], negated for cost models.

        Raises:
            ModelError: an unusable folder, or a pair without a single token.

        Warns:
            DataWarning: once per model, when the beginnings of prompts are cut to fit `max_length`.
        """
        from moalign.rewards.classifier import load_classifier

        self.check()
        classifier = load_classifier(self.path, self.dtype, self.device)
        values = classifier.scores(
            prompts, responses, name=self.label, template=self.template, index=self.index,
            batch_size=self.batch_size, max_length=self.max_length,
        )  # fmt: skip
        return -values if self.negate else values

    def truncated(self) -> tuple[int, int]:
        """Returns how many pairs were cut to fit and how many were scored, by this model in this process."""
        from moalign.rewards.classifier import load_classifier

        classifier = load_classifier(self.path, self.dtype, self.device)
        return classifier.cut, classifier.scored

    def __fingerprint__(self) -> dict[str, object]:
        """Returns what decides the scores: the content of the folder and the fields, but not where it lies.

        Files up to 256 MiB are hashed whole; of larger ones 64 blocks of 1 MiB and the size are.
        """
        self.check()
        fields = ("max_length", "template", "index", "negate", "dtype")
        return {
            "kind": "reward model",
            **{field: getattr(self, field) for field in fields},
            "files": {path.name: file_hash(path) for path in folder_files(self.path)},
        }


def _folder_problems(path: Path, index: int) -> list[str]:
    if not path.is_dir():
        what = "is a file" if path.exists() else "does not exist"
        return [f"the folder {path} {what}. Give a local folder; nothing is downloaded."]
    try:
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        return [f"{path / 'config.json'} cannot be read ({error}). Save the model with save_pretrained."]
    if not isinstance(config, dict):
        return [f"{path / 'config.json'} holds a {type(config).__name__}, not the fields of a configuration."]
    problems = _config_problems(config, index)
    if not any(path.glob("*.safetensors")):
        problems.append(
            f"{path} has no *.safetensors file; pickled weights are not read. Save it with save_pretrained."
        )
    if not any((path / file).is_file() for file in ("tokenizer.json", "tokenizer_config.json")):
        problems.append(f"{path} has no tokenizer. Save the tokenizer into the same folder.")
    return problems


def _config_problems(config: dict[str, Any], index: int) -> list[str]:
    problems = []
    architectures = [str(name) for name in config.get("architectures") or ["nothing"]]
    if not any(name.endswith("ForSequenceClassification") for name in architectures):
        problems.append(f"it holds {', '.join(architectures)}, but a reward needs a ...ForSequenceClassification head.")
    if "auto_map" in config:
        problems.append("it needs code of its own (auto_map in config.json), which is never run.")
    if config.get("is_encoder_decoder"):
        problems.append("encoder-decoder models are not supported; use an encoder or a decoder-only model.")
    outputs = config.get("num_labels") or len(config.get("id2label") or (0, 1))  # transformers' default is two
    if index >= outputs:
        problems.append(f"index is {index}, but the head has {outputs} output{'s' if outputs > 1 else ''}.")
    return problems


def folder_files(folder: Path) -> list[Path]:
    """Returns the files of a model folder that decide what the model computes."""
    return sorted({path for pattern in (*_TEXT_FILES, "*.safetensors") for path in folder.glob(pattern)})


def file_hash(path: Path) -> str:
    """Returns the SHA-256 of a file; of one above 256 MiB, that of its size and 64 blocks of 1 MiB."""
    digest = hashlib.sha256()
    size = path.stat().st_size
    with path.open("rb") as file:
        if size <= _HASHED_WHOLE:
            while block := file.read(_BLOCK):
                digest.update(block)
        else:
            digest.update(str(size).encode())
            for start in np.linspace(0, size - _BLOCK, _BLOCKS).astype(np.int64):
                file.seek(int(start))
                digest.update(file.read(_BLOCK))
    return digest.hexdigest()
