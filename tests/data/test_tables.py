"""Tables: every kind of source gives the same rows, and every refusal names the line or row."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys

import datasets
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moalign.data.tables import Table, cell, clean_text, has_unreadable, read_table
from moalign.errors import DataError

ROWS = [{"prompt": "Hé, you", "note": 'a "quote", and\na line'}, {"prompt": "Second", "note": "plain"}]


def write(folder, name, text, encoding="utf-8"):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
    return path


def jsonl(rows):
    return "\n".join(json.dumps(row) for row in rows) + "\n"


def sources(folder):
    frame = pd.DataFrame(ROWS)
    frame.to_parquet(folder / "rows.parquet")
    frame.to_csv(folder / "rows.csv", index=False)
    with gzip.open(folder / "rows.jsonl.gz", "wt", encoding="utf-8") as file:
        file.write(jsonl(ROWS))
    return {
        "jsonl": write(folder, "rows.jsonl", jsonl(ROWS)),
        "jsonl.gz": str(folder / "rows.jsonl.gz"),
        "json": write(folder, "rows.json", json.dumps(ROWS)),
        "csv": folder / "rows.csv",
        "parquet": folder / "rows.parquet",
        "DataFrame": frame,
        "Dataset": datasets.Dataset.from_list(ROWS),
        "list": ROWS,
    }


@pytest.mark.parametrize("kind", ["jsonl", "jsonl.gz", "json", "csv", "parquet", "DataFrame", "Dataset", "list"])
def test_every_source_gives_the_same_rows(tmp_path, kind):
    table = read_table(sources(tmp_path)[kind])
    assert list(table.rows) == ROWS
    assert table.columns == ("prompt", "note")
    assert table.normalised == 0


@pytest.mark.parametrize("kind", ["parquet", "DataFrame", "Dataset", "list"])
def test_messages_and_missing_values_become_plain_python_values(tmp_path, kind):
    """Parquet read by pandas holds message lists as arrays of dictionaries, and None as NaN or None."""
    messages = [{"role": "user", "content": "Hi"}]
    frame = pd.DataFrame({"prompt": [messages, messages], "label": [0.5, None]})
    frame.to_parquet(tmp_path / "rows.parquet")
    source = {
        "parquet": tmp_path / "rows.parquet",
        "DataFrame": pd.read_parquet(tmp_path / "rows.parquet"),
        "Dataset": datasets.Dataset.from_parquet(str(tmp_path / "rows.parquet"), cache_dir=str(tmp_path / "cache")),
        "list": [{"prompt": np.array(messages), "label": np.float32(0.5)}, {"prompt": messages, "label": float("nan")}],
    }[kind]
    table = read_table(source)
    assert table.rows[0] == {"prompt": messages, "label": 0.5}
    assert type(table.rows[0]["prompt"]) is list and type(table.rows[0]["label"]) is float
    with pytest.raises(DataError, match=r"column 'label' has no value \(None or NaN\)"):
        cell(table.rows[1], "label")


def test_lines_are_named_as_an_editor_counts_them(tmp_path):
    """Blank lines are skipped but counted; a quoted CSV cell may span lines and is named by its first."""
    lines = read_table(write(tmp_path, "a.jsonl", '{"x": 1}\n\n{"x": 2}\r\n'))
    assert [lines.place(i) for i in range(2)] == ["a.jsonl line 1", "a.jsonl line 3"]
    records = read_table(write(tmp_path, "a.csv", 'x,y\n1,"two\nlines"\n\n3,4\n'))
    assert [records.place(i) for i in range(2)] == ["a.csv line 2", "a.csv line 5"]
    texts = read_table(write(tmp_path, "a.txt", "one\n\n two\u2028still two\n"), column="prompt")
    assert texts.place(1) == "a.txt line 3"
    assert [row["prompt"] for row in texts.rows] == ["one", " two\u2028still two"]
    assert read_table([{"x": 1}]).place(0) == "list row 0"


def test_selected_rows_keep_their_places():
    table = read_table([{"x": i} for i in range(5)]).select([3, 1])
    assert [table.place(i) for i in range(2)] == ["list row 3", "list row 1"]


def test_broken_lines_are_listed_together(tmp_path):
    """Twelve broken lines among thirteen: ten are shown, two are counted."""
    path = write(tmp_path, "bad.jsonl", '{"x": 1}\n' + '{"x": \n' * 12)
    with pytest.raises(DataError) as caught:
        read_table(path)
    message = str(caught.value)
    assert message.startswith("bad.jsonl: 12 unusable rows of 13.")
    assert "bad.jsonl line 2: not valid JSON" in message and "line 11" in message
    assert "line 12" not in message and "and 2 more" in message


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"x": 1}\n["y"]\n', r"a\.jsonl line 2: expected named columns, got list"),
        ("a.json", '{"x": [1, 2]}', r"a\.json: expected a list of rows, got a JSON dict"),
        ("a.json", '{"x": 1}\n{"x": 2}', r"One object per line is \.jsonl"),
        ("a.csv", "x,y\n1,2\n1,2,3\n", r"a\.csv line 3: 3 fields, but the header has 2"),
        ("a.csv", "x,x\n1,2\n", "columns appear twice: x"),
        ("a.csv", 'x\n"open\n', r"a\.csv line 2: not valid CSV"),
        ("a.csv", "", r"a\.csv is empty: no header line"),
        ("a.parquet", b"PAR1 not really", r"a\.parquet cannot be read"),
        ("a.jsonl.gz", b"not gzip", r"a\.jsonl\.gz cannot be read"),
        ("a.xlsx", b"", r"files of kind \.xlsx are not read\. Use \.jsonl"),
        ("a", b"", "files of kind without ending are not read"),
    ],
)
def test_unusable_files_are_refused(tmp_path, name, content, message):
    with pytest.raises(DataError, match=message):
        read_table(write(tmp_path, name, content))


def test_absent_files_and_odd_sources_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"gone\.jsonl does not exist \(looked from "):
        read_table(tmp_path / "gone.jsonl")
    with pytest.raises(DataError, match="is a folder; give a file in it"):
        read_table(tmp_path)
    with pytest.raises(DataError, match="cannot read data from generator"):
        read_table(row for row in ROWS)
    with pytest.raises(DataError, match=r"holds several splits \(train\)\. Choose one"):
        read_table(datasets.DatasetDict(train=datasets.Dataset.from_list(ROWS)))
    with pytest.raises(DataError, match="columns appear twice: x"):
        read_table(pd.DataFrame([[1, 2]], columns=["x", "x"]))
    with pytest.raises(DataError, match=r"list row 1: expected named columns, got str\. Rows are counted from 0"):
        read_table([{"x": 1}, "text"])


def test_a_folder_called_like_a_partition_adds_no_column(tmp_path):
    folder = tmp_path / "objective=helpful"
    folder.mkdir()
    pd.DataFrame({"x": [1]}).to_parquet(folder / "a.parquet")
    assert read_table(folder / "a.parquet").columns == ("x",)


def test_a_long_csv_cell_is_read_and_the_limit_of_the_csv_module_is_put_back(tmp_path):
    import csv

    before = csv.field_size_limit()
    table = read_table(write(tmp_path, "long.csv", "x\n" + "a" * 200_000 + "\n"))
    assert len(table.rows[0]["x"]) == 200_000
    assert csv.field_size_limit() == before


def test_characters_no_tokenizer_accepts_are_replaced_and_counted(tmp_path):
    """Line 1: an escaped lone surrogate and a NUL. Line 2: the two Latin-1 bytes E9 FC. A BOM is no character: 4."""
    content = b'\xef\xbb\xbf{"x": "a\\ud800b\\u0000"}\n{"x": "\xe9 \xfc"}\n'
    table = read_table(write(tmp_path, "odd.jsonl", content))
    assert [row["x"] for row in table.rows] == ["a\ufffdb\ufffd", "\ufffd \ufffd"]
    assert table.normalised == 4


def test_clean_text_joins_halves_and_leaves_replacement_characters_alone():
    """D83D DE00 is one emoji in two halves; a U+FFFD that was there before is not counted."""
    assert clean_text("\ud83d\ude00") == ("\U0001f600", 0)
    assert clean_text("\ude00\ud83d") == ("\ufffd\ufffd", 2)
    assert clean_text("\ufffd\x00") == ("\ufffd\ufffd", 1)
    assert clean_text("\ufeffplain") == ("\ufeffplain", 0)


@settings(max_examples=30)
@given(st.text(st.characters(codec=None, categories=("Cs", "Lu", "Zs", "Cc"))))
def test_clean_text_can_always_be_encoded_and_is_stable(text):
    cleaned, count = clean_text(text)
    cleaned.encode("utf-8")
    assert not has_unreadable(cleaned)
    assert clean_text(cleaned) == (cleaned, 0)
    assert (count == 0) or cleaned != text


def test_missing_columns_name_those_found_and_a_near_one():
    table = Table(name="prefs.jsonl", rows=({"prompt": "x", "choosen": "y"},), numbers=(1,), unit="line")
    with pytest.raises(DataError) as caught:
        table.require("chosen")
    expected = "prefs.jsonl: column 'chosen' is missing. Columns found: prompt, choosen. Did you mean 'choosen'?"
    assert str(caught.value) == expected
    with pytest.raises(DataError, match="empty: no rows found"):
        Table(name="none.csv", rows=(), numbers=()).require("chosen")


def test_importing_data_and_rewards_is_light():
    heavy = ("torch", "transformers", "datasets", "pandas", "pyarrow")
    code = f"import sys, moalign.data, moalign.rewards; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_empty_csv_cell_is_a_missing_value(tmp_path):
    """CSV has no null: without this an absent label would be the text '' and a further column would hold it."""
    table = read_table(write(tmp_path, "gaps.csv", "x,y\n1,\n,2\n"))
    assert list(table.rows) == [{"x": "1", "y": None}, {"x": None, "y": "2"}]
