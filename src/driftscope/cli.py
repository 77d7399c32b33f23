"""The command line: parse, call, print. Heavy modules are imported inside the commands."""

from __future__ import annotations

import errno
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ParamSpec, TypeVar

import typer

from driftscope.errors import DataError, DriftscopeError

if TYPE_CHECKING:
    from driftscope.config import RunSpec

P = ParamSpec("P")
R = TypeVar("R")

app = typer.Typer(
    help="Measures what fine-tuning does to a CLIP: attention, representation, weights, "
    "zero-shot ability.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
study_app = typer.Typer(help="Run a declared matrix of runs.", no_args_is_help=True)
app.add_typer(study_app, name="study")

_debug = False

OutFolder = Annotated[Path, typer.Option("--out", help="Where everything is written.")]
Device = Annotated[
    str | None, typer.Option(help="Such as cpu or cuda:0; by default CUDA where there is any.")
]
Workers = Annotated[
    int | None, typer.Option(min=1, help="Runs at a time; by default one a CPU core.")
]


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    global _debug
    _debug = debug
    if version:
        from driftscope import __version__

        typer.echo(__version__)
        raise typer.Exit


def _plain_errors(command: Callable[P, R]) -> Callable[P, R]:
    """The one place where errors become sentences: exit code 2, no traceback without --debug."""

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except DriftscopeError as error:
            raise _failed(str(error), error, 2) from None
        except KeyboardInterrupt as stop:
            raise _failed("Stopped; the same command goes on from here.", stop, 130) from None
        except OSError as error:
            if error.errno == errno.ENOSPC:
                sentence = "the disk is full; free some space, then the same command goes on"
            else:
                sentence = str(error)
            raise _failed(sentence, error, 2) from None

    return wrapped


def _failed(sentence: str, error: BaseException, code: int) -> Exception:
    if _debug:
        raise error
    typer.secho(f"driftscope: {sentence}", err=True, fg=typer.colors.RED)
    return typer.Exit(code)


# ---------------------------------------------------------------- commands


@app.command()
@_plain_errors
def demo(
    out: OutFolder = Path("driftscope-demo"),
    fast: Annotated[bool, typer.Option("--fast", help="One seed, two rates: a minute.")] = False,
    workers: Workers = None,
) -> None:
    """A small study on the embedded model: full fine-tuning against LoRA, and a report."""
    from driftscope.study import DEMO, FAST_DEMO, expand

    study = FAST_DEMO if fast else DEMO
    command = "driftscope demo --fast" if fast else "driftscope demo"
    report = _run_study(expand(study), study.title, out, workers, None, command)
    typer.echo(f"\nReport: {report}")
    typer.echo(
        "Next: open it in a browser, then compare your own model: "
        "driftscope compare PRETRAINED ADAPTED --images FOLDER"
    )


@study_app.command("run")
@_plain_errors
def study_run(
    study: Annotated[Path, typer.Argument(help="The study's YAML file.")],
    out: OutFolder,
    workers: Workers = None,
    device: Device = None,
) -> None:
    """Carries out what is missing of a study, and writes its report."""
    from driftscope.config import load_study_spec
    from driftscope.study import expand

    spec = load_study_spec(study)
    command = f"driftscope study run {study} --out {out}"
    report = _run_study(expand(spec), spec.title or spec.name, out, workers, device, command)
    typer.echo(f"\nReport: {report}")


@app.command()
@_plain_errors
def run(
    spec: Annotated[Path, typer.Argument(help="The run's YAML file.")],
    out: OutFolder,
    device: Device = None,
) -> None:
    """One run: adapt, probe, evaluate, record."""
    from driftscope import terminal
    from driftscope.config import load_run_spec
    from driftscope.records import is_done

    parsed = load_run_spec(spec)
    if is_done(out):
        terminal.err.print("This run is done already; showing its record.")
    with terminal.run_progress(parsed) as progress:
        from driftscope.run import run_one

        record = run_one(
            parsed,
            out,
            device=device,
            on_step=lambda done, total: progress.update(
                progress.task_ids[0], completed=done, total=total
            ),
        )
    terminal.show_cells([record])
    typer.echo(f"\nRecord: {terminal.path_text(out)}")
    typer.echo(f"Next: driftscope compare {parsed.model} {terminal.path_text(out)} --images FOLDER")


@app.command()
@_plain_errors
def compare(
    pretrained: Annotated[str, typer.Argument(help="The model before: mini, hub id or folder.")],
    adapted: Annotated[
        str, typer.Argument(help="The model after: folder, PEFT adapter, run folder or hub id.")
    ],
    images: Annotated[str, typer.Option(help="A folder of images, or a dataset's name.")],
    transfer: Annotated[
        list[str] | None,
        typer.Option(help="Labeled dataset to score zero-shot on; may be repeated."),
    ] = None,
    out: OutFolder = Path("driftscope-compare"),
    as_json: Annotated[bool, typer.Option("--json", help="Print every number as JSON.")] = False,
    maps: Annotated[
        bool, typer.Option("--maps", help="Also rollout and patch-to-patch (slower).")
    ] = False,
    max_images: Annotated[int, typer.Option(min=4, help="Images read at most.")] = 200,
    skip_bad_images: Annotated[
        bool, typer.Option("--skip-bad-images", help="Leave unreadable images out, counted.")
    ] = False,
    device: Device = None,
) -> None:
    """Two models on the same images: how far has the second drifted, and what is left?"""
    from driftscope import terminal

    _refuse_file(out)
    with terminal.err.status("reading both models"):
        from driftscope.comparison import compare as compare_models

        comparison = compare_models(
            pretrained,
            adapted,
            images,
            transfer=transfer or (),
            max_images=max_images,
            maps=maps,
            skip_bad_images=skip_bad_images,
            device=device or "cpu",
        )
    for problem in comparison.skipped_images:
        terminal.err.print(f"skipped: {problem}")
    values = comparison.to_dict()
    report = _write_comparison(values, comparison.overlay, out)
    if as_json:
        typer.echo(json.dumps(values, indent=1))
        return
    terminal.show_comparison(values)
    typer.echo(f"\nReport: {terminal.path_text(report)}")


@app.command()
@_plain_errors
def export(
    adapted: Annotated[str, typer.Argument(help="A run folder, a PEFT adapter, or any model.")],
    out: OutFolder,
) -> None:
    """Writes an adapted model as a plain CLIPModel folder that transformers loads."""
    if out.exists() and (out.is_file() or any(out.iterdir())):
        raise DataError(f"{out} is not empty; give a new folder with --out")
    from driftscope.adapt import export_merged
    from driftscope.models import load

    export_merged(load(adapted), out)
    typer.echo(f"Written: {out}")


# ---------------------------------------------------------------- joined by several commands


def _run_study(
    specs: list[RunSpec],
    title: str,
    out: Path,
    workers: int | None,
    device: str | None,
    command: str,
) -> str:
    """Carries out what is missing, shows the table, writes the report; returns its path."""
    from driftscope import terminal
    from driftscope.executors.local import default_workers, execute
    from driftscope.records import load_run
    from driftscope.study import missing, run_folder

    _refuse_file(out)
    out.mkdir(parents=True, exist_ok=True)
    todo = missing(specs, out)
    if todo:
        tasks = [(spec, run_folder(out, spec)) for spec in todo]
        updates = execute(tasks, workers or default_workers(), device=device)
        terminal.follow(updates, specs, len(specs) - len(todo))
    records = [load_run(run_folder(out, spec)) for spec in specs if spec not in missing(specs, out)]
    if not records:
        raise DriftscopeError(
            f"none of the {len(specs)} runs succeeded; see {out}/runs/*/failure.json"
        )
    from driftscope.report.html import write_study_report

    terminal.show_cells(records)
    report = write_study_report(records, out / "report.html", title=title, command=command)
    failed = len(specs) - len(records)
    if failed:
        typer.secho(
            f"{failed} of {len(specs)} runs failed; the same command tries them again.", err=True
        )
        raise typer.Exit(1)
    return terminal.path_text(report)


def _write_comparison(values: dict[str, Any], overlay: Any, out: Path) -> Path:
    from driftscope.records import write_json
    from driftscope.report.html import write_compare_report

    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "comparison.json", values)
    return write_compare_report(values, overlay, out / "report.html")


def _refuse_file(out: Path) -> None:
    if out.is_file():
        raise DataError(f"the output {out} is a file; give a folder with --out")


def main() -> None:
    """The entry point of the `driftscope` command."""
    app()
