"""Anthropic's helpful and harmless preference pairs (HH-RLHF, Bai et al. 2022, arXiv 2204.05862).

Two layouts are read. *Tidy*: Parquet files `human_train.parquet`, `ai_relabelled_test.parquet`, ... with message
lists and a column `objective`. *Published*: transcripts in `helpful-base/train.jsonl.gz` and
`harmless-base/train.jsonl.gz`, from a local copy or from the hub; each pair of transcripts is cut at its last common
turn. Transcripts that are no two different last replies (empty turns, a speaker twice in a row, an early divergence)
are dropped and counted, because the published files hold a few. The texts include offensive content.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from moalign.data.layouts import split_row
from moalign.data.pairs import PreferencePairs, pairs_from_table
from moalign.data.sources import check_choices, hub_table
from moalign.data.tables import Table, read_table
from moalign.errors import DataError

HUB_NAME = "Anthropic/hh-rlhf"
_OBJECTIVES = ("helpful", "harmless")
_ROLES = {"Human": "user", "Assistant": "assistant"}
_TURN = re.compile(r"\n\n(Human|Assistant):")


def hh_rlhf(
    objective: Literal["helpful", "harmless"] | None,
    split: Literal["train", "test"],
    folder: str | Path | None = None,
    source: Literal["human", "ai_relabelled"] = "human",
) -> PreferencePairs:
    """Returns HH-RLHF pairs of one objective, or of both with the column `objective` saying which.

    Args:
        objective: "helpful" (from helpful-base), "harmless" (from harmless-base), or None for both.
        split: "train" or "test".
        folder: local folder in the tidy or the published layout. None asks the hub, which needs a network.
        source: "human" labels, or "ai_relabelled" ones (tidy layout only).

    Raises:
        DefinitionError: an unknown objective, split or source.
        DataError: absent files, an unreachable hub, or unusable rows.

    Warns:
        DataWarning: rows were dropped.
    """
    check_choices(
        "hh_rlhf", objective=(objective, (*_OBJECTIVES, None)), split=(split, ("train", "test")),
        source=(source, ("human", "ai_relabelled")),
    )  # fmt: skip
    wanted = _OBJECTIVES if objective is None else (objective,)
    if folder is None:
        return _from_transcripts([(name, _hub_table(name, split, source)) for name in wanted])
    tidy = Path(folder).expanduser() / f"{source}_{split}.parquet"
    published = {name: Path(folder).expanduser() / f"{name}-base" / f"{split}.jsonl.gz" for name in wanted}
    if tidy.is_file():
        table = read_table(tidy)
        table.require("objective")
        return pairs_from_table(table, objective=objective)
    if source == "human" and all(path.is_file() for path in published.values()):
        return _from_transcripts([(name, read_table(path)) for name, path in published.items()])
    raise DataError(
        f"{folder} holds neither {tidy.name} nor {', '.join(f'{p.parent.name}/{p.name}' for p in published.values())}"
        f" (looked from {Path.cwd()}). Give the folder that does, or folder=None to ask the hub for human labels."
    )


def parse_transcript(text: str) -> list[dict[str, object]]:
    """Returns the messages of a transcript whose turns begin with a blank line and `Human:` or `Assistant:`.

    Raises:
        DataError: text before the first turn, an empty turn, or turns that do not alternate from Human on.
    """
    beginning, *turns = _TURN.split(text)
    if beginning.strip() or not turns:
        raise DataError("the transcript does not begin with a blank line and 'Human:'.")
    speakers, contents = turns[::2], [content.strip() for content in turns[1::2]]
    if any(name != ("Human", "Assistant")[i % 2] for i, name in enumerate(speakers)):
        raise DataError("the speakers of the transcript do not alternate.")
    if not all(contents):
        raise DataError("the transcript has an empty turn.")
    return [{"role": _ROLES[name], "content": content} for name, content in zip(speakers, contents, strict=True)]


def _from_transcripts(tables: Sequence[tuple[str, Table]]) -> PreferencePairs:
    rows: list[dict[str, object]] = []
    unreadable = 0
    for objective, table in tables:
        table.require("chosen", "rejected")
        for row in table.rows:
            try:
                sides = {side: parse_transcript(str(row[side])) for side in ("chosen", "rejected")}
                split_row(sides)
            except (DataError, KeyError):
                unreadable += 1
            else:
                rows.append({**sides, "objective": objective})
    if not rows:
        raise DataError(f"{tables[0][1].name}: none of {unreadable} rows is a pair of transcripts.")
    merged = Table(
        name=", ".join(table.name for _, table in tables),
        rows=tuple(rows),
        numbers=range(len(rows)),
        normalised=sum(table.normalised for _, table in tables),
    )
    return pairs_from_table(merged, unreadable=unreadable)


def _hub_table(objective: str, split: str, source: str) -> Table:
    if source != "human":
        raise DataError(f"the hub has human labels only; for source={source!r} give folder=.")
    call = f"hh_rlhf({objective!r}, {split!r}, folder='path/to/hh-rlhf')"
    return hub_table(HUB_NAME, call, data_dir=f"{objective}-base", split=split)
