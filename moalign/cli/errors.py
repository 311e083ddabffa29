"""From exceptions to one message on stderr and an exit code: no stack trace for what a user can put right.

0 done   1 finished, with failed trials   2 usage   3 definition or data   4 store   70 an error not foreseen
130 interrupted; the same command continues
"""

from __future__ import annotations

import errno
import sys
import traceback
import warnings
from typing import Any, final

import typer
from typer.core import TyperGroup

from moalign.cli.output import say
from moalign.errors import MoalignError, MoalignWarning, StoreError

FAILED_TRIALS, DEFINITION, STORE, UNFORESEEN, INTERRUPTED = 1, 3, 4, 70, 130


@final
class Commands(TyperGroup):
    """The group of all commands; reports what they raise."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Takes --debug anywhere on the line, also behind a command."""
        if "--debug" in args[1:]:
            args = ["--debug", *(a for a in args if a != "--debug")]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        debug = bool(ctx.params.get("debug"))
        with warnings.catch_warnings():
            warnings.showwarning = _Shown()
            try:
                return super().invoke(ctx)
            except KeyboardInterrupt:
                say("\nInterrupted. What is finished is kept; the same command continues.", error=True)
                raise typer.Exit(INTERRUPTED) from None
            except MoalignError as error:
                code = STORE if isinstance(error, StoreError) else DEFINITION
                raise _reported(error, code, debug) from error
            except OSError as error:
                if error.errno == errno.EPIPE:
                    raise
                raise _reported(error, STORE, debug) from error
            except Exception as error:
                if isinstance(error, typer.Abort) or hasattr(error, "exit_code"):
                    raise  # typer's own: usage, help, and what was reported above
                traceback.print_exc()
                say("Not foreseen. What is finished is kept; please report it with the lines above.", error=True)
                raise typer.Exit(UNFORESEEN) from error


def usage(message: str, option: str | None = None) -> typer.BadParameter:
    """Returns the error for an argument that cannot be meant; it ends a command with exit code 2."""
    from moalign.figures.text import visible

    return typer.BadParameter(visible(message), param_hint=option)


def _reported(error: Exception, code: int, debug: bool) -> typer.Exit:
    if debug:
        traceback.print_exc()
    else:
        notes = "".join(f"\n  {note}" for note in getattr(error, "__notes__", ()))
        say(f"{type(error).__name__}: {error}{notes}", error=True)
    return typer.Exit(code)


@final
class _Shown:
    """Shows moalign's own warnings without the place in the code, each once."""

    def __init__(self) -> None:
        self.messages: set[str] = set()

    def __call__(self, message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
        if not issubclass(category, MoalignWarning):
            sys.stderr.write(warnings.formatwarning(message, category, *place[:2]))
        elif str(message) not in self.messages:
            self.messages.add(str(message))
            say(f"{category.__name__}: {message}", error=True)
