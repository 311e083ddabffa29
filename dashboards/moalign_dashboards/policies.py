"""The table of policies below a figure: every point can be reached from the keyboard, too."""

from __future__ import annotations

from typing import Any

import numpy as np
from dash import html

from moalign.figures.text import measured, number
from moalign_dashboards.context import Context
from moalign_dashboards.parts import link, table

_ROWS = 25


def policies(context: Context) -> Any:
    """Returns the shown policies, sorted by the column of the address, a page at a time."""
    view = context.shown
    if not view.trials:
        return html.P("The selection holds none of the evaluated policies.", className="note")
    keys = {"trial": np.array(view.trials, dtype=float), "KL": view.kl}
    keys |= {name: view.value(name) for name in (*view.weight_names(), *view.objectives)}
    sort = context.state.choice("sort", keys, "front")
    if sort == "front":
        order = np.lexsort((keys["trial"], ~view.non_dominated))
    else:
        order = np.argsort(-keys[sort] if sort != "trial" else keys[sort], kind="stable")
    pages = (len(order) - 1) // _ROWS + 1
    page = min(context.state.number("page") or 0, pages - 1)
    rows = [_row(context, int(row)) for row in order[page * _ROWS : (page + 1) * _ROWS]]
    header = [
        "trial",
        *(f"w {name}" for name in view.objectives[: view.weights.shape[1]]),
        *view.objectives,
        "KL (nats)",
        "front",
    ]
    return html.Div(
        [
            _sorting(context, list(keys), sort),
            table(header, rows, texts=(len(header) - 1,)),
            _pager(context, page, pages, len(order)),
        ]
    )


def _row(context: Context, row: int) -> list[Any]:
    view = context.shown
    trial = view.trials[row]
    open_ = "open" if trial == context.state.trial else ""
    cells: list[Any] = [link(str(trial), context.link(trial=trial), f"trial {open_}")]
    cells += [number(w, 3) for w in view.weights[row]]
    cells += [measured(v, e) for v, e in zip(view.values[row], view.standard_errors[row], strict=True)]
    state = "non-dominated" if view.non_dominated[row] else "dominated" if view.feasible[row] else "outside the limits"
    return [*cells, measured(view.kl[row], view.kl_standard_errors[row]), state]


def _sorting(context: Context, keys: list[str], current: str) -> html.Div:
    items: list[Any] = [html.Span("sort by", className="name")]
    for key in ["front", *keys]:
        text = key.replace("weight ", "w ")
        items.append(
            link(
                text,
                context.link(sort=None if key == "front" else key, page=None),
                "sort current" if key == current else "sort",
            )
        )
    return html.Div(items, className="sorting")


def _pager(context: Context, page: int, pages: int, count: int) -> Any:
    if pages == 1:
        return None
    items: list[Any] = [html.Span(f"{page * _ROWS + 1}–{min((page + 1) * _ROWS, count)} of {count}")]
    if page > 0:
        items.append(link("‹ previous", context.link(page=page - 1)))
    if page + 1 < pages:
        items.append(link("next ›", context.link(page=page + 1)))
    return html.Div(items, className="pager")
