"""Four and more objectives: one vertical axis each, every policy a line across them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go

from moalign.arrays import FloatArray
from moalign.figures.marks import REFERENCE_NAME, Group, groups, linked, reference_text
from moalign.figures.style import LIGHT, ORANGE, SCALE, legend_above, message_figure, themed
from moalign.figures.text import label, number
from moalign.figures.view import KL, FrontView

_ALL_NAMES = 120  # characters of all names of brushed axes together, on a page 1,200 pixels wide


def parallel_figure(view: FrontView, title: str) -> go.Figure:
    """Returns parallel axes drawn as ordinary lines, because plotly's own parallel plot reports no clicked policy."""
    low, high = view.ranges()
    span = np.where(high > low, high - low, 1.0)
    figure = go.Figure()
    for group in groups(view):
        figure.add_trace(_lines(view, group, (view.values[group.rows] - low) / span))
    if view.reference_values is not None:
        figure.add_trace(_reference_line(view, (view.reference_values - low) / span))
    themed(figure, title, height=620)
    _draw_axes(figure, view, low, high)
    return figure.update_layout(**legend_above(620))


def _draw_axes(figure: go.Figure, view: FrontView, low: FloatArray, high: FloatArray) -> None:
    count = len(view.objectives)
    for j in range(count):
        figure.add_shape(type="line", x0=j, x1=j, y0=0, y1=1, line={"color": LIGHT.line, "width": 1}, layer="below")
        for y, value, anchor in ((1, high[j], "bottom"), (0, low[j], "top")):
            figure.add_annotation(x=j, y=y, text=number(value), showarrow=False, yanchor=anchor, font={"size": 12})
    names = [f"<b>{label(name)}</b>" for name in view.objectives]
    figure.update_xaxes(tickvals=list(range(count)), ticktext=names, range=[-0.35, count - 0.65], ticks="")
    figure.update_xaxes(showgrid=False, showline=False)
    figure.update_xaxes(title_text="objectives (reward, higher is better on every axis)")
    figure.update_yaxes(visible=False, range=[-0.09, 1.09])


def _lines(view: FrontView, group: Group, heights: FloatArray) -> go.Scatter:
    """All lines of a group as one trace with gaps between them; every corner of a line can be clicked."""
    count = len(view.objectives)
    x = [*range(count), None] * len(group.rows)
    y = [height for row in heights.tolist() for height in (*row, None)]
    rows = [row for row in group.rows for _ in range(count + 1)]
    line = {"color": group.color, "width": 1.8 if group.filled else 0.8}
    marker = {**group.marker(), "size": 7}
    trace = go.Scatter(x=x, y=y, mode="lines+markers", line=line, marker=marker, name=group.name)
    return trace.update(linked(view, rows), opacity=0.85 if group.filled else 0.6)


def _reference_line(view: FrontView, heights: FloatArray) -> go.Scatter:
    line = {"color": ORANGE, "width": 2.5, "dash": "dash"}
    marker = {"symbol": "diamond", "size": 10, "color": ORANGE, "line": {"width": 1, "color": LIGHT.text}}
    trace = go.Scatter(x=list(range(len(heights))), y=heights, mode="lines+markers", line=line, marker=marker)
    return trace.update(name=REFERENCE_NAME, hoverinfo="text", hovertext=reference_text(view))


def brush_figure(
    view: FrontView,
    names: Sequence[str],
    *,
    color: str,
    inverted: Sequence[str] = (),
    ranges: Mapping[str, Sequence[tuple[float, float]]] | None = None,
    height: int = 520,
) -> go.Figure:
    """Returns parallel axes that can be brushed, reordered and inverted; lines carry customdata [trial].

    Args:
        view: of the front.
        names: values to show, see `FrontView.value`.
        color: the value that colours the lines.
        inverted: axes drawn upside down.
        ranges: intervals brushed on axes; either end may be infinite.
        height: in pixels.
    """
    if not view.trials:
        return message_figure("", "No policy has been evaluated yet.")
    shades = view.value(color)
    known = shades[np.isfinite(shades)]
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)
    bar = {"thickness": 12, "outlinewidth": 0, "title": {"text": _axis_name(color), "side": "right"}, "x": 1.02}
    longest = max(_ALL_NAMES // max(len(names), 1), 8)
    brushed = ranges or {}
    axes = [_brush_axis(view, name, name in inverted, longest, brushed.get(name, ())) for name in names]
    trace = go.Parcoords(
        dimensions=axes,
        customdata=[[int(trial)] for trial in view.trials],
        line={
            "color": shades,
            "colorscale": list(SCALE),
            "cmin": low,
            "cmax": high,
            "showscale": True,
            "colorbar": bar,
        },
        unselected={"line": {"color": LIGHT.line, "opacity": 0.25}},
        labelfont={"size": 13},
        tickfont={"size": 11},
        rangefont={"size": 1, "color": "rgba(0,0,0,0)"},
    )
    figure = themed(go.Figure(trace), "", height)
    return figure.update_layout(title=None, margin={"l": 60, "r": 90, "t": 60, "b": 24})


def _brush_axis(
    view: FrontView, name: str, inverted: bool, longest: int, ranges: Sequence[tuple[float, float]]
) -> dict[str, object]:
    values = view.value(name)
    known = values[np.isfinite(values)]
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)
    if low == high:
        low, high = low - 0.5, high + 0.5
    ends = [high, low] if inverted else [low, high]
    bars = [[max(start, low), min(end, high)] for start, end in ranges if start <= high and end >= low]
    return {
        "name": name,
        "label": _axis_name(name, longest),
        "values": np.nan_to_num(values, nan=low).tolist(),  # plain numbers: the browser reads what a brush selects
        "range": ends,
        "constraintrange": bars or None,
    }


def _axis_name(name: str, longest: int = 24) -> str:
    return "KL (nats)" if name == KL else label(name.replace("weight ", "w ").replace("_", " "), longest)
