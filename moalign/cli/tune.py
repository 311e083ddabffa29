"""`moalign tune`: the search that a study file declares is run, or continued."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from moalign.cli.errors import FAILED_TRIALS
from moalign.cli.machine import checked_device, quiet_models
from moalign.cli.options import STORE, AsJson, Device, Quiet, StoreFolder, StudyFile
from moalign.cli.output import command, number, print_json, print_table, say
from moalign.cli.study_file import load_search
from moalign.cli.tables import OUTSIDE
from moalign.errors import DefinitionError

if TYPE_CHECKING:
    from moalign.tuning import Tuning

OPTIONS = ("trials", "batch", "timeout", "target", "halving", "sampler", "warm_start")


def tune(
    file: StudyFile,
    store: StoreFolder = STORE,
    device: Device = None,
    trials: Annotated[int | None, typer.Option("--trials", min=1, help="Trials in all; more continue.")] = None,
    timeout: Annotated[str | None, typer.Option("--timeout", help='Begin no new batch after, such as "2h".')] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Search for the settings that a study file declares in `search`, or continue where it stopped."""
    from moalign.progress import TerminalProgress
    from moalign.tuning import TRIALS
    from moalign.tuning import tune as run_tuning

    quiet_models()
    device = checked_device(device)
    study, search, options = load_search(file)
    unknown = [name for name in options if name not in OPTIONS]
    if unknown:
        raise DefinitionError(f"`tuning` of {file} has {', '.join(unknown)}; known are {', '.join(OPTIONS)}.")
    given: dict[str, Any] = {**options, **({} if trials is None else {"trials": trials})}
    given |= {} if timeout is None else {"timeout": timeout}
    per_trial = study.policies if given.get("target") == "hypervolume" else 1
    policies = per_trial * given.get("trials", TRIALS)
    with TerminalProgress(quiet=quiet, device=device, policies=policies) as progress:
        tuning = run_tuning(study, search=search, store=store, callbacks=[progress], device=device, **given)
    failed = [t.number for t in tuning.tuner.trials if t.state == "failed"]
    if as_json:
        print_json(_outcome(tuning, store, failed), indent=None)
    else:
        _print(tuning, store, failed)
    if failed:
        raise typer.Exit(FAILED_TRIALS)


def _outcome(tuning: Tuning, store: Path, failed: list[int]) -> dict[str, Any]:
    from moalign.tuning.record import FILE, plain

    best = [{"trial": t.number, "settings": {n: plain(v) for n, v in t.settings.items()}} for t in tuning.best]
    shares = tuning.importance_or_none()
    return {
        "study": tuning.study.name,
        "file": str(store / tuning.study.name / FILE),
        "trials": len(tuning.tuner.trials),
        "failed": failed,
        "volume": tuning.tuner.volume(),
        "best": best,
        "importance": None if shares is None else {n: s.share for n, s in shares.items()},
        "importance_sd": None if shares is None else {n: s.sd for n, s in shares.items()},
    }


def _print(tuning: Tuning, store: Path, failed: list[int]) -> None:
    from moalign.tuning.record import short

    tuner = tuning.tuner
    best, names = {t.number for t in tuning.best}, list(tuner.space.dimensions)
    within = {t.number for t in tuner.results}
    rows = []
    for trial in tuner.trials:
        values = ["" if trial.result is None else number(trial.result.values[n]) for n in tuner.objectives]
        mark: str = "*" if trial.number in best else trial.state if trial.state in ("failed", "dropped") else ""
        mark = mark or ("" if trial.number in within else OUTSIDE)
        rows.append([str(trial.number), *(short(trial.settings[n]) for n in names), *values, mark])
    shown = [name.removeprefix("method.") for name in names]
    print_table(["trial", *shown, *tuner.objectives, "best"], rows, left=(len(names) + len(tuner.objectives) + 1,))
    what = "best value" if len(tuner.objectives) == 1 else "hypervolume"
    outside = f"; {OUTSIDE} outside the limits" if len(within) < sum(t.result is not None for t in tuner.trials) else ""
    say(f"* best by the model's mean{outside}; {what} {number(tuner.volume())}")
    shares = tuning.importance_or_none()
    if shares:
        parts = (f"{n.removeprefix('method.')} {100 * s.share:.0f}±{100 * s.sd:.0f}%" for n, s in shares.items())
        say("importance  " + "  ".join(parts))
    for trial in (tuner.trials[i] for i in failed):
        say(f"failed #{trial.number}  {trial.error}")
    say(f"\nnext: {command('front', tuning.study.name, store=store)}")
