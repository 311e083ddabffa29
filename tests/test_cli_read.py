"""Commands that read a folder of results: what they print for people and for programs, and what they refuse."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from moalign.cli import app
from moalign.store import Store, StudyStore

HOSTILE = "=cmd|'/c calc'!A1 [red]\x1b[31m"  # a formula, rich markup and a terminal code in one name
NAMES = ("helpful", HOSTILE)
TEXT = "[/bold] plain \x1b]0;owned\x07 \u202egnp.exe\nnext: rm -rf /"
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]")


def measured(values: list[float], kl: float = 0.5) -> dict[str, Any]:
    return {
        "values": values,
        "standard_errors": [0.1, 0.2],
        "kl": kl,
        "kl_standard_error": 0.05,
        "columns": {"mean_tokens": 7.0},
        "prompt_values": [[v + shift for v in values] for shift in (-0.1, 0.1)],
        "feasible": True,
    }


def generations(folder: Path) -> None:
    rows = [
        {
            "prompt_index": prompt, "sample": sample, "prompt": f"prompt {prompt}", "response": TEXT,
            "rewards": dict.fromkeys(NAMES, 1.0), "kl": 0.1, "log_prob": -1.0, "reference_log_prob": -1.1,
            "tokens": 3, "finished": True,
        }
        for prompt in range(3)
        for sample in range(2)
    ]  # fmt: skip
    (folder / "generations.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A study "demo" with the points (1, 3) and (2, 2) over the corner (0, 0), a failed and a waiting trial."""
    folder = tmp_path / "runs"
    info = {
        "objectives": list(NAMES),
        "base": {"source": None, "dtype": "float32", "max_length": None, "truncate": False},
        "method": "MODPO",
        "versions": {"moalign": "0.1.0"},
    }
    description = {"problem": {"policy": {"weights": "0" * 64}}, "method": {"beta": 0.1}, "seed": 0}
    records = Store(folder).create("demo", description, info=info)
    with records.drive():
        records.add_trials([[1.0, 0.0], [0.5, 0.5], [0.25, 0.75], [0.0, 1.0]], NAMES)
        records.add_event("reference_point", {"values": [0.0, 0.0], "spread": [1.0, 1.0]})
        records.set_reference(**measured([0.5, 0.5], kl=0.0))
        for number, values in enumerate(([1.0, 3.0], [2.0, 2.0])):
            records.set_state(number, "training")
            adapter(records, number)
            records.finish_trial(number, **measured(values))
        records.set_state(2, "failed", error="reward 'helpful' returned NaN\x1b[31m for 2 of 16 texts")
    return folder


def adapter(records: StudyStore, number: int) -> None:
    with records.publish(records.trial_folder(number)) as folder:
        (folder / "adapter").mkdir()
        (folder / "adapter" / "adapter_config.json").write_text("{}")
        generations(folder)


def run(store: Path, *arguments: str, code: int = 0) -> Any:
    result = CliRunner().invoke(app, [*arguments, "--store", str(store)])
    assert result.exit_code == code, result.output
    assert not CONTROL.search(result.stdout) and not CONTROL.search(result.stderr)
    return result


def test_ls_lists_studies_with_their_state(store: Path) -> None:
    [row] = [line for line in run(store, "ls").stdout.splitlines() if line.startswith("demo")]
    assert row.split()[:5] == ["demo", "interrupted", "2/4", "1", "2"]
    [facts] = json.loads(run(store, "ls", "--json").stdout)
    assert facts["hypervolume"] == pytest.approx(5.0)  # (1, 3) and (2, 2) over (0, 0): 1 * 3 + 1 * 2
    assert (facts["done"], facts["failed"], facts["trials"]) == (2, 1, 4)


def test_ls_of_an_absent_folder_is_empty_and_makes_nothing(tmp_path: Path) -> None:
    assert json.loads(run(tmp_path / "none", "ls", "--json").stdout) == []
    assert "moalign demo" in run(tmp_path / "none", "ls").stdout
    assert not (tmp_path / "none").exists()


def test_ls_shows_the_other_studies_when_one_cannot_be_read(store: Path) -> None:
    (store / "broken").mkdir()
    (store / "broken" / "study.json").write_text("{")
    result = run(store, "ls")
    assert "unreadable" in result.stdout and "demo" in result.stdout
    assert "broken" in result.stderr


def test_status_tells_states_errors_and_the_next_command(store: Path) -> None:
    text = run(store, "status", "demo").stdout
    assert "done 2  waiting 1  failed 1" in text
    assert "#2  reward 'helpful' returned NaN\\x1b[31m for 2 of 16 texts" in text
    assert "continues it" in text
    facts = json.loads(run(store, "status", "--json").stdout)  # without a name: the one updated last
    assert facts["study"] == "demo" and facts["driver"] is None
    assert facts["states"] == {"done": 2, "waiting": 1, "failed": 1}


def test_status_names_who_is_running_the_study(store: Path) -> None:
    with Store(store).study("demo").drive():
        text = run(store, "status", "demo").stdout
        assert "demo: running on" in text and "pid" in text
        assert json.loads(run(store, "ls", "--json").stdout)[0]["state"] == "running"


def test_front_is_a_table_with_the_reference_and_the_hypervolume(store: Path) -> None:
    lines = run(store, "front", "demo").stdout.splitlines()
    assert lines[0].split()[:2] == ["trial", "weights"]
    assert lines[2].split()[:4] == ["0", "(1.00", ".00)", "1.00±0.10"]
    assert "reference" in lines[4]
    assert any(line.startswith("hypervolume 5.0") for line in lines)
    assert "[red]\\x1b[31m" in lines[0]  # the hostile name, as text


def test_front_as_json_is_strict_and_alone_on_stdout(store: Path) -> None:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    for arguments in (("--json",), ("--format", "json")):
        content = json.loads(run(store, "front", "demo", *arguments).stdout, parse_constant=refuse)
        assert [p["trial"] for p in content["points"]] == [0, 1]
        assert content["objectives"] == list(NAMES)


def test_front_as_csv_holds_no_formulas(store: Path) -> None:
    text = run(store, "front", "demo", "--format", "csv").stdout
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["trial"] for row in rows] == ["0", "1"]
    assert [float(row["helpful"]) for row in rows] == [1.0, 2.0]
    assert not any(name.startswith(("=", "+", "-", "@")) for name in rows[0])


def test_front_at_weights_gives_the_nearest_policy(store: Path) -> None:
    assert run(store, "front", "demo", "--at", ".6,.4").stdout.startswith("#1 ")
    point = json.loads(run(store, "front", "demo", "--at", "helpful=1", "--json").stdout)
    assert point["trial"] == 0
    assert len(run(store, "front", "demo", "--at", "1,0", "--format", "csv").stdout.splitlines()) == 2


@pytest.mark.parametrize(
    ("at", "reason"),
    [("a,b", "no list of weights"), (".5", "2 numbers"), (".4,.4", "sum"), ("helpfull=1", "Did you mean")],
)
def test_front_refuses_weights_that_cannot_be_meant(store: Path, at: str, reason: str) -> None:
    message = " ".join(re.sub("[│╭╮╰╯─]", "", run(store, "front", "demo", "--at", at, code=2).stderr).split())
    assert reason in message


def test_show_prints_one_response_per_prompt_first_with_every_line_marked(store: Path) -> None:
    text = run(store, "show", "demo", "0", "--generations", "3").stdout
    assert [line for line in text.splitlines() if line.startswith("prompt")] == [
        line for line in text.splitlines() if re.match(r"prompt [012]  helpful 1", line)
    ]
    assert text.count("  > [/bold] plain \\x1b]0;owned\\x07 \\u202egnp.exe") == 3
    assert text.count("  > next: rm -rf /") == 3  # cannot pass for the command's own last line
    assert "KL       0.500±0.050 nats" in text


def test_show_as_json_has_the_same_facts_and_the_texts_unchanged(store: Path) -> None:
    facts = json.loads(run(store, "show", "demo", "0", "-g", "1", "--json").stdout)
    assert facts["weights"] == {"helpful": 1.0, HOSTILE: 0.0}
    assert facts["generations"][0]["response"] == TEXT
    assert "config" not in facts


def test_show_config_prints_what_ran(store: Path) -> None:
    text = run(store, "show", "demo", "0", "-g", "0", "--config").stdout
    assert "definition.method.beta = 0.1" in text and "versions.moalign = 0.1.0" in text


def test_show_of_a_failed_or_waiting_trial_says_so(store: Path) -> None:
    assert "error    reward 'helpful' returned NaN" in run(store, "show", "demo", "2").stdout
    assert "waiting" in run(store, "show", "demo", "3").stdout


def test_unknown_names_and_trials_are_store_problems_with_a_suggestion(store: Path) -> None:
    for arguments in (("front", "dmo"), ("show", "dmo", "0"), ("status", "dmo"), ("report", "dmo"), ("retry", "dmo")):
        result = run(store, *arguments, code=4)
        assert result.stderr.startswith("StoreError: There is no study 'dmo'") and "'demo'" in result.stderr
        assert result.stdout == ""
    assert "its trials are 0 to 3" in run(store, "show", "demo", "9", code=4).stderr


def test_debug_shows_the_stack_wherever_it_stands(store: Path) -> None:
    for arguments in (["--debug", "front", "dmo"], ["front", "dmo", "--debug"]):
        result = CliRunner().invoke(app, [*arguments, "--store", str(store)])
        assert result.exit_code == 4 and "Traceback" in result.stderr
    assert "Traceback" not in run(store, "front", "dmo", code=4).stderr


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ZeroDivisionError("x"), 70, "please report it"),
        (OSError(28, "No space left on device"), 4, "OSError: [Errno 28] No space left on device"),
        (KeyboardInterrupt(), 130, "the same command continues"),
    ],
)
def test_other_errors_have_their_own_codes(
    store: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, said: str
) -> None:
    def fail(self: Store) -> list[str]:
        raise error

    monkeypatch.setattr(Store, "names", fail)
    assert said in run(store, "ls", code=code).stderr


def test_report_writes_one_file(store: Path, tmp_path: Path) -> None:
    out = tmp_path / "out" / "report.html"
    result = CliRunner().invoke(app, ["report", "demo", str(out), "--store", str(store)])
    assert result.exit_code == 0 and result.stdout.strip() == str(out)
    page = out.read_text(encoding="utf-8")
    assert page.startswith("<!DOCTYPE html>") and "[/bold] plain" in page and "\x1b" not in page
    run(store, "report", "demo", str(tmp_path), code=2)


def test_export_writes_an_adapter_and_never_overwrites(store: Path, tmp_path: Path) -> None:
    target = tmp_path / "knee"
    run(store, "export", "demo", "0", str(target))
    assert (target / "adapter_config.json").is_file() and (target / "README.md").is_file()
    assert "not empty" in run(store, "export", "demo", "0", str(target), code=4).stderr
    assert "no finished policy" in run(store, "export", "demo", "3", str(tmp_path / "other"), code=4).stderr


def test_retry_makes_failed_trials_wait_again(store: Path) -> None:
    assert "waiting again: 2" in run(store, "retry", "demo", "--failed").stdout
    assert Store(store).study("demo").trial(2).state == "waiting"
    assert json.loads(run(store, "retry", "demo", "--json").stdout) == {"study": "demo", "trials": []}


def test_retry_leaves_a_running_study_alone(store: Path) -> None:
    with Store(store).study("demo").drive():
        assert run(store, "retry", "demo", code=4).stderr.startswith("StudyBusyError")


def test_doctor_finds_and_repairs_a_damaged_trial(store: Path) -> None:
    assert "study     demo: intact" in run(store, "doctor").stdout
    with (store / "demo" / "trials" / "0001" / "generations.jsonl").open("ab") as stream:
        stream.write(b"flipped")
    damaged = run(store, "doctor", code=4)
    assert "1 problem" in damaged.stdout and "moalign doctor --repair" in damaged.stdout
    assert "repaired" in run(store, "doctor", "--repair").stdout
    assert Store(store).study("demo").trial(1).state == "waiting"
    facts = json.loads(run(store, "doctor", "--json").stdout)
    assert facts["packages"]["torch"] and facts["disk"]["store"]["free_gigabytes"] > 0


def test_numbers_without_a_value_are_null(store: Path) -> None:
    from moalign.cli.output import plain

    assert plain({"a": float("nan"), "b": np.array([1.0, np.inf])}) == {"a": None, "b": [1.0, None]}
