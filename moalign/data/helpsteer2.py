"""HelpSteer2 (Wang et al. 2024, arXiv 2406.08673): responses with five human ratings from 0 to 4.

Two responses per prompt. Two local layouts are read: *tidy*, `train.parquet` and `test.parquet`, and *published*,
`train.jsonl.gz` and `validation.jsonl.gz`. Licence of the data: CC-BY-4.0.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from moalign.data.ratings import Ratings, ratings_from_table
from moalign.data.sources import check_choices, find_file, hub_table
from moalign.data.tables import read_table

HUB_NAME = "nvidia/HelpSteer2"
ATTRIBUTES = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")


def helpsteer2(split: Literal["train", "test"], folder: str | Path | None = None) -> Ratings:
    """Returns the ratings of one split on helpfulness, correctness, coherence, complexity and verbosity.

    Args:
        split: "train" or "test"; the published name of the second is "validation".
        folder: local folder in one of the layouts. None asks the hub, which needs a network.

    Raises:
        DefinitionError: an unknown split.
        DataError: absent files, an unreachable hub, or unusable rows.
    """
    check_choices("helpsteer2", split=(split, ("train", "test")))
    published = "train" if split == "train" else "validation"
    if folder is None:
        table = hub_table(HUB_NAME, f"helpsteer2({split!r}, folder='path/to/helpsteer2')", split=published)
    else:
        names = (f"{split}.parquet", f"{published}.jsonl.gz", f"{published}.jsonl")
        table = read_table(find_file(folder, names, f"https://huggingface.co/datasets/{HUB_NAME}"))
    return ratings_from_table(table, ATTRIBUTES)
