"""A study that is being driven: opened with its records, then asked to train and judge policies, then finished."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any, final

from torch import OutOfMemoryError

from moalign.arrays import FloatArray
from moalign.callbacks import Notifier
from moalign.errors import DefinitionError, ModelError
from moalign.front import Front
from moalign.judging import judge_policies, judge_reference, measured
from moalign.methods.base import Method, PolicySet
from moalign.policy.engine import Engine
from moalign.publish import publish_policies, publish_results
from moalign.results import load_front
from moalign.rewards.people.personal import PersonalReward
from moalign.rounds import Predict, oracle_prediction
from moalign.scoring import Scorer
from moalign.store import Store, StudyStore
from moalign.study import Study

PACKAGES = ("moalign", "torch", "transformers", "numpy")


@final
@dataclass(frozen=True, eq=False)
class Session:
    """A study that is being driven: its records, and everything that trains and judges its policies."""

    study: Study
    records: StudyStore
    engine: Engine
    scorer: Scorer
    notify: Notifier
    stopped: threading.Event
    keep: Any

    def train(
        self, numbers: Sequence[int], method: Method, weights: FloatArray, settings: Sequence[Any] | None = None
    ) -> None:
        """Trains and judges trials that exist in the records; those that are done or failed stay as they are.

        Args:
            numbers: of the trials.
            method: that trains them, as one stack.
            weights: theirs [trials, objectives].
            settings: a method for each trial, where they differ; `method.fit_each` then trains them as one stack.

        Raises:
            StopStudy: a callback ended the run; what is finished is kept.
        """
        ended = ("done", "failed")
        states = {t.number: t.state for t in self.records.trials(prompt_values=False)}
        waiting = [n for n in numbers if states[n] not in ended]
        if not waiting:
            return
        self.notify("on_stage", f"preparing the training data of {type(method).__name__}")
        for number in waiting:
            self.records.set_state(number, "training")
        try:
            policies = _fitted(self, method, weights, settings)
            trained = {"policies": len(policies), "truncated": self.engine.truncated, **policies.facts}
            self.records.add_event("trained", trained)
            if method is self.study.method:
                publish_policies(self.records, policies)
            judge_policies(self, policies, numbers, settings or [method] * len(numbers))
            _publish_utilities(self)
        except OutOfMemoryError as error:
            raise ModelError(
                f"{self.engine.language_model.device} is out of memory. Lower Training(tokens_per_chunk=...), which "
                f"changes no result, or the batch size. ({error})"
            ) from error
        finally:
            for trial in self.records.trials(prompt_values=False):
                if trial.state in ("training", "evaluating"):
                    self.records.set_state(trial.number, "waiting")

    def predict(self) -> Predict:
        """Returns what the oracle expects of policies for any weights, without training; samples are drawn once."""
        beta = self.study.method.kl_strength
        assert beta is not None  # checked by Study
        self.notify("on_stage", "asking the oracle where policies would add to the front")
        tokens = self.study.evaluation.max_new_tokens
        return oracle_prediction(self.scorer, self.records.folder.parent, beta, tokens)

    def front(self) -> Front:
        """Returns the front of all policies so far."""
        measure = partial(measured, self.study, self.records)
        return load_front(self.records, self.study.problem.policy, keep=self.keep, measure=measure)

    def finish(self) -> Front:
        """Returns the front, after writing it and the report into the study's folder."""
        front = self.front()
        _publish_utilities(self)  # of what a run that was killed had judged
        publish_results(self.records, front)
        self.notify("on_end", front)
        return front


def _fitted(session: Session, method: Any, weights: FloatArray, settings: Sequence[Any] | None) -> PolicySet:
    problem, engine = session.study.problem, session.engine
    return (
        method.fit(problem, weights, engine)
        if settings is None
        else method.fit_each(settings, problem, weights, engine)
    )


@contextmanager
def opened(
    study: Study,
    store: str | Path | None,
    *,
    on_change: str = "refuse",
    callbacks: Iterable[Any] = (),
    device: str | None = None,
    description: Mapping[str, Any] | None = None,
) -> Iterator[Session]:
    """Yields the study ready to train, its reference policy judged; arguments and errors as in `run`.

    Args:
        description: the definition to record and compare; the study's own when None.
    """
    notify = Notifier(callbacks)
    temporary = TemporaryDirectory(prefix="moalign-") if store is None else None
    folder = temporary.name if temporary is not None else Path(store or "runs")
    records = open_records(study, folder, on_change, description)
    with records.drive(), _interrupts() as stopped:
        notify("on_start", study, records)
        engine = Engine(
            study.problem.policy,
            workspace=records,
            seed=study.seed,
            device=device,
            on_step=lambda *step: notify("on_step", *step),
            should_stop=stopped.is_set,
        )
        refuse_long_texts(study, engine)
        scorer = Scorer(study.problem, engine)
        records.add_trials(study.weights[:0], study.problem.names)  # the objectives' names
        notify("on_stage", "judging the rewards and the reference policy on held-out data")
        _publish_facts(study, scorer, records)
        judge_reference(study, records, engine, scorer)
        yield Session(study, records, engine, scorer, notify, stopped, temporary)


def _publish_facts(study: Study, scorer: Scorer, records: StudyStore) -> None:
    """Writes what is known of the data, the rewards and the users before anything is trained."""
    objectives = study.problem.objectives
    if study.evaluation.pairs or any(o.pairs is not None or isinstance(o.reward, PersonalReward) for o in objectives):
        from moalign.facts import save_known  # loads the figures

        save_known(study, scorer, records.folder)


def _publish_utilities(session: Session) -> None:
    """Writes what groups of people gain from the policies that are judged."""
    from moalign.groups import save_utilities  # loads the figures

    save_utilities(session.study, session.records)


def open_records(
    study: Study, store: str | Path, on_change: str = "refuse", description: Mapping[str, Any] | None = None
) -> StudyStore:
    """Returns the records of the study, or of another description, in the folder `store`: new or from earlier."""
    if on_change not in ("refuse", "fork"):
        raise DefinitionError(f'on_change must be "refuse" or "fork", got {on_change!r}.')
    folder = Store(store)
    description = study.describe() if description is None else description
    name = folder.fork_name(study.name, description) if on_change == "fork" else study.name
    policy = study.problem.policy
    source = None if policy.folder() is None else str(Path(policy.source).resolve())
    info = {
        "objectives": list(study.problem.names),
        "base": {
            "source": source,
            "dtype": policy.dtype,
            "max_length": policy.max_length,
            "truncate": policy.truncate,
        },
        "method": type(study.method).__name__,
        "kl_strength": study.method.kl_strength,
        "samples": study.evaluation.samples,
        "versions": {name: version(name) for name in PACKAGES},
    }
    return folder.create(name, description, info=info)


def refuse_long_texts(study: Study, engine: Engine) -> None:
    """Raises DefinitionError naming every kind of text that does not fit the model, before anything is trained."""
    problems = []
    room = study.evaluation.max_new_tokens
    groups: list[tuple[str, Iterable[Any], int]] = [("held-out", study.evaluation.prompts, room)]
    if study.problem.prompts is not None:
        groups.append(("training", study.problem.prompts, 1))
    if not study.problem.policy.truncate:
        limit = engine.language_model.max_length
        for kind, prompts, new in groups:
            lengths = [len(engine.encode_prompt(p)) for p in prompts]
            long = [i for i, n in enumerate(lengths) if n + new > limit]
            if long:
                problems.append(
                    f"{len(long)} of {len(lengths)} {kind} prompts leave no room for {new} new tokens in the context "
                    f"of {limit}; the first is number {long[0]} with {lengths[long[0]]} tokens. Shorten or drop them, "
                    "or use Policy(..., truncate=True)."
                )
    if problems:
        raise DefinitionError(problems, where=f"study {study.name!r}")


@contextmanager
def _interrupts() -> Iterator[threading.Event]:
    """Within the context the first Ctrl-C sets the event (finish the step, save, stop), a second one stops at once."""
    stopped = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stopped
        return

    def first(signum: int, frame: FrameType | None) -> None:
        stopped.set()
        os.write(2, b"\nfinishing this step and saving; Ctrl-C again stops at once\n")
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = signal.signal(signal.SIGINT, first)
    try:
        yield stopped
    finally:
        signal.signal(signal.SIGINT, before)
