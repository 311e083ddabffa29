"""Model-written persona statements (Perez et al. 2022, arXiv 2212.09251): who would say what.

Each statement belongs to a persona and is marked with whether somebody of that persona would say it; half of them would
be. Two layouts are read. *Tidy*: Parquet files `train.parquet` and `test.parquet` with the columns persona, statement,
agrees, split by statement. *Published*: `<persona>.jsonl` files with `statement` and `answer_matching_behavior`, from a
local copy or from the hub; they have no split, so one is drawn here. Some personas are offensive by design.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, final

import numpy as np

from moalign.arrays import BoolArray
from moalign.data.comparisons import frozen
from moalign.data.sources import hub_table
from moalign.data.tables import Table, as_text, cell, read_table
from moalign.errors import DataError, DefinitionError

HUB_NAME = "Anthropic/model-written-evals"
_TEST_SHARE = 0.2
_ANSWERS = {"Yes": True, "No": False}


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Statements:
    """n statements, each of one persona."""

    texts: tuple[str, ...]
    persona: tuple[str, ...]
    agrees: BoolArray  # [n], whether somebody of the persona would say it

    def __post_init__(self) -> None:
        object.__setattr__(self, "agrees", frozen(self.agrees, np.bool_))

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def personas(self) -> tuple[str, ...]:
        """The distinct personas, sorted."""
        return tuple(sorted(set(self.persona)))


def personas(
    names: Sequence[str] | None,
    split: Literal["train", "test"],
    folder: str | Path | None = None,
) -> Statements:
    """Returns the statements of these personas.

    Args:
        names: personas such as "interest-in-art"; None for all of a local folder.
        split: "train" or "test", disjoint by statement.
        folder: local folder in the tidy or the published layout. None asks the hub, which needs a network.

    Raises:
        DefinitionError: an unknown split, or no names for the hub.
        DataError: absent files or personas, an unreachable hub, or unusable rows.
    """
    if split not in ("train", "test"):
        raise DefinitionError(f"split must be 'train' or 'test', got {split!r}.", where="personas")
    if folder is None:
        if names is None:
            raise DefinitionError("name the personas to fetch, such as ['interest-in-art'].", where="personas")
        return _published([(name, _hub_table(name)) for name in names], split)
    tidy = Path(folder).expanduser() / f"{split}.parquet"
    if tidy.is_file():
        return _tidy(read_table(tidy), names)
    found = {path.stem: path for path in sorted(Path(folder).expanduser().glob("*.jsonl"))}
    if not found:
        raise DataError(
            f"{folder} holds neither {tidy.name} nor <persona>.jsonl (looked from {Path.cwd()}). "
            f"Give the folder that does, or folder=None to ask the hub for {HUB_NAME}."
        )
    wanted = list(found) if names is None else list(names)
    _refuse_absent(wanted, found, str(folder))
    return _published([(name, read_table(found[name])) for name in wanted], split)


def _tidy(table: Table, names: Sequence[str] | None) -> Statements:
    table.require("persona", "statement", "agrees")
    present = {str(row.get("persona")) for row in table.rows}
    wanted = present if names is None else set(names)
    _refuse_absent(sorted(wanted), present, table.name)
    rows = [(i, row) for i, row in enumerate(table.rows) if row.get("persona") in wanted]
    problems = [f"{table.place(i)}: 'agrees' must be true or false." for i, r in rows if type(r["agrees"]) is not bool]
    table.refuse(problems)
    return _statements(
        (str(row["persona"]), as_text(cell(row, "statement"), "statement"), row["agrees"]) for _, row in rows
    )


def _published(tables: Sequence[tuple[str, Table]], split: str) -> Statements:
    return _statements(row for name, table in tables for row in _published_rows(name, table, split))


def _published_rows(name: str, table: Table, split: str) -> Iterator[tuple[str, str, object]]:
    """Yields (persona, statement, agrees) of one split, which has the same share of both answers."""
    table.require("statement", "answer_matching_behavior")
    answers = [_ANSWERS.get(str(row.get("answer_matching_behavior")).strip()) for row in table.rows]
    table.refuse([f"{table.place(i)}: the answer is neither Yes nor No." for i, a in enumerate(answers) if a is None])
    for answer in (True, False):
        rows = [i for i, given in enumerate(answers) if given is answer]
        order = np.random.default_rng(0).permutation(rows)
        cut = round(_TEST_SHARE * len(rows))
        for i in sorted(order[:cut] if split == "test" else order[cut:]):
            yield name, as_text(cell(table.rows[i], "statement"), table.place(i)), answer


def _statements(rows: Iterator[tuple[str, str, object]]) -> Statements:
    found = list(rows)
    if not found:
        raise DataError("no statements of these personas.")
    persona, texts, agrees = zip(*found, strict=True)
    return Statements(texts=texts, persona=persona, agrees=np.array(agrees, dtype=bool))


def _refuse_absent(wanted: Sequence[str], found: object, where: str) -> None:
    absent = [name for name in wanted if name not in found]  # type: ignore[operator]
    if absent:
        raise DataError(f"{where} has no statements of {', '.join(map(repr, absent[:5]))}.")


def _hub_table(name: str) -> Table:
    call = f"personas([{name!r}], 'train', folder='path/to/persona')"
    return hub_table(HUB_NAME, call, data_files=f"persona/{name}.jsonl", split="train")
