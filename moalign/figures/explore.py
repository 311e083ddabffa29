"""The front as one plane or one space that fills a page: chosen axes, a selection, several studies over each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
import plotly.graph_objects as go

from moalign.arrays import BoolArray, FloatArray
from moalign.figures.marks import (
    REFERENCE_NAME,
    Group,
    crowd,
    error_bars,
    groups,
    linked,
    oracle_marker,
    reference_text,
)
from moalign.figures.style import (
    GREEN,
    GREY,
    LIGHT,
    ORANGE,
    STUDY_COLORS,
    STUDY_SYMBOLS,
    THIN,
    VERMILLION,
    axis_title,
    message_figure,
    themed,
)
from moalign.figures.text import label, label_in_space
from moalign.figures.view import KL, FrontView

KL_TITLE = "KL to the reference policy (nats per response, lower is nearer)"
CORNER_NAME = "reference point"
_CORNER_TEXT = "reference point: corner of the hypervolume"
_FADED = 0.16


@final
@dataclass(frozen=True, kw_only=True)
class Shown:
    """What a figure of the front shows besides the non-dominated policies."""

    dominated: bool = True
    intervals: bool = True
    oracle: bool = True
    reference_point: bool = True
    selected: frozenset[int] | None = None  # trials; the others are faded. None: all


@final
@dataclass(frozen=True, kw_only=True)
class _Layer:
    """A group of one study, as it is drawn: all of its points alike."""

    view: FrontView
    group: Group
    faded: bool

    @property
    def rows(self) -> list[int]:
        return self.group.rows


def plane_figure(
    views: Sequence[FrontView], x: str, y: str, shown: Shown | None = None, height: int = 560
) -> go.Figure:
    """Returns two values of all policies against each other; several studies lie over each other.

    Args:
        views: of one or more studies with the same objectives; the first gives reference, oracle and limits.
        x, y: names that `FrontView.value` knows.
        shown: what else to draw.
        height: in pixels.
    """
    shown, first = shown or Shown(), views[0]
    if not any(view.trials for view in views):
        return message_figure("", "No policy has been evaluated yet.")
    figure = go.Figure()
    objectives = x in first.objectives and y in first.objectives
    if shown.oracle and first.oracle is not None and {x, y} <= {*first.objectives, KL}:
        figure.add_trace(_oracle_plane(first, x, y))
    for view in views:
        if len(view.objectives) == 2 and objectives and view.non_dominated.any():
            figure.add_trace(_staircase(view, x, y))
    for layer in _layers(views, shown):
        figure.add_trace(_plane_trace(layer, x, y, shown))
    if first.reference_values is not None and {x, y} <= {*first.objectives, KL}:
        figure.add_trace(_reference(first, x, y))
    if shown.reference_point and objectives:
        corner = dict(zip(first.objectives, first.reference_point, strict=True))
        figure.add_trace(_corner(corner[x], corner[y]))
    themed(figure, "", height)
    _shade_limits(figure, first, x, y)
    figure.update_xaxes(title_text=value_title(first, x)).update_yaxes(title_text=value_title(first, y))
    return _above(figure)


def space_figure(
    views: Sequence[FrontView], axes: Sequence[str], shown: Shown | None = None, height: int = 620
) -> go.Figure:
    """Returns three values of all policies in space; arguments as in `plane_figure`."""
    shown, first = shown or Shown(), views[0]
    if not any(view.trials for view in views):
        return message_figure("", "No policy has been evaluated yet.")
    figure = go.Figure()
    known = set(axes) <= {*first.objectives, KL}
    if shown.oracle and first.oracle is not None and known:
        for trace in _oracle_space(first, axes):
            figure.add_trace(trace)
    for layer in _layers(views, shown):
        x, y, z = (layer.view.value(name)[layer.rows] for name in axes)
        marker = {**_marker(layer), "size": 0.62 * layer.group.size}
        trace = go.Scatter3d(x=x, y=y, z=z, mode="markers", marker=marker, name=layer.group.name)
        trace.update(showlegend=not layer.faded, **_links(layer))
        figure.add_trace(trace)
    if first.reference_values is not None and known:
        figure.add_trace(_reference_space(first, axes))
    if shown.reference_point and set(axes) <= set(first.objectives):
        corner = dict(zip(first.objectives, first.reference_point, strict=True))
        marker = {"symbol": "cross", "size": 5, "color": GREY}
        place = dict(zip("xyz", ([corner[name]] for name in axes), strict=True))
        trace = go.Scatter3d(mode="markers", marker=marker, name=CORNER_NAME, **place)
        figure.add_trace(trace.update(hoverinfo="text", hovertext=_CORNER_TEXT))
    themed(figure, "", height)
    axis = {"gridcolor": LIGHT.grid, "linecolor": LIGHT.line, "showbackground": False, "showspikes": False, "nticks": 6}
    titles = [{**axis, "title": {"text": _space_title(name), "font": {"size": 12}}} for name in axes]
    figure.update_layout(
        scene={"xaxis": titles[0], "yaxis": titles[1], "zaxis": titles[2], "aspectmode": "cube"},
        scene_camera={"eye": {"x": 1.5, "y": 1.5, "z": 0.75}, "center": {"x": 0, "y": 0, "z": -0.16}},
    )
    return _above(figure).update_layout(margin={"l": 0, "r": 0, "b": 0})


def value_title(view: FrontView, name: str) -> str:
    """Returns an axis title with unit and direction for any value of a view."""
    if name in view.objectives:
        return axis_title(name)
    if name == KL:
        return KL_TITLE
    return f"weight of {label(name.removeprefix('weight '))}" if name in view.weight_names() else label(name)


def _layers(views: Sequence[FrontView], shown: Shown) -> list[_Layer]:
    layers = []
    for number, view in enumerate(views):
        chosen = _mask(view, shown.selected)
        for group in groups(view):
            if not shown.dominated and group.name != "non-dominated":
                continue
            styled = group if len(views) == 1 else _of_study(group, view.study, number)
            for faded in (True, False):
                rows = [row for row in group.rows if bool(chosen[row]) != faded]
                if rows:
                    layers.append(_Layer(view=view, group=replace(styled, rows=rows), faded=faded))
    return sorted(layers, key=lambda layer: not layer.faded)


def _of_study(group: Group, study: str, number: int) -> Group:
    place = number % len(STUDY_COLORS)
    name = label(study) if group.name == "non-dominated" else f"{label(study)}: {group.name}"
    symbol = STUDY_SYMBOLS[place]
    return replace(group, name=name, color=STUDY_COLORS[place], symbol=symbol)


def _mask(view: FrontView, selected: frozenset[int] | None) -> BoolArray:
    if selected is None:
        return np.ones(len(view.trials), dtype=np.bool_)
    return np.array([trial in selected for trial in view.trials], dtype=np.bool_)


def _marker(layer: _Layer) -> dict[str, Any]:
    marker = layer.group.marker()
    return {**marker, "opacity": _FADED} if layer.faded else marker


def _links(layer: _Layer) -> dict[str, Any]:
    links = linked(layer.view, layer.rows)
    study = layer.view.study
    if not layer.view.crowded:
        links["customdata"] = [[*link, study] for link in links["customdata"]]
    return links


def _plane_trace(layer: _Layer, x: str, y: str, shown: Shown) -> Any:
    view, rows = layer.view, layer.rows
    points = {"x": view.value(x)[rows], "y": view.value(y)[rows], "mode": "markers", "name": layer.group.name}
    look = {"marker": _marker(layer), "showlegend": not layer.faded, **_links(layer)}
    if view.crowded:
        return crowd(points, look)
    if shown.intervals and not layer.faded:
        for axis, name in (("error_x", x), ("error_y", y)):
            if (errors := _errors(view, name)) is not None:
                look[axis] = error_bars(view, errors[rows], layer.group.color)
    return go.Scatter(**points, **look)


def _errors(view: FrontView, name: str) -> FloatArray | None:
    if name in view.objectives:
        return view.standard_errors[:, view.objectives.index(name)]
    return view.kl_standard_errors if name == KL else None


def _staircase(view: FrontView, x: str, y: str) -> go.Scatter:
    across, up = view.value(x)[view.non_dominated], view.value(y)[view.non_dominated]
    order = np.argsort(across)
    line = {"shape": "vh", "width": 1.2, "color": THIN}
    return go.Scatter(x=across[order], y=up[order], mode="lines", line=line, hoverinfo="skip", showlegend=False)


def _oracle_value(view: FrontView, name: str) -> FloatArray:
    assert view.oracle is not None
    curve = view.oracle.curve
    return curve.kl if name == KL else curve.values[:, view.objectives.index(name)]


def _oracle_plane(view: FrontView, x: str, y: str) -> Any:
    assert view.oracle is not None
    across, up = _oracle_value(view, x), _oracle_value(view, y)
    common: Mapping[str, Any] = {"name": label(view.oracle.curve.label), "hoverinfo": "skip"}
    if len(view.objectives) == 2 and KL not in (x, y):
        order = view.oracle.order
        line = {"color": GREEN, "width": 2, "dash": "dash"}
        return go.Scatter(x=across[order], y=up[order], mode="lines", line=line, **common)
    return go.Scatter(x=across, y=up, mode="markers", marker=oracle_marker(len(across)), **common)


def _oracle_space(view: FrontView, axes: Sequence[str]) -> list[Any]:
    assert view.oracle is not None
    x, y, z = (_oracle_value(view, name) for name in axes)
    common: Mapping[str, Any] = {"name": label(view.oracle.curve.label), "legendgroup": "oracle", "hoverinfo": "skip"}
    dots = go.Scatter3d(x=x, y=y, z=z, mode="markers", marker={"size": 1.8, "color": GREEN}, opacity=0.6, **common)
    if not len(view.oracle.triangles):
        return [dots]
    i, j, k = view.oracle.triangles.T
    return [go.Mesh3d(x=x, y=y, z=z, i=i, j=j, k=k, color=GREEN, opacity=0.2, showlegend=False, **common), dots]


def _reference_value(view: FrontView, name: str) -> float:
    assert view.reference_values is not None
    return 0.0 if name == KL else float(view.reference_values[view.objectives.index(name)])


def _reference(view: FrontView, x: str, y: str) -> go.Scatter:
    marker = {"symbol": "diamond", "size": 12, "color": ORANGE, "line": {"width": 1.2, "color": LIGHT.text}}
    place = {"x": [_reference_value(view, x)], "y": [_reference_value(view, y)]}
    trace = go.Scatter(mode="markers", marker=marker, name=REFERENCE_NAME, **place)
    return trace.update(hoverinfo="text", hovertext=reference_text(view))


def _reference_space(view: FrontView, axes: Sequence[str]) -> go.Scatter3d:
    x, y, z = ([_reference_value(view, name)] for name in axes)
    marker = {"symbol": "diamond", "size": 6, "color": ORANGE, "line": {"width": 1, "color": LIGHT.text}}
    trace = go.Scatter3d(x=x, y=y, z=z, mode="markers", marker=marker, name=REFERENCE_NAME)
    return trace.update(hoverinfo="text", hovertext=reference_text(view))


def _corner(x: float, y: float) -> go.Scatter:
    marker = {"symbol": "cross-thin", "size": 13, "line": {"width": 2, "color": GREY}}
    trace = go.Scatter(x=[x], y=[y], mode="markers", marker=marker, name=CORNER_NAME)
    return trace.update(hoverinfo="text", hovertext=_CORNER_TEXT)


def _shade_limits(figure: go.Figure, view: FrontView, x: str, y: str) -> None:
    """Shades what the study's limits forbid: below a bound on an objective, above the bound on the KL."""
    look = {"fillcolor": VERMILLION, "opacity": 0.09, "line_width": 0, "layer": "below"}
    for axis, name in (("x", x), ("y", y)):
        if name not in view.limits:
            continue
        bound, values = view.limits[name], view.value(name)
        span = float(np.nanmax(values) - np.nanmin(values)) or 1.0
        if name == KL:
            low, high = bound, max(float(np.nanmax(values)), bound) + span
        else:
            low, high = min(float(np.nanmin(values)), bound) - span, bound
        (figure.add_vrect if axis == "x" else figure.add_hrect)(
            **{f"{axis}0": low, f"{axis}1": high}, **look, annotation_text="outside the limit", annotation_font_size=11
        )
        figure.update_layout({f"{axis}axis_autorangeoptions": {"include": [bound]}})


def _space_title(name: str) -> str:
    return "KL (nats)" if name == KL else f"{label_in_space(name)} (reward)"


def _above(figure: go.Figure) -> go.Figure:
    """Puts the legend in a row above the plot, and leaves no room for the title there is not."""
    legend = {"orientation": "h", "x": 0, "y": 1.01, "xanchor": "left", "yanchor": "bottom", "itemsizing": "constant"}
    return figure.update_layout(title=None, legend=legend, margin={"l": 76, "r": 18, "t": 56, "b": 56})
