"""UltraFeedback, binarised (Cui et al. 2023, arXiv 2310.01377): answer pairs ranked by a language model's scores.

A plain single-objective set: the labels are GPT-4's, not people's. Local files are `train.parquet` and `test.parquet`
with the columns prompt (may be implicit), chosen, rejected, and perhaps score_chosen and score_rejected. Licence of the
data: MIT.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from moalign.data.pairs import PreferencePairs, pairs_from_table
from moalign.data.sources import check_choices, find_file, hub_table
from moalign.data.tables import read_table

HUB_NAME = "trl-lib/ultrafeedback_binarized"


def ultrafeedback(split: Literal["train", "test"], folder: str | Path | None = None) -> PreferencePairs:
    """Returns the pairs of one split; where scores are published, their difference is the margin.

    Args:
        split: "train" or "test".
        folder: local folder. None asks the hub, which needs a network.

    Raises:
        DefinitionError: an unknown split.
        DataError: absent files, an unreachable hub, or unusable rows.

    Warns:
        DataWarning: duplicates or pairs of equal answers were dropped.
    """
    check_choices("ultrafeedback", split=(split, ("train", "test")))
    if folder is None:
        call = f"ultrafeedback({split!r}, folder='path/to/ultrafeedback')"
        return pairs_from_table(hub_table(HUB_NAME, call, split=split))
    names = (f"{split}.parquet", f"{split}-00000-of-00001.parquet", f"data/{split}-00000-of-00001.parquet")
    return pairs_from_table(read_table(find_file(folder, names, f"https://huggingface.co/datasets/{HUB_NAME}")))
