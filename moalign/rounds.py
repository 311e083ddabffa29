"""Which policies are trained together: all fixed weights at once, or round by round as a search proposes them.

A round is an event of the study, written before its trials. Running the study again therefore trains the same stacks,
whatever moment it was stopped at, and a search is asked again only when all rounds it proposed are finished.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from moalign.arrays import FloatArray
from moalign.candidates import candidate_workspace, scored_candidates
from moalign.front import hypervolume
from moalign.problem import Problem
from moalign.scoring import Scorer
from moalign.search import History
from moalign.store import StudyStore
from moalign.study import Study

CANDIDATES = 64  # samples of the reference policy per prompt behind the oracle's predictions
PROMPTS = 256  # prompts of these, at most

Predict = Callable[[FloatArray], FloatArray]


def rounds(study: Study, records: StudyStore, predict: Callable[[], Predict]) -> Iterator[tuple[range, FloatArray]]:
    """Yields (trial numbers, weights [trials, objectives]) of each stack in turn; the trials exist in the records.

    Args:
        study: the experiment.
        records: its store, being driven.
        predict: called when a search needs the oracle, returns `History.predict`.
    """
    if study.search is None:
        records.add_trials(study.weights, study.problem.names)
        yield range(len(study.weights)), study.weights
        return
    proposed = [np.array(event.data["weights"]) for event in records.events("round")]
    ends = np.cumsum([len(some) for some in proposed]).tolist()
    known = np.concatenate([study.weights, *proposed])
    if len(known):
        records.add_trials(known, study.problem.names)
    for end, some in zip(ends, proposed, strict=True):
        yield range(end - len(some), end), some
    if any(event.data["policies"] == len(known) for event in records.events("search")):
        return  # it ended there
    oracle_of = predict() if study.search.needs_oracle and len(known) < study.search.trials else None
    while len(known) < study.search.trials:
        if study.search.stop is not None and study.search.stop.reached(_volumes(records, ends)):
            records.add_event("search", {"ended": "the hypervolume has stopped growing", "policies": len(known)})
            return
        history = history_of(study, records, oracle_of)
        new = study.search.propose(history, min(study.search.batch, study.search.trials - len(known)))
        if not len(new):
            records.add_event("search", {"ended": "nothing left to gain", "policies": len(known)})
            return
        records.add_event("round", {"weights": new.tolist(), "hypervolume": history.volume()})
        known = np.concatenate([known, new])
        ends.append(len(known))
        records.add_trials(known, study.problem.names)
        yield range(len(known) - len(new), len(known)), new


def history_of(study: Study, records: StudyStore, predict: Predict | None = None) -> History:
    """Returns what the study's records tell a search."""
    trials = records.trials(prompt_values=False)
    done = [t for t in trials if t.state == "done"]
    objectives = len(study.problem.names)

    def table(rows: list[tuple[float, ...] | None]) -> FloatArray:
        return np.array([row or () for row in rows], dtype=np.float64).reshape(len(rows), objectives)

    return History(
        weights=table([t.weights for t in done]),
        values=table([t.values for t in done]),
        errors=table([t.standard_errors for t in done]),
        kl=np.array([np.nan if t.kl is None else t.kl for t in done]),
        feasible=np.array([bool(t.feasible) for t in done], dtype=bool),
        pending=table([t.weights for t in trials if t.state != "done"]),
        reference_point=_corner(records),
        kl_strength=study.method.kl_strength,
        predict=predict,
        seed=study.seed,
    )


def oracle_prediction(scorer: Scorer, store: Path, beta: float, max_new_tokens: int) -> Predict:
    """Returns the function from weights to the oracle's rewards, on samples of the reference policy.

    The samples are those of training prompts, never of the held-out ones. They are `problem.candidates(...)` of the
    store: drawn and scored once, whichever study asks for them.
    """
    kept = scorer.within(candidate_workspace(scorer.problem, store))
    found = scored_candidates(kept, _prompts(scorer.problem), CANDIDATES, max_new_tokens)

    def predict(weights: FloatArray) -> FloatArray:
        return found.oracle(weights, beta, want_ess=False).rewards.numpy()

    return predict


def _prompts(problem: Problem) -> list[object]:
    """Returns some training prompts, evenly over all of them."""
    listed = list(problem.prompts) if problem.prompts is not None else []
    for objective in problem.objectives:
        if not listed and objective.pairs is not None:
            listed = list(objective.pairs.prompts)
    distinct = list(dict.fromkeys(listed))
    places = np.unique(np.linspace(0, len(distinct) - 1, min(PROMPTS, len(distinct))).astype(int))
    return [distinct[i] for i in places]


def _corner(records: StudyStore) -> FloatArray:
    return np.array(records.events("reference_point")[-1].data["values"], dtype=np.float64)


def _volumes(records: StudyStore, ends: list[int]) -> list[float]:
    """Returns the hypervolume after each round, 0 first."""
    corner = _corner(records)
    trials = [t for t in records.trials(prompt_values=False) if t.state == "done" and t.feasible]
    volumes = [0.0]
    for end in ends:
        points = [t.values for t in trials if t.number < end]
        volumes.append(hypervolume(np.array(points), corner, unattained="ignore") if points else 0.0)
    return volumes
