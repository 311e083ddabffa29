"""A set of policies on disk: the adapters as one array, and how they serve weights as JSON."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import torch

from moalign.errors import ArtefactError
from moalign.methods.base import PolicySet
from moalign.methods.serving import from_json, to_json
from moalign.policy.adapters import AdapterStack, LoRA, Site
from moalign.policy.export import load_arrays, save_arrays

FACTS = "policies.json"


def save_policies(policies: PolicySet, folder: Path) -> None:
    """Writes the set into an existing folder."""
    stack = policies.stack
    save_arrays(folder, {"matrix": stack.matrix, "weights": torch.from_numpy(policies.weights.copy())})
    facts = {
        "lora": dataclasses.asdict(stack.lora),
        "sites": [dataclasses.asdict(site) for site in stack.sites],
        "trainings": policies.trainings,
        "serving": to_json(policies.serving),
    }
    (folder / FACTS).write_text(json.dumps(facts, indent=1) + "\n")


def load_policies(folder: Path) -> PolicySet:
    """Returns the set that `save_policies` wrote, on the CPU.

    Raises:
        ArtefactError: the folder does not hold one.
    """
    try:
        facts = json.loads((folder / FACTS).read_text())
        arrays = load_arrays(folder)
        targets = facts["lora"]["targets"]
        lora = LoRA(**{**facts["lora"], "targets": None if targets is None else tuple(targets)})
        stack = AdapterStack(lora, tuple(Site(**site) for site in facts["sites"]), arrays["matrix"])
        trainings = tuple((str(name), int(row)) for name, row in facts["trainings"])
        serving = facts["serving"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtefactError(f"{folder} holds no set of policies that can be read: {error}") from error
    return PolicySet(stack, arrays["weights"].double().numpy(), trainings, from_json(serving))
