"""The tiny language model as an ordinary Hugging Face folder, trained once per machine and kept in the user's cache.

A folder's name is a hash of everything that determines its content: grammar, split, recipe, seed, format. Its files are
checked against their SHA-256 whenever it is asked for, and made anew when one is damaged. It appears by one rename, so
two processes that train it at the same time both end with a complete one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np

from moalign.arrays import FloatArray
from moalign.data.toy import grammar
from moalign.data.toy.grammar import all_prompts, require_stated, split
from moalign.data.toy.log_probs import log_probs_table
from moalign.data.toy.model import OnStep, ToyRecipe, train_toy
from moalign.errors import ArtefactError, ModelError
from moalign.store.artefacts import MANIFEST, clear_leftovers, publish, verify
from moalign.store.cache import CACHE_VARIABLE, cache_root

FORMAT: Final = 1  # raised by whoever changes how the model is trained or stored, so that old folders are not used
TABLE: Final = "log_probs.npy"
DAY: Final = 86_400.0  # seconds


def toy_model_folder(
    seed: int = 0,
    cache_dir: str | Path | None = None,
    *,
    recipe: ToyRecipe | None = None,
    on_step: OnStep | None = None,
) -> Path:
    """Returns the folder of the trained model: config.json, model.safetensors, tokenizer.json and toy.json.

    Trains when the folder is missing or damaged (half a minute on one core), on the training prompts of `split(seed)`.

    Args:
        seed: of the split, the initial weights and the batches.
        cache_dir: where folders are kept; the variable MOALIGN_CACHE_DIR or the user's cache folder when None.
        recipe: how the model is made; the default recipe when None.
        on_step: called with (steps done, steps in all, loss in nats per token) while training.

    Raises:
        ModelError: the recipe does not reach its `min_mass`, or the cache folder cannot be written.
    """
    recipe = ToyRecipe() if recipe is None else recipe

    def fill(folder: Path) -> None:
        toy = train_toy(split(seed), recipe, seed, on_step)
        toy.model.save_pretrained(folder)
        toy.tokenizer.save_pretrained(folder)
        facts = {
            "seed": seed,
            "attempt": toy.attempt,
            "held_out_mass": toy.held_out_mass,
            "held_out_kl": toy.held_out_kl,
            "recipe": asdict(recipe),
        }
        (folder / "toy.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")

    return _cached(_root(cache_dir) / f"lm-{_key(seed, recipe)}", fill)


def base_log_probs(
    seed: int = 0,
    prompts: Sequence[str] | None = None,
    cache_dir: str | Path | None = None,
    *,
    recipe: ToyRecipe | None = None,
) -> FloatArray:
    """Returns `log_probs_table` of the trained model, [prompts, 256], in nats, not normalised; kept beside the model.

    Args:
        seed: of the model.
        prompts: of the 96; all of them, in the order of `all_prompts`, when None.
        cache_dir: as for `toy_model_folder`.
        recipe: as for `toy_model_folder`.

    Raises:
        DefinitionError: a prompt that is not one of the 96.
        ModelError: as for `toy_model_folder`.
    """
    every = all_prompts()
    wanted = every if prompts is None else prompts
    for prompt in wanted:
        require_stated(prompt)
    model = toy_model_folder(seed, cache_dir, recipe=recipe)
    # named after the model's manifest: a model that was trained anew, perhaps by another torch, gets its own table
    digest = hashlib.sha256((model / MANIFEST).read_bytes()).hexdigest()[:16]
    folder = _cached(model.with_name(f"log-probs-{digest}"), lambda new: np.save(new / TABLE, _table(model)))
    table = np.load(folder / TABLE, allow_pickle=False)
    return np.asarray(table[[every.index(prompt) for prompt in wanted]])


def _table(folder: Path) -> FloatArray:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **local)
    return log_probs_table(model.eval(), AutoTokenizer.from_pretrained(folder, **local), all_prompts())


def _cached(folder: Path, fill: Callable[[Path], None]) -> Path:
    """Returns `folder`, filled by `fill` if it is missing or damaged."""
    if _intact(folder):
        return folder
    try:
        if folder.parent.is_dir():
            clear_leftovers(folder.parent, deep=False, older_than=DAY)
        with publish(folder, guard=lambda: _unless_intact(folder)) as new:
            fill(new)
    except OSError as error:
        if _intact(folder):  # another process was faster; both made the same
            return folder
        raise ModelError(
            f"The toy language model cannot be kept in {folder.parent}: {error}. "
            f"Set {CACHE_VARIABLE} to a folder that can be written."
        ) from error
    return folder


@contextmanager
def _unless_intact(folder: Path) -> Iterator[None]:
    # replacing a complete folder would pull it away under a process that is just loading it
    if _intact(folder):
        raise FileExistsError(f"{folder} is complete already")
    yield


def _intact(folder: Path) -> bool:
    try:
        verify(folder)
    except ArtefactError:
        return False
    return True


def _root(cache_dir: str | Path | None) -> Path:
    return cache_root(cache_dir) / "toy"


def _key(seed: int, recipe: ToyRecipe) -> str:
    known = {
        "format": FORMAT,
        "sentences": [grammar.apology_for("item"), grammar.CLOSING, grammar.NO_STEP],
        "complaints": [asdict(complaint) for complaint in grammar.COMPLAINTS],
        "probabilities": [
            grammar.APOLOGY_PROBABILITY,
            grammar.CLOSING_PROBABILITY,
            grammar.RIGHT_PROBABILITY,
            grammar.WRONG_PROBABILITY,
        ],
        "split": asdict(split(seed)),
        "recipe": asdict(recipe),
        "seed": seed,
    }
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:16]
