"""Polis conversations: agree, disagree or pass votes of real participants on each other's statements.

Data gathered using the Polis software (compdemocracy.org/polis), sub-licensed under CC BY 4.0 with attribution to The
Computational Democracy Project; published at github.com/compdemocracy/openData. Two layouts are read. *Tidy*: Parquet
files `votes`, `comments` and `participants` over all conversations. *Published*: a clone with one folder per
conversation that holds `votes.csv`, `comments.csv` and `participants-votes.csv`; exports differ in which sign means
agreement, so it is read off the agree counts of `comments.csv`. Political statements by the public, some hostile.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np

from moalign.arrays import IntArray
from moalign.data.comparisons import frozen
from moalign.data.tables import clean_text
from moalign.data.votes import Votes
from moalign.errors import DataError

PAGE = "https://github.com/compdemocracy/openData"
_PUBLISHED = ("votes.csv", "comments.csv", "participants-votes.csv")


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Polis:
    """Votes with the opinion group that Polis found for each user."""

    votes: Votes  # users are named conversation/number
    groups: IntArray  # [users], 0, 1, ... within a conversation, -1 where none was found
    conversation: tuple[str, ...]  # of each user

    def __post_init__(self) -> None:
        object.__setattr__(self, "groups", frozen(self.groups, np.int64))


def polis(folder: str | Path | None = None, conversations: Sequence[str] | None = None) -> Polis:
    """Returns the votes and groups of Polis conversations; one statement per text, the last of repeated votes.

    Args:
        folder: local folder in the tidy or the published layout. Nothing is downloaded: None says where to get it.
        conversations: names of some; None for all.

    Raises:
        DataError: no folder, absent files or conversations, or votes on statements without a text.
    """
    if folder is None:
        raise DataError(f"Polis data is not on the hub. Clone {PAGE} and give its folder: polis('openData').")
    place = Path(folder).expanduser()
    if (place / "votes.parquet").is_file():
        frames = _tidy(place)
    elif any(place.glob(f"*/{_PUBLISHED[0]}")):
        frames = _published(place)
    else:
        raise DataError(
            f"{folder} holds neither votes.parquet nor <conversation>/votes.csv (looked from {Path.cwd()}). "
            f"Clone {PAGE} and give its folder."
        )
    if conversations is not None:
        absent = sorted(set(conversations) - set(frames["votes"]["conversation"]))
        if absent:
            raise DataError(f"{folder} has no votes of the conversation {absent[0]!r}.")
        frames = {name: frame[frame["conversation"].isin(list(conversations))] for name, frame in frames.items()}
    return _assembled(frames)


def _tidy(place: Path) -> dict[str, Any]:
    import pandas as pd

    names = ("votes", "comments", "participants")
    absent = [f"{name}.parquet" for name in names if not (place / f"{name}.parquet").is_file()]
    if absent:
        raise DataError(f"{place} lacks {absent[0]}.")
    return {name: pd.read_parquet(place / f"{name}.parquet") for name in names}


def _published(place: Path) -> dict[str, Any]:
    import pandas as pd

    parts: dict[str, list[Any]] = {"votes": [], "comments": [], "participants": []}
    for path in sorted(place.glob(f"*/{_PUBLISHED[0]}")):
        absent = [name for name in _PUBLISHED if not (path.parent / name).is_file()]
        if absent:
            raise DataError(f"{path.parent} lacks {absent[0]}.")
        votes, comments, people = (pd.read_csv(path.parent / name) for name in _PUBLISHED)
        votes = votes.rename(columns={"voter-id": "participant_id", "comment-id": "comment_id"})
        comments = comments.rename(columns={"comment-id": "comment_id", "comment-body": "text"})
        comments = comments[comments["moderated"] >= 0]  # -1: rejected by the moderators
        votes = votes[votes["comment_id"].isin(comments["comment_id"])]
        people = people.rename(columns={"participant": "participant_id", "group-id": "group_id"})
        people["group_id"] = people["group_id"].fillna(-1).astype(int)
        votes["vote"] *= _sign(votes, comments)
        for name, frame in (("votes", votes), ("comments", comments), ("participants", people)):
            parts[name].append(frame.assign(conversation=path.parent.name))
    return {name: pd.concat(frames, ignore_index=True) for name, frames in parts.items()}


def _sign(votes: Any, comments: Any) -> int:
    """Returns the factor that makes +1 mean agreement: the one whose counts per statement are nearer to `agrees`."""
    known = comments.set_index("comment_id")["agrees"]
    errors = {}
    for sign in (1, -1):
        counted = votes[votes["vote"] == sign].groupby("comment_id").size().reindex(known.index).fillna(0)
        errors[sign] = float((counted - known).abs().sum())
    return min(errors, key=lambda sign: errors[sign])


def _assembled(frames: Mapping[str, Any]) -> Polis:
    keys = ["conversation", "participant_id"]
    votes = frames["votes"].drop_duplicates([*keys, "comment_id"], keep="last")
    votes = votes.merge(frames["comments"][["conversation", "comment_id", "text"]], on=["conversation", "comment_id"])
    if len(votes) == 0 or votes["text"].isna().any():
        raise DataError("these conversations have no votes on statements with a text.")
    votes = votes.assign(text=[clean_text(str(text))[0] for text in votes["text"]])
    votes = votes.drop_duplicates([*keys, "text"], keep="last")  # a text that was entered twice is one statement
    people = votes[keys].drop_duplicates().merge(frames["participants"][[*keys, "group_id"]], on=keys, how="left")
    names = [f"{conversation}/{number}" for conversation, number in people[keys].itertuples(index=False)]
    places = {name: i for i, name in enumerate(names)}
    texts = {text: i for i, text in enumerate(dict.fromkeys(votes["text"]))}
    voters = [places[f"{conversation}/{number}"] for conversation, number in votes[keys].itertuples(index=False)]
    return Polis(
        votes=Votes(
            users=tuple(names), statements=tuple(texts), user=np.array(voters),
            statement=np.array([texts[text] for text in votes["text"]]), vote=votes["vote"].to_numpy(),
        ),
        groups=people["group_id"].fillna(-1).to_numpy(dtype=np.int64), conversation=tuple(people["conversation"]),
    )  # fmt: skip
