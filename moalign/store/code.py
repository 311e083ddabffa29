"""Names and code hashes of functions and classes, stable across machines, folders and ways to start Python.

A function of an installed package is named by its module, one of a study file by the name of that file. The same study
file therefore gives the same names whether it is run as a script, imported, or moved to another folder.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import inspect
import sys
import textwrap
from collections.abc import Mapping
from pathlib import PurePath
from types import MethodType
from typing import Any


def name_of(target: Any) -> str:
    """Returns "module:qualified name" of a function or class of a package, else "file name:qualified name"."""
    target = inspect.unwrap(target)
    qualified = getattr(target, "__qualname__", None) or target.__name__
    return f"{_place(target)}:{qualified}"


def code_hash(target: Any) -> str | None:
    """Returns the SHA-256 of the code of a function or class, or None where there is no Python source.

    The code is parsed and written out again first, so comments, blank lines and quotes do not count. Decorators do.
    It is read once per process: what runs is the code as it was loaded, whatever is saved to its file meanwhile.
    """
    return _hash_of_source(target.__func__ if isinstance(target, MethodType) else target)


@functools.cache
def _hash_of_source(target: Any) -> str | None:
    try:
        source = textwrap.dedent(inspect.getsource(target))
    except (OSError, TypeError):
        return None
    try:
        source = ast.unparse(ast.parse(source))
    except SyntaxError:
        pass  # for example text in triple quotes that is indented less than its function: hash it as written
    return hashlib.sha256(source.encode("utf-8", "surrogatepass")).hexdigest()


def captured_names(target: Any) -> tuple[str, ...]:
    """Returns what a function keeps from the place it was made, in words; empty for recognisable functions.

    A decorator returns such a function too. It is accepted where the decorated name leads back to it, because the
    decorator and its arguments are then part of the source that `code_hash` reads.
    """
    function = target.__func__ if isinstance(target, MethodType) else target
    inner = inspect.unwrap(function)
    names = getattr(getattr(inner, "__code__", None), "co_freevars", ())
    captured = tuple(
        f"'{name}'" for name in names if name != "__class__"
    )  # `super()` in a method captures only its class
    if inner is not function and not captured and _found_by_name(function, inner) is not function:
        return ("a decorator",)
    return captured


def _found_by_name(function: Any, inner: Any) -> Any:
    found: Any = _namespace(inner).get(inner.__qualname__.split(".")[0])
    for part in inner.__qualname__.split(".")[1:]:
        found = inspect.getattr_static(found, part, None)
    return function if isinstance(found, (staticmethod, classmethod)) and found.__func__ is function else found


def _namespace(target: Any) -> Mapping[str, Any]:
    """The global names beside `target`; a study file need not be in sys.modules to be recognised."""
    names: Mapping[str, Any] | None = getattr(target, "__globals__", None)
    if names is not None:
        return names
    module = sys.modules.get(target.__module__)
    return vars(module) if module is not None else {}


def _place(target: Any) -> str:
    if getattr(target, "__module__", None) is None:  # methods of built-in types
        target = getattr(target, "__objclass__", None) or type(getattr(target, "__self__", None))
    names = _namespace(target)
    spec, file = names.get("__spec__"), names.get("__file__")
    module: str = spec.name if spec is not None else target.__module__
    parent = sys.modules.get(module.rpartition(".")[0])
    in_package = "__path__" in names or getattr(parent, "__file__", None) is not None
    return PurePath(file).name if file and file.endswith(".py") and not in_package else module
