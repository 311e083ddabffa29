"""How the front grew, and what each objective cost in KL."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from moalign.figures.marks import error_bars, groups, linked, oracle_marker, reference_mark
from moalign.figures.style import BLUE, GREEN, axis_title, legend_above, message_figure, panel_title, themed
from moalign.figures.text import label, number
from moalign.figures.view import FrontView, OracleView

_PANELS_PER_ROW = 3
# Fractions of a panel's width and height: where a label sits beside its point, and the room it needs around.
_LABEL_LIFT = np.array([0.045, 0.045])
_LABEL_ROOM = np.array([0.04, 0.04])
_MOST_LABELS = 60


def history_figure(view: FrontView) -> go.Figure:
    """Returns the hypervolume after each policy in the order of trials, with the oracle's level where known."""
    title = "Hypervolume after each policy"
    if not view.trials:
        return message_figure(title, "No policy has been evaluated yet.")
    count = len(view.history)
    trials = [int(view.trials[row]) for row in view.history_rows]
    figure = go.Figure(
        go.Scatter(
            x=list(range(1, count + 1)),
            y=view.history,
            mode="lines+markers",
            line={"shape": "hv", "color": BLUE, "width": 2},
            marker={"size": 6, "color": BLUE},
            customdata=[[trial] for trial in trials],
            hovertext=[f"after trial {t}: {number(v)}" for t, v in zip(trials, view.history, strict=True)],
            hoverinfo="text",
            showlegend=False,
        )
    )
    if math.isfinite(view.hypervolume.low) and math.isfinite(view.hypervolume.high):
        figure.add_trace(_final_interval(view))
    if view.oracle is not None:
        figure.add_trace(_oracle_level(view, view.oracle))
    themed(figure, title, height=420)
    figure.update_xaxes(title_text="policies evaluated, in the order of trials", rangemode="tozero")
    figure.update_yaxes(title_text="hypervolume (product of reward units)", rangemode="tozero")
    return figure.update_layout(legend={"x": 0.99, "y": 0.02, "xanchor": "right", "yanchor": "bottom"})


def kl_figure(view: FrontView) -> go.Figure:
    """Returns one panel per objective: its value against the KL to the reference policy, points named by trial."""
    title = "What the rewards cost in KL (labels are trials)"
    if not view.trials or not np.isfinite(view.kl).any():
        return message_figure(title, "No KL to the reference policy has been measured.")
    count = len(view.objectives)
    columns = min(count, _PANELS_PER_ROW)
    rows = math.ceil(count / columns)
    figure = make_subplots(rows=rows, cols=columns, horizontal_spacing=0.09, vertical_spacing=0.2 / rows)
    for j, name in enumerate(view.objectives):
        place = {"row": j // columns + 1, "col": j % columns + 1}
        for trace in _kl_traces(view, j):
            figure.add_trace(trace.update(showlegend=j == 0), **place)
        figure.update_yaxes(title_text=panel_title(name) if count > 1 else axis_title(name), **place)
        figure.update_xaxes(title_text="KL to the reference (nats)", rangemode="tozero", **place)
    height = 110 + 370 * rows
    return themed(figure, title, height=height).update_layout(**legend_above(height))


def _kl_traces(view: FrontView, objective: int) -> list[Any]:
    traces = [] if view.oracle is None else [_oracle_dots(view.oracle, objective)]
    labelled = _uncrowded(view, objective)
    for group in groups(view):
        labels = [str(view.trials[row]) if row in labelled else "" for row in group.rows]
        trace = go.Scatter(
            x=view.kl[group.rows],
            y=view.values[group.rows, objective],
            error_x=error_bars(view, view.kl_standard_errors[group.rows], group.color),
            error_y=error_bars(view, view.standard_errors[group.rows, objective], group.color),
            mode="markers+text",
            text=labels,
            textposition="top right",  # clear of both error bars
            textfont={"size": 10},
            marker=group.marker(),
            name=group.name,
            legendgroup=group.name,
        )
        traces.append(trace.update(linked(view, group.rows)))
    if view.reference_values is not None:
        traces.append(reference_mark(view, 0.0, view.reference_values[objective]))
    return traces


def _uncrowded(view: FrontView, objective: int) -> set[int]:
    """Rows whose labels do not overprint each other; the front goes first, hovering names the others."""
    lowest, highest = (bound[objective] for bound in view.ranges())
    extent = np.array([np.nanmax(view.kl), highest - lowest])  # the KL axis starts at 0
    place = np.column_stack([view.kl, view.values[:, objective]]) / np.where(extent > 0, extent, 1.0)  # [points, 2]
    kept: list[int] = []
    for row in np.argsort(~view.non_dominated, kind="stable")[:_MOST_LABELS].tolist():
        spot = place[row] + _LABEL_LIFT
        taken = np.vstack([np.delete(place, row, axis=0), place[kept] + _LABEL_LIFT])  # other markers, and labels
        if np.isfinite(spot).all() and not (np.abs(taken - spot) < _LABEL_ROOM).all(axis=1).any():
            kept.append(row)
    return set(kept)


def _oracle_dots(oracle: OracleView, objective: int) -> go.Scatter:
    x, y = oracle.curve.kl, oracle.curve.values[:, objective]
    dots = go.Scatter(x=x, y=y, mode="markers", marker=oracle_marker(len(x)))
    return dots.update(name=label(oracle.curve.label), legendgroup="oracle", hoverinfo="skip")


def _oracle_level(view: FrontView, oracle: OracleView) -> go.Scatter:
    level = oracle.hypervolume
    share = f", {view.hypervolume.value / level:.1%} reached" if level > 0 else ""
    return go.Scatter(
        x=[0, len(view.history) + 0.5],
        y=[level, level],
        mode="lines",
        line={"color": GREEN, "width": 2, "dash": "dash"},
        name=f"{label(oracle.curve.label)}: {number(level)}{share}",
        hoverinfo="name",
    )


def _final_interval(view: FrontView) -> go.Scatter:
    """The interval belongs to the final front, so only the last point carries it."""
    interval = view.hypervolume
    bars = {
        "type": "data",
        "symmetric": False,
        "array": [max(interval.high - interval.value, 0.0)],
        "arrayminus": [max(interval.value - interval.low, 0.0)],
        "color": BLUE,
        "thickness": 1.5,
        "width": 6,
    }
    marker = {"size": 6, "color": BLUE}
    last = [len(view.history)]
    trace = go.Scatter(x=last, y=[interval.value], error_y=bars, mode="markers", marker=marker, hoverinfo="text")
    return trace.update(hovertext=f"final front: {interval}", name=f"final front: {interval}")
