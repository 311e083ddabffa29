"""A front from stored measurements: whatever has the fields of a trial's record becomes a point."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike

from moalign.arrays import FloatArray
from moalign.front.front import Front
from moalign.front.point import Point


@runtime_checkable
class Measurement(Protocol):
    """What a record of a policy tells; see `moalign.store.TrialRecord`. Unknown numbers are None."""

    @property
    def number(self) -> int: ...
    @property
    def weights(self) -> Sequence[float]: ...
    @property
    def values(self) -> Sequence[float] | None: ...
    @property
    def standard_errors(self) -> Sequence[float] | None: ...
    @property
    def kl(self) -> float | None: ...
    @property
    def kl_standard_error(self) -> float | None: ...
    @property
    def columns(self) -> Mapping[str, float]: ...
    @property
    def prompt_values(self) -> FloatArray | None: ...
    @property
    def feasible(self) -> bool | None: ...


def front_of_records(
    study: str,
    objectives: Sequence[str],
    finished: Sequence[Measurement],
    *,
    reference: Measurement | None,
    reference_point: ArrayLike,
    policy_of: Callable[[int], Any] | None = None,
    serve: Callable[[FloatArray], Any] | None = None,
    measure: Callable[[Any], Any] | None = None,
) -> Front:
    """Returns the front of measured policies, in the order given.

    Args:
        study: its name.
        objectives: names in axis order.
        finished: records of the measured policies; all with `prompt_values`, or the front has no intervals.
        reference: record of the untrained reference policy.
        reference_point: corner of the hypervolume [objectives].
        policy_of: trial -> handle that exports and generates; None keeps numbers only.
        serve, measure: as in `Front`.
    """
    tables = [record.prompt_values for record in finished]
    known = bool(tables) and all(table is not None for table in tables)
    return Front(
        study=study,
        objectives=tuple(objectives),
        points=tuple(_point(r, policy_of(r.number) if policy_of else None) for r in finished),
        reference_point=np.array(reference_point, dtype=np.float64),
        reference=None if reference is None else _point(reference, None),
        prompt_values=np.array(tables, dtype=np.float64) if known else None,
        serve=serve,
        measure=measure,
    )


def _point(record: Measurement, policy: Any) -> Point:
    unknown = float("nan")  # a KL that the method does not have
    return Point(
        trial=record.number,
        weights=np.array(record.weights, dtype=np.float64),
        values=np.array(record.values, dtype=np.float64),
        standard_errors=np.array(record.standard_errors, dtype=np.float64),
        kl=unknown if record.kl is None else record.kl,
        kl_standard_error=unknown if record.kl_standard_error is None else record.kl_standard_error,
        columns=dict(record.columns),
        feasible=bool(record.feasible),
        policy=policy,
    )
