"""Preference pairs: every layout means the same pair, and nothing broken gets through."""

from __future__ import annotations

import json
import warnings

import datasets
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moalign.data import Conversation, PreferencePairs, load_pairs
from moalign.errors import DataError, DataWarning, DefinitionError


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def pair(prompt="p", chosen="good", rejected="bad", **columns):
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected, **columns}


OTHER = pair("other", "x", "y")
TALK = [user("Hi"), assistant("Hello."), user("Bye")]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": TALK, "chosen": [assistant("good")], "rejected": [assistant("bad")]},
        {"prompt": TALK, "chosen": [*TALK, assistant("good")], "rejected": [*TALK, assistant("bad")]},
        {"chosen": [*TALK, assistant("good")], "rejected": [*TALK, assistant("bad")]},
        {"prompt": None, "chosen": [*TALK, assistant("good")], "rejected": [*TALK, assistant("bad")]},
        {"prompt": "Bye", "chosen": [*TALK, assistant("good")], "rejected": [*TALK, assistant("bad")]},
        {"prompt": TALK, "chosen": "good", "rejected": "bad"},
    ],
    ids=["separate", "repeated", "implicit", "prompt is null", "prompt as text", "replies as text"],
)
def test_every_conversational_layout_is_the_same_pair(row):
    pairs = load_pairs([row, OTHER if "prompt" in row else {**row, "chosen": [*TALK, assistant("best")]}])
    assert pairs.prompts[0] == Conversation((("user", "Hi"), ("assistant", "Hello."), ("user", "Bye")))
    assert (pairs.chosen[0], pairs.rejected[0]) in {("good", "bad"), ("best", "bad")}


def test_a_text_prompt_with_single_messages_as_replies_is_a_conversation_of_one_turn():
    row = {"prompt": "Hi", "chosen": [assistant("good")], "rejected": [assistant("bad")]}
    assert load_pairs([row, OTHER]).prompts[0] == Conversation((("user", "Hi"),))


def test_every_source_gives_the_same_pairs(tmp_path):
    rows = [pair(label=0.75, user="u1"), pair("other", "x", "y", label=0.5, user="u2")]
    frame = pd.DataFrame(rows)
    frame.to_csv(tmp_path / "p.csv", index=False)
    frame.to_parquet(tmp_path / "p.parquet")
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    files = [tmp_path / f"p.{kind}" for kind in ("csv", "parquet", "jsonl")]
    loaded = [load_pairs(source) for source in (rows, frame, datasets.Dataset.from_list(rows), *files)]
    assert len({json.dumps(pairs.__fingerprint__()) for pairs in loaded}) == 1
    for pairs in loaded:
        assert pairs.labels.tolist() == [0.75, 0.5] and pairs.user == ("u1", "u2")
        assert pairs.objective is None and pairs.margin is None and pairs.weight is None


def test_absent_labels_mean_that_chosen_is_preferred_and_arrays_are_read_only():
    pairs = load_pairs([pair(margin=2, weight=0.5, user=17), pair("other", "x", "y", margin=-1, weight=0, user=18)])
    assert pairs.labels.tolist() == [1.0, 1.0] and pairs.labels.dtype == np.float64
    assert pairs.margin.tolist() == [2.0, -1.0] and pairs.weight.tolist() == [0.5, 0.0] and pairs.user == ("17", "18")
    with pytest.raises(ValueError, match="read-only"):
        pairs.labels[0] = 0


def test_pairs_of_one_objective_are_kept_and_broken_rows_of_others_do_not_matter():
    rows = [pair(objective="helpful"), pair("q", "", "b", objective="harmless"), pair("r", objective="helpful")]
    pairs = load_pairs(rows, objective="helpful")
    assert pairs.prompts == ("p", "r") and pairs.objective == ("helpful", "helpful")
    assert load_pairs([pair(), OTHER], objective="helpful").objective is None, "no column: nothing to filter by"
    message = (
        r"no rows of objective 'helpfull'\. Found: harmless \(1 rows\), helpful \(2 rows\)\. Did you mean 'helpful'"
    )
    with pytest.raises(DataError, match=message):
        load_pairs(rows, objective="helpfull")
    with pytest.raises(DataError, match="list row 3: column 'objective' has no value"):
        load_pairs([*rows, pair(objective=None)], objective="helpful")


def test_loaded_pairs_pass_through_or_are_filtered():
    both = load_pairs([pair(objective=name, prompt=f"{name}{i}") for name in ("a", "b") for i in range(2)])
    assert load_pairs(both) is both
    assert load_pairs(both, objective="b").prompts == ("b0", "b1")


def test_ties_and_duplicates_are_dropped_with_one_warning_and_counted():
    """Six rows: one tie, two exact copies; another user's equal judgement is no copy. Three are left."""
    rows = [
        pair(user="1"),
        pair(user="1"),
        pair(user="2"),
        pair("t", "same", "same", user="1"),
        pair(user="1"),
        {**OTHER, "user": "1"},
    ]
    with pytest.warns(DataWarning, match="list: 2 duplicates dropped, 1 pairs with equal replies dropped") as caught:
        pairs = load_pairs(rows)
    assert len(caught) == 1 and len(pairs) == 3
    report = pairs.report
    assert (report.rows, report.kept, report.duplicates, report.ties) == (6, 3, 2, 1)
    assert str(report).startswith("3 of 6 pairs from list; 2 duplicates dropped; 1 pairs with equal replies dropped;")


def test_contradictions_are_kept_and_counted_as_unordered_pairs():
    """p is labelled in both directions by swapping, q by its labels; r has one direction, s is undecided."""
    rows = [
        pair(label=1),
        pair("p", "bad", "good", label=1),
        pair("q", label=1),
        pair("q", label=0.2),
        pair("r", label=1),
        pair("r", "bad", "good", label=0),
        pair("s", label=0.5),
        pair("s", label=0.9),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pairs = load_pairs(rows)
    assert len(pairs) == 8 and pairs.report.contradictory == 2


def test_contradictions_are_counted_within_an_objective():
    rows = [pair(objective="helpful"), pair("p", "bad", "good", objective="harmless")]
    assert load_pairs(rows).report.contradictory == 0


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "p", "chosen": "a"}, "column 'rejected' is missing. Columns found: prompt, chosen."),
        (pair(chosen=None), "column 'chosen' has no value (None or NaN)."),
        (pair(rejected=float("nan")), "column 'rejected' has no value (None or NaN)."),
        (pair(rejected=3), "column 'rejected' must be text, got int 3."),
        (pair(chosen=" "), "column 'chosen' is empty."),
        (pair(prompt=""), "column 'prompt' is empty."),
        (pair(prompt=None), "column 'prompt' has no value (None or NaN)."),
        (pair(chosen=[assistant("a")]), "column 'rejected' must be text or a list of messages, got 'bad'."),
        (pair(chosen=[user("a")], rejected=[user("b")]), "column 'chosen' must end with an 'assistant' message, got"),
        (
            {"chosen": [user("a"), assistant("x")], "rejected": [user("b"), assistant("x")]},
            "'chosen' and 'rejected' have no first messages in common",
        ),
        (
            {"chosen": [user("a"), assistant("x"), user("c"), assistant("z")], "rejected": [user("a"), assistant("y")]},
            "column 'chosen' has 3 messages after the prompt; expected one assistant message.",
        ),
        (
            pair("else", [user("a"), assistant("x")], [user("a"), assistant("y")]),
            "column 'prompt' is 'else', but no user message of the replies is that text.",
        ),
    ],
)
def test_broken_rows_are_refused_by_number(row, reason):
    with pytest.raises(DataError) as caught:
        load_pairs([OTHER, row, pair("q")])
    assert str(caught.value).startswith(f"list row 1: {reason}")


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("label", 1.5, "must be a number in [0, 1], got 1.5."),
        ("label", -0.1, "must be a number in [0, 1], got -0.1."),
        ("label", "toxic", "must be a number in [0, 1], got 'toxic'."),
        ("label", None, "has no value (None or NaN)."),
        ("margin", float("inf"), "must be a finite number, got inf."),
        ("weight", -1, "must be a finite number >= 0, got -1."),
        ("user", "", "is empty."),
    ],
)
def test_optional_columns_are_filled_and_in_range(column, value, reason):
    good = {"label": 1, "margin": 0, "weight": 1, "user": "u"}[column]
    with pytest.raises(DataError) as caught:
        load_pairs([pair(**{column: good}), pair("q", **{column: value})])
    assert str(caught.value).startswith(f"list row 1: column {column!r} {reason}")


def test_at_most_ten_broken_rows_are_shown_and_all_are_counted(tmp_path):
    path = tmp_path / "prefs.jsonl"
    path.write_text("\n".join(json.dumps(pair(chosen="")) for _ in range(25)), encoding="utf-8")
    with pytest.raises(DataError) as caught:
        load_pairs(path)
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("prefs.jsonl: 25 unusable rows of 25.") and len(lines) == 12
    assert lines[1] == "  prefs.jsonl line 1: column 'chosen' is empty." and lines[-1] == "  and 15 more"


def test_too_few_pairs_and_absent_columns_are_refused():
    with pytest.raises(DataError, match="is empty: no rows found"):
        load_pairs([])
    for rows in ([pair()], [pair(), pair()], [pair(), pair("q", "same", "same")]):
        with pytest.raises(DataError, match="at least 2 pairs"):
            load_pairs(rows)
    with pytest.raises(DataError, match="column 'rejected' is missing. Columns found: prompt, chosen, score."):
        load_pairs([{"prompt": "p", "chosen": "a", "score": 1}] * 3)
    with pytest.raises(DataError, match="list row 0: expected named columns, got str"):
        load_pairs(["text", "text"])


def test_replaced_characters_are_counted_and_compared_after_replacing():
    with pytest.warns(DataWarning, match="2 characters no tokenizer accepts replaced"):
        pairs = load_pairs([pair(chosen="a\ud800"), pair("q", "b\x00")])
    assert pairs.chosen == ("a\ufffd", "b\ufffd") and pairs.report.normalised == 2


def test_report_lengths_are_of_the_kept_texts():
    """Prompts 1 and 3 characters, replies 2, 4, 6, 8: means 2 and 5."""
    report = load_pairs([pair("p", "a" * 2, "b" * 4), pair("ppp", "a" * 6, "b" * 8)]).report
    assert (report.mean_prompt_characters, report.max_prompt_characters) == (2, 3)
    assert (report.mean_reply_characters, report.max_reply_characters) == (5, 8)


def test_scores_become_the_margin_where_there_is_none():
    rows = [pair(score_chosen=8.5, score_rejected=6), pair("q", score_chosen="2", score_rejected=3)]
    assert load_pairs(rows).margin.tolist() == [2.5, -1]
    assert load_pairs([{**row, "margin": 1} for row in rows]).margin.tolist() == [1, 1], "a margin that is given counts"
    assert load_pairs([pair(score_chosen=1), pair("q", score_chosen=2)]).margin is None
    with pytest.raises(DataError, match="list row 1: column 'score_rejected' has no value"):
        load_pairs([rows[0], pair("q", score_chosen=2, score_rejected=None)])


def test_the_unpaired_layout_is_recognised():
    with pytest.raises(DataError, match="unpaired layout.*Read it with load_ratings"):
        load_pairs([{"prompt": "p", "completion": "x", "label": True}] * 2)


def test_the_fingerprint_sees_every_column():
    base = [pair(label=1, user="a", margin=1, weight=1, objective="o"), pair("q", "x", "y", label=1, user="a", margin=1,
                                                                            weight=1, objective="o")]  # fmt: skip
    changes = [{}, {"label": 0.9}, {"user": "b"}, {"margin": 2}, {"weight": 2}, {"objective": "n"}, {"chosen": "z"}]
    prints = {load_pairs([{**base[0], **change}, base[1]]).__fingerprint__()["sha256"] for change in changes}
    swapped = load_pairs([{**base[0], "chosen": "bad", "rejected": "good"}, base[1]]).__fingerprint__()
    assert len(prints) == len(changes) and swapped["sha256"] not in prints
    assert swapped["kind"] == "pairs" and swapped["rows"] == 2


def test_pairs_built_by_hand_are_checked():
    made = PreferencePairs(prompts=("p", "q"), chosen=("a", "b"), rejected=("c", "d"), labels=np.ones(2))
    assert made.report.rows == 2 and repr(made) == "<PreferencePairs 2 from memory>"
    good = {"prompts": ("p", "q"), "chosen": ("a", "b"), "rejected": ("c", "d"), "labels": np.ones(2)}
    broken = [
        {"prompts": ("p",)}, {"chosen": ("a",)}, {"labels": np.array([1.0, 2.0])}, {"labels": np.array([1.0, np.nan])},
        {"chosen": ("a", "")}, {"rejected": ("c", "\ud800")}, {"prompts": ("p", "\x00")}, {"user": ("u",)},
        {"weight": np.array([1.0, -1.0])}, {"margin": np.array([1.0, np.inf])},
    ]  # fmt: skip
    for change in broken:
        with pytest.raises(DataError):
            PreferencePairs(**{**good, **change})


@settings(max_examples=20)
@given(st.permutations(range(5)))
def test_selecting_rows_takes_every_column_alike(order):
    pairs = load_pairs([pair(f"p{i}", f"c{i}", f"r{i}", label=i / 4, user=f"u{i}", weight=i) for i in range(5)])
    taken = pairs.select(order)
    assert [
        (p, c, r, u) for p, c, r, u in zip(taken.prompts, taken.chosen, taken.rejected, taken.user, strict=True)
    ] == [(f"p{i}", f"c{i}", f"r{i}", f"u{i}") for i in order]
    assert (taken.labels * 4).tolist() == list(order) == taken.weight.tolist()


def test_held_out_pairs_share_no_prompt_with_the_rest() -> None:
    given = load_pairs([pair(f"p{i // 3}", f"good {i}", f"bad {i}", label=0.25 + i / 100) for i in range(30)])
    rest, out = given.hold_out(0.2, seed=1)
    assert (len(rest), len(out)) == (24, 6) and not set(rest.prompts) & set(out.prompts)
    assert sorted([*rest.labels, *out.labels]) == pytest.approx(sorted(given.labels))
    assert given.hold_out(0.2, seed=1)[1].prompts == out.prompts != given.hold_out(0.2, seed=2)[1].prompts
    assert {content[0] for content in out.contents()} <= {content[0] for content in given.contents()}
    talks = load_pairs([pair([user(f"{i}"), assistant("yes"), user("so?")], "x", f"y{i}") for i in range(6)])
    assert [len(side) for side in talks.hold_out(0.4)] == [4, 2]
    with pytest.raises(DataError, match="30 pairs of 10 prompts cannot be parted: 0.99"):
        given.hold_out(0.99)
    with pytest.raises(DefinitionError, match="share must be in"):
        given.hold_out(1.0)
