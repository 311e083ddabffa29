"""What every method promises; a new method is tested by standing in `moalign.methods.__all__`."""

from __future__ import annotations

import dataclasses
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import moalign as ma
import moalign.errors
from moalign import methods
from moalign.cli.rehearsal import rehearse
from moalign.methods.stored import load_policies, save_policies
from moalign.policy.engine import Engine
from moalign.policy.on_policy import Rollouts
from moalign.results import load_front
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
    if "experts" in known:
        short["experts"] = study.method
    if "initial" in known:
        short["initial"] = study.method
    if "sampling" in known:
        short["sampling"] = ma.Sampling(samples=2, max_new_tokens=6)
    if "rollouts" in known:
        short["rollouts"] = Rollouts(sampling=ma.Sampling(samples=2, max_new_tokens=6))
    return dataclasses.replace(study, method=method(**short))


@pytest.mark.parametrize("method", METHODS)
class TestMethod:
    def test_is_a_frozen_dataclass_with_a_fingerprint(self, method: Any) -> None:
        assert dataclasses.is_dataclass(method) and method.__dataclass_params__.frozen
        assert all(f.kw_only for f in dataclasses.fields(method))
        assert fingerprint(describe(method())) == fingerprint(describe(method()))

    def test_states_its_source(self, method: Any) -> None:
        assert "arXiv" in (method.__doc__ or "")

    def test_serves_every_weight_and_says_how(self, method: Any, model: Path, tmp_path: Path) -> None:
        study = build(method, model)
        policies = study.method.fit(study.problem, study.weights, Engine(study.problem.policy))
        between = study.weights[0] * 0.9 + study.weights[1] * 0.1
        assert policies.for_weights(between).how != "trained"
        save_policies(policies, tmp_path)
        stored = load_policies(tmp_path)
        assert stored.serving == policies.serving and stored.trainings == policies.trainings
        for weights in (*study.weights, between):
            served, again = policies.for_weights(weights), stored.for_weights(weights)
            assert served.how in ("trained", "nearest", "interpolated", "conditioned", "assigned")
            assert len(served.adapter) == 1 and (served.how == "nearest") == (served.distance > 1e-9)
            if served.policy is not None:  # what is trained alone is served as it is
                assert served.adapter.matrix[0].equal(policies.stack.matrix[served.policy])
                name, row = policies.trainings[served.policy]
                assert name and row >= 0
            assert (again.how, again.text, again.shares) == (served.how, served.text, served.shares)
            assert again.adapter.matrix.equal(served.adapter.matrix) and again.adapter.sites == served.adapter.sites

    def test_can_be_checked_before_it_runs(self, method: Any, model: Path) -> None:
        found = rehearse(build(method, model), "cpu", lambda name, fact: None)
        assert found.problems == [] and {"policy", "prompts", "rewards", "adapters"} <= set(found.facts)

    def test_runs_as_a_study_and_serves_from_its_folder(self, method: Any, model: Path, tmp_path: Path) -> None:
        study = build(method, model)
        ma.run(study, store=tmp_path / "runs")
        front = load_front(Store(tmp_path / "runs").study("tiny"))
        assert len(front) == len(study.weights) and np.isfinite(front.F).all() and (front.KL >= 0).all()
        assert front.for_weights(study.weights[1]) is front[1]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ma.errors.MixWarning)
            served = front.for_weights(study.weights[0] * 0.7 + study.weights[1] * 0.3)
        assert len(served.generate("a ", max_new_tokens=4)) == 1
        folder = served.export(tmp_path / "out")
        assert {"adapter_config.json", "adapter_model.safetensors", "README.md", "moalign.json"} <= set(
            os.listdir(folder)
        )

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

    def test_goes_on_where_it_was_stopped(self, method: Any, model: Path, tmp_path: Path) -> None:
        """Stopped after two steps, it is taken up at the third and ends with the bits of an unbroken run (on a CPU)."""
        study = build(method, model)
        settings: dict[str, Any] = {"seed": 5, "device": "cpu"}
        whole = study.method.fit(study.problem, study.weights, Engine(study.problem.policy, **settings))
        records = Store(tmp_path).create("x", study.describe(), info={})
        calls, steps = iter([False, True]), []
        with records.drive():
            engine = Engine(
                study.problem.policy, workspace=records, seed=5, device="cpu", should_stop=lambda: next(calls)
            )
            with pytest.raises(KeyboardInterrupt):
                study.method.fit(study.problem, study.weights, engine)
            engine = Engine(
                study.problem.policy, workspace=records, on_step=lambda n, r, s: steps.append(r.step), **settings
            )
            policies = study.method.fit(study.problem, study.weights, engine)
        assert steps[0] == 3
        assert policies.stack.matrix.equal(whole.stack.matrix) and policies.facts == whole.facts
