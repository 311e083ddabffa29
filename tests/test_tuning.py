"""Tuning: the search space, the tuner on problems with known answers, and tuning a study."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import moalign as ma
from moalign import figures
from moalign.errors import DefinitionError, StoreError, StudyChangedError
from moalign.store import Store
from moalign.tuning import (
    Halving,
    Tuner,
    Tuning,
    choice,
    integers,
    load_trials,
    log_uniform,
    on_simplex,
    save_trials,
    tune,
    uniform,
)
from moalign.tuning.record import facts
from moalign.tuning.settings import seconds
from moalign.tuning.space import Space
from tests.tiny import save_model, tiny_study

# ------------------------------------------------------------------------------------------------------------ the space


def mixed() -> Space:
    return Space(
        {
            "rate": log_uniform(1e-4, 1e-2),
            "clip": uniform(0.0, 2.0),
            "steps": integers(1, 5),
            "kind": choice("cosine", "linear", None),
            "weights": on_simplex(3),
        }
    )


def test_settings_survive_encoding() -> None:
    space = mixed()
    assert space.width == 1 + 1 + 1 + 3 + 3
    settings = {"rate": 1e-3, "clip": 0.5, "steps": 4, "kind": None, "weights": (0.2, 0.3, 0.5)}
    row = space.encode(settings)
    assert row[0] == pytest.approx(0.5)  # the middle of 1e-4 .. 1e-2 on a log scale
    assert row[1] == pytest.approx(0.25) and row[3:6].tolist() == [0, 0, 1]
    back = space.decode(row)
    assert back["rate"] == pytest.approx(1e-3) and back["steps"] == 4 and back["kind"] is None
    assert back["weights"] == pytest.approx((0.2, 0.3, 0.5))


def test_spread_points_cover_ends_options_and_the_simplex_evenly() -> None:
    """Whole numbers 1..5 and three options are drawn equally often; mean weights are 1/3 each."""
    space = mixed()
    drawn = [space.decode(row) for row in space.sobol(512, seed=0)]
    counts = np.bincount([d["steps"] for d in drawn], minlength=6)[1:]
    assert counts.min() > 85 and counts.max() < 120
    kinds = [sum(d["kind"] == kind for d in drawn) for kind in ("cosine", "linear", None)]
    assert min(kinds) > 140
    weights = np.array([d["weights"] for d in drawn])
    assert weights.sum(axis=1) == pytest.approx(1) and weights.mean(axis=0) == pytest.approx(1 / 3, abs=0.03)
    assert np.median([d["rate"] for d in drawn]) == pytest.approx(1e-3, rel=0.1)


def test_neighbours_stand_for_values_within_the_limits() -> None:
    space, rng = mixed(), np.random.default_rng(0)
    near = space.near(space.sobol(64, seed=1), 0.3, rng)
    assert near == pytest.approx(space.snap(near)) and near.min() >= 0 and near.max() <= 1


def test_spaces_that_cannot_be_meant_are_refused_all_at_once() -> None:
    with pytest.raises(DefinitionError) as caught:
        Space({"a": uniform(2, 1), "b": log_uniform(0, 1), "c": integers(1, 2.5), "d": choice(1), "e": 3})  # type: ignore[arg-type,dict-item]
    assert len(caught.value.problems) == 5
    with pytest.raises(DefinitionError, match="empty"):
        Space({})


# ------------------------------------------------------------------------------------------------------------ the tuner


def trade_off(settings: Mapping[str, Any]) -> dict[str, float]:
    """Two objectives: the best of both needs rate 1e-3 and kind "b"; x trades one for the other."""
    penalty = (math.log10(settings["rate"]) + 3) ** 2 + (0.0 if settings["kind"] == "b" else 0.5)
    x = settings["x"]
    return {"one": math.sin(math.pi * x / 2) - penalty, "two": math.cos(math.pi * x / 2) - penalty}


SEARCH = {"rate": log_uniform(1e-5, 1e-1), "x": uniform(0, 1), "kind": choice("a", "b", "c")}


def tuned(sampler: Any, trials: int, seed: int) -> Tuner:
    tuner = Tuner(
        SEARCH, objectives=("one", "two"), reference_point={"one": -0.5, "two": -0.5}, sampler=sampler, seed=seed
    )
    for _ in range(trials):
        trial = tuner.ask()
        tuner.tell(trial.number, trade_off(trial.settings))
    return tuner


@pytest.fixture(scope="module")
def guided() -> Tuner:
    return tuned("guided", 14, seed=0)


def test_guided_trials_find_a_larger_hypervolume(guided: Tuner) -> None:
    """With the same number of trials, and from a start that is the same Sobol sequence."""
    assert guided.volume() > 1.2 * tuned("sobol", 14, seed=0).volume()
    assert guided.volume() > 1.2 * tuned("random", 14, seed=0).volume()
    assert guided.front() and all(t.settings["kind"] == "b" for t in guided.front())
    assert all(abs(math.log10(t.settings["rate"]) + 3) < 0.7 for t in guided.recommended())


def test_importance_tells_what_moved_the_front(guided: Tuner) -> None:
    """The rate costs up to 4, x at most 1, the kind 0.5."""
    for of in ("hypervolume", "one", "two"):
        shares = ma.tuning.importance(guided, of)
        assert set(shares) == set(SEARCH) and sum(s.share for s in shares.values()) == pytest.approx(1)
        assert all(0 <= s.share <= 1 and s.sd > 0 for s in shares.values())
    first, share = next(iter(ma.tuning.importance(guided, "one").items()))
    assert first == "rate" and share.share > 0.6
    with pytest.raises(DefinitionError, match="known are hypervolume, one, two"):
        ma.tuning.importance(guided, "three")


def told_of(function: Any, names: str, trials: int = 40) -> Tuner:
    tuner = Tuner({name: uniform(0, 1) for name in names}, sampler="sobol", initial=8, seed=3)
    for _ in range(trials):
        trial = tuner.ask()
        tuner.tell(trial.number, function(*trial.settings.values()))
    return tuner


def test_importance_is_known_where_variances_can_be_worked_out() -> None:
    """2 x + y: variances 4 : 1, and z does nothing. x y about its middle: nothing alone, all together, half each."""
    shares = ma.tuning.importance(told_of(lambda x, y, z: 2 * x + y, "xyz"))
    assert [shares[n].share for n in "xyz"] == pytest.approx([0.8, 0.2, 0.0], abs=0.04)
    shares = ma.tuning.importance(told_of(lambda x, y: (x - 0.5) * (y - 0.5), "xy"))
    assert [shares[n].share for n in "xy"] == pytest.approx([0.5, 0.5], abs=0.1)
    many = ma.tuning.importance(told_of(lambda *x: x[0] + x[5], "abcdef", 30))  # more orders than are tried
    assert many["a"].share + many["f"].share > 0.9 and sum(s.share for s in many.values()) == pytest.approx(1)


def test_importance_is_surer_with_more_trials() -> None:
    def spread(trials: int) -> float:
        return max(s.sd for s in ma.tuning.importance(told_of(lambda x, y: x + np.sin(6 * y), "xy", trials)).values())

    assert spread(40) < spread(8)


def test_trials_say_who_proposed_them(guided: Tuner, tmp_path: Path) -> None:
    """Eight spread ones, then the acquisition function with the gain it expected; saved and loaded with the rest."""
    said = [(t.proposed_by, t.acquisition is not None) for t in guided.trials]
    assert said == [("sobol", False)] * 8 + [("qLogNEHVI", True)] * 6
    assert {t.proposed_by for t in tuned("random", 3, seed=0).trials} == {"random"}
    one = told_of(lambda x: x, "x", 8)
    one.sampler = "guided"
    assert one.ask().proposed_by == "qLogNEI"
    save_trials(guided, tmp_path / "trials.json")
    again = Tuner(SEARCH, objectives=("one", "two"), reference_point={"one": -0.5, "two": -0.5})
    load_trials(again, tmp_path / "trials.json")
    assert [t.acquisition for t in again.trials] == [t.acquisition for t in guided.trials]
    page = facts(guided, {})
    assert page.trials[-1].proposed_by == "qLogNEHVI" and page.trials[-1].acquisition == guided.trials[-1].acquisition


def test_slices_show_the_optimum(guided: Tuner) -> None:
    found = ma.tuning.slices(guided, "rate")
    best = found["settings"][int(np.argmax(found["mean"]["one"]))]
    assert 1e-4 < best < 1e-2 and len(found["trials"]["settings"]) == 14
    kinds = ma.tuning.slices(guided, "kind")
    assert kinds["settings"] == ["a", "b", "c"] and np.argmax(kinds["mean"]["one"]) == 1


def test_being_told_the_same_asks_the_same(guided: Tuner) -> None:
    def replayed() -> Tuner:
        tuner = Tuner(SEARCH, objectives=("one", "two"), reference_point={"one": -0.5, "two": -0.5}, seed=4)
        for trial in guided.trials[:9]:
            tuner.tell(tuner.adopt(trial.settings).number, trade_off(trial.settings))
        return tuner

    assert replayed().ask().settings == replayed().ask().settings


def test_a_saved_loop_goes_on_with_the_same_trials(tmp_path: Path) -> None:
    def make() -> Tuner:
        return Tuner(SEARCH, objectives=("one", "two"), limits={"kl": 3.0}, initial=6, seed=2)

    tuner = make()
    for i in range(7):
        trial = tuner.ask()
        if i == 2:
            tuner.fail(trial.number, "out of memory")
        elif i < 6:
            tuner.tell(trial.number, trade_off(trial.settings), {"kl": float(i)})
    save_trials(tuner, tmp_path / "trials.json")
    again = make()
    load_trials(again, tmp_path / "trials.json")
    assert [t.state for t in again.trials] == [t.state for t in tuner.trials]
    assert again.ask().settings == tuner.ask().settings
    with pytest.raises(StoreError, match="another search"):
        load_trials(Tuner({"x": uniform(0, 1)}), tmp_path / "trials.json")
    with pytest.raises(DefinitionError, match="without trials"):
        load_trials(again, tmp_path / "trials.json")


def test_pending_trials_are_not_asked_again(guided: Tuner) -> None:
    tuner = tuned("guided", 9, seed=1)
    asked = [tuner.ask().settings for _ in range(2)]
    rows = np.array([tuner.space.encode(s) for s in asked])
    assert np.abs(rows[:, None] - rows[None]).max(axis=2)[np.triu_indices(2, 1)].min() > 1e-3


def test_limits_keep_trials_off_the_front_and_guide_the_search() -> None:
    """Value rises with x, but KL = 10 x must stay below 5: the search ends near x = 0.5, never beyond."""
    tuner = Tuner({"x": uniform(0, 1)}, limits={"kl": 5.0}, initial=6, seed=0)
    for _ in range(12):
        trial = tuner.ask()
        tuner.tell(trial.number, trial.settings["x"], {"kl": 10 * trial.settings["x"]})
    [best] = tuner.front()
    assert 0.44 < best.settings["x"] <= 0.5
    later = [t.settings["x"] for t in tuner.trials[6:]]
    assert np.median(later) < 0.6


def test_failed_trials_are_avoided_and_never_stop_the_search() -> None:
    """Everything above x = 0.6 breaks down, and the value rises with x."""
    tuner = Tuner({"x": uniform(0, 1), "y": uniform(0, 1)}, initial=8, seed=0)
    for _ in range(14):
        trial = tuner.ask()
        if trial.settings["x"] > 0.6:
            tuner.fail(trial.number, "the loss is not finite")
        else:
            tuner.tell(trial.number, trial.settings["x"])
    assert sum(t.state == "failed" for t in tuner.trials[8:]) <= 4
    assert tuner.front()[0].settings["x"] > 0.5


def test_cheap_budgets_inform_the_full_one() -> None:
    """Results at a third of the budget are 0.2 lower; the model of the full budget still finds the top."""
    tuner = Tuner({"x": uniform(0, 1)}, initial=6, seed=0)
    for i in range(8):
        trial = tuner.ask()
        value = -((trial.settings["x"] - 0.7) ** 2)
        tuner.tell(trial.number, value - 0.2, fidelity=1 / 3)
        if i % 2:
            tuner.tell(trial.number, value)
        else:
            tuner.drop(trial.number)
    xs = np.linspace(0, 1, 101)[:, None]
    mean = tuner.model().predict(tuner.encoded(xs))[0][:, 0]
    assert xs[mean.argmax(), 0] == pytest.approx(0.7, abs=0.05) and mean.max() == pytest.approx(0, abs=0.05)
    assert all(t.result is not None for t in tuner.results) and len(tuner.results) == 4


def test_what_is_told_is_checked() -> None:
    tuner = Tuner(SEARCH, objectives=("one", "two"), limits={"kl": 1.0})
    trial = tuner.ask()
    with pytest.raises(DefinitionError, match="without two, kl"):
        tuner.tell(trial.number, {"one": 1.0})
    with pytest.raises(DefinitionError, match="one not finite"):
        tuner.tell(trial.number, {"one": math.nan, "two": 0.0}, {"kl": 0.0})
    tuner.fail(trial.number, "no")
    with pytest.raises(DefinitionError, match="failed already"):
        tuner.tell(trial.number, {"one": 1.0, "two": 0.0}, {"kl": 0.0})
    with pytest.raises(DefinitionError, match="exactly rate, x, kind"):
        tuner.adopt({"rate": 1e-3})


def test_halving_keeps_the_first_front_and_then_the_larger_contribution() -> None:
    """Six trials keep two: the front is 0, 1, 2; of these 1 adds least."""
    values = np.array([[0.0, 3.0], [1.0, 2.05], [3.0, 2.0], [0.5, 0.5], [0.1, 0.1], [0.0, 0.0]])
    assert Halving(keep=3).survivors(values) == [0, 2]
    assert Halving(keep=2).survivors(values) == [0, 1, 2]
    assert Halving(keep=2).survivors(np.array([[1.0], [3.0], [2.0], [0.0]])) == [1, 2]
    assert Halving(keep=3, rungs=3).fidelities == pytest.approx((1 / 9, 1 / 3, 1))


# -------------------------------------------------------------------------------------------------------------- a study


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model"))


STUDY_SEARCH = {
    "method.beta": log_uniform(0.1, 2.0),
    "method.training.learning_rate": log_uniform(1e-3, 2e-2),
    "weights": on_simplex(2),
}


def small(model: Path, **changes: Any) -> ma.Study:
    return tiny_study(model, steps=2, **changes)


def test_the_page_of_a_search_has_choices_by_position_and_weights_by_objective() -> None:
    """The value of a trial is the box between its result and the corner; without a result there is none."""
    search = {"kind": choice("cosine", None), "steps": integers(1, 5), "weights": on_simplex(2)}
    tuner = Tuner(search, objectives=("a", "b"), reference_point={"a": 0.0, "b": -1.0})
    for kind, weights in (("cosine", (0.25, 0.75)), (None, (1.0, 0.0))):
        tuner.adopt({"kind": kind, "steps": 3, "weights": weights})
    tuner.tell(0, {"a": 2.0, "b": 0.5})
    page = facts(tuner, {(0, 1.0): [4, 5]})
    assert [f.name for f in page.fields] == ["kind", "steps", "weights: a", "weights: b"]
    assert page.fields[0].options == ["cosine", "None"] and page.fields[0].shown(1.0) == "None"
    assert list(page.trials[0].values.values()) == [0.0, 3.0, 0.25, 0.75]
    assert list(page.trials[1].values.values()) == [1.0, 3.0, 1.0, 0.0]
    assert page.trials[0].value == 3.0 and page.trials[0].policies == [4, 5] and page.trials[1].value is None


@pytest.fixture(scope="module")
def finished(model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Tuning]:
    root = tmp_path_factory.mktemp("runs")
    return root, tune(small(model), store=root, search=STUDY_SEARCH, trials=4, batch=2)


def test_tuning_a_study_trains_what_it_asks(finished: tuple[Path, Tuning]) -> None:
    root, tuning = finished
    assert len(tuning.front) == 4 and [t.state for t in tuning.tuner.trials] == ["told"] * 4
    settings = [t.settings for t in tuning.tuner.trials]
    assert settings[0]["method.beta"] == 0.5  # the study's own settings come first
    assert [t.proposed_by for t in tuning.tuner.trials] == ["first", "sobol", "sobol", "sobol"]
    assert np.array_equal(tuning.front.X, [s["weights"] for s in settings])
    assert np.array_equal(tuning.front.F, tuning.tuner.values)
    page = figures.Tuning.load(root / "tiny-tuning")
    assert page is not None and [t.policies for t in page.trials] == [[0], [1], [2], [3]]
    assert page.trials[-1].so_far == pytest.approx(tuning.front.hypervolume().value)
    weights = [f"weights: {name}" for name in tuning.front.objectives]
    assert [f.name for f in page.fields][-2:] == weights and len(page.fields) == 4
    assert [[t.values[name] for name in weights] for t in page.trials] == tuning.front.X.tolist()
    alone = np.prod(np.maximum(tuning.front.F - np.array(page.reference_point), 0), axis=1)
    assert [t.value for t in page.trials] == pytest.approx(alone.tolist())
    assert len(figures.search_figure(page).data) == 2 and len(figures.slice_figure(page).data) == 8
    assert "4 of 4 trials" in repr(tuning)
    again = tuning.study_with(tuning.best[0], name="again", seed=9)
    assert again.seed == 9 and again.method.beta == tuning.best[0].settings["method.beta"]  # type: ignore[attr-defined]


def test_a_finished_tuning_repeats_nothing_and_goes_on_with_more_trials(
    finished: tuple[Path, Tuning], model: Path
) -> None:
    root, tuning = finished
    steps: list[int] = []

    class Count:
        def on_step(self, name: str, record: Any, total: int) -> None:
            steps.append(record.step)

    more = tune(small(model), store=root, search=STUDY_SEARCH, trials=5, batch=2, callbacks=[Count()])
    assert len(steps) == 2  # one new policy of two steps
    assert np.array_equal(more.front.F[:4], tuning.front.F)
    said = [t.proposed_by for t in more.tuner.trials]
    assert said[:4] == [t.proposed_by for t in tuning.tuner.trials] and said[4] is not None


def test_an_interrupted_tuning_asks_and_trains_the_same(
    finished: tuple[Path, Tuning], model: Path, tmp_path: Path
) -> None:
    class Stop:
        def on_policy(self, point: Any) -> None:
            raise ma.StopStudy("enough")

    for _ in range(5):
        tuning = tune(small(model), store=tmp_path, search=STUDY_SEARCH, trials=4, batch=2, callbacks=[Stop()])
    assert np.array_equal(tuning.front.F[:4], finished[1].front.F[:4])


def test_a_batch_is_one_stack_and_gives_what_single_trainings_give(finished: tuple[Path, Tuning], model: Path) -> None:
    """Two settings with different beta, learning rate and steps, fitted together and alone."""
    from moalign.policy.engine import Engine

    root, tuning = finished
    assert len(Store(root).study("tiny-tuning").events("trained")) in (2, 3)  # two batches, perhaps a further trial
    study, weights = small(model), np.array([[0.7, 0.3], [0.7, 0.3]])
    one: Any = study.method
    other = replace(one, beta=1.5, training=replace(one.training, steps=4, learning_rate=2e-3))
    assert one.stacks_with(other) and not one.stacks_with(replace(other, label_smoothing=0.1))
    engine = Engine(study.problem.policy, seed=study.seed)
    both = one.fit_each([one, other], study.problem, weights, engine)
    alone = [method.fit(study.problem, weights[:1], engine).stack.matrix[0] for method in (one, other)]
    for row in range(2):
        assert both.stack.matrix[row].numpy() == pytest.approx(alone[row].numpy(), abs=1e-5)
    assert np.abs((both.stack.matrix[0] - both.stack.matrix[1]).numpy()).max() > 1e-3


def test_a_front_can_be_tuned_with_halving(model: Path, tmp_path: Path) -> None:
    """Three trials of a front of three; one of three goes on to the full budget."""
    tuning = tune(
        small(model, weights=ma.grid(2, steps=1)),
        store=tmp_path,
        search={"method.beta": log_uniform(0.1, 2.0), "method.label_smoothing": choice(0.0, 0.1)},
        trials=3,
        batch=3,
        target="hypervolume",
        halving=Halving(keep=2, rungs=2),
    )
    states = [t.state for t in tuning.tuner.trials]
    assert sorted(states) == ["dropped", "told", "told"] and len(tuning.front) == 2 * (3 + 2)
    rungs = [len(t.observations) for t in tuning.tuner.trials]
    assert sorted(rungs) == [1, 2, 2]
    best = tuning.tuner.front()[0]
    assert best.result is not None and best.result.values["hypervolume"] == tuning.tuner.volume()


def test_a_trial_that_breaks_down_is_recorded_and_passed_over(model: Path, tmp_path: Path) -> None:
    """Learning rates of about 1e9 leave no finite loss; the study's own 0.005 comes first and works."""
    search = {"method.training.learning_rate": uniform(1e-3, 1e9), "weights": on_simplex(2)}
    tuning = tune(small(model), store=tmp_path, search=search, trials=3, batch=2)
    assert [t.state for t in tuning.tuner.trials] == ["told", "failed", "failed"]
    assert "NaN" in str(tuning.tuner.trials[1].error)
    again = tune(small(model), store=tmp_path, search=search, trials=3, batch=2)
    assert [t.state for t in again.tuner.trials] == ["told", "failed", "failed"] and len(again.front) == 1


def test_another_tuning_is_a_warm_start(finished: tuple[Path, Tuning], model: Path) -> None:
    root, tuning = finished
    search = {"method.beta": log_uniform(0.1, 2.0), "weights": on_simplex(2)}
    warm = tune(small(model, name="warm"), store=root, search=search, trials=1, warm_start=["tiny-tuning"])
    known = [t for t in warm.tuner.trials if t.source]
    assert len(known) >= 4 and known[0].source == "tiny-tuning trial 0"
    assert known[0].settings["method.beta"] == tuning.tuner.trials[0].settings["method.beta"]
    assert len(warm.front) == 1


def test_mistakes_are_all_named_before_anything_is_trained(model: Path, tmp_path: Path) -> None:
    study = small(model)
    with pytest.raises(DefinitionError) as caught:
        tune(
            study,
            store=tmp_path,
            search={
                "method.learning_rate": log_uniform(1e-3, 1e-2),
                "method.bta": uniform(0, 1),
                "beta": uniform(0, 1),
                "method.beta": uniform(-1, 1),
                "weights": on_simplex(3),
            },
        )
    text = str(caught.value)
    assert "Did you mean 'training.learning_rate'" in text and "Did you mean 'beta'" in text
    assert "'beta' cannot be tuned" in text and "beta must be > 0" in text and "on_simplex(2)" in text
    with pytest.raises(DefinitionError, match="A trial is one policy, but the study has 3"):
        tune(study, search={"method.beta": uniform(0.1, 1)})
    with pytest.raises(DefinitionError, match='take "weights" out'):
        tune(study, search={"weights": on_simplex(2)}, target="hypervolume")
    with pytest.raises(DefinitionError, match="timeout"):
        tune(study, search=STUDY_SEARCH, timeout="soon")
    assert not list(tmp_path.iterdir())
    assert seconds("2h") == 7200 and seconds("30min") == 1800 and seconds(5) == 5


def test_another_search_under_the_same_name_is_refused(finished: tuple[Path, Tuning], model: Path) -> None:
    root, _ = finished
    with pytest.raises(StudyChangedError, match="tuning"):
        tune(small(model), store=root, search={**STUDY_SEARCH, "method.beta": log_uniform(0.1, 1.0)})
    assert replace(small(model), name="x").name == "x" and "tiny-tuning" in Store(root).names()


def test_the_command_runs_what_the_study_file_declares(model: Path, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from moalign.cli import app

    root = Path(__file__).parent.parent
    file = tmp_path / "small.py"
    file.write_text(
        f"import sys; sys.path.insert(0, {str(root)!r})\n"
        "from pathlib import Path\nimport moalign as ma\nfrom tests.tiny import tiny_study\n"
        f"study = tiny_study(Path({str(model)!r}), steps=2)\n"
        'search = {"method.beta": ma.log_uniform(0.1, 2.0), "weights": ma.on_simplex(2)}\n'
        "tuning = dict(trials=2)\n"
    )
    done = CliRunner().invoke(app, ["tune", str(file), "--store", str(tmp_path / "runs"), "--quiet"])
    assert done.exit_code == 0, done.output
    assert "beta" in done.stdout and "moalign front tiny-tuning" in done.stdout
    more = CliRunner().invoke(
        app, ["tune", str(file), "--store", str(tmp_path / "runs"), "-q", "--json", "--trials", "3"]
    )
    outcome = json.loads(more.stdout)
    assert outcome["trials"] == 3 and outcome["failed"] == [] and outcome["best"]
    file.write_text(file.read_text().replace("search =", "other ="))
    assert CliRunner().invoke(app, ["tune", str(file)]).exit_code == 3
