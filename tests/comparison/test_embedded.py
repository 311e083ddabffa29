"""The comparison of methods: an untrained policy scores zero, summaries are interquartile means."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

import moalign as ma
from moalign.comparison import embedded as comparison
from moalign.comparison.contest import Costs
from moalign.comparison.embedded import (
    FINE,
    WEIGHTS,
    compare,
    constrained_shares,
    contenders,
    group_shares,
    judge,
    optimum_curve,
)
from moalign.comparison.outcomes import Outcome, load_outcomes, save_outcome, summary
from moalign.demo import toy_facts, toy_policy
from moalign.figures.methods import method_figure
from moalign.methods import PolicySet
from moalign.oracle import maximin, policy_values
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
    found = judge(facts, "nothing", 0, policies, engine, Costs())
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


def test_constrained_scores_are_summed_up_where_there_are_any() -> None:
    own = [replace(OUTCOME, seed=s, constrained=0.9 + 0.02 * s, violation=0.01 * s) for s in range(3)]
    rows = summary([*own, replace(OUTCOME, method="B")])
    assert rows[0]["constrained"]["value"] == pytest.approx(0.92) and rows[0]["violation"] == pytest.approx(0.02)
    assert rows[1]["constrained"] is None and rows[1]["violation"] is None


def test_only_the_constrained_optimum_has_all_of_its_gain() -> None:
    """One prompt, four answers, max R_1 - 0.5 KL under R_2 >= .75: the optimum is the tilt by (1, 1.427010).

    More reward at the price of the bound, and more of the bound than was asked for, are both less than the optimum.
    """
    rewards = torch.tensor([[[1, 0], [0.8, 0.6], [0.5, 0.9], [0, 1]]], dtype=torch.float64)
    base = torch.full((1, 4), 0.25, dtype=torch.float64).log()
    tilts = torch.tensor([[1, 1.427010], [1, 0], [1, 2.5], [0, 0]], dtype=torch.float64)
    log_policy = (base + torch.einsum("pam,km->kpa", rewards, tilts) / 0.5).log_softmax(-1)
    found = constrained_shares(log_policy, [0] * 4, np.tile([9.0, 0.75], (4, 1)), rewards, 0.5, base)
    shares, short = zip(*found, strict=True)
    assert shares[0] == pytest.approx(1, abs=1e-5) and shares[3] == pytest.approx(0, abs=1e-9)
    assert all(share < 0.99 for share in shares[1:])
    assert short[1] == pytest.approx(0.75 - 0.399634, abs=1e-6) and short[0] == pytest.approx(0, abs=1e-6)
    assert short[2] == 0


def test_only_the_maximin_optimum_has_all_of_the_worst_groups_gain() -> None:
    """Two groups, two answers, r = (1, 0) and (0, 3), uniform base, beta 0.1: pi = (3/4, 1/4), value 0.7369."""
    rewards = torch.tensor([[[1, 0], [0, 3]]], dtype=torch.float64)
    best = maximin(rewards, 0.1)
    log_policy = torch.tensor([[0.75, 0.25], [0.5, 0.5], [0.6, 0.4], [0.9, 0.1]], dtype=torch.float64).log()
    found = policy_values(log_policy[:, None], rewards)
    reference = found.rewards[1].numpy()
    both = [group_shares(found.rewards[[k]].numpy(), found.kl[[k]].numpy(), reference, best) for k in range(4)]
    assert best.value == pytest.approx(0.7369, abs=1e-4)
    assert both[0] == pytest.approx((1, 1), abs=1e-5) and both[1] == pytest.approx((0, 0), abs=1e-9)
    assert 0 < both[2][0] < 1 and both[3][0] < 0  # too little, and at the price of the other group
    assert group_shares(found.rewards.numpy(), found.kl.numpy(), reference, best) == both[0]


def test_what_is_known_of_some_seeds_only_is_not_summed_up() -> None:
    [row] = summary([OUTCOME, replace(OUTCOME, seed=1, others=0.9)])
    assert row["others"] is None and row["saddle_gap"] is None
    [row] = summary([replace(OUTCOME, seed=s, others=0.9, saddle_gap=0.01 * s) for s in range(3)])
    assert row["others"]["value"] == pytest.approx(0.9) and row["saddle_gap"] == pytest.approx(0.02)


def test_outcomes_come_back_from_their_file(tmp_path: Path) -> None:
    file = tmp_path / "outcomes.jsonl"
    assert load_outcomes(file) == []
    for outcome in (OUTCOME, replace(OUTCOME, seed=1, constrained=0.9, violation=0.01)):
        save_outcome(file, outcome)
    assert load_outcomes(file) == [OUTCOME, replace(OUTCOME, seed=1, constrained=0.9, violation=0.01)]
    for line in ("{", '{"method": "A"}', "[]"):
        file.write_text(line)
        with pytest.raises(ma.DataError, match=r"outcomes\.jsonl, line 1: not an outcome"):
            load_outcomes(file)


@dataclass(frozen=True)
class Untrained:
    steps: int

    def fit(self, problem: ma.Problem, weights: np.ndarray, engine: Engine) -> PolicySet:
        return PolicySet(AdapterStack.initial(engine.language_model.model, ma.LoRA(rank=2), 1, 0), weights[:1])


@pytest.mark.slow
def test_a_saved_method_is_not_run_again_unless_its_settings_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparison, "contenders", lambda steps: {"A": Untrained(steps)})
    monkeypatch.setattr(comparison, "judge", lambda facts, name, seed, *rest: replace(OUTCOME, method=name, seed=seed))
    run: list[str] = []

    def again(steps: int) -> list[Outcome]:
        return compare(0, ["A"], steps, tmp_path / "o.jsonl", on_method=lambda name, seed: run.append(name))

    first = again(1)
    assert again(1) == first and run == ["A"]
    assert again(2) != first and run == ["A"] * 2 and len(load_outcomes(tmp_path / "o.jsonl")) == 2


def test_every_contender_is_known_and_others_are_refused() -> None:
    assert len(contenders(10)) == 8
    with pytest.raises(ma.DefinitionError, match="unknown method 'PPO'; compare knows MODPO, MORLHF"):
        compare(0, ["PPO"])


def test_the_figure_shows_every_method_beside_the_optimum() -> None:
    drawn = method_figure({"A<b>": [(0.1, 0.2)], "B": [(0.3, 0.4)]}, [(0.0, 0.0), (1.0, 1.0)])
    assert [trace.name for trace in drawn.data] == ["exact optimum, mean", "A&lt;b&gt;", "B"]
