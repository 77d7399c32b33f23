"""The command line: parse, call, print. Heavy modules are imported inside the commands."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from driftscope.cli.cache import cache_app
from driftscope.cli.gate import gate
from driftscope.cli.options import Device, OutFolder, Workers, refuse_file
from driftscope.cli.reports import HTML, Formats, chosen_formats, write_reports_side_by_side
from driftscope.cli.sentences import plain_errors, resumable, show_tracebacks
from driftscope.cli.study import RunPlace, carry_out_study, study_app
from driftscope.cli.watch import watch
from driftscope.errors import DataError

app = typer.Typer(
    help="Measures what fine-tuning does to a CLIP: attention, representation, weights, "
    "zero-shot ability.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(study_app, name="study")
app.add_typer(cache_app, name="cache")
app.command("gate")(gate)
app.command("watch")(watch)


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    show_tracebacks(debug)
    if version:
        from driftscope import __version__

        typer.echo(__version__)
        raise typer.Exit


# ---------------------------------------------------------------- commands


@app.command()
@resumable
def demo(
    out: OutFolder = Path("driftscope-demo"),
    fast: Annotated[bool, typer.Option("--fast", help="One seed, two rates: a minute.")] = False,
    workers: Workers = None,
) -> None:
    """A small study on the embedded model: full fine-tuning against LoRA, and a report."""
    from driftscope.study import DEMO, FAST_DEMO

    study = FAST_DEMO if fast else DEMO
    command = "driftscope demo --fast" if fast else "driftscope demo"
    report = carry_out_study(study, out, command, RunPlace(workers), retry_failed=True)
    typer.echo(f"\nReport: {report}")
    typer.echo(
        "Next: open it in a browser, then compare your own model: "
        "driftscope compare PRETRAINED ADAPTED --images FOLDER"
    )


@app.command()
@resumable
def run(
    spec: Annotated[Path, typer.Argument(help="The run's YAML file.")],
    out: OutFolder,
    device: Device = None,
) -> None:
    """One run: adapt, probe, evaluate, record."""
    from driftscope.cli import terminal
    from driftscope.config import load_run_spec
    from driftscope.records import is_done, refuse_foreign_folder

    parsed = load_run_spec(spec)
    refuse_foreign_folder(out, parsed)
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
    terminal.show_shared_images(record.result.duplicates)
    typer.echo(f"\nRecord: {terminal.path_text(out)}")
    typer.echo(f"Next: driftscope compare {parsed.model} {terminal.path_text(out)} --images FOLDER")


@app.command()
@plain_errors
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
    intruders: Annotated[
        bool, typer.Option("--intruders", help="Also intruder dimensions (slow on a ViT-B).")
    ] = False,
    max_images: Annotated[int, typer.Option(min=4, help="Images read at most.")] = 200,
    skip_bad_images: Annotated[
        bool, typer.Option("--skip-bad-images", help="Leave unreadable images out, counted.")
    ] = False,
    device: Device = None,
) -> None:
    """Two models on the same images: how far has the second drifted, and what is left?"""
    from driftscope.cli import terminal

    _refuse_other_output(out)
    with terminal.err.status("reading both models"):
        from driftscope.comparison import compare as compare_models

        comparison = compare_models(
            pretrained,
            adapted,
            images,
            transfer=transfer or (),
            max_images=max_images,
            maps=maps,
            intruders=intruders,
            skip_bad_images=skip_bad_images,
            device=device,
        )
    for problem in comparison.skipped_images:
        terminal.err.print(f"skipped: {problem}")
    values = comparison.to_dict()
    report = _write_comparison(values, comparison.overlay, out)
    if as_json:
        typer.echo(report.with_suffix(".json").read_text(encoding="utf-8"))
        return
    terminal.show_comparison(values)
    typer.echo(f"\nReport: {terminal.path_text(report)}")


@app.command("import")
@plain_errors
def import_records(
    files: Annotated[list[Path], typer.Argument(help="Records, or folders of records.")],
    out: OutFolder,
    pretrained_zero_shot_pct: Annotated[
        float | None,
        typer.Option(help="For cell means, whose file does not say it: the pretrained score."),
    ] = None,
) -> None:
    """Other people's records of runs, made a study folder that can be read like any other."""
    from driftscope.study.import_command import import_study

    imported = import_study(files, out, pretrained_zero_shot_pct=pretrained_zero_shot_pct)
    for skipped in imported.skipped:
        typer.secho(f"skipped {skipped.path}: {skipped.reason}", err=True)
    typer.echo(
        f"{imported.num_runs} runs and {imported.num_cells} cell means imported, "
        f"{len(imported.skipped)} skipped: {out}"
    )


@app.command()
@plain_errors
def report(
    studies: Annotated[list[Path], typer.Argument(help="The folders of two studies or more.")],
    out: OutFolder = Path("driftscope-report"),
    form: Formats = HTML,
) -> None:
    """Several studies side by side; of two, or two versions of one, also their difference."""
    _refuse_other_output(out)
    command = f"driftscope report {shlex.join(map(str, studies))} --out {shlex.quote(str(out))}"
    write_reports_side_by_side(studies, out, chosen_formats(form), command)


@app.command()
@plain_errors
def export(
    adapted: Annotated[str, typer.Argument(help="A run folder, a PEFT adapter, or any model.")],
    out: OutFolder,
) -> None:
    """Writes an adapted model as a plain CLIPModel folder that transformers loads."""
    if out.exists() and (out.is_file() or any(out.iterdir())):
        raise DataError(f"{out} is not empty; give a new folder with --out")
    from driftscope.adapt import export_merged
    from driftscope.sources import load

    export_merged(load(adapted), out)
    typer.echo(f"Written: {out}")


# ---------------------------------------------------------------- joined by several commands


def _refuse_other_output(out: Path) -> None:
    """Such a report must not replace that of a study or stand in a run's folder."""
    from driftscope.records import SPEC_FILE, STUDY_FILE

    refuse_file(out)
    for file in (STUDY_FILE, SPEC_FILE):
        if (out / file).exists():
            raise DataError(
                f"{out} holds a study or a run (it has {file}); give another folder with --out"
            )


def _write_comparison(values: dict[str, Any], overlay: Any, out: Path) -> Path:
    from driftscope.records import REPORT_FILE, write_json
    from driftscope.report.html import write_compare_report

    out.mkdir(parents=True, exist_ok=True)
    write_json(out / REPORT_FILE, values)
    return write_compare_report(values, overlay, out / "report.html")


def main() -> None:
    """The entry point of the `driftscope` command."""
    app()
