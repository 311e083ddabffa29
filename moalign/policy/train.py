"""The training loop: K adapters, one pass over the data, one optimiser step for all of them.

batch -> log-probs -> loss -> backward -> clip -> step -> record. The state is three tensors (parameters and the two
moments of AdamW) and a step count; the data order depends only on the seed, so a loop that continues from a
checkpoint gives the same bits as one that was never interrupted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import final

import torch
from torch import Tensor

from moalign.errors import DefinitionError, MoalignError
from moalign.policy.adapters import AdapterStack, LoRA
from moalign.policy.batches import PreferenceData, batch_order
from moalign.policy.graphs import cuda_capture
from moalign.policy.logprobs import shared_trunk
from moalign.policy.model import LanguageModel
from moalign.policy.native import Trunk
from moalign.policy.optimizer import StackAdamW
from moalign.policy.step import Batch, Loss, StepGradient

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
        accumulate: a step's batch is computed in this many parts, one after the other, which bounds memory; exact.
        by_prompt: draw prompts instead of pairs, so that each response is computed once for all its pairs.
        learning_rate: peak step size of AdamW.
        betas, weight_decay: of AdamW.
        warmup: share of the steps over which the learning rate rises from 0.
        schedule: factor on the learning rate after the warm-up, a function of progress in [0, 1].
        clip: largest gradient norm of each policy; larger gradients are scaled down. 0 = no clipping.
        lora: rank, scale and targets of the adapters.
        tokens_per_chunk: policies are processed in groups of about this many tokens (each prompt of a batch counts once
            where rows are packed), which bounds memory; exact. None chooses what suits the device and the model.
        graphs: replay steps from CUDA graphs, on CUDA and for models with a native pass; elsewhere it has no effect.
            Pays for small models, whose launches cost more than their arithmetic; sums are rounded in another order.
    """

    steps: int = 200
    batch_size: int = 16
    accumulate: int = field(default=1, metadata={"fingerprint": False})
    by_prompt: bool = False
    learning_rate: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.0
    warmup: float = 0.1
    schedule: Schedule = cosine
    clip: float = 1.0
    lora: LoRA = field(default_factory=LoRA)
    tokens_per_chunk: int | None = field(default=None, metadata={"fingerprint": False})
    graphs: bool = field(default=False, metadata={"fingerprint": False})

    def __post_init__(self) -> None:
        limits = {
            "steps": (self.steps >= 1, "1 or more"),
            "batch_size": (self.batch_size >= 1, "1 or more"),
            "accumulate": (self.accumulate >= 1, "1 or more"),
            "learning_rate": (math.isfinite(self.learning_rate) and self.learning_rate > 0, "above 0, such as 1e-3"),
            "betas": (all(0 <= b < 1 for b in self.betas), "two numbers from 0 to below 1"),
            "weight_decay": (self.weight_decay >= 0, "0 or more"),
            "warmup": (0 <= self.warmup < 1, "a share of the steps, from 0 to below 1"),
            "clip": (self.clip >= 0, "0 (no clipping) or more"),
            "tokens_per_chunk": (self.tokens_per_chunk is None or self.tokens_per_chunk >= 1, "None, or 1 or more"),
        }
        wrong = [
            f"Training {name} must be {wanted}, got {getattr(self, name)!r}."
            for name, (ok, wanted) in limits.items()
            if not ok
        ]
        if wrong:
            raise DefinitionError(wrong)

    def rate(self, step: int, peak: float | None = None, steps: int | None = None) -> float:
        """Returns the learning rate of optimiser step `step` = 0 .. steps - 1, by default of this training itself."""
        peak = self.learning_rate if peak is None else peak
        steps = self.steps if steps is None else steps
        warm = math.ceil(self.warmup * steps)
        if step < warm:
            return peak * (step + 1) / (warm + 1)
        return peak * self.schedule((step - warm) / max(1, steps - warm))


Move = Callable[[Tensor, Mapping[str, Tensor], Mapping[str, Tensor]], Tensor]


@final
@dataclass(frozen=True, eq=False)
class TrainState:
    """Where a loop stands.

    Attributes:
        stack: the adapters.
        first_moment, second_moment: AdamW's, [policies, parameters].
        step: steps done.
        stopped: which policies train no more [policies].
        loss: of each policy's last step [policies].
        dual: what a game's other player holds [policies, numbers], such as weights of groups; empty without one.
    """

    stack: AdapterStack
    first_moment: Tensor
    second_moment: Tensor
    step: int
    stopped: Tensor
    loss: Tensor
    dual: Tensor = field(default_factory=lambda: torch.zeros(0, 0))

    @staticmethod
    def start(stack: AdapterStack) -> TrainState:
        zeros = torch.zeros_like(stack.matrix)
        stopped = torch.zeros(len(stack), dtype=torch.bool)
        return TrainState(stack, zeros, zeros.clone(), 0, stopped, zeros.new_zeros(len(stack)))


@final
@dataclass(frozen=True, eq=False)
class StepRecord:
    """What one step reports.

    Attributes:
        step: counted from 1.
        loss, gradient_norm, learning_rate: [policies], the norm before clipping. A policy that has stopped keeps its
            last loss and has norm and rate 0.
        trained, generated: response tokens of all policies in this step, trained on and sampled; 0 where not counted,
            as in records of an earlier process.
    """

    step: int
    loss: Tensor
    gradient_norm: Tensor
    learning_rate: Tensor
    trained: int = 0
    generated: int = 0


def train(
    language_model: LanguageModel,
    data: PreferenceData,
    loss: Loss,
    policies: Mapping[str, Tensor],
    training: Training,
    state: TrainState,
    seed: int,
    trunk_of: Callable[[Batch, AdapterStack], Trunk | None] | None = None,
    stop: Callable[[StepRecord], Iterable[int]] = lambda record: (),
    move: Move | None = None,
) -> Iterator[tuple[StepRecord, TrainState]]:
    """Yields (record, state) after every step until `training.steps` are done or every policy has stopped.

    Args:
        language_model: the frozen base.
        data: pairs with their columns.
        loss: (first, second log-probs [chunk, batch], batch columns [batch, ...], policy columns [chunk, ...]) ->
            losses [chunk, batch], or [chunk, batch, parts] to be summed over parts; must not mix policies.
        policies: one row per policy: weights, temperatures, ... Two names have a meaning of their own here:
            `learning_rate` is each policy's peak rate instead of the training's, and `steps` (at most the training's)
            is after how many steps it stops, its schedule being that of a training of so many steps.
        training: the settings.
        state: where to start; it is not changed, its successors are yielded.
        seed: of the data order.
        trunk_of: what all policies share of a batch; computed batch by batch when None.
        stop: asked after every step which policies shall train no more.
        move: (losses [active, pairs, ...], batch columns, policy columns) -> the next `dual` [active, numbers], after
            every step. The loss sees it as the policy column `dual`, whose given value is where it starts.

    Raises:
        MoalignError: a loss is not finite; names the policy and the step.
    """
    trunk_of = trunk_of or (lambda batch, stack: shared_trunk(language_model, batch.rows, stack))
    stack = AdapterStack(state.stack.lora, state.stack.sites, state.stack.matrix.clone())
    first, second, stopped = state.first_moment.clone(), state.second_moment.clone(), state.stopped
    peak, last_step = rates_and_steps(policies, training, len(stack))
    dual = started_dual(state, policies)
    if move is not None:
        policies = {**policies, "dual": dual}  # changed in place
    on_graphs = training.graphs and language_model.device.type == "cuda" and language_model.native is not None
    gradients = StepGradient(
        language_model, data, loss, policies, stack, state.loss, trunk_of, parts=training.accumulate,
        tokens_per_chunk=training.tokens_per_chunk, capture=cuda_capture if on_graphs else None,
    )  # fmt: skip
    gradient = gradients.gradient
    optimizer = StackAdamW(stack.matrix, gradient, first, second, state.step, training.betas, training.weight_decay)
    order = batch_order(data, training.batch_size, training.by_prompt, seed, skip=state.step)
    batch = gradients.prepare(next(order))
    for step in range(state.step, training.steps):
        active = [k for k in range(len(stack)) if not stopped[k]]
        if not active:
            return
        gradients.compute(batch, active)
        trained = len(active) * sum(len(part.rows.target) for part, _ in batch)
        norm = gradient.norm(dim=1)
        if training.clip:
            gradient.mul_((training.clip / (norm + 1e-6)).clamp(max=1.0)[:, None])
        rates = [0.0 if stopped[k] else training.rate(step, peak[k], last_step[k]) for k in range(len(stack))]
        optimizer.step(rates, active)
        if step + 1 < training.steps:
            batch = gradients.prepare(next(order))  # while an accelerator computes
        refuse_nonfinite(gradients.losses, step)  # waits for it
        if move is not None:
            own = {name: column[active] for name, column in policies.items()}
            dual[active] = move(gradients.each[active], gradients.columns, own)
        rates_now = torch.tensor(rates, dtype=torch.float64)
        record = StepRecord(step + 1, gradients.losses.clone(), norm, rates_now, trained=trained)
        stopped = stopped | torch.tensor([step + 1 >= n for n in last_step])
        stopped[list(stop(record))] = True
        yield record, TrainState(stack, first, second, step + 1, stopped, record.loss, dual)


def started_dual(state: TrainState, policies: Mapping[str, Tensor]) -> Tensor:
    """Returns a copy of the state's dual; before the first step, of the policy column `dual`."""
    if len(state.dual) or "dual" not in policies:
        return state.dual.clone()
    return policies["dual"].clone()


def rates_and_steps(policies: Mapping[str, Tensor], training: Training, count: int) -> tuple[list[float], list[int]]:
    """Returns each policy's peak learning rate and number of steps.

    Raises:
        DefinitionError: one of them is out of range; names the policy.
    """
    rates = policies["learning_rate"].tolist() if "learning_rate" in policies else [training.learning_rate] * count
    steps = policies["steps"].tolist() if "steps" in policies else [training.steps] * count
    wrong = [f"Policy {k} has learning rate {r}; it must be > 0." for k, r in enumerate(rates) if not 0 < r < math.inf]
    for k, n in enumerate(steps):
        if not 1 <= n <= training.steps or n != int(n):
            wrong.append(
                f"Policy {k} has {n} steps; that must be a whole number from 1 to Training steps = {training.steps}."
            )
    if wrong:
        raise DefinitionError(wrong)
    return rates, [int(n) for n in steps]


def refuse_nonfinite(losses: Tensor, step: int) -> None:
    """Raises MoalignError if a policy's loss is not finite; names the policies and the step."""
    if not torch.isfinite(losses).all():
        bad = torch.nonzero(~torch.isfinite(losses)).flatten().tolist()
        raise MoalignError(
            f"The loss of policies {bad} is not finite at step {step + 1}. Lower the learning rate, or raise the "
            "smallest weight of a trained objective."
        )
