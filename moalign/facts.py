"""What a study knows of its data, its rewards and its users, written beside its records for the pages that show it.

A run writes `data.json` from the pairs of the objectives, `calibration.json` from the held-out pairs of its
`Evaluation`, and `people.json` where rewards are those of a model of people. `save_calibration` and `save_people` are
for whoever judges without a run.
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
from moalign.front import Interval
from moalign.problem import Problem
from moalign.rewards import metrics
from moalign.rewards.people.agreement import Share
from moalign.rewards.people.personal import PersonalReward, PersonalRewards
from moalign.scoring import Scorer
from moalign.study import Study

SHOWN = 20  # contradictory pairs of a data set that are written out
ANSWERS = 8  # held-out comparisons of a user that are written out


def data_facts(problem: Problem) -> DataFacts | None:
    """Returns what the preference pairs of the objectives hold; None without any."""
    sets = [_data_set(o.name, o.pairs) for o in problem.objectives if o.pairs is not None]
    return DataFacts(sets=sets) if sets else None


def save_known(study: Study, scorer: Scorer, folder: str | Path) -> None:
    """Writes what a study knows of its data, its rewards and its users before any policy is trained.

    That is data.json if objectives have pairs; calibration.json if its evaluation has held-out pairs; people.json if
    its rewards are those of a model of people, unless one is there and the evaluation knows nothing of them.
    """
    problem, evaluation = study.problem, study.evaluation
    facts = data_facts(problem)
    if facts is not None:
        facts.save(folder)
    judged = [reward_quality(name, scorer.log_odds(name, pairs), pairs) for name, pairs in evaluation.pairs.items()]
    if judged:
        Calibration(rewards=judged).save(folder)
    model, known = people_of(problem), People.load(folder)
    if model is not None and (known is None or evaluation.comparisons is not None or evaluation.groups):
        found = people_facts(model, evaluation.comparisons, evaluation.groups)
        found.model_copy(update={"utilities": [] if known is None else known.utilities}).save(folder)


def people_of(problem: Problem) -> PersonalRewards | None:
    """Returns the model of people whose prototypes the objectives are; None if they are not."""
    models = [o.reward.model for o in problem.objectives if isinstance(o.reward, PersonalReward)]
    return models[0] if models else None


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
    prompts = [str(prompt) for prompt in pairs.prompts]
    error = metrics.calibration_error(differences, pairs.labels, clusters=prompts)
    decided = bool((pairs.labels != 0.5).any())
    accuracy = metrics.pairwise_accuracy(differences, pairs.labels, clusters=prompts) if decided else None
    return RewardQuality(
        name=name,
        bins=[Bin(confidence=b.confidence, accuracy=b.share, count=max(round(b.pairs), 1)) for b in found.bins],
        accuracy=_fact(accuracy),
        log_loss=found.log_loss,
        calibration_error=_fact(error),
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
    facts = people_facts(model, None if heldout is None else load_comparisons(heldout), groups or {})
    facts.save(folder)
    return facts


def people_facts(model: PersonalRewards, judged: Comparisons | None, groups: Mapping[str, str]) -> People:
    """Returns what `save_people` writes."""
    shares = {} if judged is None else model.agreement(judged).parts
    answers = {} if judged is None else _answers(model, judged)
    users = [
        User(
            name=name,
            mixture=[float(share) for share in mixture],
            accuracy=_fact(shares.get(name)),
            comparisons=shares[name].n if name in shares else 0,
            group=groups.get(name),
            answers=answers.get(name, []),
        )
        for name, mixture in zip(model.users, model.mixtures, strict=True)
    ]
    return People(prototypes=[f"prototype {k}" for k in range(model.prototypes)], users=users)


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


def _fact(found: Share | Interval | None) -> Fact | None:
    return None if found is None else Fact(value=found.value, low=found.low, high=found.high)
