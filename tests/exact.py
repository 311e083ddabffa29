"""Studies without training: the exact KL-regularised optimum over known replies, sampled, scored and stored for real.

p_w(reply | prompt) is proportional to exp(w . rewards / beta), with uniform replies as the reference policy.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import moalign as ma
from moalign.front import clustered_mean
from moalign.store import Store, StudyStore
from moalign.store.records import measurement_row
from moalign.store.trials import finish

NAMES = ("vowels", "short", "unusual")
WORDS = (
    "yes", "no", "indeed", "a quiet area", "rhythm", "queue", "oh", "xylophone", "we see", "maybe so", "bzz", "audio",
    "the end", "why not", "igloo", "sphinx",
)  # fmt: skip
PROMPTS = ("Say something: ", "And then? ", "Tell me more: ", "Why? ", "Where to? ", "Go on: ")
BETA, SAMPLES = 0.3, 4


def rewards_of(replies: Sequence[str]) -> np.ndarray:
    """Returns [replies, objectives], each standardised over the replies: vowels, shortness, unusual letters."""
    raw = np.array(
        [[sum(c in "aeiou" for c in r), -len(r), sum(c in "xqzjk" for c in r)] for r in replies], dtype=float
    )
    return (raw - raw.mean(axis=0)) / raw.std(axis=0)


def policies(weights: np.ndarray, objectives: int, beta: float = BETA) -> np.ndarray:
    """Returns the optimal probabilities [policies, prompts, replies]; each prompt likes some replies a little more."""
    taste = np.random.default_rng(1).normal(0, 0.3, (len(PROMPTS), len(WORDS)))
    score = (weights @ rewards_of(WORDS)[:, :objectives].T)[:, None, :] / beta + taste
    odds = np.exp(score - score.max(axis=-1, keepdims=True))
    return odds / odds.sum(axis=-1, keepdims=True)


def measured(p: np.ndarray, objectives: int, seed: int, replies: Sequence[str] = WORDS) -> tuple[dict, list[dict]]:
    """Returns what samples of one policy [prompts, replies] show, and its generations."""
    rng = np.random.default_rng(seed)
    q = policies(np.zeros((1, objectives)), objectives)[0]
    drawn = np.array([rng.choice(len(replies), SAMPLES, p=row) for row in p])  # [prompts, samples]
    rewards = rewards_of(WORDS)[:, :objectives][drawn]  # [prompts, samples, objectives]
    ratio = np.log(np.take_along_axis(p, drawn, 1) / np.take_along_axis(q, drawn, 1))
    values, errors = clustered_mean(rewards)
    kl, kl_error = clustered_mean(ratio[..., None])
    rows = [
        {
            "prompt_index": i, "sample": s, "prompt": PROMPTS[i], "response": replies[drawn[i, s]],
            "rewards": dict(zip(NAMES, map(float, rewards[i, s]), strict=False)), "kl": float(ratio[i, s]),
            "tokens": len(replies[drawn[i, s]].split()), "finished": True,
        }
        for i in range(len(PROMPTS))
        for s in range(SAMPLES)
    ]  # fmt: skip
    facts = {
        "values": values, "standard_errors": errors, "kl": float(kl[0]), "kl_standard_error": float(kl_error[0]),
        "columns": {"mean_tokens": float(np.mean([row["tokens"] for row in rows]))},
        "prompt_values": rewards.mean(axis=1), "feasible": True,
    }  # fmt: skip
    return facts, rows


def empty_study(root: Path, name: str, objectives: int = 3, limits: dict[str, float] | None = None) -> StudyStore:
    """Returns a study that is defined, but has no trials."""
    definition = {"name": name, "evaluation": {"limits": limits or {}}, "problem": {"policy": {"weights": "none"}}}
    info = {"objectives": list(NAMES[:objectives]), "method": "exact", "kl_strength": BETA, "base": {"source": None}}
    return Store(root).create(name, definition, info=info)


def exact_study(
    root: Path,
    name: str = "exact",
    *,
    weights: np.ndarray | None = None,
    objectives: int = 3,
    done: int | None = None,
    replies: Sequence[str] = WORDS,
    limits: dict[str, float] | None = None,
    beta: float = BETA,
) -> StudyStore:
    """Returns a stored study of the optimum at each weight; `done` of its trials are finished (None: all)."""
    weights = ma.grid(objectives, steps=3 if objectives == 3 else 6) if weights is None else weights
    records = empty_study(root, name, objectives, limits)
    with records.drive():
        begin(records, weights, objectives)
        for number in range(len(weights) if done is None else done):
            add(records, number, weights[number], objectives, replies, beta)
    return records


def begin(records: StudyStore, weights: np.ndarray, objectives: int) -> None:
    """Adds trials and the reference policy; inside `drive`."""
    records.add_trials(weights, NAMES[:objectives])
    facts, _ = measured(policies(np.zeros((1, objectives)), objectives)[0], objectives, seed=99)
    records.set_reference(**facts)
    corner = rewards_of(WORDS)[:, :objectives].min(axis=0) * 0.6
    records.add_event("reference_point", {"values": corner.tolist()})


def add(
    records: StudyStore, number: int, weights: np.ndarray, objectives: int, replies: Any = WORDS, beta: float = BETA
) -> None:
    """Finishes one trial with its folder; inside `drive`."""
    records.set_state(number, "training")
    facts, rows = measured(policies(weights[None], objectives, beta)[0], objectives, seed=number, replies=replies)
    with records.publish(records.trial_folder(number)) as folder:
        (folder / "generations.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        loss = [float(np.exp(-step / 20) + 0.1 * np.sin(step)) for step in range(1, 61)]
        lines = [json.dumps({"step": step, "loss": value}) + "\n" for step, value in enumerate(loss, 1)]
        (folder / "metrics.jsonl").write_text("".join(lines))
    records.finish_trial(number, **facts)


def large_study(root: Path, count: int, name: str = "large") -> StudyStore:
    """Returns a study with `count` finished trials at random weights, stored in one transaction, without texts."""
    weights = ma.dirichlet(3, count, seed=0)
    rng = np.random.default_rng(2)
    p = policies(weights, 3, 0.5)
    q = policies(np.zeros((1, 3)), 3)[0]
    table = rewards_of(WORDS)
    draws = (p.cumsum(axis=-1)[..., None, :] < rng.random((count, len(PROMPTS), SAMPLES, 1))).sum(axis=-1)
    draws = np.minimum(draws, len(WORDS) - 1)  # [policies, prompts, samples]
    rewards = table[draws]  # [policies, prompts, samples, objectives]
    means = rewards.mean(axis=2)
    kl = (p * np.log(p / q)).sum(axis=-1).mean(axis=1)
    records = empty_study(root, name, limits={"kl": float(np.quantile(kl, 0.98))})
    now = time.time() - 0.1 * count
    with records.drive():
        begin(records, weights, 3)
        with records._write() as connection:
            for number in range(count):
                row = measurement_row("a trial", NAMES, {
                    "values": means[number].mean(axis=0), "standard_errors": means[number].std(axis=0, ddof=1) / 6**0.5,
                    "kl": float(kl[number]), "kl_standard_error": 0.01, "columns": {"mean_tokens": 2.0},
                    "prompt_values": means[number], "feasible": bool(kl[number] <= np.quantile(kl, 0.98)),
                })  # fmt: skip
                finish(connection, number, row, name)
            connection.execute("UPDATE trials SET started = ? + number * 0.1 WHERE number >= 0", (now,))
            connection.execute("UPDATE trials SET finished = started + 4 WHERE number >= 0")
    return records
