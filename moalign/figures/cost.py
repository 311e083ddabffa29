"""Reward against KL: the best reward at each KL, and where a proxy parts from the held-out reward."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from moalign.arrays import FloatArray, IntArray
from moalign.figures.marks import crowd, error_bars, groups, linked, oracle_marker, reference_mark
from moalign.figures.style import STUDY_COLORS, STUDY_SYMBOLS, VERMILLION, axis_title, message_figure, themed
from moalign.figures.text import label
from moalign.figures.view import KL, FrontView

HELD_OUT = "held_out "  # prefix of the side column with an objective's held-out reward
_COLUMNS = 3


@final
@dataclass(frozen=True, kw_only=True)
class Flag:
    """A policy that drifted past the best held-out reward while its proxy still rose."""

    objective: str
    trial: int
    kl: float  # nats
    proxy_gain: float  # reward units, above the policy of best held-out reward
    held_out_loss: float  # held-out reward units, below it


@final
@dataclass(frozen=True, kw_only=True)
class OverOptimisation:
    """Flags, and the objectives that have a held-out reward at all."""

    pairs: tuple[str, ...]
    flags: tuple[Flag, ...]


def over_optimised(view: FrontView) -> OverOptimisation:
    """Returns where proxy and held-out reward part, as reward models do under optimisation (arXiv 2210.10760).

    A policy is flagged for an objective when its KL and its proxy exceed those of the policy with the best held-out
    reward, its held-out reward is lower, and the proxy's rise exceeds twice its standard error.
    """
    pairs = tuple(name for name in view.objectives if HELD_OUT + name in view.columns)
    flags: list[Flag] = []
    for name in pairs:
        proxy, truth = view.value(name), view.columns[HELD_OUT + name]
        if not np.isfinite(truth).any():
            continue
        best = int(np.nanargmax(truth))
        noise = 2 * np.nan_to_num(view.standard_errors[:, view.objectives.index(name)])
        parted = (view.kl > view.kl[best]) & (proxy - proxy[best] > noise) & (truth < truth[best])
        flags += [
            Flag(
                objective=name,
                trial=view.trials[row],
                kl=float(view.kl[row]),
                proxy_gain=float(proxy[row] - proxy[best]),
                held_out_loss=float(truth[best] - truth[row]),
            )
            for row in np.flatnonzero(parted).tolist()
        ]
    return OverOptimisation(pairs=pairs, flags=tuple(flags))


def frontier(kl: FloatArray, reward: FloatArray) -> IntArray:
    """Returns the rows that no other row beats with at most the same KL, by increasing KL."""
    order = np.lexsort((-reward, kl))
    order = order[np.isfinite(kl[order]) & np.isfinite(reward[order])]
    best = np.maximum.accumulate(reward[order]) if len(order) else reward[order]
    rises = np.diff(best, prepend=-np.inf) > 0
    return np.asarray(order[rises], dtype=np.int64)


def cost_figure(views: Sequence[FrontView], *, oracle: bool = True) -> go.Figure:
    """Returns one panel per objective with all policies, the frontier line, the oracle and the limit on the KL."""
    first = views[0]
    if not any(np.isfinite(view.kl).any() for view in views if view.trials):
        return message_figure("", "No KL to the reference policy has been measured.")
    count = len(first.objectives)
    columns = min(count, _COLUMNS)
    rows = math.ceil(count / columns)
    figure = make_subplots(rows=rows, cols=columns, horizontal_spacing=0.1, vertical_spacing=0.2 / rows)
    for j, name in enumerate(first.objectives):
        place = {"row": j // columns + 1, "col": j % columns + 1}
        if oracle and first.oracle is not None:
            figure.add_trace(_oracle(first, j).update(showlegend=j == 0), **place)
        for number, view in enumerate(views):
            color = STUDY_COLORS[number % len(STUDY_COLORS)]
            for trace in _traces(view, j, number if len(views) > 1 else None):
                figure.add_trace(trace.update(showlegend=j == 0 and trace.showlegend is not False), **place)
            figure.add_trace(_line(view, j, color), **place)
        if first.reference_values is not None:
            figure.add_trace(reference_mark(first, 0.0, first.reference_values[j]).update(showlegend=j == 0), **place)
        if KL in first.limits:
            line = {"color": VERMILLION, "width": 1.5, "dash": "dot"}
            figure.add_vline(x=first.limits[KL], line=line, annotation_text="limit", **place)
        figure.update_yaxes(title_text=axis_title(name), **place)
        figure.update_xaxes(title_text="KL (nats, lower is nearer)", rangemode="tozero", **place)
    themed(figure, "", 110 + 340 * rows)
    legend = {"orientation": "h", "x": 0, "y": 1.02, "xanchor": "left", "yanchor": "bottom", "itemsizing": "constant"}
    return figure.update_layout(title=None, legend=legend, margin={"l": 60, "r": 16, "t": 60, "b": 50})


def _traces(view: FrontView, objective: int, study: int | None) -> list[Any]:
    traces = []
    for group in groups(view):
        marker = group.marker()
        name = group.name
        if study is not None:
            color, symbol = STUDY_COLORS[study % len(STUDY_COLORS)], STUDY_SYMBOLS[study % len(STUDY_SYMBOLS)]
            marker = {**marker, "color": color, "symbol": symbol if group.filled else f"{symbol}-open"}
            name = f"{label(view.study)}: {group.name}"
        points = {"x": view.kl[group.rows], "y": view.values[group.rows, objective], "mode": "markers"}
        links = linked(view, group.rows)
        if not view.crowded:
            links["customdata"] = [[*link, view.study] for link in links["customdata"]]
        look = {"name": name, "legendgroup": name, "marker": marker, **links}
        if view.crowded:
            traces.append(crowd(points, look))
            continue
        bars = {
            "error_x": error_bars(view, view.kl_standard_errors[group.rows], str(marker["color"])),
            "error_y": error_bars(view, view.standard_errors[group.rows, objective], str(marker["color"])),
        }
        traces.append(go.Scatter(**points, **look, **bars))
    return traces


def _line(view: FrontView, objective: int, color: str) -> go.Scatter:
    reward = np.where(view.feasible, view.values[:, objective], np.nan)
    rows = frontier(view.kl, reward)
    look = {"mode": "lines", "line": {"color": color, "width": 1.3, "shape": "hv"}, "opacity": 0.55}
    return go.Scatter(x=view.kl[rows], y=view.values[rows, objective], hoverinfo="skip", showlegend=False, **look)


def _oracle(view: FrontView, objective: int) -> go.Scatter:
    assert view.oracle is not None
    curve = view.oracle.curve
    marker = oracle_marker(len(curve.kl))
    dots = go.Scatter(x=curve.kl, y=curve.values[:, objective], mode="markers", marker=marker)
    return dots.update(name=label(curve.label), legendgroup="oracle", hoverinfo="skip")
