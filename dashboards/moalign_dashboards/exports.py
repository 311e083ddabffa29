"""What can be taken away, and the one thing that can be left behind: a blind vote, in a folder of its own."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from flask import Flask, Response, abort, request

from moalign.errors import MoalignError, StoreError
from moalign.figures import visible, write_study_report
from moalign.front import Front, tables
from moalign_dashboards.library import Library
from moalign_dashboards.state import read_trials
from moalign_dashboards.votes import VoteError, record_vote


def routes(server: Flask, library: Library, votes: Path) -> None:
    """Adds the addresses of downloads and of votes."""

    @server.get("/export/<study>/front.csv")
    def as_csv(study: str) -> Response:
        columns = tables.columns(_front(library, study))
        rows = [row for row, trial in enumerate(columns["trial"]) if _chosen(trial)]
        kept = {name: [cells[row] for row in rows] for name, cells in columns.items()}
        return _download(tables.csv_text(kept), "text/csv", f"{study}.csv")

    @server.get("/export/<study>/front.json")
    def as_json(study: str) -> Response:
        content = _front(library, study).to_json()
        content["points"] = [point for point in content["points"] if _chosen(point["trial"])]
        return _download(json.dumps(content, indent=1, allow_nan=False), "application/json", f"{study}.json")

    @server.get("/export/<study>/report.html")
    def as_html(study: str) -> Response:
        front = _front(library, study)
        with tempfile.TemporaryDirectory(prefix="moalign-") as folder:
            path = write_study_report(library.records(study), front, Path(folder) / "report.html")
            return _download(path.read_text(encoding="utf-8"), "text/html", f"{study}.html")

    @server.post("/vote")
    def vote() -> tuple[dict[str, Any], int]:
        try:
            given = request.get_json(force=False, silent=True)
            return record_vote(library, votes, given), 200
        except VoteError as error:
            return {"error": visible(str(error))}, 400
        except (MoalignError, OSError) as error:
            return {"error": visible(str(error))}, 500


def _front(library: Library, study: str) -> Front:
    try:
        front = library.view(study).front
    except StoreError:
        front = None
    if front is None:
        abort(404, "There is no such study, or none of its policies has been evaluated.")
    return front


def _chosen(trial: int) -> bool:
    """Whether the selection of the page, which comes along in the address, has this trial."""
    text = request.args.get("trials")
    return text is None or trial in read_trials(text)


def _download(text: str, kind: str, name: str) -> Response:
    return Response(
        text,
        mimetype=kind,
        headers={"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"},
    )
