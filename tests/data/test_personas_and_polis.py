"""Loaders of persona statements and Polis votes: both layouts on tiny files, and known facts of the real ones."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from moalign.data import personas, polis
from moalign.errors import DataError, DefinitionError

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"


def test_published_statements_are_split_within_each_answer(tmp_path: Path) -> None:
    """Of 10 Yes and 5 No, 20 % are 2 and 1; the parts share nothing and leave nothing out."""
    rows = [{"statement": f"s{i}", "answer_matching_behavior": " Yes" if i < 10 else " No"} for i in range(15)]
    (tmp_path / "likes-tea.jsonl").write_text("\n".join(map(json.dumps, rows)))
    train, test = (personas(None, split, tmp_path) for split in ("train", "test"))
    assert (len(train), len(test), int(test.agrees.sum())) == (12, 3, 2)
    assert sorted(train.texts + test.texts) == sorted(row["statement"] for row in rows)
    assert test.personas == ("likes-tea",) and bool(train.agrees[train.texts.index("s14")]) is False


def test_what_personas_refuses(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="neither test.parquet nor"):
        personas(None, "test", tmp_path)
    with pytest.raises(DefinitionError, match="split must be"):
        personas(None, "valid", tmp_path)  # type: ignore[arg-type]
    with pytest.raises(DefinitionError, match="name the personas"):
        personas(None, "test")
    pd.DataFrame({"persona": ["a"], "statement": ["x"], "agrees": [1]}).to_parquet(tmp_path / "test.parquet")
    with pytest.raises(DataError, match="row 0: 'agrees' must be true or false"):
        personas(["a"], "test", tmp_path)
    with pytest.raises(DataError, match="no statements of 'b'"):
        personas(["b"], "test", tmp_path)


@pytest.mark.parametrize("sign", [1, -1])
def test_the_sign_of_published_votes_is_read_off_the_agree_counts(tmp_path: Path, sign: int) -> None:
    """Statement 0 has two agreements and statement 1 none, whichever sign the export gives to agreement."""
    place = tmp_path / "trees"
    place.mkdir()
    votes = [(0, 0, 1), (1, 0, 1), (0, 1, -1), (1, 1, 0), (0, 2, 1)]
    frame = pd.DataFrame(votes, columns=["voter-id", "comment-id", "vote"])
    frame.assign(vote=frame["vote"] * sign).to_csv(place / "votes.csv", index=False)
    kept = {"comment-id": [0, 1, 2], "comment-body": ["a", "b", "rejected"], "agrees": [2, 0, 1]}
    pd.DataFrame({**kept, "moderated": [1, 0, -1]}).to_csv(place / "comments.csv", index=False)
    people = pd.DataFrame({"participant": [0, 1], "group-id": [1, np.nan]})
    people.to_csv(place / "participants-votes.csv", index=False)
    found = polis(tmp_path)
    assert found.votes.users == ("trees/0", "trees/1") and found.groups.tolist() == [1, -1]
    names = found.votes.statements
    columns = zip(found.votes.user, found.votes.statement, found.votes.vote, strict=True)
    got = [(int(u), names[s], int(v)) for u, s, v in columns]
    assert sorted(got) == [(0, "a", 1), (0, "b", -1), (1, "a", 1), (1, "b", 0)]


def test_what_polis_refuses(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="github.com/compdemocracy/openData"):
        polis()
    with pytest.raises(DataError, match="neither votes.parquet nor"):
        polis(tmp_path)


@pytest.mark.skipif(not (SHARED / "polis").is_dir(), reason="needs the Polis conversations")
def test_real_votes_have_their_published_counts() -> None:
    found = polis(SHARED / "polis", ["brexit-consensus", "london.youth.policing"])
    assert len(found.votes.users) == 163 + 22 and len(found.votes) == 4277 + 547
    with pytest.raises(DataError, match="'nowhere'"):
        polis(SHARED / "polis", ["nowhere"])


@pytest.mark.skipif(not (SHARED / "personas").is_dir(), reason="needs the persona statements")
def test_real_statements_have_their_published_counts() -> None:
    train, test = (personas(["interest-in-art"], split, SHARED / "personas") for split in ("train", "test"))
    assert (len(train), int(train.agrees.sum()), len(test), int(test.agrees.sum())) == (792, 397, 208, 103)
    assert not set(train.texts) & set(test.texts)
