"""Ranges of values to look at, brushed on an axis or typed beside it; they stand in the address as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from dash import html

from moalign.arrays import BoolArray
from moalign.figures import FrontView, visible
from moalign_dashboards.context import Context
from moalign_dashboards.words import Field

OPTION = "within"
Ranges = Mapping[str, Sequence[tuple[float, float]]]  # name of a value -> intervals, either of which may hold


def read_ranges(context: Context) -> Ranges:
    """Returns the ranges of the address; what cannot be read is as if it were absent."""
    try:
        given = json.loads(context.state.options.get(OPTION, "{}"), parse_constant=lambda _: None)
    except (ValueError, RecursionError):
        given = {}
    known = {*context.whole.objectives, *context.whole.weight_names(), *context.whole.columns, "kl"}
    found = {}
    for name, intervals in given.items() if isinstance(given, dict) else ():
        pairs = [_ends(pair) for pair in intervals] if isinstance(intervals, list) else []
        if name in known and pairs and None not in pairs:
            found[name] = [pair for pair in pairs if pair is not None]
    return found


def _ends(pair: Any) -> tuple[float, float] | None:
    if not isinstance(pair, list) or len(pair) != 2:
        return None
    if any(isinstance(end, bool) or not isinstance(end, (int, float, type(None))) for end in pair):
        return None
    low, high = pair
    return (-math.inf if low is None else float(low)), (math.inf if high is None else float(high))


def inside(view: FrontView, ranges: Ranges) -> BoolArray:
    """Returns which policies lie in a range on every axis that has one."""
    kept = np.ones(len(view.trials), dtype=np.bool_)
    for name, intervals in ranges.items():
        values = view.value(name)
        kept &= np.any([(values >= low) & (values <= high) for low, high in intervals], axis=0)
    return kept


def fields(context: Context, names: Sequence[str]) -> html.Div:
    """Returns two fields per axis; the script selects what lies between their numbers."""
    ranges = read_ranges(context)
    rows = []
    for name in names:
        values = context.whole.value(name)
        known = np.isfinite(values).any()
        ends = [f"{end:.4g}" for end in (np.nanmin(values), np.nanmax(values))] if known else ["", ""]
        pairs = ranges.get(name, ())
        chosen = (min((low for low, _ in pairs), default=-math.inf), max((high for _, high in pairs), default=math.inf))
        shown = visible("KL (nats)" if name == "kl" else name)
        low, high = (
            Field(
                type="number",
                step="any",
                placeholder=end,
                key=f"{name} {side}",
                **{"data-range": name, "data-side": side, "aria-label": f"{shown} {side}"},
                **{"data-now": f"{now:.6g}" if math.isfinite(now) else ""},
            )
            for side, end, now in zip(("from", "to"), ends, chosen, strict=True)
        )
        rows.append(html.Div([html.Span(shown, title=shown), low, "to", high], className="range"))
    return html.Div(rows, className="ranges")
