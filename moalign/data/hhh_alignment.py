"""HHH alignment (Askell et al. 2021, arXiv 2112.00861): evaluation pairs that are helpful, honest, harmless or other.

For evaluation only; the labels are the authors' own, and some prompts ask for harmful things. The local layout is
*tidy*: `test.parquet` with the columns objective, prompt, chosen, rejected. The hub's rows hold `input` and `targets`
with two choices and their labels. Licence of the data: Apache-2.0.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from moalign.data.pairs import PreferencePairs, pairs_from_table
from moalign.data.sources import check_choices, find_file, hub_table, made_table
from moalign.data.tables import Table, cell, read_table
from moalign.errors import DataError

HUB_NAME = "HuggingFaceH4/hhh_alignment"
OBJECTIVES = ("helpful", "honest", "harmless", "other")


def hhh_alignment(
    objective: Literal["helpful", "honest", "harmless", "other"], folder: str | Path | None = None
) -> PreferencePairs:
    """Returns the evaluation pairs of one objective.

    Args:
        objective: which kind of pair.
        folder: local folder in the tidy layout. None asks the hub, which needs a network.

    Raises:
        DefinitionError: an unknown objective.
        DataError: absent files, an unreachable hub, or unusable rows.
    """
    check_choices("hhh_alignment", objective=(objective, OBJECTIVES))
    if folder is None:
        call = f"hhh_alignment({objective!r}, folder='path/to/hhh_alignment')"
        return pairs_from_table(from_choices(hub_table(HUB_NAME, call, name=objective, split="test"), objective))
    place = find_file(folder, ("test.parquet",), f"https://huggingface.co/datasets/{HUB_NAME}")
    return pairs_from_table(read_table(place), objective=objective)


def from_choices(table: Table, objective: str) -> Table:
    """Returns rows with `input` and `targets` (two choices with labels 1 and 0) in the layout of preference pairs."""
    table.require("input", "targets")
    rows, problems = [], []
    for i, row in enumerate(table.rows):
        try:
            rows.append({"prompt": cell(row, "input"), "objective": objective, **_sides(cell(row, "targets"))})
        except DataError as error:
            problems.append(f"{table.place(i)}: {error}")
    table.refuse(problems)
    return made_table(table, rows, table.numbers)


def _sides(targets: Any) -> dict[str, object]:
    choices, labels = (
        (targets.get(name) for name in ("choices", "labels")) if isinstance(targets, Mapping) else ((), ())
    )
    if not (isinstance(choices, list) and isinstance(labels, list) and len(choices) == 2 and sorted(labels) == [0, 1]):
        raise DataError("column 'targets' must hold two choices with the labels 1 and 0.")
    return {"chosen": choices[labels.index(1)], "rejected": choices[labels.index(0)]}
