"""The report of a data set: what it counts, how it prints, and the command that shows it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from moalign.cli import app
from moalign.data import DataReport, data_report, load_comparisons, load_pairs, load_prompts, load_votes
from moalign.data.report import contradictions, label_balance, level_balance, longer_preferred, votes_per_user
from moalign.errors import DataError

HOSTILE = "=x [red]\x1b[31m"


def pair(prompt, chosen, rejected, **columns):
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected, **columns}


PAIRS = [
    pair("p", "long", "no", user="u", label=1),
    pair("p", "no", "long", user="u", label=1),  # the same user the other way round
    pair("p", "long", "no", user="v", label=0.5),  # takes no side
    pair("q", "a", "bbb", user="v", label=1),
    pair("q", "bbb", "a", user="w", label=0),  # agrees with v: a is preferred
    pair("r", "x", "yy", user="w", label=0),
    pair("r", "x", "yy", user="x", label=1),  # two users disagree
]


def test_contradictions_labels_lengths_and_users_of_pairs():
    """p is contradicted by one user, r between two; q is not. Longer wins: p once of twice, q 0 of 2, r 1 of 2."""
    report = load_pairs(PAIRS).report
    assert (report.contradictory, report.self_contradictory) == (2, 1)
    assert report.balance == {"preferred": {"first": 4, "neither": 1, "second": 2}}
    assert report.longer_preferred == pytest.approx(2 / 6)
    assert (report.users, report.median_votes, report.users_with_few_votes) == (4, 2, 4)
    words = dict(report.lines())
    assert words["users"] == "4, 2 judgements in the median, 4 with fewer than 5"
    assert repr(report).startswith("<DataReport\n  data      7 pairs from list")
    assert json.loads(json.dumps(report.to_json(), allow_nan=False))["self_contradictory"] == 1


def test_the_report_belongs_to_the_content():
    """What is taken out of a data set is counted anew."""
    taken = load_pairs(PAIRS).select([0, 3]).report
    assert (taken.rows, taken.contradictory, taken.users, taken.sources) == (2, 0, 2, ("memory",))


def test_objectives_are_counted():
    rows = [pair("p", "a", "b", objective=name) for name in "xyx"]
    rows[2]["prompt"] = "q"
    assert load_pairs(rows).report.balance["objective"] == {"x": 2, "y": 1}


def test_comparisons_and_votes_have_reports_too():
    compared = load_comparisons(
        [{"user": u, "chosen": a, "rejected": b} for u, a, b in (("u", "tea", "milk"), ("u", "milk", "tea")) * 2]
    )
    report = data_report(compared)
    assert (report.kind, report.duplicates, report.self_contradictory, report.users) == ("comparisons", 2, 1, 1)
    votes = load_votes(
        [{"user": u, "statement": s, "vote": v} for u, s, v in (("u", "s", 1), ("v", "s", -1), ("v", "t", 0))]
    )
    report = data_report(votes)
    assert report.balance == {"vote": {"agree": 1, "pass": 1, "disagree": 1}}
    assert (report.contradictory, report.self_contradictory) == (1, 0)
    assert "1 statements judged in both directions" in report.remarks()


def test_the_kind_of_a_file_is_told_by_its_columns(tmp_path):
    rows = {
        "pairs": PAIRS,
        "comparisons": [{"user": "u", "chosen": "a", "rejected": "b"}],
        "votes": [{"user": "u", "statement": "s", "vote": 1}],
        "ratings": [{"response": "a", "score": 1}],
        "prompts": [{"prompt": "p"}],
    }
    for kind, content in rows.items():
        path = tmp_path / f"{kind}.jsonl"
        path.write_text("\n".join(map(json.dumps, content)))
        report = data_report(path)
        assert (report.kind, report.rows, report.sources) == (kind, len(content), (path.name,))
    assert data_report(["one", "two"]).kind == "prompts"
    assert data_report(load_prompts(["one"])).rows == 1
    with pytest.raises(DataError, match="no known kind of data. Columns found: text, score. Expected are chosen and"):
        data_report([{"text": "a", "score": 1}])


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 1), st.integers(0, 3)), max_size=12))
def test_contradictions_do_not_depend_on_the_order_of_rows_or_sides(rows):
    """Counted by brute force: an unordered pair with both directions among its votes."""
    judged = [(c, "a", "b", 1.0) if side else (c, "b", "a", 1.0) for c, side, _ in rows]
    users = [user for _, _, user in rows]
    counted = contradictions(judged, users)
    by_context = [{side for c, side, _ in rows if c == context} for context in range(3)]
    assert counted["contradictory"] == sum(len(sides) == 2 for sides in by_context)
    turned = [(c, second, first, 0.0) for c, first, second, _ in judged]
    assert contradictions(turned[::-1], users[::-1]) == counted


def test_the_counting_functions_on_nothing():
    assert contradictions([], []) == {"contradictory": 0, "self_contradictory": 0}
    assert votes_per_user([]) == {"users": 0, "median_votes": 0, "users_with_few_votes": 0}
    assert longer_preferred(["a"], ["b"], np.ones(1)) is None, "no two lengths differ"
    assert label_balance([]) == {"preferred": {}} and level_balance(np.array([np.nan])) == {}
    assert DataReport().lines() == [("data", "0 rows from memory")]


def run(*arguments):
    return CliRunner().invoke(app, ["data", *map(str, arguments)])


def test_the_command_prints_the_report_and_its_json(tmp_path):
    path = tmp_path / "prefs.jsonl"
    path.write_text("\n".join(map(json.dumps, [{**row, "objective": "o"} for row in PAIRS])))
    shown = run(path)
    assert shown.exit_code == 0
    assert "data    7 pairs from prefs.jsonl" in shown.stdout and "2 contradictory pairs kept" in shown.stdout
    assert "preferred: first 4 (57%)  neither 1 (14%)  second 2 (29%)" in shown.stdout
    found = json.loads(run(path, "--json").stdout)
    assert found["contradictory"] == 2 and found["problems"] == []
    assert json.loads(run(path, "--json", "--objective", "o").stdout)["kept"] == 7
    assert run(path, "--objective", "none").exit_code == 3


def test_the_command_takes_the_columns_that_hold_ratings(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_text(json.dumps({"response": "a", "note": "by hand", "good": 3, "fair": 1}))
    assert "column 'note' must be a finite number or empty" in run(path).stderr
    shown = run(path, "--attributes", "fair, good")
    assert shown.exit_code == 0 and "fair: 1 1 (100%)" in shown.stdout and "good: 3 1 (100%)" in shown.stdout
    assert "Did you mean 'good'" in run(path, "--attributes", "goood").stderr


def test_the_command_refuses_broken_rows_by_number(tmp_path):
    path = tmp_path / "prefs.csv"
    path.write_text("prompt,chosen,rejected\n" + "p,,b\n" * 14 + "q,a,b\n")
    refused = run(path)
    assert refused.exit_code == 3 and "14 unusable rows of 15" in refused.stderr
    assert "prefs.csv line 2: column 'chosen' has no value" in refused.stderr and "and 4 more" in refused.stderr
    problems = json.loads(run(path, "--json").stdout)["problems"]
    assert problems[0].startswith("prefs.csv: 14 unusable rows") and len(problems) == 12
    assert run(tmp_path / "absent.jsonl").exit_code == 3 and run().exit_code == 2


def test_names_from_the_data_cannot_run_in_the_terminal(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_text(json.dumps({"response": "a", HOSTILE: 1}))
    shown = run(path).stdout
    assert "\x1b" not in shown and "[red]" in shown
