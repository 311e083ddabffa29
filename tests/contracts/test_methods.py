"""What every method promises; a new method is tested by standing in `moalign.methods.__all__`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import moalign as ma
from moalign import methods
from moalign.policy.engine import Engine
from moalign.store import Store, describe, fingerprint
from tests.tiny import save_model, tiny_study

METHODS = [m for m in map(methods.__dict__.get, methods.__all__) if hasattr(m, "fit") and m is not methods.Method]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model"))


def build(method: Any, model: Path) -> ma.Study:
    """A tiny study with this method: its training settings shortened, everything else by default."""
    study = tiny_study(model)
    known = {f.name for f in dataclasses.fields(method)}
    short = {n: getattr(study.method, n) for n in ("training", "sampled") if n in known}
    return dataclasses.replace(study, method=method(**short))


@pytest.mark.parametrize("method", METHODS)
class TestMethod:
    def test_is_a_frozen_dataclass_with_a_fingerprint(self, method: Any) -> None:
        assert dataclasses.is_dataclass(method) and method.__dataclass_params__.frozen
        assert all(f.kw_only for f in dataclasses.fields(method))
        assert fingerprint(describe(method())) == fingerprint(describe(method()))

    def test_states_its_source(self, method: Any) -> None:
        assert "arXiv" in (method.__doc__ or "")

    def test_gives_one_policy_per_weight_and_serves_each_by_its_own(self, method: Any, model: Path) -> None:
        study = build(method, model)
        policies = study.method.fit(study.problem, study.weights, Engine(study.problem.policy))
        assert len(policies) == len(study.weights)
        for i, weights in enumerate(study.weights):
            selection = policies.for_weights(weights)
            assert (selection.policy, selection.how) == (i, "trained")
        assert policies.for_weights(study.weights[0] * 0.9 + study.weights[1] * 0.1).how != "trained"

    def test_remembers_its_work(self, method: Any, model: Path, tmp_path: Path) -> None:
        study = build(method, model)
        records = Store(tmp_path).create("x", study.describe(), info={})
        stacks = []
        for _ in range(2):
            steps: list[int] = []
            with records.drive():
                engine = Engine(
                    study.problem.policy, workspace=records, on_step=lambda n, r, s, steps=steps: steps.append(r.step)
                )
                stacks.append(study.method.fit(study.problem, study.weights, engine).stack.matrix)
        assert steps == [] and np.array_equal(stacks[0].numpy(), stacks[1].numpy())
