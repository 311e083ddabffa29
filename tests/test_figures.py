"""Figures: the computed view has the numbers, the drawing has the structure, and names are never markup."""

from __future__ import annotations

import json
import math
from itertools import pairwise

import numpy as np
import plotly.graph_objects as go
import pytest

from moalign import figures
from moalign.errors import DefinitionError
from moalign.figures.curves import _uncrowded
from moalign.figures.style import theme_colors
from moalign.figures.text import label, measured, number, visible
from moalign.front import Front, Point

NAMES = ("helpful", "harmless", "brevity", "humour", "style")


def make_front(objectives: int, points: int = 6, *, names=NAMES, weights=None, reference=True, **fields) -> Front:
    """Points on a sphere, one per trial 10, 11, ...; the last but one is dominated, the last is infeasible."""
    generator = np.random.default_rng(0)
    chosen = generator.dirichlet(np.ones(objectives), points) if weights is None else np.asarray(weights)
    values = np.sqrt(generator.dirichlet(np.ones(objectives), points))
    values[-2] = values[0] - 0.1
    evaluated = tuple(
        Point(
            trial=10 + i, weights=chosen[i], values=values[i], standard_errors=np.full(objectives, 0.01),
            kl=1.0 + i, kl_standard_error=0.1, columns={"mean_tokens": 20.0 + i}, feasible=i < points - 1,
        )
        for i in range(points)
    )  # fmt: skip
    untrained = Point(
        trial=-1, weights=np.zeros(0), values=np.full(objectives, 0.2), standard_errors=np.zeros(objectives),
        kl=0.0, kl_standard_error=0.0,
    )  # fmt: skip
    defaults = {"study": "demo", "objectives": tuple(names[:objectives]), "reference_point": np.full(objectives, -0.2)}
    return Front(points=evaluated, reference=untrained if reference else None, **(defaults | fields))


def make_oracle(objectives: int, count: int = 40) -> figures.OracleCurve:
    weights = np.random.default_rng(1).dirichlet(np.ones(objectives), count)
    return figures.OracleCurve(weights=weights, values=np.sqrt(weights), kl=weights.max(axis=1) * 5)


def all_figures(front: Front, oracle: figures.OracleCurve | None = None) -> list[go.Figure]:
    view = figures.front_view(front, oracle)
    return [
        figures.draw_front(view), figures.weight_figure(view), figures.history_figure(view), figures.kl_figure(view),
    ]  # fmt: skip


def strings(value) -> list[str]:
    """All strings inside a JSON value."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    return [text for inner in value for text in strings(inner)] if isinstance(value, list) else []


def by_name(figure: go.Figure, name: str) -> list:
    return [trace for trace in figure.data if trace.name == name]


def test_view_holds_the_numbers_of_the_front() -> None:
    front = make_front(3)
    view = figures.front_view(front, make_oracle(3))
    assert view.trials == (10, 11, 12, 13, 14, 15)
    assert view.values.tolist() == front.F.tolist() and view.history.tolist() == front.history().tolist()
    assert not view.non_dominated[-1] and not view.feasible[-1] and not view.non_dominated[-2]
    assert view.oracle is not None and view.oracle.hypervolume > view.hypervolume.value > 0
    assert view.columns["mean_tokens"].tolist() == [20, 21, 22, 23, 24, 25]
    low, high = view.ranges()
    assert (low <= view.values.min(axis=0)).all() and (high >= 0.2).all()


def test_oracle_triangles_cover_the_simplex_of_three_weights_only() -> None:
    """Corners and centre of the simplex: three triangles that meet in the centre."""
    corners = np.vstack([np.eye(3), np.full((1, 3), 1 / 3)])
    curve = figures.OracleCurve(weights=corners, values=corners, kl=np.zeros(4))
    view = figures.front_view(make_front(3), curve)
    assert sorted(sorted(row) for row in view.oracle.triangles.tolist()) == [[0, 1, 3], [0, 2, 3], [1, 2, 3]]
    assert len(figures.front_view(make_front(2), make_oracle(2)).oracle.triangles) == 0
    edge = figures.OracleCurve(weights=np.eye(3)[:2], values=np.eye(3)[:2], kl=np.zeros(2))
    assert len(figures.front_view(make_front(3), edge).oracle.triangles) == 0


def test_oracle_curve_must_fit() -> None:
    with pytest.raises(DefinitionError, match="3 weights, 2 values"):
        figures.OracleCurve(weights=np.eye(3), values=np.eye(3)[:2], kl=np.zeros(3))
    with pytest.raises(DefinitionError, match="oracle curve has 2 objectives"):
        figures.front_view(make_front(3), make_oracle(2))


@pytest.mark.parametrize("objectives", [1, 2, 3, 5])
def test_figures_are_strict_json_with_clickable_trials(objectives: int) -> None:
    """Every policy appears in the front figure, and its trial travels as a plain list, never as a binary array."""
    drawn = [figure for figure in all_figures(make_front(objectives), make_oracle(objectives)) if figure.data]
    assert len(drawn) == (3 if objectives == 1 else 4)  # one objective has no weights to draw
    for position, figure in enumerate(drawn):
        data = json.loads(figure.to_json(), parse_constant=lambda name: pytest.fail(f"{name} in JSON"))
        linked = [trace["customdata"] for trace in data["data"] if "customdata" in trace]
        assert all(isinstance(rows, list) and isinstance(rows[0][0], int) for rows in linked)
        assert {row[0] for rows in linked for row in rows} == {10, 11, 12, 13, 14, 15}, position


def test_two_objectives_are_drawn_in_the_plane_with_bars_and_marks() -> None:
    figure = figures.draw_front(figures.front_view(make_front(2), make_oracle(2)))
    assert {trace.type for trace in figure.data} == {"scatter"}
    assert figure.layout.xaxis.title.text == "helpful (reward, higher is better)"
    assert figure.layout.yaxis.title.text == "harmless (reward, higher is better)"
    members = by_name(figure, "non-dominated")[0]
    assert members.error_x.array[0] == members.error_y.array[0] == 0.01 and members.error_x.visible
    for name in ("dominated", "outside the limits", "reference policy (untrained)", "reference point", "exact optimum"):
        assert len(by_name(figure, name)) == 1
    oracle = by_name(figure, "exact optimum")[0]
    assert all(a <= b for a, b in pairwise(oracle.x)) and all(a >= b for a, b in pairwise(oracle.y))


def test_three_objectives_are_drawn_in_space_and_in_all_pairs() -> None:
    figure = figures.draw_front(figures.front_view(make_front(3), make_oracle(3)))
    assert {trace.type for trace in figure.data} == {"scatter", "scatter3d", "mesh3d"}
    pairs = {(axis.x.title.text[:4], axis.y.title.text[:4]) for axis in (
        type("Axes", (), {"x": figure.layout[f"xaxis{i}"], "y": figure.layout[f"yaxis{i}"]}) for i in ("", 2, 3)
    )}  # fmt: skip
    assert pairs == {("help", "harm"), ("help", "brev"), ("harm", "brev")}
    assert figure.layout.scene.zaxis.title.text == "brevity (reward)"
    assert len(by_name(figure, "non-dominated")) == 4
    assert sum(trace.showlegend is not False for trace in by_name(figure, "non-dominated")) == 1


def test_more_objectives_are_drawn_on_parallel_axes_scaled_to_their_range() -> None:
    view = figures.front_view(make_front(5))
    figure = figures.draw_front(view)
    assert len(figure.layout.shapes) == 5
    heights = [y for trace in figure.data for y in trace.y if y is not None]
    assert min(heights) == pytest.approx(0) and max(heights) == pytest.approx(1)
    members = by_name(figure, "non-dominated")[0]
    assert len(members.x) == len(members.customdata) == 6 * int(view.non_dominated.sum())


@pytest.mark.parametrize(
    ("objectives", "kind", "count"), [(2, "scatter", 3), (3, "scatterternary", 3), (5, "scatter", 3 * 10)]
)
def test_weights_in_the_figure_that_fits(objectives: int, kind: str, count: int) -> None:
    """Three groups of points; five objectives have 10 pairs."""
    figure = figures.weight_figure(figures.front_view(make_front(objectives)))
    assert {trace.type for trace in figure.data} == {kind} and len(figure.data) == count


def test_weights_are_coloured_by_any_value_on_one_scale() -> None:
    view = figures.front_view(make_front(3))
    for name, values in (
        ("harmless", view.values[:, 1]),
        ("kl", view.kl),
        ("mean_tokens", view.columns["mean_tokens"]),
    ):
        figure = figures.weight_figure(view, color=name)
        for trace in figure.data:
            rows = [link[0] - 10 for link in trace.customdata]
            assert list(trace.marker.color) == values[rows].tolist()
            assert (trace.marker.cmin, trace.marker.cmax) == (values.min(), values.max())
        assert sum(bool(trace.marker.showscale) for trace in figure.data) == 1
    with pytest.raises(DefinitionError, match="no value 'harmles'.*mean_tokens"):
        figures.weight_figure(view, color="harmles")


def test_two_objectives_show_the_value_over_the_weight_with_the_oracle() -> None:
    figure = figures.weight_figure(figures.front_view(make_front(2), make_oracle(2)), color="harmless")
    assert figure.layout.xaxis.title.text == "weight of helpful (the rest is the weight of harmless)"
    oracle = by_name(figure, "exact optimum")[0]
    np.testing.assert_allclose(np.square(oracle.y), 1 - np.array(oracle.x), atol=1e-12)  # values are sqrt(weights)


def test_directions_are_drawn_in_pairs() -> None:
    front = make_front(2, weights=[[1.0, 0.0], [0.8, -0.6], [0.6, 0.8], [0.0, 1.0], [0.6, 0.8], [0.8, 0.6]])
    figure = figures.weight_figure(figures.front_view(front))
    assert figure.layout.xaxis.title.text == "helpful" and figure.layout.yaxis.title.text == "harmless"


def test_figures_without_anything_to_draw_say_so() -> None:
    empty = Front(study="s", objectives=("a", "b"), points=(), reference_point=np.zeros(2))
    for figure in all_figures(empty, make_oracle(2)):
        assert not figure.data and len(figure.layout.annotations) == 1
    unweighted = figures.weight_figure(figures.front_view(make_front(2, weights=np.zeros((6, 0)))))
    assert "no preference weights" in unweighted.layout.annotations[0].text


def test_unknown_kl_is_left_out() -> None:
    point = Point(
        trial=0, weights=np.array([1.0]), values=np.array([1.0]), standard_errors=np.array([np.nan]), kl=math.nan,
        kl_standard_error=math.nan,
    )  # fmt: skip
    front = Front(study="s", objectives=("a",), points=(point,), reference_point=np.zeros(1))
    assert "No KL" in figures.kl_figure(figures.front_view(front)).layout.annotations[0].text
    assert "KL: – nats" in figures.front_view(front).hover[0] and "a: 1<br>" in figures.front_view(front).hover[0]


def test_history_ends_with_the_interval_under_the_level_of_the_oracle() -> None:
    values = make_front(2).F
    noise = np.random.default_rng(2).standard_normal((6, 30, 2)) * 0.1
    prompts = values[:, None] + noise - noise.mean(axis=1, keepdims=True)
    view = figures.front_view(make_front(2, prompt_values=prompts), make_oracle(2))
    line, last, level = figures.history_figure(view).data
    assert list(line.y) == view.history.tolist() and list(line.x) == [1, 2, 3, 4, 5, 6]
    assert last.error_y.array[0] == pytest.approx(view.hypervolume.high - view.hypervolume.value)
    assert set(level.y) == {view.oracle.hypervolume} and "% reached" in level.name


def test_kl_figure_has_a_panel_per_objective_from_the_untrained_policy() -> None:
    figure = figures.kl_figure(figures.front_view(make_front(5), make_oracle(5)))
    assert len(by_name(figure, "non-dominated")) == 5
    assert all(trace.x == (0.0,) and trace.y == (0.2,) for trace in by_name(figure, "reference policy (untrained)"))
    assert figure.layout.yaxis4.title.text == "humour (reward)"


def test_labels_that_would_overprint_are_left_out() -> None:
    """Points 0 and 1 nearly coincide, point 2 is far away: one label of the first two and the one of the third."""
    points = tuple(
        Point(
            trial=i, weights=np.array([1.0]), values=np.array([v]), standard_errors=np.zeros(1), kl=k,
            kl_standard_error=0.0,
        )
        for i, (v, k) in enumerate([(1.0, 9.0), (0.999, 8.99), (0.0, 1.0)])
    )  # fmt: skip
    front = Front(study="s", objectives=("a",), points=points, reference_point=np.full(1, -1.0))
    assert _uncrowded(figures.front_view(front), 0) == {0, 2}


def test_a_reference_point_far_away_does_not_squeeze_the_plot() -> None:
    far = figures.draw_front(figures.front_view(make_front(2, reference_point=np.array([-50.0, 0.0]))))
    assert not by_name(far, "reference point")


def test_many_points_are_drawn_without_bars() -> None:
    figure = figures.draw_front(figures.front_view(make_front(2, points=200)))
    assert not any(trace.error_x.visible for trace in figure.data)


def test_groups_differ_in_colour_and_in_shape() -> None:
    figure = figures.draw_front(figures.front_view(make_front(2)))
    markers = [by_name(figure, name)[0].marker for name in ("non-dominated", "dominated", "outside the limits")]
    assert len({marker.color for marker in markers}) == len({marker.symbol for marker in markers}) == 3


@pytest.mark.parametrize("objectives", [2, 3, 5])
def test_names_are_text_everywhere(objectives: int) -> None:
    hostile = ("<a href='https://evil.example'>x</a>", "\x1b[31mred", "$\\LaTeX$ & %{x}", "‮rtl", "n" * 500)
    front = make_front(objectives, names=hostile, study="<b>bold</b>")
    for figure in all_figures(front, make_oracle(objectives)):
        data = json.loads(figure.to_json())
        texts = strings({"data": data["data"], "layout": data["layout"]})
        assert not any("<a" in text or "<b>bold" in text or "\x1b" in text or "‮" in text for text in texts)
        assert max(len(text) for text in texts) < 2000
        assert "hovertemplate" not in figure.to_json() and "texttemplate" not in figure.to_json()


def test_pages_are_light_and_offer_dark_colours_for_the_same_parts() -> None:
    for figure in all_figures(make_front(3)):
        assert figure.layout.paper_bgcolor == figure.layout.plot_bgcolor == figures.LIGHT.page == "#ffffff"
        assert figure.layout.height >= 400
    colors = theme_colors()
    assert colors["light"].keys() == colors["dark"].keys()
    assert len(set(colors["light"].values())) == len(colors["light"])  # a page exchanges them by value


def test_config_has_no_way_to_upload_a_figure() -> None:
    assert figures.CONFIG["showSendToCloud"] is False and figures.CONFIG["displaylogo"] is False


def test_hidden_characters_become_visible_and_text_stays() -> None:
    assert visible("a\x1b[31m\r\x00‮\ud800b\n\tc") == "a\\x1b[31m\\x0d\\x00\\u202e\\ud800b\n\tc"
    assert visible("\U000e0041") == "\\U000e0041"  # an invisible tag
    kept = "Grüße, 你好, می‌خواهم, 👩‍🚀 [/bold] =1+1"
    assert visible(kept) == kept
    visible("\ud800").encode("utf-8")


def test_numbers_in_text() -> None:
    assert number(-0.00012345) == "−0.0001234" or number(-0.00012345) == "−0.0001235"
    assert number(None) == number(math.nan) == "–"
    assert measured(8.2841, 0.3) == "8.28 ± 0.30" and measured(-103.79, 0.94) == "−103.79 ± 0.94"
    assert measured(1.5, math.nan) == measured(1.5, 0.0) == "1.5"
    assert label("a\n<b>&") == "a &lt;b&gt;&amp;"


def test_bars_of_running_trials_reach_to_now() -> None:
    """Started at 10 s and 12 s, the second still training at 30 s: bars of 5 s and 18 s; whole trial numbers."""
    from moalign.figures import timeline_figure
    from moalign.store import TrialRecord

    trials = [
        TrialRecord(number=0, state="done", weights=(1.0,), started=10.0, finished=15.0),
        TrialRecord(number=1, state="training", weights=(1.0,), started=12.0),
    ]
    bars = {bar.name: bar for bar in timeline_figure(trials, now=30.0).data}
    assert (list(bars["done"].x), list(bars["training"].x)) == ([5.0], [18.0])
    assert timeline_figure(trials).data[-1].x[0] <= 5.0


def test_many_trials_share_the_bars_of_a_timeline() -> None:
    """1000 trials, one a second and three long, the 7th failed: 200 bars of five, the failed one in its own."""
    from moalign.figures import timeline_figure
    from moalign.store import TrialRecord

    trials = [
        TrialRecord(number=n, state="failed" if n == 7 else "done", weights=(1.0,), started=n + 0.0, finished=n + 3.0)
        for n in range(1000)
    ]
    bars = {bar.name: bar for bar in timeline_figure(trials).data}
    done, failed = bars["done"], bars["failed"]
    assert len(done.x) == 200 and len(failed.x) == 1 and failed.customdata[0] == [7]
    assert (done.base[1] * 60, done.x[1] * 60) == pytest.approx((5.0, 7.0))  # trials 5 to 9, in minutes
    assert done.customdata[1] == [5] and done.y[1] == 7.0 and "4 of the trials 5 to 9" in done.hovertext[1]
    assert sum(len(bar.x) for bar in timeline_figure(trials[:150]).data) == 150
