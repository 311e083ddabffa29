"""A front as columns, CSV, strict JSON and a small HTML table. Names come from users and are treated as text."""

from __future__ import annotations

import csv
import html
import io
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moalign.front.intervals import Interval

if TYPE_CHECKING:
    from moalign.front.front import Front
    from moalign.front.point import Point

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
_HTML_ROWS = 20


def columns(front: Front) -> dict[str, list[Any]]:
    """Returns the columns of the table in order, each with one entry per point."""
    members = front.non_dominated().tolist()
    table: dict[str, list[Any]] = {}
    _add(table, "trial", [point.trial for point in front])
    for j, name in enumerate(front.objectives[: front.X.shape[1]]):
        _add(table, f"w_{name}", front.X[:, j].tolist())
    for j, name in enumerate(front.objectives):
        _add(table, name, front.F[:, j].tolist())
        _add(table, f"{name}_se", [float(point.standard_errors[j]) for point in front])
    _add(table, "kl", [point.kl for point in front])
    _add(table, "kl_se", [point.kl_standard_error for point in front])
    _add(table, "non_dominated", members)
    _add(table, "feasible", [point.feasible for point in front])
    for name in side_columns(front):
        _add(table, name, [point.columns.get(name, math.nan) for point in front])
    return table


def side_columns(front: Front) -> list[str]:
    """Returns the names of all side columns in order of first appearance."""
    return list(dict.fromkeys(name for point in front for name in point.columns))


def write_csv(front: Front, path: Path) -> None:
    """Writes the table as CSV; an unknown number is an empty cell."""
    write_atomically(path, csv_text(columns(front)))


def csv_text(table: Mapping[str, Sequence[Any]]) -> str:
    """Returns columns of equal length as CSV; a name that a spreadsheet would run as a formula gets an apostrophe."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([_inert(name) for name in table])
    writer.writerows([_cell(value) for value in row] for row in zip(*table.values(), strict=True))
    return buffer.getvalue()


def as_json(front: Front, hypervolume: Interval) -> dict[str, Any]:
    """Returns the whole front, without prompt values and policies, as values that strict JSON can hold."""
    members = front.non_dominated()
    return {
        "study": front.study,
        "objectives": list(front.objectives),
        "reference_point": front.reference_point.tolist(),
        "hypervolume": {name: _number(getattr(hypervolume, name)) for name in ("value", "low", "high")},
        "points": [
            {**_point_json(point), "non_dominated": bool(member)} for point, member in zip(front, members, strict=True)
        ],
        "reference": None if front.reference is None else _point_json(front.reference),
    }


def as_html(front: Front) -> str:
    """Returns the summary line and the first non-dominated points as an escaped HTML table."""
    titles = ["trial", "weights", *front.objectives, "KL (nats)"]
    header = "".join(f"<th>{html.escape(title)}</th>" for title in titles)
    rows = "".join(_html_row(point) for point in front.front_points[:_HTML_ROWS])
    more = len(front.front_points) - _HTML_ROWS
    note = f"<p>and {more} more non-dominated policies</p>" if more > 0 else ""
    return f"<div><p>{html.escape(repr(front))}</p><table><tr>{header}</tr>{rows}</table>{note}</div>"


def write_atomically(path: Path, text: str) -> None:
    """Writes UTF-8 `text` so that `path` holds either its old or its complete new content at any moment."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _html_row(point: Point) -> str:
    cells = [str(point.trial), ", ".join(f"{w:.3g}" for w in point.weights)]
    for value, error in zip(point.values, point.standard_errors, strict=True):
        cells.append(f"{value:.4g}" if math.isnan(error) else f"{value:.4g} ± {error:.2g}")
    cells.append("unknown" if math.isnan(point.kl) else f"{point.kl:.3g}")
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _add(table: dict[str, list[Any]], name: str, values: list[Any]) -> None:
    while name in table:
        name += "_"
    table[name] = values


def _inert(text: str) -> str:
    return f"'{text}" if text.startswith(_FORMULA_STARTS) else text


def _cell(value: Any) -> Any:
    if isinstance(value, str):
        return _inert(value)
    return "" if isinstance(value, float) and math.isnan(value) else value


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _point_json(point: Point) -> dict[str, Any]:
    return {
        "trial": point.trial,
        "weights": point.weights.tolist(),
        "values": point.values.tolist(),
        "standard_errors": [_number(error) for error in point.standard_errors],
        "kl": _number(point.kl),
        "kl_standard_error": _number(point.kl_standard_error),
        "feasible": point.feasible,
        "columns": {name: _number(value) for name, value in point.columns.items()},
    }
