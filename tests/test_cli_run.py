"""Study files and the commands that run them, from the first line to the exit code."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from moalign.cli import app
from moalign.cli.study_file import load_study
from moalign.errors import DataError, DefinitionError
from tests.models import tiny_model, tiny_tokenizer

MOALIGN = (sys.executable, "-c", "from moalign.cli import main; main()")
HEAVY = ("torch", "transformers", "pandas", "scipy", "plotly", "numpy")
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")

STUDY = """
import os
import moalign as ma
from moalign.methods import MODPO
from helper import vowels_of

CALLS = []

def length(prompts, responses):
    return [len(text) / 10 for text in responses]

def vowels(prompts, responses):
    CALLS.append(1)
    broken = len(CALLS) == int(os.environ.get("FAIL_AT", 0))
    return [float("nan") if broken else vowels_of(text) for text in responses]

def build(*, steps=STEPS, beta=0.5):
    return ma.Study(
        name="tiny",
        problem=ma.Problem(
            policy=ma.Policy("model"),
            objectives=(ma.Objective("length", reward=length), ma.Objective("vowels", reward=vowels)),
            prompts=["hello", "what", "b c d", "a"],
        ),
        method=MODPO(
            beta=beta,
            sampled=ma.SampledPairs(sampling=ma.Sampling(samples=4, max_new_tokens=8)),
            training=ma.Training(steps=steps, batch_size=4, learning_rate=1e-2, lora=ma.LoRA(rank=2)),
        ),
        weights=ma.grid(2, steps=2),
        evaluation=ma.Evaluation(
            prompts=["new", "old one", "x"], samples=2, max_new_tokens=8,
            reference_point={"length": -5.0, "vowels": -5.0},
        ),
        seed=3,
    )

study = build()
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a model, a study file and a module beside it."""
    tiny_model().save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    (tmp_path / "helper.py").write_text("def vowels_of(text):\n    return float(sum(c in 'aeiou' for c in text))\n")
    write_study(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))  # study files add their folder
    monkeypatch.delitem(sys.modules, "helper", raising=False)
    return tmp_path


def write_study(place: Path, steps: int = 3, **changes: str) -> Path:
    text = STUDY.replace("STEPS", str(steps))
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    file = place / "tiny.py"
    file.write_text(text)
    return file


def here(*arguments: str, code: int = 0) -> Any:
    """Runs a command in this process, which has loaded torch already."""
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == code, result.output
    return result


def moalign(*arguments: str, code: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    done = subprocess.run([*MOALIGN, *arguments], capture_output=True, text=True, env=env)
    assert done.returncode == code, f"{done.stdout}\n{done.stderr}"
    assert not CONTROL.search(done.stdout + done.stderr)
    return done


# ------------------------------------------------------------------------------------------------------------ the start


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom moalign.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        f"print('loaded', [name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "loaded []"


def test_help_takes_less_than_half_a_second() -> None:
    """Processor time, so that a busy machine does not fail the test; the best of three, so that caches are warm."""
    taken = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        moalign("--help")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        taken.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(taken) < 0.5


def test_threads_wait_passively_unless_the_user_says_otherwise() -> None:
    code = (
        "import os, sys\nfrom moalign.cli import main\n"
        "try:\n    main(['--version'])\nexcept SystemExit:\n    pass\n"
        "print(os.environ['OMP_WAIT_POLICY'], os.environ['TOKENIZERS_PARALLELISM'], 'torch' in sys.modules)"
    )
    clean = {k: v for k, v in os.environ.items() if k not in ("OMP_WAIT_POLICY", "TOKENIZERS_PARALLELISM")}
    for given, policy in (({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE")):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**clean, **given})
        assert done.stdout.splitlines()[-1] == f"{policy} false False"


def test_every_command_explains_itself_and_wrong_ones_are_usage_errors() -> None:
    commands = "demo init run check ls status show front report export retry doctor".split()
    listed = CliRunner().invoke(app, ["--help"]).stdout
    for name in commands:
        assert f" {name} " in listed
        result = CliRunner().invoke(app, [name, "--help"])
        assert result.exit_code == 0 and "Usage: " in result.stdout
    for arguments in (["rn"], ["run"], ["show", "demo", "x"], ["front", "demo", "--format", "xml"]):
        assert CliRunner().invoke(app, arguments).exit_code == 2


# -------------------------------------------------------------------------------------------------------- a study file


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("import moalign as ma\nx = (\n", r"bad.py line 2: '\(' was never closed"),
        ("def f():\n    return missing\n\nf()\n", r"bad.py line 2: NameError: name 'missing' is not defined"),
        ("import sys\nsys.exit('no')\n", r"bad.py line 2 ended Python by exit|bad.py line 2 calls exit"),
        ("x = 1\n", r"bad.py defines no study"),
        ("study = [1]\n", r"`study` of bad.py is a list"),
        ("def build(steps):\n    return 1\n", r"bad.py: TypeError: build\(\) missing 1 required"),
        ("import json\njson.loads('{')\n", r"bad.py line 2: JSONDecodeError"),  # the line of the file, not of json
        ("x = '\x00'\n", r"bad.py"),
    ],
)
def test_a_file_without_a_usable_study_is_refused_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, reason: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bad.py").write_text(text)
    with pytest.raises(DefinitionError, match=reason):
        load_study(Path("bad.py"))


@pytest.mark.parametrize(
    ("name", "reason"), [("none.py", "does not exist"), (".", "is a folder"), ("a.txt", "no Python")]
)
def test_a_place_that_is_no_study_file_is_refused(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(DefinitionError, match=reason):
        load_study(tmp_path / name)


def test_an_error_of_moalign_keeps_its_kind_and_gets_the_line(tmp_path: Path) -> None:
    file = tmp_path / "data.py"
    file.write_text("import moalign as ma\n\nma.load_prompts('absent.jsonl')\n")
    with pytest.raises(DataError, match="absent.jsonl") as caught:
        load_study(file)
    assert caught.value.__notes__ == [f"in {file} line 3"]
    result = CliRunner().invoke(app, ["run", str(file)])
    assert result.exit_code == 3 and result.stderr.startswith("DataError: absent.jsonl")
    assert f"in {file} line 3" in result.stderr


def test_a_study_is_found_as_a_name_or_built_and_imports_its_neighbours(place: Path) -> None:
    assert load_study(place / "tiny.py").name == "tiny"
    write_study(place, **{"study = build()": ""})
    assert load_study(place / "tiny.py").seed == 3


def test_a_study_file_has_the_same_fingerprint_as_when_it_is_run_itself(place: Path) -> None:
    """Otherwise `python tiny.py` and `moalign run tiny.py` would refuse to continue each other."""
    with (place / "tiny.py").open("a") as stream:
        stream.write("\nif __name__ == '__main__':\n    from moalign.store import fingerprint\n")
        stream.write("    print(fingerprint(study.describe()))\n")
    from moalign.store import fingerprint

    script = subprocess.run([sys.executable, "tiny.py"], capture_output=True, text=True, check=True, cwd=place)
    assert script.stdout.strip() == fingerprint(load_study(Path("tiny.py")).describe())


def test_init_writes_a_study_and_never_overwrites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["init", "helpful-harmless"])
    assert result.exit_code == 0 and "moalign run studies/helpful-harmless.py" in result.stdout
    text = Path("studies/helpful-harmless.py").read_text()
    compile(text, "study", "exec")
    assert "STUDY_NAME" not in text and 'name: str = "helpful-harmless"' in text
    again = CliRunner().invoke(app, ["init", "helpful-harmless"])
    assert again.exit_code == 3 and "exists" in again.stderr
    assert Path("studies/helpful-harmless.py").read_text() == text
    for name in ("../up", "a b", ".hidden", "-x", ""):
        assert CliRunner().invoke(app, ["init", "--", name]).exit_code == 2


def test_a_device_that_is_not_there_is_a_usage_error(place: Path) -> None:
    for device in ("nonsense", "cuda:99"):
        result = CliRunner().invoke(app, ["run", "tiny.py", "--device", device])
        assert result.exit_code == 2 and "cannot be used" in result.stderr
    assert not (place / "runs").exists()


# ------------------------------------------------------------------------------------------------------------- running


@pytest.mark.slow
def test_run_prints_the_outcome_and_running_again_changes_nothing(place: Path) -> None:
    first = moalign("run", "tiny.py", "--json")
    facts = json.loads(first.stdout)
    assert facts["points"] == 3 and facts["failed"] == [] and facts["study"] == "tiny"
    assert (place / facts["report"]).is_file()
    assert [line.split("  ")[0] for line in first.stderr.splitlines() if "#" in line] == ["1/3", "2/3", "3/3"]
    again = moalign("run", "tiny.py")
    assert "3 of 3 policies are done already" in again.stderr and "training" not in again.stderr
    assert again.stdout.splitlines()[0].startswith("trial") and "next: moalign show tiny" in again.stdout
    quiet = moalign("run", "tiny.py", "--json", "--quiet")
    assert quiet.stderr == ""
    assert {**json.loads(quiet.stdout), "seconds": 0} == {**facts, "seconds": 0}


@pytest.mark.slow
def test_a_failing_reward_fails_its_trial_and_can_be_retried(place: Path) -> None:
    """Calls of the reward: reference, sampled pairs, then one per policy; the fourth belongs to trial 1."""
    failed = moalign("run", "tiny.py", code=1, FAIL_AT="4")
    assert "failed #1  reward 'vowels' returned NaN" in failed.stderr
    assert "next: moalign retry tiny --failed" in failed.stdout
    assert "failed   #1  reward 'vowels' returned NaN" in moalign("status", "tiny").stdout
    assert "waiting again: 1" in moalign("retry", "tiny", "--failed").stdout
    assert "3/3  #1" in moalign("run", "tiny.py").stderr
    assert moalign("status", "tiny").stdout.startswith("tiny: finished")


@pytest.mark.slow
def test_ctrl_c_saves_and_the_same_command_continues_as_if_nothing_had_happened(place: Path) -> None:
    write_study(place, steps=300)
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [*MOALIGN, "run", "tiny.py"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("training"):
                break
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Interrupted" in said and "Traceback" not in said
    resumed = moalign("run", "tiny.py").stderr
    assert "step 1/300" not in resumed and "done  3 policies" in resumed
    moalign("run", "tiny.py", "--store", "unbroken")
    assert (place / "runs/tiny/front.csv").read_text() == (place / "unbroken/tiny/front.csv").read_text()


@pytest.mark.slow
def test_a_changed_definition_is_refused_and_can_be_forked(place: Path) -> None:
    here("run", "tiny.py", "--quiet")
    write_study(place, **{"beta=0.5": "beta=0.25"})
    refused = here("run", "tiny.py", code=4)
    assert "StudyChangedError" in refused.stderr and "method.beta: 0.5 -> 0.25" in refused.stderr
    assert "moalign run tiny.py --fork" in refused.stderr
    assert json.loads(here("run", "tiny.py", "--fork", "--json").stdout)["study"] == "tiny-2"


@pytest.mark.slow
def test_a_policy_of_a_run_is_exported_as_it_was_trained(place: Path) -> None:
    here("run", "tiny.py", "--quiet")
    here("export", "tiny", "1", "out")
    weights = "adapter_model.safetensors"
    assert (place / "out" / weights).read_bytes() == (place / "runs/tiny/trials/0001/adapter" / weights).read_bytes()


@pytest.mark.slow
def test_check_tries_everything_and_keeps_nothing(place: Path) -> None:
    text = here("check", "tiny.py").stdout
    assert "no problems found" in text
    for fact in ("policy", "prompts", "rewards", "adapters", "time"):
        assert re.search(rf"^{fact} ", text, re.MULTILINE)
    facts = json.loads(here("check", "tiny.py", "--json").stdout)
    assert facts["problems"] == [] and facts["adapters"]["policies"] == 3
    assert facts["prompts"]["training"] == 4 and facts["prompts"]["held_out"] == 3
    assert facts["time"]["evaluation_responses"] == (3 + 1) * 3 * 2  # policies and reference, prompts, samples
    assert not (place / "runs").exists()


@pytest.mark.slow
def test_check_lists_every_problem(place: Path) -> None:
    """A prompt of 125 characters and its first token leave no room for 8 more in a context of 128."""
    write_study(place, **{'"new"': '"n" * 125'})
    failed = here("check", "tiny.py", code=3)
    assert "1 of 3 held-out prompts leave no room for 8 new tokens" in failed.stderr
    write_study(place, **{"return [len(text) / 10 for text in responses]": "return [[1.0, 2.0]] * len(responses)"})
    failed = here("check", "tiny.py", "--json", code=3)
    assert "reward 'length' returned shape (2, 2) for 2 texts" in failed.stderr
    assert len(json.loads(failed.stdout)["problems"]) == 1
    write_study(place, **{"seed=3": "seed=-3"})
    failed = here("check", "tiny.py", "--json", code=3)
    assert "seed must be" in json.loads(failed.stdout)["problems"][0]


# ---------------------------------------------------------------------------------------------------- embedded problem


@pytest.mark.slow
def test_demo_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo at a hundredth of its size is no good demo, and says so; all that is printed must fit together."""
    import moalign.demo

    tiny: Callable[..., Any] = partial(moalign.demo.toy_study, steps=4, weight_steps=1, pairs=64, samples=2)
    monkeypatch.setattr(moalign.demo, "toy_study", tiny)
    arguments = ["demo", "--store", str(tmp_path)]
    first = CliRunner().invoke(app, [*arguments, "--json"])
    assert first.exit_code == 0, first.output
    facts = json.loads(first.stdout.splitlines()[-1])
    assert facts["points"] == 3 and facts["resumed"] is False
    assert facts["ratio"] == pytest.approx(facts["hypervolume"] / facts["oracle_hypervolume"])
    assert facts["gain_share_min"] <= facts["gain_share_mean"] <= 1.0
    assert facts["below_floor"] and facts["gain_share_mean"] < 0.9
    page = Path(facts["report"]).read_text(encoding="utf-8")
    assert "exact optimum" in page
    again = CliRunner().invoke(app, arguments)
    assert again.exit_code == 0 and "comparing" not in again.stderr
    assert "NOT AS GOOD AS IT SHOULD BE" in again.stdout and "share of the gain" in again.stdout
    repeated = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout.splitlines()[-1])
    same = ("hypervolume", "ratio_exact", "gain_share_min", "mass_min")
    assert repeated["resumed"] and all(repeated[name] == facts[name] for name in same)
    other = CliRunner().invoke(app, [*arguments, "--seed", "1"])
    assert other.exit_code == 4 and "--name demo-seed-1" in other.stderr


@pytest.mark.slow
def test_the_study_of_init_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    CliRunner().invoke(app, ["init", "mine"])
    file = Path("studies/mine.py")
    file.write_text(file.read_text().replace("steps: int = 150, samples: int = 8", "steps: int = 2, samples: int = 1"))
    result = CliRunner().invoke(app, ["run", str(file), "--json", "--quiet"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["points"] == 6
