"""MovieLens latest-small (Harper and Konstan 2015, doi 10.1145/2827872): films rated by users from 0.5 to 5.

Preferences of real people over items with no text but titles and genres: user clustering, ideal points, cold starts.
Two local layouts are read: `ratings` and `movies` as Parquet files, or as the published CSV files. Terms of the data:
research use; redistribution only under the same terms; no commercial use without permission.
"""

from __future__ import annotations

from pathlib import Path

from moalign.data.ratings import Ratings, ratings_from_table
from moalign.data.sources import find_file, joined, local_only, made_table
from moalign.data.tables import Table, cell, read_table
from moalign.errors import DataError

PAGE = "https://grouplens.org/datasets/movielens/latest"
_PUBLISHED = {"userId": "user_id", "movieId": "movie_id"}


def movielens(folder: str | Path | None = None) -> Ratings:
    """Returns the ratings by user; a response is a title with its genres, and there are no prompts.

    Users rated up to thousands of films: draw comparisons, `.comparisons("rating", most=50)`.

    Args:
        folder: local folder in one of the layouts. Nothing is downloaded: None says where to get it.

    Raises:
        DataError: no folder, absent files, ratings of unknown films, or unusable rows.
    """
    place = local_only(folder, "movielens('path/to/ml-latest-small')", PAGE)
    ratings, movies = (
        _renamed(read_table(find_file(place, (f"{name}.parquet", f"{name}.csv"), PAGE)))
        for name in ("ratings", "movies")
    )
    ratings.require("user_id", "movie_id", "rating")
    movies.require("movie_id", "title")
    texts: dict[object, str] = {_number(row, "movie_id", movies, i): _text(row) for i, row in enumerate(movies.rows)}
    known = made_table(
        ratings, [{**row, "movie_id": _number(row, "movie_id", ratings, i)} for i, row in enumerate(ratings.rows)],
        ratings.numbers,
    )  # fmt: skip
    rows = [
        {"response": text, "user": f"{_number(row, 'user_id', ratings, i)}", "rating": row.get("rating")}
        for i, (row, text) in enumerate(zip(known.rows, joined(known, texts, "movie_id", "film"), strict=True))
    ]
    return ratings_from_table(made_table(ratings, rows, ratings.numbers), ["rating"])


def _renamed(table: Table) -> Table:
    rows = [{_PUBLISHED.get(name, name): value for name, value in row.items()} for row in table.rows]
    return made_table(table, rows, table.numbers)


def _number(row: dict[str, object], column: str, table: Table, i: int) -> int:
    try:
        return int(cell(row, column))  # type: ignore[call-overload, no-any-return]  # cells of CSV files are text
    except (DataError, TypeError, ValueError) as error:
        raise DataError(f"{table.place(i)}: column {column!r} must be a whole number: {error}") from None


def _text(row: dict[str, object]) -> str:
    genres = row.get("genres")
    names = genres.split("|") if isinstance(genres, str) else [str(name) for name in genres or ()]  # type: ignore[attr-defined]
    shown = ", ".join(name for name in names if not name.startswith("("))  # "(no genres listed)"
    return f"{row.get('title')} - {shown}" if shown else str(row.get("title"))
