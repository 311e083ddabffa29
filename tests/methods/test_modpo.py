"""MODPO on the engine: the exact optimum on an enumerable set, grouping of policies, refusals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

import moalign as ma
from moalign.data import PreferencePairs
from moalign.errors import NumericsWarning
from moalign.methods import MODPO
from moalign.policy.engine import Engine
from moalign.preferences import SampledPairs, preference_data
from moalign.scoring import Scorer
from tests.models import tiny_model, tiny_tokenizer
from tests.tiny import shortness, vowels

ANSWERS = "abcde"
REWARDS = {"first": dict(zip(ANSWERS, (1.0, 0.3, 0.0, -0.4, -1.0), strict=True)),
           "second": dict(zip(ANSWERS, (-0.8, 0.9, 0.1, 0.5, 0.0), strict=True)),
           "third": dict(zip(ANSWERS, (0.2, -0.5, 0.8, 0.0, 0.3), strict=True))}  # fmt: skip


def first(prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
    return [REWARDS["first"].get(r, 0.0) for r in responses]


def second(prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
    return [REWARDS["second"].get(r, 0.0) for r in responses]


def third(prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
    return [REWARDS["third"].get(r, 0.0) for r in responses]


def exact_pairs(name: str, scale: float) -> PreferencePairs:
    """All pairs of answers, labelled with the exact Bradley-Terry probability."""
    pairs = [(a, b) for i, a in enumerate(ANSWERS) for b in ANSWERS[:i]]
    differences = np.array([REWARDS[name][a] - REWARDS[name][b] for a, b in pairs])
    return PreferencePairs(
        prompts=("pick: ",) * len(pairs),
        chosen=tuple(a for a, _ in pairs),
        rejected=tuple(b for _, b in pairs),
        labels=1 / (1 + np.exp(-scale * differences)),
    )


def problem(**label_scales: float) -> ma.Problem:
    functions = {"first": first, "second": second, "third": third}
    return ma.Problem(
        policy=ma.Policy(tiny_model(), tiny_tokenizer()),
        objectives=tuple(
            ma.Objective(n, f, pairs=exact_pairs(n, label_scales.get(n, 1.0)), label_scale=label_scales.get(n, 1.0))
            for n, f in functions.items()
        ),
    )


@pytest.mark.slow
@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_every_policy_reaches_the_gibbs_optimum_on_an_enumerable_set(scale: float) -> None:
    """On five answers, the trained policies are softmax(log reference + w . r / beta), up to the set's total mass.

    Labels are exact, so this holds for every beta, weight and label scale; with unequal scales only if each policy's
    own scale multiplies its whole margin.
    """
    study = problem(first=scale, second=1.0, third=1.5)
    weights, beta = ma.grid(3, steps=3), 0.5
    engine = Engine(study.policy, seed=0, device="cpu")
    training = ma.Training(steps=400, batch_size=10, learning_rate=2e-2, warmup=0.05, lora=ma.LoRA(rank=8, alpha=16))
    policies = MODPO(beta=beta, training=training).fit(study, weights, engine)
    assert np.array_equal(policies.weights, weights)
    responses = engine.encode(["pick: "] * 5, list(ANSWERS))
    trained = engine.log_probs(responses, policies.stack)
    reference = engine.reference_log_probs(responses)
    rewards = np.array([[REWARDS[n][a] for n in ("first", "second", "third")] for a in ANSWERS])
    for row, w in zip(trained, weights, strict=True):
        wanted = np.exp(reference + rewards @ w / beta)
        got = np.exp(row)
        assert got / got.sum() == pytest.approx(wanted / wanted.sum(), abs=4e-3), w


def test_objectives_that_label_the_same_pairs_train_as_one_stack() -> None:
    names: list[str] = []
    engine = Engine(problem().policy, on_step=lambda name, record, steps: names.append(name))
    training = ma.Training(steps=1, batch_size=4, lora=ma.LoRA(rank=2))
    MODPO(training=training).fit(problem(), ma.grid(3, steps=1), engine)
    assert names == ["modpo-first-second-third"]

    names.clear()
    shared = problem().objectives
    short = ma.Objective("short", shortness, pairs=exact_pairs("first", 1.0).select(range(6)))
    split = ma.Problem(policy=problem().policy, objectives=(*shared[:2], short))
    policies = MODPO(training=training).fit(split, ma.grid(3, steps=1), engine)
    assert names == ["modpo-first-second", "modpo-short"]
    assert [name for name, _ in policies.trainings] == ["modpo-first-second"] * 2 + ["modpo-short"]


def test_a_policy_is_the_same_alone_and_in_the_stack_whatever_its_place() -> None:
    training = ma.Training(steps=5, batch_size=4, learning_rate=1e-3, lora=ma.LoRA(rank=2))
    method = MODPO(beta=0.5, training=training)
    engine = Engine(problem().policy, seed=1, device="cpu")
    weights = np.array([[0.2, 0.5, 0.3], [0.0, 0.0, 1.0], [0.6, 0.2, 0.2]])
    stack = method.fit(problem(), weights, engine).stack
    for i in range(3):
        alone = method.fit(problem(), weights[i : i + 1], engine).stack
        assert (stack.matrix[i] - alone.matrix[0]).abs().max() <= 1e-6


def test_at_a_corner_margins_play_no_role() -> None:
    """With all weight on one objective MODPO is DPO on its pairs: rewards of the others change nothing."""
    training = ma.Training(steps=3, batch_size=4, learning_rate=1e-2, lora=ma.LoRA(rank=2))
    engine = Engine(problem().policy)
    corner = np.array([[1.0, 0.0]])
    one, other = (
        ma.Problem(
            policy=problem().policy,
            objectives=(ma.Objective("a", first, pairs=exact_pairs("first", 1.0)), ma.Objective("b", reward=reward,
                        pairs=exact_pairs("second", 1.0))),
        )
        for reward in (second, shortness)
    )  # fmt: skip
    a, b = (MODPO(training=training).fit(p, corner, engine).stack.matrix for p in (one, other))
    assert (a == b).all()


def test_given_labels_merge_over_objectives_whichever_way_round() -> None:
    """(a over b on `first`) and (b over a on `second`) are one row with labels 1 and 0; a repeated vote stays a row."""

    def pairs(*rows: tuple[str, str]) -> PreferencePairs:
        return PreferencePairs(
            prompts=("p",) * len(rows), chosen=tuple(r[0] for r in rows), rejected=tuple(r[1] for r in rows),
            labels=np.ones(len(rows)),
        )  # fmt: skip

    merged = ma.Problem(
        policy=problem().policy,
        objectives=(
            ma.Objective("first", first, pairs=pairs(("a", "b"), ("a", "b"), ("c", "a"))),
            ma.Objective("second", second, pairs=pairs(("b", "a"), ("d", "e"))),
        ),
    )
    engine = Engine(merged.policy)
    data = preference_data(merged, Scorer(merged, engine), engine, SampledPairs())
    assert np.array_equal(data.pair_columns["labels"], [[1, 0], [1, np.nan], [1, np.nan], [np.nan, 1]], equal_nan=True)
    assert len(data.responses) == 5
    texts = [engine.language_model.decode_response([], c) for c in data.responses.completions]
    assert [[texts[i] for i in pair] for pair in data.pairs] == [["a", "b"], ["a", "b"], ["c", "a"], ["d", "e"]]
    assert data.response_columns["rewards"][texts.index("d")].tolist() == [-0.4, 0.5]


def test_sampled_labels_follow_bradley_terry() -> None:
    """With many votes the label of a pair approaches sigmoid(label_scale * reward difference)."""
    sampled = SampledPairs(sampling=ma.Sampling(samples=6, max_new_tokens=6), votes=4000)
    made = ma.Problem(
        policy=problem().policy,
        objectives=(ma.Objective("vowels", vowels, label_scale=0.5), ma.Objective("short", shortness)),
        prompts=["one ", "two ", "one "],  # a repeated prompt is sampled once
    )
    engine = Engine(made.policy)
    data = preference_data(made, Scorer(made, engine), engine, sampled)
    assert len(data.responses.prompts) == 2
    rewards = data.response_columns["rewards"]
    difference = rewards[data.pairs[:, 0]] - rewards[data.pairs[:, 1]]
    expected = 1 / (1 + np.exp(-difference * [0.5, 1.0]))
    assert np.abs(data.pair_columns["labels"] - expected).max() < 5 * 0.5 / np.sqrt(4000)
    assert len(data) <= 2 * 15 and {tuple(sorted(p)) for p in data.pairs.tolist()}.__len__() == len(data)


def test_refusals_and_warnings() -> None:
    weights = ma.grid(3, steps=1)
    assert (
        "divides by the weight of the trained objective 'second' (index 1), but weights[0]"
        in (MODPO(trained="second").problems(problem(), weights)[0])
    )
    assert "'nothing'" in MODPO(trained="nothing").problems(problem(), weights)[0]
    assert MODPO().problems(problem(), weights) == []
    with pytest.raises(ma.DefinitionError, match=r"beta must be > 0, got 0"):
        MODPO(beta=0)
    with pytest.raises(ma.DefinitionError, match="label_smoothing"):
        MODPO(label_smoothing=0.5)
    training = ma.Training(steps=1, batch_size=4, lora=ma.LoRA(rank=2))
    with pytest.warns(NumericsWarning, match=r"smallest 0\.01"):
        MODPO(trained="first", training=training).fit(
            problem(), np.array([[0.01, 0.99, 0.0]]), Engine(problem().policy)
        )
