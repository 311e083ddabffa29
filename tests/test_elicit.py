"""Elicitation: the posterior against exact numbers, simulated people, and a dialogue in the terminal."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import moalign as ma
from moalign.cli import app
from moalign.elicit import (
    Answer,
    AnswerModel,
    Elicitation,
    Question,
    Response,
    choice_gain,
    information_gain,
    posterior,
)
from moalign.errors import DefinitionError
from moalign.results import load_generations
from moalign.store import Store
from tests.tiny import save_model, tiny_study

EXACT = AnswerModel(rationality=10.0, lapse=0.0)
PLAIN: list[Answer] = ["first", "second"]
GRADED: list[Answer] = ["clearly first", "slightly first", "slightly second", "clearly second"]

# -------------------------------------------------------------------------------------------------------- the posterior


def test_the_posterior_of_two_objectives_is_that_of_a_fine_grid() -> None:
    """w1 on a grid of 2001 points, uniform prior: mean and standard deviation agree, for a tie and a lapse, too."""
    differences = np.array([[0.5, -0.2], [-0.3, 0.4], [0.6, -0.5], [0.1, -0.4]])
    answers: list[Answer] = ["first", "first", "second", "equal"]
    model = AnswerModel(rationality=8.0, lapse=0.1)
    grid = np.linspace(0, 1, 2001)
    p = model.probability(["first"], differences, np.column_stack([grid, 1 - grid]), np.ones(2001))[0]
    shares = np.array([1.0, 1.0, 0.0, 0.5])
    density = np.exp(shares @ np.log(p) + (1 - shares) @ np.log(1 - p))
    mean = (density * grid).sum() / density.sum()
    sd = math.sqrt((density * (grid - mean) ** 2).sum() / density.sum())
    found = posterior(model, differences, answers, seed=0, particles=8192)
    assert found.mean[0] == pytest.approx(mean, abs=0.01) and found.sd[0] == pytest.approx(sd, abs=0.01)


def test_without_answers_the_prior_is_left_alone() -> None:
    found = posterior(EXACT, np.zeros((0, 3)), [], seed=1)
    assert found.mean == pytest.approx(1 / 3, abs=0.02) and found.sd == pytest.approx(math.sqrt(1 / 18), abs=0.01)


def test_the_order_of_answers_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    differences = rng.standard_normal((12, 3))
    answers: list[Answer] = [*GRADED, *PLAIN, "equal", *PLAIN, *GRADED[:3]]
    order = rng.permutation(12)
    one = posterior(EXACT, differences, answers, seed=3)
    other = posterior(EXACT, differences[order], [answers[i] for i in order], seed=3)
    assert np.array_equal(one.weights, other.weights)


def test_many_answers_find_the_weights() -> None:
    """Two hundred random questions about thirty uniform candidates: about 0.1 away in L1."""
    rng = np.random.default_rng(5)
    candidates, truth = rng.random((30, 3)), np.array([0.6, 0.3, 0.1])
    pairs = rng.integers(0, 30, (200, 2))
    differences = candidates[pairs[:, 0]] - candidates[pairs[:, 1]]
    chance = EXACT.probability(["first"], differences, truth[None], np.ones(1))[0, :, 0]
    found = posterior(EXACT, differences, [PLAIN[int(rng.random() > p)] for p in chance], seed=0)
    assert np.abs(found.mean - truth).sum() < 0.2
    assert (found.sd < 0.1).all()


def test_information_is_nothing_where_all_agree_and_at_most_a_bit() -> None:
    weights = np.random.default_rng(0).dirichlet(np.ones(3), 500)
    equal, sure, open_question = np.zeros(3), np.array([9.0, 9.0, 9.0]), np.array([50.0, -50.0, 0.0])
    questions = np.array([equal, sure, open_question, -open_question])
    gain = information_gain(EXACT.probability(PLAIN, questions, weights, np.ones(500)))
    assert gain[0] == pytest.approx(0, abs=1e-12) and gain[1] == pytest.approx(0, abs=1e-6)
    assert 0.6 < gain[2] <= math.log(2) and gain[2] == pytest.approx(gain[3])


def test_the_gain_of_a_choice_is_that_of_a_choice_made_twice() -> None:
    """By hand from a table of utilities: choose after either answer, weighted by its probability, against now."""
    weights = np.random.default_rng(0).dirichlet(np.ones(3), 400)
    policies = np.array([[1.0, 0.0, 0.2], [0.1, 0.9, 0.3], [0.2, 0.2, 0.9]])
    utilities = weights @ policies.T
    difference = np.array([[0.8, -0.9, 0.1], [0.0, 0.0, 0.0]])
    probability = EXACT.probability(PLAIN, difference, weights, np.ones(400))
    wanted = []
    for row in probability[0]:
        after = sum(
            side.mean() * max(np.average(utilities[:, x], weights=side) for x in range(3)) for side in (row, 1 - row)
        )
        wanted.append(after - utilities.mean(axis=0).max())
    found = choice_gain(probability, utilities)
    assert found == pytest.approx(wanted, abs=1e-12) and found[0] > 0.05 and found[1] == pytest.approx(0, abs=1e-12)


def test_graded_answers_split_the_plain_ones() -> None:
    """P(first) is P(clearly first) + P(slightly first), all four sum to 1, and swapping the responses mirrors them."""
    rng = np.random.default_rng(0)
    model = AnswerModel(rationality=12.0, lapse=0.1)
    weights, thresholds = rng.dirichlet(np.ones(3), 50), rng.uniform(0.05, 0.5, 50)
    differences = 3 * rng.standard_normal((40, 3))
    plain = model.probability(PLAIN, differences, weights, thresholds)
    graded = model.probability(GRADED, differences, weights, thresholds)
    assert graded.sum(axis=0) == pytest.approx(np.ones((40, 50))) and (graded >= 0.1 / 4 - 1e-12).all()
    assert graded[:2].sum(axis=0) == pytest.approx(plain[0], abs=1e-12)
    assert model.probability(GRADED, -differences, weights, thresholds)[::-1] == pytest.approx(graded, abs=1e-12)


def test_the_line_between_clearly_and_slightly_is_inferred() -> None:
    """Mean and sd of weight and threshold against a fine grid over both, and a threshold far from its median."""
    model = AnswerModel(rationality=10.0, lapse=0.0)
    differences = np.array([[0.9, -0.3], [0.5, -0.6], [-0.2, 0.7], [0.8, -0.8]])
    answers: list[Answer] = ["slightly first", "slightly second", "clearly second", "slightly first"]
    w, z = (axis.ravel() for axis in np.meshgrid(np.linspace(0, 1, 201), np.linspace(-4, 4, 201)))
    thresholds = model.threshold * np.exp(model.threshold_sd * z)
    weights = np.column_stack([w, 1 - w])
    p = np.ones(len(w))
    for difference, answer in zip(differences, answers, strict=True):
        p *= model.probability([answer], difference[None], weights, thresholds)[0, 0]
    density = p * np.exp(-(z**2) / 2)
    density /= density.sum()
    found = posterior(model, differences, answers, seed=0, particles=8192)
    logs = np.log(found.thresholds / model.threshold) / model.threshold_sd
    assert found.mean[0] == pytest.approx(density @ w, abs=0.01) and logs.mean() == pytest.approx(density @ z, abs=0.05)
    sd = math.sqrt(density @ (z - density @ z) ** 2)
    assert logs.std() == pytest.approx(sd, abs=0.05) and sd < 0.9


# ------------------------------------------------------------------------------------------------------ whole dialogues


def concave_front(rng: np.random.Generator, policies: int = 20) -> np.ndarray:
    points = np.abs(rng.standard_normal((policies, 3)))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    return (points - points.min(axis=0)) / np.ptp(points, axis=0)


def all_pairs(points: np.ndarray) -> list[Question]:
    responses = [Response(str(i), tuple(map(float, row)), i) for i, row in enumerate(points)]
    return [Question("", a, b) for i, a in enumerate(responses) for b in responses[:i]]


def regret(user: int, informed: bool, questions: int = 10, rationality: float = 50.0, graded: bool = False) -> float:
    """Returns what a simulated person loses by the served policy, as a share of their range of utilities."""
    rng = np.random.default_rng([user, 7])
    points, weights = concave_front(rng), rng.dirichlet(np.ones(3))
    pairs = all_pairs(points)
    model = AnswerModel(rationality=rationality, lapse=0.0)
    own = math.exp(model.threshold_sd * np.random.default_rng([user, 8]).standard_normal())
    threshold = np.array([model.threshold * own])  # where this person draws the line between clearly and slightly
    answers: list[Answer] = GRADED if graded else PLAIN
    talk = Elicitation(points, pairs, "abc", model=model, seed=user)
    for _ in range(questions):
        asked = talk.next_question(past_stable=True) if informed else pairs[rng.integers(len(pairs))]
        assert asked is not None
        difference = np.subtract(asked.first.rewards, asked.second.rewards)
        chances = model.probability(answers, difference[None], weights[None], threshold)[:, 0, 0]
        talk.answer(asked, answers[rng.choice(len(answers), p=chances / chances.sum())])
    utilities = points @ weights
    return float((utilities.max() - utilities[talk.choice.trial]) / np.ptp(utilities))


def test_ten_questions_find_a_policy_that_loses_little() -> None:
    """Twenty simulated people; random questions in the same run lose several times as much."""
    informed = np.mean([regret(user, True) for user in range(20)])
    random = np.mean([regret(user, False) for user in range(20)])
    assert informed <= 0.015 and informed < 0.5 * random


def test_noisy_answers_cost_more_and_graded_ones_say_more() -> None:
    """Rationality 10, sixteen people: random questions lose most, then informed ones, then informed and graded ones."""
    random, plain, graded = (
        np.mean([regret(user, informed, rationality=10.0, graded=grades) for user in range(16)])
        for informed, grades in ((False, False), (True, False), (True, True))
    )
    assert plain <= 0.04 and plain < 0.7 * random and graded < 0.8 * plain


def test_questions_end_when_the_choice_is_stable() -> None:
    """Somebody who only cares for the first objective is served the policy that is best there."""
    points = concave_front(np.random.default_rng(1))
    talk = Elicitation(points, all_pairs(points), ("a", "b", "c"))
    assert not talk.choice.stable
    while (question := talk.next_question()) is not None:
        better = question.first.rewards[0] > question.second.rewards[0]
        talk.answer(question, "first" if better else "second")
    choice = talk.choice
    assert choice.stable and 3 <= choice.questions < 40
    assert points[choice.trial, 0] > 0.9 and choice.weights[0] > 0.7 and choice.expected_loss < 0.02
    assert "best with probability" in repr(choice)


def test_study_weights_undo_the_scaling() -> None:
    """The second objective is measured in units a hundred times smaller; equal weights become 100 : 1."""
    points = concave_front(np.random.default_rng(2))[:, :2] * [1.0, 100.0]
    talk = Elicitation(points, all_pairs(points), ("a", "b"))
    ratio = talk.choice.study_weights[0] / talk.choice.study_weights[1]
    assert ratio == pytest.approx(100 * talk.choice.weights[0] / talk.choice.weights[1])


def test_dialogues_that_cannot_be_meant_are_refused() -> None:
    points = concave_front(np.random.default_rng(0))
    with pytest.raises(DefinitionError) as caught:
        Elicitation(points[:1], [], ("a", "b"), trials=[1, 2])
    assert len(caught.value.problems) == 3
    talk = Elicitation(points, all_pairs(points), ("a", "b", "c"))
    question = talk.next_question()
    assert question is not None
    with pytest.raises(DefinitionError, match="'first'"):
        talk.answer(question, "best")  # type: ignore[arg-type]
    with pytest.raises(DefinitionError, match="not one of"):
        talk.answer(Question("x", question.first, question.second), "first")


# -------------------------------------------------------------------------------------------------------- in a terminal


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    ma.run(tiny_study(save_model(tmp_path_factory.mktemp("model"))), store=root)
    return root


def say(runs: Path, keys: str, *more: str) -> Any:
    return CliRunner().invoke(app, ["elicit", "tiny", "--store", str(runs), *more], input=keys)


def test_questions_show_what_policies_said(runs: Path) -> None:
    talk = Elicitation.of("tiny", store=runs)
    said = {row["response"] for trial in range(3) for row in load_generations(Store(runs).study("tiny"), trial)}
    assert talk.questions and all({q.first.text, q.second.text} <= said for q in talk.questions)
    shown = [frozenset([q.prompt, q.first.text, q.second.text]) for q in talk.questions]
    assert all(len(texts) == 3 for texts in shown) and len(set(shown)) == len(shown)  # no question comes twice


def test_answers_in_the_terminal_are_kept_and_continued(runs: Path) -> None:
    first = say(runs, "1\nx\n=\nq\n", "--user", "ann")
    assert first.exit_code == 0 and "policy   trial" in first.stdout and "answers  2" in first.stdout
    assert "1, 2, = or q" in first.stderr and "[1]" in first.stderr and "moalign export tiny" in first.stdout
    rows = [json.loads(line) for line in (runs / "tiny" / "elicitation" / "ann.jsonl").read_text().splitlines()]
    assert [row["answer"] for row in rows] == ["first", "equal"]
    again = say(runs, "2\nq\n", "--user", "ann", "--json", "--questions", "3")
    assert json.loads(again.stdout)["questions"] == 3
    assert say(runs, "", "--user", "../ann").exit_code == 2
    assert say(runs, "q\n", "--user", "ann", "--seed", "5").exit_code == 4


def test_graded_answers_in_the_terminal(runs: Path) -> None:
    found = say(runs, "11\n3\n2\nq\n", "--user", "bob", "--graded")
    assert found.exit_code == 0 and "11 or 22 clearly" in found.stderr and "11, 1, =, 2, 22 or q" in found.stderr
    rows = [json.loads(line) for line in (runs / "tiny" / "elicitation" / "bob.jsonl").read_text().splitlines()]
    assert [row["answer"] for row in rows] == ["clearly first", "slightly second"]
    plain = say(runs, "1\nq\n", "--user", "bob", "--json")
    assert json.loads(plain.stdout)["questions"] == 3


def test_hostile_texts_are_shown_as_text(runs: Path) -> None:
    """A generation that clears the screen and forges a line is written out."""
    talk = Elicitation.of("tiny", store=runs)
    hostile = Question("[red]\x1b[2J", Response("\x1b]0;owned\x07\r> 1", (0.0, 0.0)), Response("[/bold]", (1.0, 1.0)))
    from moalign.cli.elicit import _show

    assert talk.questions
    runner = CliRunner()
    import typer

    shown = typer.Typer()
    shown.command()(lambda: _show(hostile, 1))
    result = runner.invoke(shown, [])
    assert result.exit_code == 0 and "\x1b" not in result.stderr and "\x07" not in result.stderr
    assert "\r" not in result.stderr and "[red]" in result.stderr and "[/bold]" in result.stderr
