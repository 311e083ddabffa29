"""ConvAbuse (Cercas Curry et al. 2021, EMNLP): several people judge how abusive a user's turn to a chatbot is.

Raters differ in strictness, which makes the set a test of models of users. The texts are abusive, sexist and racist.
Two local layouts are read: *tidy*, `items_train.parquet`, `ratings_train.parquet` and the same for `test`, split by
conversation, and *published*, `ConvAbuseEMNLPtrain.csv` and `ConvAbuseEMNLPtest.csv`. Licence of the data: CC-BY-4.0.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from moalign.data.ratings import Ratings, ratings_from_table
from moalign.data.sources import check_choices, find_file, joined, local_only, made_table
from moalign.data.tables import Table, read_table
from moalign.errors import DataError

PAGE = "https://github.com/amandacurry/convabuse"
_LEVELS = (1, 0, -1, -2, -3)
_RATERS = range(1, 9)
_TURNS = (("prev_agent", "Agent"), ("prev_user", "User"), ("agent", "Agent"))
_NOTHING = "_"  # an empty turn


def convabuse(split: Literal["train", "test"], folder: str | Path | None = None) -> Ratings:
    """Returns the severity ratings by user: 1 (not abusive), 0 (ambiguous), -1, -2, -3 (very strongly abusive).

    The rated turn is the response, the turns before it are the prompt. Every item is its own prompt, so compare with
    `.comparisons("severity", across=True)`. Second ratings of an item by the same person are left out.

    Args:
        split: "train" or "test".
        folder: local folder in one of the layouts. Nothing is downloaded: None says where to get it.

    Raises:
        DefinitionError: an unknown split.
        DataError: no folder, absent files, ratings of unknown items, or unusable rows.
    """
    check_choices("convabuse", split=(split, ("train", "test")))
    place = Path(local_only(folder, f"convabuse({split!r}, 'path/to/convabuse')", PAGE)).expanduser()
    published = f"ConvAbuseEMNLP{split}.csv"
    source = find_file(place, (f"ratings_{split}.parquet", published, f"2_splits/{published}"), PAGE)
    if source.suffix == ".csv":
        return ratings_from_table(_published(source), ["severity"])
    table = read_table(source)
    table.require("item_id", "annotator_id", "severity")
    table = table.select([i for i, row in enumerate(table.rows) if not row.get("repeat")])
    texts = {
        row["item_id"]: _texts(row) for row in read_table(find_file(place, (f"items_{split}.parquet",), PAGE)).rows
    }
    rows = [
        {**text, "user": row.get("annotator_id"), "severity": row.get("severity")}
        for row, text in zip(table.rows, joined(table, texts, "item_id", "item"), strict=True)
    ]
    return ratings_from_table(made_table(table, rows, table.numbers), ["severity"])


def _texts(row: Mapping[str, Any]) -> dict[str, object]:
    turns = [f"{speaker}: {row[name]}" for name, speaker in _TURNS if str(row.get(name)).strip() not in ("", _NOTHING)]
    return {"prompt": "\n".join(turns) or "(the conversation begins)", "response": row.get("user")}


def _records(frame: Any) -> list[dict[str, Any]]:
    return frame.to_dict("records")


def _published(source: Path) -> Table:
    """Returns one row per item and rater; severities are five columns of 0 and 1, "1, 1" where rated twice."""
    import pandas as pd

    try:
        frame = pd.read_csv(source, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise DataError(f"{source.name} cannot be read: {error}.") from error
    rows, numbers = [], []
    for i, record in enumerate(_records(frame)):
        for rater in _RATERS:
            given = [v for v in _LEVELS if str(record.get(f"Annotator{rater}_is_abuse.{v}", "")).startswith("1")]
            if given:
                rows.append({**_texts(record), "user": f"A{rater}", "severity": given[0]})
                numbers.append(i)
    if not rows:
        raise DataError(f"{source.name} holds no ratings in columns Annotator1_is_abuse.1 and the like.")
    return Table(name=source.name, rows=tuple(rows), numbers=numbers)
