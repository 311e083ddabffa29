"""Preference pairs: two replies to one prompt and the probability that the first is preferred.

`load_pairs` reads the preference layouts of `datasets` and TRL: plain texts, conversations with a separate prompt
(repeated in the replies or not), and conversations whose common beginning is the prompt. Every unusable row is
refused by its number before anything is trained; equal replies and exact duplicates are dropped and counted;
contradictions are kept, because disagreement is data.
"""

from __future__ import annotations

import difflib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, final

import numpy as np

from moalign.arrays import FloatArray
from moalign.data.layouts import split_row
from moalign.data.prompts import (
    Prompt,
    canonical,
    check_prompt,
    content_hash,
)
from moalign.data.report import (
    DataReport,
    contradictions,
    label_balance,
    lengths,
    longer_preferred,
    votes_per_user,
    warn_of_changes,
)
from moalign.data.tables import Table, as_text, cell, has_unreadable, read_table, short_repr
from moalign.errors import DataError, DefinitionError

FEWEST_PAIRS = 2
_SCORES = ("score_chosen", "score_rejected")


class _Pair(NamedTuple):
    """One row; equal rows are duplicates."""

    prompt: Prompt
    chosen: str
    rejected: str
    label: float
    objective: str | None
    user: str | None
    margin: float | None
    weight: float | None


@final
@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class PreferencePairs:
    """Preference pairs as columns of equal length; two are the same data if their `__fingerprint__` is."""

    prompts: tuple[Prompt, ...]
    chosen: tuple[str, ...]
    rejected: tuple[str, ...]
    labels: FloatArray  # [pairs], probability in [0, 1] that `chosen` is preferred
    objective: tuple[str, ...] | None = None  # which objective the annotator was asked about
    user: tuple[str, ...] | None = None  # who annotated
    margin: FloatArray | None = None  # [pairs], reward units
    weight: FloatArray | None = None  # [pairs], >= 0, how much the pair counts
    report: DataReport = DataReport()  # filled from the pairs when not given

    def __post_init__(self) -> None:
        for name in ("labels", "margin", "weight"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, _frozen(getattr(self, name)))
        _check_columns(self)
        for i, (prompt, *replies) in enumerate(zip(self.prompts, self.chosen, self.rejected, strict=True)):
            check_prompt(prompt, f"prompt {i} (counted from 0)")
            if any(has_unreadable(as_text(reply, f"a reply of pair {i} (counted from 0)")) for reply in replies):
                raise DataError(f"pair {i} (counted from 0) holds lone surrogates or NUL. Load it with load_pairs.")
        found = self.report
        if not found.rows:
            found = DataReport(kind="pairs", sources=("memory",), rows=len(self), kept=len(self))
        object.__setattr__(self, "report", replace(found, **_measured(self)))

    def __len__(self) -> int:
        return len(self.prompts)

    def __repr__(self) -> str:
        return f"<PreferencePairs {len(self):,} from {', '.join(self.report.sources)}>"

    def __fingerprint__(self) -> dict[str, object]:
        """Returns what identifies the content, whatever file it came from."""
        columns = (self.labels.tolist(), self.objective, self.user, _listed(self.margin), _listed(self.weight))
        rows = zip(map(canonical, self.prompts), self.chosen, self.rejected, strict=True)
        return {"kind": "pairs", "rows": len(self), "sha256": content_hash(rows, columns)}

    def select(self, rows: Sequence[int]) -> PreferencePairs:
        """Returns the pairs at these positions, in this order; at least two."""
        keep = np.asarray(rows, dtype=np.int64)
        names = ("prompts", "chosen", "rejected", "labels", "objective", "user", "margin", "weight")
        columns: dict[str, Any] = {name: _taken(getattr(self, name), keep) for name in names}
        return replace(self, **columns, report=DataReport())

    def contents(self) -> list[tuple[Prompt, frozenset[str]]]:
        """Returns what each pair compares: its prompt and its two replies, whichever is preferred."""
        sides = zip(self.prompts, self.chosen, self.rejected, strict=True)
        return [(prompt, frozenset((chosen, rejected))) for prompt, chosen, rejected in sides]

    def hold_out(self, share: float, *, seed: int = 0) -> tuple[PreferencePairs, PreferencePairs]:
        """Returns (the pairs to learn from, the pairs to judge by); all pairs of a prompt are on one side.

        Args:
            share: of the prompts, in (0, 1), to judge by.
            seed: of the choice.

        Raises:
            DataError: too few prompts to leave at least two pairs on each side.
        """
        if not 0 < share < 1:
            raise DefinitionError(f"share must be in (0, 1), got {share}.", where="hold_out")
        known = list(dict.fromkeys(self.prompts))
        chosen = np.random.default_rng(seed).permutation(len(known))[: max(round(share * len(known)), 1)]
        out = {known[i] for i in chosen}
        sides = [[i for i, prompt in enumerate(self.prompts) if (prompt in out) == side] for side in (False, True)]
        if min(map(len, sides)) < FEWEST_PAIRS:
            raise DataError(
                f"{len(self)} pairs of {len(known)} prompts cannot be parted: {share:.3g} of the prompts leave "
                f"{len(sides[0])} and {len(sides[1])} pairs, and each side needs {FEWEST_PAIRS}."
            )
        return self.select(sides[0]), self.select(sides[1])


def load_pairs(source: object, *, objective: str | None = None) -> PreferencePairs:
    """Returns the preference pairs of a file or of an object in memory.

    Columns: `prompt` (may be absent if the replies are whole conversations), `chosen`, `rejected`; optional `label`
    (probability in [0, 1] that chosen is preferred; 1 when absent), `objective`, `user`, `margin`, `weight`. An
    optional column is filled in every row or in none. Where there is no `margin`, the difference of `score_chosen` and
    `score_rejected` is one. Other columns are ignored.

    Args:
        source: path of a .jsonl, .json, .csv or .parquet file; pandas DataFrame; `datasets.Dataset`; list of
            dictionaries; PreferencePairs.
        objective: keep only rows with this value in the column `objective`, where the data has that column.

    Raises:
        DataError: unusable rows (all listed by row), no row of this objective, or fewer than 2 pairs.

    Warns:
        DataWarning: duplicates or equal replies were dropped, or characters replaced.
    """
    if not isinstance(source, PreferencePairs):
        return pairs_from_table(read_table(source), objective=objective)
    if objective is None or source.objective is None:
        return source
    return source.select(_rows_of(objective, source.objective, "these pairs"))


def pairs_from_table(table: Table, *, objective: str | None = None, unreadable: int = 0) -> PreferencePairs:
    """Returns the pairs of a table that was read already; see `load_pairs`.

    Args:
        table: rows in one of the preference layouts.
        objective: as for `load_pairs`.
        unreadable: rows that the caller dropped before, for the report.
    """
    if "completion" in table.columns and "chosen" not in table.columns:
        raise DataError(
            f"{table.name}: this is the unpaired layout, with one completion per row. Read it with load_ratings, whose"
            " pairs() compares completions of the same prompt."
        )
    table.require("chosen", "rejected")
    if objective is not None and "objective" in table.columns:
        table = table.select(_rows_of(objective, [row.get("objective") for row in table.rows], table.name))
    pairs = _read_rows(table)
    different = [pair for pair in pairs if pair.chosen != pair.rejected]
    kept = list(dict.fromkeys(different))
    if len(kept) < FEWEST_PAIRS:
        raise DataError(f"{table.name}: {len(kept)} usable of {len(pairs)} pairs, but at least 2 pairs are needed.")
    report = DataReport(
        kind="pairs", sources=(table.name,), rows=len(pairs) + unreadable, kept=len(kept),
        duplicates=len(different) - len(kept), ties=len(pairs) - len(different), unreadable=unreadable,
        normalised=table.normalised,
    )  # fmt: skip
    found = _from_rows(kept, report)
    warn_of_changes(found.report, dropped=report.rows - report.kept, normalised=report.normalised)
    return found


def _read_rows(table: Table) -> list[_Pair]:
    optional = ("label", "objective", "user", "margin", "weight", *_SCORES)
    present = [name for name in optional if name in table.columns]
    pairs, problems = [], []
    for i, row in enumerate(table.rows):
        try:
            pairs.append(_read_row(row, present))
        except DataError as error:
            problems.append(f"{table.place(i)}: {error}")
    table.refuse(problems)
    return pairs


def _read_row(row: Mapping[str, object], present: Sequence[str]) -> _Pair:
    return _Pair(
        *split_row(row),
        label=_number(row, "label", 0, 1) if "label" in present else 1.0,
        objective=_name(row, "objective") if "objective" in present else None,
        user=_name(row, "user") if "user" in present else None,
        margin=_margin(row, present),
        weight=_number(row, "weight", 0, math.inf) if "weight" in present else None,
    )


def _margin(row: Mapping[str, object], present: Sequence[str]) -> float | None:
    if "margin" in present:
        return _number(row, "margin", -math.inf, math.inf)
    if not set(_SCORES) <= set(present):
        return None
    chosen, rejected = (_number(row, name, -math.inf, math.inf) for name in _SCORES)
    return chosen - rejected


def _name(row: Mapping[str, object], column: str) -> str:
    value = cell(row, column)
    return str(value) if isinstance(value, int) else as_text(value, f"column {column!r}")


def _number(row: Mapping[str, object], column: str, low: float, high: float) -> float:
    value = cell(row, column)
    try:  # cells of CSV files are text
        number = float(value) if isinstance(value, (int, float, str)) else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if not (math.isfinite(number) and low <= number <= high):
        advice = f"Rename or drop the column {column!r} if it means something else."
        raise DataError(f"column {column!r} must be {_span(low, high)}, got {short_repr(value)}. {advice}")
    return number


def _span(low: float, high: float) -> str:
    if math.isinf(high):
        return "a finite number" if math.isinf(low) else f"a finite number >= {low:g}"
    return f"a number in [{low:g}, {high:g}]"


def _rows_of(objective: str, found: Sequence[object], where: str) -> list[int]:
    rows = [i for i, name in enumerate(found) if name is None or str(name) == objective]  # None is refused by row
    if all(found[i] is None for i in rows):
        counts = Counter(str(name) for name in found if name is not None)
        near = difflib.get_close_matches(objective, list(counts), n=1)
        names = ", ".join(f"{name} ({count:,} rows)" for name, count in sorted(counts.items())) or "none"
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise DataError(f"{where}: no rows of objective {objective!r}. Found: {names}.{hint}")
    return rows


def _from_rows(pairs: Sequence[_Pair], report: DataReport) -> PreferencePairs:
    prompts, chosen, rejected, labels, objective, user, margin, weight = zip(*pairs, strict=True)
    return PreferencePairs(
        prompts=prompts, chosen=chosen, rejected=rejected, labels=np.array(labels, dtype=np.float64),
        objective=None if objective[0] is None else objective, user=None if user[0] is None else user,
        margin=None if margin[0] is None else np.array(margin, dtype=np.float64),
        weight=None if weight[0] is None else np.array(weight, dtype=np.float64), report=report,
    )  # fmt: skip


def _measured(pairs: PreferencePairs) -> dict[str, Any]:
    """Returns the fields of the report that follow from the content."""
    objectives, users = pairs.objective or (None,) * len(pairs), pairs.user or (None,) * len(pairs)
    contexts = zip(pairs.prompts, objectives, strict=True)
    judged = zip(contexts, pairs.chosen, pairs.rejected, pairs.labels.tolist(), strict=True)
    named = {"objective": dict(sorted(Counter(pairs.objective).items()))} if pairs.objective else {}
    return {
        **lengths(pairs.prompts, pairs.chosen + pairs.rejected),
        **contradictions(judged, users),
        **(votes_per_user(pairs.user) if pairs.user else {}),
        "balance": {**named, **label_balance(pairs.labels)},
        "longer_preferred": longer_preferred(pairs.chosen, pairs.rejected, pairs.labels),
    }


def _check_columns(pairs: PreferencePairs) -> None:
    n = len(pairs.prompts)
    if n < FEWEST_PAIRS:
        raise DataError(f"{n} pairs given, but at least 2 pairs are needed.")
    for name in ("chosen", "rejected", "labels", "objective", "user", "margin", "weight"):
        values = getattr(pairs, name)
        if values is not None and (np.ndim(values) != 1 or len(values) != n):
            raise DataError(f"{name} must hold one value per pair ({n}), got shape {np.shape(values)}.")
    for name, low, high in (("labels", 0, 1), ("margin", -math.inf, math.inf), ("weight", 0, math.inf)):
        numbers = getattr(pairs, name)
        if numbers is not None and not (np.isfinite(numbers) & (numbers >= low) & (numbers <= high)).all():
            raise DataError(f"{name} must be finite and in [{low}, {high}], got {numbers.min()}..{numbers.max()}.")


def _frozen(values: object) -> FloatArray:
    array = np.array(values, dtype=np.float64)
    array.setflags(write=False)
    return array


def _listed(values: FloatArray | None) -> list[float] | None:
    return None if values is None else values.tolist()


def _taken(values: FloatArray | tuple[object, ...] | None, keep: np.ndarray) -> object:
    if values is None or isinstance(values, np.ndarray):
        return None if values is None else values[keep]
    return tuple(values[i] for i in keep)
