"""The one place where errors become sentences: no traceback without --debug."""

from __future__ import annotations

import errno
import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import typer

from driftscope.errors import DriftscopeError

if TYPE_CHECKING:
    from driftscope.study import StudyFolder

P = ParamSpec("P")
R = TypeVar("R")

_debug = False


def show_tracebacks(wanted: bool) -> None:
    """Whether errors are shown whole."""
    global _debug
    _debug = wanted


def plain_errors(command: Callable[P, R]) -> Callable[P, R]:
    """Makes a command answer an error by one sentence and exit code 2 (Ctrl-C: 130)."""
    return _answering(command, "Stopped; nothing was lost.")


def resumable(command: Callable[P, R]) -> Callable[P, R]:
    """`plain_errors` for a command that goes on where it was stopped."""
    return _answering(command, "Stopped; the same command goes on from here.")


def _answering(command: Callable[P, R], stopped: str) -> Callable[P, R]:

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except DriftscopeError as error:
            raise _failed(str(error), error, 2) from None
        except KeyboardInterrupt as stop:
            raise _failed(stopped, stop, 130) from None
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                sentence = (
                    "the disk or your quota is full; free some space, then repeat the command"
                )
            else:
                sentence = str(error)
            raise _failed(sentence, error, 2) from None

    return wrapped


def _failed(sentence: str, error: BaseException, code: int) -> Exception:
    if _debug:
        raise error
    typer.secho(f"driftscope: {sentence}", err=True, fg=typer.colors.RED)
    return typer.Exit(code)


def say_what_is_passed_over(study_folder: StudyFolder, damaged: Mapping[str, str]) -> None:
    """Says which finished runs are in no table: undeclared and damaged ones (run -> why)."""
    from driftscope.cli import terminal

    if count := len(study_folder.undeclared()):
        terminal.err.print(
            f"{count} finished runs in {study_folder.root} are of an earlier declaration of this "
            "study and are passed over",
            style="yellow",
            markup=False,
        )
    if damaged:
        terminal.err.print(
            f"{len(damaged)} finished runs in {study_folder.root} cannot be read and are left out "
            "(delete a run's folder to carry it out again):",
            *damaged.values(),
            sep="\n  ",
            style="yellow",
            markup=False,
        )
