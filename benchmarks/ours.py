"""moalign's side of the comparisons, through its public interface only."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.workload import ALPHA, BETAS, CLIP, LEARNING_RATE, RANK, TARGETS, Pair, text
from moalign import LoRA, Policy, Sampling, Training
from moalign.losses import dpo
from moalign.policy.adapters import AdapterStack
from moalign.policy.batches import PreferenceData, Responses
from moalign.policy.engine import Engine
from moalign.policy.export import save_adapter
from moalign.policy.on_policy import Rollouts
from moalign.policy.samples import Generation


def loss(first: Tensor, second: Tensor, batch: Mapping[str, Tensor], policy: Mapping[str, Tensor]) -> Tensor:
    """Returns DPO losses [policies, batch], each policy at its own beta."""
    return dpo(
        policy_chosen=first,
        policy_rejected=second,
        reference_chosen=batch["reference_first"],
        reference_rejected=batch["reference_second"],
        beta=policy["beta"],
    )


def settings(steps: int, batch_size: int, layers: int | None = None, **changes: Any) -> Training:
    """Returns the training settings that every competitor uses, constant learning rate included.

    `layers` adapts that many of the top layers alone.
    """
    given: dict[str, Any] = {
        "steps": steps,
        "batch_size": batch_size,
        "learning_rate": LEARNING_RATE,
        "betas": BETAS,
        "weight_decay": 0.0,
        "warmup": 0.0,
        "schedule": _constant,
        "clip": CLIP,
        "lora": LoRA(rank=RANK, alpha=ALPHA, targets=TARGETS, layers=layers),
    }
    return Training(**given | changes)


def data(pairs: Sequence[Pair]) -> PreferenceData:
    """Returns the pairs as tokens; responses 2i and 2i + 1 belong to pair i."""
    responses = Responses(
        prompts=tuple(pair.prompt for pair in pairs),
        prompt_of=np.repeat(np.arange(len(pairs)), 2),
        completions=tuple(ids for pair in pairs for ids in (pair.chosen, pair.rejected)),
    )
    return PreferenceData(responses=responses, pairs=np.arange(2 * len(pairs)).reshape(-1, 2))


def data_from_text(engine: Engine, pairs: Sequence[Pair]) -> PreferenceData:
    """Returns the pairs, tokenised from text by the engine."""
    prompts = [text(pair.prompt) for pair in pairs for _ in range(2)]
    responses = engine.encode(prompts, [text(ids) for pair in pairs for ids in (pair.chosen, pair.rejected)])
    return PreferenceData(responses=responses, pairs=np.arange(2 * len(pairs)).reshape(-1, 2))


def steps(
    model: Any,
    tokenizer: Any,
    pairs: Sequence[Pair],
    betas: Sequence[float],
    training: Training,
    seed: int,
    losses: list[list[float]],
    dtype: str = "float32",
    device: str = "cpu",
) -> Callable[[Callable[[], None]], None]:
    """Returns a work that trains one policy per beta and pauses after each step; appends the losses [policies]."""

    def work(pause: Callable[[], None]) -> None:
        def on_step(name: str, record: Any, of: int) -> None:
            losses.append(record.loss.tolist())
            pause()

        engine = Engine(Policy(model, tokenizer, dtype=dtype), seed=seed, device=device, on_step=on_step)
        engine.train("steps", data(pairs), loss, {"beta": np.array(betas)}, training)

    return work


def on_policy_steps(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    betas: Sequence[float],
    reward: Callable[..., Sequence[float]],
    steps: int,
    seed: int,
    tokens: list[float],
    *,
    samples: int,
    new_tokens: int,
) -> Callable[[Callable[[], None]], None]:
    """Returns a work that trains one policy per beta on its own samples and pauses after each step.

    Appends the tokens that each policy sampled in the step.
    """

    def work(pause: Callable[[], None]) -> None:
        def on_step(name: str, record: Any, of: int) -> None:
            tokens.append(record.generated / len(betas))
            pause()

        def score(asked: Sequence[Any], texts: Sequence[str]) -> np.ndarray:
            return np.array(reward(asked, texts))[:, None]

        rollouts = Rollouts(sampling=Sampling(samples=samples, max_new_tokens=new_tokens))
        engine = Engine(Policy(model, tokenizer), seed=seed, device="cpu", on_step=on_step)
        engine.train_on_policy(
            "steps", prompts, score, lambda rewards, policy: rewards[..., 0], {"beta": np.array(betas)},
            settings(steps, len(prompts)), rollouts,
        )  # fmt: skip

    return work


def save_start(model: Any, tokenizer: Any, pairs: Sequence[Pair], training: Training, seed: int, folder: Path) -> None:
    """Writes the adapter from which the trainings of this seed start, as a PEFT folder.

    Of B = 0 a step of vanishing length is all there is: A has no gradient yet, so it stays as it is.
    """
    still = settings(1, training.batch_size, learning_rate=1e-30, lora=training.lora)
    engine = Engine(Policy(model, tokenizer), seed=seed, device="cpu")
    stack = engine.train("start", data(pairs[: training.batch_size]), loss, {"beta": np.array([0.1])}, still)
    save_adapter(stack, 0, folder, None)


def random_stack(engine: Engine, pairs: Sequence[Pair], policies: int, seed: int) -> AdapterStack:
    """Returns adapters with random A and B, so that the policies differ."""
    start = engine.train("start", data(pairs), loss, {"beta": np.full(policies, 0.1)}, settings(1, len(pairs)))
    noise = torch.randn(start.matrix.shape, generator=torch.Generator().manual_seed(seed))
    return replace(start, matrix=0.1 * noise)


def greedy(engine: Engine, prompts: Sequence[str], stack: AdapterStack | None, tokens: int) -> list[list[Generation]]:
    """Returns the most likely responses per policy."""
    return engine.generate(prompts, Sampling(max_new_tokens=tokens, temperature=0.0), stack)


def sweep(
    model: Any,
    tokenizer: Any,
    pairs: Sequence[Pair],
    betas: Sequence[float],
    training: Training,
    seed: int,
    prompts: Sequence[str],
    tokens: int,
) -> list[list[Generation]]:
    """Returns the greedy responses of all policies after a whole sweep, from loading the base to the last token."""
    engine = Engine(Policy(model, tokenizer), seed=seed, device="cpu")
    stack = engine.train("sweep", data_from_text(engine, pairs), loss, {"beta": np.array(betas)}, training)
    return greedy(engine, prompts, stack, tokens)


def _constant(progress: float) -> float:
    return 1.0
