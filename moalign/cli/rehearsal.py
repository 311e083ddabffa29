"""What `moalign check` finds out: every part of a study is used once, small, and nothing is kept.

Times are measured on this machine: three optimiser steps of the full stack on a few pairs, and the evaluation of a few
prompts. They are scaled by counts, so they are estimates; steps on longer texts take longer.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, final

import numpy as np
import torch

from moalign.data import Prompts
from moalign.errors import MoalignError, MoalignWarning
from moalign.evaluation import Evaluation, draw, judge
from moalign.judging import POLICIES_PER_GROUP
from moalign.policy.adapters import AdapterStack
from moalign.policy.engine import Engine
from moalign.policy.generate import Sampling
from moalign.policy.on_policy import Rollouts
from moalign.policy.train import Training
from moalign.problem import Objective, Problem
from moalign.rewards import ImplicitReward, score
from moalign.scoring import Scorer
from moalign.session import refuse_long_texts
from moalign.study import Study

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

STEPS = 3  # of the rehearsed training; the first one also warms caches up
FEW_PROMPTS = 4


@final
@dataclass
class Findings:
    """What a check found: `facts` by name, and every reason why a run would fail."""

    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    @contextmanager
    def gathering(self) -> Iterator[None]:
        """Within the context an error becomes a problem, and the check goes on behind it."""
        try:
            yield
        except MoalignError as error:
            self.problems += getattr(error, "problems", None) or [str(error)]


def rehearse(study: Study, device: str | None, say: Callable[[str, dict[str, Any]], None]) -> Findings:
    """Returns what was found; `say` is called with each fact as soon as it is known.

    Args:
        study: the study.
        device: torch device.
        say: (name, fact).
    """
    findings = Findings()

    def found(name: str, **fact: Any) -> None:
        findings.facts[name] = fact
        say(name, fact)

    with findings.gathering():
        engine = Engine(study.problem.policy, seed=study.seed, device=device)
        found("policy", **_policy(engine))
        with findings.gathering():
            refuse_long_texts(study, engine)
        found("prompts", **_prompts(study, engine, findings))
        with findings.gathering():
            found("pairs", **_pairs(study, engine, findings))
        if not findings.problems:
            found("rewards", **_rewards(study, engine, findings))
        with findings.gathering():
            found("adapters", **_adapters(study, engine))
        if not findings.problems:
            with findings.gathering():
                found("time", **_times(study, engine))
    return findings


def _policy(engine: Engine) -> dict[str, Any]:
    model = engine.language_model.model
    return {
        "model": type(model).__name__,
        "parameters": sum(p.numel() for p in model.parameters()),
        "megabytes": sum(p.numel() * p.element_size() for p in model.parameters()) / 1e6,
        "context": engine.language_model.max_length,
        "device": str(engine.language_model.device),
    }


def _prompts(study: Study, engine: Engine, findings: Findings) -> dict[str, Any]:
    held_out, training = study.evaluation.prompts, study.problem.prompts
    fact: dict[str, Any] = {"held_out": len(held_out), "held_out_tokens": _lengths(map(engine.encode_prompt, held_out))}
    if training is not None:
        fact |= {"training": len(training), "training_tokens": _lengths(map(engine.encode_prompt, training))}
        shared = len(set(training) & set(held_out))
        if shared:
            findings.remarks.append(
                f"{shared} of {len(held_out)} held-out prompts are training prompts, too. Judge policies on others."
            )
    return fact


def _pairs(study: Study, engine: Engine, findings: Findings) -> dict[str, Any]:
    """Counts pairs per objective, and finds texts that do not fit the model."""
    fact = {}
    for objective in study.problem.objectives:
        if objective.pairs is None:
            continue
        pairs = objective.pairs
        fact[objective.name] = len(pairs)
        with findings.gathering():
            engine.encode([*pairs.prompts, *pairs.prompts], [*pairs.chosen, *pairs.rejected])
    return fact


def _rewards(study: Study, engine: Engine, findings: Findings) -> dict[str, Any]:
    """Scores two responses of the reference policy on every objective that has a reward before training."""
    prompt = study.evaluation.prompts[0]
    sampling = Sampling(samples=2, max_new_tokens=study.evaluation.max_new_tokens)
    [drawn] = engine.generate([prompt], sampling, seed=study.seed)
    texts = [g.text for g in drawn]
    fact: dict[str, Any] = {}
    for objective in study.problem.objectives:
        if isinstance(objective.reward, ImplicitReward):
            fact[objective.name] = "learned from its pairs"
            continue
        with findings.gathering():
            fact[objective.name] = score(objective.reward, [prompt] * 2, texts, name=objective.name).tolist()
    return fact


def _adapters(study: Study, engine: Engine) -> dict[str, Any]:
    training = _training(study)
    if training is None:
        return {"policies": study.policies}
    one = AdapterStack.initial(engine.language_model.model, training.lora, 1, study.seed)
    parameters, size = one.matrix.shape[1], one.matrix.element_size()
    return {
        "policies": study.policies,
        "rank": training.lora.rank,
        "parameters_each": parameters,
        # parameters, gradient and the two moments of AdamW
        "training_megabytes": 4 * parameters * size * len(study.stack_weights) / 1e6,
    }


def _times(study: Study, engine: Engine) -> dict[str, Any]:
    """Trains three steps, judges a few prompts, and scales the seconds up."""
    training = _training(study)
    if training is None:
        return {}
    stamps: dict[str, list[float]] = {}
    engine.on_step = lambda name, record, steps: stamps.setdefault(name, []).append(time.perf_counter())
    problem, evaluation = _small_problem(study, training), _small_evaluation(study.evaluation)
    method: Any = replace(study.method, training=replace(training, steps=STEPS))  # type: ignore[type-var]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MoalignWarning)  # a run says them when they matter
        policies = method.fit(problem, study.stack_weights, engine)
        per_policy = _evaluation_seconds(problem, evaluation, engine, policies.stack)
    per_step = {name: float(np.diff(seconds).min()) for name, seconds in stamps.items() if len(seconds) > 1}
    stacks = -(-study.policies // len(study.stack_weights))  # rounds of a search
    judged = study.policies + 1  # with the reference policy
    return {
        "seconds_per_step": max(per_step.values()),
        "training_seconds": stacks * sum(s * _steps(study, name, training) for name, s in per_step.items()),
        "evaluation_seconds": per_policy * judged * len(study.evaluation.prompts) / len(evaluation.prompts),
        "evaluation_responses": judged * len(study.evaluation.prompts) * study.evaluation.samples,
        "peak_megabytes": _peak_megabytes(engine),
    }


def _evaluation_seconds(problem: Problem, evaluation: Evaluation, engine: Engine, stack: AdapterStack) -> float:
    """Returns the seconds that drawing and judging take per policy."""
    group = stack.select(range(min(len(stack), POLICIES_PER_GROUP)))
    scorer = Scorer(problem, engine)
    started = time.perf_counter()
    drawn = draw(evaluation, engine, group)
    drawing = (time.perf_counter() - started) / len(group)
    started = time.perf_counter()
    judge(evaluation, engine, scorer, drawn[0], group.select([0]))
    return drawing + time.perf_counter() - started


def _small_problem(study: Study, training: Training) -> Problem:
    """Returns the problem with just enough pairs and prompts for whole batches."""
    problem = study.problem
    draws_prompts = training.by_prompt or isinstance(getattr(study.method, "rollouts", None), Rollouts)
    few = max(FEW_PROMPTS, training.batch_size if draws_prompts else training.batch_size // 16)
    prompts = None if problem.prompts is None else _few(problem.prompts, few)
    return replace(
        problem, objectives=tuple(_small_objective(o, training) for o in problem.objectives), prompts=prompts
    )


def _small_objective(objective: Objective, training: Training) -> Objective:
    reward, pairs = objective.reward, objective.pairs
    if isinstance(reward, ImplicitReward):
        reward = replace(reward, steps=STEPS)
    if pairs is not None and training.by_prompt:
        chosen = set(list(dict.fromkeys(pairs.prompts))[: training.batch_size])
        pairs = pairs.select([i for i, prompt in enumerate(pairs.prompts) if prompt in chosen])
    elif pairs is not None:
        pairs = pairs.select(range(len(pairs))[:: max(1, len(pairs) // (2 * training.batch_size))])
    return replace(objective, reward=reward, pairs=pairs)


def _small_evaluation(evaluation: Evaluation) -> Evaluation:
    return replace(evaluation, prompts=_few(evaluation.prompts, FEW_PROMPTS))


def _few(prompts: Prompts, most: int) -> Prompts:
    step = max(1, len(prompts) // most)
    few: Prompts = prompts[: step * most : step]
    return few


def _training(study: Study) -> Training | None:
    """Returns how the method trains; a method need not say."""
    training = getattr(study.method, "training", None)
    return training if isinstance(training, Training) else None


def _steps(study: Study, name: str, training: Training) -> int:
    for objective in study.problem.objectives:
        if name == f"implicit-{objective.name}" and isinstance(objective.reward, ImplicitReward):
            return objective.reward.steps
    return training.steps


def _lengths(rows: Iterable[Sequence[int]]) -> dict[str, float]:
    lengths = [len(row) for row in rows]
    return {"mean": float(np.mean(lengths)), "longest": max(lengths)}


def _peak_megabytes(engine: Engine) -> float | None:
    """Returns the largest memory used so far, of the accelerator or of this process; None where nothing counts it."""
    device = engine.language_model.device
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    if resource is None:
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
