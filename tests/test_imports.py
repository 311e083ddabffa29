"""The house's walls: imports point downwards only, and the light parts stay light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import moalign

ROOT = Path(moalign.__file__).parent
LEVELS = [
    {"errors"},
    {"arrays", "threads"},
    {"weights", "losses", "oracle", "front", "store", "surrogate"},
    {"measures"},
    {"data", "policy", "search"},
    {"rewards"},
    {"problem"},
    {"tokenised"},
    {"scoring"},
    {"preferences", "evaluation", "candidates"},
    {"methods", "callbacks"},
    {"figures"},
    {"study", "results"},
    {"publish", "facts", "rounds", "elicit"},
    {"judging", "groups"},
    {"session"},
    {"driver", "progress"},
    {"demo", "diagnostics", "tuning"},
    {"comparison"},
    {"cli"},
]
LEVEL_OF = {name: level for level, names in enumerate(LEVELS) for name in names}
# Imported inside a function, against the direction, for the user's convenience; each with its reason.
ALLOWED = {
    ("front", "figures"): "Front.plot()",
    ("problem", "candidates"): "Problem.candidates()",
    ("results", "publish"): "Point.export()",
    ("rewards", "problem"): "PersonalRewards.as_objectives()",
}


def imported(file: Path) -> set[tuple[str, bool]]:
    """Returns (part of moalign, whether inside a function) for every import in a file."""
    found = set()
    tree = ast.parse(file.read_text())
    inside = {id(n) for f in ast.walk(tree) if isinstance(f, ast.FunctionDef) for n in ast.walk(f)}
    typing_only = {
        id(n)
        for i in ast.walk(tree)
        if isinstance(i, ast.If) and getattr(i.test, "id", "") == "TYPE_CHECKING"
        for n in ast.walk(i)
    }
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        names = []
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "moalign":
            names = [node.module] if "." in node.module else [f"moalign.{a.name}" for a in node.names]
        elif isinstance(node, ast.Import):
            names = [a.name for a in node.names if a.name.startswith("moalign.")]
        parts = {name.split(".")[1] for name in names}
        found |= {(part, id(node) in inside) for part in parts if not part.startswith("__")}
    return found


@pytest.mark.parametrize("file", sorted(ROOT.rglob("*.py")), ids=lambda f: str(f.relative_to(ROOT)))
def test_imports_point_downwards(file: Path) -> None:
    part = file.relative_to(ROOT).parts[0].removesuffix(".py")
    if part == "__init__":
        return
    assert part in LEVEL_OF, f"{part} has no level; add it to LEVELS and to docs/architecture.md"
    for other, inside in imported(file):
        same = other == part
        downwards = LEVEL_OF[other] < LEVEL_OF[part]
        allowed = inside and (part, other) in ALLOWED
        assert same or downwards or allowed, f"{file.name} imports {other}, which is not below {part}"


def test_the_dashboard_sees_only_store_front_and_figures() -> None:
    folder = ROOT.parent / "dashboards" / "moalign_dashboards"
    files = sorted(folder.rglob("*.py"))
    assert len(files) > 5
    for file in files:
        parts = {part for part, _ in imported(file)}
        assert parts <= {"store", "front", "figures", "errors", "arrays"}, f"{file.name} imports {parts}"


HEAVY = ("torch", "transformers", "peft", "trl", "datasets", "pandas", "scipy", "plotly", "botorch")


@pytest.mark.parametrize("statement", ["import moalign", "import moalign.cli", "import moalign.front, moalign.store"])
def test_light_parts_load_nothing_heavy(statement: str) -> None:
    code = f"import sys; {statement}; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_training_path_needs_nothing_but_torch_until_it_loads_a_model() -> None:
    code = f"import sys, moalign.driver, moalign.policy.engine; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['torch']"


def test_public_names_are_pinned_and_importable() -> None:
    for name in moalign.__all__:
        assert getattr(moalign, name) is not None
    assert sorted(moalign.__all__) == moalign.__all__
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = moalign.nothing  # type: ignore[attr-defined]
