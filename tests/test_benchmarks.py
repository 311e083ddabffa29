"""The benchmarks measure what they say, refuse to time different computations, and print what they promise."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import (
    ablation,
    common,
    decode,
    front,
    gpu,
    head,
    memory,
    on_policy,
    one_token,
    oracle,
    startup,
    sweep,
    workload,
)
from benchmarks import elicit as elicitation
from benchmarks import methods as method_shares
from benchmarks import search as searches
from benchmarks import tuning as tunings
from benchmarks.common import Disagreement, Options, Row, Stretches, agree, interleaved, ratio

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted(f.stem for f in (ROOT / "benchmarks").glob("*.py") if "__main__" in f.read_text())
FIELDS = {"what", "peer", "value", "low", "high", "floor"}


def well_formed(rows: list[Row]) -> bool:
    return bool(rows) and all(row.what and row.peer and 0 < row.low <= row.value <= row.high for row in rows)


# ------------------------------------------------------------------------------------------------ how it is measured


def test_a_ratio_is_taken_within_each_round() -> None:
    """Rounds (6, 2), (30, 10), (4, 2) of seconds give 3, 3, 2: the slow middle round does not count more.

    Medians taken first would give 6 / 2 as well, but a mean of times 40 / 14; with share 4 all ratios are fourfold.
    """
    row = ratio("work", "peer", theirs=[6.0, 30.0, 4.0], ours=[2.0, 10.0, 2.0], floor=2.5)
    assert (row.value, row.low, row.high, row.verdict) == (3.0, 2.0, 3.0, "holds")
    assert ratio("work", "peer", [6.0], [2.0], floor=12.5, share=4).value == 12.0


def test_a_missed_floor_is_said() -> None:
    missed = Row("work", "peer", 1.9, 1.8, 2.1, floor=2.0)
    assert missed.verdict == "BELOW" and "BELOW" in common.table([missed])
    assert Row("work", "peer", 1.9, 1.8, 2.1).verdict == ""


def test_competitors_take_turns_in_rotating_order() -> None:
    """Two works, one warm-up and three rounds: a b | a b | b a | a b."""
    calls: list[str] = []
    works: dict[str, Callable[[], Any]] = {name: (lambda name=name: calls.append(name)) for name in "ab"}
    seconds = interleaved(works, rounds=3)
    assert calls == list("ababbaab")
    assert {name: len(values) for name, values in seconds.items()} == {"a": 3, "b": 3}


@pytest.mark.parametrize("theirs", [[1.0, 2.2], [1.0], [], [1.0, float("nan")]])
def test_different_numbers_are_not_timed(theirs: list[float]) -> None:
    with pytest.raises(Disagreement, match="Nothing was timed"):
        agree("losses", [1.0, 2.0] if theirs else [], theirs, tolerance=0.1)


def test_near_numbers_agree() -> None:
    agree("losses", [1.0, 2.0], [1.05, 1.95], tolerance=0.1)


# ------------------------------------------------------------------------------------------------- loops in stretches


def test_a_loop_goes_on_from_pause_to_pause() -> None:
    seen: list[Any] = []

    def work(pause: Callable[[], None]) -> None:
        for step in range(3):
            seen.append(step)
            pause()

    one, two = Stretches(work), Stretches(work)
    for part in (one, two, one, one, two, two):
        part()
    assert seen == [0, 0, 1, 2, 1, 2]
    one()  # past the last pause, to the end
    with pytest.raises(RuntimeError, match="over"):
        one()
    two.close()


def test_an_error_in_a_stretch_reaches_the_caller() -> None:
    def work(pause: Callable[[], None]) -> None:
        pause()
        raise ValueError("step 2")

    stretches = Stretches(work)
    stretches()
    with pytest.raises(ValueError, match="step 2"):
        stretches()


def test_closed_stretches_leave_no_thread() -> None:
    before = threading.active_count()

    def work(pause: Callable[[], None]) -> None:
        while True:
            pause()

    with common.all_closed({"started": Stretches(work), "never started": Stretches(work)}) as works:
        works["started"]()
        assert threading.active_count() == before + 2
    assert threading.active_count() == before


# ------------------------------------------------------------------------------------------------- what is printed


def test_json_is_all_that_json_mode_prints(capsys: pytest.CaptureFixture[str]) -> None:
    def measure(options: Options) -> list[Row]:
        print("a library says hello")
        return [Row("work", "peer", 2.0, 1.5, 2.5, 1.0), Row("work", "other peer", 2.0, 1.5, 2.5)]

    common.run(measure, Options(as_json=True, quick=True))
    out, err = capsys.readouterr()
    rows = json.loads(out)
    assert [set(row) for row in rows] == [FIELDS, FIELDS] and rows[1]["floor"] is None
    assert "hello" in err and "1 thread" in err and "seed 0" in err

    common.run(measure, Options())
    out, err = capsys.readouterr()
    assert "holds" in out and "1 thread" in out and "hello" not in out


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_takes_quick_and_json(script: str) -> None:
    module = importlib.import_module(f"benchmarks.{script}")
    assert callable(module.measure)
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{script}", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "--quick" in done.stdout and "--json" in done.stdout and "--threads" in done.stdout


def test_the_scripts_are_known() -> None:
    assert {
        "ablation",
        "decode",
        "gpu",
        "memory",
        "on_policy",
        "oracle",
        "search",
        "startup",
        "sweep",
        "tuning",
    } <= set(SCRIPTS)


@pytest.mark.slow
def test_the_oracle_script_for_real() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.oracle", "--quick", "--json", "--rounds", "1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    rows = json.loads(done.stdout)
    assert len(rows) >= 9 and all(set(row) == FIELDS for row in rows)
    assert well_formed([Row(**row) for row in rows])


# ----------------------------------------------------------------------------------------------- what each one does


def test_words_are_tokens() -> None:
    """Word t<i> is token i; lengths are as asked, the stop token counted."""
    words = workload.tokenizer(96)
    pairs = workload.pairs(5, 96, prompt=(3, 4), response=(2, 2), seed=1)
    for pair in pairs:
        assert words(workload.text(pair.prompt))["input_ids"] == list(pair.prompt)
        assert 3 <= len(pair.prompt) <= 4 and len(pair.chosen) == 2 and pair.chosen[-1] == workload.EOS
    assert pairs == workload.pairs(5, 96, prompt=(3, 4), response=(2, 2), seed=1)
    assert pairs != workload.pairs(5, 96, prompt=(3, 4), response=(2, 2), seed=2)


def test_startup_rows_on_a_cheap_peer() -> None:
    rows = startup.startup_rows([sys.executable, "-c", "pass"], rounds=1)
    assert well_formed(rows) and [row.floor for row in rows] == [25.0, 25.0, 1.0]
    assert "0.2 s" in rows[-1].peer
    assert rows[-1].value == pytest.approx(rows[-1].low)


def test_a_failing_process_is_not_timed() -> None:
    with pytest.raises(RuntimeError, match="no such thing"):
        startup.child_seconds([sys.executable, "-c", "raise SystemExit('no such thing')"])


def test_oracle_rows_on_few_weights() -> None:
    rows = oracle.oracle_rows(objectives=3, rounds=1, seed=0, weights=40, prompts=8)
    assert well_formed(rows) and [row.floor for row in rows] == [4.0, 2.0]


def test_a_wrong_oracle_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    right = oracle.numpy_loop
    monkeypatch.setattr(oracle, "numpy_loop", lambda *arguments: right(*arguments[:3], 2 * oracle.BETA))
    with pytest.raises(Disagreement, match="numpy"):
        oracle.oracle_rows(objectives=2, rounds=1, seed=0, weights=10, prompts=4)


def test_front_rows_on_few_points() -> None:
    rows = front.direct_rows(objectives=3, count=50, rounds=1, seed=0, repeats=1)
    rows += [front.archive_row(objectives=2, size=30, rounds=2, seed=0, floor=40.0), *front.history_rows(1, 0, 200)]
    assert well_formed(rows) and len(rows) == 8 and rows[0].floor == pytest.approx(1 / 1.2)


@pytest.mark.slow
def test_decode_rows_on_a_tiny_model() -> None:
    rows = decode.decode_rows("tiny", policies=3, tokens=5, rounds=1, seed=0)
    assert well_formed(rows) and [row.floor for row in rows] == [2.5, None]


@pytest.mark.slow
def test_a_decoder_that_differs_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import peers

    monkeypatch.setattr(peers, "merged_models", lambda model, deltas: [model] * len(deltas))
    with pytest.raises(Disagreement, match=r"policies \[0, 1\]"):
        decode.decode_rows("tiny", policies=2, tokens=5, rounds=1, seed=0)


@pytest.mark.slow
def test_step_rows_on_a_tiny_model() -> None:
    """All peers compute moalign's losses, in every case that this version takes part in."""
    pytest.importorskip("trl")
    pytest.importorskip("peft")
    for case in sweep.cases(workload.SIZES["tiny"]):
        rows = sweep.step_rows(case, "tiny", policies=2, rounds=1, seed=0)
        assert well_formed(rows) and {row.peer: row.floor for row in rows} == case.floors


@pytest.mark.slow
def test_a_peer_that_trains_otherwise_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("peft")
    from benchmarks import peers

    monkeypatch.setattr(peers, "LEARNING_RATE", 2 * workload.LEARNING_RATE)
    case = sweep.Case("other learning rate", {sweep.LEAN: 1.2})
    with pytest.raises(Disagreement, match="lean"):
        sweep.step_rows(case, "tiny", policies=2, rounds=1, seed=0)


@pytest.mark.slow
def test_on_policy_rows_on_a_tiny_model(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("trl")
    monkeypatch.setattr(on_policy, "NEW_TOKENS", 6)
    rows = on_policy.step_rows("tiny", policies=2, rounds=1, seed=0)
    assert well_formed(rows) and [row.peer for row in rows] == list(on_policy.FLOORS)


def test_ablation_rows_on_a_tiny_model() -> None:
    found = ablation.variants(workload.SIZES["tiny"])
    rows = ablation.ablation_rows("tiny", rounds=1, seed=0)
    assert well_formed(rows) and len(rows) == len(found) - 1 and all(row.floor is None for row in rows)


@pytest.mark.slow
def test_settings_that_change_the_numbers_are_not_timed_as_exact() -> None:
    chosen = {
        ablation.PLAIN: ablation.Variant(),
        "smaller steps": ablation.Variant(1, {"learning_rate": 1e-4}),
    }
    with pytest.raises(Disagreement, match="smaller steps"):
        ablation.ablation_rows("tiny", rounds=1, seed=0, chosen=chosen)


@pytest.mark.slow
def test_a_whole_sweep_of_a_tiny_model() -> None:
    pytest.importorskip("trl")
    pytest.importorskip("peft")
    row = sweep.sweep_row("tiny", policies=2, steps=2, rounds=1, seed=0, floor=2.5)
    assert well_formed([row]) and row.floor == 2.5


@pytest.mark.slow
def test_memory_of_a_tiny_model() -> None:
    pytest.importorskip("trl")
    pytest.importorskip("peft")
    assert memory.peak_bytes() > 1 << 20
    assert well_formed([memory.memory_row("tiny", policies=2, rounds=1, seed=0)])


@pytest.mark.slow
def test_the_accelerator_script_on_a_cpu() -> None:
    """Its code runs anywhere; its figures mean something on an accelerator alone."""
    pytest.importorskip("trl")
    pytest.importorskip("peft")
    [equal, _, top] = gpu.cases("tiny")
    for case in (equal, top):
        rows = gpu.step_rows(replace(case, prompt=(8, 10), response=(8, 10), device="cpu"), 2, 1, 0)
        assert well_formed(rows) and [row.floor for row in rows[-2:]] == [None, None]
    assert well_formed([gpu.decode_row("tiny", 2, 1, 0, "cpu")]) and gpu.bandwidth("cpu") > 1e8
    if not torch.cuda.is_available():
        assert gpu.measure(Options(quick=True)) == []


def test_the_operations_of_a_step_by_hand() -> None:
    """2 layers of width 4 and inner 8, two heads with one key head: q and o 16, k and v 8, MLP 3 x 32: 144 a layer."""
    size = workload.Size(2, 4, 8, 2, 10, key_heads=1)
    assert size.matrix_flops(tokens=3, predicted=1) == 4 * (2 * 144 * 3 + 40)


def test_best_of_n_compares_rules_on_the_same_responses(monkeypatch: pytest.MonkeyPatch) -> None:
    """At n = 1 nothing is chosen, so all rules give the mean gold reward; a row per cautious rule and n from 64 on."""
    from benchmarks import best_of_n

    for name, value in {"QUICK_PROMPTS": 2, "PAIRS": 60, "MEMBERS": 2, "QUICK_SEEDS": 1}.items():
        monkeypatch.setattr(best_of_n, name, value)
    by, accuracy = best_of_n.study(0, quick=True)
    assert len({round(values[0], 9) for values in by.values()}) == 1 and 0.5 < accuracy < 1
    assert all(values[1] > values[0] for values in by.values())
    monkeypatch.setattr(best_of_n, "study", lambda seed, quick: (by, accuracy))
    rows = best_of_n.rows(quick=True)
    assert len(rows) == 12 and well_formed(rows)
    worst = [row for row in rows if "worst case" in row.what]
    assert worst[0].value == pytest.approx(by["worst case"][2] / by["mean"][2])


def test_helpsteer2_pairs_are_the_better_and_the_worse_response_to_one_prompt() -> None:
    """Prompt a: 3 over 1. Prompt b: equal. Prompt c has one held-out response only."""
    from benchmarks.helpsteer2 import _differing

    prompts = np.array(["a", "a", "b", "b", "c"], dtype=object)
    assert _differing(prompts, np.array([1.0, 3.0, 2.0, 2.0, 5.0]), np.arange(5)) == ([1], [0])


def test_policies_needed_are_counted_from_one() -> None:
    """The volume 3 is reached by the second policy; one that is never reached counts as one more than all."""
    assert searches.needed([1.0, 3.0, 4.0], 3.0) == 2 and searches.needed([1.0, 2.0], 3.0) == 3


def test_tuning_rows_on_few_trials() -> None:
    rows = tunings.problem_rows("small", tunings.tabular_space(), tunings.tabular, -1.0, 3, range(2))
    assert [row.value for row in rows] == pytest.approx([1.0, rows[1].value])  # three trials are all of the start
    assert [row.peer for row in rows] == ["guided / sobol", "guided / random"]


def test_method_rows_are_the_middle_and_the_extremes_of_the_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    from moalign.comparison import embedded as comparison
    from moalign.comparison.outcomes import Outcome

    def outcomes(seed: int, names: list[str], save: Path | None, on_method: object) -> list[Outcome]:
        return [
            Outcome(
                method=name, seed=seed, shares=(0.8 + 0.1 * seed, 1.0), hypervolume=(1.0, 1.0, 1.0),
                at_equal_kl=0.7 + 0.1 * seed, expected_utility=1.0, worst_group=0.85, policies=5, trained=1,
                generated=1, seconds=1.0, points=(), constrained=0.95,
            )
            for name in names
        ]  # fmt: skip

    monkeypatch.setattr(comparison, "compare", outcomes)
    rows = {row.what: row for row in method_shares.embedded_rows(range(3))}
    assert well_formed(list(rows.values()))
    assert (rows["MODPO"].low, rows["MODPO"].value, rows["MODPO"].high) == (0.9, 0.95, 1.0)
    assert rows["C-MORL"].value == 0.95 and rows["C-MORL, policies stored"].value == 2.0
    assert rows["DPA"].verdict == "holds" and rows["MaxMin"].value == 0.85


def test_only_the_minimax_of_the_group_losses_has_all_of_their_fall() -> None:
    """The base has nothing of it, and the best policy of either group alone less than half."""
    small = one_token.small_problem(0)
    liked = [np.array(objective.reward([], small.words)) for objective in small.problem.objectives]
    assert one_token.loss_share(small, np.zeros(len(small.words))) == pytest.approx(0, abs=1e-9)
    assert all(one_token.loss_share(small, own / one_token.BETA) < 0.5 for own in liked)
    between = [one_token.loss_share(small, s * (liked[0] + liked[1])) for s in np.linspace(0.2, 1.2, 11)]
    assert 0.8 < max(between) <= 1 + 1e-6  # the groups lose alike, so even weights are near the fair ones


def test_the_small_problem_of_the_methods_knows_every_token() -> None:
    """All tokens have all the probability, rewards are those of the words, and labels those of the rewards."""
    small = one_token.small_problem(0)
    _, base, rewards = small.known(small.said)
    assert float(base.exp().sum()) == pytest.approx(1, abs=1e-5)
    assert rewards[0, :3].tolist() == [[0, 0]] * 3 and small.known(small.written)[2].equal(rewards[:, 3:])
    for k, objective in enumerate(small.problem.objectives):
        place = [(a, b) for a, b in zip(objective.pairs.chosen, objective.pairs.rejected, strict=True)].index(
            ("t9", "t3")
        )
        difference = float(rewards[0, 9, k] - rewards[0, 3, k])
        assert objective.pairs.labels[place] == pytest.approx(1 / (1 + np.exp(-difference)), abs=1e-6)


def test_elicitation_rows_on_few_people() -> None:
    rows = elicitation.regret_rows(4, 50.0, seed=0)
    assert well_formed(rows) and all(row.floor == 1.0 for row in rows)


@pytest.mark.slow
def test_the_output_head_on_a_small_vocabulary() -> None:
    pytest.importorskip("trl")
    rows = head.head_rows(width=8, vocabulary=50, positions=12, rounds=1, seed=0)
    assert well_formed(rows) and [row.floor for row in rows] == [4.0, None, None]
