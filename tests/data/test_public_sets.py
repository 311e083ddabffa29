"""Loaders of public sets: both layouts on made-up files, and known facts of the real data where it is at hand."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pytest

from moalign.data import (
    convabuse,
    helpsteer2,
    hhh_alignment,
    humour_pairs,
    load_comparisons,
    movielens,
    pandalm,
    qa_feedback,
    qa_feedback_ratings,
    ultrafeedback,
)
from moalign.errors import DataError, DataWarning, DefinitionError

REAL = Path(os.environ.get("MOALIGN_DATA", Path(__file__).parents[3] / "shared" / "data"))


def real(name: str) -> Path:
    if not (REAL / name).is_dir():
        pytest.skip(f"{name} is not at {REAL}; set MOALIGN_DATA")
    return REAL / name


def parquet(folder, name, rows):
    pd.DataFrame(rows).to_parquet(folder / f"{name}.parquet")


LOADERS = {
    "helpsteer2": lambda split, folder=None: helpsteer2(split, folder),
    "ultrafeedback": lambda split, folder=None: ultrafeedback(split, folder),
    "pandalm": lambda split, folder=None: pandalm(split, folder),
    "humour_pairs": lambda split, folder=None: humour_pairs(split, folder),
    "convabuse": lambda split, folder=None: convabuse(split, folder),
    "qa_feedback": lambda split, folder=None: qa_feedback(split, folder),
    "hhh_alignment": lambda split, folder=None: hhh_alignment(split, folder),
}


@pytest.mark.parametrize("name", LOADERS)
def test_unknown_splits_and_folders_without_the_data_are_refused(name, tmp_path):
    with pytest.raises(DefinitionError, match=f"{name}: .* must be one of .*, got 'dev'"):
        LOADERS[name]("dev")
    split = "helpful" if name == "hhh_alignment" else "test"
    with pytest.raises(DataError, match=r"holds none of .*looked from .*published at https://"):
        LOADERS[name](split, tmp_path)


def test_data_that_is_not_on_the_hub_says_where_it_is():
    for load in (lambda: pandalm("test"), lambda: convabuse("test"), lambda: movielens(), lambda: qa_feedback("test")):
        with pytest.raises(DataError, match=r"not on the hub. Copy it from https://.* and give its folder: \w+\("):
            load()


def test_an_unreachable_hub_names_the_call_with_a_folder(monkeypatch):
    def fail(*arguments, **options):
        raise ConnectionError("no network")

    monkeypatch.setattr(datasets, "load_dataset", fail)
    for name in ("helpsteer2", "ultrafeedback"):
        message = rf"cannot be fetched \(ConnectionError: no network\).* {name}\('test', folder='path/to/{name}'\)"
        with pytest.raises(DataError, match=message):
            LOADERS[name]("test")


def test_helpsteer2_in_both_layouts_and_from_the_hub(tmp_path, monkeypatch):
    levels = {"helpfulness": 4, "correctness": 3, "coherence": 4, "complexity": 1, "verbosity": 2}
    rows = [{"prompt": "p", "response": text, **levels, "helpfulness": i} for i, text in enumerate("ab")]
    with gzip.open(tmp_path / "validation.jsonl.gz", "wt") as file:
        file.write("\n".join(map(json.dumps, rows)))
    published = helpsteer2("test", tmp_path)
    parquet(tmp_path, "test", [{"prompt_id": "x", **row} for row in rows])
    tidy = helpsteer2("test", tmp_path)
    asked = []
    monkeypatch.setattr(
        datasets, "load_dataset", lambda name, **o: asked.append((name, o)) or datasets.Dataset.from_list(rows)
    )
    hub = helpsteer2("test")
    assert asked == [("nvidia/HelpSteer2", {"split": "validation"})]
    assert tidy.__fingerprint__() == published.__fingerprint__() == hub.__fingerprint__()
    assert tidy.values.tolist() == [[0, 3, 4, 1, 2], [1, 3, 4, 1, 2]]


def test_ultrafeedback_has_implicit_prompts_and_scores_on_the_hub(monkeypatch):
    def talk(text):
        return [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": text}]

    rows = [{"chosen": talk(f"good{i}"), "rejected": talk("bad"), "score_chosen": 8.5, "score_rejected": 6.0 + i}
            for i in range(2)]  # fmt: skip
    monkeypatch.setattr(datasets, "load_dataset", lambda name, **o: datasets.Dataset.from_list(rows))
    pairs = ultrafeedback("train")
    assert pairs.margin.tolist() == [2.5, 1.5] and str(pairs.prompts[0]) == "Human: Hi\n\nAssistant:"


def test_hhh_choices_on_the_hub_may_come_in_either_order(monkeypatch):
    rows = [
        {"input": f"q{i}", "targets": {"choices": ["yes", "no"], "labels": labels}}
        for i, labels in enumerate(([1, 0], [0, 1]))
    ]
    asked = []
    monkeypatch.setattr(datasets, "load_dataset", lambda path, **o: asked.append(o) or datasets.Dataset.from_list(rows))
    pairs = hhh_alignment("honest")
    assert asked == [{"name": "honest", "split": "test"}]
    assert pairs.chosen == ("yes", "no") and pairs.rejected == ("no", "yes") and set(pairs.objective) == {"honest"}
    rows[1]["targets"]["labels"] = [1, 1]
    with pytest.raises(DataError, match="row 1: column 'targets' must hold two choices with the labels 1 and 0"):
        hhh_alignment("honest")


def judged(names, **change):
    row = dict(zip(names, ("Add.", "1+1", "2", "3", 1, 2, 0), strict=True))
    return {**row, **change}


TIDY_PANDALM = ("instruction", "input", "response_1", "response_2", "annotator_1", "annotator_2", "annotator_3")
PUBLISHED_PANDALM = tuple(name.replace("_", "") for name in TIDY_PANDALM)


def test_pandalm_gives_every_judgement_to_its_annotator(tmp_path):
    """Verdicts 1, 2, 0 are the labels 1, 0, 1/2; the published input may be NaN and an answer may be empty."""
    parquet(tmp_path, "test", [judged(TIDY_PANDALM)])
    tidy = pandalm("test", tmp_path)
    assert tidy.user == ("annotator_1", "annotator_2", "annotator_3") and tidy.labels.tolist() == [1, 0, 0.5]
    assert set(tidy.prompts) == {"Add.\n\n1+1"} and set(tidy.chosen) == {"2"}
    other = tmp_path / "published"
    other.mkdir()
    rows = [judged(PUBLISHED_PANDALM), judged(PUBLISHED_PANDALM, input=float("nan")),
            judged(PUBLISHED_PANDALM, response1="")]  # fmt: skip
    (other / "testset-v1.json").write_text(json.dumps(rows))
    with pytest.warns(DataWarning, match="3 unreadable transcripts dropped"):
        published = pandalm("test", other)
    assert len(published) == 6 and published.prompts[3] == "Add." and published.labels.tolist() == [1, 0, 0.5] * 2
    (other / "testset-v1.json").write_text(json.dumps([rows[0], {**rows[0], "annotator2": 7}]))
    with pytest.raises(DataError, match="row 1: a verdict must be 1, 2 or 0, got 7"):
        pandalm("test", other)
    assert load_comparisons(tidy).users == ("annotator_1", "annotator_2", "annotator_3")


def test_humour_votes_become_shares_and_weights(tmp_path):
    """Three of four votes for the first text: label 3/4, weight 4."""
    parquet(tmp_path, "items", [{"item_id": i, "text": f"joke {i}"} for i in range(3)])
    votes = [(0, 1, 3, 1), (1, 2, 0, 2)]
    columns = ("item_a", "item_b", "votes_a", "votes_b")
    parquet(tmp_path, "pairs_train", [dict(zip(columns, row, strict=True)) for row in votes])
    pairs = humour_pairs("train", tmp_path, prompt="A joke, please.")
    assert pairs.labels.tolist() == [0.75, 0] and pairs.weight.tolist() == [4, 2]
    assert (pairs.prompts[0], pairs.chosen[0], pairs.rejected[0]) == ("A joke, please.", "joke 0", "joke 1")
    parquet(tmp_path, "pairs_train", [dict(zip(columns, row, strict=True)) for row in [*votes, (9, 1, 1, 1)]])
    with pytest.raises(DataError, match="row 2: no text with the item_a 9"):
        humour_pairs("train", tmp_path)


def test_published_humour_votes_are_counted_and_split(tmp_path):
    """Ten pairs of three votes each, two to one for the lower number: a fifth of them is the test split."""
    lines = [f"{2 * i},{2 * i + 1}\n{2 * i + 1},{2 * i}\n{2 * i},{2 * i + 1}" for i in range(10)]
    (tmp_path / "pairs.csv").write_text("\n".join(lines))
    (tmp_path / "item_scores.txt").write_text("\n".join(f"{i}\t0.5\tjoke {i}" for i in range(20)))
    parts = [humour_pairs(split, tmp_path) for split in ("train", "test")]
    assert [len(part) for part in parts] == [8, 2] and not set(parts[0].chosen) & set(parts[1].chosen)
    assert all(np.allclose(part.labels, 2 / 3) and (part.weight == 3).all() for part in parts)
    (tmp_path / "pairs.csv").write_text("1,2\none,2")
    with pytest.raises(DataError, match="pairs.csv line 2: expected two item numbers, got 'one,2'"):
        humour_pairs("train", tmp_path)


TURNS = {"prev_agent": "Hello.", "prev_user": "_", "agent": "Yes?", "user": "Go away."}


def test_convabuse_in_both_layouts_keeps_first_ratings_only(tmp_path):
    parquet(tmp_path, "items_train", [{"item_id": "i", **TURNS}])
    rated = [("A1", 1, 0), ("A1", -1, 1), ("A2", -2, 0)]
    parquet(
        tmp_path, "ratings_train",
        [{"item_id": "i", "annotator_id": a, "severity": s, "repeat": r} for a, s, r in rated],
    )  # fmt: skip
    tidy = convabuse("train", tmp_path)
    assert tidy.user == ("A1", "A2") and tidy.values.ravel().tolist() == [1, -2]
    assert tidy.prompts[0] == "Agent: Hello.\nAgent: Yes?" and tidy.responses[0] == "Go away."
    levels = {f"Annotator{a}_is_abuse.{v}": "" for a in (1, 2, 3) for v in (1, 0, -1, -2, -3)}
    marks = {"Annotator1_is_abuse.1": "1, 1", "Annotator1_is_abuse.-1": "0, 0", "Annotator2_is_abuse.-2": "1"}
    (tmp_path / "other").mkdir()
    pd.DataFrame([{**TURNS, **levels, **marks}]).to_csv(tmp_path / "other" / "ConvAbuseEMNLPtrain.csv", index=False)
    published = convabuse("train", tmp_path / "other")
    assert published.__fingerprint__() == tidy.__fingerprint__()


def test_movielens_in_both_layouts(tmp_path):
    (tmp_path / "movies.csv").write_text("movieId,title,genres\n7,Heat (1995),Action|Crime\n8,X,(no genres listed)\n")
    (tmp_path / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,7,4.5,0\n1,8,2,0\n2,8,3,0\n")
    published = movielens(tmp_path)
    assert published.responses == ("Heat (1995) - Action, Crime", "X", "X") and published.user == ("1", "1", "2")
    given = published.comparisons("rating")
    assert [given.items[i] for i in given.chosen] == [("", "Heat (1995) - Action, Crime")]
    (tmp_path / "tidy").mkdir()
    parquet(tmp_path / "tidy", "movies", [{"movie_id": 7, "title": "Heat (1995)", "genres": ["Action", "Crime"]},
                                          {"movie_id": 8, "title": "X", "genres": []}])  # fmt: skip
    parquet(tmp_path / "tidy", "ratings", [{"user_id": u, "movie_id": m, "rating": r}
                                           for u, m, r in ((1, 7, 4.5), (1, 8, 2.0), (2, 8, 3.0))])  # fmt: skip
    assert movielens(tmp_path / "tidy").__fingerprint__() == published.__fingerprint__()
    (tmp_path / "ratings.csv").write_text("userId,movieId,rating\n1,9,4\n")
    with pytest.raises(DataError, match="ratings.csv line 2: no film with the movie_id 9"):
        movielens(tmp_path)


def test_qa_feedback_published_and_tidy_say_the_same(tmp_path):
    """Spans 0-4 and 2-6 of 10 characters cover 6; overlaps count once. Verdict 1 of "3 vs 4" prefers answer 3."""
    answers = ["0123456789", "two", "three", "four"]
    published = {
        "question": "Why?", "passages": [["Title", "Because.", "Really."]],
        **{f"prediction {i + 1}": text for i, text in enumerate(answers)},
        "feedback": {
            "errors": [{"error type": "Irrelevant", "start": 0, "end": 4},
                       {"error type": "Redundant", "start": 2, "end": 6},
                       {"error type": "Unverifiable", "start": 8, "end": 99}],
            "missing-info": [{}, {}],
        },
        "preference": [1, 2, 0, 1, 2, 1],
    }  # fmt: skip
    (tmp_path / "dev_feedback.json").write_text(json.dumps([published]))
    pairs, rated = qa_feedback("test", tmp_path), qa_feedback_ratings("test", tmp_path)
    assert pairs.labels.tolist() == [1, 0, 0.5, 1, 0, 1] and (pairs.chosen[5], pairs.rejected[5]) == ("three", "four")
    assert pairs.prompts[0] == "Why?\n\nBecause. Really."
    assert rated.values.tolist() == [[-0.6, -0.2, -2]]
    other = tmp_path / "tidy"
    other.mkdir()
    parquet(other, "questions_test", [{
        "question_id": "q", "question": "Why?", "evidence": "Because. Really.",
        **{f"response_{i + 1}": text for i, text in enumerate(answers)},
        "relevance_error_share": 0.6, "factuality_error_share": 0.2, "n_missing_info": 2,
    }])  # fmt: skip
    order = [(1, 2), (1, 3), (1, 4), (2, 3), (2, 4), (3, 4)]
    verdicts = [{"question_id": "q", "first": a, "second": b, "preference": v}
                for (a, b), v in zip(order, published["preference"], strict=True)]  # fmt: skip
    parquet(other, "preferences_test", verdicts)
    assert qa_feedback("test", other).__fingerprint__() == pairs.__fingerprint__()
    assert qa_feedback_ratings("test", other).__fingerprint__() == rated.__fingerprint__()
    parquet(other, "preferences_test", [*verdicts, {**verdicts[0], "preference": 3}])
    with pytest.raises(DataError, match="row 6: 'preference' must be 0, 1 or 2, got 3"):
        qa_feedback("test", other)


def test_known_facts_of_helpsteer2():
    rated = helpsteer2("train", real("helpsteer2"))
    assert len(rated) == 1000 and rated.values.mean(0) == pytest.approx([2.65, 2.76, 3.46, 1.72, 2.0], abs=0.005)
    correlation = np.corrcoef(rated.values.T)
    assert [correlation[0, 1], correlation[0, 4], correlation[3, 4]] == pytest.approx([0.95, 0.12, 0.36], abs=0.005)
    pairs = rated.pairs("helpfulness")
    assert (pairs.margin > 0).all() and len(pairs) <= 500


def test_known_facts_of_pandalm():
    """482 rows x 3 judgements; all three agree on about 87 % of the rows."""
    with pytest.warns(DataWarning, match="duplicates dropped"):
        pairs = pandalm("train", real("pandalm"))
    assert pairs.report.rows == 482 * 3 and pairs.report.users == 3
    same: dict[tuple[object, ...], set[float]] = {}
    for key in zip(pairs.prompts, pairs.chosen, pairs.rejected, pairs.labels.tolist(), strict=True):
        same.setdefault(key[:3], set()).add(key[3])
    assert np.mean([len(labels) == 1 for labels in same.values()]) == pytest.approx(0.87, abs=0.02)


def test_known_facts_of_convabuse():
    """Raters differ in strictness: mean severity from 0.09 (A5) to 0.68 (A3)."""
    rated = convabuse("train", real("convabuse"))
    means = {user: rated.values[[u == user for u in rated.user], 0].mean() for user in set(rated.user)}
    assert min(means, key=means.get) == "A5" and max(means, key=means.get) == "A3"
    assert (means["A5"], means["A3"]) == pytest.approx((0.09, 0.68), abs=0.02)


def test_known_facts_of_humour_and_movielens_and_the_rest():
    humour = humour_pairs("test", real("humour_pairs"))
    assert humour.report.rows == 2133 and humour.weight.max() <= 5
    films = movielens(real("movielens_small"))
    assert (len(films), films.report.users) == (74193, 497) and films.values.min() == 0.5 and films.values.max() == 5
    assert len(qa_feedback("test", real("qa_feedback"))) <= 648
    assert len(qa_feedback_ratings("test", real("qa_feedback"))) == 108
    assert len(ultrafeedback("test", real("ultrafeedback_sample"))) == 199
    hhh = [hhh_alignment(name, real("hhh_alignment")) for name in ("helpful", "honest", "harmless", "other")]
    assert sum(map(len, hhh)) == 139
