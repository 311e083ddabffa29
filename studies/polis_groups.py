"""Opinion groups from real votes: whether a participant agrees with a statement, from their other votes.

The votes are those of Polis conversations (CC BY 4.0, The Computational Democracy Project). An ideal point of each
participant, between prototypes that the votes decide, predicts the sign of votes that were held out: for participants
whose other votes were seen, and for new ones after 5, 10 and 20 votes. Statements are known by their text and by
themselves (an indicator each): what people said of a statement tells more than its words. Baselines are the sign of the
statement's mean vote, and of its mean within the opinion group that Polis found, which has seen the held-out votes.

    python studies/polis_groups.py --data openData --seeds 0 1 2        about a minute

Political statements by the public, some hostile: the report prints none. The folder is an argument or MOALIGN_POLIS.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import numpy as np

import moalign as ma
from moalign.arrays import FloatArray, IntArray
from moalign.data import Polis, Votes, polis
from moalign.facts import save_people
from moalign.rewards.people.agreement import adjusted_rand

ROOT = Path(__file__).resolve().parents[1]
DATA = "../shared/data/polis"
GIVEN = (5, 10, 20)  # votes of a new participant


@final
@dataclass(frozen=True)
class StatementFeatures:
    """An indicator of each known statement, beside an embedding of its text if there is one."""

    statements: tuple[str, ...]
    embed: Any = None
    places: Mapping[str, int] = field(default_factory=dict, repr=False, metadata={"fingerprint": False})

    def __post_init__(self) -> None:
        object.__setattr__(self, "places", {text: i for i, text in enumerate(self.statements)})

    def __call__(self, texts: Sequence[str]) -> FloatArray:
        """Returns [texts, statements + dim]; new statements have no indicator."""
        known = np.zeros((len(texts), len(self.statements)))
        for row, text in enumerate(texts):
            if text in self.places:
                known[row, self.places[text]] = 1.0
        return known if self.embed is None else np.hstack([known, np.asarray(self.embed(list(texts)))])


@final
@dataclass(frozen=True, kw_only=True)
class Split:
    """Votes without passes: to fit on, held out of the same participants, and of new ones."""

    source: Polis
    fitted: IntArray  # positions of votes
    heldout: IntArray
    new: Mapping[str, IntArray]  # each new participant's votes in random order


@final
@dataclass(frozen=True, kw_only=True)
class Result:
    """Shares of held-out votes whose sign is predicted."""

    seen: float
    statement_mean: float
    group_mean: float
    new: Mapping[int, float]  # by number of votes given
    new_statement_mean: float
    rand_index: float  # of the two likeliest prototypes with Polis' groups, in the largest conversation
    votes: int  # held out
    participants: int  # new
    seconds: float  # CPU, of the fit

    def __str__(self) -> str:
        new = "  ".join(f"{n}: {value:.3f}" for n, value in self.new.items())
        return (
            f"held-out votes {self.seen:.3f} (statement mean {self.statement_mean:.3f}, group mean "
            f"{self.group_mean:.3f})  new participants {new} (statement mean {self.new_statement_mean:.3f})  "
            f"{self.seconds:.0f} s"
        )


def build(
    data: str | Path | Polis | None = None, *, heldout: float = 0.2, new: float = 0.1, least: int = 40, seed: int = 0,
    conversations: Sequence[str] | None = None,
) -> Split:  # fmt: skip
    """Returns the votes of participants whom Polis put into a group, split at random.

    Args:
        data: folder, see `moalign.data.polis`, or what that returns; None: MOALIGN_POLIS or the usual place.
        heldout: share of the votes of known participants that is held out.
        new: share of the participants with enough votes that are kept away from the fit altogether.
        least: votes of a new participant; those after the first 20 are predicted.
        seed: of the split.
        conversations: names of some.
    """
    source = data if isinstance(data, Polis) else polis(folder(data), conversations)
    rng = np.random.default_rng(seed)
    votes = source.votes
    rows = rng.permutation(np.flatnonzero((votes.vote != 0) & (source.groups[votes.user] >= 0)))
    counts = np.bincount(votes.user[rows], minlength=len(votes.users))
    enough = np.flatnonzero(counts >= least)
    chosen = np.sort(rng.permutation(enough)[: round(new * len(enough))])
    known = rows[~np.isin(votes.user[rows], chosen)]
    cut = round(heldout * len(known))
    fresh = {votes.users[i]: rows[votes.user[rows] == i] for i in chosen}
    return Split(source=source, fitted=known[cut:], heldout=known[:cut], new=fresh)


def folder(data: str | Path | None) -> Path | None:
    """Returns where the conversations are."""
    given = data or os.environ.get("MOALIGN_POLIS")
    usual = ROOT / DATA
    return Path(given).expanduser() if given else usual if usual.is_dir() else None


def model(prototypes: int = 4, steps: int = 150) -> ma.rewards.IdealPoint:
    """Returns PAL-A for votes: linear in the indicators, and slow to shrink what few votes say of a statement."""
    return ma.rewards.IdealPoint(
        prototypes=prototypes, loss="logistic", lift=0, learning_rate=0.1, prototype_rate=5e-3, decay=3e-6, starts=2,
        steps=steps,
    )  # fmt: skip


def study(split: Split, settings: Any = None, embed: Any = None, people: str | Path | None = None) -> Result:
    """Returns how well votes are predicted; `embed` may tell statements by their texts as well.

    With `people`, the folder of a study, people.json is written there for the dashboard, with Polis' groups.
    """
    votes = split.source.votes
    started = time.process_time()
    features = StatementFeatures(votes.statements, embed)
    fitted = (settings or model()).fit(votes.select(split.fitted).comparisons(), embed=features)
    seconds = time.process_time() - started
    if people is not None:
        names = {user: f"group {g}" for user, g in zip(votes.users, split.source.groups, strict=True) if g >= 0}
        save_people(fitted, votes.select(split.heldout).comparisons(), people, groups=names)
    mean = baseline(votes, split.fitted, votes.statement)
    group = _group_keys(split.source)
    later = {user: rows[max(GIVEN) :] for user, rows in split.new.items()}
    placed = {n: [_placed(fitted, votes, u, rows[:n], later[u]) for u, rows in split.new.items()] for n in GIVEN}
    rest = np.concatenate(list(later.values())) if later else np.zeros(0, dtype=np.int64)
    return Result(
        seen=fitted.agreement(votes.select(split.heldout).comparisons()).accuracy.value,
        statement_mean=_hits(votes, split.heldout, mean),
        group_mean=_hits(votes, split.heldout, baseline(votes, split.fitted, group, fallback=mean)),
        new={n: float(np.sum(hits) / max(len(rest), 1)) for n, hits in placed.items()},
        new_statement_mean=_hits(votes, rest, mean), rand_index=_recovered(split.source, fitted),
        votes=len(split.heldout), participants=len(split.new), seconds=seconds,
    )  # fmt: skip


def baseline(votes: Votes, fitted: IntArray, keys: IntArray, fallback: FloatArray | None = None) -> FloatArray:
    """Returns the mean vote of each vote's key among the fitted votes, [votes]; without any, the fallback or 0."""
    size = int(keys.max()) + 1
    sums = np.bincount(keys[fitted], weights=votes.vote[fitted], minlength=size)
    counts = np.bincount(keys[fitted], minlength=size)
    means = (sums / np.maximum(counts, 1))[keys]
    absent = np.zeros(len(keys)) if fallback is None else fallback
    return np.where((counts[keys] > 0) & (means != 0), means, absent)


def _group_keys(source: Polis) -> IntArray:
    """Returns a number for each vote's (conversation, group, statement)."""
    votes = source.votes
    triples = np.stack(
        [np.unique(source.conversation, return_inverse=True)[1][votes.user], source.groups[votes.user], votes.statement]
    )
    return np.unique(triples, axis=1, return_inverse=True)[1].ravel()


def _hits(votes: Votes, rows: IntArray, predicted: FloatArray) -> float:
    """Returns the share of votes whose sign is predicted; no sign counts one half."""
    if not len(rows):
        return float("nan")
    return float((0.5 + 0.5 * np.sign(predicted[rows]) * votes.vote[rows]).mean())


def _placed(
    fitted: ma.rewards.PersonalRewards, votes: Votes, user: str, given: IntArray, later: IntArray
) -> float:  # fmt: skip
    """Returns how many later votes are predicted once a new participant is placed by the given ones."""
    placed = fitted.with_user(user, votes.select(given).comparisons())
    found = placed.agreement(votes.select(later).comparisons()).accuracy
    return found.value * found.n


def _recovered(source: Polis, fitted: ma.rewards.PersonalRewards) -> float:
    """Returns the ARI of users' likeliest prototypes with Polis' groups, in the conversation with most users."""
    names, counts = np.unique(source.conversation, return_counts=True)
    largest = names[counts.argmax()]
    places = {name: i for i, name in enumerate(source.votes.users)}
    rows = [i for i, user in enumerate(fitted.users) if source.conversation[places[user]] == largest]
    truth = source.groups[[places[fitted.users[i]] for i in rows]]
    return adjusted_rand(truth, fitted.mixtures[rows].argmax(axis=1))


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the results on some seeds; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder of the conversations")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--prototypes", type=int, default=4)
    asked = parser.parse_args(arguments)
    try:
        source = polis(folder(asked.data))
        for seed in asked.seeds:
            found = study(build(source, seed=seed), model(asked.prototypes))
            print(f"seed {seed}: {found}; ARI with Polis' groups {found.rand_index:.2f}", flush=True)
    except ma.MoalignError as error:
        print(error, file=sys.stderr)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
