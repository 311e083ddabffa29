"""What a definition is, as plain JSON, and one hash of it: the same study is recognised when it is run again.

A description keeps what decides the numbers (types, field values, hashes of arrays and of code) and leaves out what
does not (absolute paths, object identities, comments). Nothing is pickled. Keys that begin with "@" are written by this
module; a user's key of that kind gets a second "@".

Two limits: a function is known by its own code, so a constant or helper that it reads from its file is not seen; and a
path is known by its text, so the owner of a data file describes the file's content through `__fingerprint__`.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
import sys
from collections.abc import Callable, Iterable, Mapping, Set
from enum import Enum
from pathlib import PurePath
from types import ModuleType
from typing import Any, TypeAlias, final

import numpy as np

from moalign.errors import DefinitionError
from moalign.store.code import captured_names, code_hash, name_of

Json: TypeAlias = "None | bool | int | float | str | list[Json] | dict[str, Json]"


def describe(definition: object, name: str = "") -> Json:
    """Returns `definition` as plain JSON values, equal for equal definitions in every process.

    Dataclasses become their type's name and fields (without those of `metadata={"fingerprint": False}`), enums their
    name, paths their text, arrays and tensors dtype, shape and SHA-256, functions and classes their name and the
    SHA-256 of their code, NaN and infinite numbers the texts "nan", "inf" and "-inf". Tuples and lists are the same.
    A dataclass with `__call__` also carries the hash of its class. An object with a method `__fingerprint__()` is
    described by what that returns.

    Args:
        definition: the object to describe.
        name: how error messages call it; fields are then "name.field".

    Raises:
        DefinitionError: parts that could not be recognised in another process; lists all of them with their place.
    """
    walk = _Walk()
    description = walk.describe(definition, name)
    if walk.problems:
        raise DefinitionError(walk.problems)
    return description


def fingerprint(description: object) -> str:
    """Returns the SHA-256, in hexadecimal, of a description. The order of keys does not matter, that of lists does.

    Raises:
        DefinitionError: something that is not plain JSON; `describe` it first.
    """
    return hashlib.sha256(canonical(description).encode()).hexdigest()


def canonical(description: object) -> str:
    """Returns the one JSON text of a description: sorted keys, no spaces, exact numbers, ASCII only."""
    try:
        return json.dumps(description, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise DefinitionError(f"A description must be plain JSON: {error}. Pass describe(object) instead.") from None


@final
class _Walk:
    """One walk over a definition; gathers the problems so that all are reported together."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self._open: set[int] = set()  # the containers around the current value: an object may not contain itself

    def describe(self, value: Any, path: str) -> Json:
        if isinstance(value, np.generic):
            value = value.item()
        if hasattr(type(value), "__fingerprint__"):
            return self._nested(value, path, lambda: self.describe(value.__fingerprint__(), path))
        if isinstance(value, Enum):
            return {"@enum": f"{name_of(type(value))}.{value.name}"}
        if value is None or isinstance(value, (bool, int, str)):
            return value
        if isinstance(value, float):
            return float(value) if math.isfinite(value) else repr(float(value))
        if isinstance(value, PurePath):
            return value.as_posix()
        if isinstance(value, bytes):
            return {"@bytes": hashlib.sha256(value).hexdigest()}
        if isinstance(value, np.ndarray):
            return self._array(value, path)
        if (torch := sys.modules.get("torch")) is not None:  # a tensor can only come from a torch that was imported
            if isinstance(value, torch.Tensor):
                return self._tensor(value, path, torch)
            if isinstance(value, (torch.dtype, torch.device)):
                return str(value)
        return self._compound(value, path)

    def _compound(self, value: Any, path: str) -> Json:
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return self._nested(value, path, lambda: self._dataclass(value, path))
        if isinstance(value, functools.partial):
            return self._nested(value, path, lambda: self._partial(value, path))
        if isinstance(value, Mapping):
            return self._nested(value, path, lambda: self._mapping(value, path))
        if isinstance(value, (list, tuple, range)):
            return self._nested(value, path, lambda: self._items(value, path))
        if isinstance(value, Set):
            items = [self.describe(item, f"{path}{{...}}") for item in value]
            return {"@set": sorted(items, key=canonical)}
        if callable(value) and hasattr(value, "__name__"):
            return self._callable(value, path)
        return self._refuse(
            path,
            f"is a {type(value).__qualname__}, which cannot be compared when the study is run again. "
            "Use a frozen dataclass, or give the class a method __fingerprint__() that returns plain values.",
        )

    def _nested(self, value: object, path: str, describe: Callable[[], Json]) -> Json:
        if id(value) in self._open:
            return self._refuse(path, "contains itself. Remove the circle.")
        self._open.add(id(value))
        try:
            return describe()
        finally:
            self._open.remove(id(value))

    def _dataclass(self, value: Any, path: str) -> Json:
        described: dict[str, Json] = {"@type": name_of(type(value))}
        if callable(value):
            described["@code"] = code_hash(type(value))
        for field in dataclasses.fields(value):
            if field.metadata.get("fingerprint", True):
                described[field.name] = self.describe(getattr(value, field.name), join(path, field.name))
        return described

    def _mapping(self, value: Mapping[Any, Any], path: str) -> Json:
        described: dict[str, Json] = {}
        for key, item in value.items():
            if not isinstance(key, str) or isinstance(key, Enum):
                self._refuse(path, f"has the key {key!r}; keys must be texts. Use a list of pairs for other keys.")
                continue
            described[f"@{key}" if key.startswith("@") else str(key)] = self.describe(item, join(path, key))
        return dict(sorted(described.items()))

    def _items(self, value: Iterable[Any], path: str) -> Json:
        return [self.describe(item, f"{path}[{i}]") for i, item in enumerate(value)]

    def _partial(self, value: functools.partial[Any], path: str) -> Json:
        return {
            "@partial": "functools.partial",
            "func": self.describe(value.func, join(path, "func")),
            "args": self._items(value.args, join(path, "args")),
            "keywords": self._mapping(value.keywords, join(path, "keywords")),
        }

    def _array(self, value: np.ndarray[Any, Any], path: str) -> Json:
        if value.dtype.hasobject:
            return self._refuse(path, "is an array of Python objects. Use numbers or texts of one type.")
        little = np.ascontiguousarray(value, dtype=value.dtype.newbyteorder("<"))
        return _array_description(str(value.dtype.newbyteorder("=")), value.shape, little.tobytes())

    def _tensor(self, value: Any, path: str, torch: ModuleType) -> Json:
        if value.layout is not torch.strided or value.is_meta:
            return self._refuse(path, f"is a tensor without plain values ({value.layout}). Pass a dense tensor.")
        content = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        return _array_description(str(value.dtype), tuple(value.shape), content)

    def _callable(self, value: Any, path: str) -> Json:
        if value.__name__ == "<lambda>":
            return self._refuse(
                path,
                "is a lambda: it cannot be recognised when the study is run again. "
                "Write it as a function with a name (def ...).",
            )
        if captured := captured_names(value):
            return self._refuse(
                path,
                f"is the function '{value.__name__}', which keeps {', '.join(captured)} from the place it was made: "
                "it cannot be recognised when the study is run again. Write it at the top level of the file, and give "
                "values with functools.partial or as fields of a frozen dataclass with __call__.",
            )
        described: dict[str, Json] = {"@callable": name_of(value)}
        if code := code_hash(value):
            described["@code"] = code
        owner = getattr(value, "__self__", None)
        if owner is not None and not isinstance(owner, ModuleType):
            described["@self"] = self.describe(owner, join(path, "__self__"))
        return described

    def _refuse(self, path: str, problem: str) -> Json:
        self.problems.append(f"{path or 'the definition'} {problem}")
        return None


def join(path: str, field: str) -> str:
    """Returns the path of a field, "method.beta"."""
    return f"{path}.{field}" if path else field


def _array_description(dtype: str, shape: tuple[int, ...], content: bytes) -> Json:
    return {"@array": dtype, "shape": list(shape), "sha256": hashlib.sha256(content).hexdigest()}
