"""Learned rewards from texts to folders: what comes back from disk scores the same, and is an objective's reward."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

import moalign as ma
from moalign.data.ratings import Ratings
from moalign.errors import ArtefactError, DataError, DefinitionError, ModelError
from moalign.rewards import (
    BradleyTerry,
    Embedding,
    FineTuning,
    LearnedRewards,
    Regression,
    RewardModel,
    fit_reward_model,
    load_rewards,
)
from moalign.store import describe
from tests.rewards.test_reward_model import build, byte_tokenizer

WORDS = "plain even some other thing about many more words than these could ever say".split()


def texts(n: int, seed: int = 0) -> tuple[list[str], list[str]]:
    """Returns prompts and responses that are all different."""
    random = np.random.default_rng(seed)
    return [f"question {i}" for i in range(n)], [" ".join(random.choice(WORDS, 4)) + f" {i}" for i in range(n)]


def table(prompts: Any, responses: Any, attributes: tuple[str, ...], values: np.ndarray) -> Ratings:
    return Ratings(prompts=prompts, responses=responses, attributes=attributes, values=values)


def vowels(responses: list[str]) -> np.ndarray:
    return np.array([sum(c in "aeiou" for c in r) for r in responses], dtype=float)


def pairs_of(n: int = 60, objective: bool = False) -> ma.PreferencePairs:
    prompts, first = texts(n)
    _, second = texts(n, seed=1)
    labels = (vowels(first) > vowels(second)) * 1.0
    names = tuple("vowels" if i % 2 else "longer" for i in range(n)) if objective else None
    if objective:
        longer = np.array([len(a) > len(b) for a, b in zip(first, second, strict=True)], dtype=float)
        labels = np.where(np.arange(n) % 2, labels, longer)
    return ma.PreferencePairs(
        prompts=tuple(prompts), chosen=tuple(first), rejected=tuple(second), labels=labels, objective=names
    )


def ratings_of(n: int = 80) -> Ratings:
    prompts, responses = texts(n)
    values = np.stack([vowels(responses), [float(len(r)) for r in responses]], axis=1)
    values[::4, 0] = np.nan
    return table(tuple(prompts), tuple(responses), ("vowels", "length"), values)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("models")
    return {family: build(place / family, family) for family in ("bert", "llama", "roberta")}


def test_pairs_of_several_objectives_become_rewards_by_name(folders: dict[str, Path]) -> None:
    data = pairs_of(objective=True)
    learned = fit_reward_model(data, Embedding(folders["bert"], cache=False), how=BradleyTerry(penalties=(1e-3,)))
    assert list(learned) == ["longer", "vowels"] and repr(learned) == "<LearnedRewards longer, vowels on 16 features>"
    for k, name in enumerate(learned):
        rows = [i for i, o in enumerate(data.objective or ()) if o == name]
        prompts = [str(data.prompts[i]) for i in rows]
        sides = [learned[name](prompts, [side[i] for i in rows]) for side in (data.chosen, data.rejected)]
        assert ((sides[0] > sides[1]) == (data.labels[rows] > 0.5)).mean() > 0.75
        together = learned(prompts, [data.chosen[i] for i in rows])
        assert together[:, k] == pytest.approx(sides[0], abs=1e-5)
    with pytest.raises(DefinitionError, match="no reward 'brief'; there are longer, vowels"):
        learned["brief"]


def test_a_learned_reward_stands_in_an_objective_and_has_a_fingerprint(folders: dict[str, Path]) -> None:
    embedding = Embedding(folders["bert"], cache=False)
    reward = fit_reward_model(pairs_of(), embedding, how=BradleyTerry(penalties=(1.0,)))["reward"]
    objective = ma.Objective("vowels", reward=reward)
    assert ma.rewards.score(objective.reward, ["q"], ["aeiou"], name="vowels").shape == (1,)
    again = fit_reward_model(pairs_of(), embedding, how=BradleyTerry(penalties=(1.0,)))["reward"]
    other = fit_reward_model(pairs_of(), embedding, how=BradleyTerry(penalties=(9.0,)))["reward"]
    assert describe(reward) == describe(again) != describe(other)
    reward.check()


def test_objectives_with_many_pairs_do_not_change_the_others(folders: dict[str, Path]) -> None:
    embedding, how = Embedding(folders["bert"], cache=False), BradleyTerry(penalties=(1.0,))
    small, large = pairs_of(20), pairs_of(60)
    both = fit_reward_model({"small": small, "large": large}, embedding, how=how)
    alone = fit_reward_model(small, embedding, how=how)["reward"]
    assert both["small"].weights == pytest.approx(alone.weights, rel=1e-3)


def test_ratings_with_gaps_and_pairs_that_start_from_them(folders: dict[str, Path]) -> None:
    embedding, rated = Embedding(folders["bert"], cache=False), ratings_of()
    learned = fit_reward_model(rated, embedding, how=Regression(penalties=(1.0,)))
    found = learned(list(rated.prompts), list(rated.responses))
    assert np.corrcoef(found[:, 1], rated.values[:, 1])[0, 1] > 0.6
    started = fit_reward_model({"vowels": pairs_of()}, embedding, how=BradleyTerry(penalties=(1e9,)), start=learned)
    cosine = np.corrcoef(started["vowels"].weights, learned["vowels"].weights)[0, 1]
    assert cosine > 0.999
    other = Embedding(folders["bert"], normalize=True, cache=False)
    with pytest.raises(DefinitionError, match="rewards on the same embedding"):
        fit_reward_model({"vowels": pairs_of()}, other, start=learned)
    with pytest.raises(DefinitionError, match="start needs pairs"):
        fit_reward_model(rated, embedding, start=learned)
    with pytest.raises(DefinitionError, match="pairs are fitted by BradleyTerry, got how=Regression"):
        fit_reward_model(pairs_of(), embedding, how=Regression())
    with pytest.raises(DataError, match="'vowels' is never rated"):
        fit_reward_model(table(None, rated.responses, ("vowels",), np.full((80, 1), np.nan)), embedding)


def test_responses_that_stand_alone_are_embedded_alone(folders: dict[str, Path]) -> None:
    rated = ratings_of()
    alone = table(None, rated.responses, rated.attributes, rated.values)
    embedding = Embedding(folders["bert"], cache=False)
    learned = fit_reward_model(alone, embedding, how=Regression(penalties=(1.0,)))
    by_hand = embedding(rated.responses) @ learned.weights.T + learned.bias
    assert learned(["anything"] * 80, list(rated.responses)) == pytest.approx(by_hand, abs=1e-4)


@pytest.mark.parametrize(("family", "pooling"), [("llama", None), ("bert", "pooler")])
def test_an_exported_folder_is_an_ordinary_reward_model_with_equal_scores(
    tmp_path: Path, folders: dict[str, Path], family: str, pooling: str | None
) -> None:
    embedding, rated = Embedding(folders[family], pooling=pooling, cache=False), ratings_of()
    learned = fit_reward_model(rated, embedding, how=Regression(penalties=(1.0,)))
    exported = learned.export(tmp_path / "rm")
    prompts, responses = list(rated.prompts), list(rated.responses)
    scores = learned(prompts, responses)
    for k, name in enumerate(("vowels", "length")):
        assert exported[name](prompts, responses) == pytest.approx(scores[:, k], rel=1e-4, abs=1e-3)
        assert (
            RewardModel(tmp_path / "rm", index=k)(prompts, responses).tolist()
            == exported[name](prompts, responses).tolist()
        )
    config = json.loads((tmp_path / "rm" / "config.json").read_text())
    assert config["id2label"] == {"0": "vowels", "1": "length"}
    plain = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "rm").eval()
    ids = byte_tokenizer(family, "<pad>")(*(["q", "abc"] if family == "bert" else ["qabc"]))
    with torch.no_grad():
        logits = plain(**{name: torch.tensor([value]) for name, value in ids.items()}).logits[0].double().numpy()
    offsets = np.array(config.get("reward_offsets", [0, 0]))
    assert logits + offsets == pytest.approx(learned(["q"], ["abc"])[0], rel=1e-3)
    with pytest.raises(ArtefactError, match="is not empty"):
        learned.export(tmp_path / "rm")


def test_what_a_classification_model_cannot_hold_is_refused(tmp_path: Path, folders: dict[str, Path]) -> None:
    how = Regression(penalties=(1.0,))
    mean = fit_reward_model(ratings_of(), Embedding(folders["bert"], cache=False, normalize=True), how=how)
    with pytest.raises(DefinitionError) as caught:
        mean.export(tmp_path / "x")
    assert "read 'pooler'" in str(caught.value) and "length 1" in str(caught.value) and "Use save" in str(caught.value)
    body = transformers.AutoModel.from_config(transformers.AutoConfig.from_pretrained(folders["roberta"]))
    pooled = Embedding(body, tokenizer=byte_tokenizer("roberta", "<pad>"), pooling="pooler", cache=False)
    roberta = fit_reward_model(ratings_of(), pooled, how=how)
    with pytest.raises(DefinitionError, match="no single linear head on the pooled vector"):
        roberta.export(tmp_path / "x")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("kept", ["folder", "copy", "memory"])
def test_a_saved_folder_comes_back_with_equal_scores(tmp_path: Path, folders: dict[str, Path], kept: str) -> None:
    source: dict[str, Any] = {"source": folders["bert"]}
    if kept == "memory":
        source = {"source": transformers.AutoModel.from_pretrained(folders["bert"])}
        source["tokenizer"] = transformers.AutoTokenizer.from_pretrained(folders["bert"])
    embedding, rated = Embedding(**source, normalize=True, cache=False), ratings_of(40)
    learned = fit_reward_model(rated, embedding, how=Regression(penalties=(1.0,)))
    learned.save(tmp_path / "r", copy_trunk=kept == "copy")
    back = load_rewards(tmp_path / "r", cache=False)
    assert isinstance(back, LearnedRewards) and back.names == learned.names and back.penalties == (1.0, 1.0)
    prompts, responses = list(rated.prompts), list(rated.responses)
    assert back(prompts, responses) == pytest.approx(learned(prompts, responses), abs=1e-4)
    assert (tmp_path / "r" / "trunk").is_dir() == (kept != "folder")


def test_damage_and_another_trunk_are_noticed(tmp_path: Path, folders: dict[str, Path]) -> None:
    trunk = build(tmp_path / "trunk", "bert", seed=5)
    learned = fit_reward_model(ratings_of(40), Embedding(trunk, cache=False), how=Regression(penalties=(1.0,)))
    learned.save(tmp_path / "r")
    with pytest.raises(ModelError, match="another model than the one the heads"):
        load_rewards(tmp_path / "r", trunk=folders["bert"])
    build(tmp_path / "moved", "bert", seed=5)
    assert load_rewards(tmp_path / "r", trunk=tmp_path / "moved").names == ("vowels", "length")
    content = (tmp_path / "r" / "heads.safetensors").read_bytes()
    (tmp_path / "r" / "heads.safetensors").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ArtefactError, match="heads.safetensors does not match its SHA-256"):
        load_rewards(tmp_path / "r")


@pytest.mark.parametrize("family", ["llama", "bert"])
def test_fine_tuning_learns_what_the_frozen_trunk_does_not_show(tmp_path: Path, family: str) -> None:
    """Which of two responses has the letter z: a random trunk's vectors hardly tell, trained adapters do."""
    folder = build(tmp_path / "m", family, spread=0.08)
    before = (folder / "model.safetensors").read_bytes()
    random = np.random.default_rng(0)
    plain = ["".join(random.choice(list("abcde"), 6)) for _ in range(240)]
    marked = [t[: i % 6] + "z" + t[i % 6 + 1 :] for i, t in enumerate(plain)]
    pairs = [(f"p{i}", marked[i], plain[(i + 7) % 240]) for i in range(240)]
    prompts, chosen, rejected = zip(*pairs, strict=True)
    first = np.arange(240) % 2 == 0  # which side comes first must not matter
    data = ma.PreferencePairs(
        prompts=prompts[:160],
        chosen=tuple(np.where(first, chosen, rejected)[:160].tolist()),
        rejected=tuple(np.where(first, rejected, chosen)[:160].tolist()),
        labels=first[:160].astype(float),
    )
    embedding = Embedding(folder, pooling="mean", cache=False, batch_size=64)
    how = BradleyTerry(penalties=(10.0,))
    settings = FineTuning(
        steps=60, batch_size=16, learning_rate=2e-2, head_learning_rate=1e-2, lora=ma.LoRA(rank=4, alpha=8.0)
    )
    tuned = fit_reward_model(data, embedding, how=how, finetune=settings)["reward"]
    frozen = fit_reward_model(data, embedding, how=how)["reward"]
    held = list(prompts[160:]), list(chosen[160:]), list(rejected[160:])

    def accuracy(reward: Any) -> float:
        return float((reward(held[0], held[1]) > reward(held[0], held[2])).mean())

    assert accuracy(tuned) > 0.9 and accuracy(tuned) >= accuracy(frozen)
    assert (folder / "model.safetensors").read_bytes() == before
    learned = fit_reward_model(data, embedding, how=how)
    assert learned["reward"].weights == pytest.approx(frozen.weights), "the trunk that was given is unchanged"


def test_fine_tuning_that_does_not_help_ends_where_it_began(folders: dict[str, Path]) -> None:
    """A learning rate that destroys everything: the start has the smallest held-out loss, so it is kept."""
    rated = ratings_of(40)
    embedding = Embedding(folders["bert"], cache=False)
    settings = FineTuning(steps=3, learning_rate=50.0, head_learning_rate=10.0, evaluations=3)
    tuned = fit_reward_model(rated, embedding, how=Regression(penalties=(1.0,)), finetune=settings)
    vectors = embedding(rated.prompts, rated.responses)
    assert tuned.embedding(rated.prompts, rated.responses) == pytest.approx(vectors, abs=1e-5)
    with pytest.raises(DefinitionError, match="validation must be in \\(0, 1\\), got 1.0"):
        FineTuning(validation=1.0)
    with pytest.raises(DefinitionError, match="steps must be a whole number >= 1"):
        FineTuning(steps=0)


def test_pairs_of_one_text_and_wrong_kinds_of_data_are_refused(folders: dict[str, Path]) -> None:
    embedding = Embedding(folders["bert"], cache=False)
    same = ma.PreferencePairs(prompts=("p", "p"), chosen=("a", "a"), rejected=("a", "a"), labels=np.ones(2))
    with pytest.raises(DefinitionError, match="learned from PreferencePairs or ratings, got list"):
        fit_reward_model([1], embedding)  # type: ignore[arg-type]
    with pytest.raises(DefinitionError, match="the pairs of 'x' must be PreferencePairs, got list"):
        fit_reward_model({"x": []}, embedding)  # type: ignore[dict-item]
    with pytest.raises(DataError, match="all 2 pairs of 'reward' compare a response with itself"):
        fit_reward_model(same, embedding)
