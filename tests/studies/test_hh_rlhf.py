"""The helpful-harmless study: its data, what it says without it, and a tiny run on long made-up conversations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import moalign as ma
from moalign.figures import Calibration
from moalign.policy.engine import Engine
from studies import hh_rlhf as study_file
from tests.tiny import save_model

ROOT = Path(study_file.__file__).resolve().parents[1]
real = pytest.mark.skipif(
    not (ROOT / study_file.MODEL).is_dir() or not (ROOT / study_file.DATA).is_dir(),
    reason="needs the model stories260K and the HH-RLHF pairs; see studies/hh_rlhf.py",
)


def conversation(number: int, objective: str) -> dict[str, Any]:
    """Returns a made-up pair: every third has a long prompt and every fourth a long reply, for a context of 128."""
    earlier = [
        {"role": "user", "content": "can you tell me about numbers? " * 6},
        {"role": "assistant", "content": "what about them?\n\nI know \u00e9verything."},
    ]
    prompt = [*(earlier if number % 3 == 0 else []), {"role": "user", "content": f"is {number} {objective}?"}]
    sides = {"chosen": f"yes, {number} is fine.", "rejected": "no " * (41 if number % 4 == 0 else 1)}
    replies = {side: [{"role": "assistant", "content": text}] for side, text in sides.items()}
    return {"id": f"{objective}{number}", "objective": objective, "prompt": prompt, **replies}


@pytest.fixture(scope="module")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Returns folders of a random model and of 8 training and 6 test pairs per objective."""
    model, data = save_model(tmp_path_factory.mktemp("model")), tmp_path_factory.mktemp("pairs")
    for split, numbers in (("train", range(8)), ("test", range(8, 14))):
        rows = [conversation(n, objective) for objective in study_file.OBJECTIVES for n in numbers]
        pd.DataFrame(rows).to_parquet(data / f"human_{split}.parquet")
    return model, data


def tiny(made_up: tuple[Path, Path], **changes: Any) -> ma.Study:
    sizes = {"pairs": 6, "held_out": 2, "reward_steps": 3, "steps": 3, "weight_steps": 2, "new_tokens": 8}
    return study_file.build(*made_up, **{**sizes, **changes})


def test_each_objective_has_its_own_pairs_and_prompts_come_from_the_test_split(made_up: tuple[Path, Path]) -> None:
    study = tiny(made_up)
    assert study.problem.names == ("helpful", "harmless")
    for objective in study.problem.objectives:
        assert len(objective.pairs) == 6
        assert all(str(p).endswith(f"{objective.name}?\n\nAssistant:") for p in objective.pairs.prompts)
    trained_on = {str(p) for objective in study.problem.objectives for p in objective.pairs.prompts}
    assert len(study.evaluation.prompts) == 4
    assert not trained_on & {str(p) for p in study.evaluation.prompts}
    assert study.describe() == tiny(made_up).describe() != tiny(made_up, seed=1).describe()


def test_cut_texts_are_counted(made_up: tuple[Path, Path]) -> None:
    """Of numbers 0 to 7 the prompts of 0, 3 and 6 have more than 128 tokens, the replies of 0 and 4 have 124.

    Prompts are cut down to half of the context at most. Number 4's has 34 tokens and stays whole; its reply is cut.
    """
    study = tiny(made_up, pairs=8)
    engine = Engine(study.problem.policy, device="cpu")
    line = study_file.cuts(engine, "helpful", study.problem.objectives[0].pairs)
    assert line == "helpful: 8 training pairs; 3 of 8 prompts and 2 of 16 responses cut to fit 128 tokens"


def test_absent_folders_are_named_with_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ma.DefinitionError, match="MOALIGN_HH_DATA") as caught:
        study_file.build("nowhere/model", "nowhere/data")
    assert len(caught.value.problems) == 2
    assert study_file.main(["--model", "nowhere/model", "--data", "nowhere/data"]) == 3
    assert "The data folder nowhere/data does not exist" in capsys.readouterr().err


@pytest.mark.slow
def test_the_whole_study_runs_continues_and_reports(made_up: tuple[Path, Path], tmp_path: Path) -> None:
    study = tiny(made_up)
    front = ma.run(study, store=tmp_path)
    assert len(front) == 3 and np.isfinite(front.F).all() and (front.KL > 0).all()
    again = ma.run(study, store=tmp_path)
    assert np.array_equal(front.F, again.F)
    text = study_file.report(study, again)
    judged = Calibration.load(tmp_path / study.name)
    assert judged is not None and [(r.name, r.comparisons) for r in judged.rewards] == [("helpful", 6), ("harmless", 6)]
    assert text.count("of 6 pairs") == 6 and "hypervolume" in text
    # numbers 8 and 12 have a long rejected reply; in the other four of six pairs the chosen one is longer
    assert text.count("longer reply     on") == 2 and text.count("0.667") >= 2
    assert "can you tell me" not in text and "is fine" not in text  # no text of the data is printed


@real
@pytest.mark.slow
def test_a_few_steps_on_real_conversations(tmp_path: Path) -> None:
    study = study_file.build(pairs=4, held_out=2, judged=4, reward_steps=1, steps=1, weight_steps=1, new_tokens=16)
    front = ma.run(study, store=tmp_path)
    assert len(front) == 2 and np.isfinite(front.F).all() and (front.KL > 0).all()
