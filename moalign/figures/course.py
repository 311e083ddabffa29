"""The course of a study: hypervolume with its band, when each policy was worked on, and each training's loss."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, final

import numpy as np
import plotly.graph_objects as go

from moalign.arrays import FloatArray, IntArray
from moalign.figures.style import BAND, BLUE, GREEN, GREY, ORANGE, VERMILLION, message_figure, themed
from moalign.figures.text import label, number, visible
from moalign.front import Front, bootstrap_over_prompts, hypervolume, non_dominated
from moalign.store import TrialRecord

_STEPS: Final = 40  # of the history at which a band is computed
_RESAMPLES: Final = 300
_MOST_BARS: Final = 200  # of a timeline; more are thinner than a line
_STATE_COLORS = {"done": BLUE, "failed": VERMILLION, "training": ORANGE, "evaluating": GREEN, "waiting": GREY}


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class HistoryBand:
    """The hypervolume as policies came in.

    Attributes:
        count: policies evaluated so far [steps].
        trials: the last of them [steps].
        value, low, high: hypervolume and its 95% bootstrap bounds over prompts [steps]; NaN without values per prompt.
    """

    count: IntArray
    trials: tuple[int, ...]
    value: FloatArray
    low: FloatArray
    high: FloatArray


def history_band(front: Front, steps: int = _STEPS, resamples: int = _RESAMPLES) -> HistoryBand:
    """Returns the hypervolume after each policy in the order of trials, with a band at up to `steps` of them.

    The band keeps the members of the front fixed and resamples prompts, like the interval of `Front.hypervolume`.
    """
    order = np.argsort([point.trial for point in front.points], kind="stable")
    value = front.history()
    kept = _kept(value, steps)
    low, high = np.full(len(kept), np.nan), np.full(len(kept), np.nan)
    feasible = np.array([point.feasible for point in front.points], dtype=np.bool_)
    volume = partial(hypervolume, reference_point=front.reference_point, unattained="ignore")
    known: dict[bytes, tuple[float, float]] = {}  # most policies leave the front as it was
    for place, step in enumerate(kept.tolist()):
        rows = order[: step + 1]
        rows = rows[feasible[rows]]
        members = rows[non_dominated(front.F[rows])] if len(rows) else rows
        if front.prompt_values is None or not len(members) or front.F.shape[1] > 5:
            continue
        if (key := members.tobytes()) not in known:
            bounds = bootstrap_over_prompts(front.prompt_values[members], volume, resamples=resamples)
            known[key] = bounds.low, bounds.high
        low[place], high[place] = known[key]
    trials = tuple(front.points[order[step]].trial for step in kept.tolist())
    return HistoryBand(count=kept + 1, trials=trials, value=value[kept], low=low, high=high)


def band_figure(band: HistoryBand, oracle: float | None = None, height: int = 300) -> go.Figure:
    """Returns the history with its band; `oracle` is the hypervolume of the exact optimum, if known."""
    if not len(band.count):
        return message_figure("", "No policy has been evaluated yet.")
    figure, x = go.Figure(), band.count.tolist()
    single = {}
    if len(x) == 1 and np.isfinite(band.low).all():  # a band of one point would have no width
        single = {"array": band.high - band.value, "arrayminus": band.value - band.low, "color": BLUE, "thickness": 1}
    if np.isfinite(band.low).any():
        edge = {"mode": "lines", "line": {"width": 0, "shape": "hv"}, "hoverinfo": "skip", "x": x}
        figure.add_trace(go.Scatter(y=band.low, showlegend=False, **edge))
        look = {"fill": "tonexty", "fillcolor": BAND, "name": "95% over prompts"}
        figure.add_trace(go.Scatter(y=band.high, **look, **edge))
    texts = [f"after trial {t}: {number(v)}" for t, v in zip(band.trials, band.value, strict=True)]
    figure.add_trace(
        go.Scatter(
            x=x,
            y=band.value,
            mode="lines+markers",
            line={"shape": "hv", "color": BLUE, "width": 2},
            marker={"size": 5, "color": BLUE},
            error_y={"type": "data", "symmetric": False, **single} if single else None,
            customdata=[[int(trial)] for trial in band.trials],
            hovertext=texts,
            hoverinfo="text",
            name="hypervolume",
        )
    )
    if oracle is not None and math.isfinite(oracle):
        line = {"color": GREEN, "width": 2, "dash": "dash"}
        level = go.Scatter(x=[x[0], x[-1]], y=[oracle, oracle], mode="lines", line=line, hoverinfo="skip")
        figure.add_trace(level.update(name=f"exact optimum {number(oracle)}"))
    themed(figure, "", height)
    few = 1 if x[-1] <= 10 else None
    figure.update_xaxes(title_text="policies evaluated", rangemode="tozero", tickformat="d", dtick=few)
    figure.update_yaxes(title_text="hypervolume (higher is better)", rangemode="tozero")
    return _legend(figure)


def timeline_figure(trials: Sequence[TrialRecord], height: int = 300, now: float | None = None) -> go.Figure:
    """Returns one bar per policy from its start to its end, coloured by state.

    Bars without an end reach to `now` (seconds since 1970), by default the last time that a trial tells. Of many
    trials, neighbours of one state share a bar from the first start to the last end among them.
    """
    timed = [t for t in trials if t.started is not None]
    if not timed:
        return message_figure("", "No policy has been started yet.")
    begin = min(t.started or 0.0 for t in timed)
    now = now or max(max(t.started or 0.0, t.finished or 0.0) for t in timed)
    figure = go.Figure()
    unit, name = (60.0, "minutes") if now - begin > 300 else (1.0, "seconds")
    together = -(-len(timed) // _MOST_BARS)
    thick = 0.75 if len(timed) > 3 else 0.3  # of the place of a trial
    for state, color in _STATE_COLORS.items():
        some = _neighbours([t for t in timed if t.state == state], together)
        if not some:
            continue
        start = [(min(t.started or begin for t in each) - begin) / unit for each in some]
        end = [(max(t.finished or now for t in each) - begin) / unit for each in some]
        length = [max(e - s, 0.0) for s, e in zip(start, end, strict=True)]
        trace = go.Bar(
            y=[(each[0].number + each[-1].number) / 2 for each in some],
            x=length,
            base=start,
            width=[thick * (each[-1].number - each[0].number + 1) for each in some],
            orientation="h",
            name=state,
            marker={"color": color, "line": {"width": 0}},
            customdata=[[each[0].number] for each in some],
            hovertext=[f"{_named(each)}: {state}, {n:.3g} {name}" for each, n in zip(some, length, strict=True)],
            hoverinfo="text",
        )
        figure.add_trace(trace)
    themed(figure, "", height)
    figure.update_xaxes(title_text=f"{name} since the first start")
    figure.update_yaxes(title_text="trial", autorange="reversed", tickformat="d", dtick=1 if len(timed) <= 10 else None)
    return _legend(figure).update_layout(barmode="overlay")


def training_figure(metrics: Sequence[Mapping[str, Any]], height: int = 170) -> go.Figure:
    """Returns the training loss by optimiser step, smoothed over a twentieth of the steps, and raw behind it."""
    steps = [row.get("step") for row in metrics]
    names = [n for n in ("loss", "reward") if any(isinstance(row.get(n), (int, float)) for row in metrics)]
    if not names:
        return message_figure("", "No training metrics were recorded.")
    name = names[0]
    values = np.array([float(row.get(name, math.nan)) for row in metrics])
    width = max(len(values) // 20, 1)
    known = np.nan_to_num(values, nan=float(np.nanmean(values)))
    padded = np.concatenate([np.full(width // 2, known[0]), known, np.full((width - 1) // 2, known[-1])])
    smooth = np.convolve(padded, np.ones(width) / width, mode="valid")
    figure = go.Figure()
    figure.add_trace(go.Scatter(x=steps, y=values, mode="lines", line={"color": BLUE, "width": 1}, opacity=0.3))
    figure.add_trace(go.Scatter(x=steps, y=smooth, mode="lines", line={"color": BLUE, "width": 2}))
    figure.update_traces(hovertemplate="step %{x}: %{y:.4g}<extra></extra>", showlegend=False)
    themed(figure, "", height)
    figure.update_xaxes(title_text="optimiser step").update_yaxes(title_text=label(name))
    return figure.update_layout(title=None, margin={"l": 52, "r": 10, "t": 8, "b": 40}, font={"size": 11})


def failures(trials: Sequence[TrialRecord]) -> list[tuple[str, list[int]]]:
    """Returns the causes of failed trials with their numbers, the most frequent first."""
    causes: dict[str, list[int]] = {}
    for trial in trials:
        if trial.state == "failed":
            causes.setdefault(visible(trial.error or "no reason was recorded"), []).append(trial.number)
    return sorted(causes.items(), key=lambda item: -len(item[1]))


def _neighbours(trials: Sequence[TrialRecord], together: int) -> list[list[TrialRecord]]:
    blocks: dict[int, list[TrialRecord]] = {}
    for trial in sorted(trials, key=lambda t: t.number):
        blocks.setdefault(trial.number // together, []).append(trial)
    return list(blocks.values())


def _named(trials: Sequence[TrialRecord]) -> str:
    first, last = trials[0].number, trials[-1].number
    return f"trial {first}" if first == last else f"{len(trials)} of the trials {first} to {last}"


def _kept(value: FloatArray, steps: int) -> IntArray:
    """Steps to draw: those at which the hypervolume grew, thinned to `steps`, with the first and the last."""
    if not len(value):
        return np.zeros(0, dtype=np.int64)
    grew = np.flatnonzero(np.diff(value, prepend=0.0) > 0)
    if len(value) <= steps:
        grew = np.arange(len(value))
    elif len(grew) > steps:
        grew = grew[np.linspace(0, len(grew) - 1, steps).astype(np.int64)]
    return np.unique(np.concatenate([[0], grew, [len(value) - 1]])).astype(np.int64)


def _legend(figure: go.Figure) -> go.Figure:
    legend = {"orientation": "h", "x": 0, "y": 1.02, "xanchor": "left", "yanchor": "bottom"}
    return figure.update_layout(title=None, legend=legend, margin={"l": 60, "r": 16, "t": 40, "b": 48})
