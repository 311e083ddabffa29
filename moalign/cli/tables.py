"""The front as a table of a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from moalign.cli.output import measured, number, print_table, say

if TYPE_CHECKING:
    from moalign.front import Front

MEMBER, OUTSIDE = "*", "x"


def print_front(front: Front, further: Mapping[str, Sequence[str]] | None = None) -> None:
    """Prints one row per policy, the reference policy last, and what the marks and columns mean.

    Args:
        front: all points.
        further: more columns, one cell per point.
    """
    from moalign.progress import short_weights

    further = further or {}
    members = front.non_dominated()
    header = ["trial", "weights", *front.objectives, "KL", *further, "front"]
    rows = []
    for row, point in enumerate(front.points):
        mark = MEMBER if members[row] else "" if point.feasible else OUTSIDE
        values = [measured(v, e) for v, e in zip(point.values, point.standard_errors, strict=True)]
        more = [cells[row] for cells in further.values()]
        rows.append([str(point.trial), short_weights(point.weights), *values, number(point.kl), *more, mark])
    if front.reference is not None:
        point = front.reference
        values = [measured(v, e) for v, e in zip(point.values, point.standard_errors, strict=True)]
        rows.append(["", "reference", *values, number(point.kl), *("" for _ in further), ""])
    print_table(header, rows, left=(1, len(header) - 1))
    say(_legend(front))


def _legend(front: Front) -> str:
    outside = sum(not p.feasible for p in front.points)
    corner = "  ".join(f"{n} {number(v)}" for n, v in zip(front.objectives, front.reference_point, strict=True))
    lines = [
        f"weights in the order {', '.join(front.objectives)}; rewards ± standard error; KL in nats per response",
        f"{MEMBER} non-dominated: {int(front.non_dominated().sum())} of {len(front)}"
        + (f"; {OUTSIDE} outside the limits: {outside}" if outside else ""),
        f"hypervolume {front.hypervolume()} above {corner}",
    ]
    return "\n".join(lines)
