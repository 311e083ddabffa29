"""Diagnoses of a real tiny study, from its records, on the command line, and with its models."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import moalign as ma
from moalign.cli import app
from moalign.data.pairs import PreferencePairs
from moalign.diagnostics import diagnose, diagnose_pairs, next_token_columns, pair_similarity, proxy_check
from moalign.errors import StoreError
from moalign.measures.states import ches
from moalign.policy.adapters import AdapterStack
from moalign.policy.engine import Engine
from moalign.store import Store, StudyStore
from tests.tiny import HELD_OUT, save_model, tiny_study


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("diagnose")
    held_out = [f"{text}{letter} " for text in HELD_OUT for letter in "abcd"]
    evaluation = ma.Evaluation(prompts=held_out, samples=2, max_new_tokens=6)
    ma.run(tiny_study(save_model(base / "model"), evaluation=evaluation), store=base / "runs")
    return base


@pytest.fixture
def records(folder: Path) -> StudyStore:
    return Store(folder / "runs").study("tiny")


def test_columns_say_what_the_generations_say(records: StudyStore) -> None:
    found = diagnose(records)
    front = found.front
    rows = [json.loads(line) for line in (records.trial_folder(0) / "generations.jsonl").read_text().splitlines()]
    ours = {(r["prompt_index"], r["sample"]): r for r in rows}
    base = (records.cache_folder("reference") / "generations.jsonl").read_text().splitlines()
    theirs = [json.loads(line) for line in base]
    wins = [
        (a["rewards"]["short"] > b["rewards"]["short"]) + 0.5 * (a["rewards"]["short"] == b["rewards"]["short"])
        for a in rows
        for b in theirs
        if a["prompt_index"] == b["prompt_index"]
    ]
    columns = front[0].columns
    assert columns["win_short"] == pytest.approx(np.mean(wins))
    assert columns["kl_k1"] == pytest.approx(np.mean([r["log_prob"] - r["reference_log_prob"] for r in rows]))
    assert columns["characters"] == pytest.approx(np.mean([len(r["response"]) for r in ours.values()]))
    assert 0 < columns["distinct_2"] <= 1 and columns["kl_k3"] >= 0 and 0 < columns["win_length_controlled"] < 1
    assert {"win_short", "self_bleu", "mean_tokens"} <= set(front.table().columns)
    assert found.reward_distances is not None and found.reward_distances.shape == (2, 2)
    assert found.reward_distances[0, 1] > 1  # more vowels come with more characters, which "short" dislikes


def test_the_command_prints_all_of_it(folder: Path, records: StudyStore) -> None:
    arguments = ["diagnose", "tiny", "--store", str(folder / "runs"), "--proxy", "vowels", "--held-out", "short"]
    shown = CliRunner().invoke(app, arguments)
    assert shown.exit_code == 0, shown.output
    assert "at equal length" in shown.stdout and "distance between rewards" in shown.stdout
    assert "vowels as a proxy of short: rank correlation" in shown.stdout
    assert max(map(len, shown.stdout.splitlines())) <= 80
    facts = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)
    assert [p["trial"] for p in facts["policies"]] == [0, 1, 2] and len(facts["reward_distances"]) == 2
    assert facts["proxy_check"]["choice"]["loss"] >= 0
    assert CliRunner().invoke(app, arguments[:-2]).exit_code == 2
    unknown = CliRunner().invoke(app, [*arguments[:-1], "nothing"])
    assert unknown.exit_code == 3 and "no objective nothing" in unknown.stderr


def test_a_proxy_of_itself_costs_nothing(records: StudyStore) -> None:
    front = diagnose(records).front
    check = proxy_check(front, "short", "short")
    assert check.choice.loss == 0 and check.correlation == pytest.approx(1)
    opposed = proxy_check(front, "vowels", "short")
    assert opposed.choice.chosen == front.F[:, 0].argmax() and opposed.choice.best == front.F[:, 1].argmax()


def test_without_generations_there_is_nothing_to_diagnose(tmp_path: Path, folder: Path) -> None:
    import shutil

    shutil.copytree(folder / "runs", tmp_path / "runs")
    records = Store(tmp_path / "runs").study("tiny")
    (records.trial_folder(1) / "generations.jsonl").unlink()
    with pytest.raises(StoreError, match="not kept"):
        diagnose(records)


def pairs() -> PreferencePairs:
    """The second label says that the response named rejected is the preferred one."""
    return PreferencePairs(
        prompts=tuple(HELD_OUT[:2]),
        chosen=("so it is", "no"),
        rejected=("it", "yes it is"),
        labels=np.array([0.9, 0.2]),
    )


def test_pairs_are_ranked_by_their_likelihood(folder: Path) -> None:
    engine = Engine(ma.Policy(str(folder / "model")), seed=0)
    start = AdapterStack.initial(engine.language_model.model, ma.LoRA(rank=2), 2, 0)
    data = pairs()
    found = diagnose_pairs(engine, start, data)
    texts = [*data.chosen, *data.rejected]
    log_probs = engine.log_probs(engine.encode([*data.prompts, *data.prompts], texts))[0]
    right = [log_probs[0] >= log_probs[2], log_probs[3] >= log_probs[1]]
    assert found.reference_accuracy == np.mean(right)
    for columns in found.columns:  # untrained adapters are the reference
        assert columns["ranking_accuracy"] == found.reference_accuracy and columns["displaced"] == 0
        assert columns["chosen_drift"] == pytest.approx(0, abs=1e-5)
        assert columns["alignment_gap"] == found.ideal.median - found.reference_accuracy


def test_similarity_uses_the_states_that_predict_the_responses(folder: Path) -> None:
    """Against the model's own last hidden states, from the last prompt token to the last but one of the response."""
    engine = Engine(ma.Policy(str(folder / "model")), seed=0, device="cpu")
    data, model = pairs(), engine.language_model.model
    found = pair_similarity(engine, data)
    for row in range(2):
        sums = []
        for text in (data.chosen[row], data.rejected[row]):
            encoded = engine.encode([data.prompts[row]], [text])
            prompt, completion = encoded.prompts[0], encoded.completions[0]
            with torch.no_grad():
                out = model(torch.tensor([[*prompt, *completion]]), output_hidden_states=True).hidden_states[-1]
            sums.append(out[:, len(prompt) - 1 : len(prompt) - 1 + len(completion)])
        whole = [torch.ones(s.shape[:2], dtype=torch.bool) for s in sums]
        wanted = ches(sums[0], whole[0], sums[1], whole[1]).normalised
        assert found[row] == pytest.approx(wanted.item(), rel=1e-4, abs=1e-4)


def test_next_tokens_of_a_random_model_are_nearly_uniform(folder: Path) -> None:
    engine = Engine(ma.Policy(str(folder / "model")), seed=0)
    stack = AdapterStack.initial(engine.language_model.model, ma.LoRA(rank=2), 1, 0)
    [columns] = next_token_columns(engine, stack, HELD_OUT, [["so it is", "no", "yes"]], k=5)
    assert 5 / engine.language_model.vocabulary < columns["top_k_mass"] < 1
    assert 0.8 * math.log(5) < columns["top_k_entropy"] <= math.log(5)
