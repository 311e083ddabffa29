"""A search over fields of a method: which values were tried, what they gave, and which field mattered.

The file `tuning.json`, written by whoever runs the search.
"""

from __future__ import annotations

import math
from typing import ClassVar, Self

import numpy as np
import plotly.graph_objects as go
import pydantic
from plotly.subplots import make_subplots

from moalign.figures.sidecar import Sidecar
from moalign.figures.style import BLUE, GREY, LIGHT, SCALE, VERMILLION, message_figure, themed
from moalign.figures.text import label, number

_STRICT = pydantic.ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)
_COLUMNS = 3
_GRID = 30  # cells per side of a contour
_FEWEST = 4  # trials that a contour needs


class Field(pydantic.BaseModel):
    """One field that was searched, such as "method.beta"."""

    model_config = _STRICT

    name: str
    low: float
    high: float
    log: bool = False
    importance: float | None = None  # share of the variance of the value, in [0, 1]


class Tried(pydantic.BaseModel):
    """One study of the search."""

    model_config = _STRICT

    number: int
    values: dict[str, float]  # by field
    value: float | None = None  # what the search maximises; None while running or failed
    study: str | None = None  # its name in the store
    acquisition: float | None = None  # what the search expected of it, when it was proposed


class Tuning(Sidecar):
    """The whole search."""

    FILE: ClassVar[str] = "tuning.json"

    objective: str = "hypervolume"
    fields: list[Field]
    trials: list[Tried]

    @pydantic.model_validator(mode="after")
    def _fits(self) -> Self:
        names = {field.name for field in self.fields}
        for trial in self.trials:
            if missing := names - set(trial.values):
                raise ValueError(f"trial {trial.number} has no value for {', '.join(sorted(missing))}")
        return self

    def done(self) -> list[Tried]:
        """Returns the trials with a value, by number."""
        return sorted((t for t in self.trials if t.value is not None), key=lambda t: t.number)


def slice_figure(tuning: Tuning) -> go.Figure:
    """Returns one panel per field: what was reached against the value tried, later trials darker."""
    done = tuning.done()
    if not done or not tuning.fields:
        return message_figure("", "No trial of the search is finished.")
    columns = min(len(tuning.fields), _COLUMNS)
    rows = math.ceil(len(tuning.fields) / columns)
    figure = make_subplots(rows=rows, cols=columns, shared_yaxes=True, horizontal_spacing=0.04)
    best = max(done, key=lambda t: t.value if t.value is not None else -math.inf)
    for position, field in enumerate(tuning.fields):
        place = {"row": position // columns + 1, "col": position % columns + 1}
        marker = {"size": 9, "color": [t.number for t in done], "colorscale": list(reversed(SCALE)), "showscale": False}
        trace = go.Scatter(x=[t.values[field.name] for t in done], y=[t.value for t in done], mode="markers")
        trace.update(marker=marker, hovertext=[_text(tuning, t) for t in done], hoverinfo="text", showlegend=False)
        figure.add_trace(trace, **place)
        ring = {"symbol": "circle-open", "size": 17, "color": VERMILLION, "line": {"width": 2.5}}
        mark = go.Scatter(x=[best.values[field.name]], y=[best.value], mode="markers", marker=ring, hoverinfo="skip")
        figure.add_trace(mark.update(name="best", showlegend=position == 0), **place)
        figure.update_xaxes(title_text=label(field.name), type="log" if field.log else "linear", **place)
    themed(figure, "", 80 + 280 * rows)
    for position in range(rows):
        figure.update_yaxes(title_text=f"{label(tuning.objective)} (higher is better)", row=position + 1, col=1)
    return _plain(figure)


def contour_figure(tuning: Tuning, x: str, y: str, height: int = 400) -> go.Figure:
    """Returns the value over two fields, interpolated between the trials inside their hull; dots are the trials."""
    from scipy.interpolate import LinearNDInterpolator
    from scipy.spatial import QhullError

    done = tuning.done()
    fields = {field.name: field for field in tuning.fields}
    if len(done) < _FEWEST or x == y:
        return message_figure("", f"A contour needs {_FEWEST} finished trials and two different fields.")
    points = np.array([[_scaled(fields[n], t.values[n]) for n in (x, y)] for t in done])
    values = np.array([t.value for t in done], dtype=np.float64)
    side = np.linspace(0, 1, _GRID)
    try:
        grid = LinearNDInterpolator(points, values)(*np.meshgrid(side, side))
    except QhullError:  # all on a line
        grid = np.full((_GRID, _GRID), np.nan)
    bar = {"title": {"text": label(tuning.objective), "side": "right"}, "thickness": 12, "outlinewidth": 0}
    axes = [[_unscaled(fields[n], s) for s in side] for n in (x, y)]
    contour = go.Contour(x=axes[0], y=axes[1], z=grid, colorscale=list(SCALE), colorbar=bar, hoverinfo="skip")
    figure = go.Figure(contour.update(line={"width": 0.6}, connectgaps=False))
    marker = {"size": 8, "color": LIGHT.page, "line": {"width": 1.6, "color": "#1b1f27"}}
    dots = go.Scatter(x=[t.values[x] for t in done], y=[t.values[y] for t in done], mode="markers", marker=marker)
    figure.add_trace(dots.update(hovertext=[_text(tuning, t) for t in done], hoverinfo="text", showlegend=False))
    themed(figure, "", height)
    figure.update_xaxes(title_text=label(x), type="log" if fields[x].log else "linear")
    return _plain(figure.update_yaxes(title_text=label(y), type="log" if fields[y].log else "linear"))


def importance_figure(tuning: Tuning, height: int = 260) -> go.Figure:
    """Returns how much each field moved the value, largest on top."""
    known = sorted((f for f in tuning.fields if f.importance is not None), key=lambda f: f.importance or 0.0)
    if not known:
        return message_figure("", "No importance of fields was computed.")
    bars = go.Bar(x=[f.importance for f in known], y=[label(f.name) for f in known], orientation="h")
    bars.update(
        marker={"color": BLUE}, text=[f"{f.importance:.0%}" for f in known], textposition="auto", hoverinfo="skip"
    )
    figure = themed(go.Figure(bars), "", height)
    return _plain(
        figure.update_xaxes(title_text=f"share of the variance of {label(tuning.objective)}", tickformat=".0%")
    )


def search_figure(tuning: Tuning, height: int = 300) -> go.Figure:
    """Returns the value of each trial, the best so far, and what the search expected where it said so."""
    done = tuning.done()
    if not done:
        return message_figure("", "No trial of the search is finished.")
    numbers, values = [t.number for t in done], np.array([t.value for t in done], dtype=np.float64)
    marker = {"size": 8, "color": BLUE}
    dots = go.Scatter(x=numbers, y=values, mode="markers", marker=marker, name="reached")
    figure = go.Figure(dots.update(hovertext=[_text(tuning, t) for t in done], hoverinfo="text"))
    line = {"shape": "hv", "color": BLUE, "width": 2}
    best = np.maximum.accumulate(values)
    figure.add_trace(go.Scatter(x=numbers, y=best, mode="lines", line=line, name="best so far", hoverinfo="skip"))
    expected = [t for t in done if t.acquisition is not None]
    if expected:
        trace = go.Scatter(x=[t.number for t in expected], y=[t.acquisition for t in expected], mode="lines+markers")
        trace.update(
            line={"color": GREY, "dash": "dot"}, marker={"symbol": "x", "size": 7}, name="acquisition", yaxis="y2"
        )
        figure.add_trace(trace)
        figure.update_layout(
            yaxis2={"overlaying": "y", "side": "right", "showgrid": False, "title": {"text": "acquisition"}}
        )
    themed(figure, "", height)
    figure.update_xaxes(title_text="trial of the search")
    figure = _plain(figure)
    return figure.update_layout(
        yaxis_title_text=f"{label(tuning.objective)} (higher is better)", margin_r=60 if expected else 16
    )


def _scaled(field: Field, value: float) -> float:
    low, high = (math.log(field.low), math.log(field.high)) if field.log else (field.low, field.high)
    at = math.log(value) if field.log else value
    return (at - low) / (high - low) if high > low else 0.5


def _unscaled(field: Field, share: float) -> float:
    if field.log:
        return math.exp(math.log(field.low) + share * (math.log(field.high) - math.log(field.low)))
    return field.low + share * (field.high - field.low)


def _text(tuning: Tuning, trial: Tried) -> str:
    lines = [f"<b>trial {trial.number}</b>: {label(tuning.objective)} {number(trial.value)}"]
    lines += [f"{label(name)} {number(value)}" for name, value in trial.values.items()]
    return "<br>".join(lines)


def _plain(figure: go.Figure) -> go.Figure:
    legend = {"orientation": "h", "x": 0, "y": 1.02, "xanchor": "left", "yanchor": "bottom"}
    return figure.update_layout(title=None, legend=legend, margin={"l": 60, "r": 16, "t": 44, "b": 50})
