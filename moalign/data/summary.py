"""The report of any data set, whatever it holds: what `moalign data FILE` prints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from moalign.data.comparisons import Comparisons, load_comparisons
from moalign.data.pairs import PreferencePairs, pairs_from_table
from moalign.data.prompts import Prompts, load_prompts
from moalign.data.ratings import Ratings, ratings_from_table
from moalign.data.report import DataReport, contradictions, label_balance, lengths, longer_preferred, votes_per_user
from moalign.data.tables import Table, read_table
from moalign.data.votes import Votes, load_votes
from moalign.errors import DataError

_VOTES = {1: "agree", 0: "pass", -1: "disagree"}


def data_report(source: object, *, objective: str | None = None, attributes: Sequence[str] | None = None) -> DataReport:
    """Returns the report of a data set: counts, duplicates, contradictions, users, label balance and lengths.

    The kind is told by the columns: `chosen` and `rejected` are pairs (comparisons of users where there are no
    prompts), `statement` and `vote` are votes, `response` or `completion` are ratings, `prompt` alone is prompts.

    Args:
        source: a data set, or whatever `load_pairs`, `load_comparisons`, `load_votes`, `load_ratings` and
            `load_prompts` read.
        objective: of pairs, the only one to look at.
        attributes: of ratings, the columns that hold them; None as for `load_ratings`.

    Raises:
        DataError: unusable rows (all counted, the first listed), or columns of no known kind.
    """
    if isinstance(source, (PreferencePairs, Prompts, Ratings)):
        return source.report
    if isinstance(source, Comparisons):
        return _of_comparisons(source, "memory")
    if isinstance(source, Votes):
        return _of_votes(source, "memory")
    table = read_table(source, column="prompt")
    columns = set(table.columns)
    if {"chosen", "rejected"} <= columns:
        if "user" in columns and "prompt" not in columns and all(isinstance(r.get("chosen"), str) for r in table.rows):
            return _of_comparisons(load_comparisons(source), table.name)
        return pairs_from_table(table, objective=objective).report
    if {"statement", "vote"} <= columns:
        return _of_votes(load_votes(source), table.name)
    if columns & {"response", "completion"}:
        return ratings_from_table(table, attributes).report
    if "prompt" in columns:
        return load_prompts(source).report
    raise DataError(f"{table.name}: {_unknown(table)}")


def _unknown(table: Table) -> str:
    return (
        f"no known kind of data. Columns found: {', '.join(table.columns) or 'none'}. Expected are chosen and rejected"
        " (pairs), user, statement and vote (votes), response and ratings (ratings), or prompt (prompts)."
    )


def _of_comparisons(given: Comparisons, source: str) -> DataReport:
    users, chosen, rejected = (column.tolist() for column in (given.user, given.chosen, given.rejected))
    labels = given.labels.tolist()
    texts = [reply for _, reply in given.items]
    rows = Counter(zip(users, chosen, rejected, labels, strict=True))
    fields: dict[str, Any] = {
        **lengths([prompt for prompt, _ in given.items if prompt], texts),
        **votes_per_user(users),
        **contradictions(((None, a, b, p) for a, b, p in zip(chosen, rejected, labels, strict=True)), users),
        "balance": label_balance(given.labels),
        "longer_preferred": longer_preferred([texts[i] for i in chosen], [texts[i] for i in rejected], given.labels),
        "duplicates": len(given) - len(rows),
    }
    return DataReport(kind="comparisons", sources=(source,), rows=len(given), kept=len(given), **fields)


def _of_votes(votes: Votes, source: str) -> DataReport:
    users, statements, given = (column.tolist() for column in (votes.user, votes.statement, votes.vote))
    counts = Counter(given)
    judged = ((None, i, None, (vote + 1) / 2) for i, vote in zip(statements, given, strict=True))
    fields: dict[str, Any] = {
        **lengths((), votes.statements),
        **votes_per_user(users),
        **contradictions(judged, users),
        "balance": {"vote": {name: counts[vote] for vote, name in _VOTES.items() if counts[vote]}},
        "duplicates": len(votes) - len(set(zip(users, statements, given, strict=True))),
    }
    return DataReport(kind="votes", sources=(source,), rows=len(votes), kept=len(votes), **fields)
