"""`moalign doctor`: the machine, the packages, and whether results on disk are intact."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

import typer

from moalign.cli.errors import STORE as STORE_PROBLEM
from moalign.cli.options import STORE, AsJson, StoreFolder
from moalign.cli.output import print_json, say
from moalign.errors import StoreError

PACKAGES = (
    "moalign", "torch", "transformers", "tokenizers", "safetensors", "numpy", "scipy", "pandas", "moocore", "plotly",
    "jinja2", "typer", "rich",
)  # fmt: skip
OPTIONAL = ("peft", "tensorboard", "ray")


def doctor(
    store: StoreFolder = STORE,
    repair: Annotated[bool, typer.Option("--repair", help="Repair what can be repaired in the store.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show versions, devices and disk space, and check the results in the store."""
    facts = {"packages": _packages(), "machine": _machine(), "disk": _disk(store), "studies": _studies(store, repair)}
    if as_json:
        print_json(facts)
    else:
        _print(facts, repair)
    if any(study["left"] for study in facts["studies"].values()):
        raise typer.Exit(STORE_PROBLEM)


def _packages() -> dict[str, str | None]:
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in (*PACKAGES, *OPTIONAL):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            if name not in OPTIONAL:
                found[name] = None
    return found


def _machine() -> dict[str, Any]:
    import torch

    cuda = torch.cuda.is_available()
    return {
        "system": platform.platform(),
        "executable": sys.executable,
        "processors": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "openmp_wait_policy": os.environ.get("OMP_WAIT_POLICY"),
        "accelerators": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if cuda else [],
    }


def _disk(store: Path) -> dict[str, dict[str, Any]]:
    from moalign.store.cache import cache_root

    places = {"store": store.resolve(), "cache": cache_root()}
    return {name: {"folder": str(place), "free_gigabytes": _free(place) / 1e9} for name, place in places.items()}


def _free(place: Path) -> int:
    existing = next(p for p in (place, *place.parents) if p.exists())
    return shutil.disk_usage(existing).free


def _studies(store: Path, repair: bool) -> dict[str, dict[str, Any]]:
    """Returns per study what was found, and what of it is left."""
    from moalign.store import Store

    folder = Store(store)
    result = {}
    for name in folder.names():
        try:
            records = folder.study(name)
            found = records.repair() if repair else records.check()
            left = records.check() if repair else found
        except StoreError as error:
            found = left = [error]  # type: ignore[list-item]
        result[name] = {"found": [str(f) for f in found], "left": [str(f) for f in left]}
    return result


def _print(facts: dict[str, Any], repair: bool) -> None:
    versions = [f"{name} {number or 'MISSING'}" for name, number in facts["packages"].items()]
    say("versions  " + "  ".join(versions))
    machine = facts["machine"]
    devices = ", ".join(machine["accelerators"]) or "no accelerator: torch computes on the CPU"
    say(f"machine   {machine['system']}, {machine['processors']} processors")
    say(f"torch     {machine['threads']} threads, {devices}")
    for name, place in facts["disk"].items():
        say(f"{name:<10}{place['folder']}, {place['free_gigabytes']:,.1f} GB free")
    if not facts["studies"]:
        say("studies   none")
    for name, study in facts["studies"].items():
        say(f"study     {name}: {_verdict(study, repair)}")
        for finding in study["left"] or study["found"]:
            say(f"  {finding}")
    if any(study["left"] for study in facts["studies"].values()) and not repair:
        say("next: moalign doctor --repair")


def _verdict(study: dict[str, Any], repair: bool) -> str:
    if study["left"]:
        return f"{len(study['left'])} problems{' left' if repair else ''}"
    return f"repaired, {len(study['found'])} problems" if study["found"] else "intact"
