"""What the pages of the dashboard show, as plain data: numbers first, then the figures that draw them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import moalign as ma
from moalign import figures
from moalign.errors import DefinitionError, StoreError
from moalign.figures.cost import frontier
from moalign.figures.marks import crowd
from moalign.figures.people import GroupUtility, User, people_places
from moalign.figures.quality import DataSet, RewardQuality
from moalign.figures.sidecar import Fact
from moalign.figures.text import between, measured, rounded
from moalign.figures.tuner import Field, Tried, log_ticks
from moalign.front import Front, Point, wilson
from tests.test_figures import make_front


def row(prompt: int, sample: int, reward: float, response: str = "x") -> dict:
    return {"prompt_index": prompt, "sample": sample, "rewards": {"helpful": reward}, "response": response}


def test_win_rates_count_prompts_and_ties_count_half() -> None:
    """Prompt 0: a wins both samples (1). Prompt 1: one win, one tie (0.75). Prompt 2: has no partner."""
    a = [row(0, 0, 2), row(0, 1, 3), row(1, 0, 1), row(1, 1, 0), row(2, 0, 9)]
    b = [row(0, 0, 1), row(0, 1, 1), row(1, 0, 0), row(1, 1, 0)]
    found = figures.compare(a, b, ["helpful"])
    assert found.wins["helpful"].value == pytest.approx((1 + 0.75) / 2) and found.prompts == 2 and len(found.pairs) == 4
    assert found.gains["helpful"].value == pytest.approx((1.5 + 0.5) / 2)
    assert figures.compare(b, a, ["helpful"]).wins["helpful"].value == pytest.approx(1 - 0.875)
    assert max(found.pairs, key=lambda pair: pair.disagreement).a["sample"] == 1  # rewards 3 and 1
    assert np.isnan(figures.compare([], b, ["helpful"]).wins["helpful"].value)
    assert len(figures.win_figure(found, "a", "b").data) == 1


def test_wilson_intervals_are_those_of_the_textbook() -> None:
    """8 of 10: (0.8 + z2/20 +- z sqrt(0.016 + z2/400)) / (1 + z2/10) = [0.490, 0.943]."""
    bounds = wilson(8, 10)
    assert bounds.low == pytest.approx(0.490, abs=1e-3) and bounds.high == pytest.approx(0.943, abs=1e-3)
    assert wilson(5, 5).high == pytest.approx(1) and wilson(5, 5).low < 0.6
    assert np.isnan(wilson(0, 0).value) and (wilson(0, 0).low, wilson(0, 0).high) == (0, 1)


def test_differences_join_to_the_texts() -> None:
    left, right = figures.difference("the cat sat", "the dog sat down")
    assert (
        "".join(text for _, text in left) == "the cat sat" and "".join(text for _, text in right) == "the dog sat down"
    )
    assert ("changed", "cat") in left and ("changed", "dog") in right and left[0] == ("same", "the ")


def test_a_probe_is_the_nearest_policy_and_a_convex_combination() -> None:
    weights = ma.grid(3, steps=3)
    view = figures.front_view(make_front(3, 10, weights=weights))
    at = figures.probe(view, weights[4])
    assert at.trial == view.trials[4] and at.distance == 0 and at.neighbours == (view.trials[4],)
    assert at.values is not None and at.values == pytest.approx(view.values[4])
    middle = figures.probe(view, (weights[0] + weights[1]) / 2)
    assert set(middle.neighbours) == {view.trials[0], view.trials[1]} and middle.shares == pytest.approx((0.5, 0.5))
    assert middle.values == pytest.approx((view.values[0] + view.values[1]) / 2)
    assert middle.kl == pytest.approx((view.kl[0] + view.kl[1]) / 2)
    corner = figures.probe(view.subset({view.trials[row] for row in range(1, 10)}), weights[0])
    assert corner.values is None and corner.trial in (view.trials[1], view.trials[2])  # outside of what was evaluated
    with pytest.raises(DefinitionError, match="sum"):
        figures.probe(view, [0.5, 0.5, 0.5])


def test_a_subset_keeps_what_is_non_dominated_in_the_whole() -> None:
    view = figures.front_view(make_front(3))
    some = view.subset({11, 14})  # 14 is dominated by 10, which is left out
    assert some.trials == (11, 14) and some.non_dominated.tolist() == [view.non_dominated[1], False]
    assert some.history.tolist() == view.history[[1, 4]].tolist() and some.history_rows == (0, 1)
    assert some.columns["mean_tokens"].tolist() == [21, 24]
    for draw in (figures.weight_figure, figures.history_figure, figures.kl_figure, figures.draw_front):
        assert draw(some).data


def test_the_frontier_takes_the_best_reward_at_each_kl() -> None:
    kl, reward = np.array([3.0, 1.0, 2.0, 1.0, np.nan]), np.array([5.0, 1.0, 0.5, 2.0, 9.0])
    assert frontier(kl, reward).tolist() == [3, 0]


def test_over_optimisation_is_a_proxy_that_rises_while_the_truth_falls() -> None:
    def point(trial: int, kl: float, proxy: float, truth: float) -> Point:
        return Point(trial=trial, weights=np.ones(1), values=np.array([proxy]), standard_errors=np.array([0.1]), kl=kl,
                     kl_standard_error=0.0, columns={"held_out helpful": truth})  # fmt: skip

    points = (point(0, 1.0, 1.0, 0.5), point(1, 2.0, 2.0, 1.0), point(2, 3.0, 3.0, 0.4), point(3, 4.0, 2.1, 0.9))
    front = Front(study="s", objectives=("helpful",), points=points, reference_point=np.zeros(1))
    found = figures.over_optimised(figures.front_view(front))
    assert [flag.trial for flag in found.flags] == [2]  # trial 3 gained less than its noise
    assert found.flags[0].proxy_gain == pytest.approx(1.0) and found.flags[0].held_out_loss == pytest.approx(0.6)
    assert figures.over_optimised(figures.front_view(make_front(2))).pairs == ()


def test_the_band_holds_the_history_and_ends_with_the_interval_of_the_front() -> None:
    rng = np.random.default_rng(0)
    base = make_front(2, 8)
    noise = rng.normal(0, 0.2, (8, 30, 2))
    prompts = base.F[:, None, :] + noise - noise.mean(axis=1, keepdims=True)
    front = make_front(2, 8, prompt_values=prompts)
    band = figures.history_band(front)
    assert band.value.tolist() == front.history().tolist() and band.count.tolist() == list(range(1, 9))
    assert (band.low <= band.high).all() and band.high[-1] == pytest.approx(front.hypervolume().high, rel=0.1)
    thin = figures.history_band(front, steps=3)
    assert len(thin.count) <= 5 and thin.count[-1] == 8
    assert len(figures.band_figure(band, oracle=1.0).data) == 4


def test_the_plane_fades_what_is_not_selected_and_shades_the_limits() -> None:
    view = figures.front_view(make_front(2), limits={"kl": 3.0, "helpful": 0.1})
    figure = figures.plane_figure([view], "helpful", "harmless", figures.Shown(selected=frozenset({10})))
    shown = {link[0]: trace.marker.opacity for trace in figure.data if trace.customdata for link in trace.customdata}
    assert shown[10] is None and shown[11] < 0.3 and len(shown) == 6
    assert len(figure.layout.shapes) == 1  # the limit of helpful; there is no axis of KL
    two = figures.plane_figure([view, view], "helpful", "kl")
    assert len({str(trace.marker.color) for trace in two.data if trace.customdata}) == 2
    space = figures.space_figure([view], ["helpful", "harmless", "kl"], figures.Shown(dominated=False))
    assert {link[0] for trace in space.data if trace.customdata for link in trace.customdata} == {
        trial for trial, member in zip(view.trials, view.non_dominated, strict=True) if member
    }


def test_axes_are_inverted_and_brushed_within_their_ends() -> None:
    view = figures.front_view(make_front(2))
    ends = {"helpful": [(0.5, np.inf)], "kl": [(-np.inf, -5.0)]}
    names = ["weight helpful", "helpful", "kl"]
    weight, helpful, kl = figures.brush_figure(view, names, color="kl", inverted=["kl"], ranges=ends).data[0].dimensions
    assert kl.range[0] > kl.range[1] and weight.constraintrange is None
    assert kl.constraintrange is None  # no policy is that near
    assert [list(pair) for pair in helpful.constraintrange] == [[0.5, helpful.range[1]]] and helpful.name == "helpful"


def test_ticks_of_a_logarithmic_axis_are_few_and_round() -> None:
    assert log_ticks(0.1, 1.0) == [0.1, 0.2, 0.5, 1.0]
    assert log_ticks(1e-3, 1e-2) == [0.001, 0.002, 0.005, 0.01]
    assert log_ticks(1e-4, 1e-2) == [1e-4, 3e-4, 1e-3, 3e-3, 1e-2]
    assert len(log_ticks(1e-9, 1.0)) <= 6 and log_ticks(0.32, 0.41) == [0.32, 0.41]


def test_of_a_crowd_only_many_points_are_left_to_the_graphics_card() -> None:
    marker = {"symbol": "circle-open", "size": 8, "color": "#888", "line": {"width": 1.8}, "opacity": 0.16}
    few, many = (
        crowd({"x": list(range(n)), "y": [0] * n}, {"marker": marker, "name": "dominated"}) for n in (500, 501)
    )
    assert few.type == "scatter" and few.marker.symbol == "circle-open" and few.marker.opacity == 0.16
    assert many.type == "scattergl" and many.marker.symbol == "circle" and many.marker.opacity == 0.08
    assert few.marker.size == many.marker.size == pytest.approx(5.6) and many.name == "dominated"


def test_dark_figures_exchange_the_colours_of_the_theme_only() -> None:
    figure = figures.plane_figure([figures.front_view(make_front(2))], "helpful", "harmless").to_plotly_json()
    dark = figures.recoloured(figure, figures.DARK)
    assert dark["layout"]["paper_bgcolor"] == figures.DARK.page and dark["layout"]["font"]["color"] == figures.DARK.text
    colors = [[trace.get("marker", {}).get("color") for trace in drawn["data"]] for drawn in (figure, dark)]
    light, other = figures.theme_colors()["light"], figures.theme_colors()["dark"]
    assert light["blue"] in colors[0]  # too dim for a dark page
    assert [other["blue"] if color == light["blue"] else color for color in colors[0]] == colors[1]
    scales = [[theme[part] for part in theme if part.startswith("scale")] for theme in (light, other)]
    drawn = figures.weight_figure(figures.front_view(make_front(3))).to_plotly_json()
    for figure, scale in ((drawn, scales[0]), (figures.recoloured(drawn, figures.DARK), scales[1])):
        assert [color for _, color in figure["data"][0]["marker"]["colorscale"]] == scale


def test_sidecars_are_written_whole_and_read_strictly(tmp_path: Path) -> None:
    users = [User(name="u1", mixture=[0.25, 0.75], accuracy=Fact(value=0.6)), User(name="<b>", mixture=[1.0, 0.0])]
    people = figures.People(prototypes=["calm", "bold"], users=users)
    people.save(tmp_path)
    assert figures.People.load(tmp_path) == people and figures.Tuning.load(tmp_path) is None
    corners, places = people_places(people)
    assert places.tolist() == (np.array([[0.25, 0.75], [1, 0]]) @ corners).tolist()
    (tmp_path / "people.json").write_text('{"prototypes": ["a"], "users": [{"name": "u", "mixture": [0.5]}]}')
    with pytest.raises(StoreError, match="mixture of user 'u'"):
        figures.People.load(tmp_path)
    (tmp_path / "calibration.json").write_text('{"rewards": [], "more": 1}')
    with pytest.raises(StoreError, match="more"):
        figures.Calibration.load(tmp_path)
    with pytest.raises(ValueError, match="finite"):
        Fact(value=float("nan"))


def test_users_of_a_fitted_model_are_drawn_where_their_answers_put_them() -> None:
    """Two kinds of users answer by their own prototype; the mixtures are the posterior of each user's own answers."""
    rng = np.random.default_rng(0)
    reward = np.array([[1.0, -1.0], [-1.0, 1.0]])  # [prototypes, items]
    kind = np.array([0, 0, 1, 1])
    says = [(rng.random(12) < 1 / (1 + np.exp(-2 * (reward[k, 0] - reward[k, 1])))) for k in kind]
    likely = 1 / (1 + np.exp(-2 * (reward[:, 0] - reward[:, 1])))  # [prototypes]
    users = []
    for number, answers in enumerate(says):
        odds = np.prod(np.where(answers[:, None], likely, 1 - likely), axis=0)
        users.append(
            User(name=f"u{number}", mixture=(odds / odds.sum()).tolist(), accuracy=Fact(value=float(answers.mean())))
        )
    people = figures.People(
        prototypes=["first", "second"], users=users,
        utilities=[GroupUtility(group=g, trial=0, utility=Fact(value=u)) for g, u in (("a", 1.0), ("b", -1.0))],
    )  # fmt: skip
    _, places = people_places(people)
    assert (places[kind == 0, 0] < -0.9).all() and (places[kind == 1, 0] > 0.9).all()
    worst = people.worst()
    assert worst is not None and worst.accuracy is not None and worst.accuracy.value == min(a.mean() for a in says)
    for figure in (
        figures.people_figure(people, "u1"),
        figures.accuracy_figure(people),
        figures.utility_figure(people),
    ):
        assert figure.data


def test_reliability_of_a_calibrated_reward_lies_on_the_diagonal() -> None:
    rng = np.random.default_rng(0)
    p = rng.random(20000)
    bins = figures.reliability(p, (rng.random(20000) < p).astype(float))
    assert len(bins) == 10 and sum(b.count for b in bins) == 20000
    assert all(abs(b.confidence - b.accuracy) < 0.04 for b in bins)
    sure = figures.reliability(np.clip(2 * p - 0.5, 0, 1), (rng.random(20000) < p).astype(float))
    assert sure[0].accuracy > sure[0].confidence and sure[-1].accuracy < sure[-1].confidence  # overconfident
    facts = figures.Calibration(rewards=[RewardQuality(name="<b>", bins=bins, comparisons=20000)])
    assert len(figures.calibration_figure(facts).data) == 2 and figures.quality_rows(facts)[0][0] == "<b>"
    data = figures.DataFacts(sets=[DataSet(name="pairs", rows=3, labels={"1": 2, "0": 1})])
    assert figures.labels_figure(data).data[0].y == pytest.approx((2 / 3, 1 / 3))


def test_a_search_is_drawn_with_its_best_and_refuses_trials_without_a_value_for_a_field() -> None:
    fields = [
        Field(name="method.beta", low=0.01, high=1.0, log=True),
        Field(name="method.steps", low=10, high=100),
    ]
    rng = np.random.default_rng(0)
    trials = []
    for number in range(12):
        beta, steps = float(np.exp(rng.uniform(np.log(0.01), 0))), float(rng.uniform(10, 100))
        value = -(np.log(beta / 0.1) ** 2) - (steps - 60) ** 2 / 1e4  # a known optimum
        trials.append(
            Tried(number=number, values={"method.beta": beta, "method.steps": steps}, value=value, acquisition=0.1)
        )
    shares, spread = {"method.beta": 0.8, "method.steps": 0.2}, {"method.beta": 0.05}
    tuning = figures.Tuning(
        fields=fields, trials=trials, importance={"hypervolume": shares}, importance_sd={"hypervolume": spread}
    )
    history = figures.search_figure(tuning)
    assert list(history.data[1].y) == np.maximum.accumulate([t.value for t in trials]).tolist()
    assert figures.slice_figure(tuning).layout.xaxis.type == "log"
    [bars] = figures.importance_figure(tuning).data
    assert list(bars.x) == [0.2, 0.8] and list(bars.error_x.array) == [0.0, 0.05]  # the largest on top
    grid = np.array(figures.contour_figure(tuning, "method.beta", "method.steps").data[0].z, dtype=float)
    assert np.nanmax(grid) <= max(t.value for t in trials if t.value is not None) + 1e-9
    with pytest.raises(ValueError, match="no value for method.steps"):
        figures.Tuning(fields=fields, trials=[Tried(number=0, values={"method.beta": 0.1})])


def test_an_error_of_rounding_is_not_shown() -> None:
    assert measured(-2.4633, 1e-17) == "−2.463" and measured(2.0, 0.1) == "2.00 ± 0.10"


def test_numbers_have_as_many_digits_as_their_error_allows() -> None:
    assert rounded(0.43571, 0.021) == "0.436" and rounded(0.4, 0.021, "+") == "+0.400"
    assert rounded(-3.0, 12.0) == "\u22123"
    assert rounded(1.04257207, 1e-12) == "1.04" and rounded(1.04257207, float("nan")) == "1.04"
    assert between(-0.2154, -0.0912, 0.0372) == "\u22120.09 [\u22120.22, 0.04]"
    assert between(2.0, 2.0, 2.0) == "2" and between(float("nan"), 0.123456, 1.0) == "0.123"
    assert str(Fact(value=0.5)) == "0.5" and str(Fact(value=0.5, low=0.4, high=0.62)) == "0.50 [0.40, 0.62]"
