"""The drawer of a trial: weights, rewards with intervals, KL, the course of its training, and what it answered."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

from dash import dcc, html

from moalign.errors import StoreError
from moalign.figures import recoloured, training_figure, visible
from moalign.figures.style import DARK
from moalign.figures.text import between, measured, number, rounded
from moalign.front.intervals import Z95
from moalign.store import TrialRecord, load_generations, load_metrics
from moalign_dashboards.context import Context
from moalign_dashboards.parts import copyable, link, long_text, table

TEXTS = 10


@final
@dataclass(frozen=True)
class Drawer:
    """What a drawer holds, from top to bottom; all empty while it is closed."""

    facts: Sequence[Any] = ()
    curve: Sequence[Any] = ()
    texts: Sequence[Any] = ()


def drawer(context: Context, theme: str) -> Drawer:
    """Returns the content of the drawer for the trial of the address."""
    trial = context.state.trial
    if trial is None:
        return Drawer()
    records = context.library.records(context.study.name)
    try:
        record = records.trial(trial)
    except StoreError as error:
        return Drawer([_head(context, trial, "not there"), html.P(visible(str(error)), className="note")])
    facts = [_head(context, trial, _standing(context, record)), _moves(context, trial)]
    if record.error:
        facts.append(html.P(visible(record.error), className="alert"))
    facts.append(_measured(context, record))
    curve: list[Any] = []
    if metrics := load_metrics(records, trial):
        figure = training_figure(metrics).to_plotly_json()
        facts.append(html.H3("Training"))
        curve.append(
            dcc.Graph(
                figure=recoloured(figure, DARK) if theme == "dark" else figure,
                config={"displayModeBar": False},
                style={"height": "170px"},
                responsive=True,
            )
        )
    return Drawer(facts, curve, [html.H3("Take it away"), copyable(_export(context, trial)), *_texts(context, trial)])


def _head(context: Context, trial: int, standing: str) -> html.Div:
    close = link("×", context.link(trial=None), "close", title="Close (Esc)")
    return html.Div(
        [html.H2(f"Trial {trial}", tabIndex=-1, id="drawer-title"), html.Span(standing, className="badge"), close],
        className="head",
    )


def _standing(context: Context, record: TrialRecord) -> str:
    if record.state != "done":
        return record.state
    row = context.row_of.get(record.number) if context.study.view else None
    if row is None:
        return "done"
    if not context.whole.feasible[row]:
        return "outside the limits"
    return "non-dominated" if context.whole.non_dominated[row] else "dominated"


def _moves(context: Context, trial: int) -> html.Div:
    last = len(context.study.trials) - 1
    items = []
    if trial > 0:
        items.append(link("‹ previous", context.link(trial=trial - 1)))
    if trial < last:
        items.append(link("next ›", context.link(trial=trial + 1)))
    done = [t.number for t in context.study.trials if t.state == "done" and t.number != trial]
    if done:
        other = context.state.number("b")
        other = other if other in done else done[-1]
        items.append(link("compare", context.link("/compare", a=trial, b=other, trial=None)))
    chosen = context.state.selected is not None and trial in context.state.selected
    words = "remove from selection" if chosen else "add to selection"
    items.append(html.Button(words, type="button", className="link", **{"data-choose": str(trial)}))
    return html.Div(items, className="moves")


def _measured(context: Context, record: TrialRecord) -> Any:
    if record.values is None or record.standard_errors is None:
        return html.P("Not measured yet.", className="note")
    reference = context.study.front.reference if context.study.front else None
    rows = []
    for j, name in enumerate(context.study.objectives):
        weight = number(record.weights[j], 3) if j < len(record.weights) else "–"
        value, error = record.values[j], record.standard_errors[j]
        half = Z95 * error
        gain = "–" if reference is None else rounded(value - float(reference.values[j]), half, "+")
        rows.append((name, weight, between(value - half, value, value + half), gain))
    body = [table(("objective", "weight", "reward [95%]", "gain"), rows, texts=(0,))]
    more = [
        (
            "KL to the reference (nats)",
            measured(record.kl or 0.0, record.kl_standard_error or 0.0) if record.kl is not None else "–",
        )
    ]
    more += [(name.replace("_", " "), number(value)) for name, value in record.columns.items()]
    if record.started and record.finished:
        more.append(("time", f"{record.finished - record.started:.0f} s"))
    body.append(table(("", ""), more, texts=(0,), class_name="plain"))
    return html.Div(body)


def _texts(context: Context, trial: int) -> list[Any]:
    try:
        rows = load_generations(context.library.records(context.study.name), trial)
    except StoreError as error:
        return [html.P(visible(str(error)), className="alert")]
    if not rows:
        return []
    rows = sorted(rows, key=lambda row: (row.get("sample", 0), row.get("prompt_index", 0)))
    everything = context.state.on("texts", False)
    shown = rows if everything else rows[:TEXTS]
    body: list[Any] = [html.H3(f"Generations ({len(shown)} of {len(rows)})")]
    body += [generation(row) for row in shown]
    if len(shown) < len(rows):
        body.append(link(f"show all {len(rows)}", context.link(texts=1), "more"))
    return body


def generation(row: Mapping[str, Any]) -> html.Article:
    """Returns one response with its prompt and rewards."""
    rewards = row.get("rewards") or {}
    chips = [html.Span([visible(str(n)), " ", html.B(number(v, 3))], className="chip") for n, v in rewards.items()]
    if row.get("kl") is not None:
        chips.append(html.Span(["KL ", html.B(number(row["kl"], 3))], className="chip quiet"))
    if row.get("finished") is False:
        chips.append(html.Span("cut off", className="chip quiet"))
    return html.Article(
        [
            html.Div(long_text(str(row.get("prompt", ""))), className="prompt"),
            html.Div(long_text(str(row.get("response", ""))), className="response"),
            html.Div(chips, className="chips"),
        ],
        className="generation",
    )


def _export(context: Context, trial: int) -> str:
    words = ["moalign", "export", context.study.name, str(trial), f"out/{context.study.name}-{trial}"]
    if str(context.library.root) != "runs":
        words += ["--store", str(context.library.root)]
    return shlex.join(words)
