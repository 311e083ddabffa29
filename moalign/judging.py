"""From policies to facts: the reference policy and trained ones are sampled, judged, published and recorded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from moalign.errors import RewardError
from moalign.evaluation import draw, judge, reference_point
from moalign.methods.base import Method, PolicySet
from moalign.methods.serving import Selection
from moalign.policy.adapters import AdapterStack
from moalign.policy.engine import Engine
from moalign.publish import publish_generations, publish_trial
from moalign.results import ServedPolicy
from moalign.scoring import Scorer
from moalign.store import StudyStore, describe
from moalign.study import Study

if TYPE_CHECKING:
    from moalign.session import Session

POLICIES_PER_GROUP = 8  # evaluated together; a killed run repeats at most one group


def judge_reference(study: Study, records: StudyStore, engine: Engine, scorer: Scorer) -> None:
    """Records the reference policy's rewards and the hypervolume's corner, once; the first test of all rewards."""
    if records.reference() is not None and records.events("reference_point"):
        return
    [drawn] = draw(study.evaluation, engine, None)
    judged = judge(study.evaluation, engine, scorer, drawn, None)
    corner = reference_point(study.evaluation, study.problem.names, judged)
    with records.publish(records.cache_folder("reference")) as folder:
        publish_generations(folder, judged)
    records.add_event("reference_point", {"values": corner.tolist(), "spread": judged.spread.tolist()})
    records.set_reference(
        values=judged.values,
        standard_errors=judged.standard_errors,
        kl=0.0,
        kl_standard_error=0.0,
        columns=judged.columns,
        prompt_values=judged.prompt_values,
        feasible=True,
    )


def judge_policies(session: Session, policies: PolicySet, numbers: Sequence[int], settings: Sequence[Method]) -> None:
    """Judges what a set of policies serves for the weights of the trials.

    Args:
        session: of the study.
        policies: that were trained.
        numbers: of the trials.
        settings: the method of each trial; where several differ, policy i of the set is that of trial numbers[i].
    """
    study, records, engine = session.study, session.records, session.engine
    logs = engine.training_logs()
    method_of = dict(zip(numbers, settings, strict=True))
    by_row = any(method != settings[0] for method in settings)
    for group in _groups(records, policies, numbers, by_row):
        session.notify("on_stage", f"sampling from policies {', '.join(str(number) for number, _ in group)}")
        stack = AdapterStack.concatenate([served.adapter for _, served in group])
        drawn = draw(study.evaluation, engine, stack, group[0][1].text)
        for (number, served), samples in zip(group, drawn, strict=True):
            if session.stopped.is_set():
                raise KeyboardInterrupt
            records.set_state(number, "evaluating")
            try:
                judged = judge(study.evaluation, engine, session.scorer, samples, served.adapter, served.text)
            except RewardError as error:
                records.set_state(number, "failed", error=str(error))
                session.notify("on_failure", number, error)
                continue
            with records.publish(records.trial_folder(number)) as folder:
                name, row = ("", 0) if served.policy is None else policies.trainings[served.policy]
                log = (logs[name], row) if name in logs else None
                config = _trial_config(study, number, served, method_of[number])
                publish_trial(folder, judged, served.adapter, config, log, records.info["base"]["source"])
            records.finish_trial(
                number,
                values=judged.values,
                standard_errors=judged.standard_errors,
                kl=judged.kl,
                kl_standard_error=judged.kl_standard_error,
                columns=judged.columns,
                prompt_values=judged.prompt_values,
                feasible=study.evaluation.feasible(study.problem.names, judged.values, judged.kl),
            )
            front = session.front()
            session.notify("on_policy", next(p for p in front.points if p.trial == number))
            session.notify("on_front", front)


def measured(study: Study, records: StudyStore, served: ServedPolicy) -> ServedPolicy:
    """Returns a served policy with what its samples on the held-out prompts show, by the study's evaluation.

    Samples take the random numbers that all policies of the study were sampled with, so they compare.
    """
    engine = Engine(study.problem.policy, workspace=records, seed=study.seed)
    selection = served.selection
    [drawn] = draw(study.evaluation, engine, selection.adapter, selection.text)
    judged = judge(study.evaluation, engine, Scorer(study.problem, engine), drawn, selection.adapter, selection.text)
    return replace(served, judged=judged)


def _groups(
    records: StudyStore, policies: PolicySet, numbers: Sequence[int], by_row: bool
) -> Iterator[list[tuple[int, Selection]]]:
    """Yields unfinished trials with what serves their weights, in groups that can be sampled as one stack.

    Mixtures of different ranks and policies that read different texts are sampled apart.
    """
    trials = [(row, records.trial(number)) for row, number in enumerate(numbers)]
    waiting = [(row, t) for row, t in trials if t.state not in ("done", "failed")]
    together: dict[Any, list[tuple[int, Selection]]] = {}
    for row, trial in waiting:
        served = policies.for_weights(trial.weights)
        if by_row:
            served = Selection(np.array(trial.weights), policies.stack.select([row]), "trained", row)
        group = together.setdefault((served.adapter.lora, served.text), [])
        group.append((trial.number, served))
        if len(group) == POLICIES_PER_GROUP:
            yield together.pop((served.adapter.lora, served.text))
    yield from together.values()


def _trial_config(study: Study, number: int, served: Selection, method: Method) -> dict[str, Any]:
    weights = dict(zip(study.problem.names, map(float, served.weights), strict=True))
    text = None if served.text is None else asdict(served.text)
    shares = {str(policy): share for policy, share in served.shares}
    return {
        "trial": number,
        "study": study.name,
        "weights": weights,
        "seed": study.seed,
        "served": served.how,
        "shares": shares,
        "prompt_text": text,
        **({} if method is study.method else {"method": describe(method)}),  # of a tuning
    }
