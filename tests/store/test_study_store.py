"""The facts of a study: rows, events, folders and checkpoints."""

from __future__ import annotations

import json
import math
import os
import sqlite3
import time
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from pathlib import Path

import numpy as np
import pytest
import torch

from moalign.errors import DefinitionError, StoreError, StudyBusyError
from moalign.store import Measured, Store, StudyStore, verify

Make = Callable[..., Measured]

OBJECTIVES = ("helpful", "harmless")  # of the fixture `study`
WEIGHTS: list[list[float]] = [[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]]


class TestTrials:
    def test_new_trials_wait_with_their_weights(self, study: StudyStore) -> None:
        records = study.trials()
        assert [r.number for r in records] == [0, 1, 2]
        assert [r.weights for r in records] == [tuple(w) for w in WEIGHTS]
        assert {r.state for r in records} == {"waiting"} and records[0].values is None
        assert study.objectives == OBJECTIVES

    def test_adding_again_changes_nothing_and_more_rows_are_appended(self, study: StudyStore) -> None:
        with study.drive():
            study.set_state(0, "failed", "boom")
            study.add_trials(WEIGHTS, OBJECTIVES)
            study.add_trials([*WEIGHTS, [0.25, 0.75]], OBJECTIVES)
            study.add_trials(WEIGHTS[:1], OBJECTIVES)
        assert [r.state for r in study.trials()] == ["failed", "waiting", "waiting", "waiting"]
        assert study.trial(3).weights == (0.25, 0.75)

    def test_other_weights_or_objectives_are_refused_and_nothing_is_stored(self, study: StudyStore) -> None:
        with study.drive():
            with pytest.raises(StoreError, match=r"Trial 1 .*\(0\.5, 0\.5\); now they are \(0\.6, 0\.4\)"):
                study.add_trials([WEIGHTS[0], [0.6, 0.4], *WEIGHTS[2:], [1, 0]], OBJECTIVES)
            with pytest.raises(StoreError, match="now they are harmless, helpful"):
                study.add_trials(WEIGHTS, OBJECTIVES[::-1])
            with pytest.raises(StoreError, match="2 columns for 3 objectives"):
                study.add_trials(WEIGHTS, [*OBJECTIVES, "brevity"])
            with pytest.raises(DefinitionError, match="NaN"):
                study.add_trials([[math.nan, 1]], OBJECTIVES)
        assert len(study.trials()) == 3

    def test_a_method_without_weights_has_trials_without_weights(self, store: Store) -> None:
        study = store.create("maxmin", {}, info={})
        with study.drive():
            study.add_trials(np.empty((1, 0)), OBJECTIVES)
        assert study.trial(0).weights == ()

    def test_finishing_stores_every_number_exactly(self, study: StudyStore, measured: Make) -> None:
        value, prompts = 0.1 + 0.2, np.random.default_rng(0).normal(size=(5, 2))
        with study.drive():
            study.set_state(1, "training")
            begin = study.trial(1).started
            study.set_state(1, "evaluating")
            study.finish_trial(1, **measured(values=[value, 1e-300], prompt_values=prompts))
        record = study.trial(1)
        assert record.state == "done" and record.feasible is True and record.error is None
        assert record.values == (value, 1e-300) and record.standard_errors == (0.125, 0.0)
        assert (record.kl, record.kl_standard_error, record.columns) == (6.5, 0.5, {"win_rate": 0.75})
        assert record.prompt_values is not None and np.array_equal(record.prompt_values, prompts)
        assert record.started is not None and record.finished is not None and record.started == begin
        assert record.started <= record.finished <= time.time()
        assert study.trials(prompt_values=False)[1].prompt_values is None
        assert study.trials()[1] == record

    def test_records_are_frozen(self, study: StudyStore, measured: Make) -> None:
        with study.drive():
            study.finish_trial(0, **measured())
        record = study.trial(0)
        with pytest.raises(FrozenInstanceError):
            record.kl = 0.0  # type: ignore[misc]
        assert record.prompt_values is not None
        with pytest.raises(ValueError, match="read-only"):
            record.prompt_values[0, 0] = 1.0

    def test_float32_and_tensors_become_numbers_and_not_blobs(self, study: StudyStore, measured: Make) -> None:
        """SQLite would store numpy's float32 as four raw bytes."""
        numbers = {"kl": np.float32(0.5), "values": torch.tensor([0.25, 0.5]), "columns": {"a": np.float32(2)}}
        with study.drive():
            study.finish_trial(0, **measured(**numbers))
        assert (study.trial(0).kl, study.trial(0).values, study.trial(0).columns) == (0.5, (0.25, 0.5), {"a": 2.0})
        with sqlite3.connect(study.folder / "store.db") as connection:
            assert connection.execute("SELECT typeof(kl) FROM trials WHERE number = 0").fetchone() == ("real",)

    def test_every_bad_number_is_named_at_once(self, study: StudyStore, measured: Make) -> None:
        bad = measured(
            values=[math.nan, 1.0],
            standard_errors=[-1.0, 0.0],
            kl=math.inf,
            columns={"win_rate": math.nan, "note": "x"},
            prompt_values=[[0.0, 1.0], [0.0, math.nan]],
        )
        with study.drive(), pytest.raises(StoreError) as caught:
            study.finish_trial(0, **bad)
        for words in (
            "Trial 0 of study 'hh'",
            "values of 'helpful' is nan",
            "standard_errors has a negative entry: -1.0",
            "kl is inf",
            "column 'win_rate' is nan",
            "column 'note' is 'x', not a number",
            "prompt_values of 'harmless' for prompt 1 is nan",
        ):
            assert words in str(caught.value)
        assert study.trial(0).state == "waiting"

    @pytest.mark.parametrize(
        "bad", [{"values": [1.0]}, {"prompt_values": [1.0, 2.0]}, {"prompt_values": [[1.0]]}, {"values": ["a", "b"]}]
    )
    def test_shapes_must_fit_the_objectives(self, study: StudyStore, measured: Make, bad: dict[str, object]) -> None:
        with study.drive(), pytest.raises(StoreError, match=next(iter(bad))):
            study.finish_trial(0, **measured(**bad))

    def test_the_kl_may_be_unmeasured(self, study: StudyStore, measured: Make) -> None:
        with study.drive():
            study.finish_trial(0, **measured(kl=None, kl_standard_error=None))
        assert study.trial(0).kl is None

    def test_what_is_done_does_not_change(self, study: StudyStore, measured: Make) -> None:
        with study.drive():
            study.finish_trial(0, **measured())
            for change in (
                lambda: study.finish_trial(0, **measured(kl=0.0)),
                lambda: study.set_state(0, "failed", "late"),
                lambda: study.set_state(0, "waiting"),
            ):
                with pytest.raises(StoreError, match="Trial 0 of study 'hh' is done"):
                    change()
        assert study.trial(0).kl == 6.5

    def test_done_needs_numbers_and_states_are_a_closed_list(self, study: StudyStore) -> None:
        with study.drive():
            for state in ("done", "pruned"):
                with pytest.raises(StoreError, match=f"cannot be set to '{state}'"):
                    study.set_state(0, state)  # type: ignore[arg-type]

    def test_failed_trials_keep_their_error_and_wait_again_on_request(self, study: StudyStore) -> None:
        with study.drive():
            study.set_state(2, "training")
            study.set_state(2, "failed", "reward 'harmless' returned NaN \ud83d")
            record = study.trial(2)
            assert record.error == "reward 'harmless' returned NaN \\ud83d" and record.finished is not None
            assert study.reset_failed() == [2]
            assert study.reset_failed() == []
        assert (study.trial(2).state, study.trial(2).error, study.trial(2).finished) == ("waiting", None, None)

    @pytest.mark.parametrize("number", [3, -1, -2])
    def test_a_trial_that_does_not_exist(self, study: StudyStore, number: int) -> None:
        with pytest.raises(StoreError, match=f"no trial {number}; its trials are 0 to 2"):
            study.trial(number)
        with study.drive(), pytest.raises(StoreError, match=f"no trial {number}"):
            study.set_state(number, "training")

    def test_trials_of_a_killed_driver_wait_again(self, study: StudyStore, measured: Make) -> None:
        with study.drive():
            study.finish_trial(0, **measured())
            study.set_state(1, "training")
            study.set_state(2, "failed", "boom")
        with study.drive():
            pass
        assert [r.state for r in study.trials()] == ["done", "waiting", "failed"]
        assert study.trial(1).started is None


class TestReference:
    def test_it_is_stored_once_and_is_not_a_trial(self, study: StudyStore, measured: Make) -> None:
        assert study.reference() is None
        with study.drive():
            study.set_reference(**measured(kl=0.0))
            with pytest.raises(StoreError, match="has its reference values already"):
                study.set_reference(**measured(kl=1.0))
        reference = study.reference()
        assert reference is not None and (reference.number, reference.kl, reference.weights) == (-1, 0.0, ())
        assert reference.values == (0.25, -1.5) and len(study.trials()) == 3


class TestEvents:
    def test_they_are_appended_in_order_with_their_time(self, study: StudyStore) -> None:
        before = time.time()
        with study.drive():
            study.add_event("step", {"step": 1, "loss": 0.5})
            study.add_event("note", {"text": "größe"})
            study.add_event("step", {"step": 2, "loss": 0.25})
        events = study.events()
        assert [(e.number, e.kind) for e in events] == [(1, "step"), (2, "note"), (3, "step")]
        assert [e.data["step"] for e in study.events("step")] == [1, 2]
        assert [e.number for e in study.events(after=1)] == [2, 3]
        assert before <= events[0].time <= events[2].time <= time.time()

    def test_nan_is_refused_by_name(self, study: StudyStore) -> None:
        with study.drive(), pytest.raises(StoreError, match=r"Event 'step'.*loss is nan"):
            study.add_event("step", {"loss": math.nan})
        assert study.events() == []


class TestFolders:
    def test_the_layout_on_disk(self, study: StudyStore, measured: Make) -> None:
        with study.drive():
            with study.publish(study.trial_folder(14)) as hidden:
                (hidden / "config.json").write_text("{}")
                (hidden / "adapter").mkdir()
                (hidden / "adapter" / "adapter_config.json").write_text("{}")
            with study.publish(study.trial_folder(-1)) as hidden:
                (hidden / "generations.jsonl").write_text("")
            TestCheckpoints.save(study, 100)
            with study.publish(study.cache_folder("log-probs")) as hidden:
                (hidden / "a.bin").write_bytes(b"1")
        found = {p.relative_to(study.folder).as_posix() for p in study.folder.rglob("*") if p.is_file()}
        assert {name for name in found if not name.startswith("store.db-")} == {
            "study.json",
            "store.db",
            "trials/0014/config.json",
            "trials/0014/adapter/adapter_config.json",
            "trials/0014/manifest.json",
            "trials/reference/generations.jsonl",
            "trials/reference/manifest.json",
            "training/sweep/checkpoint-100/step",
            "training/sweep/checkpoint-100/manifest.json",
            "cache/log-probs/a.bin",
            "cache/log-probs/manifest.json",
        }

    def test_publishing_needs_the_lease_and_a_place_inside_the_study(self, study: StudyStore) -> None:
        with pytest.raises(StoreError, match="open for reading only"), study.publish(study.trial_folder(0)):
            pass
        assert not study.trial_folder(0).exists()
        for place in (study.folder, study.folder.parent / "elsewhere", study.folder / ".." / "x"):
            with study.drive(), pytest.raises(StoreError, match="is not inside"), study.publish(place):
                pass

    @pytest.mark.parametrize("key", ["../x", "a/b", "", ".hidden"])
    def test_keys_are_no_paths(self, study: StudyStore, key: str) -> None:
        for folder in (study.training_folder, study.cache_folder):
            with pytest.raises(DefinitionError, match="key"):
                folder(key)


class TestCheckpoints:
    @staticmethod
    def save(study: StudyStore, step: int) -> None:
        def write(folder: Path) -> None:
            (folder / "step").write_text(str(step))

        study.save_checkpoint("sweep", step, write)

    @staticmethod
    def steps(study: StudyStore) -> list[str]:
        return sorted(os.listdir(study.training_folder("sweep")))

    def test_the_newest_is_found_and_two_are_kept(self, study: StudyStore) -> None:
        assert study.checkpoint("sweep") is None
        with study.drive():
            for step in (50, 100, 1000):
                self.save(study, step)
        newest = study.checkpoint("sweep")
        assert newest is not None and (newest / "step").read_text() == "1000"
        assert self.steps(study) == ["checkpoint-100", "checkpoint-1000"]

    @pytest.mark.parametrize("damage", ["flipped", "cut", "no manifest"])
    def test_a_damaged_one_is_passed_over(self, study: StudyStore, damage: str) -> None:
        with study.drive():
            for step in (50, 100):
                self.save(study, step)
        newest = study.checkpoint("sweep")
        assert newest is not None
        if damage == "flipped":
            (newest / "step").write_text("101")
        elif damage == "cut":
            (newest / "step").write_text("1")
        else:
            (newest / "manifest.json").unlink()
        former = study.checkpoint("sweep")
        assert former is not None and former.name == "checkpoint-50"

    def test_training_that_went_back_does_not_leave_the_damaged_one_in_the_way(self, study: StudyStore) -> None:
        """100 is damaged, so training continues from 50 and saves 60; 100 must not count as newer than 60."""
        with study.drive():
            for step in (50, 100):
                self.save(study, step)
            (study.training_folder("sweep") / "checkpoint-100" / "step").write_text("999")
            self.save(study, 60)
        assert self.steps(study) == ["checkpoint-50", "checkpoint-60"]

    def test_a_failed_save_keeps_the_former_one(self, study: StudyStore) -> None:
        def fail(folder: Path) -> None:
            (folder / "half").write_text("h")
            raise OSError("No space left on device")

        with study.drive():
            self.save(study, 50)
            with pytest.raises(OSError, match="No space"):
                study.save_checkpoint("sweep", 100, fail)
        assert self.steps(study) == ["checkpoint-50"]

    def test_clearing_removes_checkpoints_only(self, study: StudyStore) -> None:
        with study.drive():
            self.save(study, 50)
            with study.publish(study.training_folder("sweep") / "result") as hidden:
                (hidden / "a").write_text("a")
            study.clear_checkpoint("sweep")
            study.clear_checkpoint("never-trained")
        assert self.steps(study) == ["result"]


class TestReading:
    def test_writing_needs_the_lease(self, study: StudyStore, measured: Make) -> None:
        for write in (
            lambda: study.set_state(0, "training"),
            lambda: study.finish_trial(0, **measured()),
            lambda: study.add_event("x", {}),
            lambda: study.add_trials(WEIGHTS, OBJECTIVES),
            lambda: study.save_checkpoint("a", 1, lambda folder: None),
            lambda: study.clear_checkpoint("a"),
        ):
            with pytest.raises(StoreError, match=r"study\.drive\(\)") as caught:
                write()
            assert not isinstance(caught.value, StudyBusyError)

    def test_another_reader_sees_rows_while_the_driver_runs(self, study: StudyStore, measured: Make) -> None:
        reader = StudyStore(study.folder)
        with study.drive():
            study.finish_trial(0, **measured())
            assert reader.trial(0).state == "done"
            study.set_state(1, "training")
            assert reader.trial(1).state == "training"
        reader.close()

    def test_a_reader_cannot_write(self, study: StudyStore) -> None:
        with study._reader.read() as connection, pytest.raises(sqlite3.OperationalError, match="readonly"):
            connection.execute("DELETE FROM trials")

    def test_ten_thousand_trials_are_read_in_time_for_a_first_view(self, store: Store) -> None:
        study = store.create("large", {}, info={})
        shares = np.linspace(0, 1, 10_000)
        with study.drive():
            study.add_trials(np.stack([shares, 1 - shares], axis=1), OBJECTIVES)
        begin = time.perf_counter()
        assert len(study.trials(prompt_values=False)) == 10_000
        assert time.perf_counter() - begin < 2.0


class TestIntegrity:
    @pytest.fixture
    def done(self, study: StudyStore, measured: Make) -> StudyStore:
        """The study with trial 1 done and its folder published."""
        with study.drive():
            with study.publish(study.trial_folder(1)) as hidden:
                (hidden / "generations.jsonl").write_text('{"text": "a"}\n')
            study.finish_trial(1, **measured())
        return study

    def test_a_sound_study_has_no_findings(self, done: StudyStore) -> None:
        assert done.check() == [] and done.repair() == []

    def test_damage_leftovers_and_edits_are_found(self, done: StudyStore) -> None:
        (done.trial_folder(1) / "generations.jsonl").write_text('{"text": "b"}\n')
        (done.folder / "training").mkdir()
        (done.folder / "training" / ".sweep.0123456789ab.new").mkdir()
        content = json.loads((done.folder / "study.json").read_text())
        content["definition"]["seed"] = 8
        (done.folder / "study.json").write_text(json.dumps(content))
        findings = {finding.kind: finding for finding in StudyStore(done.folder).check()}
        assert sorted(findings) == ["damaged", "definition", "leftover"]
        assert "generations.jsonl does not match" in str(findings["damaged"])
        assert "edited after the study began" in str(findings["definition"])

    def test_what_a_driver_is_writing_is_no_leftover(self, done: StudyStore) -> None:
        with done.drive(), done.publish(done.trial_folder(2)) as hidden:
            (hidden / "a").write_text("a")
            assert StudyStore(done.folder).check() == []

    def test_repair_sets_damage_aside_and_lets_the_trial_run_again(self, done: StudyStore) -> None:
        (done.trial_folder(1) / "generations.jsonl").write_text('{"text": "b"}\n')
        (done.folder / "trials" / ".0002.0123456789ab.new").mkdir()
        assert sorted(finding.kind for finding in done.repair()) == ["damaged", "leftover"]
        assert done.check() == []
        assert (done.folder / "damaged" / "trials" / "0001-1" / "generations.jsonl").exists()
        assert (done.trial(1).state, done.trial(1).values) == ("waiting", None)
        (event,) = done.events("repair")
        assert json.loads(event.data["trial"]["objective_values"]) == [0.25, -1.5]
        with done.drive():
            with done.publish(done.trial_folder(1)) as hidden:
                (hidden / "generations.jsonl").write_text("")
        verify(done.trial_folder(1))

    def test_damaged_pages_of_the_database_are_reported(self, done: StudyStore) -> None:
        """The first page, which holds the schema, stays readable; the headers of all others are overwritten."""
        done.close()
        path = done.folder / "store.db"
        size = path.stat().st_size
        with path.open("r+b") as file:
            for page in range(4096, size, 4096):
                file.seek(page)
                file.write(b"\xff" * 64)
        findings = StudyStore(done.folder).check()
        assert any(finding.kind == "database" for finding in findings)
