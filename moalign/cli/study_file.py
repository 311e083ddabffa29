"""A study file: a Python file with a module-level `study`, or a function `build()` that returns one."""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from moalign.errors import DefinitionError, MoalignError

if TYPE_CHECKING:
    from moalign.study import Study


def load_study(file: Path) -> Study:
    """Returns the study that a file defines. The file's folder can be imported from, as if the file was run itself.

    Raises:
        DefinitionError: no such file, an error of Python in it, or no study; names file and line.
        MoalignError: the study's own; a note says in which line it was defined.
    """
    if not file.is_file():
        what = "is a folder" if file.is_dir() else "does not exist"
        raise DefinitionError(
            f"{file} {what} (looked from {Path.cwd()}). `moalign init NAME` writes a study to start from."
        )
    if file.suffix != ".py":
        raise DefinitionError(f"{file} is no Python file. A study is a .py file; `moalign init NAME` writes one.")
    module = _guarded(file, lambda: _execute(file))
    found = vars(module).get("study")
    if found is None and callable(build := vars(module).get("build")):
        found = _guarded(file, build)
    return _checked(found, file)


def load_search(file: Path) -> tuple[Study, dict[str, Any], dict[str, Any]]:
    """Returns the study that a file defines, the dimensions in its `search`, and the options in its `tuning`.

    Raises:
        DefinitionError, MoalignError: as `load_study`; or the file declares no search.
    """
    study = load_study(file)
    module = vars(sys.modules[f"moalign_study_{file.resolve().stem}"])
    search, options = module.get("search"), module.get("tuning", {})
    if not isinstance(search, dict) or not isinstance(options, dict):
        raise DefinitionError(
            f'{file} declares no search. Write `search = {{"method.beta": moalign.log_uniform(0.01, 1), ...}}`, and '
            "`tuning = dict(trials=24, batch=2)` for options of moalign.tune."
        )
    return study, search, options


def _execute(file: Path) -> ModuleType:
    place = file.resolve()
    spec = spec_from_file_location(f"moalign_study_{place.stem}", place)
    assert spec is not None  # the suffix is .py
    module = module_from_spec(spec)
    # registered and compiled here, so that classes of the file find their source, and no stale bytecode is read
    sys.modules[module.__name__] = module
    if str(place.parent) not in sys.path:
        sys.path.insert(0, str(place.parent))
    exec(compile(place.read_bytes(), str(place), "exec"), vars(module))
    return module


def _guarded(file: Path, call: Any) -> Any:
    try:
        return call()
    except MoalignError as error:
        line = _line(error, file)
        if line:
            error.add_note(f"in {file} line {line}")
        raise
    except SyntaxError as error:
        text = f": {error.text.strip()}" if error.text else ""
        raise DefinitionError(f"{error.filename or file} line {error.lineno}: {error.msg}{text}") from error
    except SystemExit as error:
        raise DefinitionError(
            f"{_place(error, file)} ended Python by exit. A study file only defines its study."
        ) from error
    except Exception as error:
        raise DefinitionError(f"{_place(error, file)}: {type(error).__name__}: {error}") from error


def _checked(found: Any, file: Path) -> Study:
    from moalign.study import Study

    if isinstance(found, Study):
        return found
    if found is None:
        raise DefinitionError(
            f"{file} defines no study. Write `study = moalign.Study(...)`, or a build() that returns one."
        )
    raise DefinitionError(f"`study` of {file} is a {type(found).__name__}, but must be a moalign.Study.")


def _place(error: BaseException, file: Path) -> str:
    line = _line(error, file)
    return f"{file} line {line}" if line else str(file)


def _line(error: BaseException, file: Path) -> int | None:
    """Returns the line of the file that was running when the error was raised, the innermost one."""
    line, trace = None, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(file.resolve()):
            line = trace.tb_lineno
        trace = trace.tb_next
    return line
