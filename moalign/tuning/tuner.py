"""Ask and tell: a tuner proposes what to train next, from everything it was told.

    tuner = Tuner({"beta": log_uniform(0.01, 1.0)}, objectives=("helpful", "brief"))
    trial = tuner.ask()
    tuner.tell(trial.number, {"helpful": 0.3, "brief": -0.2})

The first trials spread over the space (a scrambled Sobol sequence); then the noisy expected hypervolume improvement
under Gaussian processes decides (`moalign.surrogate`). What was told decides what is asked: a tuner that is told the
same again, in the same order, asks the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, TypeAlias, final

import numpy as np

from moalign import surrogate
from moalign.arrays import FloatArray
from moalign.errors import DefinitionError
from moalign.front import hypervolume, infer_reference_point, non_dominated
from moalign.tuning import choosing
from moalign.tuning.space import Dimension, Space, names_of
from moalign.tuning.trial import Observation, Trial

Sampler: TypeAlias = Literal["guided", "sobol", "random"]
FEWEST_INITIAL = 8  # spread trials before the first guided one, more in many dimensions


@final
class Tuner:
    """Proposes settings and remembers results.

    Args:
        search: dimensions by name.
        objectives: names of what is maximised; one or several.
        reference_point: corner of the hypervolume by objective; None fixes it after the first spread trials, a little
            below their front.
        limits: upper bounds by column name, such as {"kl": 10.0}; trials beyond count for no front.
        initial: spread trials before guided ones; twice the number of dimensions and at least eight when None.
        first: settings of trial 0, such as the defaults.
        sampler: "guided"; "sobol" and "random" never look at results, for comparison.
        seed: of everything random.
    """

    def __init__(
        self,
        search: Mapping[str, Dimension],
        *,
        objectives: Sequence[str] | str = "value",
        reference_point: Mapping[str, float] | None = None,
        limits: Mapping[str, float] | None = None,
        initial: int | None = None,
        first: Mapping[str, Any] | None = None,
        sampler: Sampler = "guided",
        seed: int = 0,
    ) -> None:
        self.space = Space(search)
        self.objectives = names_of(objectives)
        self.limits = dict(limits or {})
        self.initial = max(2 * (len(search) + 1), FEWEST_INITIAL) if initial is None else initial
        self.first, self.sampler, self.seed = first, sampler, seed
        self.trials: list[Trial] = []
        self._corner = None if reference_point is None else dict(reference_point)
        if sampler not in ("guided", "sobol", "random"):
            raise DefinitionError(f'sampler must be "guided", "sobol" or "random", got {sampler!r}.')
        if reference_point is not None and set(reference_point) != set(self.objectives):
            raise DefinitionError(f"reference_point needs one value for each of {', '.join(self.objectives)}.")

    # ------------------------------------------------------------------------------------------------------- dialogue

    def ask(self) -> Trial:
        """Returns a new trial; trials that are asked and not yet told are taken into account."""
        own = [t for t in self.trials if t.source is None]
        if not own and self.first is not None:
            return self.adopt(self.first, proposed_by="first")
        guided = self.sampler == "guided" and len(own) >= self.initial and len(self._told()) >= surrogate.FEWEST
        found = choosing.guided(self) if guided else choosing.spread(self, len(own))
        return self.adopt(self.space.decode(found.row), proposed_by=found.proposed_by, acquisition=found.acquisition)

    def adopt(
        self,
        settings: Mapping[str, Any],
        source: str | None = None,
        *,
        proposed_by: str | None = None,
        acquisition: float | None = None,
    ) -> Trial:
        """Returns a new trial with these settings; for trials of an earlier tuning, or ideas of one's own.

        Raises:
            DefinitionError: other names than the search has.
        """
        if set(settings) != set(self.space.dimensions):
            wanted = ", ".join(self.space.dimensions)
            raise DefinitionError(f"settings must name exactly {wanted}; got {', '.join(map(str, settings))}.")
        trial = Trial(
            number=len(self.trials),
            settings=dict(settings),
            source=source,
            proposed_by=proposed_by,
            acquisition=acquisition,
        )
        self.trials.append(trial)
        return trial

    def tell(
        self,
        number: int,
        values: Mapping[str, float] | float,
        columns: Mapping[str, float] | None = None,
        *,
        fidelity: float = 1.0,
    ) -> None:
        """Records what a trial reached.

        Args:
            number: of the trial.
            values: by objective; a single number where there is one objective.
            columns: further numbers; those named by `limits` are needed.
            fidelity: share of the full budget that was used, in (0, 1]; only 1 makes the trial told.

        Raises:
            DefinitionError: an unknown trial or one that is over, missing names, numbers that are not finite.
        """
        trial = self._open(number)
        found = dict(values) if isinstance(values, Mapping) else {self.objectives[0]: float(values)}
        columns = dict(columns or {})
        missing = [n for n in self.objectives if n not in found] + [n for n in self.limits if n not in columns]
        if missing:
            raise DefinitionError(f"Trial {number} was told without {', '.join(missing)}.")
        wrong = [n for n, v in {**columns, **found}.items() if not math.isfinite(v)]
        if wrong or not 0 < fidelity <= 1:
            what = f"{', '.join(wrong)} not finite" if wrong else f"fidelity {fidelity}, which must be in (0, 1]"
            raise DefinitionError(f"Trial {number} was told {what}. Use fail() for trials that broke down.")
        seen = Observation(
            values={n: float(found[n]) for n in self.objectives}, columns=columns, fidelity=float(fidelity)
        )
        state: Literal["asked", "told"] = "told" if fidelity == 1 else "asked"
        self.trials[number] = replace(trial, state=state, observations=(*trial.observations, seen))

    def fail(self, number: int, reason: str) -> None:
        """Records that a trial broke down; the model then expects little around it."""
        self.trials[number] = replace(self._open(number), state="failed", error=reason)

    def drop(self, number: int) -> None:
        """Records that a trial is not continued to the full budget."""
        self.trials[number] = replace(self._open(number), state="dropped")

    def set_reference_point(self, corner: Mapping[str, float]) -> None:
        """Fixes the hypervolume's corner by objective, where it is known before the first result."""
        self._corner = dict(corner)

    # --------------------------------------------------------------------------------------------------------- results

    @property
    def results(self) -> list[Trial]:
        """Trials that were told in full and are within the limits."""
        return [t for t in self.trials if t.result is not None and self._within(t.result)]

    @property
    def values(self) -> FloatArray:
        """Values of `results` [trials, objectives]."""
        return self._table([t.result.values for t in self.results if t.result is not None])

    @property
    def reference_point(self) -> FloatArray | None:
        """The hypervolume's corner [objectives]; None until the first spread trials are told."""
        if self._corner is None and len(told := self._told()) >= max(2, min(self.initial, len(self.trials))):
            values = self._table([o.values for _, o in told if o.fidelity == 1.0][: self.initial])
            if len(values) >= 2:
                self._corner = dict(zip(self.objectives, infer_reference_point(values).tolist(), strict=True))
        return None if self._corner is None else np.array([float(self._corner[n]) for n in self.objectives])

    def front(self) -> list[Trial]:
        """Returns the non-dominated results; with one objective the best."""
        results = self.results
        if not results:
            return []
        if len(self.objectives) == 1:
            return [results[int(self.values[:, 0].argmax())]]
        return [t for t, member in zip(results, non_dominated(self.values), strict=True) if member]

    def volume(self) -> float:
        """Returns the hypervolume of the results; of one objective the best value."""
        if not len(self.values):
            return 0.0
        if len(self.objectives) == 1:
            return float(self.values.max())
        corner = self.reference_point
        return 0.0 if corner is None else hypervolume(self.values, corner, unattained="ignore")

    def recommended(self) -> list[Trial]:
        """Returns the trials that are best by the model's mean, which lucky noise does not fool.

        With several objectives the non-dominated ones; falls back on `front` while there are too few results.
        """
        results = self.results
        if len(results) < self.initial:
            return self.front()
        means = self.model().predict(self.encoded(self.rows(results)))[0][:, : len(self.objectives)]
        if means.shape[1] == 1:
            return [results[int(means[:, 0].argmax())]]
        return [t for t, member in zip(results, non_dominated(means), strict=True) if member]

    def model(self) -> surrogate.Surrogate:
        """Returns the Gaussian processes from encoded settings (and the budget, where it varied) to the results."""
        rows, table = self._data()
        return surrogate.fit(rows, table, self.seed + len(self.trials))

    def encoded(self, rows: FloatArray) -> FloatArray:
        """Returns encoded settings as the model takes them: at the full budget."""
        return np.column_stack([rows, np.ones(len(rows))]) if self._budgets() else rows

    def rows(self, trials: Sequence[Trial]) -> FloatArray:
        """Returns encoded settings [trials, width]."""
        rows = [self.space.encode(t.settings) for t in trials]
        return np.array(rows).reshape(len(trials), self.space.width)

    # ------------------------------------------------------------------------------------------------------- the model

    def _data(self) -> tuple[FloatArray, FloatArray]:
        """Returns what the model is fitted to: encoded settings, and objectives followed by the limited columns.

        Failed trials count as a little worse than the worst, and beyond every limit.
        """
        told = self._told()
        failed = [t for t in self.trials if t.state == "failed"]
        table = np.array([[*o.values.values(), *(o.columns[n] for n in self.limits)] for _, o in told], dtype=float)
        rows = self.rows([t for t, _ in told])
        if failed:
            span = np.maximum(np.ptp(table, axis=0), 1e-6)
            m = len(self.objectives)
            bad = np.append(table[:, :m].min(axis=0) - 0.1 * span[:m], table[:, m:].max(axis=0) + 0.1 * span[m:])
            bad[m:] = np.maximum(bad[m:], list(self.limits.values()))
            table = np.concatenate([table, np.tile(bad, (len(failed), 1))])
            rows = np.concatenate([rows, self.rows(failed)])
        budgets = self._budgets()
        if budgets:
            low = math.log(min(budgets))
            at = [1 - math.log(o.fidelity) / low for _, o in told] + [1.0] * len(failed)
            rows = np.column_stack([rows, at])
        return rows, table

    def _told(self) -> list[tuple[Trial, Observation]]:
        return [(t, o) for t in self.trials for o in t.observations]

    def _budgets(self) -> list[float]:
        """Returns the budgets below the full one that were used."""
        return sorted({o.fidelity for _, o in self._told() if o.fidelity < 1})

    def _table(self, rows: Sequence[Mapping[str, float]]) -> FloatArray:
        return np.array([[row[n] for n in self.objectives] for row in rows]).reshape(len(rows), len(self.objectives))

    def _within(self, seen: Observation) -> bool:
        return all(seen.columns[n] <= bound for n, bound in self.limits.items())

    def _open(self, number: int) -> Trial:
        if not 0 <= number < len(self.trials):
            raise DefinitionError(f"There is no trial {number}; {len(self.trials)} were asked.")
        if self.trials[number].state != "asked":
            raise DefinitionError(f"Trial {number} is {self.trials[number].state} already.")
        return self.trials[number]
