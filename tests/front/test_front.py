"""The front: membership, choices, tables, and every reason to refuse."""

from __future__ import annotations

import csv
import doctest
import importlib
import json
import math
import subprocess
import sys

import numpy as np
import pytest

from moalign.errors import DefinitionError, NumericsWarning
from moalign.front import Front, Interval, Point, hypervolume

# Trial order differs from position order on purpose: trials 4, 2, 7, 5.
VALUES = [[1.0, 3.0], [2.0, 2.0], [3.0, 1.0], [2.0, 1.0]]
WEIGHTS = [[0.0, 1.0], [0.5, 0.5], [1.0, 0.0], [0.7, 0.3]]
TRIALS = [4, 2, 7, 5]


def make_point(trial: int, values, weights=(0.5, 0.5), **fields) -> Point:
    defaults = {"standard_errors": np.full(len(values), 0.1), "kl": 1.0, "kl_standard_error": 0.1}
    return Point(trial=trial, values=np.array(values), weights=np.array(weights), **(defaults | fields))


def make_front(values=VALUES, weights=WEIGHTS, trials=TRIALS, feasible=(), **fields) -> Front:
    points = [
        make_point(trial, v, w, feasible=not feasible or feasible[i])
        for i, (trial, v, w) in enumerate(zip(trials, values, weights, strict=True))
    ]
    defaults = {"study": "demo", "objectives": ("helpful", "harmless"), "reference_point": np.zeros(2)}
    return Front(points=tuple(points), **(defaults | fields))


class Handle:
    """Stands in for a trained policy."""

    def export(self, path):
        return ("exported", path)

    def generate(self, prompts, **options):
        return [f"{prompt}!" for prompt in prompts], options


def test_arrays_follow_the_order_of_the_points() -> None:
    front = make_front()
    assert front.F.tolist() == VALUES and front.X.tolist() == WEIGHTS and front.KL.tolist() == [1.0] * 4
    assert len(front) == 4 and front[1].trial == 2 and [point.trial for point in front] == TRIALS
    assert front[-1] is front.points[3]


def test_members_and_contributions() -> None:
    """(2,1) is dominated by (2,2). Volume above the origin 3 + 2 + 1; each step owns one unit square."""
    front = make_front()
    assert front.non_dominated().tolist() == [True, True, True, False]
    assert [point.trial for point in front.front_points] == [4, 2, 7]
    assert front.hypervolume().value == 6
    assert front.contributions().tolist() == [1, 1, 1, 0]


def test_a_point_outside_the_limits_counts_nowhere_but_stays() -> None:
    """Without (2,2) the point (2,1) is dominated by (3,1) still; the volume is 3*1 + 2*1 = 5."""
    front = make_front(feasible=[True, False, True, True])
    assert front.non_dominated().tolist() == [True, False, True, False]
    assert front.hypervolume().value == 5 and len(front) == 4
    assert front.contributions()[1] == 0
    assert front.nearest([0.5, 0.5]).trial == 5  # trial 2 sits exactly there, but is not feasible


def test_history_is_in_trial_order_and_never_falls() -> None:
    """Trials 2, 4, 5, 7: (2,2) gives 4; (1,3) adds 1; (2,1) adds nothing; (3,1) adds 1."""
    assert make_front().history().tolist() == [4, 5, 5, 6]
    assert make_front(feasible=[True, False, True, True]).history().tolist() == [0, 3, 4, 5]


def test_history_equals_the_hypervolume_of_every_beginning() -> None:
    """Many ties and repetitions, so that replacing members of the running front is exercised."""
    values = np.random.default_rng(0).integers(1, 6, (60, 3)).astype(float)
    points = tuple(make_point(i, v, ()) for i, v in enumerate(values))
    front = Front(study="s", objectives=("a", "b", "c"), points=points, reference_point=np.zeros(3))
    expected = [hypervolume(values[: i + 1], np.zeros(3)) for i in range(60)]
    np.testing.assert_allclose(front.history(), expected, rtol=1e-12)


def test_interval_needs_prompts_and_contains_the_value() -> None:
    assert math.isnan(make_front().hypervolume().low)
    noise = np.random.default_rng(0).standard_normal((4, 64, 2)) * 0.2
    noise -= noise.mean(axis=1, keepdims=True)
    front = make_front(prompt_values=np.array(VALUES)[:, None] + noise)
    interval = front.hypervolume()
    assert interval.value == 6 and interval.low < 6 < interval.high
    assert front.hypervolume() == interval  # the same draws every time
    assert front.hypervolume(resamples=50) != interval


def test_bootstrap_keeps_the_members_of_the_front() -> None:
    """A dominated point whose prompts vary wildly would often win a resample; fixed members ignore it."""
    steady = np.repeat(np.array(VALUES)[:, None], 8, axis=1)
    wild = steady.copy()
    wild[3] += np.array([100.0, -100.0] * 4)[:, None]
    assert make_front(prompt_values=wild).hypervolume() == Interval(6.0, 6.0, 6.0)


@pytest.mark.parametrize(
    ("objectives", "points", "draws"), [(3, 10_000, 2000), (6, 40, 2000), (8, 40, 526), (8, 200, 0)]
)
def test_costly_hypervolumes_are_resampled_less(objectives: int, points: int, draws: int) -> None:
    module = importlib.import_module("moalign.front.intervals")
    assert module.affordable_resamples(points, objectives) == pytest.approx(draws, rel=0.01)


def test_an_unattained_reference_point_warns_by_name() -> None:
    front = make_front(reference_point=np.array([0.0, 9.0]))
    with pytest.warns(NumericsWarning, match="objective harmless: reference point 9, best value 3"):
        assert front.hypervolume().value == 0
    assert front.hypervolume(unattained="ignore").value == 0
    with pytest.warns(NumericsWarning, match="no policy is within the limits"):
        make_front(feasible=[False] * 4).hypervolume()
    repr(front), front.to_json(), front._repr_html_()  # showing a front does not warn


def test_reference_policy_is_dominated_by_points_that_are_better_somewhere_and_worse_nowhere() -> None:
    front = make_front(reference=make_point(-1, [2.0, 1.0], ()))
    assert front.dominates_reference().tolist() == [False, True, True, False]  # equal is not better
    with pytest.raises(DefinitionError, match="not evaluated"):
        make_front().dominates_reference()


def test_knee_is_nearest_to_the_ideal_in_units_of_the_front() -> None:
    """Ideal (3,3), range 2: (2,2) falls short by (.5,.5), the ends by 1. Units do not matter, the dominated do not."""
    assert make_front().knee().trial == 2
    assert make_front(values=np.array(VALUES) * [1000.0, 0.01]).knee().trial == 2
    with pytest.raises(DefinitionError, match="no non-dominated"):
        make_front(feasible=[False] * 4).knee()


def test_knee_of_a_flat_objective_and_of_one_point() -> None:
    assert make_front(values=[[1.0, 5.0], [2.0, 5.0], [3.0, 5.0], [0.0, 5.0]]).knee().trial == 7


def test_nearest_by_array_and_by_name() -> None:
    front = make_front()
    assert front.nearest([0.9, 0.1]).trial == 7
    assert front.nearest({"harmless": 0.95, "helpful": 0.05}).trial == 4


@pytest.mark.parametrize(
    ("weights", "match"),
    [
        ({"helpful": 0.5, "harmles": 0.5}, "Did you mean 'harmless'"),
        ({"helpful": 1.0}, "lacks 'harmless'"),
        ([0.5, 0.6], "sums to 1.1"),
        ([0.5, 0.2, 0.3], "2 numbers"),
    ],
)
def test_nearest_refuses(weights, match: str) -> None:
    with pytest.raises(DefinitionError, match=match):
        make_front().nearest(weights)


def test_nearest_of_directions_takes_any_vector_and_none_without_weights() -> None:
    directions = make_front(weights=[[1.0, 0.0], [0.8, -0.6], [0.0, 1.0], [0.6, 0.8]])
    assert directions.nearest([0.7, -0.7]).trial == 2
    with pytest.raises(DefinitionError, match="no preference weights"):
        make_front(weights=[()] * 4).nearest([0.5, 0.5])


def test_table_has_a_column_for_everything() -> None:
    front = make_front()
    table = front.table()
    assert list(table.columns) == [
        "trial", "w_helpful", "w_harmless", "helpful", "helpful_se", "harmless", "harmless_se", "kl", "kl_se",
        "non_dominated", "feasible",
    ]  # fmt: skip
    assert table["trial"].tolist() == TRIALS and table["non_dominated"].sum() == 3


def test_side_columns_may_be_missing_or_collide() -> None:
    points = (make_point(0, [1.0], (1.0,), columns={"kl": 5.0}), make_point(1, [2.0], (1.0,), columns={"empty": 0.5}))
    front = Front(study="s", objectives=("trial",), points=points, reference_point=np.zeros(1))
    table = front.table()
    assert table["trial_"].tolist() == [1.0, 2.0] and table["trial"].tolist() == [0, 1]
    assert table["kl_"].tolist()[0] == 5.0 and math.isnan(table["empty"][0])


def test_csv_is_inert_in_a_spreadsheet_and_keeps_every_digit(tmp_path) -> None:
    names = ("=HYPERLINK(1)", "@x")
    front = make_front(values=[[0.1 + 0.2, -3.0], *VALUES[1:]], objectives=names)
    front.to_csv(tmp_path / "deep" / "front.csv")
    with (tmp_path / "deep" / "front.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert "'=HYPERLINK(1)" in rows[0] and "'@x" in rows[0]
    assert not any(name.startswith(("=", "+", "-", "@")) for name in rows[0])
    assert float(rows[0]["'=HYPERLINK(1)"]) == 0.1 + 0.2 and rows[0]["'@x"] == "-3.0"
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["front.csv"]


def test_json_is_strict_and_complete() -> None:
    unknown = make_point(9, [0.5, 0.5], kl=math.nan, standard_errors=np.array([np.nan, 0.1]), columns={"empty": 1})
    front = Front(
        study="s",
        objectives=("a", "b"),
        points=(unknown,),
        reference_point=np.zeros(2),
        reference=make_point(0, [0.0, 0.0]),
    )
    data = json.loads(json.dumps(front.to_json(), allow_nan=False))
    assert data["hypervolume"] == {"value": 0.25, "low": None, "high": None}
    assert data["points"][0]["kl"] is None and data["points"][0]["standard_errors"] == [None, 0.1]
    assert data["points"][0]["columns"] == {"empty": 1.0} and data["points"][0]["non_dominated"] is True
    assert data["reference"]["values"] == [0.0, 0.0] and data["objectives"] == ["a", "b"]


def test_repr_is_one_line_and_html_is_escaped() -> None:
    front = make_front(study="<b>x</b>", objectives=("<script>", "b"))
    assert repr(front) == "<Front <b>x</b>: 3 of 4 policies non-dominated, HV 6.00, 2 objectives>"
    shown = front._repr_html_()
    assert "<script>" not in shown and "<b>" not in shown and "&lt;script&gt;" in shown
    assert shown.count("<tr>") == 4  # header and three members


def test_an_empty_front_is_a_front() -> None:
    front = Front(study="s", objectives=("a", "b"), points=(), reference_point=np.zeros(2))
    assert front.hypervolume().value == 0 and front.history().shape == (0,) and front.F.shape == (0, 2)
    assert front.table().empty and front.to_json()["points"] == []
    assert repr(front) == "<Front s: 0 of 0 policies non-dominated, HV 0.000, 2 objectives>"


def test_a_point_uses_its_policy_or_says_that_it_has_none(tmp_path) -> None:
    point = make_point(3, [1.0, 2.0], policy=Handle())
    assert point.export(tmp_path) == ("exported", tmp_path)
    assert point.generate(["Hi"], max_new_tokens=4) == (["Hi!"], {"max_new_tokens": 4})
    for call in (lambda: make_point(3, [1.0]).export(tmp_path), lambda: make_point(3, [1.0]).generate("Hi")):
        with pytest.raises(DefinitionError, match="trial 3 carries numbers only"):
            call()


def test_points_and_fronts_cannot_be_changed() -> None:
    values = np.array([1.0, 2.0])
    point = make_point(0, values)
    values[0] = 9.0
    assert point.values.tolist() == [1.0, 2.0]
    for array in (point.values, point.weights, make_front().F, make_front().X, make_front().reference_point):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0.0
    mask = make_front().non_dominated()
    mask[:] = False  # a copy


def test_point_refuses_values_that_do_not_fit() -> None:
    with pytest.raises(DefinitionError, match="values of trial 0 must be finite"):
        make_point(0, [1.0, np.nan])
    with pytest.raises(DefinitionError, match="2 problems"):
        make_point(0, [1.0, 2.0], standard_errors=np.array([-1.0]))
    assert "trial 0" in repr(make_point(0, [1.0, 2.0], kl=math.nan)) and "unknown" in repr(
        make_point(0, [1.0], kl=math.nan)
    )


def test_front_lists_every_problem_at_once() -> None:
    points = (make_point(1, [1.0]), make_point(1, [1.0, 2.0], ()), make_point(2, [1.0, 2.0], (0.2, 0.3, 0.5)))
    with pytest.raises(DefinitionError) as caught:
        Front(
            study="s", objectives=("a", "a"), points=points, reference_point=np.array([0.0, np.nan]),
            reference=make_point(0, [1.0]), prompt_values=np.zeros((1, 2, 3)),
        )  # fmt: skip
    text = str(caught.value)
    parts = [
        "front of study 's'", "more than once", "1 values", "3 weights", "have none", "trials [1]",
        "reference policy has 1", "reference_point must be 2 finite", "prompt_values must be [3 points",
    ]  # fmt: skip
    for part in parts:
        assert part in text


def test_prompt_values_must_belong_to_the_points() -> None:
    with pytest.raises(DefinitionError, match="trial 4 average to"):
        make_front(prompt_values=np.repeat(np.array(VALUES)[::-1, None], 3, axis=1))
    broken = np.repeat(np.array(VALUES)[:, None], 3, axis=1)
    broken[2, 1, 0] = np.nan
    with pytest.raises(DefinitionError, match="trial 7 has NaN"):
        make_front(prompt_values=broken)


def test_an_objective_is_needed() -> None:
    with pytest.raises(DefinitionError, match="at least one named objective"):
        Front(study="s", objectives=(), points=(), reference_point=np.zeros(0))


@pytest.mark.parametrize("method", ["plot", "plot_simplex", "plot_kl", "plot_history"])
def test_plots_are_plotly_figures(method: str) -> None:
    assert type(getattr(make_front(), method)()).__name__ == "Figure"


def test_importing_the_front_loads_no_heavy_package() -> None:
    heavy = ("torch", "pandas", "scipy", "plotly", "transformers")
    code = f"import sys, moalign.front; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "[]\n"


@pytest.mark.parametrize("name", ["front", "intervals", "pareto"])
def test_examples_in_docstrings(name: str) -> None:
    result = doctest.testmod(importlib.import_module(f"moalign.front.{name}"))
    assert result.attempted and not result.failed
