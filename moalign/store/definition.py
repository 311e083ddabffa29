"""The name of a study and its `study.json`: what it is, how it was made, readable with any editor."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, final

from moalign.errors import DefinitionError, StoreError
from moalign.store.artefacts import write_json_atomic
from moalign.store.fingerprint import fingerprint

STUDY_FILE = "study.json"
LONGEST_NAME = 100
_PATH_CHARACTERS = re.compile(r'[/\\:*?"<>|]')
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # device names on Windows


def check_name(name: str, what: str = "The study name") -> None:
    """Returns if `name` can be the name of a folder on every system.

    Raises:
        DefinitionError: lists everything that is wrong with the name.
    """
    if not isinstance(name, str) or not name:
        raise DefinitionError(f"{what} must be a text such as 'helpful-harmless', got {name!r}.")
    problems = []
    if found := sorted(set(_PATH_CHARACTERS.findall(name))):
        problems.append(f"it contains {' '.join(found)}, which has a meaning in paths")
    if not name.isprintable():
        problems.append("it contains characters that cannot be printed")
    if name[0] in ".-" or name[-1] == "." or name.strip() != name:
        problems.append("it must not begin with a dot, a hyphen or a space, nor end with a dot or a space")
    if len(name) > LONGEST_NAME or len(name.encode("utf-8", "replace")) > 2 * LONGEST_NAME:
        problems.append(f"it has {len(name)} characters; {LONGEST_NAME} are the most")
    if _RESERVED.fullmatch(name):
        problems.append("Windows reserves it for a device")
    shown = name if len(name) <= LONGEST_NAME else f"{name[:40]}..."
    advice = "Use letters, digits, hyphens and underscores."
    if problems:
        raise DefinitionError([f"{what} {shown!r} cannot be a folder: {problem}. {advice}" for problem in problems])


@final
@dataclass(frozen=True, kw_only=True)
class StudyFile:
    """The content of a study.json."""

    definition: Mapping[str, Any]  # as `describe` returned it
    fingerprint: str  # of the definition
    info: Mapping[str, Any]  # created (ISO 8601, UTC), and what the creator added: versions, seed, data hash


def write_study_file(folder: Path, name: str, description: Mapping[str, Any], info: Mapping[str, Any]) -> None:
    """Writes the study.json of a new study.

    Raises:
        DefinitionError: the description is not plain JSON.
        StoreError: the info is not plain JSON.
    """
    content = {
        "name": name,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "fingerprint": fingerprint(description),
        "info": dict(info),
        "definition": dict(description),
    }
    write_json_atomic(folder / STUDY_FILE, content)


def read_study_file(folder: Path) -> StudyFile:
    """Returns the content of the study.json in `folder`.

    Raises:
        StoreError: it is missing or cannot be understood.
    """
    path = folder / STUDY_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return StudyFile(
            definition=dict(content["definition"]),
            fingerprint=str(content["fingerprint"]),
            info={"created": content["created"], **content["info"]},
        )
    except (FileNotFoundError, NotADirectoryError):
        raise StoreError(f"{folder} holds no study: study.json is missing. Choose another name or folder.") from None
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{path} cannot be read ({error!r}). Restore it from a copy; the results are intact."
        ) from None
