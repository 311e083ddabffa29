"""Where a public data set comes from: a file in a local folder, the hub, or a page to copy it from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from moalign.data.tables import Table, read_table
from moalign.errors import DataError, DefinitionError


def find_file(folder: str | Path, names: Sequence[str], where: str) -> Path:
    """Returns the first of these files that the folder holds.

    Args:
        folder: local folder.
        names: file names, relative to the folder, in order of preference.
        where: where the data set is published, for the message.

    Raises:
        DataError: none of them is there.
    """
    place = Path(folder).expanduser()
    for name in names:
        if (place / name).is_file():
            return place / name
    raise DataError(
        f"{folder} holds none of {', '.join(names)} (looked from {Path.cwd()}). Give the folder that does; the data is"
        f" published at {where}."
    )


def local_only(folder: str | Path | None, call: str, page: str) -> str | Path:
    """Returns the folder; DataError with the page to copy the data from where there is none."""
    if folder is None:
        raise DataError(f"this data is not on the hub. Copy it from {page} and give its folder: {call}.")
    return folder


def hub_table(repository: str, call: str, /, **options: Any) -> Table:
    """Returns one split of a data set on the hub.

    Args:
        repository: its name on the hub.
        call: how the loader is called with a local copy, for the message.
        options: for `datasets.load_dataset`, for example `split`.

    Raises:
        DataError: it cannot be fetched.
    """
    import datasets

    shown = " ".join([repository, *(str(value) for value in options.values())])
    try:
        rows: Any = datasets.load_dataset(repository, **options)
    except Exception as error:  # which one depends on the versions of three network libraries
        raise DataError(
            f"{shown} cannot be fetched ({type(error).__name__}: {error}). Without a network, give folder= a local"
            f" copy: {call}."
        ) from error
    table = read_table(rows)
    return Table(name=shown, rows=table.rows, numbers=table.numbers, normalised=table.normalised)


def made_table(source: Table, rows: Sequence[dict[str, object]], numbers: Sequence[int]) -> Table:
    """Returns rows made from those of another table, which lend them their places."""
    return Table(
        name=source.name, rows=tuple(rows), numbers=tuple(numbers), unit=source.unit, normalised=source.normalised
    )  # fmt: skip


def check_choices(where: str, **choices: tuple[object, Sequence[object]]) -> None:
    """Raises DefinitionError listing every argument that is none of its known values.

    Args:
        where: the loader.
        choices: per argument the value and those known.
    """
    problems = [
        f"{name} must be one of {', '.join(map(repr, known))}, got {value!r}."
        for name, (value, known) in choices.items()
        if value not in known
    ]
    if problems:
        raise DefinitionError(problems, where=where)


def joined(table: Table, others: Mapping[Any, object], column: str, what: str) -> list[Any]:
    """Returns for each row of the table the entry of `others` under its key; DataError names rows without one."""
    problems = [
        f"{table.place(i)}: no {what} with the {column} {row.get(column)!r}."
        for i, row in enumerate(table.rows)
        if row.get(column) not in others
    ]
    table.refuse(problems)
    return [others[row[column]] for row in table.rows]
