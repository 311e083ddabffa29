"""What came out of a comparison of methods: one outcome per method and seed, their file, their summary over seeds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, final

import numpy as np

from moalign.errors import DataError
from moalign.front import Interval, iqm, stratified_bootstrap

REPLICATIONS = 2000


@final
@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One method with one seed.

    Attributes:
        shares: of the oracle's gain in w . R - beta KL, for every weight vector.
        hypervolume: of the exact values, over the oracle's; its interval is over held-out prompts.
        at_equal_kl: mean over weights of the gain in w . R over that of the optimum with the same KL.
        expected_utility: mean over a fine lattice of the best w . R of all policies, minus the base's, over that of the
            optima of the lattice; more KL gives more of it.
        worst_group: min_g R_g - beta KL of the policy that has most of it, as share of the maximin optimum's gain.
        others: what the groups but the worst of that policy gain over the base in reward, mean, over what the maximin
            optimum gives them: from 1 on, the majority pays no more than the optimum takes.
        saddle_gap: of a method with weights of groups, the best value against its weights minus the value it reached,
            reward units: no policy has a worst group that is better by more. None for other methods.
        constrained: of policies that were given lower bounds of rewards: the mean share of the gain of the exact
            optimum under these bounds in R_k - beta KL, shortfalls paid at its multipliers; None without such policies.
        violation: the largest shortfall of any bound, reward units; None without.
        policies: stored.
        trained, generated: response tokens.
        seconds: CPU time of the training.
        settings: fingerprint of the method's description.
        points: (KL, mean gain in w . R) of what serves each weight vector.
    """

    method: str
    seed: int
    shares: tuple[float, ...]
    hypervolume: tuple[float, float, float]
    at_equal_kl: float
    expected_utility: float
    worst_group: float
    policies: int
    trained: int
    generated: int
    seconds: float
    points: tuple[tuple[float, float], ...]
    settings: str = ""
    others: float | None = None
    saddle_gap: float | None = None
    constrained: float | None = None
    violation: float | None = None

    @property
    def share(self) -> float:
        return float(np.mean(self.shares))


def load_outcomes(path: str | Path) -> list[Outcome]:
    """Returns the outcomes of a file that `save_outcome` has written, in its order; none if there is no file.

    Raises:
        DataError: a line is not an outcome; names the file and the line.
    """
    if not Path(path).exists():
        return []
    found = []
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), 1):
        try:
            facts = json.loads(line)
            lists = {"shares": tuple(facts["shares"]), "hypervolume": tuple(facts["hypervolume"])}
            found.append(Outcome(**{**facts, **lists, "points": tuple((k, g) for k, g in facts["points"])}))
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(f"{path}, line {number}: not an outcome of a comparison ({error}). Remove it.") from error
    return found


def save_outcome(path: str | Path, outcome: Outcome) -> None:
    """Appends an outcome to a file, one JSON object per line; several processes may write to the same file."""
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(outcome), allow_nan=False) + "\n")


SCORES = ("share", "hypervolume", "at_equal_kl", "expected_utility", "worst_group", "others", "constrained")
COSTS = ("policies", "trained", "generated", "seconds")


def summary(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Returns one row per method: interquartile means with stratified bootstrap intervals over seeds, mean costs.

    Scores are resampled seed by seed within each weight vector (the share), or seed by seed (the others).
    """
    rows = []
    for name in dict.fromkeys(o.method for o in outcomes):
        own = [o for o in outcomes if o.method == name]
        row: dict[str, Any] = {"method": name, "seeds": len(own)}
        for score in SCORES:
            row[score] = None if any(getattr(o, score) is None for o in own) else _score(own, score)
        row["violation"] = None if own[0].violation is None else max(o.violation or 0.0 for o in own)
        gaps = [o.saddle_gap for o in own if o.saddle_gap is not None]
        row["saddle_gap"] = max(gaps) if len(gaps) == len(own) else None
        row["lowest_share"] = min(min(o.shares) for o in own)
        row.update({cost: float(np.mean([getattr(o, cost) for o in own])) for cost in COSTS})
        rows.append(row)
    return rows


def _score(outcomes: Sequence[Outcome], score: str) -> dict[str, float]:
    if score == "hypervolume" and len(outcomes) == 1:  # one seed: the interval over prompts
        found = Interval(*outcomes[0].hypervolume)
    else:
        columns: list[tuple[float, ...]] = []
        for o in outcomes:
            values = {"share": o.shares, "hypervolume": o.hypervolume[:1]}
            columns.append(values[score] if score in values else (float(getattr(o, score)),))
        found = stratified_bootstrap(np.array(columns), iqm, replications=REPLICATIONS)
    return {k: float(v) for k, v in asdict(found).items() if k in ("value", "low", "high")}
