"""What a study writes beside its records: its data, the calibration of its rewards, its users."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import moalign as ma
from moalign import figures
from moalign.data import PreferencePairs
from moalign.errors import DefinitionError
from moalign.facts import data_facts, save_calibration, save_known, save_people
from moalign.figures.people import shown_utilities, worst_group
from moalign.methods import MaxMin
from moalign.policy.engine import Engine
from moalign.scoring import Scorer
from moalign.store import Store, load_generations, load_reference_generations
from tests.tiny import HELD_OUT, save_model, shortness, tiny_study, vowels

ROWS = [
    {"prompt": "p", "chosen": "a", "rejected": "b"},
    {"prompt": "p", "chosen": "b", "rejected": "a"},
    {"prompt": "p", "chosen": "b", "rejected": "a "},
    {"prompt": "q", "chosen": "<script>", "rejected": "c"},
]

NEW = [{"prompt": "r", "chosen": "a", "rejected": "b"}, {"prompt": "s", "chosen": "a", "rejected": "b"}]


def digits(texts: list[str]) -> np.ndarray:
    """Embeds a text as its last digit."""
    return np.array([[float(text[-1]) - 3.5] for text in texts])


def lengths(texts: list[str]) -> np.ndarray:
    """Embeds a digit as itself and any other text as its length, both around zero."""
    return np.array([[float(t) - 3.5 if t.isdigit() else len(t) - 8.0] for t in texts])


def problem(model: Path, pairs: PreferencePairs | None = None) -> ma.Problem:
    objectives = ma.Objective("vowels", reward=vowels, pairs=pairs), ma.Objective("short", reward=shortness)
    return ma.Problem(policy=ma.Policy(str(model)), objectives=objectives, prompts=["p", "q"])


def test_pairs_are_counted_and_contradictions_written_out(tmp_path: Path) -> None:
    model = save_model(tmp_path / "model")
    pairs = ma.load_pairs(ROWS)
    facts = data_facts(problem(model, pairs))
    assert facts is not None and data_facts(problem(model)) is None
    [entry] = facts.sets
    assert (entry.name, entry.rows, entry.contradictory) == ("vowels", 4, 1)
    [both] = entry.contradictions
    assert (both.prompt, both.first, both.second, both.votes_first, both.votes_second) == ("p", "a", "b", 1, 1)
    facts.save(tmp_path)
    assert figures.DataFacts.load(tmp_path) == facts and figures.People.load(tmp_path) is None


def test_a_reward_that_made_the_labels_is_calibrated_and_one_turned_round_is_not(tmp_path: Path) -> None:
    """Labels drawn from sigmoid(difference): the error of that reward is noise, that of its negative 2 E|p - 1/2|."""
    rng = np.random.default_rng(0)
    names = [f"{i}" for i in range(3000)]
    level = {name: value for name, value in zip(names, rng.normal(size=3000), strict=True)}
    a, b = (rng.permutation(names) for _ in range(2))
    keep = a != b
    p = 1 / (1 + np.exp([level[y] - level[x] for x, y in zip(a[keep], b[keep], strict=True)]))
    labels = (rng.random(keep.sum()) < p).astype(float)
    pairs = PreferencePairs(
        prompts=tuple(f"q{i}" for i in range(keep.sum())), chosen=tuple(a[keep]), rejected=tuple(b[keep]), labels=labels
    )

    def reward(prompts: object, responses: list[str]) -> np.ndarray:
        return np.array([level[str(r)] for r in responses])

    def turned(prompts: object, responses: list[str]) -> np.ndarray:
        return -reward(prompts, responses)

    found = save_calibration({"true": reward, "turned": turned}, pairs, tmp_path)
    right, wrong = found.rewards
    assert figures.Calibration.load(tmp_path) == found and right.comparisons == len(pairs)
    assert right.calibration_error is not None and wrong.calibration_error is not None
    assert right.calibration_error.low == 0.0 and right.calibration_error.value < 0.03
    assert wrong.calibration_error.value == pytest.approx(2 * np.abs(p - 0.5).mean(), abs=0.04)
    best = np.maximum(p, 1 - p).mean()
    assert right.accuracy is not None and right.accuracy.value == pytest.approx(best, abs=0.03)
    with pytest.raises(DefinitionError, match="no pairs for the reward 'true'"):
        save_calibration({"true": reward}, {"other": pairs}, tmp_path)


def test_users_who_want_opposite_things_are_written_with_their_accuracy(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    rows = []
    for user in range(12):
        for _ in range(24):
            x, y = rng.choice(8, 2, replace=False)
            high, low = (x, y) if (x > y) == (user % 2 == 0) else (y, x)
            rows.append({"user": f"u{user}", "chosen": f"n{high}", "rejected": f"n{low}"})
    heldout = [row for i, row in enumerate(rows) if i % 4 == 0]
    model = ma.rewards.IdealPoint(prototypes=2, steps=60, validation=0).fit(
        [row for i, row in enumerate(rows) if i % 4],
        embed=digits,
    )
    found = save_people(model, heldout, tmp_path, groups={f"u{i}": "up" if i % 2 == 0 else "down" for i in range(12)})
    assert figures.People.load(tmp_path) == found and len(found.users) == 12
    sides = {user.group: np.argmax(user.mixture) for user in found.users}
    assert sides["up"] != sides["down"]
    assert all(user.accuracy is not None and user.accuracy.value > 0.9 for user in found.users)
    assert all(answer.agreed for user in found.users for answer in user.answers) and found.users[0].answers
    assert figures.people_figure(found).data and figures.accuracy_figure(found).data


def learning(model: Path, **changes: Any) -> ma.Study:
    """Returns a study whose first reward is learned from pairs."""
    learned = ma.Objective("liked", reward=ma.ImplicitReward(steps=2, rank=2, batch_size=4), pairs=ma.load_pairs(ROWS))
    given = ma.Problem(
        policy=ma.Policy(str(model)),
        objectives=(learned, ma.Objective("vowels", reward=vowels, label_scale=0.5)),
        prompts=["p", "q"],
    )
    return tiny_study(model, problem=given, weights=[[0.5, 0.5]], steps=2, **changes)


def judged_by(**pairs: Any) -> ma.Evaluation:
    return ma.Evaluation(prompts=HELD_OUT, samples=2, max_new_tokens=8, pairs=pairs)


@pytest.mark.slow
def test_held_out_pairs_judge_the_rewards_of_a_run_and_train_nothing_again(tmp_path: Path) -> None:
    model = save_model(tmp_path / "model")
    before = ma.run(learning(model, evaluation=judged_by()), store=tmp_path)
    folder = tmp_path / "tiny"
    assert figures.Calibration.load(folder) is None
    definition = (folder / "study.json").read_text()
    rows = [{"prompt": f"{i}: ", "chosen": "aeiou"[: 1 + i], "rejected": "xyz"} for i in range(4)]
    study = learning(model, evaluation=judged_by(liked=rows, vowels=rows))
    after = ma.run(study, store=tmp_path)
    assert np.array_equal(before.F, after.F) and (folder / "study.json").read_text() == definition
    found = figures.Calibration.load(folder)
    assert found is not None and [reward.name for reward in found.rewards] == ["liked", "vowels"]
    assert "Calibration of the rewards" in (folder / "report.html").read_text()
    pairs = study.evaluation.pairs["vowels"]
    with Store(tmp_path).study("tiny").drive():
        engine = Engine(study.problem.policy, workspace=Store(tmp_path).study("tiny"), seed=study.seed)
        rewards = Scorer(study.problem, engine)(pairs.prompts * 2, pairs.chosen + pairs.rejected)
    gaps = (rewards[:4] - rewards[4:]) * [1.0, 0.5]  # label_scale: log-odds per vowel
    assert gaps[:, 1].tolist() == [0.5, 1.0, 1.5, 2.0]
    for gap, reward in zip(gaps.T, found.rewards, strict=True):
        assert reward.log_loss == pytest.approx(float(np.log1p(np.exp(-gap)).mean()), rel=1e-4)
    assert found.rewards[1].accuracy is not None and found.rewards[1].accuracy.value == 1.0
    assert found.rewards[0].calibration_error is not None and found.rewards[0].comparisons == 4


def test_pairs_that_cannot_judge_are_refused_with_what_to_do(tmp_path: Path) -> None:
    model = save_model(tmp_path / "model")
    with pytest.raises(DefinitionError, match="2 of 4 held-out pairs of 'liked', the first is number 2.*hold_out"):
        learning(model, evaluation=judged_by(liked=[*NEW, {"prompt": "p", "chosen": "b", "rejected": "a"}, ROWS[3]]))
    with pytest.raises(DefinitionError, match="held-out pairs are for likd; the objectives are liked, vowels"):
        learning(model, evaluation=judged_by(likd=NEW))
    with pytest.raises(DefinitionError, match="by objective, such as .* got list"):
        ma.Evaluation(prompts=HELD_OUT, pairs=NEW)  # type: ignore[arg-type]
    learning(model, evaluation=judged_by(vowels=ROWS))  # a given reward has seen no pairs


def test_a_study_of_prototypes_shows_its_users_and_keeps_what_was_measured(tmp_path: Path) -> None:
    rows = [{"user": u, "chosen": a, "rejected": b} for u, a, b in [("x", "1", "2"), ("y", "2", "1")] * 4]
    model = ma.rewards.IdealPoint(prototypes=2, steps=5, validation=0).fit(rows, embed=digits)
    given = ma.Problem(
        policy=ma.Policy(str(save_model(tmp_path / "model"))), objectives=model.as_objectives(), prompts=["p"]
    )
    study = tiny_study(tmp_path / "model", problem=given)
    known = Scorer(given, Engine(given.policy))
    save_known(study, known, tmp_path)
    first = figures.People.load(tmp_path)
    assert first is not None and [user.name for user in first.users] == ["x", "y"] and first.users[0].accuracy is None
    measured = save_people(model, rows, tmp_path)
    save_known(study, known, tmp_path)
    assert figures.People.load(tmp_path) == measured and measured.users[0].accuracy is not None
    evaluation = ma.Evaluation(prompts=HELD_OUT, comparisons=rows[:2], groups={"x": "old", "y": "new"})
    save_known(replace(study, evaluation=evaluation), known, tmp_path)
    judged = figures.People.load(tmp_path)
    assert judged is not None and [(u.group, u.comparisons) for u in judged.users] == [("old", 1), ("new", 1)]


@pytest.mark.slow
def test_a_run_says_what_groups_gain_from_each_policy(tmp_path: Path) -> None:
    """Digits: up wants large ones, down small ones; the mean of the users' own rewards is computed again."""
    rng = np.random.default_rng(1)
    rows = []
    for user in range(6):
        for _ in range(12):
            low, high = sorted(rng.choice(8, 2, replace=False))
            chosen, rejected = (high, low) if user % 2 else (low, high)
            rows.append({"user": f"u{user}", "chosen": f"{chosen}", "rejected": f"{rejected}"})
    people = ma.rewards.Mixture(groups=2, lift=0, validation=0).fit(rows, embed=lengths)
    names = {f"u{u}": "up" if u % 2 else "down" for u in range(6)}
    model = save_model(tmp_path / "model")
    given = ma.Problem(policy=ma.Policy(str(model)), objectives=people.as_objectives(), prompts=["p", "q"])
    evaluation = ma.Evaluation(prompts=HELD_OUT, samples=2, max_new_tokens=8, comparisons=rows, groups=names)
    study = tiny_study(model, problem=given, steps=2, evaluation=evaluation)
    ma.run(study, store=tmp_path)
    records = Store(tmp_path).study("tiny")
    found = figures.People.load(records.folder)
    assert found is not None and found.users[0].accuracy is not None
    shown = shown_utilities(found)
    assert list(shown) == [None, 0, 1, 2] and all(set(by_group) == {"up", "down"} for by_group in shown.values())
    for trial, by_group in shown.items():
        made = load_reference_generations(records) if trial is None else load_generations(records, trial)
        for group, fact in by_group.items():
            own = [people.mixture(user) for user in names if names[user] == group]
            rewards = [
                (people.score_for(w, [r["prompt"] for r in made], [r["response"] for r in made]) - w @ people.centre)
                / (w @ people.spread)
                for w in own
            ]
            assert fact.value == pytest.approx(np.mean(rewards)) and fact.low is not None and fact.low <= fact.value
    assert worst_group(shown[0]) == min(shown[0], key=lambda g: shown[0][g].value)
    assert "What groups gain from each policy" in (records.folder / "report.html").read_text()
    before = (records.folder / figures.People.FILE).read_bytes()
    ma.run(study, store=tmp_path)
    assert (records.folder / figures.People.FILE).read_bytes() == before
    ma.run(replace(study, evaluation=replace(evaluation, groups={"u0": "alone"})), store=tmp_path)
    regrouped = figures.People.load(records.folder)
    assert regrouped is not None
    alone = {t: u["alone"].value for t, u in shown_utilities(regrouped).items()}
    assert len(alone) == 4 and "down" not in shown_utilities(regrouped)[None]
    figure = figures.utility_figure(regrouped, frozenset([1]))
    assert list(figure.layout.xaxis.ticktext) == ["reference", "1"]
    rings = figure.data[-1]
    assert rings.y[1] == min(fact.value for fact in shown_utilities(regrouped)[1].values())


@pytest.mark.slow
def test_objectives_that_a_method_takes_for_groups_are_groups(tmp_path: Path) -> None:
    model = save_model(tmp_path / "model")
    rollouts = ma.Rollouts(sampling=ma.Sampling(samples=2, max_new_tokens=4))
    training = ma.Training(steps=1, batch_size=2, lora=ma.LoRA(rank=2, alpha=4.0))
    method = MaxMin(beta=0.5, rollouts=rollouts, training=training, baseline=(1.0, -2.0))
    front = ma.run(tiny_study(model, method=method, weights=[[0.5, 0.5]]), store=tmp_path)
    found = figures.People.load(tmp_path / "tiny")
    assert found is not None and not found.users
    shown = shown_utilities(found)
    assert {g: f.value for g, f in shown[0].items()} == pytest.approx(
        {"vowels": front[0].values[0] - 1.0, "short": front[0].values[1] + 2.0}
    )
    width = shown[0]["vowels"].high - shown[0]["vowels"].value  # type: ignore[operator]
    assert width == pytest.approx(1.96 * front[0].standard_errors[0], rel=1e-3)
