"""Weights: where on the simplex the policies are, what they reach there, and what weights in between would give."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go
from dash import html

from moalign.figures import Probe, probe, visible, weight_figure, weights_text
from moalign.figures.text import measured, number, rounded
from moalign.figures.view import KL
from moalign_dashboards.context import Context, Page
from moalign_dashboards.parts import card, graph, link, panel, select, table

_HEIGHT = 520
_HELP = html.P(
    "Click a point to read its texts. Drag round points to select them for all pages; Ctrl-click adds or "
    "removes one, double-click shows all again.",
    className="note hint",
)


def _layout(context: Context) -> Sequence[Any]:
    view = context.whole
    if not view.weights.shape[1]:
        return [
            html.Div(
                [html.H2("No weights"), html.P("The method of this study takes no preference weights.")],
                className="empty",
            )
        ]
    count = len(view.objectives)
    kind = {2: "line", 3: "ternary"}.get(count, "none") if view.on_simplex else "none"
    plot = html.Div(
        graph("/weights", "weights", _HEIGHT if count <= 3 else 260 + 170 * (count - 1), "Preference weights"),
        id="probe-plot",
        **{"data-kind": kind},
    )
    sliders = html.Div(
        id="probe-sliders",
        className="sliders",
        **{"data-objectives": json.dumps([visible(name) for name in view.objectives])},
    )
    aside = card(
        sliders,
        panel("/weights", "probe"),
        title="Probe",
        note="Drag the ring, move a slider, or use the arrow keys.",
        class_name="side-card",
    )
    return [
        panel("/weights", "controls", "controls"),
        html.Div([card(plot, _HELP, class_name="figure"), aside], className="wide-narrow"),
    ]


def _controls(context: Context) -> Any:
    view = context.whole
    names = {name: name for name in view.objectives} | {KL: "KL (nats)"} | {name: name for name in view.columns}
    return [select("Colour", "color", names, context.state.choice("color", names, view.objectives[0]))]


def _figure(context: Context) -> go.Figure:
    view = context.shown
    names = [*view.objectives, KL, *view.columns]
    figure = weight_figure(view, color=context.state.choice("color", names, view.objectives[0]))
    figure.update_layout(title=None, dragmode="lasso")
    if len(view.objectives) == 3:  # the name of the first objective stands where the legend would
        figure.update_layout(legend={"orientation": "v", "x": 0, "xref": "paper", "y": 1, "yref": "paper"})
    top = {2: 40, 3: 64}.get(len(view.objectives))
    return figure if top is None else figure.update_layout(margin={"t": top})


def _probe(context: Context) -> Any:
    wanted = _wanted(context)
    found = probe(context.whole, wanted)
    nearest = link(f"trial {found.trial}", context.link(trial=found.trial))
    parts: list[Any] = [
        html.P([html.Span("at ", className="name"), html.B(visible(weights_text(context.whole, wanted)))]),
        html.H3("Nearest policy"),
        html.P(
            [
                nearest,
                f" at {visible(weights_text(context.whole, context.whole.weights[found.row]))}, "
                f"distance {number(found.distance, 2)}",
            ]
        ),
        _values(context, found),
    ]
    if found.values is None:
        parts.append(
            html.P("These weights lie outside the evaluated ones: nothing to interpolate between.", className="note")
        )
        return parts
    neighbours: list[Any] = []
    for trial, share in zip(found.neighbours, found.shares, strict=True):
        neighbours += [link(f"trial {trial}", context.link(trial=trial)), f" {share:.0%}  "]
    note = "Interpolated linearly between the measured neighbours; not a measurement. Evaluate to be sure."
    return [*parts, html.H3("Interpolated between"), html.P(neighbours), html.P(note, className="note")]


def _values(context: Context, found: Probe) -> Any:
    view = context.whole
    rows = []
    for j, name in enumerate(view.objectives):
        value, error = view.values[found.row, j], view.standard_errors[found.row, j]
        rows.append((name, measured(value, error), "–" if found.values is None else rounded(found.values[j], error)))
    kl, error = view.kl[found.row], view.kl_standard_errors[found.row]
    rows.append(("KL (nats)", measured(kl, error), "–" if found.kl is None else rounded(found.kl, error)))
    return table(("", "nearest", "interpolated"), rows, texts=(0,))


def _wanted(context: Context) -> list[float]:
    """The weights of the address; all alike where there are none that can be read."""
    count = context.whole.weights.shape[1]
    try:
        given = [float(part) for part in context.state.options.get("probe", "").split(",")]
    except ValueError:
        given = []
    total = sum(given)
    if len(given) != count or not all(0 <= w < 1e6 for w in given) or not total > 0:
        return [1 / count] * count
    return [w / total for w in given]


PAGE = Page(
    path="/weights",
    name="Weights",
    about="Where each policy was asked to stand, and what it reached there.",
    layout=_layout,
    figures={"weights": _figure},
    panels={"controls": _controls, "probe": _probe},
)
