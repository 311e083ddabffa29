"""What commands print: results on stdout, everything about the way there on stderr.

Names come from users and texts from models, so nothing is read as markup and control characters are written out.
"""

from __future__ import annotations

import csv
import io
import json
import math
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

WIDTH = 10_000  # characters: a narrow terminal may wrap a row, but a number is never cut in two
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
STANDARD_STORE = "runs"


def say(text: str = "", *, error: bool = False) -> None:
    """Prints lines of text."""
    from moalign.figures.text import visible

    print(visible(text), file=sys.stderr if error else sys.stdout, flush=True)


def print_table(header: Sequence[str], rows: Iterable[Sequence[str]], *, left: Sequence[int] = (0,)) -> None:
    """Prints aligned columns; those at the positions `left` are texts, the others numbers."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from moalign.figures.text import visible

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for position, name in enumerate(header):
        table.add_column(Text(visible(name)), justify="left" if position in left else "right", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(_one_line(cell)) for cell in row))
    console = Console()
    console.width = WIDTH
    console.print(table)


def print_json(value: Any, *, indent: int | None = 2) -> None:
    """Prints strict JSON in ASCII: a number that is not finite is null."""
    sys.stdout.write(json.dumps(plain(value), indent=indent, allow_nan=False) + "\n")


def print_csv(columns: Mapping[str, Sequence[Any]]) -> None:
    """Prints columns of equal length as CSV, for spreadsheets and terminals: texts are neither formulas nor codes."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([_inert(name) for name in columns])
    writer.writerows([_csv_cell(value) for value in row] for row in zip(*columns.values(), strict=True))
    sys.stdout.write(buffer.getvalue())


def plain(value: Any) -> Any:
    """Returns `value` made of what JSON knows: arrays as lists, numbers that are not finite as None."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)


def flat(value: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Returns nested mappings, also those in lists, as (dotted name, value) rows."""
    rows: list[tuple[str, str]] = []
    for name, item in value.items():
        if isinstance(item, Mapping) and item:
            rows += flat(item, f"{prefix}{name}.")
        elif isinstance(item, (list, tuple)) and any(isinstance(part, Mapping) for part in item):
            rows += flat({f"{name}[{i}]": part for i, part in enumerate(item)}, prefix)
        else:
            rows.append((f"{prefix}{name}", item if isinstance(item, str) else json.dumps(plain(item))))
    return rows


def command(verb: str, *arguments: object, store: object = STANDARD_STORE) -> str:
    """Returns a command line to copy, with --store where it is not the standard one."""
    words = ["moalign", verb, *map(str, arguments)]
    if str(store) != STANDARD_STORE:
        words += ["--store", str(store)]
    return shlex.join(words)


def measured(value: float, error: float) -> str:
    """Returns "0.61±0.02", with an ordinary minus sign."""
    from moalign.figures.text import measured as with_error

    return with_error(value, error).replace("−", "-").replace(" ± ", "±")


def number(value: float | None, digits: int = 3) -> str:
    """Returns a number with significant digits and an ordinary minus sign; a dash when it is unknown."""
    from moalign.figures.text import number as significant

    return significant(value, digits).replace("−", "-")


def _one_line(text: str) -> str:
    from moalign.figures.text import visible

    return " ".join(visible(text).split())


def _inert(text: str) -> str:
    """Returns the text with an apostrophe where a spreadsheet would otherwise run it."""
    from moalign.figures.text import visible

    return visible(f"'{text}" if text.startswith(FORMULA_STARTS) else text)


def _csv_cell(value: Any) -> Any:
    if isinstance(value, str):
        return _inert(value)
    return "" if isinstance(value, float) and not math.isfinite(value) else value
