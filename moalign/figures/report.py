"""One self-contained HTML file about a study: its front, its figures, its policies and their texts.

Everything that comes from a user or a model is untrusted: Jinja2 escapes it, control characters are written out, JSON
inside the page cannot close its element, and a content security policy admits the two scripts of the page by hash and
no request to anywhere.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, final

import jinja2
import plotly.graph_objects as go
from markupsafe import Markup

from moalign import figures
from moalign.figures.script import asset, plotly_script
from moalign.figures.text import measured, number, short_line, visible
from moalign.figures.view import FrontView, OracleCurve
from moalign.front import Front, Point
from moalign.front.tables import write_atomically

_SHOWN_TEXTS = 10  # per policy; the rest is one click away
# The report has no use for a selection, so the buttons that make one only crowd the titles.
CONFIG = {**figures.CONFIG, "modeBarButtonsToRemove": ["select2d", "lasso2d", "zoomIn2d", "zoomOut2d", "autoScale2d"]}


@final
@dataclass(frozen=True, kw_only=True)
class _Section:
    name: str
    heading: str
    caption: str
    drawings: Sequence[Mapping[str, Any]]


def write_report(
    path: str | Path,
    front: Front,
    *,
    title: str,
    config: Mapping[str, Any],
    generations: Mapping[int, Sequence[Mapping[str, Any]]],
    oracle: OracleCurve | None = None,
    summary: Mapping[str, str | float] | None = None,
    notes: Sequence[str] = (),
    more: Sequence[tuple[str, str, go.Figure]] = (),
) -> Path:
    """Writes the report of `front` and returns its path. The file appears complete or not at all.

    Args:
        path: of the HTML file; missing folders are made.
        front: all evaluated policies.
        title: heading of the page.
        config: what ran; nested mappings become dotted names.
        generations: trial -> rows with any of prompt, response, rewards (name -> number), kl (nats), tokens, finished.
        oracle: exact optimum to draw behind the front.
        summary: further headline numbers, by name.
        notes: sentences the reader should see first.
        more: further figures as (heading, caption, figure), below those of the front.

    Raises:
        DefinitionError: the oracle curve belongs to another problem.
        OSError: the file cannot be written.
    """
    target = Path(path)
    added = [
        _Section(name=f"more-{i}", heading=heading, caption=caption, drawings=[_drawing(figure)])
        for i, (heading, caption, figure) in enumerate(more)
    ]
    write_atomically(target, _render(front, title, config, generations, oracle, summary or {}, notes, added))
    return target


def _render(
    front: Front,
    title: str,
    config: Mapping[str, Any],
    generations: Mapping[int, Sequence[Mapping[str, Any]]],
    oracle: OracleCurve | None,
    summary: Mapping[str, str | float],
    notes: Sequence[str],
    added: Sequence[_Section],
) -> str:
    view = figures.front_view(front, oracle)
    plotly, script = plotly_script(), asset("report.js")
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            title=visible(title),
            lead=visible(f"Study {front.study}: {len(front)} policies for {', '.join(front.objectives)}."),
            facts=_facts(front, view, summary),
            notes=[visible(note) for note in (*notes, front.unattained_problem()) if note],
            figures=[*_sections(view), *added],
            table=_table(front),
            configuration=[(visible(name), visible(value)) for name, value in _flat(config)],
            policies=[policy(front, row, generations.get(front[row].trial, ())) for row in range(len(front))],
            settings=embedded(json.dumps({"config": CONFIG, **figures.theme_colors()}, allow_nan=False)),
            style=Markup(asset("report.css")),
            plotly=Markup(plotly),
            script=Markup(script),
            policy=content_policy(plotly, script),
            version=importlib.metadata.version("moalign"),
        )
    )


def _facts(front: Front, view: FrontView, summary: Mapping[str, str | float]) -> list[dict[str, str]]:
    prompts = None if front.prompt_values is None else front.prompt_values.shape[1]
    known = not math.isnan(view.hypervolume.low)
    corner = ", ".join(
        f"{short_line(name)} {number(v, 3)}" for name, v in zip(front.objectives, front.reference_point, strict=True)
    )
    facts = [
        ("Non-dominated policies", f"{int(view.non_dominated.sum())} of {len(front)}", _infeasible_note(view)),
        ("Hypervolume", str(view.hypervolume), f"95% bootstrap over {prompts} prompts" if known else "no interval"),
        ("Reference point", corner, "corner of the hypervolume"),
    ]
    if front.reference is not None:
        if front.X.shape[1] == len(front.objectives):  # each policy is judged by the weights it was trained for
            better = int((((front.F - front.reference.values) * front.X).sum(axis=1) > 0).sum())
            note = "in their own weighted reward"
        else:
            better, note = int((front.dominates_reference() & view.feasible).sum()), "in every objective"
        facts.append(("Better than the reference policy", f"{better} of {len(front)}", note))
    if view.oracle is not None and view.oracle.hypervolume > 0:
        share = f"{view.hypervolume.value / view.oracle.hypervolume:.1%}"
        facts.append((f"Share of the {view.oracle.curve.label}", share, "of its hypervolume"))
    facts += [(name, value if isinstance(value, str) else number(value), "") for name, value in summary.items()]
    return [{"name": visible(name), "value": visible(value), "note": visible(note)} for name, value, note in facts]


def _infeasible_note(view: FrontView) -> str:
    outside = int((~view.feasible).sum())
    return f"{outside} outside the limits" if outside else ""


def _sections(view: FrontView) -> list[_Section]:
    few = view.weights.shape[1] in (2, 3)  # small enough for one figure per objective
    named = view.objectives if few else view.objectives[:1]
    sections = [
        _Section(
            name="front",
            heading="Front",
            caption="Every objective is maximised. Bars are one standard error. Choose a point to read its texts.",
            drawings=[_drawing(figures.draw_front(view))],
        ),
        _Section(
            name="weights",
            heading="Preference weights",
            caption="Where each policy was asked to stand, and what it reached there.",
            drawings=[_drawing(figures.weight_figure(view, color=name)) for name in named],
        ),
        _Section(
            name="history",
            heading="Hypervolume",
            caption="It never falls; the bar at the end is the interval of the final front.",
            drawings=[_drawing(figures.history_figure(view))],
        ),
        _Section(
            name="kl",
            heading="Reward against KL",
            caption="How far each policy moved from the reference policy, and what it gained on the way.",
            drawings=[_drawing(figures.kl_figure(view))],
        ),
    ]
    # The front of a single objective is already drawn against KL, and there are no weights to choose.
    return sections if len(view.objectives) > 1 else [sections[0], sections[2]]


def _drawing(figure: go.Figure) -> dict[str, Any]:
    return {"height": int(figure.layout.height), "json": embedded(figure.to_json())}


def _table(front: Front) -> dict[str, Any]:
    header = ["trial", *(f"w {name}" for name in front.objectives[: front.X.shape[1]]), *front.objectives]
    members = front.non_dominated()
    rows = []
    for row, point in enumerate(front):
        cells = [_cell(point.trial, str(point.trial))]
        cells += [_cell(weight, number(weight, 3)) for weight in point.weights]
        cells += [_cell(v, measured(v, e)) for v, e in zip(point.values, point.standard_errors, strict=True)]
        cells += [_cell(point.kl, measured(point.kl, point.kl_standard_error)), _state_cell(point, bool(members[row]))]
        rows.append({"trial": point.trial, "cells": cells, "member": bool(members[row])})
    return {"header": [visible(name) for name in (*header, "KL (nats)", "front")], "rows": rows}


def _cell(key: float, text: str) -> dict[str, str]:
    return {"key": "" if math.isnan(key) else repr(float(key)), "text": text}


def _state(point: Point, member: bool) -> str:
    if not point.feasible:
        return "outside the limits"
    return "non-dominated" if member else "dominated"


def _state_cell(point: Point, member: bool) -> dict[str, str]:
    return _cell(float(member) + float(point.feasible), _state(point, member))


def policy(front: Front, row: int, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the facts of one policy and its texts, ready to be escaped by a template."""
    point = front[row]
    state = _state(point, bool(front.non_dominated()[row]))
    values = [f"{name} {number(v)}" for name, v in zip(front.objectives, point.values, strict=True)]
    texts = [_text(text) for text in rows]
    return {
        "trial": point.trial,
        "line": visible(" · ".join([*values, f"KL {number(point.kl)}", state])),
        "facts": [(visible(name), value) for name, value in _point_facts(front, point)],
        "texts": texts[:_SHOWN_TEXTS],
        "more_texts": texts[_SHOWN_TEXTS:],
    }


def _point_facts(front: Front, point: Point) -> list[tuple[str, str]]:
    weights = zip(front.objectives, point.weights, strict=False)  # a method may take no weights
    values = zip(front.objectives, point.values, point.standard_errors, strict=True)
    return [
        *((f"weight of {name}", number(weight)) for name, weight in weights),
        *((f"{name} (reward)", measured(value, error)) for name, value, error in values),
        ("KL to the reference policy (nats)", measured(point.kl, point.kl_standard_error)),
        *((name, number(value)) for name, value in point.columns.items()),
    ]


def _text(row: Mapping[str, Any]) -> dict[str, str]:
    parts = [f"{name} {number(value)}" for name, value in (row.get("rewards") or {}).items()]
    if row.get("kl") is not None:
        parts.append(f"KL {number(row['kl'])} nats")
    if row.get("tokens") is not None:
        parts.append(f"{row['tokens']} tokens")
    if row.get("finished") is not None:
        parts.append("finished" if row["finished"] else "cut off at the length limit")
    return {
        "prompt": visible(str(row.get("prompt", ""))),
        "response": visible(str(row.get("response", ""))) or "(empty)",
        "line": visible(" · ".join(parts)),
    }


def _flat(config: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for name, value in config.items():
        if name == "@code":
            continue  # hashes of functions stand in study.json
        if isinstance(value, (list, tuple)) and any(isinstance(v, Mapping) for v in value):
            value = {str(v.get("name", i)) if isinstance(v, Mapping) else str(i): v for i, v in enumerate(value)}
        if isinstance(value, Mapping) and value:
            rows += _flat(value, f"{prefix}{name}.")
        else:
            rows.append((f"{prefix}{name}", _written(value)))
    return rows


def _written(value: Any) -> str:
    """Returns a value that is no mapping as text; long lists of mappings by their names."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return number(value, 6)
    if isinstance(value, (list, tuple)):
        rows = [_written(entry) for entry in value]
        return "; ".join(rows) if any(isinstance(entry, (list, tuple, Mapping)) for entry in value) else ", ".join(rows)
    return str(value)


def embedded(text: str) -> Markup:
    """Returns JSON that is still the same JSON but can neither close its script element nor open a comment."""
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def content_policy(*scripts: str) -> str:
    """Returns a policy that admits these scripts only, and no request to anywhere."""
    digests = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    # plotly sets inline styles and turns pictures into data or blob addresses.
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


@cache
def environment() -> jinja2.Environment:
    """Returns the templates; whatever they are filled with is escaped."""
    return jinja2.Environment(loader=jinja2.PackageLoader("moalign"), autoescape=True, undefined=jinja2.StrictUndefined)
