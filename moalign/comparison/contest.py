"""Methods trained on one problem with their costs counted, and handed to a judge: the frame of every comparison."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar, final

from moalign.arrays import FloatArray
from moalign.methods.base import Method, PolicySet
from moalign.policy.engine import Engine
from moalign.policy.train import StepRecord
from moalign.problem import Problem
from moalign.store import describe, fingerprint
from moalign.store.workspace import FolderWorkspace

Result = TypeVar("Result", covariant=True)


@final
@dataclass
class Costs:
    """What a training has cost so far, in this process and in interrupted ones before it.

    Attributes:
        trained: response tokens that optimiser steps saw, all policies together.
        sampled: response tokens that on-policy trainings drew.
        drawn: response tokens that were sampled otherwise.
        seconds: CPU time.
        steps: done of each training by name; steps that are repeated count no tokens again.
        file: where the counts are kept.
    """

    trained: int = 0
    sampled: int = 0
    drawn: int = 0
    seconds: float = 0.0
    steps: dict[str, int] = field(default_factory=dict)
    file: Path | None = None

    def __post_init__(self) -> None:
        self._drawn, self._seconds = self.drawn, self.seconds - time.process_time()

    @staticmethod
    def read(folder: Path | None) -> Costs:
        """Returns the counts that were kept in a folder; new ones without them."""
        if folder is None:
            return Costs()
        file = folder / "costs.json"
        return Costs(**json.loads(file.read_text()) if file.is_file() else {}, file=file)

    @property
    def generated(self) -> int:
        """Returns all response tokens that were sampled."""
        return self.sampled + self.drawn

    def count(self, training: str, record: StepRecord) -> None:
        """Adds one optimiser step."""
        if record.step > self.steps.get(training, 0):
            self.steps[training] = record.step
            self.trained += record.trained
            self.sampled += record.generated

    def save(self, engine: Engine) -> None:
        """Adds what the engine has drawn and the time that has passed, and keeps all counts."""
        self.drawn, self.seconds = self._drawn + engine.generated, self._seconds + time.process_time()
        if self.file is not None:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            values = {n: getattr(self, n) for n in ("trained", "sampled", "drawn", "seconds", "steps")}
            self.file.write_text(json.dumps(values))


class Judge(Protocol[Result]):
    """How the policies of a method are judged: exactly on the embedded problem, by samples on a real model."""

    def __call__(self, method: str, seed: int, policies: PolicySet, engine: Engine, costs: Costs) -> Result: ...


def contest(
    methods: Mapping[str, tuple[Method, FloatArray]],
    problem: Problem,
    seed: int,
    judge: Judge[Result],
    *,
    store: Path | None = None,
    on_method: Callable[[str, int], None] = lambda name, seed: None,
    on_step: Callable[[str, StepRecord, int], None] = lambda name, record, steps: None,
) -> list[Result]:
    """Returns the judge's result for each method.

    Args:
        methods: by name, with the weights that each is trained for.
        problem: for all of them.
        seed: of the training.
        judge: of the trained policies.
        store: folder in which trainings are kept and continued, costs included; None keeps nothing. Each method has a
            workspace of its own there, so that none finds the samples of another and has them for nothing.
        on_method, on_step: progress.
    """
    found = []
    for name, (method, weights) in methods.items():
        on_method(name, seed)
        kept = None if store is None else store / f"{name}-{seed}-{_digest(method, problem, weights)}"
        policies, engine, costs = _fit(method, problem, weights, seed, kept, partial(on_step, name))
        found.append(judge(name, seed, policies, engine, costs))
    return found


def _fit(
    method: Method,
    problem: Problem,
    weights: FloatArray,
    seed: int,
    folder: Path | None,
    on_step: Callable[[StepRecord, int], None],
) -> tuple[PolicySet, Engine, Costs]:
    costs = Costs.read(folder)

    def counted(training: str, record: StepRecord, steps: int) -> None:
        costs.count(training, record)
        costs.save(engine)
        on_step(record, steps)

    workspace = None if folder is None else FolderWorkspace(folder)
    engine = Engine(problem.policy, workspace=workspace, seed=seed, device="cpu", on_step=counted)
    policies = method.fit(problem, weights, engine)
    costs.save(engine)
    return policies, engine, costs


def _digest(method: Method, problem: Problem, weights: FloatArray) -> str:
    return fingerprint(describe({"method": method, "problem": problem, "weights": weights}))[:12]
