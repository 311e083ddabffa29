"""Trainings that are remembered: what is finished is loaded, what was interrupted goes on from its last checkpoint."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from moalign.arrays import FloatArray
from moalign.policy.adapters import AdapterStack
from moalign.policy.export import load_arrays, load_state, save_arrays, save_state
from moalign.policy.train import StepRecord, TrainState
from moalign.policy.workspace import Workspace, stored_folder


@final
@dataclass(frozen=True, eq=False)
class TrainingLog:
    """Losses, gradient norms and learning rates of a finished training, [steps, policies]."""

    loss: FloatArray
    gradient_norm: FloatArray
    learning_rate: FloatArray


def remembered_training(
    workspace: Workspace | None,
    key: str,
    start: AdapterStack,
    loop: Callable[[TrainState], Iterator[tuple[StepRecord, TrainState]]],
    steps: int,
    facts: Mapping[str, Any],
    after: Callable[[StepRecord], bool],
    checkpoint_seconds: float,
) -> tuple[AdapterStack, Tensor]:
    """Returns the adapters and the `dual` that a loop ends with: loaded if it was finished, else continued from its
    last checkpoint.

    Args:
        workspace: where trainings are kept; None repeats them.
        key: of the training; the same key means the same loop.
        start: the adapters it starts from.
        loop: yields (record, state) after every step, from a state on.
        steps: of the whole loop; it may end earlier.
        facts: kept with the result; `name` is what the training is called.
        after: told of every step; True saves the state and raises KeyboardInterrupt.
        checkpoint_seconds: time between checkpoints.
    """
    state, log = TrainState.start(start), list[StepRecord]()
    if workspace is not None:
        finished = stored_folder(workspace.training_folder(key))
        if finished is not None:
            arrays = load_arrays(finished)
            stack = AdapterStack(start.lora, start.sites, arrays["matrix"])
            return stack, arrays.get("dual", torch.zeros(0, 0))
        checkpoint = workspace.checkpoint(key)
        if checkpoint is not None:
            state, log = load_state(checkpoint, state)
    saved = time.monotonic()
    for record, reached in loop(state):
        state = reached
        log.append(record)
        last = record.step == steps or bool(reached.stopped.all())
        stop = after(record)
        if workspace is not None and not last and (stop or time.monotonic() - saved > checkpoint_seconds):
            _checkpoint(workspace, key, state, log)
            saved = time.monotonic()
        if stop and not last:
            raise KeyboardInterrupt
    if workspace is not None:
        _finish(workspace, key, state, log, facts)
    return state.stack, state.dual


def training_logs(workspace: Workspace | None, keys: Mapping[str, str]) -> dict[str, TrainingLog]:
    """Returns the log of every finished training by name; empty without a workspace.

    Of several trainings with one name it is the one whose key is given.
    """
    found: dict[str, TrainingLog] = {}
    if workspace is None:
        return found
    for facts in sorted(workspace.training_folder("x").parent.glob("*/training.json")):
        name = json.loads(facts.read_text())["name"]
        if keys.get(name, facts.parent.name) == facts.parent.name:
            arrays = load_arrays(facts.parent)
            log = (arrays[n].double().numpy() for n in ("loss", "gradient_norm", "learning_rate"))
            found[name] = TrainingLog(*log)
    return found


def _checkpoint(workspace: Workspace, key: str, state: TrainState, log: list[StepRecord]) -> None:
    workspace.save_checkpoint(key, state.step, lambda folder: save_state(folder, state, log))


def _finish(workspace: Workspace, key: str, state: TrainState, log: list[StepRecord], facts: Mapping[str, Any]) -> None:
    with workspace.publish(workspace.training_folder(key)) as folder:
        columns = {n: torch.stack([getattr(r, n) for r in log]) for n in ("loss", "gradient_norm", "learning_rate")}
        save_arrays(folder, {"matrix": state.stack.matrix, "dual": state.dual, **columns})
        (folder / "training.json").write_text(json.dumps(facts, indent=1, default=str))
    workspace.clear_checkpoint(key)
