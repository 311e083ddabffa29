"""`moalign diagnose`: what the responses of a study say beyond its rewards. Nothing here loads a model."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from moalign.cli.errors import usage
from moalign.cli.options import STORE, AsJson, StoreFolder, StudyName
from moalign.cli.output import number, print_json, print_table, say

if TYPE_CHECKING:
    from moalign.diagnostics.records import Diagnosis, ProxyCheck

Proxy = Annotated[str | None, typer.Option("--proxy", metavar="OBJECTIVE", help="Objective that was optimised for ...")]
HeldOut = Annotated[str | None, typer.Option("--held-out", metavar="OBJECTIVE", help="... the sake of this one.")]


def diagnose(
    name: StudyName,
    proxy: Proxy = None,
    held_out: HeldOut = None,
    store: StoreFolder = STORE,
    as_json: AsJson = False,
) -> None:
    """Show KL estimates, win rates (also at equal length), diversity, and how the rewards relate."""
    from moalign.diagnostics.records import diagnose as diagnosed
    from moalign.diagnostics.records import proxy_check
    from moalign.store import Store

    if (proxy is None) != (held_out is None):
        raise usage("--proxy and --held-out belong together; name one objective for each", "--proxy")
    found = diagnosed(Store(store).study(name))
    check = None if proxy is None or held_out is None else proxy_check(found.front, proxy, held_out)
    if as_json:
        print_json(_facts(found, check))
        return
    _print_policies(found)
    _print_rewards(found)
    if check is not None:
        _print_check(found, check)


def _facts(found: Diagnosis, check: ProxyCheck | None) -> dict[str, Any]:
    front = found.front
    return {
        "study": front.study,
        "objectives": front.objectives,
        "policies": [{"trial": p.trial, "weights": p.weights, "kl": p.kl, "columns": p.columns} for p in front],
        "reward_distances": found.reward_distances,
        "gamed": found.gamed,
        "proxy_check": None if check is None else asdict(check),
    }


def _print_policies(found: Diagnosis) -> None:
    front = found.front
    titles = {"kl_k1": "k1", "kl_k3": "k3", "distinct_2": "distinct-2", "self_bleu": "self-BLEU"}
    names = [*titles, "characters"]
    rows = [[str(p.trial), number(p.kl), *(number(p.columns.get(n, math.nan)) for n in names)] for p in front]
    print_table(["trial", "KL", *titles.values(), "characters"], rows)
    say("KL in nats per response, exact per token; estimates k1 (noisy), k3 (never < 0)\n")
    wins = {f"win_{name}": name for name in front.objectives}
    wins |= {"win": "own weights", "win_length_controlled": "at equal length"}
    wins = {name: title for name, title in wins.items() if any(name in p.columns for p in front)}
    print_table(
        ["trial", *wins.values()], [[str(p.trial), *(_share(p.columns.get(n, math.nan)) for n in wins)] for p in front]
    )
    say("share of wins against the reference policy on the same prompts")
    if "win_length_controlled" in wins:
        say("at equal length: length taken out of the wins; near 0 or 1 it extrapolates")
    if found.gamed:
        say(f"trials {', '.join(map(str, found.gamed))}: length explains much of the win rate")


def _share(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"


def _print_rewards(found: Diagnosis) -> None:
    if found.reward_distances is None:
        say("distances between the rewards need two samples per prompt: Evaluation(samples=2)")
        return
    names = found.front.objectives
    say("\ndistance between rewards on the reference's responses:")
    say("0 ranks policies alike, 1.41 unrelated, 2 opposite")
    rows = [[name, *(number(float(v)) for v in row)] for name, row in zip(names, found.reward_distances, strict=True)]
    print_table(["", *names], rows)


def _print_check(found: Diagnosis, check: ProxyCheck) -> None:
    chosen, best = (found.front[i].trial for i in (check.choice.chosen, check.choice.best))
    say(f"\n{check.proxy} as a proxy of {check.held_out}: rank correlation {number(check.correlation)} over policies")
    say(f"best by the proxy: trial {chosen}; by the held-out reward: trial {best}; lost {number(check.choice.loss)}")
    if check.choice.turned:
        say("over-optimised: the held-out reward fell while KL and proxy went on rising")
    if check.curve is not None:
        peak = check.curve.peak_kl
        where = "no turn in reach" if math.isinf(peak.value) else f"turns at a KL near {number(peak.value)} nats"
        say(f"fitted curve over KL: {where}")
