"""A whole study small enough for tests: a random model, two rewards that count characters, sampled pairs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import moalign as ma
from moalign.methods import MODPO
from tests.models import tiny_model, tiny_tokenizer

PROMPTS = ["hello: ", "what is it? ", "a ", "say it again. ", "why? ", "go on, "]
HELD_OUT = ["and then ", "is it? ", "oh "]


def vowels(prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
    """Returns how many vowels each response has."""
    return [float(sum(c in "aeiou" for c in r)) for r in responses]


def shortness(prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
    """Returns minus the number of characters."""
    return [-float(len(r)) for r in responses]


def save_model(folder: Path, family: str = "llama") -> Path:
    """Writes a tiny random model with its tokenizer; returns the folder."""
    tiny_model(family).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def tiny_study(model: Path, **changes: Any) -> ma.Study:
    """Returns a study over three weights that trains in a second or two."""
    steps = changes.pop("steps", 6)
    rewards = changes.pop("rewards", (vowels, shortness))
    problem = ma.Problem(
        policy=ma.Policy(str(model)),
        objectives=(ma.Objective("vowels", reward=rewards[0]), ma.Objective("short", reward=rewards[1])),
        prompts=PROMPTS,
    )
    given = {
        "name": "tiny",
        "problem": problem,
        "method": MODPO(
            beta=0.5,
            sampled=ma.SampledPairs(sampling=ma.Sampling(samples=4, max_new_tokens=8)),
            training=ma.Training(steps=steps, batch_size=4, learning_rate=5e-3, lora=ma.LoRA(rank=2, alpha=4.0)),
        ),
        "weights": ma.grid(2, steps=2),
        "evaluation": ma.Evaluation(prompts=HELD_OUT, samples=4, max_new_tokens=8),
        "seed": 5,
    }
    return ma.Study(**{**given, **changes})
