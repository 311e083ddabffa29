"""Rewarded soups: experts at the vertices, exact interpolation between them, warnings where nothing was measured."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path

import numpy as np
import pytest

import moalign as ma
from moalign.errors import MixWarning
from moalign.methods import Soups
from moalign.policy.engine import Engine
from moalign.results import load_front
from moalign.store import Store
from tests.tiny import save_model, tiny_study


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model"))


def test_a_one_hot_weight_is_the_expert_itself(model: Path) -> None:
    study = tiny_study(model)
    engine = Engine(study.problem.policy, seed=3, device="cpu")
    soup = Soups(experts=study.method).fit(study.problem, study.weights, engine)
    experts = study.method.fit(study.problem, np.eye(2), engine)
    for i in range(2):
        served = soup.for_weights(np.eye(2)[i])
        assert served.how == "trained" and served.policy == i
        assert served.adapter.matrix[0].equal(experts.stack.matrix[i])
    middle = soup.for_weights([0.25, 0.75])
    assert middle.how == "interpolated" and middle.shares == ((0, 0.25), (1, 0.75)) and middle.policy is None
    for name, delta in middle.adapter.deltas(0).items():
        wanted = 0.25 * experts.stack.deltas(0)[name] + 0.75 * experts.stack.deltas(1)[name]
        assert (delta - wanted).abs().max() < 1e-6


def test_keeping_nothing_is_the_reference_policy(model: Path) -> None:
    study = tiny_study(model)
    engine = Engine(study.problem.policy)
    soup = Soups(experts=study.method, keep=(0.0,)).fit(study.problem, study.weights, engine)
    responses = engine.encode(["a ", "b "], ["cd", "e"])
    served = soup.for_weights([0.5, 0.5])
    assert served.how == "interpolated"
    assert np.abs(engine.log_probs(responses, served.adapter)[0] - engine.reference_log_probs(responses)).max() < 1e-6


def test_a_study_of_soups_measures_its_mixtures_and_warns_of_others(model: Path, tmp_path: Path) -> None:
    """The study's own weights are evaluated mixtures; others are served with a warning and a card that says so."""
    study = tiny_study(model, method=Soups(experts=tiny_study(model).method))
    front = ma.run(study, store=tmp_path / "runs")
    assert [p.weights.tolist() for p in front] == [[1, 0], [0.5, 0.5], [0, 1]]
    assert front.for_weights({"vowels": 0.5, "short": 0.5}) is front[1]
    with pytest.warns(MixWarning, match=r"weights \(0\.3, 0\.7\): interpolated, not measured"):
        served = front.for_weights([0.3, 0.7])
    card = (served.export(tmp_path / "out") / "README.md").read_text()
    assert "0.3 × expert 0 + 0.7 × expert 1" in card and "not evaluated" in card
    assert served.generate("a ", max_new_tokens=6, temperature=0) != []
    trial = (front[1].export(tmp_path / "trial") / "README.md").read_text()
    assert "0.5 × expert 0 + 0.5 × expert 1" in trial
    again = ma.run(study, store=tmp_path / "runs")
    assert np.array_equal(front.F, again.F)


def test_a_mixture_is_measured_on_request(model: Path, tmp_path: Path) -> None:
    """As the study itself would have measured it, if its weights had been there; a front from the store cannot."""
    base = tiny_study(model, method=Soups(experts=tiny_study(model).method))
    between = np.array([0.3, 0.7])
    front = ma.run(base, store=tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error", MixWarning)
        served = front.for_weights(between, evaluate=True)
    whole = dataclasses.replace(base, name="whole", weights=np.vstack([base.weights, between]))
    there = ma.run(whole, store=tmp_path)[3]
    assert served.weights.tolist() == between.tolist() and served.columns == pytest.approx(there.columns)
    assert np.allclose(served.values, there.values) and np.allclose(served.standard_errors, there.standard_errors)
    assert (served.kl, served.kl_standard_error) == pytest.approx((there.kl, there.kl_standard_error), abs=1e-5)
    assert "interpolated, values (" in repr(served) and "KL" in repr(served)
    assert front.for_weights([0.5, 0.5], evaluate=True) is front[1]  # measured before
    stored = load_front(Store(tmp_path).study(base.name))
    with pytest.raises(ma.DefinitionError, match="Run the study again"):
        stored.for_weights(between, evaluate=True)
    with pytest.warns(MixWarning), pytest.raises(ma.DefinitionError, match="evaluate=True"):
        stored.for_weights(between).values  # noqa: B018


def test_refusals() -> None:
    with pytest.raises(ma.DefinitionError, match=r"shares in \[0, 1\]"):
        Soups(keep=(0.5, 1.5))
