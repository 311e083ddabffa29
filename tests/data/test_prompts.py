"""Prompts: texts and conversations from any source, checked row by row."""

from __future__ import annotations

import copy
import json

import datasets
import pandas as pd
import pytest

from moalign.data import Conversation, Prompts, load_prompts
from moalign.errors import DataError

ASK = [{"role": "user", "content": "Hello"}]
TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hello"},
    {"role": "assistant", "content": "Hi."},
    {"role": "user", "content": "Bye"},
]


def test_a_conversation_as_text_names_the_speakers_and_ends_where_the_policy_begins():
    talk = load_prompts([TALK])[0]
    assert str(talk) == "Be brief.\n\nHuman: Hello\n\nAssistant: Hi.\n\nHuman: Bye\n\nAssistant:"
    assert talk.as_messages() == TALK
    assert talk == Conversation(tuple((m["role"], m["content"]) for m in TALK)) and hash(talk)


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ((), "has no messages"),
        ((("user", "a"), ("assistant", "b")), "ends with 'assistant'"),
        ((("human", "a"),), "role 'human'; known are system, user, assistant. Write 'user'."),
        ((("user", "a"), ("system", "b"), ("user", "c")), "message 1 is a system message; only the first"),
        ((("user", " \n"),), r"message 0 \(user\) is empty"),
        ((("user", None),), r"message 0 \(user\) must be text, got NoneType"),
        ((("user", "\ud800"),), "lone surrogates"),
    ],
)
def test_a_conversation_the_policy_cannot_answer_is_refused(messages, reason):
    with pytest.raises(DataError, match=reason):
        Conversation(messages)


def test_prompts_come_from_every_kind_of_source(tmp_path):
    texts = ["One", "Two"]
    rows = [{"prompt": text} for text in texts]
    (tmp_path / "a.txt").write_text("One\nTwo\n", encoding="utf-8")
    (tmp_path / "a.csv").write_text("prompt\nOne\nTwo\n", encoding="utf-8")
    (tmp_path / "a.json").write_text(json.dumps(texts), encoding="utf-8")
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    pd.DataFrame(rows).to_parquet(tmp_path / "a.parquet")
    files = [tmp_path / f"a.{kind}" for kind in ("txt", "csv", "json", "jsonl", "parquet")]
    sources = [texts, tuple(texts), rows, pd.DataFrame(rows), datasets.Dataset.from_list(rows), *files]
    prints = {json.dumps(load_prompts(source).__fingerprint__()) for source in sources}
    assert [list(load_prompts(source)) for source in sources] == [texts] * len(sources)
    assert len(prints) == 1, "the same content must have the same fingerprint whatever it was read from"


def test_other_columns_travel_along_and_slices_keep_them():
    prompts = load_prompts([{"q": "One", "topic": "a"}, {"q": "Two"}, {"q": "Three", "topic": "c"}], column="q")
    assert prompts.columns == {"topic": ("a", None, "c")}
    assert prompts[1:].columns == {"topic": (None, "c")} and list(prompts[1:]) == ["Two", "Three"]
    assert prompts[-1] == "Three" and len(prompts) == 3
    assert load_prompts(prompts) is prompts
    assert list(copy.deepcopy(prompts)) == list(prompts)


def test_conversations_and_texts_may_be_mixed_and_never_share_a_fingerprint():
    talk, text = load_prompts([ASK]), load_prompts([str(load_prompts([ASK])[0])])
    assert str(talk[0]) == text[0]
    assert talk.__fingerprint__()["sha256"] != text.__fingerprint__()["sha256"]
    assert len(load_prompts([ASK, "plain", Conversation((("user", "x"),))])) == 3


def test_the_fingerprint_depends_on_order_text_and_columns():
    prints = [
        load_prompts(rows).__fingerprint__()["sha256"]
        for rows in (["a", "b"], ["b", "a"], ["a", "b "], [{"prompt": "a", "x": 1}, {"prompt": "b", "x": 2}])
    ]
    assert len(set(prints)) == 4


def test_the_report_counts_duplicates_and_lengths():
    """Lengths 2, 4, 2: the mean is 8/3; one of the three repeats another."""
    report = load_prompts(["ab", "abcd", "ab"]).report
    assert (report.rows, report.kept, report.duplicates) == (3, 3, 1)
    assert report.mean_prompt_characters == pytest.approx(8 / 3)
    assert str(report) == "3 prompts from list; 1 duplicates kept; prompts 3 characters (at most 4)"


def test_every_broken_row_is_named_with_its_reason(tmp_path):
    rows = [{"prompt": "fine"}, {"prompt": ""}, {"prompt": None}, {"text": "x"}, {"prompt": 7}, {"prompt": [{"a": 1}]}]
    path = tmp_path / "prompts.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    with pytest.raises(DataError) as caught:
        load_prompts(path)
    assert str(caught.value).splitlines() == [
        "prompts.jsonl: 5 unusable rows of 6. Correct or remove them.",
        "  prompts.jsonl line 2: column 'prompt' is empty.",
        "  prompts.jsonl line 3: column 'prompt' has no value (None or NaN).",
        "  prompts.jsonl line 4: column 'prompt' is missing. Columns found: text.",
        "  prompts.jsonl line 5: column 'prompt' must be text, got int 7.",
        "  prompts.jsonl line 6: column 'prompt': message 0 must have 'role' and 'content', got {'a': 1}.",
    ]


def test_a_single_broken_row_is_one_sentence(tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "a"}\n{"prompt": "  "}\n', encoding="utf-8")
    with pytest.raises(DataError) as caught:
        load_prompts(path)
    assert str(caught.value) == "prompts.jsonl line 2: column 'prompt' is empty."


def test_empty_data_a_wrong_column_and_a_bare_conversation_are_refused(tmp_path):
    (tmp_path / "none.jsonl").write_text("\n", encoding="utf-8")
    for empty in ([], pd.DataFrame({"prompt": []}), tmp_path / "none.jsonl"):
        with pytest.raises(DataError, match="is empty: no rows found"):
            load_prompts(empty)
    with pytest.raises(DataError, match="column 'prompt' is missing. Columns found: prompts. Did you mean 'prompts'?"):
        load_prompts([{"prompts": "a"}])
    with pytest.raises(DataError, match=r"this list is one conversation.*Write \[messages\]"):
        load_prompts(TALK)
    with pytest.raises(DataError, match="To pass texts themselves, give a list"):
        load_prompts("Tell me a story")


def test_replaced_characters_are_warned_about_once():
    with pytest.warns(match="list: 2 characters no tokenizer accepts replaced") as caught:
        prompts = load_prompts(["a\ud800", [{"role": "user", "content": "b\x00"}]])
    assert len(caught) == 1 and prompts.report.normalised == 2
    assert prompts[0] == "a\ufffd" and prompts[1].messages == (("user", "b\ufffd"),)


def test_prompts_built_by_hand_are_checked_too():
    assert Prompts(texts=("a", "b")).report.rows == 2
    assert repr(Prompts(texts=("a", "b"))) == "<Prompts 2 from memory>"
    for texts, columns in (((), {}), (("a", " "), {}), (("a\ud800",), {}), (("a", "b"), {"x": (1,)})):
        with pytest.raises(DataError):
            Prompts(texts=texts, columns=columns)
