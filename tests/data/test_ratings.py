"""Ratings: read row by row, averaged, and turned into pairs and comparisons that say the same."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moalign.data import Conversation, Ratings, load_ratings
from moalign.errors import DataError, DefinitionError

ROWS = [
    {"prompt": "p", "response": "a", "user": "u", "good": 4, "brief": 1},
    {"prompt": "p", "response": "b", "user": "u", "good": 2, "brief": None},
    {"prompt": "p", "response": "c", "user": "u", "good": 2, "brief": 3},
    {"prompt": "p", "response": "a", "user": "v", "good": 0, "brief": 2},
    {"prompt": "q", "response": "a", "user": "v", "good": 1, "brief": 1},
]


def without(rows, *names):
    return [{key: value for key, value in row.items() if key not in names} for row in rows]


def said(pairs):
    users = pairs.user or (None,) * len(pairs)
    columns = (pairs.prompts, pairs.objective, users, pairs.chosen, pairs.rejected, pairs.margin)
    return set(zip(*columns, strict=True))


def test_every_source_gives_the_same_ratings(tmp_path):
    frame = pd.DataFrame(ROWS)
    frame.to_csv(tmp_path / "r.csv", index=False)
    frame.to_parquet(tmp_path / "r.parquet")
    (tmp_path / "r.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    sources = [ROWS, frame, *(tmp_path / f"r.{kind}" for kind in ("csv", "parquet", "jsonl"))]
    loaded = [load_ratings(source) for source in sources]
    assert len({json.dumps(r.__fingerprint__()) for r in loaded}) == 1
    assert loaded[0].attributes == ("good", "brief") and math.isnan(loaded[2].values[1, 1])
    assert repr(loaded[0]) == "<Ratings 5 of 4 responses on good, brief by 2 users>"
    assert load_ratings(loaded[0]) is loaded[0]


def test_pairs_prefer_the_higher_rating_of_the_same_user_and_prompt():
    """User u: a (4) beats b and c (2, equal to each other) by 2; c (brief 3) beats a (1) by 2; b has no brief."""
    pairs = load_ratings(ROWS).pairs()
    expected = {
        ("p", "good", "u", "a", "b", 2.0),
        ("p", "good", "u", "a", "c", 2.0),
        ("p", "brief", "u", "c", "a", 2.0),
    }
    assert said(pairs) == expected and pairs.labels.tolist() == [1, 1, 1]
    assert said(load_ratings(ROWS).pairs("good")) == {pair for pair in expected if pair[1] == "good"}


def test_without_users_all_ratings_of_a_prompt_are_compared_and_small_differences_left_out():
    rows = [{"prompt": "p", "response": text, "good": value} for text, value in (("a", 4), ("b", 3), ("c", 1))]
    assert said(load_ratings(rows).pairs(least=2)) == {
        ("p", "good", None, "a", "c", 3.0),
        ("p", "good", None, "b", "c", 2.0),
    }


def test_the_same_text_is_never_compared_with_itself():
    rows = [{"prompt": "p", "response": text, "good": value} for text, value in (("a", 0), ("a", 4), ("b", 2))]
    assert said(load_ratings(rows).pairs()) == {
        ("p", "good", None, "b", "a", 2.0),
        ("p", "good", None, "a", "b", 2.0),
    }


def test_the_mean_over_users_skips_what_is_missing():
    """p, a: good (4 + 0) / 2, brief (1 + 2) / 2; p, b was not rated on brief by anyone."""
    mean = load_ratings(ROWS).averaged()
    assert mean.user is None and mean.responses == ("a", "b", "c", "a")
    assert np.array_equal(mean.values, [[2, 1.5], [2, math.nan], [2, 3], [1, 1]], equal_nan=True)


def test_comparisons_stay_within_a_user_and_by_default_within_a_prompt():
    rated = load_ratings(ROWS)
    given = rated.comparisons("good")
    assert given.users == ("u",) and len(given) == 2
    across = rated.comparisons("good", across=True)
    items = {(across.users[u], across.items[a], across.items[b]) for u, a, b in zip(
        across.user, across.chosen, across.rejected, strict=True)}  # fmt: skip
    assert items == {
        ("u", ("p", "a"), ("p", "b")), ("u", ("p", "a"), ("p", "c")), ("v", ("q", "a"), ("p", "a")),
    }  # fmt: skip
    alone = load_ratings(without(ROWS[:3], "prompt"))
    assert alone.prompts is None and alone.comparisons("good").items[0] == ("", "a")


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=2, max_size=9), st.integers(1, 5), st.integers(0, 9))
def test_a_draw_takes_as_many_as_asked_and_only_true_ones(values, most, seed):
    """Of n items with c_k ratings at level k there are (n^2 - sum c_k^2) / 2 ordered pairs."""
    rated = load_ratings([{"user": "u", "response": f"t{i}", "good": v} for i, v in enumerate(values)])
    possible = (len(values) ** 2 - sum(values.count(k) ** 2 for k in range(4))) // 2
    if not possible:
        with pytest.raises(DataError, match="rated two items differently on 'good'"):
            rated.comparisons("good", most=most, seed=seed)
        return
    given = rated.comparisons("good", most=most, seed=seed)
    assert len(given) == min(most, possible)
    level = {text: value for text, value in zip(rated.responses, values, strict=True)}
    assert all(
        level[given.items[a][1]] > level[given.items[b][1]]
        for a, b in zip(given.chosen, given.rejected, strict=True)
    )  # fmt: skip
    assert given.__fingerprint__() == rated.comparisons("good", most=most, seed=seed).__fingerprint__()


def test_the_unpaired_preference_layout_is_ratings_of_the_label():
    talk = [{"role": "user", "content": "Hi"}]
    rows = [
        {"prompt": talk, "completion": [{"role": "assistant", "content": text}], "label": label}
        for text, label in (("good", True), ("bad", False), ("fine", True))
    ]
    rated = load_ratings(rows)
    assert rated.attributes == ("label",) and rated.values.ravel().tolist() == [1, 0, 1]
    pairs = rated.pairs()
    assert pairs.prompts[0] == Conversation((("user", "Hi"),)) and set(pairs.chosen) == {"good", "fine"}
    assert pairs.rejected == ("bad", "bad")


def test_the_report_counts_levels_missing_values_users_and_duplicates():
    report = load_ratings([*ROWS, ROWS[0]]).report
    assert report.balance == {"good": {"0": 1, "1": 1, "2": 2, "4": 2}, "brief": {"1": 3, "2": 1, "3": 1}}
    assert report.missing == {"good": 0, "brief": 1} and report.duplicates == 1
    assert (report.users, report.median_votes, report.users_with_few_votes) == (2, 3, 2)
    fine = load_ratings([{"response": f"t{i}", "score": i / 10} for i in range(101)]).report.balance["score"]
    assert len(fine) == 5 and sum(fine.values()) == 101, "a fine scale is shown in ranges"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"good": "high"}, "list row 1: column 'good' must be a finite number or empty, got 'high'. Name the columns"),
        ({"good": math.inf}, "list row 1: column 'good' must be a finite number or empty, got inf"),
        ({"good": None, "brief": math.nan}, "list row 1: no rating at all \\(good, brief\\)"),
        ({"response": " "}, "list row 1: column 'response' is empty"),
        ({"prompt": None}, "list row 1: column 'prompt' has no value"),
        ({"user": None}, "list row 1: column 'user' has no value"),
        ({"response": [{"role": "user", "content": "x"}]}, "must be an 'assistant' message, got 'user'"),
    ],
)
def test_broken_rows_are_refused_by_number(change, message):
    with pytest.raises(DataError, match=message):
        load_ratings([ROWS[0], {**ROWS[1], **change}])


def test_all_broken_rows_are_counted():
    with pytest.raises(DataError) as caught:
        load_ratings([{**ROWS[0], "good": "x"}] * 30)
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("list: 30 unusable rows of 30.") and len(lines) == 12 and lines[-1] == "  and 20 more"


def test_what_ratings_cannot_say_is_refused():
    rated = load_ratings(ROWS)
    for call, error, message in (
        (lambda: rated.pairs("good", "bad"), DataError, "no attribute 'bad'; there are good, brief"),
        (lambda: rated.pairs(least=9), DataError, "give 0 pairs"),
        (lambda: rated.pairs(most=0), DefinitionError, "most >= 1, got 0.0 and 0"),
        (lambda: rated.comparisons("good", least=-1), DefinitionError, "least must be >= 0"),
        (lambda: load_ratings(without(ROWS, "user")).comparisons("good"), DataError, "these ratings have no users"),
        (lambda: load_ratings(without(ROWS, "prompt")).pairs(), DataError, "have no prompts"),
        (lambda: load_ratings(without(ROWS, "good", "brief")), DataError, "no column holds ratings"),
        (lambda: load_ratings(without(ROWS, "response")), DataError, "column 'response' is missing"),
        (lambda: load_ratings(ROWS, attributes=["god"]), DataError, "Did you mean 'good'"),
        (lambda: load_ratings([]), DataError, "is empty"),
    ):
        with pytest.raises(error, match=message):
            call()


def test_ratings_made_by_hand_are_checked():
    good = {"responses": ("a", "b"), "attributes": ("x",), "values": np.array([[1.0], [math.nan]])}
    assert Ratings(**good).report.missing == {"x": 1}
    for change in (
        {"responses": ()}, {"attributes": ()}, {"attributes": ("x", "x")}, {"values": np.ones((2, 2))},
        {"values": np.array([[1.0], [math.inf]])}, {"user": ("u",)}, {"prompts": ("p", "")},
        {"responses": ("a", "\x00")},
    ):  # fmt: skip
        with pytest.raises(DataError):
            Ratings(**{**good, **change})
