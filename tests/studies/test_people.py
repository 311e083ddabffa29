"""The studies of people: persona preferences and Polis votes, tiny and made up, and a little of the real data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import moalign as ma
from moalign.data import Polis, Statements, load_votes, personas, toy
from moalign.demo import toy_facts
from moalign.figures import People
from studies import personas_pal, polis_groups, support_people

ROOT = Path(personas_pal.__file__).resolve().parents[1]


def statements(count: int, seed: int) -> Statements:
    """Returns made-up statements of two personas: vector (topic, attitude) plus noise, written as numbers."""
    rng = np.random.default_rng(seed)
    persona = tuple("ab"[i % 2] for i in range(count))
    agrees = np.arange(count) // 2 % 2 == 0
    points = np.stack([np.array(persona) == "a", agrees * 2 - 1], 1) + 0.1 * rng.normal(size=(count, 2))
    return Statements(texts=tuple(f"{x:.5f} {y:.5f}" for x, y in points), persona=persona, agrees=agrees)


def embed(texts: list[str]) -> np.ndarray:
    return np.array([[float(v) for v in text.split()] for text in texts])


SIZES = {"seen": 10, "new": 4, "answers": 30, "judged": 20, "flips": 0.05, "seed": 0}


def test_answers_follow_the_hidden_persona() -> None:
    """Own statements that are agreed with beat all others, which beat own ones that are not; no flips when clean."""
    train, test = statements(40, 0), statements(24, 1)
    population = personas_pal.draw(train, test, **{**SIZES, "flips": 0.0})  # type: ignore[arg-type]
    assert len(population.seen) == 300 and len(population.new) == 4 and population.ceiling == pytest.approx(0.8)
    assert {text for _, text in population.seen.items} <= set(train.texts)
    assert {text for _, text in population.seen_heldout.items} <= set(test.texts)
    own = {text: (name, 1 if agrees else -1) for text, name, agrees in zip(*train_columns(train), strict=True)}
    given = population.seen
    for u, a, b in zip(given.user, given.chosen, given.rejected, strict=True):
        persona = "ab"[population.groups[given.users[u]]]
        utility = [value if name == persona else 0 for name, value in (own[given.items[i][1]] for i in (a, b))]
        assert utility[0] > utility[1]


def train_columns(train: Statements) -> tuple[tuple[str, ...], tuple[str, ...], list[bool]]:
    return train.texts, train.persona, train.agrees.tolist()


def test_flipped_answers_have_their_share() -> None:
    train = statements(40, 0)
    clean, noisy = (
        personas_pal.draw(train, train, **{**SIZES, "flips": flips, "answers": 200}).seen  # type: ignore[arg-type]
        for flips in (0.0, 1.0)
    )
    assert [noisy.items[i] for i in noisy.rejected] == [clean.items[i] for i in clean.chosen]


def test_people_are_told_apart(tmp_path: Path) -> None:
    population = personas_pal.draw(statements(60, 0), statements(40, 1), **SIZES)  # type: ignore[arg-type]
    model = ma.rewards.IdealPoint(prototypes=2, steps=60, lift=32)
    found = personas_pal.study(population, model, embed, given=(5, 10), people=tmp_path)
    assert found.rand_index == 1.0 and found.seen > 0.9 and found.new[10] > 0.85
    assert "ARI 1.00" in str(found) and found.groups == 2
    people = People.load(tmp_path)
    assert people is not None and {user.group for user in people.users} == {"group 0", "group 1"}
    mean = np.mean([user.accuracy.value for user in people.users if user.accuracy])
    assert mean == pytest.approx(found.seen)  # everybody is judged on as many pairs
    single = personas_pal.study(population, ma.rewards.Mixture(groups=1, lift=32), embed, given=(5,))
    assert single.seen < found.seen


def votes() -> Polis:
    """Returns votes of 24 people in two groups, who agree on half of 30 statements and disagree on the others."""
    rng = np.random.default_rng(0)
    rows = []
    for u in range(24):
        for s in range(30):
            side = 1 if s < 15 else (-1) ** (u + s)
            rows.append({"user": f"town/{u}", "statement": f"s{s}", "vote": side if rng.random() > 0.05 else -side})
    found = load_votes(rows)
    groups = np.array([int(user.split("/")[1]) % 2 for user in found.users])
    return Polis(votes=found, groups=groups, conversation=("town",) * 24)


def test_votes_are_predicted_better_than_by_the_mean() -> None:
    split = polis_groups.build(votes(), least=25, new=0.2)
    assert len(split.new) == 5 and not set(split.heldout) & set(split.fitted)
    assert all(len(rows) == 30 for rows in split.new.values())
    found = polis_groups.study(split, polis_groups.model(prototypes=2, steps=100))
    assert found.seen > found.statement_mean + 0.1 and found.group_mean > found.statement_mean + 0.1
    assert found.new[20] > found.new_statement_mean + 0.1 and found.rand_index > 0.7
    assert "statement mean" in str(found) and "s1" not in str(found)


def test_the_mean_of_fitted_votes_alone_is_the_baseline() -> None:
    """Fitted votes of the key: +1, +1, -1 and nothing; the mean 1/3 counts for all of it, the other falls back."""
    data = load_votes([{"user": u, "statement": s, "vote": v} for u, s, v in (
        (1, "a", 1), (2, "a", 1), (3, "a", -1), (4, "a", -1), (1, "b", -1))])  # fmt: skip
    found = polis_groups.baseline(data, np.arange(3), data.statement, fallback=np.full(5, -2.0))
    assert found == pytest.approx([1 / 3] * 4 + [-2.0])


def test_absent_data_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert polis_groups.main(["--data", str(tmp_path)]) == 3
    assert "holds neither votes.parquet" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(not (ROOT / personas_pal.DATA).is_dir(), reason="needs the persona statements")
def test_a_few_real_statements() -> None:
    vectors = ROOT / "../shared/data/embeddings"
    if not vectors.is_dir():
        pytest.skip("needs embeddings of the statements")
    found = {}
    for split in ("train", "test"):
        ids = pd.read_parquet(vectors / f"personas_{split}_sample_rows.parquet")["id"]
        table = pd.read_parquet(ROOT / personas_pal.DATA / f"{split}.parquet").set_index("id").loc[ids]
        found |= dict(zip(table["statement"], np.load(vectors / f"personas_{split}_sample.npy"), strict=True))
    known = []
    for split in ("train", "test"):
        whole = personas(list(personas_pal.NAMES[:3]), split, ROOT / personas_pal.DATA)
        keep = [i for i, text in enumerate(whole.texts) if text in found]
        texts, persona = (tuple(column[i] for i in keep) for column in (whole.texts, whole.persona))
        known.append(Statements(texts=texts, persona=persona, agrees=whole.agrees[keep]))
    population = personas_pal.draw(*known, seen=12, new=3, answers=40, judged=20, flips=0.0, seed=0)
    model = ma.rewards.Mixture(groups=3, lift=64)
    result = personas_pal.study(population, model, lambda texts: np.stack([found[t] for t in texts]), given=(10,))
    assert result.seen > 0.6 and np.isfinite(result.new[10])


@pytest.mark.slow
@pytest.mark.skipif(not (ROOT / polis_groups.DATA).is_dir(), reason="needs the Polis conversations")
def test_a_real_conversation() -> None:
    split = polis_groups.build(conversations=["brexit-consensus"], least=30)
    found = polis_groups.study(split, polis_groups.model(prototypes=2, steps=60))
    assert found.seen > 0.7 and found.participants > 3


@pytest.mark.slow
def test_simulated_people_see_what_their_groups_gain(tmp_path: Path) -> None:
    study = support_people.build(people=12, answers=40, judged=4, weight_steps=1, steps=1, samples=2, name="few")
    front = ma.run(study, store=tmp_path)
    text = support_people.report(study, front, 0, people=12)
    people = People.load(tmp_path / "few")
    assert people is not None and {u.group for u in people.utilities} == {"thorough", "hurried", "courteous"}
    assert len(people.utilities) == 3 * 5 and text.count("|") == 1 + 3 * 5  # the base, three corners and the mean
    hidden = support_people.hidden_utilities(front[0].policy.records, toy_facts(), toy.annotators(12, 0))
    assert all(len(values) == 5 for values in hidden.values())
    assert abs(hidden["thorough"][0]) < 0.6  # the base is the zero of the standardised rewards
