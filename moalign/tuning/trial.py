"""One trial of a tuning: its settings, where they come from, and what was measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, final


@final
@dataclass(frozen=True, kw_only=True)
class Observation:
    """What was measured of a trial at one budget: values by objective, further columns, share of the full budget."""

    values: Mapping[str, float]
    columns: Mapping[str, float] = field(default_factory=dict)
    fidelity: float = 1.0


@final
@dataclass(frozen=True, kw_only=True)
class Trial:
    """One point of the search space and what is known of it.

    Attributes:
        number: counted from 0.
        settings: values by the name of their dimension.
        state: "asked" until it is told in full, "told", "failed", or "dropped" where a short budget showed enough.
        observations: at rising budgets.
        error: why it failed.
        source: where it was taken from, if not asked here.
        proposed_by: "first" of all, "sobol", "random", or the acquisition function, such as "qLogNEHVI".
        acquisition: what that function expected to gain, as a logarithm.
    """

    number: int
    settings: Mapping[str, Any]
    state: Literal["asked", "told", "failed", "dropped"] = "asked"
    observations: tuple[Observation, ...] = ()
    error: str | None = None
    source: str | None = None
    proposed_by: str | None = None
    acquisition: float | None = None

    @property
    def result(self) -> Observation | None:
        """What was measured at the full budget; None before."""
        return next((o for o in self.observations if o.fidelity == 1.0), None)
