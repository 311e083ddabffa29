"""The comparison of methods: summaries are interquartile means, and what was saved is not run again."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

import moalign as ma
from moalign.comparison import embedded as comparison
from moalign.comparison.embedded import compare, contenders
from moalign.comparison.exact import FINE
from moalign.comparison.outcomes import Outcome, load_outcomes, save_outcome, summary
from moalign.figures.methods import method_figure
from moalign.methods import PolicySet
from moalign.policy.adapters import AdapterStack
from moalign.policy.engine import Engine

OUTCOME = Outcome(
    method="A", seed=0, shares=(0.5, 0.7), hypervolume=(0.9, 0.8, 1.0), at_equal_kl=0.8, expected_utility=0.9,
    worst_group=0.4, policies=2, trained=100, generated=50, seconds=2.0, points=((0.5, 0.2),),
)  # fmt: skip


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
