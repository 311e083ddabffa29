"""A study from definition to front: resuming, refusing, exporting, bad input."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import moalign as ma
from moalign.errors import ModelError, StudyBusyError, StudyChangedError
from moalign.methods import MODPO
from moalign.results import load_front
from moalign.store import Store, load_generations
from tests.tiny import HELD_OUT, save_model, shortness, tiny_study, vowels


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def finished(model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ma.Front]:
    root = tmp_path_factory.mktemp("runs")
    return root, ma.run(tiny_study(model), store=root, device="cpu")  # accelerators add up in any order


def same(a: ma.Front, b: ma.Front) -> bool:
    return bool(np.array_equal(a.F, b.F) and np.array_equal(a.KL, b.KL))


def test_a_study_gives_a_front_with_everything_on_disk(finished: tuple[Path, ma.Front]) -> None:
    root, front = finished
    assert len(front) == 3 and front.objectives == ("vowels", "short")
    assert front.prompt_values is not None and front.prompt_values.shape == (3, len(HELD_OUT), 2)
    interval = front.hypervolume()
    assert interval.low <= interval.value <= interval.high
    assert (front.KL > 0).all() and front.reference is not None and front.reference.kl == 0
    folder = root / "tiny"
    for name in ("study.json", "store.db", "front.csv", "report.html", "README.md"):
        assert (folder / name).is_file(), name
    for trial in range(3):
        for name in ("config.json", "metrics.jsonl", "generations.jsonl", "manifest.json"):
            assert (folder / f"trials/{trial:04d}" / name).is_file(), name
    rows = load_generations(Store(root).study("tiny"), 1)
    assert len(rows) == len(HELD_OUT) * 4
    mean = np.mean([[row["rewards"]["vowels"], row["rewards"]["short"]] for row in rows], axis=0)
    assert mean == pytest.approx(front.points[1].values)
    assert all(row["rewards"]["vowels"] == vowels([""], [row["response"]])[0] for row in rows)


def test_running_again_repeats_nothing(finished: tuple[Path, ma.Front], model: Path) -> None:
    root, front = finished
    steps: list[int] = []

    class Count:
        def on_step(self, name: str, record: Any, total: int) -> None:
            steps.append(record.step)

    again = ma.run(tiny_study(model), store=root, callbacks=[Count()])
    assert same(front, again) and steps == []


def test_the_same_seed_gives_the_same_bits_in_memory(finished: tuple[Path, ma.Front], model: Path) -> None:
    front = ma.run(tiny_study(model), device="cpu")
    assert same(front, finished[1])
    assert len(front.points[0].generate("hello: ", max_new_tokens=4)) == 1  # the temporary store lives on


def test_another_definition_under_the_same_name_is_refused_or_forked(
    finished: tuple[Path, ma.Front], model: Path
) -> None:
    root, _ = finished
    changed = tiny_study(model, method=replace(tiny_study(model).method, beta=0.25), steps=2)
    with pytest.raises(StudyChangedError, match=r"method\.beta: 0\.5 -> 0\.25"):
        ma.run(changed, store=root)
    forked = ma.run(changed, store=root, on_change="fork")
    assert forked.study == "tiny-2" and Store(root).names() == ["tiny", "tiny-2"]


def test_a_second_driver_is_told_who_runs_the_study(finished: tuple[Path, ma.Front], model: Path) -> None:
    root, _ = finished
    with Store(root).study("tiny").drive():
        with pytest.raises(StudyBusyError, match=rf"pid {os.getpid()}"):
            ma.run(tiny_study(model), store=root)


def test_export_gives_a_folder_that_peft_loads_with_the_same_tokens(
    finished: tuple[Path, ma.Front], model: Path, tmp_path: Path
) -> None:
    peft = pytest.importorskip("peft")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    point = finished[1].points[2]
    folder = point.export(tmp_path / "policy")
    assert {"adapter_config.json", "adapter_model.safetensors", "README.md", "manifest.json"} <= set(os.listdir(folder))
    tokenizer = AutoTokenizer.from_pretrained(model)
    loaded = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model), folder)
    for prompt in HELD_OUT:
        ids = torch.tensor([tokenizer(prompt)["input_ids"]])
        mask = torch.ones_like(ids)
        out = loaded.generate(input_ids=ids, attention_mask=mask, max_new_tokens=10, do_sample=False, pad_token_id=2)
        text = tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
        assert point.generate(prompt, max_new_tokens=10, temperature=0) == [text]
    with pytest.raises(ma.StoreError, match="not empty"):
        point.export(folder)


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["training", "evaluation"])
def test_a_killed_run_continues_and_ends_like_an_uninterrupted_one(
    moment: str, model: Path, tmp_path: Path, finished: tuple[Path, ma.Front]
) -> None:
    """kill -9 at several random times; the result has the same bits, and finished trials are not touched again."""
    steps = 60 if moment == "training" else 6
    whole = ma.run(tiny_study(model, steps=steps), device="cpu")
    code = (
        "import sys, time; from pathlib import Path; import moalign as ma\n"
        "import moalign.policy.engine as e, moalign.judging as r\n"
        "from tests.tiny import tiny_study\n"
        "r.POLICIES_PER_GROUP = 1; judge = r.judge\n"
        "def slow(*a): time.sleep(0.4); return judge(*a)\n"
        "r.judge = slow\n"
        "init = e.Engine.__init__\n"
        "def often(self, *a, **k): init(self, *a, **k); self.checkpoint_seconds = 0.05\n"
        "e.Engine.__init__ = often\n"
        "class Say:\n"
        "    def on_step(self, *a): time.sleep(0.02); print('training', flush=True)\n"
        "    def on_policy(self, p): print('evaluation', flush=True)\n"
        f"study = tiny_study(Path({str(model)!r}), steps={steps})\n"
        f"ma.run(study, store={str(tmp_path)!r}, callbacks=[Say()], device='cpu')\n"
    )
    first_finish: dict[int, float] = {}
    for kill in range(3):
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment)
        assert process.stdout is not None
        seen = 0
        for line in process.stdout:
            seen += line.strip() == moment
            if seen == (12 if moment == "training" else 1):
                break
        process.send_signal(signal.SIGKILL)
        process.wait()
        records = Store(tmp_path).study("tiny")
        for trial in records.trials():
            if trial.state == "done":
                assert first_finish.setdefault(trial.number, trial.finished) == trial.finished
        if kill == 0 and moment == "training":
            assert any(records.folder.rglob("checkpoint-*"))
    resumed = ma.run(tiny_study(model, steps=steps), store=tmp_path, device="cpu")
    assert same(whole, resumed)
    for number, finished_at in first_finish.items():
        assert Store(tmp_path).study("tiny").trial(number).finished == finished_at


@pytest.mark.slow
def test_control_c_saves_and_the_next_run_continues(model: Path, tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; import time, moalign as ma; from tests.tiny import tiny_study\n"
        "class Say:\n"
        "    def on_step(self, *a): time.sleep(0.05); print('step', flush=True)\n"
        f"study = tiny_study(Path({str(model)!r}), steps=40)\n"
        f"ma.run(study, store={str(tmp_path)!r}, callbacks=[Say()], device='cpu')\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert "KeyboardInterrupt" in errors and list((tmp_path / "tiny").rglob("checkpoint-*"))
    steps: list[int] = []

    class Count:
        def on_step(self, name: str, record: Any, total: int) -> None:
            steps.append(record.step)

    resumed = ma.run(tiny_study(model, steps=40), store=tmp_path, callbacks=[Count()], device="cpu")
    assert 1 < steps[0] <= 40 and steps[-1] == 40
    assert same(resumed, ma.run(tiny_study(model, steps=40), device="cpu"))


def nan_sometimes(prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
    return [float("nan") if i == 1 else 0.0 for i in range(len(responses))]


def too_few(prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
    return [0.0]


@pytest.mark.parametrize(("reward", "words"), [(nan_sometimes, "short.*nan"), (too_few, r"short.*\(1,\)")])
def test_broken_rewards_stop_the_run_before_training(reward: Any, words: str, model: Path) -> None:
    class NoTraining:
        def on_step(self, *args: Any) -> None:
            raise AssertionError("trained in spite of a broken reward")

    with pytest.raises(ma.RewardError, match=f"(?is){words}"):
        ma.run(tiny_study(model, rewards=(vowels, reward)), callbacks=[NoTraining()])


def test_all_problems_of_a_definition_are_told_at_once(model: Path) -> None:
    with pytest.raises(ma.DefinitionError) as caught:
        tiny_study(
            model,
            name="../escape",
            weights=[[0.5, 0.4], [1.2, -0.2]],
            method=MODPO(trained="vowel"),
            evaluation=ma.Evaluation(prompts=HELD_OUT, limits={"klx": 3.0}, reference_point={"vowels": 0.0}),
            rewards=(vowels, lambda prompts, responses: [0.0] * len(responses)),
            seed=-1,
        )
    text = str(caught.value)
    for word in ("../escape", "0.9", "-0.2", "klx", "short", "seed"):
        assert word in text, word
    assert len(caught.value.problems) >= 6


def test_lambdas_are_refused_by_name(model: Path) -> None:
    with pytest.raises(ma.DefinitionError, match=r"objectives\[1\]\.reward.*lambda"):
        tiny_study(model, rewards=(vowels, lambda prompts, responses: [0.0] * len(responses)))


def test_an_absent_model_folder_is_refused_within_two_seconds() -> None:
    started = time.monotonic()
    with pytest.raises(ma.DefinitionError, match=r"no/such/model"):
        tiny_study(Path("no/such/model"))
    with pytest.raises(ma.DefinitionError, match=r"owner/no-such-model.*download=True"):
        tiny_study(Path("owner/no-such-model"))
    assert time.monotonic() - started < 2


def test_prompts_beyond_the_context_are_refused_before_training(model: Path) -> None:
    evaluation = ma.Evaluation(prompts=[*HELD_OUT, "a" * 125], samples=2, max_new_tokens=8)
    with pytest.raises(ma.DefinitionError, match=r"1 of 4 held-out prompts.*128.*number 3 with 126 tokens"):
        ma.run(tiny_study(model, evaluation=evaluation))


def test_over_long_pairs_are_refused_or_cut_and_counted(model: Path) -> None:
    rows = [
        {"prompt": "a" * 100, "chosen": "b" * 60, "rejected": "c" * 10},
        {"prompt": "d", "chosen": "e", "rejected": "f"},
    ]
    objectives = (ma.Objective("vowels", reward=vowels, pairs=ma.load_pairs(rows)), ma.Objective("short", shortness))
    study = tiny_study(model)
    problem = replace(study.problem, objectives=objectives)
    with pytest.raises(ModelError, match=r"101 \+ 61 tokens.*128.*truncate=True"):
        ma.run(replace(study, problem=problem))
    cut = replace(problem, policy=ma.Policy(str(model), truncate=True))
    front = ma.run(replace(study, problem=cut, name="cut"))
    assert len(front) == 3


def test_limits_keep_points_but_not_as_members(model: Path, finished: tuple[Path, ma.Front]) -> None:
    strict = replace(tiny_study(model).evaluation, limits={"kl": 0.0})
    with pytest.warns(ma.errors.NumericsWarning):
        front = ma.run(replace(tiny_study(model), evaluation=strict))
        assert len(front) == 3 and not front.non_dominated().any() and front.hypervolume().value == 0


def test_early_stop_ends_a_study_and_the_next_run_goes_on(model: Path, tmp_path: Path) -> None:
    class StopAfterOne:
        def on_policy(self, point: ma.Point) -> None:
            raise ma.StopStudy("enough")

    front = ma.run(tiny_study(model), store=tmp_path, callbacks=[StopAfterOne()])
    assert len(front) == 1
    assert len(ma.run(tiny_study(model), store=tmp_path)) == 3


def test_a_failing_callback_is_reported_once_and_left_out(model: Path) -> None:
    class Broken:
        calls = 0

        def on_step(self, *args: Any) -> None:
            Broken.calls += 1
            raise ValueError("no")

    with pytest.warns(ma.errors.MoalignWarning, match=r"Broken\.on_step failed"):
        assert len(ma.run(tiny_study(model), callbacks=[Broken()])) == 3
    assert Broken.calls == 1


def test_implicit_rewards_are_learned_from_pairs(model: Path) -> None:
    """An objective with pairs only is scored by beta times the log-ratio of a policy trained on them."""
    rows = [{"prompt": "say ", "chosen": "aaa" + c, "rejected": "bbb" + c} for c in "abcdefgh"]
    objectives = (
        ma.Objective("likes_a", ma.ImplicitReward(beta=0.5, steps=30, learning_rate=1e-2), pairs=ma.load_pairs(rows)),
        ma.Objective("short", reward=shortness),
    )
    study = tiny_study(model)
    front = ma.run(replace(study, problem=replace(study.problem, objectives=objectives)))
    best, worst = front.points[0].values[0], front.points[2].values[0]
    assert np.isfinite(front.F).all() and best != worst
    rewarded = load_generations(front.points[0].policy.records, 0)
    assert {"likes_a", "short"} == set(rewarded[0]["rewards"])


def test_the_stored_front_equals_the_returned_one(finished: tuple[Path, ma.Front]) -> None:
    root, front = finished
    assert same(load_front(Store(root).study("tiny")), front)
    card = (root / "tiny" / "README.md").read_text()
    assert "MODPO" in card and "| 2 |" in card
    config = json.loads((root / "tiny/trials/0001/config.json").read_text())
    assert config["weights"] == {"vowels": 0.5, "short": 0.5}


def test_a_reward_model_folder_scores_an_objective(model: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification, LlamaConfig

    from tests.models import tiny_tokenizer

    config = LlamaConfig(
        vocab_size=61, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2,
        num_labels=1, pad_token_id=2, initializer_range=0.5,
    )  # fmt: skip
    AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path / "reward")
    tiny_tokenizer().save_pretrained(tmp_path / "reward")
    reward = ma.RewardModel(tmp_path / "reward")
    front = ma.run(tiny_study(model, rewards=(reward, shortness)))
    rows = load_generations(front.points[0].policy.records, 0)
    again = reward([r["prompt"] for r in rows], [r["response"] for r in rows])
    assert [r["rewards"]["vowels"] for r in rows] == pytest.approx([float(v) for v in again], abs=1e-5)

    with pytest.raises(ma.DefinitionError, match="Reward of objective 'vowels'.*absent"):
        tiny_study(model, rewards=(ma.RewardModel(tmp_path / "absent"), shortness))


broken_from_now_on: list[bool] = []


def breaks_later(prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
    return [float("nan") if broken_from_now_on else float(len(r)) for r in responses]


def test_a_reward_that_breaks_later_fails_that_policy_only(model: Path, tmp_path: Path) -> None:
    class Watch:
        failed: list[int] = []

        def on_policy(self, point: ma.Point) -> None:
            broken_from_now_on[:] = [True] if point.trial == 0 else []

        def on_failure(self, trial: int, error: Exception) -> None:
            Watch.failed.append(trial)
            broken_from_now_on.clear()

    front = ma.run(tiny_study(model, rewards=(vowels, breaks_later)), store=tmp_path, callbacks=[Watch()])
    records = Store(tmp_path).study("tiny")
    assert Watch.failed == [1] and [p.trial for p in front.points] == [0, 2]
    assert records.trial(1).state == "failed" and "short" in str(records.trial(1).error)
    with records.drive():
        records.reset_failed()
    again = ma.run(tiny_study(model, rewards=(vowels, breaks_later)), store=tmp_path)
    assert [p.trial for p in again.points] == [0, 1, 2]


def test_a_lambda_is_told_beside_other_problems(model: Path) -> None:
    with pytest.raises(ma.DefinitionError) as caught:
        tiny_study(model, seed=-1, rewards=(vowels, lambda prompts, responses: [0.0] * len(responses)))
    assert len(caught.value.problems) == 2 and "lambda" in str(caught.value)


def test_one_held_out_prompt_is_too_few(model: Path) -> None:
    with pytest.raises(ma.DefinitionError, match="at least 2 held-out prompts"):
        tiny_study(model, evaluation=ma.Evaluation(prompts=["one "]))


def test_policies_adapted_in_the_top_layer_alone_come_back_from_disk(tmp_path: Path) -> None:
    training = ma.Training(steps=3, batch_size=4, learning_rate=5e-3, lora=ma.LoRA(rank=2, layers=1))
    sampled = ma.SampledPairs(sampling=ma.Sampling(samples=4, max_new_tokens=8))
    study = tiny_study(save_model(tmp_path / "model"), method=MODPO(beta=0.5, sampled=sampled, training=training))
    front = ma.run(study, store=tmp_path / "runs")
    again = ma.run(study, store=tmp_path / "runs")
    assert again[0].generate("hello: ") == front[0].generate("hello: ")
