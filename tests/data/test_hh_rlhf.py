"""HH-RLHF in its tidy and its published layout, on made-up files and on the real ones where they are at hand."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pytest

from moalign.data import Conversation, hh_rlhf
from moalign.data.hh_rlhf import parse_transcript
from moalign.errors import DataError, DataWarning, DefinitionError

REAL = Path(os.environ.get("MOALIGN_HH_RLHF", Path(__file__).parents[3] / "shared" / "data" / "hh_rlhf"))
needs_real = pytest.mark.skipif(
    not (REAL / "human_train.parquet").is_file(), reason=f"HH-RLHF is not at {REAL}; set MOALIGN_HH_RLHF"
)

TALK = "\n\nHuman: Hi\n\nAssistant: Hello.\n\nHuman: A fruit?\n\nAssistant:"
PUBLISHED = [
    {"chosen": f"{TALK} Apple", "rejected": f"{TALK} Brick"},
    {"chosen": "\n\nHuman: Two\nlines?\n\nAssistant: Yes", "rejected": "\n\nHuman: Two\nlines?\n\nAssistant: No"},
]
BROKEN = [
    {"chosen": f"{TALK} ", "rejected": f"{TALK} Brick"},  # an empty turn
    {"chosen": "\n\nHuman: a\n\nHuman: b\n\nAssistant: c", "rejected": "\n\nHuman: a\n\nHuman: b\n\nAssistant: d"},
    {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: z\n\nAssistant: b"},  # nothing in common
    {"chosen": f"{TALK} x\n\nHuman: y\n\nAssistant: z", "rejected": f"{TALK} Brick"},  # early divergence
    {"chosen": "no turns", "rejected": "at all"},
]


def published(folder, split, helpful, harmless):
    for name, rows in (("helpful", helpful), ("harmless", harmless)):
        (folder / f"{name}-base").mkdir()
        with gzip.open(folder / f"{name}-base" / f"{split}.jsonl.gz", "wt", encoding="utf-8") as file:
            file.write("\n".join(map(json.dumps, rows)))
    return folder


def tidy(folder, name):
    rows = [
        {
            "objective": objective,
            "prompt": [{"role": "user", "content": f"{objective} {i}?"}],
            "chosen": [{"role": "assistant", "content": "yes"}],
            "rejected": [{"role": "assistant", "content": "no"}],
        }
        for objective in ("helpful", "harmless")
        for i in range(2)
    ]
    pd.DataFrame(rows).to_parquet(folder / name)
    return folder


def test_a_transcript_is_cut_into_turns():
    assert parse_transcript(f"{TALK} Apple.\n\nHumanity: no turn") == [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "A fruit?"},
        {"role": "assistant", "content": "Apple.\n\nHumanity: no turn"},
    ]


@pytest.mark.parametrize(
    ("text", "reason"),
    [("text", "does not begin"), (TALK, "an empty turn"), ("\n\nAssistant: a", "do not alternate"), ("", "not begin")],
)
def test_text_that_is_no_transcript_is_refused(text, reason):
    with pytest.raises(DataError, match=reason):
        parse_transcript(text)


def test_published_files_are_split_at_the_last_common_turn(tmp_path):
    pairs = hh_rlhf("helpful", "train", folder=published(tmp_path, "train", PUBLISHED, PUBLISHED))
    assert pairs.prompts[0] == Conversation((("user", "Hi"), ("assistant", "Hello."), ("user", "A fruit?")))
    assert pairs.prompts[1] == Conversation((("user", "Two\nlines?"),))
    assert pairs.chosen == ("Apple", "Yes") and pairs.rejected == ("Brick", "No")
    assert pairs.objective == ("helpful", "helpful") and pairs.labels.tolist() == [1, 1]


def test_both_objectives_are_told_apart(tmp_path):
    pairs = hh_rlhf(None, "test", folder=published(tmp_path, "test", PUBLISHED, PUBLISHED[:1]))
    assert pairs.objective == ("helpful", "helpful", "harmless")


def test_unreadable_transcripts_and_equal_replies_are_dropped_and_counted(tmp_path):
    """Two good rows, five unreadable ones, one whose replies are the same text."""
    tie = {"chosen": f"{TALK} Apple", "rejected": f"{TALK} Apple"}
    folder = published(tmp_path, "train", [*PUBLISHED, *BROKEN, tie], PUBLISHED)
    with pytest.warns(DataWarning, match="1 pairs with equal replies dropped, 5 unreadable transcripts dropped"):
        report = hh_rlhf("helpful", "train", folder=folder).report
    assert (report.rows, report.kept, report.unreadable, report.ties) == (8, 2, 5, 1)


def test_files_without_any_transcript_are_refused(tmp_path):
    with pytest.raises(DataError, match="none of 5 rows is a pair of transcripts"):
        hh_rlhf("helpful", "train", folder=published(tmp_path, "train", BROKEN, PUBLISHED))


def test_the_tidy_layout_is_filtered_by_objective(tmp_path):
    tidy(tmp_path, "human_train.parquet")
    assert hh_rlhf("harmless", "train", folder=tmp_path).objective == ("harmless", "harmless")
    assert len(hh_rlhf(None, "train", folder=str(tmp_path))) == 4
    tidy(tmp_path, "ai_relabelled_test.parquet")
    assert len(hh_rlhf("helpful", "test", folder=tmp_path, source="ai_relabelled")) == 2


def test_a_folder_with_neither_layout_is_refused(tmp_path):
    message = r"holds neither human_test\.parquet nor helpful-base/test\.jsonl\.gz"
    with pytest.raises(DataError, match=message):
        hh_rlhf("helpful", "test", folder=tmp_path)


def test_unknown_choices_are_all_named():
    with pytest.raises(DefinitionError) as caught:
        hh_rlhf("honest", "valid", source="robot")
    assert len(caught.value.problems) == 3 and "'honest'" in str(caught.value)


def test_the_hub_is_asked_by_objective_and_its_rows_are_split(monkeypatch):
    asked = []

    def load_dataset(name, *, data_dir, split):
        asked.append((name, data_dir, split))
        return datasets.Dataset.from_list(PUBLISHED)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    pairs = hh_rlhf("harmless", "test")
    assert asked == [("Anthropic/hh-rlhf", "harmless-base", "test")]
    assert pairs.chosen == ("Apple", "Yes") and pairs.report.sources == ("Anthropic/hh-rlhf harmless-base test",)


def test_without_a_network_the_folder_argument_is_named(monkeypatch):
    def load_dataset(*_, **__):
        raise ConnectionError("no route to host")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(DataError, match=r"cannot be fetched \(ConnectionError: no route.*folder='path/to/hh-rlhf'"):
        hh_rlhf("helpful", "train")
    with pytest.raises(DataError, match="the hub has human labels only"):
        hh_rlhf("helpful", "train", source="ai_relabelled")


@needs_real
@pytest.mark.parametrize(("objective", "rows", "longer"), [("helpful", 1109, 0.59), ("harmless", 1249, 0.45)])
def test_the_real_training_pairs_have_the_known_size_and_length_bias(objective, rows, longer):
    """2,358 pairs; the longer answer is the chosen one in 59 % of the helpful and 45 % of the harmless pairs."""
    pairs = hh_rlhf(objective, "train", folder=REAL)
    assert len(pairs) == rows and set(pairs.objective) == {objective}
    bias = np.mean([len(c) > len(r) for c, r in zip(pairs.chosen, pairs.rejected, strict=True)])
    assert bias == pytest.approx(longer, abs=0.006)


@needs_real
def test_the_real_splits_share_no_opening_message():
    train, test = (hh_rlhf(None, split, folder=REAL) for split in ("train", "test"))
    assert (len(train), len(test)) == (2358, 623)
    openings = [{prompt.messages[0] for prompt in pairs.prompts} for pairs in (train, test)]
    assert not openings[0] & openings[1]
