"""What groups of people gain from each policy: people.json's utilities, from the generations that a study keeps.

Where the rewards are those of a model of people, a group's utility is the mean over its users of their own rewards, in
the unit of the prototypes' objectives. Where a method takes the objectives for groups (`MaxMin`, `GroupDPO`), it is the
group's mean reward. Intervals are over held-out prompts; the users of a group are taken as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from moalign.arrays import FloatArray
from moalign.facts import people_of
from moalign.figures.people import GroupUtility, People
from moalign.figures.sidecar import Fact
from moalign.front import clustered_mean
from moalign.front.intervals import Z95
from moalign.methods import GroupDPO, MaxMin
from moalign.rewards.people.personal import PersonalRewards
from moalign.store import StudyStore, load_generations, load_reference_generations
from moalign.study import Study


def save_utilities(study: Study, records: StudyStore) -> None:
    """Adds what groups gain from the policies judged since to people.json; does nothing where there are no groups.

    Utilities that are there already stay, unless the groups are others now.
    """
    model = people_of(study.problem)
    if model is None and not isinstance(study.method, (MaxMin, GroupDPO)):
        return
    people = People.load(records.folder)
    if people is None:
        people = People(prototypes=list(study.problem.names), users=[])
    members = {} if model is None else _members(people, model)
    groups = set(members) if members else set(study.problem.names)
    known = [u for u in people.utilities if u.group in groups]
    if {u.group for u in known} != groups:
        known = []
    there = {u.trial for u in known}
    trials = [t.number for t in records.trials(prompt_values=False) if t.state == "done"]
    missing: list[int | None] = [trial for trial in (None, *trials) if trial not in there]
    for trial in missing:
        rows = load_reference_generations(records) if trial is None else load_generations(records, trial)
        if rows:
            values = _of_objectives(study, rows) if model is None else _of_members(model, members, rows)
            known += [_utility(group, trial, value, rows) for group, value in values.items()]
    if known != people.utilities:
        people.model_copy(update={"utilities": known}).save(records.folder)


def _members(people: People, model: PersonalRewards) -> dict[str, FloatArray]:
    """Returns the mixtures of each group's users [users, prototypes]; users without a group go with their prototype."""
    found: dict[str, list[FloatArray]] = {}
    for user in people.users:
        mixture = np.array(user.mixture) / sum(user.mixture)
        found.setdefault(user.group or people.prototypes[int(mixture.argmax())], []).append(mixture)
    return {name: np.stack(found[name]) for name in sorted(found)}


def _of_members(
    model: PersonalRewards, members: Mapping[str, FloatArray], rows: Sequence[Mapping[str, Any]]
) -> dict[str, FloatArray]:
    """Returns the mean reward of each group's users for each generation [rows]."""
    everybody = np.concatenate(list(members.values()))
    mixtures, place = np.unique(everybody, axis=0, return_inverse=True)
    rewards = model.standardised(mixtures, [r["prompt"] for r in rows], [r["response"] for r in rows])[:, place.ravel()]
    bounds = np.cumsum([0, *map(len, members.values())])
    return {name: rewards[:, a:b].mean(axis=1) for name, a, b in zip(members, bounds, bounds[1:], strict=False)}


def _of_objectives(study: Study, rows: Sequence[Mapping[str, Any]]) -> dict[str, FloatArray]:
    """Returns the reward of each objective above its baseline for each generation [rows]."""
    baseline = study.method.baseline if isinstance(study.method, MaxMin) else None
    zeros = baseline or (0.0,) * len(study.problem.names)
    names = zip(study.problem.names, zeros, strict=True)
    return {name: np.array([row["rewards"][name] - zero for row in rows]) for name, zero in names}


def _utility(group: str, trial: int | None, values: FloatArray, rows: Sequence[Mapping[str, Any]]) -> GroupUtility:
    """Returns the mean of values [rows], with its 95% interval over prompts of equally many samples."""
    by_prompt: dict[int, list[float]] = {}
    for row, value in zip(rows, values, strict=True):
        by_prompt.setdefault(row["prompt_index"], []).append(float(value))
    mean, error = (float(x[0]) for x in clustered_mean(np.array(list(by_prompt.values()))[..., None]))
    bounds = {} if np.isnan(error) else {"low": mean - Z95 * error, "high": mean + Z95 * error}
    return GroupUtility(group=group, trial=trial, utility=Fact(value=mean, **bounds))
