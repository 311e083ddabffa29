"""`moalign compare`: all methods on the embedded problem with the same budget, judged against the exact optimum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from moalign.cli.machine import quiet_models
from moalign.cli.options import AsJson, Quiet
from moalign.cli.output import print_json, print_table, say
from moalign.threads import one_thread

if TYPE_CHECKING:
    from moalign.comparison.outcomes import Outcome
    from moalign.comparison.sampled import SampledOutcome

LEGEND = """
share         of the exact optimum's gain in w . R - beta KL, mean over ten weight vectors; lowest: of any of them
hypervolume   of the exact values over the optimum's; more than 1 is more KL than the optimum spends
constrained   of C-MORL's extensions: share of the gain of the exact optimum under their bounds
short         largest shortfall of any such bound, in reward units
equal KL      gain in w . R over that of the optimum with the same KL
utility       expected utility over the base's, as share of that of all optima at the same beta
worst group   min over objectives of R - beta KL over the base's, as share of the maximin optimum's, best policy
policies stored; response tokens trained on and generated; CPU seconds of training
MaxMin and GroupDPO have one policy for all weights: only their worst group says how good they are
scores are interquartile means over seeds with 95% bootstrap intervals; with one seed only hypervolume has one"""


def compare(
    methods: Annotated[list[str] | None, typer.Argument(metavar="[METHOD]...", help="Methods; all by default.")] = None,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="How many seeds, from 0.")] = 1,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Steps of each of ten policies: the budget.")] = 200,
    figure: Annotated[Path | None, typer.Option("--figure", metavar="FILE", help="Write the figure as HTML.")] = None,
    save: Annotated[
        Path | None, typer.Option("--save", metavar="FILE", help="Keep outcomes there; what it has is not run again.")
    ] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Train every method with the same budget on the embedded problem, and compare them with the exact optimum.

    Half an hour per seed on one core with all methods and the usual budget; --steps 20 shows that everything works.
    """
    from moalign.comparison.embedded import compare as run
    from moalign.comparison.exact import optimum_curve
    from moalign.comparison.outcomes import summary
    from moalign.demo import toy_facts

    quiet_models()

    def tell(name: str, seed: int) -> None:
        if not quiet:
            say(f"seed {seed}: {name}", error=True)

    with one_thread():
        outcomes = [o for seed in range(seeds) for o in run(seed, methods or None, steps, save, on_method=tell)]
        rows = summary(outcomes)
        if figure is not None:
            write_figure(figure, outcomes, optimum_curve(toy_facts(0)))
    if as_json:
        print_json(rows, indent=None)
    else:
        print_rows(rows)


def write_figure(
    path: Path,
    outcomes: Sequence[Outcome | SampledOutcome],
    best: Sequence[tuple[float, float]],
    of_best: str = "exact optimum, mean",
) -> None:
    """Writes the overlay as one HTML file: each outcome's mean over the weights, and the curve of the optimum's."""
    from moalign.figures import CONFIG
    from moalign.figures.methods import method_figure

    points: dict[str, list[tuple[float, float]]] = {}
    for outcome in outcomes:
        kl, gain = (sum(values) / len(values) for values in zip(*outcome.points, strict=True))
        points.setdefault(outcome.method, []).append((kl, gain))
    drawn = method_figure(points, best, of_best)
    path.write_text(drawn.to_html(include_plotlyjs=True, config=CONFIG), encoding="utf-8")


def print_rows(rows: Sequence[Mapping[str, Any]]) -> None:
    """Prints the comparison as a table with its legend."""
    header = ["method", "share", "lowest", "constrained", "short", "hypervolume", "equal KL", "utility", "worst group",
              "policies", "trained", "generated", "seconds"]  # fmt: skip
    print_table(header, [_cells(row) for row in rows])
    say(LEGEND)
    for row in rows:
        if row.get("saddle_gap") is not None:
            say(
                f"{row['method']}: the groups but the worst gain {row['others']['value']:.2f} of what the maximin "
                f"optimum gives them; saddle gap {row['saddle_gap']:.3f} reward units at most"
            )


def _cells(row: Mapping[str, Any]) -> list[str]:
    def score(name: str) -> str:
        if row[name] is None:
            return ""
        interval = f" [{row[name]['low']:.2f}, {row[name]['high']:.2f}]"
        return f"{row[name]['value']:.2f}" + (interval if row["seeds"] > 1 or name == "hypervolume" else "")

    return [
        row["method"], score("share"), f"{row['lowest_share']:.2f}", score("constrained"),
        "" if row["violation"] is None else f"{row['violation']:.2f}",
        *map(score, ("hypervolume", "at_equal_kl", "expected_utility", "worst_group")), f"{row['policies']:.0f}",
        *(f"{row[cost] / 1e3:,.0f} k" for cost in ("trained", "generated")), f"{row['seconds']:.0f}",
    ]  # fmt: skip
