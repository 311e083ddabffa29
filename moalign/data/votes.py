"""Votes of many users on statements: agree, disagree or pass, as integer columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from moalign.arrays import IntArray
from moalign.data.comparisons import NOTHING, Comparisons, check_names, check_places, frozen, user_name
from moalign.data.prompts import content_hash
from moalign.data.tables import as_text, cell, read_table, short_repr
from moalign.errors import DataError

_WORDS = {"agree": 1, "disagree": -1, "pass": 0}


@final
@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Votes:
    """n votes as columns; two are the same data if their `__fingerprint__` is."""

    users: tuple[str, ...]  # distinct names
    statements: tuple[str, ...]  # distinct texts
    user: IntArray  # [n], positions in `users`
    statement: IntArray  # [n], positions in `statements`
    vote: IntArray  # [n], +1 agree, -1 disagree, 0 pass

    def __post_init__(self) -> None:
        for name in ("user", "statement", "vote"):
            object.__setattr__(self, name, frozen(getattr(self, name), np.int64))
        _check(self)

    def __len__(self) -> int:
        return len(self.user)

    def __repr__(self) -> str:
        return f"<Votes {len(self):,} by {len(self.users):,} users on {len(self.statements):,} statements>"

    def __fingerprint__(self) -> dict[str, object]:
        """Returns what identifies the content, whatever file it came from."""
        columns = [getattr(self, name).tolist() for name in ("user", "statement", "vote")]
        return {"kind": "votes", "rows": len(self), "sha256": content_hash(self.users, self.statements, columns)}

    def select(self, rows: Sequence[int] | IntArray) -> Votes:
        """Returns the votes at these positions, with the users and statements that occur in them."""
        keep = np.asarray(rows, dtype=np.int64)
        if not len(keep):
            raise DataError("no vote is selected; at least one is needed.")
        users, user = np.unique(self.user[keep], return_inverse=True)
        statements, statement = np.unique(self.statement[keep], return_inverse=True)
        return Votes(
            users=tuple(self.users[i] for i in users), statements=tuple(self.statements[i] for i in statements),
            user=user, statement=statement, vote=self.vote[keep],
        )  # fmt: skip

    def comparisons(self) -> Comparisons:
        """Returns each vote that is no pass as a comparison of the statement with `NOTHING`, the empty item.

        Agreement prefers the statement, disagreement prefers nothing; so a model of comparisons predicts the sign of
        a vote by whether the user ranks the statement above nothing.

        Raises:
            DataError: every vote is a pass.
        """
        given = np.flatnonzero(self.vote)
        if not len(given):
            raise DataError("every vote is a pass, so nothing is compared with anything.")
        statement, nothing = self.statement[given], len(self.statements)
        agrees = self.vote[given] > 0
        return Comparisons(
            users=self.users, items=(*(("", text) for text in self.statements), NOTHING), user=self.user[given],
            chosen=np.where(agrees, statement, nothing), rejected=np.where(agrees, nothing, statement),
            labels=np.ones(len(given)),
        )  # fmt: skip


def load_votes(source: object) -> Votes:
    """Returns the votes of a file or of an object in memory.

    Columns: `user`, `statement` (text) and `vote`: 1, -1, 0 or the words agree, disagree, pass.

    Args:
        source: path of a .jsonl, .json, .csv or .parquet file; pandas DataFrame; `datasets.Dataset`; list of
            dictionaries; Votes.

    Raises:
        DataError: unusable rows (all listed by row) or no rows.
    """
    if isinstance(source, Votes):
        return source
    table = read_table(source)
    table.require("user", "statement", "vote")
    rows, problems = [], []
    for i, row in enumerate(table.rows):
        try:
            text = as_text(cell(row, "statement"), "column 'statement'")
            rows.append((user_name(cell(row, "user")), text, _vote(row)))
        except DataError as error:
            problems.append(f"{table.place(i)}: {error}")
    table.refuse(problems)
    users: dict[str, int] = {}
    statements: dict[str, int] = {}
    columns = [
        (users.setdefault(who, len(users)), statements.setdefault(text, len(statements)), vote)
        for who, text, vote in rows
    ]
    user, statement, vote = (np.array(column) for column in zip(*columns, strict=True))
    return Votes(users=tuple(users), statements=tuple(statements), user=user, statement=statement, vote=vote)


def _vote(row: Mapping[str, object]) -> int:
    value = cell(row, "vote")
    if isinstance(value, str) and value.strip().lower() in _WORDS:
        return _WORDS[value.strip().lower()]
    try:
        number = float(value)  # type: ignore[arg-type]  # cells of CSV files are text
    except (TypeError, ValueError):
        number = np.nan
    if number not in (1, 0, -1):
        raise DataError(f"column 'vote' must be 1, 0, -1, agree, disagree or pass, got {short_repr(value)}.")
    return int(number)


def _check(votes: Votes) -> None:
    if not len(votes.user):
        raise DataError("no votes; at least one is needed.")
    for name in ("user", "statement", "vote"):
        shape = getattr(votes, name).shape
        if shape != (len(votes.user),):
            raise DataError(f"{name} must hold one value per vote ({len(votes.user)}), got shape {shape}.")
    check_names(votes.users, "users")
    check_names(votes.statements, "statements")
    check_places(votes.user, len(votes.users), "user")
    check_places(votes.statement, len(votes.statements), "statement")
    if not np.isin(votes.vote, (-1, 0, 1)).all():
        raise DataError(f"votes must be 1, 0 or -1, got {votes.vote.min()}..{votes.vote.max()}.")
