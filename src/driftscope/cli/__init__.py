"""The command line: parse, call, print. Heavy modules are imported inside the commands."""

from __future__ import annotations

import io
import re
import sys
import warnings
from collections.abc import Callable
from typing import Annotated, Any

import typer

from driftscope.cli.cache import cache_app
from driftscope.cli.card import card
from driftscope.cli.compare import compare
from driftscope.cli.failures import flush_output, show_tracebacks
from driftscope.cli.files import export_model, import_records
from driftscope.cli.gate import gate
from driftscope.cli.merge import merge
from driftscope.cli.metrics import metrics
from driftscope.cli.old_names import Commands
from driftscope.cli.rescue import rescue
from driftscope.cli.run import demo, run
from driftscope.cli.schema import schema
from driftscope.cli.study import study_app
from driftscope.cli.watch import watch
from driftscope.cli.where import where
from driftscope.deprecation import RenamedWarning
from driftscope.errors import NoteWarning, plain

app = typer.Typer(
    cls=Commands,
    help="Measures what fine-tuning does to an image encoder: attention, representation, weights, "
    "zero-shot ability.",
    epilog="Example: driftscope compare mini my-finetuned-clip --images photos --pool concepts100",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

JUDGE, TRAIN, KEEP = "Judge a model", "Train and study", "Import, export, look up"
COMMANDS: tuple[tuple[str, Callable[..., Any] | typer.Typer, str, str], ...] = (
    ("demo", demo, JUDGE, "driftscope demo --fast"),
    (
        *("compare", compare, JUDGE),
        "driftscope compare mini my-finetuned-clip --images photos --pool concepts100",
    ),
    ("gate", gate, JUDGE, "driftscope gate driftscope-compare --min-retention 90"),
    (
        "rescue",
        rescue,
        JUDGE,
        "driftscope rescue mini my-finetuned-clip --images photos --pool concepts100 --out rescued",
    ),
    ("where", where, JUDGE, "driftscope where mini my-finetuned-clip --pool concepts100"),
    ("merge", merge, JUDGE, "driftscope merge one-run other-run --base mini --out merged"),
    ("run", run, TRAIN, "driftscope run spec.yaml --out one-run"),
    ("study", study_app, TRAIN, "driftscope study plan mini-lr-sweep"),
    ("watch", watch, TRAIN, "driftscope watch one-run"),
    ("export-model", export_model, KEEP, "driftscope export-model one-run --out plain-clip"),
    ("import", import_records, KEEP, "driftscope import records/*.json --out their-study"),
    ("card", card, KEEP, "driftscope card driftscope-compare --out retention.md"),
    ("metrics", metrics, KEEP, "driftscope metrics retention_pct cka"),
    ("schema", schema, KEEP, "driftscope schema study --out study.schema.json"),
    ("cache", cache_app, KEEP, "driftscope cache list"),
)
"""Name, command, part of the help, example; in the order of use."""

for _name, _command, _panel, _example in COMMANDS:
    _epilog = f"Example: {_example}"
    if isinstance(_command, typer.Typer):
        app.add_typer(_command, name=_name, rich_help_panel=_panel, epilog=_epilog)
    else:
        app.command(_name, rich_help_panel=_panel, epilog=_epilog)(_command)
Commands.order = [name for name, *_ in COMMANDS]


def _print_version(wanted: bool) -> None:
    if wanted:
        from driftscope import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    del version
    show_tracebacks(debug)


def main() -> None:
    """The entry point of the `driftscope` command."""
    warnings.showwarning = _show_warning
    pass_over_libraries_words()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names may hold what no terminal can show
            stream.reconfigure(errors="backslashreplace")
    try:
        app(prog_name="driftscope")
    finally:
        flush_output()


def pass_over_libraries_words() -> None:
    """Lets no library tell of a damaged file before our own sentence does, or of lacking CUDA."""
    for module in ("PIL", "torch._weights_only_unpickler", "peft.tuners.boft"):
        warnings.filterwarnings("ignore", module=rf"{re.escape(module)}\b")


_show_as_python_does = warnings.showwarning


def _show_warning(
    message: Warning | str, category: type[Warning], *place: Any, **named: Any
) -> None:
    """Tells of an old name or of a model in one sentence, without Python's line of code."""
    if issubclass(category, RenamedWarning | NoteWarning):
        print(plain(f"driftscope: {message}"), file=sys.stderr)
    else:
        _show_as_python_does(plain(str(message)), category, *place, **named)
