"""Ratings: responses with one number per attribute, some of which may be missing, by nobody in particular or by users.

A rating says how good something is; alignment learns from what is better. `pairs` and `comparisons` derive the second
from the first: of two responses that the same person (or the same crowd) rated differently on an attribute, the higher
rated one is preferred, and the difference is the margin. Equal ratings say nothing and give no pair.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np

from moalign.arrays import FloatArray, IntArray
from moalign.data.comparisons import Comparisons, frozen, user_name
from moalign.data.pairs import PreferencePairs
from moalign.data.prompts import Prompt, canonical, check_prompt, content_hash, read_prompt
from moalign.data.report import DataReport, lengths, level_balance, votes_per_user
from moalign.data.tables import Table, as_text, cell, has_unreadable, read_table, short_repr
from moalign.errors import DataError, DefinitionError

_TEXTS = ("prompt", "response", "completion", "user")
_Pairs = tuple[IntArray, IntArray]  # rows of the better and of the worse response


@final
@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Ratings:
    """Rated responses as columns of equal length; two are the same data if their `__fingerprint__` is.

    Example:
        >>> rated = load_ratings([
        ...     {"prompt": "Hi", "response": "Hello!", "polite": 4, "brief": 2},
        ...     {"prompt": "Hi", "response": "What?", "polite": 1, "brief": None},
        ... ])
        >>> rated
        <Ratings 2 of 2 responses on polite, brief>
        >>> rated.report.missing
        {'polite': 0, 'brief': 1}
    """

    responses: tuple[str, ...]
    attributes: tuple[str, ...]
    values: FloatArray  # [ratings, attributes], NaN where an attribute was not rated
    prompts: tuple[Prompt, ...] | None = None  # None: the texts stand for themselves
    user: tuple[str, ...] | None = None  # who rated
    report: DataReport = DataReport()  # filled from the ratings

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", frozen(self.values, np.float64))
        _check(self)
        found = self.report
        if not found.rows:
            found = DataReport(kind="ratings", sources=("memory",), rows=len(self), kept=len(self))
        object.__setattr__(self, "report", replace(found, **_measured(self)))

    def __len__(self) -> int:
        return len(self.responses)

    def __repr__(self) -> str:
        names = ", ".join(self.attributes[:5]) + (", ..." if len(self.attributes) > 5 else "")
        by = "" if self.user is None else f" by {len(set(self.user)):,} users"
        return f"<Ratings {len(self):,} of {len(set(self._items())):,} responses on {names}{by}>"

    def __fingerprint__(self) -> dict[str, object]:
        """Returns what identifies the content, whatever file it came from."""
        prompts = [] if self.prompts is None else map(canonical, self.prompts)
        columns = (self.attributes, self.values.tolist(), self.user)
        return {"kind": "ratings", "rows": len(self), "sha256": content_hash(prompts, self.responses, columns)}

    def select(self, rows: Sequence[int] | IntArray) -> Ratings:
        """Returns the ratings at these positions, in this order."""
        keep = np.asarray(rows, dtype=np.int64)
        columns: dict[str, Any] = {
            name: None if getattr(self, name) is None else tuple(getattr(self, name)[i] for i in keep)
            for name in ("responses", "prompts", "user")
        }
        return replace(self, **columns, values=self.values[keep], report=DataReport())

    def averaged(self) -> Ratings:
        """Returns one rating per response, the mean over those who rated each attribute."""
        places: dict[tuple[Hashable, str], int] = {}
        row_of = np.array([places.setdefault(item, len(places)) for item in self._items()])
        known = ~np.isnan(self.values)
        sums, counts = np.zeros((2, len(places), len(self.attributes)))
        np.add.at(sums, row_of, np.where(known, self.values, 0.0))
        np.add.at(counts, row_of, known)
        first = np.unique(row_of, return_index=True)[1]
        with np.errstate(invalid="ignore"):
            return replace(self.select(first), values=sums / counts, user=None, report=DataReport())

    def pairs(self, *attributes: str, least: float = 0.0, most: int | None = None, seed: int = 0) -> PreferencePairs:
        """Returns preference pairs of responses to the same prompt, rated by the same user where there are users.

        Each pair carries its attribute as `objective` and the difference of the ratings as `margin`.

        Args:
            attributes: which ones; all when none is named.
            least: smallest difference that counts, rating units, >= 0; equal ratings never give a pair.
            most: pairs drawn per prompt, user and attribute; None takes all.
            seed: of the draw.

        Raises:
            DataError: no prompts, an unknown attribute, or fewer than 2 pairs.
        """
        if self.prompts is None:
            raise DataError("these ratings have no prompts, so replies cannot be compared. Use comparisons(...).")
        found = [(name, *self._ordered(name, True, least, most, seed)) for name in attributes or self.attributes]
        better, worse = (np.concatenate([parts[i] for parts in found]) for i in (1, 2))
        if len(better) < 2:
            raise DataError(f"these ratings give {len(better)} pairs: hardly any prompt has replies rated differently.")
        margins = np.concatenate([self._column(name)[b] - self._column(name)[w] for name, b, w in found])
        return PreferencePairs(
            prompts=tuple(self.prompts[i] for i in better), chosen=tuple(self.responses[i] for i in better),
            rejected=tuple(self.responses[i] for i in worse), labels=np.ones(len(better)), margin=margins,
            objective=tuple(name for name, b, _ in found for _ in b),
            user=None if self.user is None else tuple(self.user[i] for i in better),
        )  # fmt: skip

    def comparisons(
        self, attribute: str, *, across: bool | None = None, least: float = 0.0, most: int | None = None, seed: int = 0
    ) -> Comparisons:
        """Returns what each user preferred on one attribute, as comparisons for models of users.

        Args:
            attribute: its name.
            across: whether responses to different prompts are compared too; when None, only if there are no prompts.
            least: smallest difference that counts, rating units, >= 0.
            most: comparisons drawn per user (and prompt); None takes all, which grows with the square of the ratings.
            seed: of the draw.

        Raises:
            DataError: no users, an unknown attribute, or nothing that was rated differently.
        """
        if self.user is None:
            raise DataError("these ratings have no users. Load them with a column 'user', or use pairs(...).")
        within = self.prompts is not None and not across
        better, worse = self._ordered(attribute, within, least, most, seed)
        if not len(better):
            raise DataError(f"no user rated two items differently on {attribute!r}.")
        names, user = np.unique(np.array(self.user, dtype=object)[better], return_inverse=True)
        texts = [(str(prompt), response) for prompt, response in self._items()]
        items = {text: place for place, text in enumerate(dict.fromkeys(texts[i] for i in [*better, *worse]))}
        return Comparisons(
            users=tuple(names), items=tuple(items), user=user, labels=np.ones(len(better)),
            chosen=np.array([items[texts[i]] for i in better]), rejected=np.array([items[texts[i]] for i in worse]),
        )  # fmt: skip

    def _items(self) -> list[tuple[Any, str]]:
        return list(zip(self.prompts or ("",) * len(self), self.responses, strict=True))

    def _column(self, attribute: str) -> FloatArray:
        if attribute not in self.attributes:
            raise DataError(f"no attribute {attribute!r}; there are {', '.join(self.attributes)}.")
        return self.values[:, self.attributes.index(attribute)]

    def _ordered(self, attribute: str, within: bool, least: float, most: int | None, seed: int) -> _Pairs:
        """Returns the rows of better and worse responses [pairs] of the same user, and the same prompt if `within`."""
        if not (np.isfinite(least) and least >= 0) or (most is not None and most < 1):
            raise DefinitionError(f"least must be >= 0 and most >= 1, got {least} and {most}.")
        column, draw = self._column(attribute), np.random.default_rng(seed)
        groups: dict[Hashable, list[int]] = defaultdict(list)
        for i in np.flatnonzero(~np.isnan(column)).tolist():
            prompt = self.prompts[i] if within and self.prompts else None
            groups[prompt, self.user[i] if self.user else None].append(i)
        places: dict[Hashable, int] = {}
        items = np.array([places.setdefault(item, len(places)) for item in self._items()])
        parts = [_differing(np.array(rows), column, items, least, most, draw) for rows in groups.values()]
        better, worse = zip(*parts, strict=True) if parts else ((), ())
        empty = np.zeros(0, dtype=np.int64)
        return np.concatenate([empty, *better]), np.concatenate([empty, *worse])


def load_ratings(source: object, *, attributes: Sequence[str] | None = None) -> Ratings:
    """Returns the ratings of a file or of an object in memory.

    Columns: `response` (or `completion`); optional `prompt` (text or messages) and `user`, in every row or in none;
    and a column per attribute, whose empty cells are missing ratings. The unpaired preference layout (`prompt`,
    `completion`, `label`) is a table of ratings with the attribute `label`.

    Args:
        source: path of a .jsonl, .json, .csv or .parquet file; pandas DataFrame; `datasets.Dataset`; list of
            dictionaries; Ratings, returned as they are.
        attributes: columns that hold ratings. None takes all others than the above and those named id or ..._id.

    Raises:
        DataError: unusable rows (all counted, the first listed), no rows, or no attributes.
    """
    return source if isinstance(source, Ratings) else ratings_from_table(read_table(source), attributes)


def ratings_from_table(table: Table, attributes: Sequence[str] | None = None) -> Ratings:
    """Returns the ratings of a table that was read already; see `load_ratings`."""
    columns = table.columns
    reply = "completion" if "completion" in columns and "response" not in columns else "response"
    table.require(reply)
    names = tuple(attributes or (c for c in columns if c not in _TEXTS and not _is_id(c)))
    if not names:
        raise DataError(f"{table.name}: no column holds ratings. Columns found: {', '.join(columns)}.")
    table.require(*names)
    rows, problems = [], []
    for i, row in enumerate(table.rows):
        try:
            rows.append(_read_row(row, reply, names, columns))
        except DataError as error:
            problems.append(f"{table.place(i)}: {error}")
    table.refuse(problems)
    prompts, responses, users, values = zip(*rows, strict=True)
    report = DataReport(
        kind="ratings", sources=(table.name,), rows=len(rows), kept=len(rows), normalised=table.normalised
    )  # fmt: skip
    return Ratings(
        responses=responses, attributes=names, values=np.array(values, dtype=np.float64), report=report,
        prompts=prompts if "prompt" in columns else None, user=users if "user" in columns else None,
    )  # fmt: skip


def _differing(
    rows: IntArray, column: FloatArray, items: IntArray, least: float, most: int | None, draw: np.random.Generator
) -> _Pairs:
    first, second = (rows[places] for places in np.triu_indices(len(rows), 1))
    difference = column[first] - column[second]
    keep = np.flatnonzero((difference != 0) & (np.abs(difference) >= least) & (items[first] != items[second]))
    if most is not None and len(keep) > most:
        keep = np.sort(draw.choice(keep, most, replace=False))
    first, second, up = first[keep], second[keep], difference[keep] > 0
    return np.where(up, first, second), np.where(up, second, first)


def _read_row(
    row: Mapping[str, object], reply: str, names: Sequence[str], columns: Sequence[str]
) -> tuple[Prompt, str, str, list[float]]:
    prompt = read_prompt(cell(row, "prompt"), "column 'prompt'") if "prompt" in columns else ""
    response = as_text(_reply(cell(row, reply), reply), f"column {reply!r}")
    user = user_name(cell(row, "user")) if "user" in columns else ""
    values = [_rating(row.get(name), name) for name in names]
    if np.isnan(values).all():
        raise DataError(f"no rating at all ({', '.join(names)}).")
    return prompt, response, user, values


def _reply(value: object, column: str) -> object:
    """Returns the text of a reply that is given as one assistant message; other values as they are."""
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], Mapping):
        if value[0].get("role") != "assistant":
            raise DataError(f"column {column!r} must be an 'assistant' message, got {value[0].get('role')!r}.")
        return value[0].get("content")
    return value


def _rating(value: object, name: str) -> float:
    if value is None or (isinstance(value, str) and not value.strip()):
        return np.nan
    try:  # cells of CSV files are text
        number = float(value) if isinstance(value, (int, float, str)) else np.inf
    except (ValueError, OverflowError):
        number = np.inf
    if np.isinf(number):
        raise DataError(
            f"column {name!r} must be a finite number or empty, got {short_repr(value)}. Name the columns that hold"
            " ratings: attributes=[...]."
        )
    return number


def _is_id(column: str) -> bool:
    return column.lower() == "id" or column.lower().endswith("_id")


def _measured(ratings: Ratings) -> dict[str, Any]:
    users = ratings.user or (None,) * len(ratings)
    rows = zip(ratings._items(), users, map(bytes, ratings.values), strict=True)
    columns = dict(zip(ratings.attributes, ratings.values.T, strict=True))
    return {
        **lengths(ratings.prompts or (), ratings.responses),
        **(votes_per_user(ratings.user) if ratings.user else {}),
        "duplicates": len(ratings) - len(set(rows)),
        "missing": {name: int(np.isnan(column).sum()) for name, column in columns.items()},
        "balance": {name: level_balance(column) for name, column in columns.items()},
    }


def _check(ratings: Ratings) -> None:
    n = len(ratings.responses)
    if not n or not ratings.attributes:
        raise DataError(f"ratings need one or more responses and attributes, got {n} and {len(ratings.attributes)}.")
    if len(set(ratings.attributes)) != len(ratings.attributes):
        raise DataError(f"attributes must differ, got {', '.join(ratings.attributes)}.")
    if ratings.values.shape != (n, len(ratings.attributes)):
        raise DataError(f"values must be [{n}, {len(ratings.attributes)}], got shape {ratings.values.shape}.")
    if np.isinf(ratings.values).any():
        raise DataError(f"rating {int(np.argwhere(np.isinf(ratings.values))[0, 0])} (counted from 0) is infinite.")
    for name in ("prompts", "user"):
        if getattr(ratings, name) is not None and len(getattr(ratings, name)) != n:
            raise DataError(f"{name} must hold one value per rating ({n}), got {len(getattr(ratings, name))}.")
    for i, prompt in enumerate(ratings.prompts or ()):
        check_prompt(prompt, f"prompt {i} (counted from 0)")
    for i, text in enumerate(ratings.responses):
        if has_unreadable(as_text(text, f"response {i} (counted from 0)")):
            raise DataError(f"response {i} (counted from 0) holds lone surrogates or NUL. Load it with load_ratings.")
