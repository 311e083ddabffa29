"""Parallel axes: weights, rewards, KL and further columns of all policies; brush an axis to select."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go
from dash import html

from moalign.figures import brush_figure
from moalign.figures.view import KL
from moalign_dashboards.context import Context, Page
from moalign_dashboards.parts import card, graph, panel, select, switch
from moalign_dashboards.policies import policies
from moalign_dashboards.ranges import fields, inside, read_ranges


def _layout(context: Context) -> Sequence[Any]:
    plot = html.Div(
        graph("/parallel", "axes", 520, "Parallel axes; the table below holds the same policies"), **{"data-brush": ""}
    )
    hint = "Drag along an axis to select for all pages; click the axis to undo. Drag a name to reorder the axes."
    typed = "Numbers between which a value must lie, as the brushes on the axes; an empty field is no bound."
    return [
        panel("/parallel", "controls", "controls"),
        card(plot, html.P(hint, className="note hint"), class_name="figure"),
        card(panel("/parallel", "ranges"), title="Ranges", note=typed),
        card(panel("/parallel", "policies"), title="Policies"),
    ]


def _names(context: Context) -> list[str]:
    view = context.whole
    return [*view.weight_names(), *view.objectives, KL, *view.columns]


def _inverted(context: Context) -> list[str]:
    return [name for name in context.state.options.get("invert", "").split(",") if name]


def _hidden(context: Context) -> list[str]:
    given = context.state.options.get("hide")
    return list(context.whole.columns) if given is None else [name for name in given.split(",") if name]


def _shown(context: Context) -> list[str]:
    names = _names(context)
    return [name for name in names if name not in _hidden(context)] or names[:2]


def _controls(context: Context) -> Any:
    names, inverted, hidden = _names(context), _inverted(context), _hidden(context)
    color = context.state.choice("color", names, context.whole.objectives[0])
    rows = []
    for name in names:
        others = [n for n in hidden if n != name]
        show = switch(
            name,
            name not in hidden,
            context.link(hide=",".join(others if name in hidden else [*hidden, name]) or "none"),
        )
        rest = [n for n in inverted if n != name]
        turn = switch(
            "inverted",
            name in inverted,
            context.link(invert=",".join(rest if name in inverted else [*inverted, name]) or None),
        )
        rows.append(html.Div([show, turn], className="axis"))
    axes = html.Details([html.Summary("Axes"), html.Div(rows, className="menu")], className="exports")
    return [select("Colour", "color", {name: name for name in names}, color), axes]


def _axes(context: Context) -> go.Figure:
    """Returns all policies with their brushes; without one only those that were selected on another page."""
    ranges, view = read_ranges(context), context.shown
    if ranges:
        brushed = inside(context.whole, ranges)
        selected = context.state.selected or frozenset()
        outside = (trial for trial, held in zip(context.whole.trials, brushed, strict=True) if not held)
        view = context.whole.subset(selected | set(outside))
    color = context.state.choice("color", _names(context), context.whole.objectives[0])
    return brush_figure(view, _shown(context), color=color, inverted=_inverted(context), ranges=ranges, height=520)


PAGE = Page(
    path="/parallel",
    name="Parallel axes",
    about="Every policy as a line across its weights, rewards and KL.",
    layout=_layout,
    figures={"axes": _axes},
    panels={
        "controls": _controls,
        "ranges": lambda context: fields(context, _shown(context)),
        "policies": policies,
    },
)
