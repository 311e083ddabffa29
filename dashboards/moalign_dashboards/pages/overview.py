"""Overview: how far a study is, how its hypervolume grew, and what went wrong."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go
from dash import html

from moalign.figures import band_figure, failures, timeline_figure, visible
from moalign.figures.style import message_figure
from moalign.figures.text import measured, number, rounded
from moalign_dashboards.context import Context, Page
from moalign_dashboards.parts import (
    card,
    copyable,
    duration,
    empty,
    fact,
    facts,
    graph,
    link,
    panel,
    plain,
    table,
    when,
)

_MOST_TRIALS = 20  # of a failure's cause that are linked
_EVENTS = 8
_LONGEST = 240  # characters of an event
_FEW = 4  # numbers of a list that are written out


def _layout(context: Context) -> Sequence[Any]:
    if not context.study.trials:
        return [
            empty(
                "This study has not begun.",
                "Its definition is recorded, but it has no trials yet. They appear here as soon as it runs.",
                command="moalign run studies/NAME.py",
            )
        ]
    grown = card(graph("/", "history", 300, "Hypervolume over policies"), title="Hypervolume")
    times = card(graph("/", "timeline", 300, "Timeline of trials"), title="Timeline")
    return [
        panel("/", "facts"),
        panel("/", "failures"),
        html.Div([grown, times], className="two"),
        html.Div(
            [card(panel("/", "best"), title="Best policies"), card(panel("/", "events"), title="Events")],
            className="two",
        ),
        card(panel("/", "definition"), title="What ran"),
    ]


def _facts(context: Context) -> Any:
    study, view = context.study, context.study.view
    items = [fact("State", study.progress, str(study.driver) if study.driver else f"updated {when(study.updated)}")]
    states = [
        f"{study.count(state)} {state}"
        for state in ("training", "evaluating", "waiting", "failed")
        if study.count(state)
    ]
    items.append(
        fact("Policies evaluated", f"{study.count('done')} of {len(study.trials)}", ", ".join(states) or "all done")
    )
    if view is not None and view.trials:
        items.append(fact("On the front", str(int(view.non_dominated.sum())), "non-dominated, within limits"))
        share = ""
        if view.oracle is not None and view.oracle.hypervolume > 0:
            share = f"{view.hypervolume.value / view.oracle.hypervolume:.1%} of the {view.oracle.curve.label}"
        value, _, interval = str(view.hypervolume).partition(" ")
        note = f"95% over prompts {interval}" if interval else ""
        items.append(fact("Hypervolume", value, "; ".join(part for part in (note, share) if part)))
    spent = [t.finished - t.started for t in study.trials if t.started and t.finished]
    if spent:
        begin = min(t.started for t in study.trials if t.started)
        items.append(fact("Time", duration((study.updated or begin) - begin), "from the first start to the last event"))
    return facts(items)


def _failures(context: Context) -> Any:
    causes = failures(context.study.trials)
    if not causes:
        return None
    rows = []
    for cause, trials in causes:
        numbers: list[Any] = []
        for trial in trials[:_MOST_TRIALS]:
            numbers += [link(str(trial), context.link(trial=trial)), " "]
        more = f"and {len(trials) - _MOST_TRIALS} more" if len(trials) > _MOST_TRIALS else ""
        rows.append((str(len(trials)), html.Div(cause, className="cause"), html.Div([*numbers, more])))
    body = [table(("policies", "cause", "trials"), rows, texts=(1, 2))]
    body.append(copyable(f"moalign retry {context.study.name} --failed"))
    return card(*body, title="Failures", class_name="warning")


def _best(context: Context) -> Any:
    view = context.study.view
    if view is None or not view.trials:
        return html.P("No policy has been evaluated yet.", className="note")
    rows = []
    for j, name in enumerate(view.objectives):
        row = int(view.values[:, j].argmax())
        value, error = view.values[row, j], view.standard_errors[row, j]
        gain = "–" if view.reference_values is None else rounded(value - view.reference_values[j], error, "+")
        trial = link(str(view.trials[row]), context.link(trial=view.trials[row]))
        rows.append((name, measured(value, error), gain, number(view.kl[row], 3), trial))
    return table(("objective", "best reward", "above reference", "KL (nats)", "trial"), rows, texts=(0,))


def _events(context: Context) -> Any:
    events = list(context.study.events)[-_EVENTS:]
    if not events:
        return html.P("Nothing has happened yet.", className="note")
    rows = [
        (when(e.time), e.kind.replace("_", " "), html.Div(visible(_short(e.data)), className="cause"))
        for e in reversed(events)
    ]
    return table(("time", "event", ""), rows, texts=(0, 1, 2))


def _short(data: Any) -> str:
    if len(data) == 1 and isinstance(text := next(iter(data.values())), str):
        return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
    parts = [f"{name.replace('_', ' ')} {words}" for name, value in data.items() if (words := _words(value))]
    return "; ".join(parts)[:_LONGEST]


def _words(value: Any) -> str:
    """Returns a fact of an event in a few words; nothing for counts that are all zero."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return number(value, 3)
    if isinstance(value, (list, tuple)):
        few = len(value) <= _FEW and all(isinstance(v, (int, float)) for v in value)
        return ", ".join(_words(v) for v in value) if few else f"({len(value)} values)"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_words(v)}" for name, v in value.items()) if any(value.values()) else ""
    text = plain(value)
    return text if len(text) <= 60 else text[:59] + "…"


def _definition(context: Context) -> Any:
    study = context.study
    rows = [(name, html.Div(visible(plain(value)), className="cause")) for name, value in study.info.items()]
    rows += [("folder", html.Div(visible(str(study.folder)), className="cause"))]
    return html.Details(
        [html.Summary("Method, versions, folder"), table(("", ""), rows, texts=(0, 1), class_name="plain")]
    )


def _history(context: Context) -> go.Figure:
    band, view = context.study.history, context.study.view
    if band is None or view is None:
        return message_figure("", "No policy has been evaluated yet.")
    return band_figure(band, None if view.oracle is None else view.oracle.hypervolume)


def _timeline(context: Context) -> go.Figure:
    selected = context.state.selected
    trials = [t for t in context.study.trials if selected is None or t.number in selected]
    return timeline_figure(trials, now=None if context.study.driver is None else time.time())


PAGE = Page(
    path="/",
    name="Overview",
    about="How far the study is, how its front grew, and what went wrong.",
    layout=_layout,
    figures={"history": _history, "timeline": _timeline},
    panels={"facts": _facts, "failures": _failures, "best": _best, "events": _events, "definition": _definition},
    needs_front=False,
)
