"""Personal rewards on disk: arrays as safetensors, everything else as JSON, published as one folder with checksums."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from moalign.errors import ArtefactError, ModelError
from moalign.rewards.people.features import Embed, Features, Lift, embedded
from moalign.rewards.people.heads import as_tensor, heads_from, options_of
from moalign.rewards.people.noise import Noise
from moalign.rewards.people.selection import Trial
from moalign.store.artefacts import publish, verify

if TYPE_CHECKING:
    from moalign.rewards.people.personal import PersonalRewards

_ARRAYS, _REST = "rewards.safetensors", "rewards.json"
_FORMAT = 1
_PROBE = "Trees give shade in summer."  # embedded when saved and when loaded: an embedding is known by its numbers
_PLAIN = ("mixtures", "candidates", "log_prior", "centre", "spread")
_LIFT = ("landmarks", "basis", "mean")


def save(model: PersonalRewards, folder: Path) -> None:
    """See `PersonalRewards.save`."""
    tensors = {f"heads.{name}": tensor for name, tensor in model.heads.tensors().items()}
    tensors |= {name: as_tensor(getattr(model, name)) for name in _PLAIN}
    tensors["probe"] = as_tensor(embedded(model.items.embed, [_PROBE]))
    lifts = {}
    for part in ("items", "prompts"):
        if (features := getattr(model, part)) is not None:
            tensors |= {f"{part}.{name}": as_tensor(getattr(features.lift, name)) for name in _LIFT}
            lifts[part] = {"width": features.lift.width, "scale": features.lift.scale, "empty": features.empty}
    rest = {
        "format": _FORMAT,
        "kind": type(model.heads).__name__,
        "options": options_of(model.heads),
        "users": list(model.users),
        "noise": asdict(model.noise),
        "lifts": lifts,
        "trials": [asdict(trial) for trial in model.trials],
    }
    with publish(folder, replace=False) as place:
        save_file({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, str(place / _ARRAYS))
        (place / _REST).write_text(json.dumps(rest, indent=1) + "\n", encoding="utf-8")


def load(folder: Path, embed: Embed) -> PersonalRewards:
    """See `PersonalRewards.load`."""
    from moalign.rewards.people.personal import PersonalRewards

    verify(folder)
    try:
        rest = json.loads((folder / _REST).read_text(encoding="utf-8"))
        tensors = load_file(str(folder / _ARRAYS))
    except (OSError, ValueError) as error:
        raise ArtefactError(f"{folder} holds no personal rewards: {error}.") from error
    if rest.get("format") != _FORMAT:
        raise ArtefactError(f"{folder} has format {rest.get('format')!r}; this version reads {_FORMAT}.")
    now = embedded(embed, [_PROBE])
    then = tensors["probe"].numpy()
    if now.shape != then.shape or not np.allclose(now, then, atol=1e-3 * (1e-9 + np.abs(then).max())):
        raise ModelError(f"{folder} was fitted with another embedding: a probe text has other numbers.")
    heads = {name.removeprefix("heads."): value for name, value in tensors.items() if name.startswith("heads.")}
    features = {part: _features(part, tensors, lift, embed) for part, lift in rest["lifts"].items()}
    return PersonalRewards(
        heads=heads_from(rest["kind"], heads, rest["options"]), items=features["items"],
        prompts=features.get("prompts"), users=tuple(rest["users"]), noise=Noise(**rest["noise"]),
        trials=tuple(Trial(**trial) for trial in rest["trials"]),
        **{name: tensors[name].numpy() for name in _PLAIN},
    )  # fmt: skip


def _features(part: str, tensors: dict[str, Tensor], lift: dict[str, float], embed: Embed) -> Features:
    arrays = {name: tensors[f"{part}.{name}"].to(torch.float64).numpy() for name in _LIFT}
    found = Lift(**arrays, width=float(lift["width"]), scale=float(lift["scale"]))
    return Features(embed=embed, lift=found, empty=bool(lift["empty"]))
