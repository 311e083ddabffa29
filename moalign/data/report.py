"""What a data set holds and what became of its rows, as one object that prints and writes itself as JSON.

The functions that count are pure: they take columns and give the fields of a `DataReport`.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np

from moalign.arrays import FloatArray
from moalign.errors import DataWarning

FEW_VOTES = 5  # users with fewer judgements say little about themselves
_MOST_LEVELS = 11  # a scale with more values is shown in ranges
_RANGES = 5
_CONTRADICTORY = {"comparisons": "pairs judged in both directions", "votes": "statements judged in both directions"}


@final
@dataclass(frozen=True, kw_only=True, repr=False)
class DataReport:
    """What was read and what became of it. Lengths are in characters; prompts are measured as plain text."""

    kind: str = "rows"  # "prompts", "pairs", "ratings", "comparisons" or "votes"
    sources: tuple[str, ...] = ()
    rows: int = 0  # rows found
    kept: int = 0  # rows in the result
    duplicates: int = 0  # equal rows beyond the first: dropped from pairs, kept elsewhere
    ties: int = 0  # pairs dropped because both replies are the same text
    contradictory: int = 0  # unordered pairs (or items) that were judged in both directions; kept
    self_contradictory: int = 0  # those of them that one user judged in both directions
    unreadable: int = 0  # transcripts dropped because they are no pair of replies to one conversation
    normalised: int = 0  # characters in the source that no tokenizer accepts, replaced by U+FFFD
    mean_prompt_characters: float = 0.0
    max_prompt_characters: int = 0
    mean_reply_characters: float = 0.0
    max_reply_characters: int = 0
    users: int = 0  # distinct users, 0 where nobody is named
    median_votes: float = 0.0  # judgements of the median user
    users_with_few_votes: int = 0  # users with fewer than `FEW_VOTES` judgements
    missing: Mapping[str, int] = field(default_factory=dict)  # ratings without a value, by attribute
    balance: Mapping[str, Mapping[str, int]] = field(default_factory=dict)  # how often each label or level was given
    longer_preferred: float | None = None  # share of preferred replies that are the longer one, where lengths differ

    def __str__(self) -> str:
        counted = f"{self.kept:,}" if self.kept == self.rows else f"{self.kept:,} of {self.rows:,}"
        head = f"{counted} {self.kind} from {', '.join(self.sources) or 'memory'}"
        parts = [head, *self.remarks()]
        if self.max_prompt_characters:
            parts.append(
                f"prompts {self.mean_prompt_characters:,.0f} characters (at most {self.max_prompt_characters:,})"
            )
        if self.max_reply_characters:
            parts.append(f"replies {self.mean_reply_characters:,.0f} (at most {self.max_reply_characters:,})")
        return "; ".join(parts)

    def __repr__(self) -> str:
        return "\n".join(["<DataReport", *(f"  {name:<10}{words}" for name, words in self.lines())]) + ">"

    def remarks(self) -> list[str]:
        """Returns the counts that are not zero, in words."""
        fate = "dropped" if self.kind == "pairs" else "kept"
        counts = {
            f"duplicates {fate}": self.duplicates,
            "pairs with equal replies dropped": self.ties,
            _CONTRADICTORY.get(self.kind, "contradictory pairs kept"): self.contradictory,
            "unreadable transcripts dropped": self.unreadable,
            "characters no tokenizer accepts replaced": self.normalised,
        }
        return [f"{count:,} {words}" for words, count in counts.items() if count]

    def lines(self) -> list[tuple[str, str]]:
        """Returns (name, words) rows for people; parts that do not apply are left out."""
        counted = f"{self.kept:,} {self.kind}" + ("" if self.kept == self.rows else f" of {self.rows:,} rows")
        rows = [("data", f"{counted} from {', '.join(self.sources) or 'memory'}")]
        rows += [("note", remark) for remark in self.remarks()]
        if self.self_contradictory:
            rows.append(("note", f"{self.self_contradictory:,} of them in both directions by one user"))
        if self.users:
            few = f"{self.users_with_few_votes:,} with fewer than {FEW_VOTES}"
            rows.append(("users", f"{self.users:,}, {self.median_votes:g} judgements in the median, {few}"))
        for name, levels in self.balance.items():
            given = sum(levels.values())
            shares = "  ".join(f"{level} {count:,} ({count / given:.0%})" for level, count in levels.items())
            lacking = f"  missing {self.missing[name]:,}" if self.missing.get(name) else ""
            rows.append(("labels", f"{name}: {shares or 'none'}{lacking}"))
        if self.longer_preferred is not None:
            rows.append(("length", f"the preferred reply is the longer one in {self.longer_preferred:.0%}"))
        for name in ("prompt", "reply"):
            mean, most = (getattr(self, f"{kind}_{name}_characters") for kind in ("mean", "max"))
            if most:
                rows.append(("length", f"{name} {mean:,.0f} characters on average, at most {most:,}"))
        return rows

    def to_json(self) -> dict[str, Any]:
        """Returns every field as plain JSON values."""
        return {f.name: _plain(getattr(self, f.name)) for f in dataclasses.fields(self)}


def warn_of_changes(report: DataReport, **changes: int) -> None:
    """Warns once, with all counts of the report, if any of the named changes happened."""
    if any(changes.values()):
        source = ", ".join(report.sources)
        warnings.warn(f"{source}: {', '.join(report.remarks())}.", DataWarning, stacklevel=3)


def lengths(prompts: Iterable[object], replies: Iterable[object] = ()) -> dict[str, Any]:
    """Returns the fields about lengths."""
    found = {}
    for name, texts in (("prompt", prompts), ("reply", replies)):
        counted = [len(str(text)) for text in texts]
        found[f"mean_{name}_characters"] = sum(counted) / len(counted) if counted else 0.0
        found[f"max_{name}_characters"] = max(counted, default=0)
    return found


def votes_per_user(users: Iterable[Hashable]) -> dict[str, Any]:
    """Returns the fields about users, from the user of each judgement."""
    counts = list(Counter(users).values())
    few = sum(count < FEW_VOTES for count in counts)
    return {"users": len(counts), "median_votes": float(np.median(counts or [0])), "users_with_few_votes": few}


def contradictions(
    judged: Iterable[tuple[Hashable, Hashable, Hashable, float]], users: Iterable[Hashable]
) -> dict[str, int]:
    """Returns the fields about contradictions.

    Args:
        judged: (context, first, second, probability that the first is preferred); 1/2 takes no side.
        users: who judged each.
    """
    winners: dict[Hashable, set[Hashable]] = defaultdict(set)
    own: dict[tuple[Hashable, Hashable], set[Hashable]] = defaultdict(set)
    for (context, first, second, label), user in zip(judged, users, strict=True):
        if label != 0.5:
            pair, winner = (context, frozenset((first, second))), first if label > 0.5 else second
            winners[pair].add(winner)
            if user is not None:
                own[user, pair].add(winner)
    within = {pair for (_, pair), found in own.items() if len(found) == 2}
    return {
        "contradictory": sum(len(found) == 2 for found in winners.values()),
        "self_contradictory": len(within),
    }


def label_balance(labels: Sequence[float] | FloatArray) -> dict[str, dict[str, int]]:
    """Returns the balance of preference labels: which side they are on."""
    values = np.asarray(labels)
    sides = {"first": values > 0.5, "neither": values == 0.5, "second": values < 0.5}
    return {"preferred": {name: int(side.sum()) for name, side in sides.items() if side.any()}}


def level_balance(values: FloatArray) -> dict[str, int]:
    """Returns how often each level of a scale was given, in ranges where there are many levels; NaN is left out."""
    given = values[~np.isnan(values)]
    levels, counts = np.unique(given, return_counts=True)
    if len(levels) <= _MOST_LEVELS:
        return {f"{level:g}": int(count) for level, count in zip(levels, counts, strict=True)}
    counts, edges = np.histogram(given, bins=_RANGES)
    return {f"{low:.3g}..{high:.3g}": int(n) for n, low, high in zip(counts, edges, edges[1:], strict=False)}


def longer_preferred(chosen: Sequence[str], rejected: Sequence[str], labels: FloatArray) -> float | None:
    """Returns the share of preferred replies that are the longer one, None where no two lengths differ."""
    more = np.array([len(a) for a in chosen]) - np.array([len(b) for b in rejected])
    sides = np.sign(more) * np.sign(np.asarray(labels) - 0.5)
    return float((sides[sides != 0] > 0).mean()) if sides.any() else None


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    return list(value) if isinstance(value, tuple) else value
