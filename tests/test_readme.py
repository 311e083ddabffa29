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
    """Counts and words are equal; sampled values may differ in the last digit between processors."""
    done = subprocess.run([sys.executable, "-c", block("python")], capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    printed, stated = done.stdout.strip(), block("text").strip()
    assert re.sub(r"\s+", " ", NUMBER.sub("#", printed)) == re.sub(r"\s+", " ", NUMBER.sub("#", stated))
    numbers = [[float(n) for n in NUMBER.findall(text)] for text in (printed, stated)]
    assert numbers[0] == pytest.approx(numbers[1], abs=0.15)


def test_the_set_up_commands_are_those_of_ci() -> None:
    test_command = next(line for line in README.splitlines() if "pytest -q" in line and line.startswith("python3"))
    assert test_command in (ROOT / ".ci" / "run").read_text()


def test_the_study_example_is_valid_python_with_public_names_only() -> None:
    import moalign

    example = block("python", 1)
    compile(example, "README.md", "exec")
    used = set(re.findall(r"\bma\.(\w+)", example))
    assert used <= set(moalign.__all__), used - set(moalign.__all__)
