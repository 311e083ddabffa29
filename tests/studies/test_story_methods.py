"""Every method on the story problem: a tiny run of the whole on made-up stories, and a short one on the real model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

import moalign as ma
from moalign.comparison.sampled import SampledOutcome
from studies import story_methods as study_file
from studies import tinystories
from tests.tiny import save_model

ROOT = Path(study_file.__file__).resolve().parents[1]
real = pytest.mark.skipif(
    not (ROOT / tinystories.MODEL / "config.json").is_file()
    or not (ROOT / tinystories.DATA / "tinystories_train.parquet").is_file(),
    reason="needs the model stories260K and the stories; see studies/tinystories.py",
)
OUTCOME = SampledOutcome(
    method="A", seed=0, at_equal_kl=(0.62, 0.55, 0.70), shares=(0.62,), gain=0.5, gain_error=0.02, kl=1.0,
    hypervolume=(1.0, 0.9, 1.1), effective=30.0, worst={"reference_loss": 1.40, "unknown": 0.02}, policies=10,
    trained=100, generated=50, seconds=2.0, points=((1.0, 0.5),),
)  # fmt: skip


@pytest.fixture(scope="module")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Returns folders of a random model and of made-up stories."""
    model, data = save_model(tmp_path_factory.mktemp("model")), tmp_path_factory.mktemp("stories")
    for split, begin in (("train", ""), ("valid", "so ")):
        texts = [
            f"{begin}the {animal} was {mood} and ran home." for animal in ("dog", "cat") for mood in ("sad", "kind")
        ]
        pd.DataFrame({"text": texts}).to_parquet(data / f"tinystories_{split}.parquet")
    return model, data


def test_a_method_passes_with_its_worst_seed_and_its_own_gates() -> None:
    """A has .62 and .61; B's mean is higher, but its worst seed is below; a gate is that of the best method's."""
    second = replace(OUTCOME, seed=1, at_equal_kl=(0.61, 0.5, 0.7))
    other = [replace(OUTCOME, method="B", seed=s, at_equal_kl=(v, 0.5, 0.9)) for s, v in ((0, 0.9), (1, 0.5))]
    judged = study_file.floors([OUTCOME, second, *other])
    assert [held for _, _, held in judged] == [True, True, True] and judged[0][1] == "A 0.62, 0.61"
    damaged = replace(second, worst={"reference_loss": 1.5, "unknown": 0.02})
    assert [held for _, _, held in study_file.floors([OUTCOME, damaged])] == [True, False, True]
    unreached = replace(second, at_equal_kl=(float("nan"),) * 3)
    assert not study_file.floors([OUTCOME, unreached])[0][2]


def test_methods_that_are_not_known_and_absent_folders_are_named(made_up: tuple[Path, Path]) -> None:
    arena = study_file.Arena(*made_up, prompts=2, held_out=2)
    with pytest.raises(ma.DefinitionError, match="unknown method 'PPO'; the story problem has MODPO, MORLHF"):
        arena.compare(0, ["PPO"])
    with pytest.raises(ma.DefinitionError, match="nowhere has no config.json"):
        study_file.Arena("nowhere", made_up[1])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::moalign.errors.NumericsWarning")  # a random model knows no long sentences
def test_every_method_runs_and_is_judged(
    made_up: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, small in (("NEW_TOKENS", 8), ("SAMPLES", 2), ("CANDIDATES", 8)):
        monkeypatch.setattr(study_file, name, small)
    arena = study_file.Arena(*made_up, store=tmp_path, prompts=4, held_out=3)
    outcomes = arena.compare(0, steps=1)
    assert [o.method for o in outcomes] == list(study_file.contenders())
    assert all(o.policies >= 1 and o.trained > 0 and o.generated > 0 and len(o.points) == 10 for o in outcomes)
    curve = arena.optimum_curve()
    assert len(curve) == 20 and curve[-1][0] > curve[0][0]
    study_file.print_outcomes(outcomes)
    printed = capsys.readouterr().out
    assert all(f"{o.method} " in printed for o in outcomes) and "equal KL" in printed


@real
@pytest.mark.slow
def test_a_few_steps_on_the_real_model_write_what_the_base_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, small in (("NEW_TOKENS", 16), ("SAMPLES", 2), ("CANDIDATES", 16)):
        monkeypatch.setattr(study_file, name, small)
    [found] = study_file.Arena(prompts=8, held_out=6).compare(0, ["MORLHF"], steps=2)
    assert 1.0 < found.worst["reference_loss"] < 1.9 and 0 < found.kl < 0.5 and found.policies == 10
