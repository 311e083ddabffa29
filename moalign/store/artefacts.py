"""Files that are either complete or absent: written beside their place, flushed to disk, then renamed into it.

A published folder carries `manifest.json`, written last, with size and SHA-256 of each file, so that a folder that was
cut short or a flipped byte is noticed. What a killed process leaves behind is hidden (leading dot) and recognisable.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from moalign.errors import ArtefactError, StoreError

MANIFEST = "manifest.json"
_FORMAT = 1
_REMEDY = "Delete the folder and run the study again: what it held is then made anew."
_HIDDEN = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{12}\.(?P<kind>new|old)")


@contextmanager
def publish(
    folder: str | Path,
    *,
    guard: Callable[[], AbstractContextManager[object]] = nullcontext,
    replace: bool = True,
) -> Iterator[Path]:
    """Yields an empty hidden folder to fill; when the block ends it becomes `folder`, complete and with a manifest.

    After an exception the hidden folder is removed and `folder` stays as it was. An existing folder is replaced whole.

    Args:
        folder: where the files appear.
        guard: entered around the rename alone; raises to forbid it.
        replace: False refuses an existing folder that is not empty, for folders a user chose.

    Raises:
        ArtefactError: the place is taken, or the block wrote a file called manifest.json itself.
    """
    folder = Path(folder)
    if folder.exists() and not (folder.is_dir() and (replace or not any(folder.iterdir()))):
        kind = "is not empty" if folder.is_dir() else "is a file"
        raise ArtefactError(f"{folder} {kind}, so nothing was written. Choose another folder, or move it away.")
    _make_folder(folder.parent)
    hidden = hidden_sibling(folder, "new")
    hidden.mkdir()
    try:
        yield hidden
        _write_manifest(hidden)
        with guard():
            _swap(hidden, folder)
    finally:
        shutil.rmtree(hidden, ignore_errors=True)


def verify(folder: str | Path, deep: bool = True) -> None:
    """Returns if every file of the manifest is there with its size and, with `deep`, its SHA-256.

    Raises:
        ArtefactError: names the damaged files and what to do.
    """
    folder = Path(folder)
    problems = [problem for name, facts in _read_manifest(folder) if (problem := _damage(folder, name, facts, deep))]
    if problems:
        shown = "; ".join(problems[:5]) + (f"; and {len(problems) - 5} more" if len(problems) > 5 else "")
        raise ArtefactError(f"{folder} is damaged: {shown}. {_REMEDY}")


def is_complete(folder: str | Path) -> bool:
    """Returns whether the manifest is there and all its files have their size. Contents are not read: see `verify`."""
    try:
        verify(folder, deep=False)
    except ArtefactError:
        return False
    return True


def write_bytes_atomic(path: str | Path, content: bytes) -> None:
    """Writes a file that is seen either with the old content or with all of the new one, also after a power cut."""
    path = Path(path)
    _make_folder(path.parent)
    hidden = hidden_sibling(path, "new")
    try:
        with hidden.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        hidden.replace(path)
    finally:
        hidden.unlink(missing_ok=True)
    sync_folder(path.parent)


def write_text_atomic(path: str | Path, text: str) -> None:
    """Writes UTF-8 text as `write_bytes_atomic` does; line ends are kept as they are."""
    write_bytes_atomic(path, text.encode("utf-8"))


def write_json_atomic(path: str | Path, value: Any) -> None:
    """Writes indented JSON as `write_bytes_atomic` does.

    Raises:
        StoreError: a NaN or infinite number, which JSON does not have, or something that is not JSON; names the file.
    """
    write_text_atomic(path, json_text(value, str(path), indent=2) + "\n")


def json_text(value: Any, where: str, indent: int | None = None) -> str:
    """Returns `value` as JSON text.

    Raises:
        StoreError: the value has no JSON form; says where it was to be written, and names NaN and infinite numbers.
    """
    try:
        text = json.dumps(value, indent=indent, allow_nan=False, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        bad = ", ".join(_non_finite(value, "")) or str(error)
        raise StoreError(f"{where}: cannot be written as JSON: {bad}. Store finite numbers and plain values.") from None
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:  # half a surrogate pair, which generated text may hold, has no UTF-8 form
        return json.dumps(value, indent=indent)
    return text


def leftovers(folder: str | Path, *, deep: bool = True) -> list[Path]:
    """Returns the hidden files and folders that killed processes left in `folder`, with `deep` at any depth."""
    found: list[Path] = []
    for place, folders, files in os.walk(folder):
        hidden = [name for name in (*folders, *files) if _HIDDEN.fullmatch(name)]
        found += [Path(place, name) for name in hidden]
        folders[:] = [name for name in folders if deep and name not in hidden]
    return sorted(found)


def clear_leftovers(folder: str | Path, *, deep: bool = True, older_than: float = 0.0) -> list[Path]:
    """Removes what killed processes left in `folder` and returns it. Only for the holder of the lease.

    A process that died between the two renames of a replacement leaves the former folder hidden; it is put back.

    Args:
        folder: the folder to clear.
        deep: also the folders inside it.
        older_than: age in seconds below which an entry may still be in use and is left alone.
    """
    cleared = [path for path in leftovers(folder, deep=deep) if time.time() - path.stat().st_mtime >= older_than]
    for path in cleared:
        match = _HIDDEN.fullmatch(path.name)
        place = path.parent / match["name"] if match else path
        if match and match["kind"] == "old" and not place.exists():
            path.rename(place)
        elif path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    return cleared


def remove(folder: Path) -> None:
    """Removes a folder so that it is never seen half-removed: it is hidden by a rename first."""
    if folder.exists():
        hidden = hidden_sibling(folder, "new")
        folder.rename(hidden)
        shutil.rmtree(hidden, ignore_errors=True)


def hidden_sibling(path: Path, kind: str) -> Path:
    """Returns a hidden name beside `path`, of kind "new" (being written) or "old" (being replaced)."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.{kind}")


def sync_folder(folder: Path) -> None:
    """Flushes the entries of a folder to the disk, so that a rename in it survives a power cut."""
    if os.name == "nt":  # Windows cannot open folders; it orders renames itself
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_manifest(folder: Path) -> None:
    """Writes size and SHA-256 of all files, then flushes everything below `folder` to the disk."""
    if (folder / MANIFEST).exists():
        raise ArtefactError(f"{MANIFEST} is written when a folder is published. Give your own file another name.")
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    facts = {}
    for path in files:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            os.fsync(file.fileno())
            facts[path.relative_to(folder).as_posix()] = {"size": path.stat().st_size, "sha256": digest}
    write_json_atomic(folder / MANIFEST, {"format": _FORMAT, "files": facts})
    for path in [path for path in folder.rglob("*") if path.is_dir()]:
        sync_folder(path)


def _read_manifest(folder: Path) -> list[tuple[str, dict[str, Any]]]:
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        return [
            (str(name), {"size": facts["size"], "sha256": facts["sha256"]}) for name, facts in manifest["files"].items()
        ]
    except (FileNotFoundError, NotADirectoryError):
        missing = "has no manifest.json, so it was not finished" if folder.is_dir() else "does not exist"
        raise ArtefactError(f"{folder} {missing}. {_REMEDY}") from None
    except (ValueError, TypeError, KeyError, AttributeError):
        raise ArtefactError(f"{folder / MANIFEST} cannot be read. {_REMEDY}") from None


def _damage(folder: Path, name: str, facts: dict[str, Any], deep: bool) -> str | None:
    path = folder / name
    if not path.is_file():
        return f"{name} is missing"
    if (size := path.stat().st_size) != facts["size"]:
        return f"{name} has {size:,} bytes instead of {facts['size']:,}"
    if deep:
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != facts["sha256"]:
                return f"the content of {name} does not match its SHA-256"
    return None


def _swap(hidden: Path, folder: Path) -> None:
    former = hidden_sibling(folder, "old") if folder.exists() else None
    if former is not None:
        folder.rename(former)
    hidden.rename(folder)
    sync_folder(folder.parent)
    if former is not None:
        shutil.rmtree(former, ignore_errors=True)


def _make_folder(folder: Path) -> None:
    """Makes a folder and its parents, each flushed, so that a published folder cannot vanish with its parent."""
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


def _non_finite(value: Any, path: str) -> Iterator[str]:
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        yield f"{path or 'the value'} is {value}"
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _non_finite(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            yield from _non_finite(item, f"{path}[{i}]")
