"""QA-Feedback (Wu et al. 2023, arXiv 2306.01693): four answers per question, compared and criticised in detail.

People compared all pairs of the four answers, and marked in the first one the spans that are irrelevant or wrong and
what is missing. So there is an overall preference and there are three objectives. Two local layouts are read: *tidy*,
`questions_train.parquet`, `preferences_train.parquet` and the same for `test`, and *published*, `train_feedback.json`
and `dev_feedback.json`. Licence of the data: Apache-2.0; passages from Wikipedia (CC-BY-SA).
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

from moalign.data.pairs import PreferencePairs, pairs_from_table
from moalign.data.ratings import Ratings, ratings_from_table
from moalign.data.sources import check_choices, find_file, joined, local_only, made_table
from moalign.data.tables import Table, read_table, short_repr
from moalign.errors import DataError

PAGE = "https://github.com/allenai/FineGrainedRLHF/tree/main/tasks/qa_feedback/data"
ATTRIBUTES = ("relevance", "factuality", "completeness")
_RELEVANCE = ("Irrelevant", "Redundant", "Incoherent")
_FACTUALITY = ("Wrong-Grounding", "Unverifiable")
_LABELS = {1: 1.0, 2: 0.0, 0: 0.5}  # verdict -> probability that the first answer is preferred


def qa_feedback(split: Literal["train", "test"], folder: str | Path | None = None) -> PreferencePairs:
    """Returns the overall comparisons; "no preference" is the label 1/2.

    Args:
        split: "train" or "test"; the published file of the second is `dev_feedback.json`.
        folder: local folder in one of the layouts. Nothing is downloaded: None says where to get it.

    Raises:
        DefinitionError: an unknown split.
        DataError: no folder, absent files, or unusable rows.

    Warns:
        DataWarning: comparisons of equal answers were dropped.
    """
    table, place = _questions(split, folder)
    if place.suffix == ".json":
        verdicts = [(i, pair, v) for i, row in enumerate(table.rows) for pair, v in _published_verdicts(row, table, i)]
    else:
        verdicts = _tidy_verdicts(table, place.with_name(f"preferences_{split}.parquet"))
    rows: list[dict[str, object]] = [
        {
            "prompt": _prompt(table.rows[i]), "chosen": _answer(table.rows[i], first),
            "rejected": _answer(table.rows[i], second), "label": _LABELS[verdict],
        }
        for i, (first, second), verdict in verdicts
    ]  # fmt: skip
    return pairs_from_table(made_table(table, rows, [table.numbers[i] for i, _, _ in verdicts]))


def qa_feedback_ratings(split: Literal["train", "test"], folder: str | Path | None = None) -> Ratings:
    """Returns the criticism of each question's first answer as ratings, 0 being flawless.

    relevance and factuality are minus the share of characters inside spans marked for it, completeness is minus the
    number of things that are missing.

    Args:
        split: "train" or "test".
        folder: local folder in one of the layouts. Nothing is downloaded: None says where to get it.
    """
    table, place = _questions(split, folder)
    measure = _published_criticism if place.suffix == ".json" else _tidy_criticism
    rows: list[dict[str, object]] = [
        {"prompt": _prompt(row), "response": _answer(row, 1), **dict(zip(ATTRIBUTES, measure(row), strict=True))}
        for row in table.rows
    ]
    return ratings_from_table(made_table(table, rows, table.numbers), ATTRIBUTES)


def _questions(split: str, folder: str | Path | None) -> tuple[Table, Path]:
    check_choices("qa_feedback", split=(split, ("train", "test")))
    published = "train_feedback.json" if split == "train" else "dev_feedback.json"
    local = local_only(folder, f"qa_feedback({split!r}, 'path/to/qa_feedback')", PAGE)
    place = find_file(local, (f"questions_{split}.parquet", published), PAGE)
    table = read_table(place)
    table.require("question")
    return table, place


def _prompt(row: Mapping[str, Any]) -> str:
    evidence = row.get("evidence")
    if evidence is None:  # published: passages of a title and sentences
        evidence = "\n\n".join(" ".join(map(str, passage[1:])) for passage in row.get("passages") or ())
    return f"{row.get('question')}\n\n{evidence}" if evidence else str(row.get("question"))


def _answer(row: Mapping[str, Any], number: int) -> object:
    return row.get(f"response_{number}", row.get(f"prediction {number}"))


def _published_verdicts(row: Mapping[str, Any], table: Table, i: int) -> list[tuple[tuple[int, int], int]]:
    found = row.get("preference")
    if not isinstance(found, list) or len(found) != 6 or not set(found) <= set(_LABELS):
        raise DataError(f"{table.place(i)}: 'preference' must hold six verdicts 0, 1 or 2, got {short_repr(found)}.")
    return list(zip(combinations((1, 2, 3, 4), 2), found, strict=True))


def _tidy_verdicts(table: Table, source: Path) -> list[tuple[int, tuple[int, int], int]]:
    verdicts = read_table(source)
    verdicts.require("question_id", "first", "second", "preference")
    rows = joined(verdicts, {row.get("question_id"): i for i, row in enumerate(table.rows)}, "question_id", "question")
    verdicts.refuse(
        [
            f"{verdicts.place(i)}: 'preference' must be 0, 1 or 2, got {short_repr(row.get('preference'))}."
            for i, row in enumerate(verdicts.rows)
            if row.get("preference") not in _LABELS
        ]
    )
    columns = zip(rows, verdicts.rows, strict=True)
    return [(i, (int(row["first"]), int(row["second"])), int(row["preference"])) for i, row in columns]  # type: ignore[call-overload]


def _tidy_criticism(row: Mapping[str, Any]) -> list[float | None]:
    names = ("relevance_error_share", "factuality_error_share", "n_missing_info")
    return [None if row.get(name) is None else -float(row[name]) for name in names]


def _published_criticism(row: Mapping[str, Any]) -> list[float | None]:
    feedback = row.get("feedback") or {}
    length = max(len(str(_answer(row, 1))), 1)
    errors = feedback.get("errors") or ()
    marked = [
        {
            place
            for error in errors
            if str(error.get("error type")) in kinds
            for place in range(max(int(error["start"]), 0), min(int(error["end"]), length))
        }
        for kinds in (_RELEVANCE, _FACTUALITY)
    ]
    return [-len(marked[0]) / length, -len(marked[1]) / length, -float(len(feedback.get("missing-info") or ()))]
