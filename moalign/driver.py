"""The flow, written once: open the records, judge the reference, train the stacks, judge every policy, report.

Every stage remembers what it finished, so running a study again continues it.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from moalign.errors import StopStudy
from moalign.front import Front
from moalign.rounds import rounds
from moalign.session import opened
from moalign.study import Study


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
