"""Where on the simplex the policies are, and what they reach there."""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from moalign.arrays import FloatArray
from moalign.figures.marks import Group, error_bars, groups, linked
from moalign.figures.style import GREEN, LIGHT, SCALE, axis_title, legend_above, message_figure, themed
from moalign.figures.text import label
from moalign.figures.view import KL, FrontView, OracleCurve

_KL_TITLE = "KL to the reference policy (nats per completion)"


def weight_figure(view: FrontView, color: str | None = None) -> go.Figure:
    """Returns the preference weights and one value: a line for two objectives, a ternary plot for three, else pairs.

    The value is the height above the line, and the colour in the other plots. Directions (unit length, possibly
    negative) are always drawn in pairs.

    Args:
        view: of the front.
        color: name of an objective, `kl`, or a side column; the first objective by default.

    Raises:
        DefinitionError: no value of that name.
    """
    name = view.objectives[0] if color is None else color
    values = view.value(name)
    reason = _nothing_to_draw(view)
    if reason:
        return message_figure("Preference weights", reason)
    if view.on_simplex and view.weights.shape[1] == 2:
        return _line_figure(view, name, values)
    if view.on_simplex and view.weights.shape[1] == 3:
        return _ternary_figure(view, name, values)
    return _pairs_figure(view, name, values)


def _nothing_to_draw(view: FrontView) -> str:
    if not view.trials:
        return "No policy has been evaluated yet."
    if not view.weights.shape[1]:
        return "This method takes no preference weights."
    return "A single objective leaves no weights to choose." if len(view.objectives) == 1 else ""


def _line_figure(view: FrontView, name: str, values: FloatArray) -> go.Figure:
    figure = go.Figure()
    if view.oracle is not None and name in (*view.objectives, KL):
        figure.add_trace(_oracle_line(view, view.oracle.curve, name))
    for group in groups(view):
        trace = go.Scatter(x=view.weights[group.rows, 0], y=values[group.rows], mode="markers", name=group.name)
        if name in view.objectives:
            errors = view.standard_errors[group.rows, view.objectives.index(name)]
            trace.update(error_y=error_bars(view, errors, group.color))
        figure.add_trace(trace.update(marker=group.marker(), **linked(view, group.rows)))
    themed(figure, f"{label(name)} by weight", height=440)
    first, second = (label(objective) for objective in view.objectives)
    figure.update_xaxes(title_text=f"weight of {first} (the rest is the weight of {second})", range=[-0.04, 1.04])
    figure.update_yaxes(title_text=_value_title(view, name))
    return figure.update_layout(**legend_above(440))


def _oracle_line(view: FrontView, curve: OracleCurve, name: str) -> go.Scatter:
    order = np.argsort(curve.weights[:, 0])
    heights = curve.kl if name == KL else curve.values[:, view.objectives.index(name)]
    line = {"color": GREEN, "width": 2, "dash": "dash"}
    return go.Scatter(
        x=curve.weights[order, 0], y=heights[order], mode="lines", line=line, name=label(curve.label), hoverinfo="skip"
    )


def _ternary_figure(view: FrontView, name: str, values: FloatArray) -> go.Figure:
    figure = go.Figure()
    for group in groups(view):
        a, b, c = view.weights[group.rows].T
        trace = go.Scatterternary(a=a, b=b, c=c, mode="markers", name=group.name, cliponaxis=False)
        figure.add_trace(trace.update(marker=_marker(group, size=12), **linked(view, group.rows)))
    _share_colors(figure, view, name, values)
    themed(figure, f"Weights, coloured by {label(name, 14)}", height=500)
    # No ticks at the corners, where those of two sides would collide with the names.
    axis = {"gridcolor": LIGHT.grid, "linecolor": LIGHT.line, "tickvals": [0.2, 0.4, 0.6, 0.8], "min": 0}
    names = [{**axis, "tickfont": {"size": 11}, "title": {"text": label(objective)}} for objective in view.objectives]
    ternary = {"sum": 1, "bgcolor": LIGHT.page, "aaxis": names[0], "baxis": names[1], "caxis": names[2]}
    return figure.update_layout(ternary=ternary, **legend_above(500)).update_layout(margin={"l": 60, "r": 60, "b": 110})


def _pairs_figure(view: FrontView, name: str, values: FloatArray) -> go.Figure:
    """The lower triangle of all pairs of weights."""
    side = len(view.objectives) - 1
    figure = make_subplots(
        rows=side,
        cols=side,
        shared_xaxes=True,
        shared_yaxes=True,
        vertical_spacing=0.16 / side,
        horizontal_spacing=0.03,
    )
    figure.update_layout(legend_tracegroupgap=0)
    for row in range(1, side + 1):
        for column in range(row):
            place = {"row": row, "col": column + 1}
            for group in groups(view):
                x, y = view.weights[group.rows, column], view.weights[group.rows, row]
                trace = go.Scatter(x=x, y=y, mode="markers", name=group.name, legendgroup=group.name)
                trace.update(marker=_marker(group, size=8), showlegend=row == 1, **linked(view, group.rows))
                figure.add_trace(trace, **place)
    _share_colors(figure, view, name, values)
    height = 220 + 170 * side
    themed(figure, f"Weights, coloured by {label(name, 14)}", height=height)
    for j, objective in enumerate(view.objectives):
        if j < side:
            figure.update_xaxes(title_text=label(objective), row=side, col=j + 1)
        if j > 0:
            figure.update_yaxes(title_text=label(objective), row=j, col=1)
    return figure.update_layout(**legend_above(height), margin_b=130)


def _marker(group: Group, size: int) -> dict[str, Any]:
    line = {"width": 1, "color": LIGHT.line} if group.filled else {"width": 2}
    return {"symbol": group.marker()["symbol"], "size": size, "line": line}


def _share_colors(figure: go.Figure, view: FrontView, name: str, values: FloatArray) -> None:
    """Colours every trace by its rows on one scale, with one colour bar below the plot."""
    known = values[np.isfinite(values)]
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)
    scale = {"colorscale": list(SCALE), "cmin": low, "cmax": high}
    title = {"text": _value_title(view, name), "side": "top", "font": {"size": 12}}
    bar = {"orientation": "h", "y": -0.12, "yanchor": "top", "thickness": 12, "outlinewidth": 0, "title": title}
    row_of = {trial: row for row, trial in enumerate(view.trials)}
    for position, trace in enumerate(figure.data):
        color = values[[row_of[int(link) if isinstance(link, str) else link[0]] for link in trace.customdata]]
        trace.marker.update(color=color, showscale=position == 0, colorbar=bar, **scale)


def _value_title(view: FrontView, name: str) -> str:
    if name in view.objectives:
        return axis_title(name)
    return _KL_TITLE if name == KL else label(name)
