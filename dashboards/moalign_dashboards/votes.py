"""Blind votes: which response is better, without knowing whose it is. One JSON object per line, outside the store."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from moalign.errors import MoalignError
from moalign_dashboards.library import Library

CHOICES = ("left", "right", "tie", "neither")
_SECRET = os.urandom(16)  # sides cannot be predicted, and stay as they are while the server runs
_WRITING = threading.Lock()


class VoteError(MoalignError):
    """A vote that does not name two trials, a prompt and a choice."""


def votes_file(folder: Path, study: str) -> Path:
    """Returns where the votes of a study are written."""
    return folder / f"{study}.jsonl"


def swapped(study: str, a: int, b: int, prompt: Any, sample: Any) -> bool:
    """Returns whether trial `b` is shown at the left, for the blind comparison of one prompt and sample."""
    low, high = sorted((a, b))
    text = json.dumps([study, low, high, prompt, sample])
    lower_left = hashlib.sha256(_SECRET + text.encode()).digest()[0] % 2 == 0
    return lower_left != (a == low)


def record_vote(library: Library, folder: Path, given: Any) -> dict[str, Any]:
    """Adds a vote to the study's file and returns it, now that it may be known which trial was where.

    Args:
        library: where the study must exist.
        folder: of the votes; made when missing.
        given: study, a, b, prompt, sample, choice ("left", "right", "tie" or "neither").

    Raises:
        VoteError: something is missing or unknown.
        StoreError: no such study or trial.
        OSError: the file cannot be written.
    """
    vote = _checked(given)
    records = library.records(vote["study"])
    for trial in (vote["a"], vote["b"]):
        records.trial(trial)
    at = (vote["study"], vote["a"], vote["b"], vote["prompt"], vote["sample"])
    left, right = (vote["b"], vote["a"]) if swapped(*at) else (vote["a"], vote["b"])
    line = {
        "time": time.time(),
        "study": vote["study"],
        "fingerprint": records.fingerprint,
        "prompt_index": vote["prompt"],
        "sample": vote["sample"],
        "left": left,
        "right": right,
        "choice": vote["choice"],
        "winner": {"left": left, "right": right}.get(vote["choice"]),
    }
    path = votes_file(folder, vote["study"])
    with _WRITING:
        folder.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line, allow_nan=False) + "\n")
    return line


def read_votes(folder: Path, study: str) -> list[dict[str, Any]]:
    """Returns the votes of a study; lines that are no votes are left out."""
    path = votes_file(folder, study)
    if not path.is_file():
        return []
    votes = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            vote = json.loads(line)
        except ValueError:
            continue
        if isinstance(vote, dict):
            votes.append(vote)
    return votes


def _checked(given: Any) -> dict[str, Any]:
    if not isinstance(given, Mapping):
        raise VoteError("A vote is a JSON object with study, a, b, prompt, sample and choice.")
    numbers = [name for name in ("a", "b", "prompt", "sample") if type(given.get(name)) is not int or given[name] < 0]
    if numbers or not isinstance(given.get("study"), str):
        raise VoteError(f"A vote needs a study's name and whole numbers >= 0; wrong: {', '.join(numbers) or 'study'}.")
    if given.get("choice") not in CHOICES:
        raise VoteError(f"A vote's choice is one of {', '.join(CHOICES)}.")
    if given["a"] == given["b"]:
        raise VoteError("A vote compares two different trials.")
    return {name: given[name] for name in ("study", "a", "b", "prompt", "sample", "choice")}
