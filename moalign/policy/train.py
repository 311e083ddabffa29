"""The training loop: K adapters, one pass over the data, one optimiser step for all of them.

batch -> log-probs -> loss -> backward -> clip -> step -> record. The state is three tensors (parameters and the two
moments of AdamW) and a step count; the data order depends only on the seed, so a loop that continues from a
checkpoint gives the same bits as one that was never interrupted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import final

import numpy as np
import torch
from torch import Tensor

from moalign.arrays import IntArray
from moalign.errors import DefinitionError, MoalignError
from moalign.policy.adapters import AdapterStack, LoRA
from moalign.policy.batches import PreferenceData, batch_order
from moalign.policy.logprobs import sequence_log_probs, shared_trunk
from moalign.policy.model import LanguageModel, Rows
from moalign.policy.native import Trunk

Loss = Callable[[Tensor, Tensor, Mapping[str, Tensor], Mapping[str, Tensor]], Tensor]
Schedule = Callable[[float], float]


def constant(progress: float) -> float:
    """Returns 1 at every progress in [0, 1]."""
    return 1.0


def linear(progress: float) -> float:
    """Returns 1 - progress: from 1 down to 0."""
    return 1.0 - progress


def cosine(progress: float) -> float:
    """Returns half a cosine wave: from 1 down to 0, slow at both ends."""
    return 0.5 * (1.0 + math.cos(math.pi * progress))


@final
@dataclass(frozen=True, kw_only=True)
class Training:
    """How a stack of adapters is trained.

    Attributes:
        steps: optimiser steps.
        batch_size: pairs per step; prompts per step (each with all its pairs) when `by_prompt`.
        by_prompt: draw prompts instead of pairs, so that each response is computed once for all its pairs.
        learning_rate: peak step size of AdamW.
        betas, weight_decay: of AdamW.
        warmup: share of the steps over which the learning rate rises from 0.
        schedule: factor on the learning rate after the warm-up, a function of progress in [0, 1].
        clip: largest gradient norm of each policy; larger gradients are scaled down. 0 = no clipping.
        lora: rank, scale and targets of the adapters.
        tokens_per_chunk: policies are processed in groups of about this many tokens (each prompt of a batch counts once
            where rows are packed), which bounds memory; exact.
    """

    steps: int = 200
    batch_size: int = 16
    by_prompt: bool = False
    learning_rate: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.0
    warmup: float = 0.1
    schedule: Schedule = cosine
    clip: float = 1.0
    lora: LoRA = field(default_factory=LoRA)
    tokens_per_chunk: int = field(default=4096, metadata={"fingerprint": False})

    def __post_init__(self) -> None:
        limits = {
            "steps": self.steps >= 1,
            "batch_size": self.batch_size >= 1,
            "learning_rate": math.isfinite(self.learning_rate) and self.learning_rate > 0,
            "betas": all(0 <= b < 1 for b in self.betas),
            "weight_decay": self.weight_decay >= 0,
            "warmup": 0 <= self.warmup < 1,
            "clip": self.clip >= 0,
            "tokens_per_chunk": self.tokens_per_chunk >= 1,
        }
        wrong = [f"Training {name} = {getattr(self, name)!r} is out of range." for name, ok in limits.items() if not ok]
        if wrong:
            raise DefinitionError(wrong)

    def rate(self, step: int) -> float:
        """Returns the learning rate of optimiser step `step` = 0 .. steps - 1."""
        warm = math.ceil(self.warmup * self.steps)
        if step < warm:
            return self.learning_rate * (step + 1) / (warm + 1)
        return self.learning_rate * self.schedule((step - warm) / max(1, self.steps - warm))


@final
@dataclass(frozen=True, eq=False)
class TrainState:
    """Where a loop stands: the adapters, AdamW's two moments [policies, parameters] and the steps done."""

    stack: AdapterStack
    first_moment: Tensor
    second_moment: Tensor
    step: int

    @staticmethod
    def start(stack: AdapterStack) -> TrainState:
        zeros = torch.zeros_like(stack.matrix)
        return TrainState(stack, zeros, zeros.clone(), 0)


@final
@dataclass(frozen=True, eq=False)
class StepRecord:
    """What one step reports: step (1-based), loss and gradient norm before clipping [policies], learning rate."""

    step: int
    loss: Tensor
    gradient_norm: Tensor
    learning_rate: float


def train(
    language_model: LanguageModel,
    data: PreferenceData,
    loss: Loss,
    policies: Mapping[str, Tensor],
    training: Training,
    state: TrainState,
    seed: int,
) -> Iterator[tuple[StepRecord, TrainState]]:
    """Yields (record, state) after every step until `training.steps` are done.

    Args:
        language_model: the frozen base.
        data: pairs with their columns.
        loss: (first, second log-probs [chunk, batch], batch columns [batch, ...], policy columns [chunk, ...]) ->
            losses [chunk, batch]; must not mix policies.
        policies: one row per policy: weights, temperatures, ...
        training: the settings.
        state: where to start; it is not changed, its successors are yielded.
        seed: of the data order.

    Raises:
        MoalignError: a loss is not finite; names the policy and the step.
    """
    stack = AdapterStack(state.stack.lora, state.stack.sites, state.stack.matrix.clone().requires_grad_(False))
    parameters, optimizer = _optimizer(stack.matrix, state, training)
    gradient = torch.zeros_like(stack.matrix)
    parameters.grad = gradient
    order = batch_order(data, training.batch_size, training.by_prompt, seed, skip=state.step)
    for step in range(state.step, training.steps):
        batch = build_batch(language_model, data, next(order), stack.matrix.dtype)
        trunk = shared_trunk(language_model, batch.rows, stack)
        losses = []
        for chunk in _chunks(len(stack), batch, training.tokens_per_chunk):
            losses.append(_backward(language_model, batch, loss, policies, stack, gradient, chunk, trunk))
        mean_losses = torch.cat(losses)
        _refuse_nonfinite(mean_losses, step)
        norm = gradient.norm(dim=1)
        if training.clip:
            gradient.mul_((training.clip / (norm + 1e-6)).clamp(max=1.0)[:, None])
        optimizer.param_groups[0]["lr"] = training.rate(step)
        optimizer.step()
        moments = optimizer.state[parameters]
        yield (
            StepRecord(step + 1, mean_losses, norm, training.rate(step)),
            TrainState(stack, moments["exp_avg"], moments["exp_avg_sq"], step + 1),
        )


@final
@dataclass(frozen=True, eq=False)
class Batch:
    """One step's data: the distinct responses of its pairs, and each pair's place among them.

    Attributes:
        rows: the token rows [responses in the batch].
        first, second: row of each pair's first and second response [batch].
        columns: pair columns [batch, ...], and response columns as `<name>_first`, `<name>_second` [batch, ...].
    """

    rows: Rows
    first: Tensor
    second: Tensor
    columns: Mapping[str, Tensor]


def build_batch(language_model: LanguageModel, data: PreferenceData, pairs: IntArray, dtype: torch.dtype) -> Batch:
    """Returns the batch of the given pair indices."""
    used, places = np.unique(data.pairs[pairs], return_inverse=True)
    places = places.reshape(-1, 2)
    device = language_model.device
    columns = {name: column[pairs] for name, column in data.pair_columns.items()}
    for name, column in data.response_columns.items():
        columns[f"{name}_first"] = column[data.pairs[pairs, 0]]
        columns[f"{name}_second"] = column[data.pairs[pairs, 1]]
    return Batch(
        language_model.rows(data.responses, used.tolist()),
        torch.tensor(places[:, 0], device=device),
        torch.tensor(places[:, 1], device=device),
        {name: torch.as_tensor(column, device=device).to(dtype) for name, column in columns.items()},
    )


def _backward(
    language_model: LanguageModel,
    batch: Batch,
    loss: Loss,
    policies: Mapping[str, Tensor],
    stack: AdapterStack,
    gradient: Tensor,
    chunk: slice,
    trunk: Trunk | None,
) -> Tensor:
    """Writes the gradients of the policies in `chunk` to their rows of `gradient`; returns their mean losses."""
    parameters = [site.views(stack.matrix[chunk]) for site in stack.sites]
    leaves = [(a.detach().requires_grad_(), b.detach().requires_grad_()) for a, b in parameters]
    log_probs = sequence_log_probs(language_model, batch.rows, stack, leaves, trunk)
    own = {name: column[chunk] for name, column in policies.items()}
    losses = loss(log_probs[:, batch.first], log_probs[:, batch.second], batch.columns, own).mean(dim=1)
    flat_leaves = [leaf for pair in leaves for leaf in pair]
    slots = [slot for site in stack.sites for slot in site.views(gradient[chunk])]
    # policies do not interact, so the gradient of the sum holds each policy's own gradient in its own slice
    for slot, value in zip(slots, torch.autograd.grad(losses.sum(), flat_leaves), strict=True):
        slot.copy_(value)
    return losses.detach()


def _optimizer(matrix: Tensor, state: TrainState, training: Training) -> tuple[torch.nn.Parameter, torch.optim.AdamW]:
    parameters = torch.nn.Parameter(matrix, requires_grad=False)
    optimizer = torch.optim.AdamW(
        [parameters], lr=training.learning_rate, betas=training.betas, weight_decay=training.weight_decay, fused=True
    )
    if state.step:
        step = torch.tensor(float(state.step), dtype=torch.float32, device=matrix.device)
        moments = {"exp_avg": state.first_moment.clone(), "exp_avg_sq": state.second_moment.clone(), "step": step}
        optimizer.state[parameters] = moments
    return parameters, optimizer


def _chunks(policies: int, batch: Batch, tokens: int) -> list[slice]:
    size = max(1, tokens // batch.rows.tokens)
    return [slice(start, min(start + size, policies)) for start in range(0, policies, size)]


def _refuse_nonfinite(losses: Tensor, step: int) -> None:
    if not torch.isfinite(losses).all():
        bad = torch.nonzero(~torch.isfinite(losses)).flatten().tolist()
        raise MoalignError(
            f"The loss of policies {bad} is not finite at step {step + 1}. Lower the learning rate, or raise the "
            "smallest weight of a trained objective."
        )
