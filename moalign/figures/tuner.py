"""A search over fields of a method: which values were tried, what they gave, and which field mattered.

The file `tuning.json`, written by `moalign tune` and by whoever runs a search of their own. A choice counts as the
position of its option; preference weights are one field per objective.
"""

from __future__ import annotations

import math
from typing import ClassVar, Self

import numpy as np
import plotly.graph_objects as go
import pydantic
from plotly.subplots import make_subplots

from moalign.figures.sidecar import Sidecar
from moalign.figures.style import BLUE, GREY, LIGHT, SCALE, STUDY_COLORS, VERMILLION, message_figure, on_card, themed
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
    options: list[str] = []  # of a choice, whose values are positions in it; untrusted

    def shown(self, value: float) -> str:
        """Returns a value as people read it."""
        return self.options[round(value)] if self.options else number(value, 3)


class Rung(pydantic.BaseModel):
    """What a trial reached with a share of the full budget."""

    model_config = _STRICT

    fidelity: float  # in (0, 1]
    values: dict[str, float]  # by objective


class Tried(pydantic.BaseModel):
    """One trial of the search: some settings, and what came of them."""

    model_config = _STRICT

    number: int
    values: dict[str, float]  # by field
    value: float | None = None  # what the search maximises; None while running or failed
    study: str | None = None  # its name in the store, if it has a study of its own
    proposed_by: str | None = None  # "first", "sobol", "random", or an acquisition function such as "qLogNEHVI"
    acquisition: float | None = None  # what that function expected of it, the logarithm of a gain
    state: str | None = None  # "asked", "told", "failed" or "dropped"
    policies: list[int] = []  # numbers of its trials in this study
    objectives: dict[str, float] = {}  # what was measured at the full budget
    columns: dict[str, float] = {}  # further measurements, such as the KL
    rungs: list[Rung] = []  # at rising budgets
    so_far: float | None = None  # value of all trials up to this one together; the best of them when None
    on_front: bool = False
    source: str | None = None  # the earlier study it was taken from
    error: str | None = None  # why it failed; untrusted


class Tuning(Sidecar):
    """The whole search."""

    FILE: ClassVar[str] = "tuning.json"

    objective: str = "hypervolume"  # what the value of a trial is
    fields: list[Field]
    trials: list[Tried]
    importance: dict[str, dict[str, float]] = {}  # shares of the variance, by what is explained and by setting
    importance_sd: dict[str, dict[str, float]] = {}  # their standard deviations
    reference_point: list[float] | None = None  # corner of the hypervolume
    limits: dict[str, float] = {}  # upper bounds by column

    @pydantic.model_validator(mode="after")
    def _fits(self) -> Self:
        names = {field.name for field in self.fields}
        for trial in self.trials:
            if missing := names - set(trial.values):
                raise ValueError(f"trial {trial.number} has no value for {', '.join(sorted(missing))}")
            for field in self.fields:
                if field.options and not -0.5 <= trial.values[field.name] <= len(field.options) - 0.5:
                    raise ValueError(f"trial {trial.number} has no option of {field.name}: {trial.values[field.name]}")
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
        figure.update_xaxes(**_axis(field), **place)
    themed(figure, "", 80 + 280 * rows)
    for position in range(rows):
        figure.update_yaxes(title_text=f"{label(tuning.objective)} (higher is better)", row=position + 1, col=1)
    return on_card(figure)


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
    marker = {"size": 8, "color": LIGHT.page, "line": {"width": 1.6, "color": LIGHT.text}}
    dots = go.Scatter(x=[t.values[x] for t in done], y=[t.values[y] for t in done], mode="markers", marker=marker)
    figure.add_trace(dots.update(hovertext=[_text(tuning, t) for t in done], hoverinfo="text", showlegend=False))
    themed(figure, "", height)
    return on_card(figure.update_xaxes(**_axis(fields[x])).update_yaxes(**_axis(fields[y])))


def importance_figure(tuning: Tuning, height: int = 260) -> go.Figure:
    """Returns how much each setting moved what was measured, the largest on top; a colour per quantity."""
    known = {of: shares for of, shares in tuning.importance.items() if shares}
    if not known:
        return message_figure("", "No importance of fields was computed.")
    first = next(iter(known.values()))
    names = sorted({name for shares in known.values() for name in shares}, key=lambda name: first.get(name, 0.0))
    figure = go.Figure()
    for position, (of, shares) in enumerate(known.items()):
        values = [shares.get(name, 0.0) for name in names]
        bars = go.Bar(
            x=values, y=[short_name(name) for name in names], orientation="h", name=label(of), hoverinfo="skip"
        )
        bars.update(marker={"color": STUDY_COLORS[position % len(STUDY_COLORS)]})
        errors = tuning.importance_sd.get(of)
        if errors:
            spread = [errors.get(name, 0.0) for name in names]
            bars.update(error_x={"type": "data", "array": spread, "thickness": 1, "width": 3, "color": GREY})
        if len(known) == 1:
            bars.update(text=[f"{value:.0%}" for value in values], textposition="auto")
        figure.add_trace(bars)
    themed(figure, "", height)
    figure.update_layout(showlegend=len(known) > 1, legend_traceorder="normal")
    of = f" of {label(next(iter(known)))}" if len(known) == 1 else ""
    return on_card(figure.update_xaxes(title_text=f"share of the variance{of}", tickformat=".0%", range=[0, 1]))


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
    together = [t.so_far for t in done]
    best = np.maximum.accumulate(values) if None in together else np.array(together, dtype=np.float64)
    name = "best so far" if None in together or np.allclose(best, np.maximum.accumulate(values)) else "all so far"
    figure.add_trace(go.Scatter(x=numbers, y=best, mode="lines", line=line, name=name, hoverinfo="skip"))
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
    figure = on_card(figure)
    return figure.update_layout(
        yaxis_title_text=f"{label(tuning.objective)} (higher is better)", margin_r=60 if expected else 16
    )


def short_name(name: str) -> str:
    """Returns a field's name for an axis: that it is the method's goes without saying."""
    return label(name.removeprefix("method."))


def _axis(field: Field) -> dict[str, object]:
    axis: dict[str, object] = {"title_text": short_name(field.name), "type": "log" if field.log else "linear"}
    if field.options:
        axis |= {"tickvals": list(range(len(field.options))), "ticktext": [label(name) for name in field.options]}
    elif field.log:
        ticks = log_ticks(field.low, field.high)
        axis |= {"tickvals": ticks, "ticktext": [number(tick, 1) for tick in ticks], "minor": {"showgrid": False}}
    return axis


def log_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Returns round numbers from `low` to `high` for a logarithmic axis: 1, 2, 5, or 1, 3, or 1 of each decade."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in ((1, 2, 5), (1, 3), (1,)):
        ticks = [float(f"{digit}e{decade}") for decade in decades for digit in digits]
        ticks = [tick for tick in ticks if low * (1 - 1e-9) <= tick <= high * (1 + 1e-9)]
        if len(ticks) <= most:
            break
    step = -(-len(ticks) // most)
    return ticks[::step] if len(ticks) > 1 else [low, high]


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
    lines += [f"{label(field.name)} {label(field.shown(trial.values[field.name]))}" for field in tuning.fields]
    lines += [f"{label(name)}: {number(value)}" for name, value in trial.objectives.items() if name != tuning.objective]
    return "<br>".join(lines)
