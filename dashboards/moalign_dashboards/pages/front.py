"""Front: what the policies reach, against each other. Click a point, lasso a region, lay studies over each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go
from dash import html

from moalign.figures import Shown, plane_figure, space_figure
from moalign.figures.view import KL
from moalign_dashboards.context import Context, Page
from moalign_dashboards.parts import card, graph, panel, segments, select, switch
from moalign_dashboards.policies import policies

_HEIGHT = 520
_DRAGS = ("rotate", "lasso")


def _layout(context: Context) -> Sequence[Any]:
    return [
        panel("/front", "controls", "controls"),
        card(
            graph("/front", "front", _HEIGHT, "Front of the study; the table below holds the same policies"),
            panel("/front", "help"),
            class_name="figure",
        ),
        card(panel("/front", "policies"), title="Policies"),
    ]


def _axes(context: Context) -> tuple[str, str, str]:
    view, state = context.whole, context.state
    names = [*view.objectives, KL]
    x = state.choice("x", names, names[0])
    y = state.choice("y", names, names[1])
    return x, y, state.choice("z", names, names[2] if len(names) > 2 else KL)


def _in_space(context: Context) -> bool:
    default = "3d" if len(context.whole.objectives) == 3 else "2d"
    return context.state.choice("view", ("2d", "3d"), default) == "3d"


def _controls(context: Context) -> Any:
    view, state, space = context.whole, context.state, _in_space(context)
    names = {name: name for name in view.objectives} | {KL: "KL (nats)"}
    x, y, z = _axes(context)
    items: list[Any] = []
    if len(view.objectives) > 1:
        links = {"2d": context.link(view="2d"), "3d": context.link(view="3d")}
        items.append(segments("View", {"2d": "2D", "3d": "3D"}, "3d" if space else "2d", links))
    items += [select("x", "x", names, x), select("y", "y", names, y)]
    if space:
        items.append(select("z", "z", names, z))
        drags = {name: context.link(drag=None if name == "rotate" else name) for name in _DRAGS}
        items.insert(1, segments("Drag", {name: name for name in _DRAGS}, context.state.choice("drag", _DRAGS), drags))
    switches = [("dominated", "dominated"), ("reference point", "corner")]
    switches += [("intervals", "bars")] if not space else []
    switches += [("exact optimum", "oracle")] if view.oracle is not None else []
    items += [
        switch(name, state.on(key), context.link(**{key: "0" if state.on(key) else None})) for name, key in switches
    ]
    return [*items, _overlays(context)]


def _help(context: Context) -> Any:
    """Returns what the mouse does here."""
    turns = _in_space(context) and context.state.choice("drag", _DRAGS) == "rotate"
    drag = "Drag to turn; with “Drag: lasso”, drag round points" if turns else "Drag round points"
    return html.P(
        f"Click a point to read its texts. {drag} to select them for all pages; Ctrl-click adds or removes one, "
        "double-click shows all again. Shift-click a second point to compare.",
        className="note hint",
    )


def _overlays(context: Context) -> Any:
    others = [name for name in context.library.names() if name != context.study.name]
    if not others:
        return None
    laid = context.state.overlays
    items = []
    for name in others[:30]:
        names = [n for n in laid if n != name] if name in laid else [*laid, name]
        items.append(switch(name, name in laid, context.link(with_=",".join(names) or None)))
    return html.Details(
        [html.Summary(f"Overlay ({len(laid)})" if laid else "Overlay"), html.Div(items, className="menu")],
        className="exports",
    )


def _front(context: Context) -> go.Figure:
    x, y, z = _axes(context)
    state = context.state
    shown = Shown(
        dominated=state.on("dominated"),
        intervals=state.on("bars"),
        oracle=state.on("oracle"),
        reference_point=state.on("corner"),
        selected=state.selected,
    )
    views = (context.whole, *context.overlays)
    figure = (
        space_figure(views, (x, y, z), shown, _HEIGHT)
        if _in_space(context)
        else plane_figure(views, x, y, shown, _HEIGHT)
    )
    return figure.update_layout(dragmode="orbit" if _in_space(context) else "lasso")


PAGE = Page(
    path="/front",
    name="Front",
    about="What each policy reaches. Every objective is maximised; bars are one standard error.",
    layout=_layout,
    figures={"front": _front},
    panels={"controls": _controls, "help": _help, "policies": policies},
)
