"""Studies in a folder: made once, recognised by their definition, with the layout a person can read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from moalign.errors import DefinitionError, StoreError, StudyChangedError
from moalign.store import Store, StudyStore, fingerprint

DESCRIPTION: dict[str, Any] = {"@type": "hh.py:Study", "method": {"@type": "m:MODPO", "beta": 0.1}, "seed": 7}
OTHER = {**DESCRIPTION, "method": {"@type": "m:MODPO", "beta": 0.03}}


class TestCreate:
    def test_the_same_definition_continues_the_study_and_keeps_its_facts(self, store: Store) -> None:
        first = store.create("hh", DESCRIPTION, info={"seed": 7})
        again = store.create("hh", json.loads(json.dumps(DESCRIPTION)), info={"seed": 8})
        assert again.info == first.info and again.info["seed"] == 7
        assert again.description == DESCRIPTION

    def test_another_definition_is_refused_field_by_field_with_the_way_out(self, store: Store) -> None:
        store.create("hh", DESCRIPTION, info={})
        with pytest.raises(StudyChangedError) as caught:
            store.create("hh", OTHER, info={})
        assert "\n  method.beta: 0.1 -> 0.03\n" in str(caught.value)
        assert 'on_change="fork"' in str(caught.value) and "'hh-2'" in str(caught.value)

    def test_study_json_is_readable_and_complete(self, store: Store) -> None:
        store.create("größe", DESCRIPTION, info={"versions": {"moalign": "0.1.0"}, "seed": 7})
        text = (store.root / "größe" / "study.json").read_text(encoding="utf-8")
        content = json.loads(text)
        assert sorted(content) == ["created", "definition", "fingerprint", "info", "name"]
        assert content["definition"] == DESCRIPTION and content["fingerprint"] == fingerprint(DESCRIPTION)
        assert '"name": "größe"' in text and len(text.splitlines()) > 10

    def test_many_creators_at_once_make_one_study(self, store: Store) -> None:
        def create(_: int) -> str:
            return store.create("hh", DESCRIPTION, info={}).info["created"]

        with ThreadPoolExecutor(8) as pool:
            assert len(set(pool.map(create, range(16)))) == 1
        assert [p.name for p in store.root.iterdir()] == ["hh"]

    def test_what_a_killed_creator_left_is_cleared_but_not_what_another_is_making(self, store: Store) -> None:
        store.root.mkdir()
        left, young = store.root / ".hh.0123456789ab.new", store.root / ".hh.ba9876543210.new"
        left.mkdir()
        young.mkdir()
        os.utime(left, (time.time() - 7200,) * 2)
        store.create("other", DESCRIPTION, info={})
        assert sorted(p.name for p in store.root.iterdir()) == [young.name, "other"]
        assert store.names() == ["other"]

    def test_a_place_that_is_taken_by_something_else(self, store: Store) -> None:
        (store.root / "notes").mkdir(parents=True)
        (store.root / "notes" / "a.txt").write_text("a")
        with pytest.raises(StoreError, match="is taken, but not by a study"):
            store.create("notes", DESCRIPTION, info={})
        assert (store.root / "notes" / "a.txt").read_text() == "a"
        assert store.fork_name("notes", DESCRIPTION) == "notes-2"

    def test_a_store_that_is_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "runs").write_text("")
        with pytest.raises(StoreError, match="is a file"):
            Store(tmp_path / "runs")

    @pytest.mark.parametrize("bad", [{"info": {"x": float("nan")}}, {"description": {"x": float("nan")}}])
    def test_nan_in_a_definition_leaves_nothing_behind(self, store: Store, bad: dict[str, Any]) -> None:
        with pytest.raises((StoreError, DefinitionError)):
            store.create("hh", bad.get("description", DESCRIPTION), info=bad.get("info", {}))
        assert list(store.root.iterdir()) == []


class TestNames:
    @pytest.mark.parametrize(
        "name",
        [
            "",
            "a/b",
            "a\\b",
            "..",
            ".hidden",
            "-x",
            "a:b",
            "a?",
            "x" * 101,
            "ö" * 101,
            "nul",
            "COM1.txt",
            "a\nb",
            " a",
            "a.",
        ],
    )
    def test_names_that_cannot_be_folders_are_refused(self, store: Store, name: str) -> None:
        with pytest.raises(DefinitionError, match="study name"):
            store.create(name, DESCRIPTION, info={})
        assert not store.root.exists()

    @pytest.mark.parametrize("name", ["hh", "helpful-harmless_2", "a b", "größe", "x" * 100, "v1.5", "console"])
    def test_ordinary_names_are_accepted(self, store: Store, name: str) -> None:
        assert store.create(name, DESCRIPTION, info={}).name == name
        assert store.names() == [name]

    def test_all_problems_of_a_name_are_listed(self, store: Store) -> None:
        with pytest.raises(DefinitionError) as caught:
            store.create("./" + "x" * 101, DESCRIPTION, info={})
        assert len(caught.value.problems) == 3

    def test_a_near_name_is_suggested(self, store: Store) -> None:
        store.create("helpful-harmless", DESCRIPTION, info={})
        with pytest.raises(StoreError, match=r"no study 'helpfull-harmles'.*mean 'helpful-harmless'\?.*moalign ls"):
            store.study("helpfull-harmles")

    def test_an_empty_store_says_so(self, store: Store) -> None:
        assert store.names() == []
        with pytest.raises(StoreError, match="no studies yet"):
            store.study("hh")

    @pytest.mark.parametrize("name", ["../hh", "/etc", ""])
    def test_a_name_to_look_up_is_no_path(self, store: Store, name: str) -> None:
        store.create("hh", DESCRIPTION, info={})
        with pytest.raises(StoreError, match="There is no study"):
            store.study(name)


class TestFork:
    def test_free_then_equal_then_the_next_number(self, store: Store) -> None:
        assert store.fork_name("hh", DESCRIPTION) == "hh"
        store.create("hh", DESCRIPTION, info={})
        assert store.fork_name("hh", DESCRIPTION) == "hh"
        assert store.fork_name("hh", OTHER) == "hh-2"
        store.create("hh-2", OTHER, info={})
        assert store.fork_name("hh", OTHER) == "hh-2"
        assert store.fork_name("hh", {"seed": 8}) == "hh-3"
        assert store.names() == ["hh", "hh-2"]


class TestDamagedStudies:
    @pytest.mark.parametrize("content", ["", "[]", "{", '{"definition": {}}'])
    def test_a_study_json_that_cannot_be_read(self, study: StudyStore, content: str) -> None:
        (study.folder / "study.json").write_text(content)
        with pytest.raises(StoreError, match=r"study\.json cannot be read"):
            StudyStore(study.folder)

    def test_a_database_that_is_missing(self, study: StudyStore) -> None:
        (study.folder / "store.db").unlink()
        with pytest.raises(StoreError, match=r"store\.db is missing"):
            StudyStore(study.folder)


def test_importing_the_store_pulls_in_no_heavy_library() -> None:
    heavy = ["torch", "transformers", "pandas", "scipy"]
    program = f"import sys, moalign.store; print([name for name in {heavy} if name in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
