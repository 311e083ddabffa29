"""`moalign demo`: the embedded study from nothing to a report, judged against the exact optimum."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from moalign.cli.errors import FAILED_TRIALS
from moalign.cli.machine import quiet_models
from moalign.cli.options import STORE, AsJson, Quiet, StoreFolder
from moalign.cli.output import command, number, print_json, say
from moalign.cli.tables import print_front
from moalign.errors import MoalignError, StudyChangedError
from moalign.threads import one_thread

if TYPE_CHECKING:
    from moalign.demo import Comparison
    from moalign.front import Front
    from moalign.store import Store, StudyStore
    from moalign.study import Study

EVENT = "comparison"
FLOORS = {"gain_share_mean": 0.90, "gain_share_min": 0.80, "ratio": 0.90, "front_size": 6}
NOTE = (
    "The exact optimum drawn beside the policies is that of w . rewards - beta KL at the study's own beta, computed by "
    "listing all 256 replies to each held-out prompt. A policy's share is (J - J_reference) / (J_optimum - "
    "J_reference) with J = w . rewards - beta KL, computed from the policy's probabilities of these replies, not from "
    "samples. The hypervolume ratio divides the hypervolume of the sampled front by that of the optimum, above the "
    "same reference point; a policy that spends more KL than the optimum can push it past 1."
)


def demo(
    store: StoreFolder = STORE,
    name: Annotated[str, typer.Option("--name", help="Name of the study.")] = "demo",
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of everything random.")] = 0,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Train a tiny language model and ten policies, and compare them with the exact optimum; no download."""
    from moalign.demo import toy_study
    from moalign.driver import run
    from moalign.progress import TerminalProgress
    from moalign.store import Store

    started = time.monotonic()
    quiet_models()
    resumed = _resumed(Store(store), name, seed)
    with one_thread(), TerminalProgress(quiet=quiet) as progress:
        study = toy_study(seed, name=name, on_step=progress.on_model_step)
        front = run(study, store, callbacks=[progress])
    records = Store(store).study(name)
    failed = [t for t in records.trials(prompt_values=False) if t.state == "failed"]
    if not front.points:
        raise MoalignError(f"No policy of the demo could be judged; see: {command('status', name, store=store)}")
    with one_thread():
        exact = _exact(study, records, front, seed, quiet)
    facts = _facts(records, front, exact, time.monotonic() - started, resumed)
    if as_json:
        print_json(facts, indent=None)
    else:
        _print(front, exact, facts, store)
    if failed:
        raise typer.Exit(FAILED_TRIALS)


def _resumed(store: Store, name: str, seed: int) -> bool:
    """Returns whether the study exists; another seed is refused before the tiny model is trained for it."""
    if name not in store.names():
        return False
    ran = store.study(name).description.get("seed")
    if ran != seed:
        raise StudyChangedError(
            f"Study {name!r} in {store.root} was run with seed {ran}, not {seed}. To keep both: "
            f"{command('demo', '--seed', seed, '--name', f'{name}-seed-{seed}', store=store.root)}"
        )
    return True


def _exact(study: Study, records: StudyStore, front: Front, seed: int, quiet: bool) -> dict[str, Any]:
    """Returns the comparison with the optimum; it is made once, and recorded with the study and its report."""
    from moalign.demo import compare_with_oracle, toy_facts
    from moalign.figures.study import write_study_report
    from moalign.publish import REPORT

    trials = [p.trial for p in front.points]
    stored = [e.data for e in records.events(EVENT)]
    if stored and stored[-1]["trials"] == trials:
        return dict(stored[-1])
    if not quiet:
        say("comparing with the exact optimum", error=True)
    comparison = compare_with_oracle(study, front, toy_facts(seed))
    facts = {"trials": trials, **_plain(comparison)}
    with records.drive():
        records.add_event("oracle", _curve(comparison))
        records.add_event(EVENT, facts)
        if not records.events("note"):
            records.add_event("note", {"text": NOTE})
    write_study_report(records, front, records.folder / REPORT)
    return facts


def _plain(comparison: Comparison) -> dict[str, Any]:
    arrays = ("share", "regret", "gain", "mass")
    return {n: getattr(comparison, n).tolist() for n in arrays} | {
        "hypervolume": float(comparison.hypervolume),
        "oracle_hypervolume": float(comparison.oracle_hypervolume),
    }


def _curve(comparison: Comparison) -> dict[str, Any]:
    best = comparison.best
    arrays: dict[str, Any] = {"weights": comparison.weights, "values": best.rewards, "kl": best.kl}
    return {**{name: array.tolist() for name, array in arrays.items()}, "label": "exact optimum"}


def _facts(records: StudyStore, front: Front, exact: dict[str, Any], seconds: float, resumed: bool) -> dict[str, Any]:
    from moalign.publish import REPORT

    volume = front.hypervolume()
    facts = {
        "points": len(front),
        "front_size": len(front.front_points),
        "hypervolume": volume.value,
        "hypervolume_low": volume.low,
        "hypervolume_high": volume.high,
        "oracle_hypervolume": exact["oracle_hypervolume"],
        "ratio": volume.value / exact["oracle_hypervolume"],
        "ratio_exact": exact["hypervolume"] / exact["oracle_hypervolume"],
        "gain_share_mean": sum(exact["share"]) / len(exact["share"]),
        "gain_share_min": min(exact["share"]),
        "kl_mean": float(front.KL.mean()),
        "mass_min": min(exact["mass"]),
        "policies_beating_reference": sum(gain > 0 for gain in exact["gain"]),
        "seconds": seconds,
        "report": str(records.folder / REPORT),
        "resumed": resumed,
    }
    return {**facts, "below_floor": _below_floor(facts)}


def _below_floor(facts: dict[str, Any]) -> list[str]:
    """Returns what a demo that works would reach and this one does not."""
    floors = {**FLOORS, "policies_beating_reference": facts["points"]}
    return [
        f"{name} is {number(facts[name])}, expected at least {floor}"
        for name, floor in floors.items()
        if facts[name] < floor
    ]


def _print(front: Front, exact: dict[str, Any], facts: dict[str, Any], store: Path) -> None:
    shares = {"share": [f"{s:.1%}" for s in exact["share"]], "regret": [number(r) for r in exact["regret"]]}
    print_front(front, shares)
    optimum, ratio, exact_ratio = (number(facts["oracle_hypervolume"]), facts["ratio"], facts["ratio_exact"])
    beaten = f"{facts['policies_beating_reference']} of {facts['points']} policies"
    say(
        f"share of the gain that the exact optimum has over the reference at the same beta; regret: what is missing\n"
        f"\n"
        f"exact optimum     hypervolume {optimum}: the policies reach {ratio:.1%}, {exact_ratio:.1%} by exact values\n"
        f"share of the gain {facts['gain_share_mean']:.1%} on average, worst policy {facts['gain_share_min']:.1%}\n"
        f"reference beaten  by {beaten}, in weighted reward net of beta KL\n"
        f"time              {facts['seconds']:.0f} s"
    )
    for shortfall in facts["below_floor"]:
        say(f"NOT AS GOOD AS IT SHOULD BE: {shortfall}")
    say(
        f"\n"
        f"report  {facts['report']}\n"
        f"next    {command('show', front.study, front.knee().trial, store=store)}    moalign init my-study"
    )
