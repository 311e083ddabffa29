"""`moalign check`: what would happen to a study file."""

from __future__ import annotations

from typing import Any

from moalign.cli.machine import checked_device, quiet_models
from moalign.cli.options import AsJson, Device, StudyFile
from moalign.cli.output import number, print_json, say
from moalign.cli.study_file import load_study
from moalign.errors import DefinitionError, MoalignError


def check(file: StudyFile, device: Device = None, as_json: AsJson = False) -> None:
    """Look for mistakes in a study file and estimate time and memory; everything is tried small, nothing is kept."""
    quiet_models()
    device = checked_device(device)
    try:
        study = load_study(file)
    except MoalignError as error:
        if as_json:
            print_json({"study": None, "problems": problems_of(error)})
        raise
    from moalign.cli.rehearsal import rehearse

    findings = rehearse(study, device, (lambda name, fact: None) if as_json else _print_fact)
    if as_json:
        print_json({"study": study.name, "problems": findings.problems, "remarks": findings.remarks, **findings.facts})
    for remark in findings.remarks:
        say(f"note: {remark}", error=as_json)
    if findings.problems:
        raise DefinitionError(findings.problems, where=str(file))
    if not as_json:
        say(f"no problems found   next: moalign run {file}")


def problems_of(error: MoalignError) -> list[str]:
    """Returns every reason that an error lists."""
    return list(error.problems) if isinstance(error, DefinitionError) else [str(error)]


def _print_fact(name: str, fact: dict[str, Any]) -> None:
    words = {
        "policy": _policy,
        "prompts": _prompts,
        "pairs": _pairs,
        "rewards": _rewards,
        "adapters": _adapters,
        "time": _time,
    }[name](fact)
    if words:
        say(f"{name:<10}{words}")


def _policy(fact: dict[str, Any]) -> str:
    return (
        f"{fact['model']}, {fact['parameters']:,} parameters ({fact['megabytes']:,.1f} MB) on {fact['device']}, "
        f"context {fact['context']:,} tokens"
    )


def _prompts(fact: dict[str, Any]) -> str:
    kinds = [(kind, fact[kind], fact[f"{kind}_tokens"]) for kind in ("training", "held_out") if kind in fact]
    return ", ".join(
        f"{count:,} {kind.replace('_', '-')} ({lengths['mean']:.0f} tokens, at most {lengths['longest']:,})"
        for kind, count, lengths in kinds
    )


def _pairs(fact: dict[str, Any]) -> str:
    return (
        "  ".join(f"{name} {count:,}" for name, count in fact.items())
        or "none given: responses are sampled and labelled"
    )


def _rewards(fact: dict[str, Any]) -> str:
    shown = [f"{n} {v if isinstance(v, str) else ' and '.join(map(number, v))}" for n, v in fact.items()]
    measured = any(not isinstance(value, str) for value in fact.values())
    return ";  ".join(shown) + ("  (two responses of the reference policy)" if measured else "")


def _adapters(fact: dict[str, Any]) -> str:
    if "rank" not in fact:
        return f"{fact['policies']} policies"
    return (
        f"{fact['policies']} policies x {fact['parameters_each']:,} parameters (rank {fact['rank']}); "
        f"{fact['training_megabytes']:,.1f} MB with gradient and optimiser"
    )


def _time(fact: dict[str, Any]) -> str:
    if not fact:
        return ""
    memory = fact["peak_megabytes"]
    return (
        f"{number(fact['seconds_per_step'])} s per step: training about {_words(fact['training_seconds'])}, "
        f"evaluation of {fact['evaluation_responses']:,} responses about {_words(fact['evaluation_seconds'])}"
        + ("" if memory is None else f"; peak memory so far {memory:,.0f} MB")
    )


def _words(seconds: float) -> str:
    for unit, size, most in (("s", 1, 90), ("min", 60, 90)):
        if seconds < size * most:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 3600:.1f} h"
