"""The README is true: its first block runs as printed and prints what stands below it; its commands exist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
NUMBER = re.compile(r"-?\d*\.\d+|-?\d+\.?")


def block(language: str, which: int = 0) -> str:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)[which]


def test_the_first_block_stands_within_25_lines() -> None:
    assert README.split("```python")[0].count("\n") < 25 - 1
    assert README.index("```python") < README.index("```bash")


@pytest.mark.slow
def test_the_first_block_prints_what_the_readme_says() -> None:
    """Counts and words are equal; another processor trains a slightly other tiny model, and so other policies."""
    done = subprocess.run([sys.executable, "-c", block("python")], capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    printed, stated = done.stdout.strip(), block("text").strip()
    assert re.sub(r"\s+", " ", NUMBER.sub("#", printed)) == re.sub(r"\s+", " ", NUMBER.sub("#", stated))
    numbers = [[float(n) for n in NUMBER.findall(text)] for text in (printed, stated)]
    assert numbers[0] == pytest.approx(numbers[1], abs=0.25)


def test_the_set_up_commands_are_those_of_ci() -> None:
    test_command = next(line for line in README.splitlines() if "pytest -q" in line and line.startswith("python3"))
    assert test_command in (ROOT / ".ci" / "run").read_text()


def test_the_study_example_is_valid_python_with_public_names_only() -> None:
    import moalign

    example = block("python", 1)
    compile(example, "README.md", "exec")
    used = set(re.findall(r"\bma\.(\w+)", example))
    assert used <= set(moalign.__all__), used - set(moalign.__all__)


def test_the_example_of_people_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two kinds of users, one of which prefers short replies; a random tiny model stands for both models."""
    import json

    from tests.tiny import save_model

    def write(name: str, rows: list[dict[str, str]]) -> None:
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))

    def answers(user: int, first: int, count: int) -> list[dict[str, str]]:
        sides = [(f"yes {i}", f"yes, and number {i} is fine, too") for i in range(first, first + count)]
        return [dict(user=f"u{user}", chosen=s[user % 2], rejected=s[1 - user % 2]) for s in sides]

    (tmp_path / "models").mkdir()
    for name in ("base", "minilm"):
        save_model(tmp_path / "models" / name)
    write("answers.jsonl", [row for user in range(10, 18) for row in answers(user, 0, 40)])
    write("heldout.jsonl", [row for user in range(10, 18) for row in answers(user, 40, 5)])
    write("five_answers.jsonl", answers(99, 0, 5))
    write("prompts.jsonl", [{"prompt": "hello"}])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MOALIGN_CACHE", str(tmp_path / "cache"))
    names: dict[str, object] = {}
    exec(next(b for b in re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL) if "IdealPoint" in b), names)
    assert names["problem"].names == ("prototype 0", "prototype 1")  # type: ignore[attr-defined]
    assert "u99" in names["pal"].users  # type: ignore[attr-defined]
    assert "worst of 8" in capsys.readouterr().out
