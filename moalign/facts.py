"""What a study knows of its data, its rewards and its users, written beside its records for the pages that show it.

`data.json` is written whenever a study runs; `calibration.json` and `people.json` need comparisons that nothing was
fitted on, so they are written by whoever has them: `save_calibration`, `save_people`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from moalign.arrays import FloatArray
from moalign.data.comparisons import Comparisons, load_comparisons
from moalign.data.pairs import PreferencePairs
from moalign.errors import DefinitionError
from moalign.figures.people import Answer, People, User
from moalign.figures.quality import Bin, Calibration, Contradiction, DataFacts, DataSet, RewardQuality
from moalign.figures.sidecar import Fact
from moalign.problem import Problem
from moalign.rewards import metrics
from moalign.rewards.people.agreement import Share
from moalign.rewards.people.personal import PersonalReward, PersonalRewards

SHOWN = 20  # contradictory pairs of a data set that are written out
ANSWERS = 8  # held-out comparisons of a user that are written out


def data_facts(problem: Problem) -> DataFacts | None:
    """Returns what the preference pairs of the objectives hold; None without any."""
    sets = [_data_set(o.name, o.pairs) for o in problem.objectives if o.pairs is not None]
    return DataFacts(sets=sets) if sets else None


def save_known(problem: Problem, folder: str | Path) -> None:
    """Writes what a problem says itself into the folder of a study.

    That is data.json if its objectives have pairs; and people.json, without accuracies, if its rewards are those of a
    model of users and nobody wrote the file with them before.
    """
    facts = data_facts(problem)
    if facts is not None:
        facts.save(folder)
    models = [o.reward.model for o in problem.objectives if isinstance(o.reward, PersonalReward)]
    if models and not (Path(folder) / People.FILE).exists():
        save_people(models[0], None, folder)


def save_calibration(
    rewards: Mapping[str, Callable[..., Any]],
    heldout: PreferencePairs | Mapping[str, PreferencePairs],
    folder: str | Path,
) -> Calibration:
    """Judges rewards on comparisons that they were not fitted on; writes and returns calibration.json.

    A reward difference is read as log-odds of a preference, and every pair in both orders. Intervals of the accuracy
    resample prompts.

    Args:
        rewards: (prompts, responses) -> one number per response, by name; such as `LearnedRewards`.
        heldout: pairs for all of them, or by name.
        folder: of the study.

    Raises:
        DefinitionError: a reward without held-out pairs.
    """
    judged = []
    for name, reward in rewards.items():
        pairs = heldout if isinstance(heldout, PreferencePairs) else heldout.get(name)
        if pairs is None:
            raise DefinitionError(f"heldout has no pairs for the reward {name!r}. Give it some, or leave it out.")
        first, second = (reward(pairs.prompts, side) for side in (pairs.chosen, pairs.rejected))
        gaps = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
        judged.append(reward_quality(name, gaps, pairs))
    facts = Calibration(rewards=judged)
    facts.save(folder)
    return facts


def reward_quality(name: str, differences: FloatArray, pairs: PreferencePairs) -> RewardQuality:
    """Returns how well reward differences predict who is preferred; as `save_calibration`.

    Args:
        name: of the reward.
        differences: reward of chosen minus reward of rejected, in log-odds [pairs].
        pairs: with their labels.
    """
    found = metrics.calibration(differences, pairs.labels)
    accuracy = metrics.pairwise_accuracy(differences, pairs.labels, clusters=[str(p) for p in pairs.prompts])
    return RewardQuality(
        name=name,
        bins=[Bin(confidence=b.confidence, accuracy=b.share, count=max(round(b.pairs), 1)) for b in found.bins],
        accuracy=Fact(value=accuracy.value, low=accuracy.low, high=accuracy.high),
        log_loss=found.log_loss,
        calibration_error=found.error,
        comparisons=len(pairs),
    )


def save_people(
    model: PersonalRewards, heldout: object | None, folder: str | Path, *, groups: Mapping[str, str] | None = None
) -> People:
    """Writes and returns people.json: where users stand between the prototypes, and how well each is predicted.

    Args:
        model: fitted; its users are shown.
        heldout: comparisons of these users that it was not fitted on, see `load_comparisons`; None: no accuracies.
        folder: of the study.
        groups: names of groups by user, where they are known from elsewhere.

    Raises:
        DataError: comparisons that cannot be used.
    """
    judged = None if heldout is None else load_comparisons(heldout)
    shares = {} if judged is None else model.agreement(judged).parts
    answers = {} if judged is None else _answers(model, judged)
    users = [
        User(
            name=name,
            mixture=[float(share) for share in mixture],
            accuracy=_fact(shares.get(name)),
            comparisons=shares[name].n if name in shares else 0,
            group=None if groups is None else groups.get(name),
            answers=answers.get(name, []),
        )
        for name, mixture in zip(model.users, model.mixtures, strict=True)
    ]
    facts = People(prototypes=[f"prototype {k}" for k in range(model.prototypes)], users=users)
    facts.save(folder)
    return facts


def _data_set(name: str, pairs: PreferencePairs) -> DataSet:
    report = pairs.report
    labels = dict(report.balance.get("preferred", {}))
    few = [words for kind, words in report.lines() if kind in ("users", "length")]
    return DataSet(
        name=name,
        rows=report.kept or len(pairs),
        duplicates=report.duplicates,
        contradictory=report.contradictory,
        labels=labels if len(labels) > 1 else {},  # one label says only that the chosen response stands first
        users=report.users or None,
        contradictions=_contradictions(pairs) if report.contradictory else [],
        notes=few,
    )


def _contradictions(pairs: PreferencePairs) -> list[Contradiction]:
    """Returns the pairs that were preferred in both directions, those with most judgements first."""
    votes: dict[tuple[str, tuple[str, str]], Counter[str]] = defaultdict(Counter)
    for prompt, chosen, rejected, label in zip(pairs.prompts, pairs.chosen, pairs.rejected, pairs.labels, strict=True):
        if label != 0.5:
            first, second = sorted((chosen, rejected))
            votes[str(prompt), (first, second)][chosen if label > 0.5 else rejected] += 1
    both = sorted((entry for entry in votes.items() if len(entry[1]) == 2), key=lambda entry: -entry[1].total())
    return [
        Contradiction(prompt=prompt, first=a, second=b, votes_first=count[a], votes_second=count[b])
        for (prompt, (a, b)), count in both[:SHOWN]
    ]


def _answers(model: PersonalRewards, judged: Comparisons) -> dict[str, list[Answer]]:
    """Returns the first comparisons of each user; the sides are turned so that `chosen` is what the user prefers."""
    known = {name: place for place, name in enumerate(model.users)}
    rows: dict[str, list[int]] = defaultdict(list)
    for row, place in enumerate(judged.user):
        name = judged.users[place]
        if name in known and judged.labels[row] != 0.5 and len(rows[name]) < ANSWERS:
            rows[name].append(row)
    chosen = [row for own in rows.values() for row in own]
    if not chosen:
        return {}
    some = judged.select(chosen)
    margins = model.margins(some, np.stack([model.mixture(name) for name in some.users]))
    found: dict[str, list[Answer]] = defaultdict(list)
    for row, margin in enumerate(margins):
        a, b = some.items[some.chosen[row]], some.items[some.rejected[row]]
        (prompt, better), (_, worse) = (a, b) if some.labels[row] > 0.5 else (b, a)
        agreed = bool((margin > 0) == (some.labels[row] > 0.5)) if margin else None
        found[some.users[some.user[row]]].append(
            Answer(prompt=str(prompt), chosen=str(better), rejected=str(worse), agreed=agreed)
        )
    return found


def _fact(share: Share | None) -> Fact | None:
    return None if share is None else Fact(value=share.value, low=share.low, high=share.high)
