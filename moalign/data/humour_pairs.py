"""Pairwise humour judgements on one-liners (Simpson et al. 2019, ACL): which of two texts is funnier, by vote.

Two local layouts are read: *tidy*, `items.parquet`, `pairs_train.parquet` and `pairs_test.parquet`, and *published*,
`pairs.csv` (one vote per line, the funnier first) with `item_scores.txt`, where a fifth of the pairs is drawn as the
split "test". Either way the two splits compare the same texts. Some jokes are crude. Licence of the annotations:
CC-BY-4.0.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, Literal

import numpy as np

from moalign.data.pairs import PreferencePairs, pairs_from_table
from moalign.data.sources import check_choices, find_file, joined, local_only, made_table
from moalign.data.tables import Table, cell, clean_text, read_table
from moalign.errors import DataError

PAGE = "https://github.com/UKPLab/acl2019-GPPL-humour-metaphor/tree/master/data/pl-humor-full"
PROMPT = "Tell me something funny."
_TEST_SHARE = 0.2


def humour_pairs(
    split: Literal["train", "test"], folder: str | Path | None = None, *, prompt: str = PROMPT
) -> PreferencePairs:
    """Returns the pairs, with the share of votes for the first text as label and the number of votes as weight.

    Args:
        split: "train" or "test".
        folder: local folder in one of the layouts. Nothing is downloaded: None says where to get it.
        prompt: what the texts are taken to answer; the data has no prompts.

    Raises:
        DefinitionError: an unknown split.
        DataError: no folder, absent files, votes on unknown texts, or unusable rows.

    Warns:
        DataWarning: pairs of the same text under two numbers were dropped.
    """
    check_choices("humour_pairs", split=(split, ("train", "test")))
    place = Path(local_only(folder, f"humour_pairs({split!r}, 'path/to/pl-humor-full')", PAGE)).expanduser()
    source = find_file(place, (f"pairs_{split}.parquet", "pairs.csv"), PAGE)
    if source.suffix == ".parquet":
        table = read_table(source)
        table.require("item_a", "item_b", "votes_a", "votes_b")
        items = read_table(find_file(place, ("items.parquet",), PAGE))
        items.require("item_id", "text")
        texts = {row["item_id"]: row["text"] for row in items.rows}
    else:
        table = _counted(source, split)
        texts = _published_texts(find_file(place, ("item_scores.txt",), PAGE))
    first, second = (joined(table, texts, side, "text") for side in ("item_a", "item_b"))
    rows, problems = [], []
    for i, row in enumerate(table.rows):
        try:
            rows.append({"prompt": prompt, "chosen": first[i], "rejected": second[i], **_share(row)})
        except DataError as error:
            problems.append(f"{table.place(i)}: {error}")
    table.refuse(problems)
    return pairs_from_table(made_table(table, rows, table.numbers))


def _share(row: dict[str, object]) -> dict[str, object]:
    votes: list[Any] = [cell(row, name) for name in ("votes_a", "votes_b")]
    if not all(isinstance(count, (int, float)) and count >= 0 for count in votes) or not sum(votes):
        raise DataError(f"votes_a and votes_b must be counts of at least one vote together, got {votes}.")
    return {"label": votes[0] / sum(votes), "weight": float(sum(votes))}


def _counted(source: Path, split: str) -> Table:
    """Returns the votes of `pairs.csv` counted per unordered pair, those of one split."""
    votes: Counter[tuple[int, int]] = Counter()
    for number, line in enumerate(source.read_text(encoding="utf-8").splitlines(), 1):
        try:
            winner, loser = (int(part) for part in line.split(","))
        except ValueError:
            raise DataError(f"{source.name} line {number}: expected two item numbers, got {line[:40]!r}.") from None
        votes[winner, loser] += 1
    pairs = sorted({(min(pair), max(pair)) for pair in votes})
    order = np.random.default_rng(0).permutation(len(pairs))
    cut = round(_TEST_SHARE * len(pairs))
    rows = tuple(
        {"item_a": a, "item_b": b, "votes_a": votes[a, b], "votes_b": votes[b, a]}
        for a, b in (pairs[i] for i in sorted(order[:cut] if split == "test" else order[cut:]))
    )
    return Table(name=source.name, rows=rows, numbers=range(len(rows)), unit="pair")


def _published_texts(source: Path) -> dict[object, object]:
    fields = [line.split("\t", 2) for line in source.read_text(encoding="utf-8", errors="replace").splitlines()]
    return {int(parts[0]): clean_text(parts[2])[0] for parts in fields if len(parts) == 3}
