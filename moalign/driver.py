"""The flow, written once: open the records, judge the reference, train the stack, judge every policy, report.

Every stage remembers what it finished, so running a study again continues it.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any, Literal, final

from torch import OutOfMemoryError

from moalign.arrays import FloatArray
from moalign.callbacks import Notifier
from moalign.errors import DefinitionError, ModelError, RewardError, StopStudy
from moalign.evaluation import draw, judge, reference_point
from moalign.front import Front
from moalign.methods.base import Method, PolicySet
from moalign.methods.serving import Selection
from moalign.policy.adapters import AdapterStack
from moalign.policy.engine import Engine
from moalign.publish import publish_generations, publish_policies, publish_results, publish_trial
from moalign.results import load_front
from moalign.rounds import Predict, oracle_prediction, rounds
from moalign.scoring import Scorer
from moalign.store import Store, StudyStore, describe
from moalign.study import Study

PACKAGES = ("moalign", "torch", "transformers", "numpy")
POLICIES_PER_GROUP = 8  # evaluated together; a killed run repeats at most one group


def run(
    study: Study,
    store: str | Path | None = None,
    *,
    on_change: Literal["refuse", "fork"] = "refuse",
    callbacks: Iterable[Any] = (),
    device: str | None = None,
) -> Front:
    """Returns the front of the study's policies; continues where an earlier run of the same study stopped.

    Args:
        study: the experiment.
        store: folder of all results; None keeps them for the life of the returned front only.
        on_change: what to do when a study of this name but another definition exists: refuse with the differences,
            or "fork" to a new name (name-2, ...).
        callbacks: see `moalign.callbacks`.
        device: torch device; an accelerator if there is one when None.

    Raises:
        StudyChangedError, StudyBusyError: see `moalign.errors`.
        KeyboardInterrupt: after Ctrl-C, once the state is saved; a second Ctrl-C stops at once.
    """
    with opened(study, store, on_change=on_change, callbacks=callbacks, device=device) as session:
        try:
            for numbers, weights in rounds(study, session.records, session.predict):
                session.train(numbers, study.method, weights)
        except StopStudy as reason:
            session.records.add_event("stopped", {"reason": str(reason)})
        return session.finish()


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

    def train(self, numbers: Sequence[int], method: Method, weights: FloatArray) -> None:
        """Trains and judges trials that exist in the records; those that are done or failed stay as they are.

        Args:
            numbers: of the trials.
            method: that trains them, as one stack.
            weights: theirs [trials, objectives].

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
            policies = method.fit(self.study.problem, weights, self.engine)
            trained = {"policies": len(policies), "truncated": self.engine.truncated, **policies.facts}
            self.records.add_event("trained", trained)
            if method is self.study.method:
                publish_policies(self.records, policies)
            _judge_policies(self, policies, numbers, method)
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
        return oracle_prediction(self.study.problem, self.scorer, self.engine, beta, tokens)

    def front(self) -> Front:
        """Returns the front of all policies so far."""
        return load_front(self.records, self.study.problem.policy, keep=self.keep)

    def finish(self) -> Front:
        """Returns the front, after writing it and the report into the study's folder."""
        front = self.front()
        publish_results(self.records, front)
        self.notify("on_end", front)
        return front


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
        notify("on_stage", "judging the reference policy on the held-out prompts")
        judge_reference(study, records, engine, scorer)
        yield Session(study, records, engine, scorer, notify, stopped, temporary)


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


def _judge_policies(session: Session, policies: PolicySet, numbers: Sequence[int], method: Method) -> None:
    """Judges what a set of policies serves for the weights of the trials."""
    study, records, engine = session.study, session.records, session.engine
    logs = engine.training_logs()
    for group in _groups(records, policies, numbers):
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
                config = _trial_config(study, number, served, method)
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


def _groups(records: StudyStore, policies: PolicySet, numbers: Sequence[int]) -> Iterator[list[tuple[int, Selection]]]:
    """Yields unfinished trials with what serves their weights, in groups that can be sampled as one stack.

    Mixtures of different ranks and policies that read different texts are sampled apart.
    """
    trials = [records.trial(number) for number in numbers]
    waiting = [t for t in trials if t.state not in ("done", "failed")]
    together: dict[Any, list[tuple[int, Selection]]] = {}
    for trial in waiting:
        served = policies.for_weights(trial.weights)
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
