"""Methods in one contest: what they cost is counted, what was trained is not trained again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import moalign as ma
from moalign.comparison.contest import Costs, contest
from moalign.methods import MODPO, MORLHF, PolicySet
from moalign.policy.engine import Engine
from moalign.policy.on_policy import Rollouts
from tests.tiny import PROMPTS, save_model, shortness, vowels

WEIGHTS = ma.grid(2, steps=2)
TRAINING = ma.Training(steps=3, batch_size=2, lora=ma.LoRA(rank=2, alpha=4.0))
LENGTH = 4
SAMPLING = ma.Sampling(samples=4, max_new_tokens=LENGTH)
METHODS = {
    "offline": (MODPO(beta=0.5, sampled=ma.SampledPairs(sampling=SAMPLING), training=TRAINING), WEIGHTS),
    "online": (MORLHF(beta=0.5, rollouts=Rollouts(sampling=SAMPLING, reuse=2), training=TRAINING), WEIGHTS),
}


@pytest.fixture(scope="module")
def problem(tmp_path_factory: pytest.TempPathFactory) -> ma.Problem:
    model = save_model(tmp_path_factory.mktemp("model"))
    objectives = (ma.Objective("vowels", reward=vowels), ma.Objective("short", reward=shortness))
    return ma.Problem(policy=ma.Policy(model), objectives=objectives, prompts=PROMPTS)


def seen(method: str, seed: int, policies: PolicySet, engine: Engine, costs: Costs) -> dict[str, Any]:
    return {
        "method": method, "seed": seed, "matrix": policies.stack.matrix.numpy().copy(), "trained": costs.trained,
        "sampled": costs.sampled, "drawn": costs.drawn, "seconds": costs.seconds,
    }  # fmt: skip


def test_tokens_and_seconds_are_counted(problem: ma.Problem) -> None:
    """Online: 3 steps x 3 policies x 2 prompts x 4 samples of at most 4 tokens, each trained on twice.

    Offline: 6 prompts x 4 samples drawn, and at most 3 steps x 3 policies x 2 pairs x 2 sides trained on.
    """
    offline, online = contest(METHODS, problem, 0, seen)
    assert (offline["method"], offline["seed"]) == ("offline", 0)
    assert 0 < online["sampled"] <= 72 * LENGTH and online["trained"] == 2 * online["sampled"] and not online["drawn"]
    assert 0 < offline["drawn"] <= 24 * LENGTH and not offline["sampled"] and 0 < offline["trained"] <= 36 * LENGTH
    assert offline["seconds"] > 0 and online["seconds"] > 0


def test_what_was_trained_is_loaded_with_its_costs(problem: ma.Problem, tmp_path: Path) -> None:
    steps: list[str] = []
    first = contest(METHODS, problem, 0, seen, store=tmp_path, on_step=lambda name, record, total: steps.append(name))
    assert steps == ["offline"] * 3 + ["online"] * 3
    again = contest(METHODS, problem, 0, seen, store=tmp_path, on_step=lambda name, record, total: steps.append(name))
    assert len(steps) == 6
    for one, other in zip(first, again, strict=True):
        assert np.array_equal(one["matrix"], other["matrix"])
        assert [one[n] for n in ("trained", "sampled", "drawn")] == [other[n] for n in ("trained", "sampled", "drawn")]
        assert one["seconds"] <= other["seconds"]


def test_an_interrupted_training_goes_on_and_costs_what_a_whole_one_does(problem: ma.Problem, tmp_path: Path) -> None:
    """Interrupted after two steps without a checkpoint, they are repeated: tokens count once, seconds twice."""

    class Stopped(Exception):
        pass

    def stop(name: str, record: Any, total: int) -> None:
        if record.step == 2:
            raise Stopped

    online = {"online": METHODS["online"]}
    [whole] = contest(online, problem, 0, seen)
    with pytest.raises(Stopped):
        contest(online, problem, 0, seen, store=tmp_path, on_step=stop)
    [found] = contest(online, problem, 0, seen, store=tmp_path)
    assert np.array_equal(found["matrix"], whole["matrix"])
    assert (found["trained"], found["sampled"]) == (whole["trained"], whole["sampled"])


def test_other_settings_are_another_training(problem: ma.Problem, tmp_path: Path) -> None:
    online, weights = METHODS["online"]
    other = MORLHF(beta=1.0, rollouts=online.rollouts, training=TRAINING)
    [first] = contest({"online": (online, weights)}, problem, 0, seen, store=tmp_path)
    [second] = contest({"online": (other, weights)}, problem, 0, seen, store=tmp_path)
    assert not np.array_equal(first["matrix"], second["matrix"])
    assert second["trained"] == first["trained"]  # none of the first one's tokens are in its count
