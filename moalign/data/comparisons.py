"""Who preferred which of two items: comparisons of many users over a shared set of texts, as integer columns.

An item is a prompt with a reply; statements and other single texts have the empty prompt. `NOTHING` is the item without
any text: a vote for or against a statement is a comparison of the statement with it (see `moalign.data.votes`). Each
text is kept once, so that a million comparisons of a thousand statements embed a thousand texts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, final

import numpy as np

from moalign.arrays import FloatArray, IntArray
from moalign.data.pairs import PreferencePairs
from moalign.data.prompts import content_hash, read_prompt
from moalign.data.tables import as_text, cell, has_unreadable, read_table, short_repr
from moalign.errors import DataError, DefinitionError

Item: TypeAlias = tuple[str, str]  # prompt, reply
NOTHING: Item = ("", "")  # the item that stands for "neither": models place it at the zero vector


@final
@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Comparisons:
    """n comparisons as columns; two are the same data if their `__fingerprint__` is.

    Example:
        >>> given = load_comparisons([{"user": "ann", "chosen": "tea", "rejected": "coffee"}])
        >>> given
        <Comparisons 1 by 1 user over 2 items>
        >>> given.items[given.chosen[0]]
        ('', 'tea')
    """

    users: tuple[str, ...]  # distinct names
    items: tuple[Item, ...]  # distinct
    user: IntArray  # [n], positions in `users`
    chosen: IntArray  # [n], positions in `items`
    rejected: IntArray  # [n], positions in `items`, each other than `chosen`
    labels: FloatArray  # [n], probability in [0, 1] that `chosen` is preferred

    def __post_init__(self) -> None:
        for name in ("user", "chosen", "rejected"):
            object.__setattr__(self, name, frozen(getattr(self, name), np.int64))
        object.__setattr__(self, "labels", frozen(self.labels, np.float64))
        _check(self)

    def __len__(self) -> int:
        return len(self.user)

    def __repr__(self) -> str:
        some = f"{len(self.users):,} user{'s' * (len(self.users) != 1)}"
        return f"<Comparisons {len(self):,} by {some} over {len(self.items):,} items>"

    def __fingerprint__(self) -> dict[str, object]:
        """Returns what identifies the content, whatever file it came from."""
        columns = [getattr(self, name).tolist() for name in ("user", "chosen", "rejected", "labels")]
        return {"kind": "comparisons", "rows": len(self), "sha256": content_hash(self.users, self.items, columns)}

    def counts(self) -> IntArray:
        """Returns the number of comparisons of each user, [users]."""
        return np.bincount(self.user, minlength=len(self.users))

    def select(self, rows: Sequence[int] | IntArray) -> Comparisons:
        """Returns the comparisons at these positions, with the users and items that occur in them."""
        keep = np.asarray(rows, dtype=np.int64)
        if not len(keep):
            raise DataError("no comparison is selected; at least one is needed.")
        users, user = np.unique(self.user[keep], return_inverse=True)
        items, places = np.unique(np.stack([self.chosen[keep], self.rejected[keep]]), return_inverse=True)
        chosen, rejected = places.reshape(2, -1)
        return Comparisons(
            users=tuple(self.users[i] for i in users), items=tuple(self.items[i] for i in items),
            user=user, chosen=chosen, rejected=rejected, labels=self.labels[keep],
        )  # fmt: skip

    def of(self, *users: str) -> Comparisons:
        """Returns the comparisons of these users.

        Raises:
            DataError: a name that is not here.
        """
        unknown = [name for name in users if name not in self.users]
        if unknown:
            raise DataError(f"no comparisons of user {unknown[0]!r}; there are {len(self.users):,} other users.")
        wanted = [self.users.index(name) for name in users]
        return self.select(np.flatnonzero(np.isin(self.user, wanted)))

    def split(self, share: float, *, seed: int = 0) -> tuple[IntArray, IntArray]:
        """Returns the rows of a random (1 - share, share) split within each user, in order.

        Each user gives floor(share * count) comparisons to the right part, so one who has few gives none.

        Args:
            share: in [0, 1), of the right part.
            seed: of the choice.
        """
        if not 0 <= share < 1:
            raise DefinitionError(f"share must be in [0, 1), got {share}.")
        rank = _rank_within(self.user, np.random.default_rng(seed))
        right = rank < np.floor(share * self.counts())[self.user]
        return np.flatnonzero(~right), np.flatnonzero(right)


def load_comparisons(source: object, *, user: str | None = None) -> Comparisons:
    """Returns the comparisons of a file or of an object in memory.

    Columns: `chosen`, `rejected`, `user`; optional `prompt` (texts or messages; empty when absent) and `label`
    (probability in [0, 1] that chosen is preferred; 1 when absent). A row may also be a tuple (prompt, chosen,
    rejected). Repetitions and contradictions are kept: a user may answer twice, and may change their mind.

    Args:
        source: path of a .jsonl, .json, .csv or .parquet file; pandas DataFrame; `datasets.Dataset`; list of
            dictionaries or tuples; PreferencePairs; Comparisons.
        user: whose comparisons these are, where the data has no column `user`.

    Raises:
        DataError: unusable rows (all listed by row), no rows, or no column `user` and none given.
    """
    if isinstance(source, Comparisons):
        return source
    if isinstance(source, PreferencePairs):
        return _from_pairs(source, user)
    table = read_table(_named(source))
    table.require("chosen", "rejected")
    if "user" not in table.columns and user is None:
        raise DataError(f"{table.name}: whose comparisons are these? Add a column 'user', or name one: user='u17'.")
    rows, problems = [], []
    for i, row in enumerate(table.rows):
        try:
            rows.append(_read_row(row, user))
        except DataError as error:
            problems.append(f"{table.place(i)}: {error}")
    table.refuse(problems)
    return from_rows(rows)


def from_rows(rows: Sequence[tuple[str, Item, Item, float]]) -> Comparisons:
    """Returns the comparisons of (user, chosen, rejected, label) rows; users and items in order of appearance.

    Raises:
        DataError: no rows, or an item compared with itself.
    """
    users: dict[str, int] = {}
    items: dict[Item, int] = {}
    columns = [
        (users.setdefault(u, len(users)), items.setdefault(a, len(items)), items.setdefault(b, len(items)), label)
        for u, a, b, label in rows
    ]
    if not columns:
        raise DataError("no comparisons; at least one is needed.")
    user, chosen, rejected, labels = (np.array(column) for column in zip(*columns, strict=True))
    return Comparisons(
        users=tuple(users), items=tuple(items), user=user, chosen=chosen, rejected=rejected, labels=labels
    )  # fmt: skip


def _from_pairs(pairs: PreferencePairs, user: str | None) -> Comparisons:
    if pairs.user is None and user is None:
        raise DataError("these pairs have no users. Load them with a column 'user', or name one: user='u17'.")
    users = pairs.user or (str(user),) * len(pairs)
    columns = zip(users, pairs.prompts, pairs.chosen, pairs.rejected, pairs.labels.tolist(), strict=True)
    return from_rows([(who, (str(p), a), (str(p), b), label) for who, p, a, b, label in columns])


def _named(source: object) -> object:
    """Returns the source with tuples (prompt, chosen, rejected) turned into rows."""
    if isinstance(source, Sequence) and not isinstance(source, (str, bytes)):
        names = ("prompt", "chosen", "rejected")
        return [dict(zip(names, r, strict=True)) if isinstance(r, tuple) and len(r) == 3 else r for r in source]
    return source


def _read_row(row: Mapping[str, object], user: str | None) -> tuple[str, Item, Item, float]:
    prompt: Any = row.get("prompt")
    prompt = "" if prompt is None or prompt == "" else str(read_prompt(prompt, "column 'prompt'"))
    chosen, rejected = (as_text(cell(row, side), f"column {side!r}") for side in ("chosen", "rejected"))
    if chosen == rejected:
        raise DataError(f"'chosen' and 'rejected' are the same text {short_repr(chosen)}. Remove the row.")
    who = cell(row, "user") if "user" in row else user
    label = cell(row, "label") if "label" in row else 1.0
    try:
        number = float(label)  # type: ignore[arg-type]  # cells of CSV files are text
    except (TypeError, ValueError):
        number = np.nan
    if not 0 <= number <= 1:
        raise DataError(f"column 'label' must be a number in [0, 1], got {short_repr(label)}.")
    return user_name(who), (prompt, chosen), (prompt, rejected), number


def user_name(value: object) -> str:
    """Returns the name of a user, who may be a number in the data; DataError (without the place) otherwise."""
    return str(value) if isinstance(value, int) else as_text(value, "column 'user'")


def frozen(values: object, kind: type[np.generic]) -> Any:
    """Returns a read-only copy as an array of this kind."""
    array = np.array(values, dtype=kind)
    array.setflags(write=False)
    return array


def check_places(places: IntArray, most: int, name: str) -> None:
    """Raises DataError unless every entry is a position in 0 .. most - 1."""
    if ((places < 0) | (places >= most)).any():
        raise DataError(f"{name} must hold positions 0..{most - 1}, got {places.min()}..{places.max()}.")


def check_names(names: Sequence[object], what: str) -> None:
    """Raises DataError unless the names differ and can be tokenised."""
    if len(set(names)) != len(names):
        raise DataError(f"{what} must differ from each other; {len(names) - len(set(names))} of them are repetitions.")
    for name in names:
        parts = name if isinstance(name, tuple) else (name,)
        if any(not isinstance(part, str) or has_unreadable(part) for part in parts):
            raise DataError(f"{what} must be texts without lone surrogates or NUL, got {short_repr(name)}.")


def _check(given: Comparisons) -> None:
    if not len(given.user):
        raise DataError("no comparisons; at least one is needed.")
    for name in ("user", "chosen", "rejected", "labels"):
        shape = getattr(given, name).shape
        if shape != (len(given.user),):
            raise DataError(f"{name} must hold one value per comparison ({len(given.user)}), got shape {shape}.")
    check_names(given.users, "users")
    check_names(given.items, "items")
    check_places(given.user, len(given.users), "user")
    check_places(given.chosen, len(given.items), "chosen")
    check_places(given.rejected, len(given.items), "rejected")
    same = np.flatnonzero(given.chosen == given.rejected)
    if len(same):
        raise DataError(f"comparison {same[0]} (counted from 0) compares an item with itself. Remove it.")
    bad = np.flatnonzero(~((given.labels >= 0) & (given.labels <= 1)))
    if len(bad):
        raise DataError(f"labels must be in [0, 1]; comparison {bad[0]} (counted from 0) has {given.labels[bad[0]]}.")


def _rank_within(groups: IntArray, draw: np.random.Generator) -> IntArray:
    """Returns the place of each row in a random order of the rows of its group, from 0."""
    order = np.lexsort((draw.permutation(len(groups)), groups))
    starts = np.searchsorted(groups[order], groups[order], side="left")
    rank = np.empty(len(groups), dtype=np.int64)
    rank[order] = np.arange(len(groups)) - starts
    return rank
