"""What changed between two descriptions of a study, field by field, in words a person can act on."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from moalign.store.fingerprint import canonical, join

SHOWN_WIDTH = 60  # characters of a value that still fit beside its field name
_LEAVES = ("@array", "@bytes", "@enum", "@set")
_NAMED = ("@type", "@callable", "@partial")
_HASH = re.compile(r"\b[0-9a-f]{64}\b")


def differences(old: object, new: object, most: int = 20) -> list[str]:
    """Returns one line per differing field, "method.beta: 0.1 -> 0.03", at most `most` and then the count of the rest.

    Args:
        old, new: descriptions as `describe` returns them, or as read back from JSON.
        most: lines shown before the rest is only counted.
    """
    lines = list(_compare(old, new, ""))
    rest = len(lines) - most
    return lines if rest <= 0 else [*lines[:most], f"and {rest} more difference{'s' if rest > 1 else ''}"]


def _compare(old: Any, new: Any, path: str) -> Iterator[str]:
    if canonical(old) == canonical(new):
        return
    if isinstance(old, list) and isinstance(new, list):
        for i in range(max(len(old), len(new))):
            yield from _compare_entry(old[i : i + 1], new[i : i + 1], f"{path}[{i}]")
    elif isinstance(old, Mapping) and isinstance(new, Mapping) and _same_kind(old, new):
        for key in [*old, *(key for key in new if key not in old)]:
            if key == "@code" and old.get(key) != new.get(key):
                yield f"{path or 'definition'}: the code of {_show(old)} changed"
            elif key == "@self":
                yield from _compare(old[key], new[key], path)
            elif key != "@code":
                before, after = ([side[key]] if key in side else [] for side in (old, new))
                yield from _compare_entry(before, after, join(path, key[1:] if key.startswith("@@") else key))
    else:
        yield f"{path or 'definition'}: {_show(old)} -> {_show(new)}"


def _compare_entry(old: list[Any], new: list[Any], path: str) -> Iterator[str]:
    """Compares two entries, each given as a list of one value, or of none where the entry does not exist."""
    if old and new:
        yield from _compare(old[0], new[0], path)
    elif new:
        yield f"{path}: added {_show(new[0])}"
    elif old:
        yield f"{path}: removed {_show(old[0])}"


def _same_kind(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Whether the fields of two objects can be compared one by one: same type, and not a value in itself."""
    if any(leaf in side for leaf in _LEAVES for side in (old, new)):
        return False
    return all(old.get(tag) == new.get(tag) for tag in _NAMED) and ("@self" in old) == ("@self" in new)


def _show(value: Any) -> str:
    """Returns a value as one short text; long hashes are cut to eight digits."""
    if isinstance(value, Mapping):
        if "@array" in value:
            shape = ", ".join(str(n) for n in value["shape"])
            return f"{value['@array']}[{shape}] {value['sha256'][:8]}"
        if "@enum" in value or "@bytes" in value or "@set" in value:
            value = next(iter(value.values()))
        elif "@partial" in value:
            return f"partial of {_show(value['func'])}"
        elif named := value.get("@type") or value.get("@callable"):
            return str(named)
    text = value if isinstance(value, str) and _HASH.fullmatch(value) else canonical(value)
    text = _HASH.sub(lambda found: found.group()[:8], text)
    return text if len(text) <= SHOWN_WIDTH else f"{text[: SHOWN_WIDTH - 3]}..."
