"""Artefacts are complete or absent, and damage is noticed."""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from moalign.errors import ArtefactError, StoreError
from moalign.store import is_complete, publish, verify, write_json_atomic, write_text_atomic
from moalign.store.artefacts import clear_leftovers, leftovers


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A published folder with a file and one in a sub-folder."""
    with publish(tmp_path / "0014") as hidden:
        (hidden / "config.json").write_text("{}")
        (hidden / "adapter").mkdir()
        (hidden / "adapter" / "weights.bin").write_bytes(bytes(range(200)))
    return tmp_path / "0014"


class TestPublish:
    def test_the_manifest_has_size_and_checksum_of_each_file(self, folder: Path) -> None:
        files = json.loads((folder / "manifest.json").read_text())["files"]
        digest = hashlib.sha256(bytes(range(200))).hexdigest()
        assert files["adapter/weights.bin"] == {"size": 200, "sha256": digest}
        assert sorted(files) == ["adapter/weights.bin", "config.json"]
        verify(folder)
        assert is_complete(folder)

    def test_while_it_is_written_it_is_hidden_beside_its_place(self, tmp_path: Path) -> None:
        with publish(tmp_path / "deep" / "a") as hidden:
            assert not (tmp_path / "deep" / "a").exists()
            assert hidden.parent == tmp_path / "deep" and hidden.name.startswith(".a.")
        assert os.listdir(tmp_path / "deep") == ["a"]

    def test_an_exception_leaves_nothing_and_keeps_the_former_folder(self, folder: Path) -> None:
        with pytest.raises(KeyboardInterrupt), publish(folder) as hidden:
            (hidden / "new").write_text("half")
            raise KeyboardInterrupt
        verify(folder)
        assert os.listdir(folder.parent) == ["0014"]

    def test_an_older_or_incomplete_folder_is_replaced_whole(self, folder: Path) -> None:
        (folder / "manifest.json").unlink()
        with publish(folder) as hidden:
            (hidden / "b").write_text("b")
        assert sorted(os.listdir(folder)) == ["b", "manifest.json"]
        assert os.listdir(folder.parent) == ["0014"]

    def test_a_folder_the_user_chose_is_not_replaced(self, tmp_path: Path) -> None:
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "thesis.txt").write_text("years of work")
        with pytest.raises(ArtefactError, match="mine is not empty"), publish(tmp_path / "mine", replace=False):
            pass
        with pytest.raises(ArtefactError, match=r"thesis\.txt is a file"), publish(tmp_path / "mine" / "thesis.txt"):
            pass
        assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"

    def test_a_guard_that_refuses_keeps_the_folder_from_appearing(self, tmp_path: Path) -> None:
        @contextmanager
        def refuse() -> Iterator[None]:
            raise StoreError("lost")
            yield

        with pytest.raises(StoreError, match="lost"), publish(tmp_path / "a", guard=refuse) as hidden:
            (hidden / "b").write_text("b")
        assert os.listdir(tmp_path) == []

    def test_a_manifest_of_ones_own_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ArtefactError, match="another name"), publish(tmp_path / "a") as hidden:
            (hidden / "manifest.json").write_text("{}")


class TestVerify:
    def test_a_flipped_byte_is_found_by_reading_but_not_by_size(self, folder: Path) -> None:
        path = folder / "adapter" / "weights.bin"
        content = bytearray(path.read_bytes())
        content[100] ^= 1
        path.write_bytes(content)
        assert is_complete(folder)
        with pytest.raises(
            ArtefactError, match=r"adapter/weights\.bin does not match its SHA-256.*run the study again"
        ):
            verify(folder)

    def test_a_truncated_and_a_missing_file_are_both_named(self, folder: Path) -> None:
        (folder / "config.json").unlink()
        os.truncate(folder / "adapter" / "weights.bin", 150)
        assert not is_complete(folder)
        with pytest.raises(ArtefactError) as caught:
            verify(folder, deep=False)
        assert "config.json is missing" in str(caught.value)
        assert "adapter/weights.bin has 150 bytes instead of 200" in str(caught.value)

    @pytest.mark.parametrize("content", [None, "", "[]", "{}", '{"files": {"a": {}}}'])
    def test_a_manifest_that_is_missing_or_damaged(self, folder: Path, content: str | None) -> None:
        if content is None:
            (folder / "manifest.json").unlink()
        else:
            (folder / "manifest.json").write_text(content)
        assert not is_complete(folder)
        with pytest.raises(ArtefactError, match="0014.*run the study again"):
            verify(folder)

    def test_a_folder_that_does_not_exist(self, tmp_path: Path) -> None:
        with pytest.raises(ArtefactError, match="does not exist"):
            verify(tmp_path / "none")


class TestAtomicFiles:
    def test_content_replaces_content(self, tmp_path: Path) -> None:
        write_text_atomic(tmp_path / "a" / "b.txt", "öld\n")
        write_text_atomic(tmp_path / "a" / "b.txt", "nëw\n")
        assert (tmp_path / "a" / "b.txt").read_text(encoding="utf-8") == "nëw\n"
        assert os.listdir(tmp_path / "a") == ["b.txt"]

    def test_json_refuses_nan_by_name_and_keeps_the_former_file(self, tmp_path: Path) -> None:
        path = tmp_path / "metrics.json"
        write_json_atomic(path, {"kl": 1.5})
        with pytest.raises(StoreError, match=r"metrics\.json.*kl is nan, values\[1\]\.x is inf"):
            write_json_atomic(path, {"kl": math.nan, "values": [1.0, {"x": math.inf}]})
        assert json.loads(path.read_text()) == {"kl": 1.5}

    def test_generated_text_with_half_a_surrogate_pair_survives(self, tmp_path: Path) -> None:
        write_json_atomic(tmp_path / "a.json", {"text": "ok \ud83d"})
        assert json.loads((tmp_path / "a.json").read_text()) == {"text": "ok \ud83d"}


class TestLeftovers:
    def test_only_own_hidden_names_are_cleared(self, folder: Path) -> None:
        root = folder.parent
        half = root / "deep" / ".0015.0123456789ab.new"
        half.mkdir(parents=True)
        (half / "x").write_text("x")
        (root / ".a.json.0123456789ab.new").write_text("{")
        for other in (".git", ".venv.new"):
            (root / other).mkdir()
        assert len(clear_leftovers(root)) == 2
        assert sorted(os.listdir(root)) == [".git", ".venv.new", "0014", "deep"]
        assert leftovers(root) == []

    def test_the_former_folder_is_put_back_if_the_process_died_between_the_two_renames(self, folder: Path) -> None:
        folder.rename(folder.parent / ".0014.0123456789ab.old")
        clear_leftovers(folder.parent)
        verify(folder)

    def test_the_former_folder_is_removed_if_the_new_one_is_in_place(self, folder: Path) -> None:
        (folder.parent / ".0014.0123456789ab.old").mkdir()
        clear_leftovers(folder.parent)
        assert os.listdir(folder.parent) == ["0014"]

    def test_young_ones_may_be_spared(self, tmp_path: Path) -> None:
        path = tmp_path / ".a.0123456789ab.new"
        path.mkdir()
        assert clear_leftovers(tmp_path, older_than=60) == []
        os.utime(path, (time.time() - 61,) * 2)
        assert clear_leftovers(tmp_path, older_than=60) == [path]
