"""How policies are marked in every figure: one colour and shape per group, linked to their trial."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import plotly.graph_objects as go

from moalign.arrays import FloatArray
from moalign.figures.style import BLUE, GREEN, GREY, LIGHT, ORANGE, VERMILLION
from moalign.figures.text import label
from moalign.figures.view import FrontView

REFERENCE_NAME = "reference policy (untrained)"
_MOST_RINGS = 60  # points of the exact optimum
_MOST_ERROR_BARS = 150  # points; more bars hide what they qualify
_DENSE = 0.5  # opacity of points that lie over each other
_MOST_ELEMENTS = 500  # points that are elements of the page; more of them are left to the graphics card


@final
@dataclass(frozen=True, kw_only=True)
class Group:
    """A set of points drawn alike; colour and shape both tell groups apart."""

    name: str
    rows: list[int]  # positions in the view
    color: str
    symbol: str
    size: int
    filled: bool

    def marker(self) -> dict[str, Any]:
        """Returns the plotly marker of this group, for figures in the plane."""
        outline = {"width": 1, "color": LIGHT.page} if self.filled else {"width": 1.8, "color": self.color}
        symbol = self.symbol if self.filled else f"{self.symbol}-open"
        return {"symbol": symbol, "size": self.size, "color": self.color, "line": outline}


def groups(view: FrontView) -> list[Group]:
    """Returns the non-empty groups of policies, the important ones last so that they are drawn on top."""
    dominated = view.feasible & ~view.non_dominated
    every = [
        ("outside the limits", ~view.feasible, VERMILLION, "square", 8, False),
        ("dominated", dominated, GREY, "circle", 8, False),
        ("non-dominated", view.non_dominated, BLUE, "circle", 10, True),
    ]
    return [
        Group(name=name, rows=np.flatnonzero(mask).tolist(), color=color, symbol=symbol, size=size, filled=filled)
        for name, mask, color, symbol, size, filled in every
        if mask.any()
    ]


def linked(view: FrontView, rows: list[int]) -> dict[str, Any]:
    """Returns hover texts, and the trials as plain Python lists: binary arrays do not arrive in click events."""
    if view.crowded:  # texts, because lists of lists cost more than the points, and plain numbers do not arrive
        return {
            "customdata": [str(view.trials[row]) for row in rows],
            "hovertemplate": "trial %{customdata}<extra></extra>",
        }
    links = [[int(view.trials[row])] for row in rows]
    return {
        "customdata": links,
        "hovertext": [view.hover[row] for row in rows],
        "hoverinfo": "text",
    }


def crowd(points: Mapping[str, Any], look: Mapping[str, Any]) -> Any:
    """Returns a trace of one group among thousands of policies: its points are small, and shine through each other.

    Many are drawn as filled discs: a graphics card needs a picture of every other mark first.
    """
    marker = {**look["marker"], "size": 0.7 * look["marker"]["size"]}
    if len(points["x"]) <= _MOST_ELEMENTS:
        return go.Scatter(**points, **{**look, "marker": marker})
    if marker["symbol"].endswith("-open"):
        shade = _DENSE * marker.get("opacity", 1.0)
        marker |= {"symbol": marker["symbol"].removesuffix("-open"), "line": {"width": 0}, "opacity": shade}
    return go.Scattergl(**points, **{**look, "marker": marker})


def error_bars(view: FrontView, errors: FloatArray, color: str) -> dict[str, Any]:
    """Returns plotly error bars of one standard error, hidden where there are too many points to read them."""
    shown = len(view.trials) <= _MOST_ERROR_BARS and bool(np.isfinite(errors).any())
    return {"type": "data", "array": errors, "visible": shown, "thickness": 1, "width": 2, "color": color}


def reference_mark(view: FrontView, x: float, y: float) -> go.Scatter:
    """Returns the mark of the untrained reference policy in the plane."""
    marker = {"symbol": "diamond", "size": 12, "color": ORANGE, "line": {"width": 1.2, "color": LIGHT.text}}
    trace = go.Scatter(x=[float(x)], y=[float(y)], mode="markers", marker=marker, cliponaxis=False)
    return trace.update(
        name=REFERENCE_NAME, legendgroup=REFERENCE_NAME, hoverinfo="text", hovertext=reference_text(view)
    )


def reference_text(view: FrontView) -> str:
    """Returns the hover text of the reference policy."""
    values = () if view.reference_values is None else view.reference_values
    pairs = zip(view.objectives, values, strict=False)
    return "<br>".join([f"<b>{REFERENCE_NAME}</b>", *(f"{label(name)}: {value:.4g}" for name, value in pairs)])


def oracle_marker(points: int) -> dict[str, Any]:
    """Returns how points of the exact optimum are drawn: rings, or dots where there are many."""
    if points > _MOST_RINGS:
        return {"color": GREEN, "size": 3, "opacity": 0.5}
    return {"symbol": "circle-open", "color": GREEN, "size": 7, "line": {"width": 1.4, "color": GREEN}}
