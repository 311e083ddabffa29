"""The comparison of methods: an untrained policy scores zero, summaries are interquartile means."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import moalign as ma
from moalign.comparison import FINE, WEIGHTS, Outcome, compare, contenders, judge, optimum_curve, summary
from moalign.demo import toy_facts, toy_policy
from moalign.figures.methods import method_figure
from moalign.methods import PolicySet
from moalign.policy.adapters import AdapterStack
from moalign.policy.engine import Engine

OUTCOME = Outcome(
    method="A", seed=0, shares=(0.5, 0.7), hypervolume=(0.9, 0.8, 1.0), at_equal_kl=0.8, expected_utility=0.9,
    worst_group=0.4, policies=2, trained=100, generated=50, seconds=2.0, points=((0.5, 0.2),),
)  # fmt: skip


@pytest.mark.slow
def test_a_policy_that_learned_nothing_has_nothing_of_the_optimum() -> None:
    facts = toy_facts(0)
    engine = Engine(toy_policy(0), seed=0, device="cpu")
    stack = AdapterStack.initial(engine.language_model.model, ma.LoRA(rank=2), 1, 0)
    policies = PolicySet(stack, np.full((1, 3), 1 / 3), (("none", 0),))
    found = judge("nothing", 0, policies, engine, facts, {"trained": 0, "generated": 0}, 0.0)
    assert found.shares == pytest.approx([0] * len(WEIGHTS), abs=1e-3)
    assert found.worst_group == pytest.approx(0, abs=1e-3) and found.at_equal_kl == pytest.approx(0, abs=1e-3)
    assert found.expected_utility == pytest.approx(0, abs=1e-3) and 0 < found.hypervolume[0] < 0.5
    curve = optimum_curve(facts)
    assert all(np.diff([k for k, _ in curve]) > 0) and all(np.diff([g for _, g in curve]) > 0)


def test_the_summary_has_one_row_per_method_with_intervals_over_seeds() -> None:
    others = [
        replace(OUTCOME, seed=s, shares=(0.5 + 0.1 * s, 0.7 + 0.1 * s), worst_group=0.4 + 0.1 * s) for s in (1, 2)
    ]
    rows = summary([OUTCOME, *others, replace(OUTCOME, method="B")])
    assert [r["method"] for r in rows] == ["A", "B"] and rows[0]["seeds"] == 3
    assert rows[0]["share"]["value"] == pytest.approx(0.7) and rows[0]["lowest_share"] == 0.5
    assert rows[0]["share"]["low"] < 0.7 < rows[0]["share"]["high"]
    assert rows[0]["worst_group"]["value"] == pytest.approx(0.5)
    assert rows[1]["hypervolume"] == {"value": 0.9, "low": 0.8, "high": 1.0}
    assert rows[0]["trained"] == 100 and len(FINE) == 231


def test_every_contender_is_known_and_others_are_refused() -> None:
    assert len(contenders(10)) == 8
    with pytest.raises(ma.DefinitionError, match="unknown method 'PPO'; compare knows MODPO, MORLHF"):
        compare(0, ["PPO"])


def test_the_figure_shows_every_method_beside_the_optimum() -> None:
    drawn = method_figure({"A<b>": [(0.1, 0.2)], "B": [(0.3, 0.4)]}, [(0.0, 0.0), (1.0, 1.0)])
    assert [trace.name for trace in drawn.data] == ["exact optimum, mean", "A&lt;b&gt;", "B"]
