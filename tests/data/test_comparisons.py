"""Comparisons and votes of many users: what is read, refused by row, split and selected."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from moalign.data import NOTHING, Comparisons, Votes, load_comparisons, load_pairs, load_votes
from moalign.errors import DataError
from moalign.store.fingerprint import describe

ROWS = [
    {"user": "ann", "prompt": "drink?", "chosen": "tea", "rejected": "coffee"},
    {"user": "ben", "prompt": "drink?", "chosen": "coffee", "rejected": "tea", "label": 0.75},
    {"user": "ann", "prompt": "drink?", "chosen": "tea", "rejected": "milk"},
]


def texts(given: Comparisons) -> list[tuple[str, str, str, float]]:
    """Returns (user, chosen, rejected, label) in words, sorted."""
    columns = zip(given.user, given.chosen, given.rejected, given.labels, strict=True)
    return sorted((given.users[u], given.items[a][1], given.items[b][1], float(label)) for u, a, b, label in columns)


def test_each_text_is_kept_once() -> None:
    given = load_comparisons([{"label": 1, **row} for row in ROWS])
    assert given.users == ("ann", "ben") and len(given.items) == 3 and len(given) == 3
    assert texts(given) == [
        ("ann", "tea", "coffee", 1.0),
        ("ann", "tea", "milk", 1.0),
        ("ben", "coffee", "tea", 0.75),
    ]
    assert given.counts().tolist() == [2, 1]


def test_files_frames_pairs_and_tuples_say_the_same(tmp_path) -> None:  # type: ignore[no-untyped-def]
    frame = pd.DataFrame([{"label": 1.0, **row} for row in ROWS])
    frame.to_csv(tmp_path / "c.csv", index=False)
    same = [load_comparisons(frame), load_comparisons(tmp_path / "c.csv"), load_comparisons(load_pairs(frame))]
    assert len({str(describe(given)) for given in same}) == 1
    one = load_comparisons([("drink?", "tea", "coffee")], user="ann")
    assert texts(one) == [("ann", "tea", "coffee", 1.0)]


def test_rows_are_refused_by_number() -> None:
    broken = [
        ROWS[0],
        {**ROWS[0], "rejected": "tea"},
        {**ROWS[0], "label": 2},
        {**ROWS[0], "chosen": " "},
        {**ROWS[0], "user": None},
    ]
    with pytest.raises(DataError) as caught:
        load_comparisons([{"label": 1, **row} for row in broken])
    message = str(caught.value)
    assert "row 1: 'chosen' and 'rejected' are the same" in message and "row 2: column 'label'" in message
    assert "row 3: column 'chosen' is empty" in message and "row 4: column 'user' has no value" in message
    with pytest.raises(DataError, match="whose comparisons"):
        load_comparisons([{"chosen": "a", "rejected": "b"}])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": [np.nan]}, r"labels must be in \[0, 1\]; comparison 0"),
        ({"rejected": [0]}, "comparison 0 .* compares an item with itself"),
        ({"chosen": [7]}, r"chosen must hold positions 0..1"),
        ({"user": [0, 0]}, "must hold one value per comparison"),
        ({"items": (("", "a"), ("", "a"))}, "items must differ"),
        ({"users": ("a\ud800",)}, "lone surrogates"),
        ({"user": [], "chosen": [], "rejected": [], "labels": []}, "at least one"),
    ],
)
def test_columns_that_cannot_be_meant(change: dict[str, object], message: str) -> None:
    fields = {"users": ("u",), "items": (("", "a"), ("", "b")), "user": [0], "chosen": [0], "rejected": [1]}
    with pytest.raises(DataError, match=message):
        Comparisons(**{**fields, "labels": [1.0], **change})  # type: ignore[arg-type]


def test_a_split_takes_the_same_share_of_every_user() -> None:
    """Users with 10, 4 and 1 comparisons give floor(0.25 n) = 2, 1 and 0; nothing is lost or doubled."""
    counts = {"a": 10, "b": 4, "c": 1}
    rows = [{"user": u, "chosen": f"{u}{i}", "rejected": "x"} for u, n in counts.items() for i in range(n)]
    given = load_comparisons(rows)
    left, right = (given.select(rows) for rows in given.split(0.25, seed=3))
    assert dict(zip(right.users, right.counts().tolist(), strict=True)) == {"a": 2, "b": 1}
    assert sorted(texts(left) + texts(right)) == texts(given)
    assert np.array_equal(given.split(0.25, seed=3)[1], given.split(0.25, seed=3)[1])
    assert texts(given.select(given.split(0.25, seed=4)[1])) != texts(right)
    assert not len(given.split(0.0)[1])
    assert given.of("b", "c").users == ("b", "c")
    with pytest.raises(DataError, match="no comparisons of user 'd'"):
        given.of("d")


def test_votes_are_comparisons_with_nothing() -> None:
    votes = load_votes(
        [
            {"user": 1, "statement": "More trees", "vote": 1},
            {"user": 1, "statement": "More cars", "vote": "-1"},
            {"user": 2, "statement": "More cars", "vote": "Agree"},
            {"user": 2, "statement": "More trees", "vote": "pass"},
        ]
    )
    assert votes.users == ("1", "2") and votes.vote.tolist() == [1, -1, 1, 0]
    assert texts(votes.comparisons()) == [("1", "", "More cars", 1.0), ("1", "More trees", "", 1.0)] + [
        ("2", "More cars", "", 1.0)
    ]
    assert NOTHING in votes.comparisons().items
    chosen = votes.select([2])
    assert chosen.users == ("2",) and chosen.statements == ("More cars",)
    with pytest.raises(DataError, match="every vote is a pass"):
        votes.select([3]).comparisons()


def test_broken_votes_are_refused_by_number() -> None:
    with pytest.raises(DataError, match="row 1: column 'vote' must be 1, 0, -1"):
        load_votes([{"user": 1, "statement": "a", "vote": 1}, {"user": 1, "statement": "b", "vote": 0.5}])
    with pytest.raises(DataError, match="votes must be 1, 0 or -1"):
        Votes(users=("u",), statements=("s",), user=[0], statement=[0], vote=[3])  # type: ignore[arg-type]
