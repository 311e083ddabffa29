"""PandaLM test set (Wang et al. 2023, arXiv 2306.05087): answer pairs judged by the same three people.

Two local layouts are read: *tidy*, `train.parquet` and `test.parquet`, split by instruction, and *published*,
`testset-v1.json`, which is the split "test" as a whole. Licence of the data: Apache-2.0.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from moalign.data.pairs import PreferencePairs, pairs_from_table
from moalign.data.sources import check_choices, find_file, local_only, made_table
from moalign.data.tables import Table, as_text, cell, read_table, short_repr
from moalign.errors import DataError

PAGE = "https://github.com/WeOpenML/PandaLM/tree/main/data"
_ANNOTATORS = (1, 2, 3)
_LABELS = {1: 1.0, 2: 0.0, 0: 0.5}  # verdict -> probability that the first answer is preferred


def pandalm(split: Literal["train", "test"], folder: str | Path | None = None) -> PreferencePairs:
    """Returns every judgement as a pair of one of the users annotator_1, annotator_2, annotator_3.

    A label is 1 where the first answer is preferred, 0 where the second is and 1/2 for a tie. `load_comparisons` turns
    the pairs into comparisons of users.

    Args:
        split: "train" or "test".
        folder: local folder in one of the layouts. Nothing is downloaded: None says where to get it.

    Raises:
        DefinitionError: an unknown split.
        DataError: no folder, absent files, or unusable rows.

    Warns:
        DataWarning: pairs of equal answers, unreadable rows or repeated judgements were dropped.
    """
    check_choices("pandalm", split=(split, ("train", "test")))
    names = (f"{split}.parquet", *(("testset-v1.json",) if split == "test" else ()))
    call = f"pandalm({split!r}, 'path/to/pandalm')"
    table = read_table(find_file(local_only(folder, call, PAGE), names, PAGE))
    rows, numbers, unusable, problems = [], [], 0, []
    for i, row in enumerate(table.rows):
        try:
            judged = _judgements({name.replace("_", ""): value for name, value in row.items()})
        except DataError as error:
            problems.append(f"{table.place(i)}: {error}")
            continue
        rows += judged
        numbers += [table.numbers[i]] * len(judged)
        unusable += 0 if judged else len(_ANNOTATORS)
    table.refuse(problems)
    return pairs_from_table(_made(table, rows, numbers), unreadable=unusable)


def _made(table: Table, rows: list[dict[str, object]], numbers: list[int]) -> Table:
    if not rows:
        raise DataError(f"{table.name} holds no judged pair of answers.")
    return made_table(table, rows, numbers)


def _judgements(row: Mapping[str, object]) -> list[dict[str, object]]:
    """Returns one pair per annotator; none where an answer is empty, as some published ones are."""
    answers = [row.get("response1"), row.get("response2")]
    if not all(isinstance(answer, str) and answer.strip() for answer in answers):
        return []
    task = as_text(cell(row, "instruction"), "column 'instruction'")
    given = row.get("input")
    prompt = f"{task}\n\n{given}" if isinstance(given, str) and given.strip() else task
    return [
        {
            "prompt": prompt, "chosen": answers[0], "rejected": answers[1], "user": f"annotator_{i}",
            "label": _label(cell(row, f"annotator{i}")),
        }
        for i in _ANNOTATORS
    ]  # fmt: skip


def _label(verdict: object) -> float:
    if not isinstance(verdict, (int, float)) or verdict not in _LABELS:
        raise DataError(f"a verdict must be 1, 2 or 0, got {short_repr(verdict)}.")
    return _LABELS[int(verdict)]
