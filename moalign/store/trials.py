"""The table of trials: one row per policy, which moves waiting -> training -> evaluating -> done, or to failed.

Functions of a connection; those that change rows are called inside the driver's transaction. A row that is done is a
fact and does not change again, except when `forget` takes it back because its artefacts were lost.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from sqlite3 import Connection
from typing import Any

import numpy as np

from moalign.arrays import FloatArray
from moalign.errors import StoreError
from moalign.store.records import REFERENCE, STATES, State, TrialRecord, trial_record

_MEASURED = "objective_values, standard_errors, kl, kl_standard_error, columns, feasible"
_FACTS = f"number, state, weights, {_MEASURED}, error, started, finished"
_AGAIN = "state = 'waiting', error = NULL, started = NULL, finished = NULL"


def read_objectives(connection: Connection) -> tuple[str, ...]:
    """Returns the names of the objectives in axis order; empty before trials were added."""
    return tuple(row["name"] for row in connection.execute("SELECT name FROM objectives ORDER BY position"))


def read_all(connection: Connection, *, prompt_values: bool) -> list[TrialRecord]:
    """Returns all trials by number, without the reference policy."""
    columns = "*" if prompt_values else _FACTS
    rows = connection.execute(f"SELECT {columns} FROM trials WHERE number >= 0 ORDER BY number")
    return [trial_record(row) for row in rows]


def revision(connection: Connection) -> tuple[object, ...]:
    """Returns numbers that change whenever a trial or an event does; cheap also with many trials."""
    facts = "state, count(*), total(number), total(started), total(finished)"
    states = connection.execute(f"SELECT {facts} FROM trials GROUP BY state ORDER BY state").fetchall()
    last = connection.execute("SELECT coalesce(max(number), 0) FROM events").fetchone()
    return (last[0], *(tuple(row) for row in states))


def read(connection: Connection, number: int) -> TrialRecord | None:
    """Returns one trial, or None if there is none of this number."""
    row = connection.execute("SELECT * FROM trials WHERE number = ?", (number,)).fetchone()
    return None if row is None else trial_record(row)


def require(connection: Connection, number: int, study: str) -> TrialRecord:
    """Returns one trial.

    Raises:
        StoreError: there is no such trial; says which exist.
    """
    if number >= 0 and (record := read(connection, number)) is not None:
        return record
    count = connection.execute("SELECT count(*) FROM trials WHERE number >= 0").fetchone()[0]
    exist = (
        "it has no trials yet" if count == 0 else f"its trials are 0 to {count - 1}" if count > 1 else "it has only 0"
    )
    raise StoreError(f"Study '{study}' has no trial {number}; {exist}. `moalign status {study}` lists them.")


def add(connection: Connection, weights: FloatArray, objectives: tuple[str, ...], study: str) -> None:
    """Adds a waiting trial for each row of `weights` [trials, objectives] that has none yet; row i is trial i.

    Raises:
        StoreError: other objectives than stored, or other weights than stored for a trial.
    """
    known = read_objectives(connection)
    if known and known != objectives:
        raise StoreError(
            f"Study '{study}' was started with the objectives {', '.join(known)}; now they are "
            f"{', '.join(objectives)}. Keep their names and order, or give the study another name."
        )
    if not known:
        connection.executemany("INSERT INTO objectives (position, name) VALUES (?, ?)", enumerate(objectives))
    stored = {record.number: record.weights for record in read_all(connection, prompt_values=False)}
    for number, row in enumerate(weights.tolist()):
        if number not in stored:
            insert = "INSERT INTO trials (number, state, weights) VALUES (?, 'waiting', ?)"
            connection.execute(insert, (number, json.dumps(row)))
        elif not _same(row, stored[number]):
            raise StoreError(
                f"Trial {number} of study '{study}' has the weights {_shown(stored[number])}; now they are "
                f"{_shown(row)}. Keep the weights of existing trials and append new ones after them."
            )


def set_state(connection: Connection, number: int, state: State, error: str | None, study: str) -> None:
    """Moves an unfinished trial to another state; `error` is kept for failed ones.

    Raises:
        StoreError: no such trial or state, or the trial is done.
    """
    if state not in STATES or state == "done":
        others = ", ".join(s for s in STATES if s != "done")
        raise StoreError(f"Trial {number} cannot be set to {state!r}. Use {others}; finish_trial makes a trial done.")
    _require_unfinished(connection, number, study)
    now = time.time()
    if error is not None:
        error = error.encode("utf-8", "backslashreplace").decode()  # generated text may hold half a surrogate pair
    if state == "waiting":
        connection.execute(f"UPDATE trials SET {_AGAIN} WHERE number = ?", (number,))
    elif state == "failed":
        change = "UPDATE trials SET state = 'failed', error = ?, finished = ? WHERE number = ?"
        connection.execute(change, (error, now, number))
    else:
        change = "UPDATE trials SET state = ?, started = coalesce(started, ?), error = NULL, finished = NULL"
        connection.execute(f"{change} WHERE number = ?", (state, now, number))


def finish(connection: Connection, number: int, row: dict[str, object], study: str) -> None:
    """Stores what was measured, as `measurement_row` returns it, and makes the trial done."""
    _require_unfinished(connection, number, study)
    row = row | {"state": "done", "error": None, "finished": time.time()}
    assignments = ", ".join(f"{column} = :{column}" for column in row)
    connection.execute(f"UPDATE trials SET {assignments} WHERE number = :number", {**row, "number": number})


def add_reference(connection: Connection, row: dict[str, object], study: str) -> None:
    """Stores what was measured of the reference policy, once."""
    if read(connection, REFERENCE) is not None:
        raise StoreError(f"Study '{study}' has its reference values already. Read them with reference().")
    row = row | {"number": REFERENCE, "state": "done", "weights": "[]", "finished": time.time()}
    names, marks = ", ".join(row), ", ".join(f":{column}" for column in row)
    connection.execute(f"INSERT INTO trials ({names}) VALUES ({marks})", row)


def restart(connection: Connection, *states: State) -> list[int]:
    """Makes the trials in these states wait again and returns their numbers."""
    chosen = f"state IN ({', '.join('?' for _ in states)})"
    rows = connection.execute(f"SELECT number FROM trials WHERE {chosen} ORDER BY number", states).fetchall()
    connection.execute(f"UPDATE trials SET {_AGAIN} WHERE {chosen}", states)
    return [row["number"] for row in rows]


def forget(connection: Connection, number: int) -> dict[str, Any] | None:
    """Makes a trial wait again as if never measured (the reference policy: removes it); returns its former facts."""
    row = connection.execute(f"SELECT {_FACTS} FROM trials WHERE number = ?", (number,)).fetchone()
    if row is None:
        return None
    if number == REFERENCE:
        connection.execute("DELETE FROM trials WHERE number = ?", (number,))
    else:
        emptied = ", ".join(f"{column} = NULL" for column in (*_MEASURED.split(", "), "prompt_shape", "prompt_values"))
        connection.execute(f"UPDATE trials SET {_AGAIN}, {emptied} WHERE number = ?", (number,))
    return dict(row)


def _require_unfinished(connection: Connection, number: int, study: str) -> None:
    if require(connection, number, study).state == "done":
        raise StoreError(f"Trial {number} of study '{study}' is done; what was measured does not change any more.")


def _same(row: Sequence[float], stored: Sequence[float]) -> bool:
    return len(row) == len(stored) and bool(np.allclose(row, stored, rtol=0, atol=1e-9))


def _shown(weights: Sequence[float]) -> str:
    return f"({', '.join(f'{w:g}' for w in weights)})"
