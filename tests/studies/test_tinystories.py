"""The story study: its rewards by hand, its prompts, what it says without its data, and a tiny run of the whole."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import moalign as ma
from studies import tinystories as study_file
from tests.tiny import save_model

ROOT = Path(study_file.__file__).resolve().parents[1]
STORIES = [
    "once upon a time, there was a big dog. he was happy and ran home.",
    "one day, lily saw a red ball. she said, \"hello ball\" and smiled.",
    "the sun was warm and the cat was sad. it cried all day.",
    "a boy named ben had a kind mom. they played in the park.",
    "tim and sue are friends. \"let us play\" said tim. \"yes\" said sue.",
    "it was a cold day, and the bird could not fly. a girl helped it.",
]  # fmt: skip
real = pytest.mark.skipif(
    not (ROOT / study_file.MODEL / "config.json").is_file()
    or not (ROOT / study_file.DATA / "tinystories_train.parquet").is_file(),
    reason="needs the model stories260K and the stories; see studies/tinystories.py",
)


@pytest.fixture(scope="module")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Returns folders of a random model and of made-up stories; no held-out opening is a training opening."""
    model, data = save_model(tmp_path_factory.mktemp("model")), tmp_path_factory.mktemp("stories")
    pd.DataFrame({"text": STORIES}).to_parquet(data / "tinystories_train.parquet")
    held_out = [STORIES[0], *(f"so {story}" for story in STORIES)]
    pd.DataFrame({"text": held_out}).to_parquet(data / "tinystories_valid.parquet")
    return model, data


def tiny(made_up: tuple[Path, Path], **changes: Any) -> ma.Study:
    sizes = {"prompts": 4, "held_out": 3, "steps": 2, "samples": 3, "new_tokens": 12}
    return study_file.build(*made_up, **{**sizes, **changes})


# -------------------------------------------------------------------------------------------------------------- rewards


def test_warm_counts_kind_minus_unkind_words() -> None:
    """happy + friend - sad = 1; nothing; 'unhappy' and 'saddle' are other words; capitals do not matter."""
    warm = study_file.REWARDS["warm"]
    texts = ["He was happy. His friend was sad.", "The tree is tall.", "unhappy saddle", "HAPPY, Glad!", "cried, cried"]
    assert warm([""] * 5, texts) == [1, 0, 0, 2, -2]


def test_word_lists_are_lower_case_and_do_not_overlap() -> None:
    both = study_file.KIND_WORDS + study_file.UNKIND_WORDS
    assert len(set(both)) == len(both) and all(word.islower() and word.isalpha() for word in both)


@pytest.mark.parametrize(
    ("prompt", "response", "count"),
    [
        ("One day", ' she said, "Hi!" and he said, "No."', 2),
        ("One day", ' she said, "Hi! I am', 0),  # never closed
        ("One day", ' she said, "Hi!" and "', 1),
        ("One day", ' "" " "', 0),  # nothing said
        ('She said, "Come', ' here." He said, "Yes."', 1),  # closing the prompt's passage is no passage of its own
        ('She said, "Come', " here", 0),
        ('"Hi," she said.', ' "Hi," he said.', 1),
        ("One day", "", 0),
    ],
)
def test_dialogue_counts_passages_that_the_response_opens_and_closes(prompt: str, response: str, count: int) -> None:
    assert study_file.closed_quotations([prompt], [response]) == [count]


@pytest.mark.parametrize(
    ("response", "length"),
    [
        (" ran home. He was tired!", 2.5),  # 2 and 3 words
        (" ran home. He was", 2.0),  # what is cut off counts as a sentence
        (" it wasn't far ... Why?", 2.0),  # 3 and 1; dots without words are no sentences
        ("", 0.0),
        ("!!", 0.0),
    ],
)
def test_long_is_words_per_sentence(response: str, length: float) -> None:
    assert study_file.words_per_sentence([""], [response]) == [length]


def test_rewards_are_clipped_and_in_standard_deviations() -> None:
    """Five kind words are clipped to 4; (4 - mean) / scale."""
    mean, scale = study_file.MOMENTS[study_file.NEW_TOKENS]["warm"]
    [value] = study_file.standardised("warm")([""], ["happy " * 5])
    assert value == pytest.approx((4 - mean) / scale)


# -------------------------------------------------------------------------------------------------------------- prompts


def test_an_opening_ends_at_the_last_word_border_within_20_tokens() -> None:
    """One token per character and one for the beginning leave 19 characters: 'Once upon a time,' has 17."""
    count = lambda text: len(text) + 1  # noqa: E731
    assert study_file.opening("Once upon a time, there was", count) == "Once upon a time,"
    assert study_file.opening("Abcdefghijklmnopq r s", count) == "Abcdefghijklmnopq r"  # 19 exactly
    assert study_file.opening("Abcdefghijklmnopqrstuvw x", count) == ""


def test_held_out_prompts_are_no_training_prompts(made_up: tuple[Path, Path]) -> None:
    train, held_out = study_file.prompt_sets(ma.Policy(made_up[0]), made_up[1])
    assert len(train) == 6 and len(held_out) == 6  # the seventh held-out story begins like a training story
    assert not set(train) & set(held_out)


def test_seeds_choose_training_prompts_and_tuning_looks_elsewhere(
    made_up: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study_file, "HELD_OUT", 3)
    one, other, tuning = tiny(made_up), tiny(made_up, seed=1), tiny(made_up, tuning=True)
    assert set(one.problem.prompts) != set(other.problem.prompts)
    assert list(one.evaluation.prompts) == list(other.evaluation.prompts)
    assert not set(one.evaluation.prompts) & set(tuning.evaluation.prompts)
    assert len({one.name, other.name, tuning.name}) == 3
    assert one.describe() == tiny(made_up).describe()


def test_unknown_words_are_in_no_story_and_not_in_the_prompt() -> None:
    """'blorp' is unknown in the first text (1 of 3 whole words; the last may be cut), known from the prompt below."""
    vocabulary = {"the", "dog", "ran"}
    assert study_file.unknown_words(["a"], ["The dog blorp ran"], vocabulary) == pytest.approx(1 / 3)
    assert study_file.unknown_words(["A blorp"], ["the dog blorp ran"], vocabulary) == 0
    assert study_file.unknown_words(["a"], [""], vocabulary) == 0


# ------------------------------------------------------------------------------------------------------- absent folders


def test_absent_folders_are_named_with_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ma.DefinitionError, match="MOALIGN_STORY_MODEL") as caught:
        study_file.build("nowhere/model", "nowhere/data")
    assert len(caught.value.problems) == 2 and "MOALIGN_STORY_DATA" in caught.value.problems[1]
    assert study_file.main(["--model", "nowhere/model", "--data", "nowhere/data"]) == 3
    assert "nowhere/model has no config.json" in capsys.readouterr().err


def test_folders_come_from_arguments_then_the_environment(
    made_up: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOALIGN_STORY_MODEL", str(made_up[0]))
    monkeypatch.setenv("MOALIGN_STORY_DATA", "nowhere")
    assert study_file.folders(None, made_up[1]) == made_up
    with pytest.raises(ma.DefinitionError, match="nowhere"):
        study_file.folders(None, None)


def test_importing_the_file_looks_for_nothing() -> None:
    """Without the folders the import succeeds; only build() needs them."""
    code = "import os; os.environ['MOALIGN_STORY_MODEL'] = 'nowhere'; import studies.tinystories"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True)


# ------------------------------------------------------------------------------------------------------------ the whole


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::moalign.errors.NumericsWarning")  # a random model lies below the stories' corner
def test_the_whole_study_runs_continues_and_reports(made_up: tuple[Path, Path], tmp_path: Path) -> None:
    study = tiny(made_up)
    front = ma.run(study, store=tmp_path)
    assert len(front) == 10 and front.objectives == ("warm", "dialogue", "long")
    steps: list[int] = []

    class Watch:
        def on_step(self, *step: Any) -> None:
            steps.append(1)

    again = ma.run(study, store=tmp_path, callbacks=[Watch()])
    assert np.array_equal(front.F, again.F) and not steps
    text = study_file.report(study, again, made_up[1])
    assert text.count("holds") + text.count("FAILS") == 7
    assert sum(line.startswith(("0.", "1.")) for line in text.splitlines()) == 10
    assert "reference" in text and "by chance" in text


@real
@pytest.mark.slow
def test_prompts_of_the_real_stories_end_at_word_borders() -> None:
    model, data = study_file.folders(None, None)
    policy = ma.Policy(model)
    train, held_out = study_file.prompt_sets(policy, data)
    assert len(train) >= 800 and len(held_out) >= study_file.HELD_OUT + 64
    language_model = policy.load("cpu")
    lengths = np.array([len(language_model.encode_prompt(text)) for text in train])
    assert lengths.max() == study_file.PROMPT_TOKENS and np.median(lengths) >= 19
    assert all(any(story.startswith(text) for story in study_file.stories(data, "train")) for text in train[:3])


@real
@pytest.mark.slow
def test_constants_are_those_of_the_base_policy() -> None:
    """400 samples give means within 5 standard errors of .05 and scales within a fifth of those in the file."""
    model, data = study_file.folders(None, None)
    policy = ma.Policy(model)
    train, held_out = study_file.prompt_sets(policy, data)
    found: dict[str, Any] = {}
    exec(study_file.constants(policy, train[::9], held_out[:16], samples=4), found)
    for name, (mean, scale) in study_file.MOMENTS[study_file.NEW_TOKENS].items():
        assert found["MOMENTS"][name][0] == pytest.approx(mean, abs=0.25 * scale)
        assert found["MOMENTS"][name][1] == pytest.approx(scale, rel=0.2)


@real
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::moalign.errors.NumericsWarning")  # short responses have short sentences
def test_a_few_steps_on_the_real_model(tmp_path: Path) -> None:
    study = study_file.build(prompts=8, held_out=6, steps=2, samples=4, new_tokens=24, weight_steps=1)
    front = ma.run(study, store=tmp_path)
    assert len(front) == 3 and (front.KL > 0).all()
    assert all(1.0 < point.columns["reference_loss"] < 1.8 for point in front)  # it writes what stories260K writes
