"""The front itself: two objectives in the plane, three in space and in pairs, more on parallel axes."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from moalign.figures.curves import kl_figure
from moalign.figures.marks import (
    REFERENCE_NAME,
    Group,
    error_bars,
    groups,
    linked,
    oracle_marker,
    reference_mark,
    reference_text,
)
from moalign.figures.parallel import parallel_figure
from moalign.figures.style import (
    GREEN,
    GREY,
    LIGHT,
    ORANGE,
    THIN,
    axis_title,
    legend_above,
    message_figure,
    panel_title,
    themed,
)
from moalign.figures.text import label, label_in_space
from moalign.figures.view import FrontView, OracleView

_NEAR = 0.6  # the reference point is drawn when it is within this fraction of the data's span

_Place = dict[str, Any]


def draw_front(view: FrontView) -> go.Figure:
    """Returns the figure of the front that fits its number of objectives.

    Every policy carries `customdata` [trial], so that a click can be followed to its texts.
    """
    title = f"{label(view.study)}: {int(view.non_dominated.sum())} of {len(view.trials)} policies non-dominated"
    if not view.trials:
        return message_figure(title, "No policy has been evaluated yet.")
    count = len(view.objectives)
    if count == 1:
        return kl_figure(view)
    if count == 2:
        return _plane_figure(view, title)
    return _space_figure(view, title) if count == 3 else parallel_figure(view, title)


def _plane_figure(view: FrontView, title: str) -> go.Figure:
    figure = go.Figure()
    _draw_pair(figure, view, (0, 1), {}, legend=True)
    themed(figure, title, height=620)
    figure.update_xaxes(title_text=axis_title(view.objectives[0]))
    return figure.update_yaxes(title_text=axis_title(view.objectives[1]))


def _space_figure(view: FrontView, title: str) -> go.Figure:
    figure = make_subplots(
        rows=2,
        cols=3,
        specs=[[{"type": "scene", "colspan": 3}, None, None], [{}, {}, {}]],
        row_heights=[0.64, 0.36],
        vertical_spacing=0.06,
        horizontal_spacing=0.09,
    )
    _draw_space(figure, view)
    for column, pair in enumerate(combinations(range(3), 2), start=1):
        place = {"row": 2, "col": column}
        _draw_pair(figure, view, pair, place, legend=False)
        figure.update_xaxes(title_text=panel_title(view.objectives[pair[0]]), **place)
        figure.update_yaxes(title_text=panel_title(view.objectives[pair[1]]), **place)
    themed(figure, title, height=1000)
    axis = {"gridcolor": LIGHT.grid, "linecolor": LIGHT.line, "showbackground": False, "showspikes": False}
    titles = [
        {**axis, "title": {"text": f"{label_in_space(name)} (reward)", "font": {"size": 13}}}
        for name in view.objectives
    ]
    return figure.update_layout(
        scene={"xaxis": titles[0], "yaxis": titles[1], "zaxis": titles[2], "aspectmode": "cube"},
        scene_camera={"eye": {"x": 1.4, "y": 1.4, "z": 0.75}, "center": {"x": 0, "y": 0, "z": -0.13}},
        **legend_above(1000),
    )


def _draw_space(figure: go.Figure, view: FrontView) -> None:
    place = {"row": 1, "col": 1}
    if view.oracle is not None:
        for trace in _oracle_surface(view.oracle):
            figure.add_trace(trace, **place)
    for group in groups(view):
        x, y, z = view.values[group.rows].T
        points = go.Scatter3d(x=x, y=y, z=z, mode="markers", marker=_marker_in_space(group), name=group.name)
        figure.add_trace(points.update(legendgroup=group.name, **linked(view, group.rows)), **place)
    if view.reference_values is not None:
        x, y, z = view.reference_values[:, None]
        marker = {"symbol": "diamond", "size": 6, "color": ORANGE, "line": {"width": 1, "color": LIGHT.text}}
        reference = go.Scatter3d(x=x, y=y, z=z, mode="markers", marker=marker, name=REFERENCE_NAME)
        text = reference_text(view)
        figure.add_trace(reference.update(legendgroup=REFERENCE_NAME, hoverinfo="text", hovertext=text), **place)


def _marker_in_space(group: Group) -> dict[str, Any]:
    outline = {"width": 1, "color": LIGHT.page if group.filled else group.color}
    symbol = group.marker()["symbol"]
    return {"symbol": symbol, "size": 0.6 * group.size, "color": group.color, "line": outline}


def _oracle_surface(oracle: OracleView) -> list[Any]:
    x, y, z = oracle.curve.values.T
    common = {"name": label(oracle.curve.label), "legendgroup": "oracle", "hoverinfo": "skip"}
    dots = go.Scatter3d(x=x, y=y, z=z, mode="markers", marker={"size": 1.8, "color": GREEN}, opacity=0.6, **common)
    if not len(oracle.triangles):
        return [dots]
    i, j, k = oracle.triangles.T
    return [go.Mesh3d(x=x, y=y, z=z, i=i, j=j, k=k, color=GREEN, opacity=0.22, showlegend=False, **common), dots]


def _draw_pair(figure: go.Figure, view: FrontView, pair: tuple[int, int], place: _Place, *, legend: bool) -> None:
    """Draws one plane of the front; with two objectives in all, the attained staircase too."""
    x_axis, y_axis = pair
    traces = [] if view.oracle is None else [_oracle_trace(view.oracle, pair)]
    for group in groups(view):
        trace = go.Scatter(
            x=view.values[group.rows, x_axis],
            y=view.values[group.rows, y_axis],
            error_x=error_bars(view, view.standard_errors[group.rows, x_axis], group.color),
            error_y=error_bars(view, view.standard_errors[group.rows, y_axis], group.color),
            mode="markers",
            marker=group.marker(),
            name=group.name,
            legendgroup=group.name,
        )
        traces.append(trace.update(linked(view, group.rows)))
    if view.reference_values is not None:
        traces.append(reference_mark(view, view.reference_values[x_axis], view.reference_values[y_axis]))
    if _corner_is_near(view, pair):
        traces.append(_corner(view, pair))
    if len(view.objectives) == 2:
        figure.add_trace(_staircase(view), **place)
    for trace in traces:
        figure.add_trace(trace.update(showlegend=legend), **place)


def _corner(view: FrontView, pair: tuple[int, int]) -> go.Scatter:
    x, y = view.reference_point[list(pair), None]
    marker = {"symbol": "cross-thin", "size": 12, "line": {"width": 2, "color": GREY}}
    trace = go.Scatter(x=x, y=y, mode="markers", marker=marker, name="reference point", legendgroup="corner")
    return trace.update(hoverinfo="text", hovertext="reference point: corner of the hypervolume")


def _oracle_trace(oracle: OracleView, pair: tuple[int, int]) -> go.Scatter:
    values = oracle.curve.values
    common = {"name": label(oracle.curve.label), "legendgroup": "oracle", "hoverinfo": "skip"}
    if values.shape[1] == 2:
        x, y = values[oracle.order].T
        return go.Scatter(x=x, y=y, mode="lines", line={"color": GREEN, "width": 2, "dash": "dash"}, **common)
    x, y = values[:, list(pair)].T
    return go.Scatter(x=x, y=y, mode="markers", marker=oracle_marker(len(x)), **common)


def _staircase(view: FrontView) -> go.Scatter:
    x, y = view.values[view.non_dominated].T
    order = np.argsort(x)
    line = {"shape": "vh", "width": 1.2, "color": THIN}
    return go.Scatter(x=x[order], y=y[order], mode="lines", line=line, hoverinfo="skip", showlegend=False)


def _corner_is_near(view: FrontView, pair: tuple[int, int]) -> bool:
    """A corner far below all points would squeeze them into a speck."""
    axes = list(pair)
    low, high = (bound[axes] for bound in view.ranges())
    margin = _NEAR * (high - low)
    corner = view.reference_point[axes]
    return bool(((corner >= low - margin) & (corner <= high + margin)).all())
