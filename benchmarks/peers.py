"""The competitors: TRL's trainers with PEFT, one run per policy, and a lean loop on transformers and PEFT.

Every run gets its own deep copy of the base: TRL and PEFT leave wrapped layers, hooks and flags on the model they are
given, and a later run on the same object would be measured with them.
"""

from __future__ import annotations

import copy
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.workload import ALPHA, BETAS, CLIP, LEARNING_RATE, PAD, RANK, TARGETS, Pair, text

warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")


def lora(layers: Sequence[int] | None = None) -> Any:
    """Returns PEFT's configuration of the adapters, in all layers or the given ones."""
    from peft import LoraConfig

    return LoraConfig(
        r=RANK,
        lora_alpha=ALPHA,
        lora_dropout=0.0,
        target_modules=list(TARGETS),
        layers_to_transform=None if layers is None else list(layers),
        task_type="CAUSAL_LM",
    )


def trl_settings(steps: int) -> dict[str, Any]:
    """Returns what all trainers of TRL are told: the settings of `ours.settings`, no checkpointing, no logging."""
    return {
        "output_dir": str(Path(tempfile.gettempdir()) / "moalign-benchmark-trl"),
        "max_steps": steps,
        "learning_rate": LEARNING_RATE,
        "lr_scheduler_type": "constant",
        "warmup_steps": 0,
        "weight_decay": 0.0,
        "adam_beta1": BETAS[0],
        "adam_beta2": BETAS[1],
        "max_grad_norm": CLIP,
        "optim": "adamw_torch_fused",
        "gradient_checkpointing": False,
        "dataloader_pin_memory": False,
        "save_strategy": "no",
        "logging_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }


def trl_trainer(
    model: Any,
    tokenizer: Any,
    pairs: Sequence[Pair],
    steps: int,
    batch_size: int,
    beta: float,
    *,
    precompute: bool = False,
    layers: Sequence[int] | None = None,
    copied: bool = True,
    device: str = "cpu",
    callbacks: Sequence[Any] = (),
    losses: list[float] | None = None,
) -> Any:
    """Returns a DPOTrainer without gradient checkpointing, on its own copy of `model` unless told so.

    It computes in the model's own precision: float32, or bfloat16 with float32 adapters. The adapter is made by the
    trainer, as its documentation advises: reference log-probs then come from the base with adapters switched off. Pairs
    are taken in the given order.
    """
    from datasets import Dataset
    from transformers.trainer_callback import PrinterCallback
    from trl import DPOConfig, DPOTrainer

    class Recording(DPOTrainer):
        def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
            loss: Tensor = super().training_step(*args, **kwargs)
            if losses is not None:
                losses.append(float(loss))
            return loss

    config = DPOConfig(
        per_device_train_batch_size=batch_size,
        beta=beta,
        max_length=None,
        precompute_ref_log_probs=precompute,
        bf16=model.dtype == torch.bfloat16,
        use_cpu=device == "cpu",
        train_sampling_strategy="sequential",
        **trl_settings(steps),
    )
    rows = [
        {"prompt": text(p.prompt), "chosen": " " + text(p.chosen), "rejected": " " + text(p.rejected)} for p in pairs
    ]
    trainer = Recording(
        model=copy.deepcopy(model) if copied else model,
        args=config,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=lora(layers),
        callbacks=list(callbacks),
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def trl_steps(
    model: Any,
    tokenizer: Any,
    pairs: Sequence[Pair],
    steps: int,
    beta: float,
    start: Path,
    losses: list[float],
    **options: Any,
) -> Callable[[Callable[[], None]], None]:
    """Returns a work that trains on the same batch of all `pairs` and pauses after each step; appends the losses."""
    from transformers import TrainerCallback

    def work(pause: Callable[[], None]) -> None:
        class Pausing(TrainerCallback):
            def on_step_end(self, *args: Any, **kwargs: Any) -> None:
                pause()

        trainer = trl_trainer(
            model, tokenizer, [*pairs] * steps, steps, len(pairs), beta, callbacks=[Pausing()], losses=losses, **options
        )
        load_start(trainer.model, start)
        trainer.train()

    return work


def load_start(model: Any, folder: Path) -> None:
    """Puts the adapter of a PEFT folder into the fresh adapter of a PEFT model.

    Raises:
        ValueError: the folder adapts other projections.
    """
    from peft import load_peft_weights, set_peft_model_state_dict

    result = set_peft_model_state_dict(model, load_peft_weights(str(folder), device="cpu"))
    wrong = [*result.unexpected_keys, *(key for key in result.missing_keys if "lora_" in key)]
    if wrong:
        raise ValueError(f"{folder} does not fit the PEFT model: {wrong[:3]}")


def trl_sweep(
    model: Any,
    tokenizer: Any,
    pairs: Sequence[Pair],
    betas: Sequence[float],
    steps: int,
    batch_size: int,
    prompts: Sequence[str],
    tokens: int,
) -> list[list[str]]:
    """Returns the greedy responses of all policies, trained and asked one after another, adapters merged."""
    responses = []
    for beta in betas:
        trainer = trl_trainer(model, tokenizer, pairs, steps, batch_size, beta)
        trainer.train()
        responses.append(greedy(trainer.model.merge_and_unload(), tokenizer, prompts, tokens)[1])
    return responses


def lean_steps(
    model: Any,
    pairs: Sequence[Pair],
    steps: int,
    beta: float,
    start: Path,
    losses: list[float],
    device: str = "cpu",
) -> Callable[[Callable[[], None]], None]:
    """Returns a work as `trl_steps`, by the loop a careful user writes.

    Both responses of all pairs in one padded batch, reference log-probs computed once, the head applied to completion
    tokens only, a fused AdamW.
    """

    def work(pause: Callable[[], None]) -> None:
        from peft import get_peft_model

        adapted = get_peft_model(copy.deepcopy(model).to(device), lora()).train()
        load_start(adapted, start)
        parameters = [p for p in adapted.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, betas=BETAS, weight_decay=0.0, fused=True)
        ids, attention, completion = (x.to(device) for x in _padded(pairs))
        with torch.no_grad(), adapted.disable_adapter():
            reference = log_probs(adapted.get_base_model(), ids, attention, completion)
        for _ in range(steps):
            ratios = log_probs(adapted.get_base_model(), ids, attention, completion) - reference
            chosen, rejected = ratios.chunk(2)
            loss = -F.logsigmoid(beta * (chosen - rejected)).mean()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, CLIP)
            optimizer.step()
            optimizer.zero_grad()
            losses.append(float(loss.detach()))
            pause()

    return work


def merged_models(model: Any, deltas: Sequence[dict[str, Tensor]]) -> list[Any]:
    """Returns one copy of `model` per policy, with the policy's update added to its weights."""
    result = []
    for update in deltas:
        merged = copy.deepcopy(model)
        modules = dict(merged.named_modules())
        with torch.no_grad():
            for name, delta in update.items():
                modules[name].weight += delta
        result.append(merged)
    return result


def greedy(model: Any, tokenizer: Any, prompts: Sequence[str], tokens: int) -> tuple[list[list[int]], list[str]]:
    """Returns token ids (stop token included, padding not) and texts of `generate()`'s most likely responses."""
    batch = tokenizer(list(prompts), return_tensors="pt", padding=True, padding_side="left")
    batch.pop("token_type_ids", None)
    batch = batch.to(model.device)
    model.eval()
    with torch.no_grad():
        rows = model.generate(**batch, max_new_tokens=tokens, do_sample=False, pad_token_id=PAD)
    new = rows[:, batch["input_ids"].shape[1] :]
    return [[i for i in row if i != PAD] for row in new.tolist()], tokenizer.batch_decode(new, skip_special_tokens=True)


def _padded(pairs: Sequence[Pair]) -> tuple[Tensor, Tensor, Tensor]:
    """Returns ids, attention mask and completion mask [2 * pairs, tokens], chosen responses first."""
    rows = [(p.prompt, p.chosen) for p in pairs] + [(p.prompt, p.rejected) for p in pairs]
    longest = max(len(prompt) + len(response) for prompt, response in rows)
    ids = torch.full((len(rows), longest), PAD)
    completion = torch.zeros(len(rows), longest, dtype=torch.bool)
    attention = torch.zeros(len(rows), longest, dtype=torch.long)
    for row, (prompt, response) in enumerate(rows):
        end = len(prompt) + len(response)
        ids[row, :end] = torch.tensor([*prompt, *response])
        completion[row, len(prompt) : end] = True
        attention[row, :end] = 1
    return ids, attention, completion


def log_probs(model: Any, ids: Tensor, attention: Tensor, completion: Tensor) -> Tensor:
    """Returns summed log-probs [rows] of the completion tokens."""
    states = model.model(input_ids=ids, attention_mask=attention, use_cache=False).last_hidden_state[:, :-1]
    scored, targets = completion[:, 1:], ids[:, 1:]
    logits = model.lm_head(states[scored]).float()
    log_probs = -F.cross_entropy(logits, targets[scored], reduction="none")
    return torch.zeros(scored.shape, device=ids.device).masked_scatter(scored, log_probs).sum(1)
