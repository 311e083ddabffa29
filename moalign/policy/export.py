"""Adapters on disk: the PEFT format for users, plain safetensors for the engine's own state."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from moalign.errors import ArtefactError
from moalign.policy.adapters import AdapterStack, LoRA
from moalign.policy.train import StepRecord, TrainState

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"


def save_adapter(stack: AdapterStack, policy: int, folder: Path, base: str | None) -> None:
    """Writes one policy of the stack as a PEFT LoRA folder.

    Args:
        stack: the adapters.
        policy: which one.
        folder: an existing folder.
        base: name or folder of the base model, for `adapter_config.json`.
    """
    tensors = {}
    for site in stack.sites:
        a, b = site.views(stack.matrix[policy : policy + 1])
        for part, value in (("A", a), ("B", b)):
            tensors[f"base_model.model.{site.name}.lora_{part}.weight"] = value[0].float().cpu().contiguous()
    save_file(tensors, str(folder / WEIGHTS), metadata={"format": "pt"})
    (folder / CONFIG).write_text(json.dumps(peft_config(stack, base), indent=2) + "\n")


def peft_config(stack: AdapterStack, base: str | None) -> dict[str, Any]:
    """Returns the content of PEFT's `adapter_config.json` for a policy of the stack."""
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": stack.lora.rank,
        "lora_alpha": stack.lora.alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "use_rslora": False,
        "use_dora": False,
        "fan_in_fan_out": any(site.transposed for site in stack.sites),
        "target_modules": sorted({site.name.rsplit(".", 1)[-1] for site in stack.sites}),
        "layers_to_transform": None if stack.lora.layers is None else sorted({site.layer for site in stack.sites}),
        "inference_mode": True,
    }


def load_adapter(folder: Path, like: AdapterStack) -> AdapterStack:
    """Returns the PEFT LoRA folder as a stack of one, laid out as `like`.

    Raises:
        ArtefactError: the folder adapts other projections or has another rank.
    """
    tensors = load_file(str(folder / WEIGHTS))
    row = torch.zeros(1, like.matrix.shape[1], dtype=like.matrix.dtype)
    for site in like.sites:
        for part, view in zip("AB", site.views(row), strict=True):
            value = tensors.get(f"base_model.model.{site.name}.lora_{part}.weight")
            if value is None or value.shape != view.shape[1:]:
                raise ArtefactError(f"{folder} has no lora_{part} of shape {tuple(view.shape[1:])} for {site.name}.")
            view.copy_(value[None])
    return AdapterStack(like.lora, like.sites, row.to(like.matrix.device))


def save_arrays(folder: Path, arrays: Mapping[str, Tensor]) -> None:
    """Writes named tensors as `arrays.safetensors`."""
    save_file({n: t.detach().cpu().contiguous() for n, t in arrays.items()}, str(folder / "arrays.safetensors"))


def load_arrays(folder: Path) -> dict[str, Tensor]:
    """Returns the tensors that `save_arrays` wrote."""
    return dict(load_file(str(folder / "arrays.safetensors")))


def save_state(folder: Path, state: TrainState, log: list[StepRecord]) -> None:
    """Writes a training's checkpoint: parameters, moments, step and the records so far."""
    save_arrays(
        folder,
        {
            "matrix": state.stack.matrix,
            "first_moment": state.first_moment,
            "second_moment": state.second_moment,
            "step": torch.tensor([state.step]),
            "stopped": state.stopped,
            "dual": state.dual,
            "loss": torch.stack([r.loss for r in log]),
            "gradient_norm": torch.stack([r.gradient_norm for r in log]),
            "learning_rate": torch.stack([r.learning_rate for r in log]),
        },
    )


def load_state(folder: Path, start: TrainState) -> tuple[TrainState, list[StepRecord]]:
    """Returns the checkpoint's state and records, on the device of `start`."""
    arrays = load_arrays(folder)
    device = start.stack.matrix.device
    matrix, first, second = (arrays[n].to(device) for n in ("matrix", "first_moment", "second_moment"))
    stack = AdapterStack(start.stack.lora, start.stack.sites, matrix)
    rows = zip(arrays["loss"].to(device), arrays["gradient_norm"].to(device), arrays["learning_rate"], strict=True)
    log = [StepRecord(i, loss, norm, rate) for i, (loss, norm, rate) in enumerate(rows, 1)]
    last, dual = log[-1].loss, arrays.get("dual", start.dual).to(device)
    return TrainState(stack, first, second, int(arrays["step"]), arrays["stopped"], last, dual), log


def lora_of(folder: Path) -> LoRA:
    """Returns rank, scale and targets of a PEFT LoRA folder.

    Raises:
        ArtefactError: the folder's configuration is missing or is not plain LoRA.
    """
    try:
        config = json.loads((folder / CONFIG).read_text())
    except (OSError, ValueError) as error:
        raise ArtefactError(f"{folder / CONFIG} cannot be read: {error}") from error
    if config.get("peft_type") != "LORA" or config.get("use_rslora") or config.get("use_dora"):
        raise ArtefactError(f"{folder} is no plain LoRA adapter; rank-stabilised LoRA and DoRA are not supported.")
    layers = config.get("layers_to_transform")  # ours are the top ones; `load_adapter` notices when others are meant
    return LoRA(
        rank=config["r"],
        alpha=config["lora_alpha"],
        targets=tuple(config["target_modules"]),
        layers=None if layers is None else len(layers),
    )
