"""Learned rewards on disk: moalign's own folder, and the ordinary sequence-classification folder.

The own folder holds `rewards.json` (names and how texts are embedded) and `heads.safetensors`, for any pooling. A trunk
in memory is saved beside them in `trunk/`; one that came from a folder is referred to by its path and its fingerprint
unless it is copied. The ordinary folder is for other tools and for `RewardModel`; it can hold what the library's
classification models compute: the last token of a decoder-only model, or the pooler of a BERT-like encoder.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from moalign.errors import ArtefactError, DefinitionError, ModelError
from moalign.rewards.classifier import OFFSETS, Classifier
from moalign.rewards.embeddings import Embedding
from moalign.rewards.model import RewardModel
from moalign.rewards.trunk import Trunk, quietly
from moalign.store.artefacts import json_text, publish, verify
from moalign.store.fingerprint import describe, fingerprint

if TYPE_CHECKING:
    from moalign.rewards.learned import LearnedRewards

_FORMAT = 1
_FIELDS = ("pooling", "normalize", "template", "max_length", "dtype")
_PROBES = (["What is it?", "Say more, please."], ["A thing.", "There is nothing more to say about it."])


def save(rewards: LearnedRewards, folder: str | Path, *, copy_trunk: bool = False) -> None:
    """Writes the rewards to a new folder, complete or not at all; `load_rewards` reads it.

    Args:
        rewards: what to write.
        folder: must not exist, or be empty.
        copy_trunk: write the trunk's weights, too, also when they came from a folder.

    Raises:
        ArtefactError: the folder is not empty.
    """
    from safetensors.numpy import save_file

    embedding = rewards.embedding
    stored = copy_trunk or embedding.path is None
    fields = {field: getattr(embedding, field) for field in _FIELDS}
    facts = {
        "format": _FORMAT,
        "names": list(rewards.names),
        "penalties": list(rewards.penalties),
        "alone": rewards.alone,
        "embedding": fields,
        "trunk": None if stored else str(embedding.path),
        "fingerprint": None if stored else _identity(embedding),
    }
    with publish(folder, replace=False) as new:
        if stored:
            trunk = embedding.trunk()
            with quietly():
                trunk.model.save_pretrained(new / "trunk")
            trunk.tokenizer.save_pretrained(new / "trunk")
            fields["pooling"] = embedding.pool(trunk.causal)
        save_file({"weights": np.array(rewards.weights), "bias": np.array(rewards.bias)}, new / "heads.safetensors")
        (new / "rewards.json").write_text(json_text(facts, "rewards.json", indent=2) + "\n", encoding="utf-8")


def load_rewards(
    folder: str | Path, *, trunk: str | Path | None = None, cache: str | Path | bool = True, device: str | None = None
) -> LearnedRewards:
    """Returns the rewards of a folder that `LearnedRewards.save` wrote.

    Args:
        folder: the folder.
        trunk: where the trunk lies now, if it was not saved along and has moved.
        cache: as for `Embedding`.
        device: as for `Embedding`.

    Raises:
        ArtefactError: a file is missing or damaged.
        ModelError: the trunk is not there, or is another model than the one the heads were fitted on.
    """
    from safetensors.numpy import load_file

    from moalign.rewards.learned import LearnedRewards

    folder = Path(folder).expanduser().absolute()
    verify(folder)
    try:
        facts = json.loads((folder / "rewards.json").read_text(encoding="utf-8"))
        if facts["format"] != _FORMAT:
            raise ArtefactError(f"{folder} has format {facts['format']}, but this version of moalign reads {_FORMAT}.")
        source = folder / "trunk" if facts["trunk"] is None else Path(trunk or facts["trunk"])
        embedding = Embedding(source, cache=cache, device=device, **facts["embedding"])
        heads = load_file(folder / "heads.safetensors")
        names, penalties, alone = tuple(facts["names"]), tuple(facts["penalties"]), bool(facts["alone"])
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise ArtefactError(f"{folder} holds no learned rewards: {type(error).__name__}: {error}.") from error
    if facts["trunk"] is not None and _identity(embedding) != facts["fingerprint"]:
        raise ModelError(
            f"{source} is another model than the one the heads in {folder} were fitted on. Give trunk=... the folder "
            "of that model, or fit the rewards anew."
        )
    return LearnedRewards(
        embedding=embedding, names=names, weights=heads["weights"], bias=heads["bias"], penalties=penalties, alone=alone
    )


def export(rewards: LearnedRewards, folder: str | Path) -> dict[str, RewardModel]:
    """Writes a sequence-classification folder with one output per objective; returns the `RewardModel` of each.

    A decoder-only model's head has no bias in that layout: the constants are kept in config.json as `reward_offsets`,
    which `RewardModel` adds and other tools leave out. Differences between responses are the same everywhere.

    Raises:
        DefinitionError: the layout cannot hold these rewards; says why.
        ModelError: the written model does not give the same scores.
        ArtefactError: the folder is not empty.
    """
    trunk = rewards.embedding.trunk()
    _check_shape(rewards, trunk)
    model = _classifier(rewards, trunk)
    read = Classifier(model, trunk.tokenizer, Path(folder))
    template, most = rewards.embedding.template, rewards.embedding.max_length
    for k, name in enumerate(rewards.names):
        own = rewards[name](*_PROBES)
        theirs = read.scores(*_PROBES, name=name, template=template, index=k, batch_size=2, max_length=most)
        if not np.allclose(own, theirs, rtol=1e-3, atol=1e-3 * max(float(np.abs(own).max()), 1e-6)):
            raise ModelError(
                f"{type(model).__name__} does not read its tokens as the embedding does: {name!r} is {theirs.tolist()} "
                f"instead of {own.tolist()}. Use save(...) instead of export(...)."
            )
    with publish(folder, replace=False) as new, quietly():
        model.save_pretrained(new)
        trunk.tokenizer.save_pretrained(new)
    dtype = rewards.embedding.dtype
    return {
        name: RewardModel(folder, name=name, index=k, template=template, max_length=most, dtype=dtype)
        for k, name in enumerate(rewards.names)
    }


def _check_shape(rewards: LearnedRewards, trunk: Trunk) -> None:
    pooling = rewards.embedding.pool(trunk.causal)
    wanted = "last" if trunk.causal else "pooler"
    problems = []
    if pooling != wanted:
        problems.append(f"pooling is {pooling!r}, but classification models of this kind read {wanted!r}.")
    if rewards.embedding.normalize:
        problems.append("vectors are scaled to length 1, which classification models do not do.")
    if rewards.alone:
        problems.append("responses are embedded without their prompts.")
    if problems:
        raise DefinitionError(" ".join([*problems, "Use save(...), which keeps any rewards."]), where="export")


def _classifier(rewards: LearnedRewards, trunk: Trunk) -> Any:
    """Returns a classification model with the trunk's weights and the heads."""
    import torch
    import transformers

    config = copy.deepcopy(trunk.model.config)
    config.num_labels = len(rewards.names)
    config.id2label = dict(enumerate(rewards.names))
    config.label2id = {name: k for k, name in enumerate(rewards.names)}
    config.problem_type = "regression"
    if config.pad_token_id is None:
        config.pad_token_id = trunk.tokenizer.pad_token_id
    try:
        auto: Any = transformers.AutoModelForSequenceClassification
        model = auto.from_config(config)
    except ValueError as error:
        raise DefinitionError(f"there is no classification model of this kind ({error}).", where="export") from error
    head = next((h for n in ("score", "classifier") if isinstance(h := getattr(model, n, None), torch.nn.Linear)), None)
    if head is None or head.weight.shape != tuple(rewards.weights.shape):
        raise DefinitionError(f"{type(model).__name__} has no single linear head on the pooled vector.", where="export")
    model.base_model.load_state_dict(trunk.model.state_dict())
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(np.array(rewards.weights)))
        if head.bias is not None:
            head.bias.copy_(torch.from_numpy(np.array(rewards.bias)))
        else:
            setattr(model.config, OFFSETS, rewards.bias.tolist())
    return model.to(trunk.device, dtype=next(trunk.model.parameters()).dtype).eval()


def _identity(embedding: Embedding) -> str:
    return fingerprint(describe(embedding))
