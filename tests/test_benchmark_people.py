"""The benchmark of people: a floor holds only if every seed reaches it, and absent data leave their rows out."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks import people
from benchmarks.common import Options, Row
from moalign.errors import DataError
from studies import personas_pal, polis_groups
from tests.studies.test_people import embed, statements, votes


def test_a_floor_holds_only_if_the_worst_seed_reaches_it() -> None:
    """Seeds 0.9 and 1.0 have the mean 0.95; a floor of 0.92 is missed by the first."""
    row = people.over_seeds("accuracy", "peer", [0.9, 1.0], 0.92)
    assert (row.value, row.low, row.high) == (0.95, 0.9, 1.0)
    assert "BELOW" in people.table([row]) and "holds" in people.table([Row("a", "b", 0.95, 0.93, 1.0, 0.92)])


def test_rows_without_their_data_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    def absent() -> list[Row]:
        raise DataError("no such folder")

    assert people.part("personas", absent) == []
    assert "left out: no such folder" in capsys.readouterr().err
    row = Row("a", "b", 1.0, 1.0, 1.0)
    assert people.part("personas", lambda: [row]) == [row]


@pytest.mark.slow
def test_rows_of_made_up_people(monkeypatch: pytest.MonkeyPatch) -> None:
    def build(seed: int) -> personas_pal.Population:
        sizes: dict[str, Any] = {"seen": 12, "new": 6, "answers": 50, "judged": 20, "flips": 0.05}
        return personas_pal.draw(statements(60, 0), statements(40, 1), **sizes, seed=seed)

    monkeypatch.setattr(personas_pal, "build", build)
    rows = people.persona_rows([0], embed)
    named = {row.what: row for row in rows}
    assert len(rows) == 1 + 3 * 7 and all(row.low <= row.value <= row.high for row in rows)
    assert named["personas, PAL-A, seen users"].value > named["personas, one reward, seen users"].value
    assert named["personas, PAL-B, seen users"].floor == 0.93

    rows = people.polis_rows([0], votes(), polis_groups.model(prototypes=2, steps=40))
    assert [row.peer.split(" (")[0] for row in rows[:2]] == [people.MEAN, people.GROUP_MEAN] and len(rows) == 5


def test_quick_means_fewer_seeds_of_votes(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(people, "persona_rows", lambda seeds: asked.append(list(seeds)) or [])
    monkeypatch.setattr(people, "polis_rows", lambda seeds: asked.append(list(seeds)) or [])
    monkeypatch.setattr(
        people.importlib, "import_module", lambda name: (_ for _ in ()).throw(ModuleNotFoundError(name))
    )
    assert people.measure(Options(quick=True, seed=4)) == []
    assert asked == [[4, 5, 6], [4]]
