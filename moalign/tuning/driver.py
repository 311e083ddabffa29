"""`tune`: settings of a study's method, and its weights, searched by training and judging policies.

One study in the store holds all policies. What was asked is an event, written before anything is trained, so a tuning
that was stopped at any moment goes on with the same trials, and its policies are trained once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, final

import numpy as np

from moalign.errors import DefinitionError, StopStudy, StoreError
from moalign.front import Front
from moalign.session import Session, opened
from moalign.store import Store, describe
from moalign.study import Study
from moalign.tuning import record
from moalign.tuning.halving import Halving
from moalign.tuning.insight import HYPERVOLUME, Share, importance, slices
from moalign.tuning.loop import KL, Loop, Target, missing, short_of
from moalign.tuning.settings import WEIGHTS, check, defaults, method_with, seconds
from moalign.tuning.space import Dimension
from moalign.tuning.trial import Trial
from moalign.tuning.tuner import Sampler, Tuner

TRIALS = 24


@final
@dataclass(frozen=True, eq=False)
class Tuning:
    """What a tuning found.

    Attributes:
        study: that was tuned, under the tuning's own name.
        tuner: all trials, and the model of them; for own loops.
        front: of all policies trained.
        target: what was maximised.
    """

    study: Study
    tuner: Tuner
    front: Front
    target: Target

    @property
    def best(self) -> list[Trial]:
        """The trials to go on with: non-dominated by the model's mean, or the one with the largest hypervolume."""
        return self.tuner.recommended()

    def ask(self) -> Trial:
        """Returns what would be tried next, to be trained by a loop of one's own."""
        return self.tuner.ask()

    def tell(
        self, number: int, values: Mapping[str, float] | float, columns: Mapping[str, float] | None = None
    ) -> None:
        """Records the result of a trial that a loop of one's own trained; it is kept in this object only."""
        self.tuner.tell(number, values, columns)

    def importance(self, of: str = HYPERVOLUME) -> dict[str, Share]:
        """Returns which settings moved an objective, a limited column, or the hypervolume; see `tuning.insight`."""
        return importance(self.tuner, of)

    def importance_or_none(self) -> dict[str, Share] | None:
        """Returns the importance for the hypervolume; None while there are too few results for a model."""
        enough = sum(t.result is not None for t in self.tuner.trials) >= self.tuner.initial
        return self.importance() if enough else None

    def slices(self, name: str) -> dict[str, Any]:
        """Returns how the objectives depend on one setting; see `tuning.insight`."""
        return slices(self.tuner, name)

    def study_with(self, trial: Trial | int, *, name: str, **changes: Any) -> Study:
        """Returns a study with the settings of a trial, to be run with new seeds or weights."""
        settings = self.tuner.trials[trial if isinstance(trial, int) else trial.number].settings
        weights = {"weights": np.array([settings[WEIGHTS]])} if WEIGHTS in settings else {}
        return replace(self.study, **{"name": name, "method": method_with(self.study, settings), **weights, **changes})

    def __repr__(self) -> str:
        told = sum(t.state == "told" for t in self.tuner.trials)
        failed = sum(t.state == "failed" for t in self.tuner.trials)
        what = "best" if len(self.tuner.objectives) == 1 else "HV"
        return (
            f"<Tuning {self.study.name}: {told} of {len(self.tuner.trials)} trials done, {failed} failed, "
            f"{what} {self.tuner.volume():.3g}, {len(self.tuner.front())} on the front>"
        )


def tune(
    study: Study,
    *,
    search: Mapping[str, Dimension],
    store: str | Path | None = None,
    trials: int = TRIALS,
    batch: int = 1,
    timeout: str | float | None = None,
    target: Target = "objectives",
    halving: Halving | None = None,
    sampler: Sampler = "guided",
    warm_start: Sequence[str] = (),
    on_change: Literal["refuse", "fork"] = "refuse",
    callbacks: Iterable[Any] = (),
    device: str | None = None,
) -> Tuning:
    """Returns the outcome of a search over a study's settings; continues where an earlier call stopped.

    Args:
        study: what is tuned. Its evaluation judges, its limits (such as {"kl": 10}) are constraints of the search.
            The tuning is stored as NAME-tuning.
        search: dimensions by dotted name, such as {"method.beta": log_uniform(0.01, 1)}; "weights" is the dimension of
            preference weights.
        store: folder of all results; None keeps them for the life of the returned object only.
        trials: in all; a larger number continues a finished tuning.
        batch: trials that are chosen together. They are trained as one stack where the method allows it: MODPO when
            they differ in weights, beta, learning rate and steps only.
        timeout: seconds, or a text such as "2h", after which no new batch is begun.
        target: "objectives": a trial is one policy, and the trials are the front; the weights are tuned, too, or are
            the study's only ones. "hypervolume": a trial trains all of the study's weights, and the hypervolume of
            that front is maximised (arXiv 2310.16487).
        halving: train each batch with few steps first, and go on with the better part.
        sampler: "guided", or "sobol" and "random", which never look at results.
        warm_start: names of earlier tunings or studies in the same store whose policies are taken as known.
        on_change, callbacks, device: as in `run`.

    Raises:
        DefinitionError: names that are no field, values that the method refuses, and whatever else cannot be meant.
        StudyChangedError, StudyBusyError: see `moalign.errors`.
    """
    study, tuner, description = _prepared(study, search, trials, batch, target, halving, sampler)
    limit = seconds(timeout)
    earlier = _earlier(warm_start, store, study, tuner)
    with opened(
        study, store, on_change=on_change, callbacks=callbacks, device=device, description=description
    ) as session:
        _start(session, tuner, earlier)
        loop = Loop(session, tuner, target, halving)
        try:
            loop.go(trials, batch, limit)
        except StopStudy as reason:
            session.records.add_event("stopped", {"reason": str(reason)})
        front = session.finish()
    return Tuning(study, tuner, front, target)


def _prepared(
    study: Study, search: Mapping[str, Dimension], trials: int, batch: int, target: Target, halving: Any, sampler: Any
) -> tuple[Study, Tuner, dict[str, Any]]:
    """Returns the study under its new name, the tuner, and the definition that is recorded."""
    space = check(study, search)
    problems = [f"{n} must be a whole number >= 1, got {v!r}." for n, v in (("trials", trials), ("batch", batch))
                if isinstance(v, bool) or not isinstance(v, int) or v < 1]  # fmt: skip
    if target not in ("objectives", "hypervolume"):
        problems.append(f'target must be "objectives" or "hypervolume", got {target!r}.')
    if target == "hypervolume" and WEIGHTS in search:
        problems.append('target "hypervolume" trains all of the study\'s weights; take "weights" out of the search.')
    if target == "objectives" and WEIGHTS not in search and study.policies != 1:
        problems.append(
            f'A trial is one policy, but the study has {study.policies}. Tune "weights", too, give the study a single '
            'weight vector, or use target="hypervolume".'
        )
    if study.search is not None:
        problems.append("The study searches for its weights itself; give it fixed weights to tune it.")
    if halving is not None and not hasattr(study.method, "training"):
        problems.append(f"halving needs a method with training steps; {type(study.method).__name__} has none.")
    if problems:
        raise DefinitionError(problems, where=f"tuning of {study.name!r}")
    names = study.problem.names if target == "objectives" else (HYPERVOLUME,)
    limits = study.evaluation.limits if target == "objectives" else {}
    bounds = {KL: limits[KL]} if KL in limits else {}
    bounds |= {missing(n): 0.0 for n in limits if n != KL}
    tuner = Tuner(
        search, objectives=names, limits=bounds, first=defaults(study, search), sampler=sampler, seed=study.seed
    )
    study = replace(study, name=f"{study.name}-tuning")
    facts = {"search": space.describe(), "target": target, "halving": describe(halving), "sampler": sampler}
    return study, tuner, {**study.describe(), "tuning": facts}


def _start(session: Session, tuner: Tuner, earlier: Sequence[tuple[dict[str, Any], Any, Any, str]]) -> None:
    """Fixes the hypervolume's corner as the study's own, and tells the tuner what is known from earlier."""
    corner = session.records.events("reference_point")[-1].data["values"]
    if len(tuner.objectives) > 1:
        tuner.set_reference_point(dict(zip(tuner.objectives, corner, strict=True)))
    known = [event.data for event in session.records.events("warm start")]
    if not known and earlier:
        known = [{"settings": s, "values": v, "columns": c, "source": source} for s, v, c, source in earlier]
        for data in known:
            session.records.add_event("warm start", record.plain_settings(data))
    for data in known:
        trial = tuner.adopt(record.settings_from(data["settings"], tuner.space), source=data["source"])
        tuner.tell(trial.number, data["values"], data["columns"])


def _earlier(
    names: Sequence[str], store: str | Path | None, study: Study, tuner: Tuner
) -> list[tuple[dict[str, Any], dict[str, float], dict[str, float], str]]:
    """Returns settings, values, columns and source of the finished policies of other studies in the store."""
    if names and (store is None or len(tuner.objectives) == 1):
        raise DefinitionError('warm_start needs a store, and target="objectives".')
    found = []
    for name in names:
        records = Store(store or "runs").study(name)
        if tuple(records.info["objectives"]) != study.problem.names:
            raise StoreError(f"Study {name!r} has other objectives than {study.name!r}; it cannot start its tuning.")
        own = record.settings_by_policy(records)
        for trial in records.trials(prompt_values=False):
            settings = record.known_settings(records, own.get(trial.number), trial.weights, study, tuner.space)
            if trial.state == "done" and trial.values is not None and settings is not None:
                values = dict(zip(study.problem.names, trial.values, strict=True))
                columns = {KL: trial.kl or 0.0, **trial.columns, **short_of(study, values)}
                found.append((settings, values, columns, f"{name} trial {trial.number}"))
    return found
