"""The one place where errors become sentences: no traceback without --debug.

What the user can put right exits with 2, and what nobody foresaw with 70. Where the reader of the
output has gone, as `head` does, nobody is there to be told anything: that ends without a word.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import re
import select
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, ParamSpec, TextIO, TypeVar

import typer

from driftscope.errors import DriftscopeError, one_line, plain

if TYPE_CHECKING:
    from pathlib import Path

    from driftscope.opened_study import Study

P = ParamSpec("P")
R = TypeVar("R")

FAULT = 70
"""The exit code of a fault of ours (`EX_SOFTWARE` of sysexits.h)."""
UNREAD = 141
"""The exit code where nobody reads the output any more: a shell's for SIGPIPE."""
_LONGEST_SENTENCE = 2000
_LONG_WORD = re.compile(r"(\S{300})\S{40,}(\S{60})")
"""Such as the path of a thousand folders, of which the end says as much as the beginning."""
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
        except (typer.Exit, typer.Abort, typer.BadParameter):
            raise
        except DriftscopeError as error:
            raise _failed(str(error), error, 2) from None
        except KeyboardInterrupt as stop:
            raise _failed(stopped, stop, 130) from None
        except OSError as error:
            if isinstance(error, BrokenPipeError):
                end_if_unread()
            raise _failed(_of_system(error), error, 2) from None
        except Exception as error:
            if _is_out_of_memory(error):
                raise _failed("there is not enough memory for this", error, 2) from None
            raise _failed(_of_a_fault(error), error, FAULT) from None

    return wrapped


def end_if_unread() -> None:
    """Ends without a word where the reader of the output has closed its pipe.

    What was not read goes nowhere, or Python would tell of it when it ends.

    Raises:
        SystemExit: with `UNREAD`; also in a thread, where it is silent.
    """
    unread = [stream for stream in (sys.stdout, sys.stderr) if _is_unread(stream)]
    for stream in unread:
        with contextlib.suppress(OSError, ValueError):  # a stream without a descriptor
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    if unread:
        raise SystemExit(UNREAD)


def flush_output() -> None:
    """Writes what is left to be written, before Python does so and tells of a closed pipe."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        end_if_unread()
    except (OSError, ValueError):
        return  # Python tells it


def _is_unread(stream: TextIO) -> bool:
    try:
        stream.flush()
        if not hasattr(select, "poll"):
            return False
        poll = select.poll()
        poll.register(stream.fileno(), 0)  # errors are told unasked
        return any(event & select.POLLERR for _, event in poll.poll(0))
    except BrokenPipeError:
        return True
    except (OSError, ValueError):
        return False


def _of_system(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk or your quota is full; free some space, then repeat the command"
    if not error.strerror:
        return str(error)
    why = one_line(error)
    if error.filename is None:
        return f"the system refused to read or write a file: {why}"
    return f"{os.fsdecode(error.filename)} cannot be read or written: {why}"


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or "can't allocate memory" in str(error)


def _of_a_fault(error: Exception) -> str:
    """What nobody foresaw: the sentence says where its traceback has been saved."""
    told = "".join(traceback.format_exception(error))
    try:
        descriptor, place = tempfile.mkstemp(prefix="driftscope-fault-", suffix=".txt")
        with open(descriptor, "wb") as file:  # noqa: PTH123
            file.write(told.encode("utf-8", "backslashreplace"))
    except OSError:
        place = "no file, for none could be written; --debug shows it"
    return (
        f"this is a fault of driftscope ({type(error).__name__}: "
        f"{' '.join(str(error).split())[:300]}); its traceback is in {place}. Please report it "
        "with that file"
    )


def _failed(sentence: str, error: BaseException, code: int) -> Exception:
    if _debug:
        raise error
    typer.secho(f"driftscope: {readable(sentence)}", err=True, fg=typer.colors.RED)
    return typer.Exit(code)


def say(text: str, *, err: bool = False) -> None:
    """Prints lines that may hold names from files, as plain text."""
    typer.echo(plain(text), err=err)


def readable(sentence: str) -> str:
    """A sentence as a terminal can show it, its quoted values cut at a hundred characters."""
    text = plain(sentence).encode("utf-8", "backslashreplace").decode()
    text = re.sub(r"'([^']{98})[^']*'", r"'\1…'", text)
    text = _LONG_WORD.sub(r"\1…\2", text)
    return text if len(text) <= _LONGEST_SENTENCE else f"{text[: _LONGEST_SENTENCE - 1]}…"


def say_what_is_passed_over(
    root: Path, undeclared: Sequence[Path], damaged: Mapping[str, str], changed: Sequence[str] = ()
) -> None:
    """Says which finished runs are in no table: undeclared and damaged ones (run -> why).

    And which are, although somebody has changed their results since they were written.
    """
    from driftscope.cli import terminal

    if undeclared:
        terminal.err.print(
            f"{len(undeclared)} finished runs in {root} are of an earlier declaration of this "
            "study and are passed over",
            style="yellow",
            markup=False,
        )
    if damaged:
        terminal.err.print(
            f"{len(damaged)} finished runs in {root} cannot be read and are left out "
            "(delete a run's folder to carry it out again):",
            *damaged.values(),
            sep="\n  ",
            style="yellow",
            markup=False,
        )
    if changed:
        terminal.err.print(
            f"{len(changed)} finished runs in {root} were changed after they were "
            f"written (their digests differ), and are shown as they are now: {few(changed)}",
            style="yellow",
            markup=False,
        )


def say_what_a_study_lacks(study: Study) -> None:
    """Says which of a study's runs are in no table, and which have been changed."""
    from driftscope.analysis.summaries import missing_text
    from driftscope.cli import terminal

    root, missing = study.folder.root, study.missing
    say_what_is_passed_over(root, study.undeclared, study.damaged, study.changed)
    if len(missing) > len(study.damaged):
        terminal.err.print(
            f"{root}: {missing_text(len(study.runs()), missing)}", style="yellow", markup=False
        )


def few(names: Sequence[str]) -> str:
    """The first three names, and how many more there are."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
