"""The on-policy loop: K policies sample from the same prompts, are rewarded, and take one step together.

prompts -> samples -> utilities -> advantages -> backward -> clip -> step -> record. One batched generation and one
backward pass serve all policies; each policy's rows are its own samples. The state is that of `train`, and samples
depend only on seed, step, prompt and sample numbers, so a loop that continues from a checkpoint gives the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from moalign.arrays import FloatArray
from moalign.errors import DefinitionError
from moalign.losses.policy_gradient import clipped_policy_gradient, leave_one_out, penalised_rewards
from moalign.policy.adapters import AdapterStack
from moalign.policy.batches import Responses, shuffled
from moalign.policy.chunks import Chunks, as_slice, chunk_tokens
from moalign.policy.generate import Sampling
from moalign.policy.model import LanguageModel
from moalign.policy.optimizer import StackAdamW
from moalign.policy.own_rows import OwnRows, own_tokens
from moalign.policy.samples import draw
from moalign.policy.train import (
    Move,
    StepRecord,
    Training,
    TrainState,
    rates_and_steps,
    refuse_nonfinite,
    started_dual,
)

ROUNDING = 1e-4  # nats; smaller differences are rounding, which AdamW would blow up to whole steps where rewards tie

Score = Callable[[Sequence[int], Sequence[str]], FloatArray]
Utility = Callable[[Tensor, Mapping[str, Tensor]], Tensor]
ReferenceLogProbs = Callable[[Responses], FloatArray]


@final
@dataclass(frozen=True, kw_only=True)
class Rollouts:
    """How an on-policy training samples and uses its samples.

    Attributes:
        sampling: responses per prompt and step, at least two (each is judged against the others), drawn from the policy
            itself: temperature 1 and top_p 1.
        reuse: optimiser steps per batch of samples; beyond the first with importance ratios.
        clip: half width of the interval in which a token's importance ratio is used (arXiv 1707.06347).
    """

    sampling: Sampling = field(default_factory=lambda: Sampling(samples=4, max_new_tokens=64))
    reuse: int = 1
    clip: float = 0.2

    def __post_init__(self) -> None:
        wrong = []
        if self.sampling.samples < 2:
            wrong.append(f"Rollouts need samples >= 2 per prompt for their baseline, got {self.sampling.samples}.")
        if self.sampling.temperature != 1 or self.sampling.top_p != 1:
            wrong.append("Rollouts sample the policy itself; leave temperature and top_p at 1.")
        if self.reuse < 1:
            wrong.append(f"Rollouts reuse must be >= 1, got {self.reuse}.")
        if not self.clip > 0:
            wrong.append(f"Rollouts clip must be > 0, got {self.clip}.")
        if wrong:
            raise DefinitionError(wrong)


def train_on_policy(
    language_model: LanguageModel,
    prompts: Sequence[tuple[int, ...]],
    score: Score,
    utility: Utility,
    policies: Mapping[str, Tensor],
    training: Training,
    rollouts: Rollouts,
    state: TrainState,
    seed: int,
    reference: ReferenceLogProbs,
    stop: Callable[[StepRecord], Iterable[int]] = lambda record: (),
    move: Move | None = None,
) -> Iterator[tuple[StepRecord, TrainState]]:
    """Yields (record, state) after every step until `training.steps` are done or every policy has stopped.

    A policy maximises E[utility] - beta KL(policy || reference). A record's loss is minus this step's estimate of it.

    Args:
        language_model: the frozen base.
        prompts: token ids of the training prompts.
        score: (numbers of prompts, texts) -> rewards [texts, objectives].
        utility: (rewards [policies, prompts, samples, objectives], policy columns) -> [policies, prompts, samples].
            May look at the whole batch of a policy, must not mix policies.
        policies: one row per policy: `beta` (KL strength, >= 0) and whatever the utility needs; `learning_rate` and
            `steps` mean what they mean in `train`.
        training: the settings; a step takes `batch_size` prompts.
        rollouts: how to sample.
        state: where to start; it is not changed, its successors are yielded.
        seed: of prompt order and samples.
        reference: summed log-probs of responses under the base.
        stop: asked after every step which policies shall train no more.
        move: (rewards [active, prompts, samples, objectives], {}, policy columns) -> the next `dual` [active, numbers],
            on every batch of samples. The utility sees it as the policy column `dual`, whose given value is the start.

    Raises:
        MoalignError: a loss is not finite; names the policy and the step.
    """
    stack = AdapterStack(state.stack.lora, state.stack.sites, state.stack.matrix.clone())
    first, second, stopped = state.first_moment.clone(), state.second_moment.clone(), state.stopped
    peak, last_step = rates_and_steps(policies, training, len(stack))
    gradient, losses, seen = torch.zeros_like(stack.matrix), state.loss.clone(), state.step * rollouts.reuse
    optimizer = StackAdamW(stack.matrix, gradient, first, second, seen, training.betas, training.weight_decay)
    chunks = Chunks(training.tokens_per_chunk or chunk_tokens(language_model, stack))
    dual = started_dual(state, policies)
    order = shuffled([np.array([i]) for i in range(len(prompts))], training.batch_size, seed, skip=state.step)
    for step in range(state.step, training.steps):
        active = [k for k in range(len(stack)) if not stopped[k]]
        if not active:
            return
        chosen = next(order)
        own = {name: column[as_slice(active)] for name, column in policies.items()}
        samples = collect(
            language_model, stack.select(active), prompts, chosen, score, rollouts, _seed(seed, step), reference
        )
        if move is not None:
            own["dual"] = move(samples.rewards, {}, {**own, "dual": dual[active]})
            dual[active] = own["dual"]
        penalised = penalised_rewards(
            utility(samples.rewards, own).flatten(1), samples.log_probs, samples.reference, beta=own["beta"]
        )
        advantages = leave_one_out(penalised.view(len(active), -1, rollouts.sampling.samples)).flatten(1)
        advantages = advantages.where(advantages.abs() > ROUNDING * own["beta"][:, None], 0)
        rates = [0.0 if stopped[k] else training.rate(step, peak[k], last_step[k]) for k in range(len(stack))]
        norm = torch.zeros_like(losses)
        for update in range(rollouts.reuse):
            gradient.zero_()

            def add(
                group: Sequence[int],
                samples: Samples = samples,
                advantages: Tensor = advantages,
                active: Sequence[int] = active,
            ) -> None:
                policies = [active[place] for place in group]
                own = stack.select(policies)
                gradient[policies] = samples_gradient(language_model, samples, advantages, own, group, rollouts.clip)

            tokens = own_tokens(language_model, samples.responses, samples.each)
            chunks.over(range(len(active)), tokens, add)
            norm = gradient.norm(dim=1) if update == 0 else norm
            if training.clip:
                gradient.mul_((training.clip / (gradient.norm(dim=1) + 1e-6)).clamp(max=1.0)[:, None])
            optimizer.step(rates, active)
        losses[active] = -penalised.mean(dim=1)
        refuse_nonfinite(losses, step)
        drawn = sum(map(len, samples.responses.completions))
        rates_now = torch.tensor(rates, dtype=torch.float64)
        record = StepRecord(step + 1, losses.clone(), norm, rates_now, rollouts.reuse * drawn, drawn)
        stopped = stopped | torch.tensor([step + 1 >= n for n in last_step])
        stopped[list(stop(record))] = True
        yield record, TrainState(stack, first, second, step + 1, stopped, record.loss, dual)


@final
@dataclass(frozen=True, eq=False)
class Samples:
    """What K policies drew in one step, ordered by policy, prompt, sample.

    Attributes:
        responses: of all policies [policies * each].
        each: responses per policy.
        rewards: [policies, prompts, samples, objectives].
        reference: summed log-probs under the base [policies, each].
        log_probs: the same under the policies that drew them.
        token_log_probs: of every token of every response under the policy that drew it.
    """

    responses: Responses
    each: int
    rewards: Tensor
    reference: Tensor
    log_probs: Tensor
    token_log_probs: tuple[tuple[float, ...], ...]


@torch.no_grad()
def collect(
    language_model: LanguageModel,
    stack: AdapterStack,
    prompts: Sequence[tuple[int, ...]],
    chosen: Sequence[int] | np.ndarray,
    score: Score,
    rollouts: Rollouts,
    seed: int,
    reference: ReferenceLogProbs,
) -> Samples:
    """Returns each policy's samples for the chosen prompts; equal responses are scored once."""
    part = [prompts[i] for i in chosen]
    drawn = draw(language_model, part, rollouts.sampling, stack, seed)
    place: dict[tuple[int, tuple[int, ...]], int] = {}
    index = [place.setdefault((g.prompt, g.ids), len(place)) for rows in drawn for g in rows]
    text = {(g.prompt, g.ids): g.text for rows in drawn for g in rows}
    distinct = Responses(
        prompts=tuple(part),
        prompt_of=np.array([p for p, _ in place], dtype=np.int64),
        completions=tuple(ids for _, ids in place),
    )
    rewards = score([int(chosen[p]) for p, _ in place], [text[key] for key in place])
    device, dtype = stack.matrix.device, stack.matrix.dtype
    shape = (len(stack), len(part), rollouts.sampling.samples)
    responses = Responses(
        prompts=distinct.prompts,
        prompt_of=distinct.prompt_of[index],
        completions=tuple(distinct.completions[i] for i in index),
    )
    own = torch.tensor([[g.log_prob for g in rows] for rows in drawn], dtype=dtype, device=device)
    base = torch.as_tensor(reference(distinct)[index], device=device).to(dtype).view_as(own)
    return Samples(
        responses,
        shape[1] * shape[2],
        torch.as_tensor(rewards[index], device=device).to(dtype).view(*shape, -1),
        base,
        own,
        tuple(g.log_probs for rows in drawn for g in rows),
    )


def samples_gradient(
    language_model: LanguageModel,
    samples: Samples,
    advantages: Tensor,
    stack: AdapterStack,
    group: Sequence[int],
    clip: float,
) -> Tensor:
    """Returns the gradients [group, parameters] of some policies on their own samples.

    Args:
        language_model: the frozen base.
        samples: of all policies.
        advantages: [policies, each].
        stack: the policies of the group.
        group: their numbers within the samples.
        clip: half width of the interval of importance ratios.
    """
    chosen = [range(k * samples.each, (k + 1) * samples.each) for k in group]
    own = OwnRows.build(language_model, samples.responses, chosen)
    leaves = [tuple(v.detach().requires_grad_() for v in site.views(stack.matrix)) for site in stack.sites]
    log_probs = own.log_probs(language_model, stack, leaves)  # type: ignore[arg-type]
    drawn = [v for rows in chosen for r in rows for v in samples.token_log_probs[r]]
    sampled = torch.tensor([*drawn, 0.0], dtype=advantages.dtype, device=advantages.device)[own.token]
    # a token that only fills the shape has no advantage, and so no part in the loss
    of_token = F.pad(advantages[as_slice(group)].flatten(), (0, 1))[own.row]
    loss = clipped_policy_gradient(log_probs, sampled, of_token, clip=clip).sum() / samples.each
    # policies do not interact, so the gradient of the sum holds each policy's own gradient in its own slice
    parts = torch.autograd.grad(loss, [leaf for pair in leaves for leaf in pair])
    return torch.cat([part.flatten(1) for part in parts], dim=1)


def _seed(seed: int, step: int) -> int:
    return int(np.random.default_rng([seed, 2, step]).integers(1 << 31))
