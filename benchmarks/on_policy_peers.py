"""The competitors of on-policy steps: TRL's RLOOTrainer with PEFT, and a lean loop on transformers and PEFT."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch

from benchmarks.peers import log_probs, lora, trl_settings
from benchmarks.workload import BETAS, CLIP, LEARNING_RATE, PAD


def trl_steps(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    reward: Callable[..., Sequence[float]],
    steps: int,
    beta: float,
    tokens: list[float],
    *,
    samples: int,
    new_tokens: int,
) -> Callable[[Callable[[], None]], None]:
    """Returns a work that trains by RLOOTrainer, without checkpointing, and pauses after each step.

    Appends the tokens sampled in the step.
    """
    from datasets import Dataset
    from transformers import TrainerCallback
    from transformers.trainer_callback import PrinterCallback
    from trl import RLOOConfig, RLOOTrainer

    words = copy.deepcopy(tokenizer)
    words.padding_side = "left"
    seen = []

    def counting(prompts: Sequence[Any], completions: Sequence[str], **others: Any) -> Sequence[float]:
        seen.append(sum(len(ids) for ids in others["completion_ids"]))
        return reward(prompts, completions)

    config = RLOOConfig(
        per_device_train_batch_size=len(prompts) * samples,
        num_generations=samples,
        max_completion_length=new_tokens,
        steps_per_generation=1,
        beta=beta,
        bf16=False,
        use_cpu=True,
        **trl_settings(steps),
    )

    def work(pause: Callable[[], None]) -> None:
        class Pausing(TrainerCallback):
            def on_step_end(self, *args: Any, **kwargs: Any) -> None:
                tokens.append(sum(seen))
                seen.clear()
                pause()

        trainer = RLOOTrainer(
            model=copy.deepcopy(model),
            reward_funcs=counting,
            args=config,
            train_dataset=Dataset.from_list([{"prompt": prompt} for prompt in prompts]),
            processing_class=words,
            peft_config=lora(),
            callbacks=[Pausing()],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()

    return work


def lean_steps(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    reward: Callable[..., Sequence[float]],
    steps: int,
    beta: float,
    tokens: list[float],
    *,
    samples: int,
    new_tokens: int,
) -> Callable[[Callable[[], None]], None]:
    """Returns a work as `trl_steps`, by the loop a careful user writes.

    `generate()` with its cache, the head applied to completion tokens only, a fused AdamW. The policy's own log-probs
    serve the penalty and the gradient, so each response takes one pass with adapters and one without.
    """

    def work(pause: Callable[[], None]) -> None:
        from peft import get_peft_model

        adapted = get_peft_model(copy.deepcopy(model), lora())
        parameters = [p for p in adapted.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, betas=BETAS, weight_decay=0.0, fused=True)
        ask = [prompt for prompt in prompts for _ in range(samples)]
        batch = tokenizer(ask, return_tensors="pt", padding=True, padding_side="left")
        given = batch["input_ids"]
        for _ in range(steps):
            with torch.no_grad():
                ids = adapted.generate(
                    input_ids=given, attention_mask=batch["attention_mask"], max_new_tokens=new_tokens, do_sample=True,
                    top_k=0, pad_token_id=PAD,
                )  # fmt: skip
            new = ids[:, given.shape[1] :]
            completion = torch.zeros_like(ids, dtype=torch.bool)
            completion[:, given.shape[1] :] = new != PAD
            attention = torch.cat([batch["attention_mask"], (new != PAD).long()], dim=1)
            rewards = torch.tensor(reward(ask, tokenizer.batch_decode(new, skip_special_tokens=True)))
            with torch.no_grad(), adapted.disable_adapter():
                reference = log_probs(adapted.get_base_model(), ids, attention, completion)
            own = log_probs(adapted.get_base_model(), ids, attention, completion)
            value = (rewards - beta * (own.detach() - reference)).view(len(prompts), samples)
            advantage = (value - value.mean(dim=1, keepdim=True)) * samples / (samples - 1)
            (-(advantage.flatten() * own).mean()).backward()
            torch.nn.utils.clip_grad_norm_(parameters, CLIP)
            optimizer.step()
            optimizer.zero_grad()
            tokens.append(float(completion.sum()))
            pause()

    return work
