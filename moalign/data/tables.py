"""Rows from files and from memory, each with a place that an error message can name.

`read_table` turns JSONL, JSON, CSV, Parquet and plain text files, pandas DataFrames, `datasets.Dataset`s and lists
into one `Table` of plain Python values. Nothing is interpreted here: what a prompt or a pair is, is decided by
`prompts.py` and `pairs.py`. Characters that no tokenizer accepts (lone surrogates, NUL) are replaced and counted.
Lines of text files are counted from 1 as editors do, rows of everything else from 0 as Python does.
"""

from __future__ import annotations

import csv
import difflib
import gzip
import json
import os
import re
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, final

import numpy as np

from moalign.errors import DataError

MOST_SHOWN = 10  # problems listed in one message
_UNREADABLE = re.compile("[\ud800-\udfff\x00]")
_LONGEST_CELL = 2**31 - 1  # characters; the csv module's own default of 131,072 refuses long conversations
_Row = dict[str, object]


@final
@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows as plain dictionaries, with the number under which a reader finds each one in its source."""

    name: str  # file name, or the kind of object read
    rows: tuple[_Row, ...]
    numbers: Sequence[int]  # line number (from 1) or row index (from 0) of each row
    unit: str = "row"  # "line" for text files
    normalised: int = 0  # characters replaced because no tokenizer accepts them

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column that at least one row has, in order of appearance."""
        return tuple(dict.fromkeys(name for row in self.rows for name in row))

    def place(self, row: int) -> str:
        """Returns words that name a row, such as `prefs.jsonl line 812`."""
        return f"{self.name} {self.unit} {self.numbers[row]}"

    def select(self, keep: Sequence[int]) -> Table:
        """Returns the table of the chosen rows, which keep their places."""
        numbers = tuple(self.numbers[i] for i in keep)
        rows = tuple(self.rows[i] for i in keep)
        return Table(name=self.name, rows=rows, numbers=numbers, unit=self.unit, normalised=self.normalised)

    def require(self, *columns: str) -> None:
        """Raises DataError if the table is empty or no row at all has one of the columns."""
        if not self.rows:
            raise DataError(f"{self.name} is empty: no rows found.")
        found = self.columns
        for column in columns:
            if column not in found:
                raise DataError(f"{self.name}: {missing_column(column, found)}")

    def refuse(self, problems: Sequence[str]) -> None:
        """Raises DataError listing the first problems (each already names its row); does nothing without any."""
        _refuse(problems, name=self.name, unit=self.unit, rows=len(self.rows))


def read_table(source: object, *, column: str | None = None) -> Table:
    """Returns the rows of a file or of an object in memory.

    Args:
        source: path of a .jsonl (also .jsonl.gz), .json, .csv, .parquet or .txt file; a pandas DataFrame; a
            `datasets.Dataset`; a list of dictionaries.
        column: where a row that is not a dictionary (a plain text, a list of messages, a line of a .txt file) goes.
            None refuses such rows.

    Raises:
        DataError: absent or unreadable file, unknown kind of source, rows that are no dictionaries; names the rows.
    """
    if isinstance(source, (str, os.PathLike)):
        return _read_file(Path(source).expanduser(), column)
    if _is_a(source, "pandas", "DataFrame"):
        return _from_frame(source)
    if _is_a(source, "datasets", "Dataset"):
        return _table("Dataset", source.with_format(None).to_list(), column=column)  # type: ignore[attr-defined]
    if _is_a(source, "datasets", "DatasetDict"):
        splits = ", ".join(map(str, source))  # type: ignore[call-overload]
        raise DataError(f"a DatasetDict holds several splits ({splits}). Choose one, for example data['train'].")
    if isinstance(source, Sequence) and not isinstance(source, bytes):
        return _table(type(source).__name__, source, column=column)
    raise DataError(
        f"cannot read data from {type(source).__name__}. Give a path, a list, a pandas DataFrame or a datasets.Dataset"
        " (for a stream: list(...) of its rows)."
    )


def clean_text(text: str) -> tuple[str, int]:
    """Returns the text with lone surrogates and NUL as U+FFFD, and how many characters that replaced.

    Tokenizers raise a bare TypeError on lone surrogates. A high and a low surrogate side by side are one character
    that some writers leave as two halves: they are joined, not counted.
    """
    if not has_unreadable(text):
        return text, 0
    joined = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").replace("\x00", "\ufffd")
    return joined, joined.count("\ufffd") - text.count("\ufffd")


def has_unreadable(text: str) -> bool:
    """Returns whether the text holds surrogates or NUL."""
    return _UNREADABLE.search(text) is not None


def missing_column(column: str, found: Iterable[str]) -> str:
    """Returns the sentence that names an absent column, those found, and a near name if there is one."""
    names = [str(name) for name in found]
    near = difflib.get_close_matches(column, names, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"column {column!r} is missing. Columns found: {', '.join(names) or 'none'}.{hint}"


def cell(row: Mapping[str, object], column: str) -> object:
    """Returns a value that is present and is not None or NaN; DataError (without the place) otherwise."""
    if column not in row:
        raise DataError(missing_column(column, row))
    value = row[column]
    if value is None or value != value:
        raise DataError(f"column {column!r} has no value (None or NaN).")
    return value


def as_text(value: object, what: str) -> str:
    """Returns a text that is not blank; DataError (without the place) names what it was meant to be."""
    if not isinstance(value, str):
        raise DataError(f"{what} must be text, got {type(value).__name__} {short_repr(value)}.")
    if not value.strip():
        raise DataError(f"{what} is empty.")
    return value


def short_repr(value: object, most: int = 40) -> str:
    """Returns the repr of a value, cut to `most` characters for a message."""
    shown = repr(value)
    return shown if len(shown) <= most else shown[: most - 3] + "..."


def _read_file(path: Path, column: str | None) -> Table:
    readers: dict[str, Callable[[Path, str | None], Table]] = {
        ".jsonl": _read_jsonl, ".jsonl.gz": _read_jsonl, ".json": _read_json, ".csv": _read_csv,
        ".parquet": _read_parquet, ".txt": _read_lines,
    }  # fmt: skip
    suffix = "".join(path.suffixes[-2:]) if path.suffix == ".gz" else path.suffix
    if not path.is_file():
        what = "is a folder; give a file in it" if path.is_dir() else "does not exist"
        raise DataError(f"{path} {what} (looked from {Path.cwd()}). To pass texts themselves, give a list.")
    if suffix.lower() not in readers:
        raise DataError(
            f"{path.name}: files of kind {suffix or 'without ending'} are not read. Use {', '.join(readers)}."
        )
    try:
        return readers[suffix.lower()](path, column)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path.name} cannot be read: {error}.") from error


def _open(path: Path) -> IO[str]:
    # Bytes that are no UTF-8 become lone surrogates here, and are then replaced and counted like all others.
    opener: Callable[..., IO[str]] = gzip.open if path.suffix == ".gz" else open  # type: ignore[assignment]
    return opener(path, "rt", encoding="utf-8-sig", errors="surrogateescape", newline="")


def _read_jsonl(path: Path, column: str | None) -> Table:
    rows, numbers, problems = [], [], []
    with _open(path) as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                rows.append(json.loads(line))
                numbers.append(number)
            except (json.JSONDecodeError, RecursionError) as error:
                problems.append(f"{path.name} line {number}: not valid JSON ({error}).")
    _refuse(problems, name=path.name, unit="line", rows=len(rows) + len(problems))
    return _table(path.name, rows, column=column, numbers=numbers, unit="line")


def _read_json(path: Path, column: str | None) -> Table:
    with _open(path) as file:
        try:
            rows = json.load(file)
        except (json.JSONDecodeError, RecursionError) as error:
            raise DataError(f"{path.name}: not valid JSON ({error}). One object per line is .jsonl.") from error
    if not isinstance(rows, list):
        raise DataError(f"{path.name}: expected a list of rows, got a JSON {type(rows).__name__}.")
    return _table(path.name, rows, column=column)


def _read_lines(path: Path, column: str | None) -> Table:
    with _open(path) as file:
        lines = [(n, line) for n, line in enumerate(re.split("\r\n|\r|\n", file.read()), 1) if line.strip()]
    return _table(path.name, [line for _, line in lines], column=column, numbers=[n for n, _ in lines], unit="line")


def _read_csv(path: Path, column: str | None) -> Table:
    limit = csv.field_size_limit(_LONGEST_CELL)
    try:
        with _open(path) as file:
            records = list(_csv_records(file, path.name))
    finally:
        csv.field_size_limit(limit)
    if not records:
        raise DataError(f"{path.name} is empty: no header line found.")
    header = records[0][1]
    _refuse_repeats(path.name, header)
    ragged = [
        f"{path.name} line {number}: {len(fields)} fields, but the header has {len(header)}."
        for number, fields in records[1:]
        if len(fields) != len(header)
    ]
    _refuse(ragged, name=path.name, unit="line", rows=len(records) - 1)
    rows = [{name: text or None for name, text in zip(header, fields, strict=True)} for _, fields in records[1:]]
    return _table(path.name, rows, column=column, numbers=[number for number, _ in records[1:]], unit="line")


def _csv_records(file: IO[str], name: str) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(file, strict=True)
    start = 1
    try:
        for fields in reader:
            if fields:
                yield start, fields
            start = reader.line_num + 1  # a quoted cell may span lines: name the record's first one
    except csv.Error as error:
        raise DataError(f"{name} line {start}: not valid CSV ({error}).") from error


def _read_parquet(path: Path, column: str | None) -> Table:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:  # read_table would invent columns from `key=value` folders
            table = file.read()
            _refuse_repeats(path.name, table.column_names)
            rows = table.to_pylist()
    except (pyarrow.ArrowException, UnicodeDecodeError) as error:
        raise DataError(f"{path.name} cannot be read as Parquet: {error}.") from error
    return _table(path.name, rows, column=column)


def _from_frame(frame: Any) -> Table:
    _refuse_repeats("DataFrame", [str(name) for name in frame.columns])
    columns = {str(name): frame[name].astype(object).where(frame[name].notna(), None).tolist() for name in frame}
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    return _table("DataFrame", rows)


def _table(
    name: str, values: Sequence[object], *, column: str | None = None, numbers: Sequence[int] | None = None,
    unit: str = "row",
) -> Table:  # fmt: skip
    numbers = range(len(values)) if numbers is None else numbers
    rows: list[_Row] = []
    problems = []
    normalised = 0
    for number, value in zip(numbers, values, strict=True):
        plain, replaced = _plain(value)
        normalised += replaced
        if isinstance(plain, dict):
            rows.append(plain)
        elif column is not None:
            rows.append({column: plain})
        else:
            problems.append(f"{name} {unit} {number}: expected named columns, got {type(value).__name__}.")
    _refuse(problems, name=name, unit=unit, rows=len(values))
    return Table(name=name, rows=tuple(rows), numbers=numbers, unit=unit, normalised=normalised)


def _plain(value: object) -> tuple[Any, int]:
    """Returns the value in Python's own types with clean texts, and the number of characters replaced."""
    if isinstance(value, str):
        return clean_text(str(value))
    if isinstance(value, (np.ndarray, np.generic)):
        return _plain(value.tolist())
    if isinstance(value, Mapping):
        cleaned = {str(key): _plain(item) for key, item in value.items()}
        return {key: item for key, (item, _) in cleaned.items()}, sum(count for _, count in cleaned.values())
    if isinstance(value, (list, tuple)):
        items = [_plain(item) for item in value]
        return [item for item, _ in items], sum(count for _, count in items)
    return value, 0


def _refuse(problems: Sequence[str], *, name: str, unit: str, rows: int) -> None:
    if not problems:
        return
    counted = "" if unit == "line" else " Rows are counted from 0."
    if len(problems) == 1:
        raise DataError(problems[0] + counted)
    lines = [f"  {problem}" for problem in problems[:MOST_SHOWN]]
    if len(problems) > MOST_SHOWN:
        lines.append(f"  and {len(problems) - MOST_SHOWN:,} more")
    head = f"{name}: {len(problems):,} unusable rows of {rows:,}. Correct or remove them.{counted}"
    raise DataError("\n".join([head, *lines]))


def _refuse_repeats(name: str, columns: Sequence[str]) -> None:
    repeated = sorted({column for column in columns if list(columns).count(column) > 1})
    if repeated:
        raise DataError(f"{name}: columns appear twice: {', '.join(repeated)}. Rename or drop one of each.")


def _is_a(source: object, module: str, name: str) -> bool:
    # An object of a class exists only if its module was imported, so nothing heavy is imported to find out.
    kind = getattr(sys.modules.get(module), name, None)
    return isinstance(kind, type) and isinstance(source, kind)
