"""RiC: scores as text and back, the mapping from weights to scores, goals near the front, one policy that obeys."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

import moalign as ma
from moalign.methods import RiC
from moalign.methods.conditioning import ScoreText
from moalign.methods.ric import reached_scores, wanted_scores
from moalign.methods.serving import Conditioned, from_json, to_json
from moalign.policy.engine import Engine
from tests.methods.conditioning import along, expected_rewards, problem


def writer(**changes: object) -> ScoreText:
    fields = {"names": ("a", "b"), "low": (-4.0, -4.0), "high": (4.0, 4.0), **changes}
    return ScoreText(**fields)  # type: ignore[arg-type]


def test_scores_are_written_behind_the_prompt_and_read_back() -> None:
    text = writer().write(np.array([1.3, -0.4]))
    assert text("Hello") == "Hello <a> 1.3 <b> -0.4\n"
    scores = np.round(np.random.default_rng(0).uniform(-4, 4, (50, 2)), 1)
    for row in scores:
        assert writer().read(writer().write(row)) == pytest.approx(row)
    assert "-0.0" not in writer().write(np.array([-0.0, 0.0])).after


def test_words_can_stand_for_scores() -> None:
    """Five words from -4 to 4 stand for -4, -2, 0, 2, 4; what lies beyond is the nearest."""
    writing = writer(words=tuple("abcde"), suffix=".")
    assert writing.write(np.array([-3.2, 0.9])).after == " a c."
    assert writing.write(np.array([9.0, -9.0])).after == " e a."
    assert writing.read(writing.write(np.array([1.9, -2.1]))).tolist() == [2.0, -2.0]


def test_scores_can_stand_before_the_prompt() -> None:
    for writing in (writer(place="before"), writer(place="before", words=tuple("abcde"), suffix=". ")):
        text = writing.write(np.array([2.0, -4.0]))
        assert text("Once upon") == ("d a. Once upon" if writing.words else "<a> 2.0 <b> -4.0\nOnce upon")
        assert writing.read(text).tolist() == [2.0, -4.0]
        assert from_json(to_json(Conditioned(writing))) == Conditioned(writing)


@pytest.mark.parametrize(
    ("weights", "wanted"), [((0.5, 0.5), (1.7, 1.7)), ((0.8, 0.2), (3.8, -2.1)), ((0.3, 0.7), (-0.8, 3.4))]
)
def test_weights_become_scores(weights: tuple[float, float], wanted: tuple[float, float]) -> None:
    """R_i = 8 w_i / |w| - 4: .5 / .7071 * 8 - 4 = 1.7."""
    assert writer().wanted(np.array(weights)) == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("mapping", "wanted"), [("linf", ((4, 4), (4, -0.8), (0.8, 4))), ("linear", ((0, 0), (2.4, -2.4), (-1.6, 1.6)))]
)
def test_other_mappings_of_the_paper(mapping: str, wanted: tuple[tuple[float, float], ...]) -> None:
    """linf: min(2 w, 1) * 8 - 4, the largest at 4; linear: 8 w - 4; for weights (.5, .5), (.8, .2) and (.3, .7)."""
    writing = writer(mapping=mapping)
    for weights, scores in zip(((0.5, 0.5), (0.8, 0.2), (0.3, 0.7)), wanted, strict=True):
        assert writing.wanted(np.array(weights)) == pytest.approx(scores)


def test_scores_that_were_reached() -> None:
    """Of four responses in a square, the best half along each axis and the diagonal is one side of the square.

    The response worth most of all is far off and alone: a share of one response asks for just that one.
    """
    corners = np.array([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]])
    axes = np.eye(2)
    sides = np.array(reached_scores(corners, axes, 0.5)).reshape(-1, 2)
    assert sides.tolist() == [[0.0, 1.0], [1.0, 0.0]]
    writing = writer(mapping="reached", reached=tuple(sides.ravel()))
    assert writing.wanted(np.array([0.9, 0.1])).tolist() == [1.0, 0.0]
    assert writing.wanted(np.array([0.1, 0.9])).tolist() == [0.0, 1.0]
    alone = np.concatenate([corners, [[5.0, 5.0]]])
    assert reached_scores(alone, axes, 0.01) == (5.0, 5.0)


def test_a_stored_policy_asks_for_the_same_scores() -> None:
    rule = Conditioned(writer(mapping="reached", reached=(1.0, 0.0, 0.0, 1.0), words=("low", "high")))
    assert from_json(json.loads(json.dumps(to_json(rule)))) == rule


@pytest.mark.parametrize("mapping", ["reached", "linf", "l2", "linear"])
def test_wanted_scores_rise_with_their_weight(mapping: str) -> None:
    grid = ma.grid(2, steps=10)
    cloud = np.random.default_rng(0).standard_normal((500, 2))
    writing = writer(mapping=mapping, reached=reached_scores(cloud, grid, 0.05))
    asked = np.array([writing.wanted(w) for w in grid])
    assert (np.diff(asked[:, 0]) <= 0).all() and (np.diff(asked[:, 1]) >= 0).all()


def test_goals_lie_near_the_front() -> None:
    """All entries but the lowest are at the top, the lowest is anywhere between its limits."""
    low, high = np.array([-2.0, -3.0, 0.0]), np.array([1.0, 2.0, 5.0])
    goals = wanted_scores(low, high, 500, np.random.default_rng(0))
    assert ((goals >= low) & (goals <= high)).all()
    assert ((goals == high).sum(axis=1) >= 2).all()
    assert (goals.min(axis=0) < low + 0.3 * (high - low)).all()  # every objective is given up sometimes


def test_a_good_score_on_one_objective_is_enough() -> None:
    """Of independent objectives each keeps at least 30 %, and 1 - .7 ** 2 = 51 % survive."""
    scores = np.random.default_rng(0).standard_normal((5000, 2))
    keep = RiC(quantile=0.7).worth_keeping(scores)
    assert keep.mean() == pytest.approx(0.51, abs=0.02)
    for column in scores.T:
        assert keep[column >= np.quantile(column, 0.7)].all()


def early(prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
    return [float(r[:1] in tuple("abcdefghijklm")) for r in responses]


def even(prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
    return [float(r[:1] in tuple("bdfhjlnprtvxz")) for r in responses]


@pytest.mark.slow
def test_one_policy_gives_what_it_is_asked_for() -> None:
    """Asked for one of two yes-or-no objectives at its top and the other at its bottom, it gives just that."""
    study = replace(problem(), objectives=(ma.Objective("early", early), ma.Objective("even", even)))
    method = RiC(
        iterations=1,
        mapping="linf",
        sampling=ma.Sampling(samples=64, max_new_tokens=1),
        training=ma.Training(steps=200, batch_size=32, learning_rate=1e-2, warmup=0.05),
    )
    engine = Engine(study.policy, seed=0, device="cpu")
    policies = method.fit(study, ma.grid(2, 1), engine)
    one, other = expected_rewards(engine, policies, ma.grid(2, 1), (early, even))
    assert one[0] > 0.6 and one[1] < 0.2 and other[0] < 0.2 and other[1] > 0.6
    assert policies.facts["iterations"][0]["kept"] >= 0.3


def test_responses_of_pairs_join_the_offline_data() -> None:
    pairs = ma.PreferencePairs(prompts=("pick: ", "new: "), chosen=("a", "b"), rejected=("c", "d"), labels=np.ones(2))
    study = ma.Problem(
        policy=problem().policy,
        objectives=(ma.Objective("a", along, pairs=pairs), problem().objectives[1]),
        prompts=["pick: "],
    )
    method = RiC(
        iterations=0,
        sampling=ma.Sampling(samples=3, max_new_tokens=1),
        training=ma.Training(steps=2, batch_size=4, lora=ma.LoRA(rank=2)),
    )
    names: list[str] = []
    engine = Engine(study.policy, on_step=lambda name, record, steps: names.append(name))
    served = method.fit(study, ma.grid(2, 1), engine).for_weights([0.5, 0.5])
    assert set(names) == {"ric-offline"} and served.how == "conditioned"
    assert served.text is not None and served.text.after.startswith(" <a> ")


def test_refusals() -> None:
    with pytest.raises(ma.DefinitionError) as caught:
        RiC(iterations=-1, quantile=1.0, edge=0.0, mapping="best", place="inside")  # type: ignore[arg-type]
    assert len(caught.value.problems) == 5 and "must be one of reached, linf, l2, linear" in str(caught.value)
