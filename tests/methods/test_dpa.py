"""DPA: directions as text and back, choosing the best of n, and one policy that turns with the direction."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

import moalign as ma
from moalign.data.prompt_text import PromptText
from moalign.errors import NumericsWarning
from moalign.methods import DPA
from moalign.methods.conditioning import DirectionText
from moalign.methods.directions import Cone, Orthant
from moalign.methods.dpa import best_of, iteration_facts
from moalign.methods.imitation import Candidates
from moalign.policy.engine import Engine
from tests.methods.conditioning import expected_rewards, problem


def at(degrees: np.ndarray | float) -> np.ndarray:
    radians = np.deg2rad(degrees)
    return np.stack([np.cos(radians), np.sin(radians)], axis=-1)


def candidates(rewards: list[list[float]], prompt_of: list[int], **changes: object) -> Candidates:
    n = len(rewards)
    fields = {"texts": ["x"] * n, "finished": np.ones(n, dtype=bool), **changes}
    return Candidates(
        prompt_of=np.array(prompt_of), completions=tuple((i,) for i in range(n)), rewards=np.array(rewards), **fields
    )  # type: ignore[arg-type]


def test_directions_are_written_as_hundredths_and_read_back() -> None:
    """The rounded hundredths of the paper's table, and an angle off by less than 0.6 degrees everywhere."""
    writer = DirectionText(("helpful", "verbose"))
    written = {-45: (71, -71), -30: (87, -50), -15: (97, -26), 0: (100, 0), 15: (97, 26), 45: (71, 71)}
    for degrees, (h, v) in written.items():
        text = writer(at(degrees))
        assert text == PromptText(before=f"Maximise weighted rating = helpful*{h} + verbose*{v}. ")
    for degrees in range(-45, 46):
        back = writer.read(writer(at(degrees)))
        assert np.rad2deg(np.arccos(min(1.0, back @ at(degrees)))) < 0.6


def test_words_can_stand_for_numbers() -> None:
    """Seven words count to six: (.8, .6) is 4.8 and 3.6, so words 5 and 4."""
    words = tuple("zero one two three four five six".split())
    writer = DirectionText(("a", "b"), prefix="", suffix=" ", words=words)
    assert writer(np.array([0.8, 0.6])) == PromptText(before="five four ")
    assert writer.read(writer(np.array([0.8, 0.6]))) == pytest.approx(np.array([5, 4]) / np.sqrt(41))
    with pytest.raises(ma.DefinitionError, match="numbers from 0 on"):
        writer(at(-20.0))
    with pytest.raises(ma.DefinitionError, match="different words without white space"):
        DPA(words=("one", "two words"))


def test_only_the_direction_counts() -> None:
    writer = DirectionText(("a", "b"))
    weights = np.array([0.7, -0.2])
    assert writer(weights) == writer(3.7 * weights) == writer(weights / np.linalg.norm(weights))
    rewards = candidates([[1.0, 0.0], [0.2, 0.9], [0.6, 0.6]], [0, 0, 0])
    for scale in (0.1, 1.0, 50.0):
        assert best_of(rewards, np.array([0]), scale * at(40)[None]).tolist() == [2]


def test_cut_responses_count_where_most_are_cut() -> None:
    """A cut response loses against whole ones; where being cut is the rule, it may win."""
    rewards, best = [[0.1, 0.0], [0.2, 0.0], [0.9, 0.0], [0.3, 0.0]], np.array([0])
    mostly_whole = candidates(rewards, [0] * 4, finished=np.array([True, True, False, True]))
    mostly_cut = candidates(rewards, [0] * 4, finished=np.array([True, False, False, False]))
    assert best_of(mostly_whole, best, at(0)[None]).tolist() == [3]
    assert best_of(mostly_cut, best, at(0)[None]).tolist() == [2]


def test_best_of_n() -> None:
    """The largest v . r; the opposite direction picks the smallest; a shift of a prompt's rewards changes nothing."""
    rewards = [[1.0, 0.0], [0.2, 0.9], [0.6, 0.6], [0.0, 0.0], [5.0, 5.0]]
    pool = candidates(rewards, [0, 0, 0, 0, 1])
    groups, directions = np.array([0, 0, 0, 0, 1]), np.stack([at(0), at(90), at(45), -at(45), at(0)])
    assert best_of(pool, groups, directions).tolist() == [0, 1, 2, 3, 4]
    shifted = candidates([[r[0] - 7, r[1] + 3] for r in rewards], [0, 0, 0, 0, 1])
    assert best_of(shifted, groups, directions).tolist() == [0, 1, 2, 3, 4]
    equal = candidates([[1.0, 0.0], [1.0, 0.0]], [0, 0])
    assert best_of(equal, np.array([0]), at(0)[None]).tolist() == [0]


def test_best_of_fewer_is_best_of_a_random_part() -> None:
    """Best of 3 of 30: on average the order statistics weighed by how often each is the best of three."""
    rng = np.random.default_rng(0)
    pool = candidates(rng.standard_normal((30, 2)).tolist(), [0] * 30)
    directions = np.tile(at(0.0), (4000, 1))
    groups = np.zeros(4000, dtype=int)
    chosen = pool.rewards[best_of(pool, groups, directions, 3, rng), 0]
    pairs = np.sort(pool.rewards[:, 0])
    weight = np.array([(k * (k - 1)) / (30 * 29 * 28 / 3) for k in range(30)])  # P(the k-th smallest of 30 wins)
    assert weight.sum() == pytest.approx(1)
    assert chosen.mean() == pytest.approx(float(pairs @ weight), abs=0.04)
    assert best_of(pool, groups[:1], directions[:1], 30, rng)[0] == pool.rewards[:, 0].argmax()


def test_cut_and_blank_responses_stand_back_unless_there_are_no_others() -> None:
    rewards = [[3.0, 0.0], [2.0, 0.0], [1.0, 0.0], [4.0, 0.0]]
    pool = candidates(rewards, [0, 0, 0, 1], texts=["x", " ", "x", ""], finished=np.array([False, True, True, False]))
    assert best_of(pool, np.array([0, 1]), np.stack([at(0), at(0)])).tolist() == [2, 3]


def test_the_gain_is_that_of_order_statistics() -> None:
    """For Gaussian rewards best-of-n gains E[max of n] standard deviations: 1.163 for n = 5, along any direction."""
    rng = np.random.default_rng(0)
    prompts, n = 4000, 5
    pool = candidates(rng.standard_normal((prompts * n, 2)).tolist(), np.repeat(np.arange(prompts), n).tolist())
    directions = at(rng.uniform(-45, 45, prompts))
    best = np.concatenate(
        [p * n + (pool.rewards[p * n : (p + 1) * n] @ directions[p]).argmax(keepdims=True) for p in range(prompts)]
    )
    facts = iteration_facts(pool, np.arange(prompts), directions, best)
    assert facts["gain"] == pytest.approx(1.163, abs=0.04)
    assert abs(facts["correlations"][0][1]) < 0.05


@pytest.mark.parametrize("directions", [Cone(), Cone(axis=1, degrees=20), Orthant()])
@pytest.mark.parametrize("objectives", [2, 3])
def test_drawn_directions_are_unit_vectors_that_are_covered(directions: Cone | Orthant, objectives: int) -> None:
    drawn = directions.draw(objectives, 200, np.random.default_rng(1))
    assert drawn.shape == (200, objectives)
    assert np.linalg.norm(drawn, axis=1) == pytest.approx(np.ones(200))
    assert directions.covers(drawn).all() and not directions.covers(-drawn).any()


@pytest.mark.slow
def test_one_policy_turns_with_the_direction() -> None:
    """Realised rewards across the axis rise with the angle, held-out angles lie between, every angle gains.

    The best letter for an angle is another one for each, so following the direction needs reading the number.
    """
    study = problem()
    method = DPA(
        directions=Cone(),
        iterations=1,
        first_directions=64,
        sampling=ma.Sampling(samples=64, max_new_tokens=1),
        prefix="",
        training=ma.Training(steps=300, batch_size=32, learning_rate=1e-2, warmup=0.05),
    )
    degrees = np.arange(-45.0, 46.0, 7.5)
    engine = Engine(study.policy, seed=0, device="cpu")
    policies = method.fit(study, at(degrees), engine)
    assert len(policies) == 1
    reached = expected_rewards(engine, policies, at(degrees))
    base = expected_rewards(engine, None, at(degrees))
    assert spearmanr(degrees, reached[:, 1]).statistic >= 0.9
    gains = ((reached - base) * at(degrees)).sum(axis=1)
    assert (gains > 0.4).all()
    assert policies.facts["iterations"][0]["gain"] > 0.3


@pytest.mark.slow
def test_iterations_and_resuming_of_their_samples() -> None:
    study = problem()
    method = DPA(
        directions=Cone(),
        iterations=2,
        later_directions=2,
        decay=0.5,
        sampling=ma.Sampling(samples=4, max_new_tokens=1),
        training=ma.Training(steps=4, batch_size=4, lora=ma.LoRA(rank=2)),
    )
    names: list[str] = []
    engine = Engine(study.policy, on_step=lambda name, record, steps: names.append(name))
    policies = method.fit(study, at(0.0)[None], engine)
    assert list(dict.fromkeys(names)) == ["dpa-1", "dpa-2"]
    facts = policies.facts["iterations"]
    assert [f["candidates"] for f in facts] == [12, 24]
    served = policies.for_weights([0.6, -0.2])
    assert served.how == "conditioned" and served.text is not None and "a*95 + b*-32" in served.text.before


def test_refusals_and_warnings() -> None:
    with pytest.raises(ma.DefinitionError) as caught:
        DPA(iterations=0, decay=2.0, sampling=ma.Sampling(samples=1))
    assert len(caught.value.problems) == 3
    assert "2 short names for 3" not in str(DPA(names=("x",)).problems(problem(), at(0)[None]))
    assert "1 short names for 2 objectives" in DPA(names=("x",)).problems(problem(), at(0)[None])[0]
    with pytest.raises(ma.DefinitionError, match="degrees"):
        Cone(degrees=0)
    with pytest.warns(NumericsWarning, match=r"1 of 2 weight vectors lie outside"):
        DPA(directions=Cone())._warn_outside(at(np.array([0.0, 80.0])))


def test_a_study_takes_directions_with_negative_entries_and_refuses_no_direction() -> None:
    base = {"name": "x", "problem": problem(), "evaluation": ma.Evaluation(prompts=["a ", "b "])}
    study = ma.Study(method=DPA(), weights=[{"a": 0.9, "b": -0.4}], **base)
    assert study.weights.tolist() == [[0.9, -0.4]]
    with pytest.raises(ma.DefinitionError, match="has no direction"):
        ma.Study(method=DPA(), weights=[[0.0, 0.0]], **base)
