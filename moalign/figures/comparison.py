"""Two policies on the same prompts: who wins on which objective, and where they disagree most."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, final

import numpy as np
import plotly.graph_objects as go

from moalign.arrays import FloatArray
from moalign.figures.style import BLUE, LIGHT, themed
from moalign.figures.text import label
from moalign.front import Interval, wilson
from moalign.front.intervals import Z95

Mark = tuple[Literal["same", "changed"], str]


class Paired(NamedTuple):
    """One prompt and sample of both policies, as in generations.jsonl."""

    a: Mapping[str, Any]
    b: Mapping[str, Any]
    differences: FloatArray  # [objectives] reward of a minus that of b
    disagreement: float  # largest difference, in standard deviations of the objective's differences


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class Comparison:
    """What two policies answered to the same prompts.

    Attributes:
        objectives: names in axis order.
        pairs: one per prompt and sample that both have.
        wins: share of the prompts on which a beats b, by objective; a tie counts one half. The 95% Wilson interval
            takes prompts, not samples, for independent, and is conservative where samples of a prompt differ.
        gains: mean difference of rewards, by objective, with 1.96 standard errors clustered by prompt.
        prompts: how many.
    """

    objectives: tuple[str, ...]
    pairs: tuple[Paired, ...]
    wins: Mapping[str, Interval]
    gains: Mapping[str, Interval]
    prompts: int


def compare(a: Sequence[Mapping[str, Any]], b: Sequence[Mapping[str, Any]], objectives: Sequence[str]) -> Comparison:
    """Returns the comparison of two lists of generations; rows without a partner are left out."""
    partner = {_key(row): row for row in b}
    rows = [(row, partner[_key(row)]) for row in a if _key(row) in partner]
    names = tuple(objectives)
    gaps = np.array([[_reward(x, n) - _reward(y, n) for n in names] for x, y in rows]).reshape(len(rows), len(names))
    spread = gaps.std(axis=0) if len(rows) else np.ones(len(names))
    scaled = np.abs(gaps) / np.where(spread > 0, spread, 1.0)
    pairs = tuple(
        Paired(x, y, gap, float(np.nanmax(far, initial=0.0)))
        for (x, y), gap, far in zip(rows, gaps, scaled, strict=True)
    )
    prompt = np.array([row.get("prompt_index", i) for i, (row, _) in enumerate(rows)])
    wins, gains = {}, {}
    for j, name in enumerate(names):
        known = np.isfinite(gaps[:, j]) if len(rows) else np.zeros(0, dtype=bool)
        score = 0.5 + 0.5 * np.sign(gaps[known, j])
        won = _prompt_means(score, prompt[known])
        wins[name] = wilson(float(won.sum()), len(won))
        gains[name] = _mean(_prompt_means(gaps[known, j], prompt[known]))
    return Comparison(objectives=names, pairs=pairs, wins=wins, gains=gains, prompts=len(np.unique(prompt)))


def win_figure(comparison: Comparison, a: str, b: str) -> go.Figure:
    """Returns one bar with interval per objective: how often `a` beats `b`."""
    names = list(reversed(comparison.objectives))
    wins = [comparison.wins[name] for name in names]
    figure = go.Figure(
        go.Scatter(
            x=[w.value for w in wins],
            y=[label(name) for name in names],
            mode="markers",
            marker={"color": BLUE, "size": 11},
            error_x={
                "type": "data",
                "symmetric": False,
                "array": [w.high - w.value for w in wins],
                "arrayminus": [w.value - w.low for w in wins],
                "color": BLUE,
                "thickness": 2,
                "width": 5,
            },
            hovertext=[
                f"{label(n)}: {w.value:.1%} [{w.low:.1%}, {w.high:.1%}]" for n, w in zip(names, wins, strict=True)
            ],
            hoverinfo="text",
        )
    )
    themed(figure, "", 90 + 42 * len(names))
    figure.add_vline(x=0.5, line={"color": LIGHT.line, "dash": "dot", "width": 1.5})
    figure.update_xaxes(
        range=[-0.02, 1.02], tickformat=".0%", title_text=f"share of prompts on which {label(a)} beats {label(b)}"
    )
    return figure.update_layout(title=None, margin={"t": 12, "l": 90, "r": 20, "b": 50}).update_yaxes(ticks="")


def difference(a: str, b: str) -> tuple[list[Mark], list[Mark]]:
    """Returns both texts in pieces, marked where words differ; the pieces of each join to the text."""
    left, right = (re.findall(r"\s+|\w+|[^\w\s]", text) for text in (a, b))
    marks: tuple[list[Mark], list[Mark]] = ([], [])
    for kind, i, j, k, m in difflib.SequenceMatcher(None, left, right, autojunk=False).get_opcodes():
        state: Literal["same", "changed"] = "same" if kind == "equal" else "changed"
        for side, piece in ((0, left[i:j]), (1, right[k:m])):
            if piece:
                marks[side].append((state, "".join(piece)))
    return marks


def _key(row: Mapping[str, Any]) -> tuple[Any, Any]:
    return row.get("prompt_index"), row.get("sample")


def _reward(row: Mapping[str, Any], name: str) -> float:
    value = (row.get("rewards") or {}).get(name)
    return float(value) if isinstance(value, (int, float)) else math.nan


def _prompt_means(values: FloatArray, prompts: FloatArray) -> FloatArray:
    if not len(values):
        return values
    _, place = np.unique(prompts, return_inverse=True)
    return np.bincount(place, values) / np.bincount(place)


def _mean(values: FloatArray) -> Interval:
    if not len(values):
        return Interval(math.nan)
    half = Z95 * float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    mean = float(values.mean())
    return Interval(mean, mean - half, mean + half)
