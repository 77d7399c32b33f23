"""The commands over a study: plan, run, status, export, analyse, report."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from driftscope.cli.failures import (
    plain_errors,
    resumable,
    say,
    say_what_a_study_lacks,
    say_what_is_passed_over,
)
from driftscope.cli.options import (
    MACHINE,
    PRINTED,
    AsJson,
    OutFolder,
    Workers,
    opt,
    refuse_file,
    write_text,
)
from driftscope.cli.reports import HTML, Formats, write_report, write_side_by_side_report
from driftscope.errors import ConfigError, RecordError

if TYPE_CHECKING:
    from driftscope.analysis import StudyTables
    from driftscope.config import RunSpec, StudySpec
    from driftscope.executors.schedule import Pool
    from driftscope.study.plan import Sample

study_app = typer.Typer(help="Plan, run and read a declared matrix of runs.", no_args_is_help=True)

StudyArgument = Annotated[
    str, typer.Argument(help="The study's YAML file, or the name of a study that ships.")
]
FolderArgument = Annotated[Path, typer.Argument(help="The study's folder.")]
Only = Annotated[
    list[str] | None, opt("Take only the runs that fit, such as method=lora,seed=7|11.", "--only")
]

_DEVICES = "Such as cpu or cuda:0. May be repeated. By default every GPU."
_RAY = "Use Ray: local, auto, or a cluster's address. All nodes must see --out."
_REPORT_OUT = "The folder to write to. By default the study's own; of several, driftscope-report."
_WHERE = (
    "Only runs that fit, such as 'method=full_ft|lora_r8', 'cka>=0.9' or, of an option, "
    "'probe_images=20'. May be repeated."
)
_EXPORT_OUT = "The folder to write to. By default export/ in the study's folder."


@dataclass(frozen=True)
class RunPlace:
    """Where runs go and how many at a time. These settings change no number of a run."""

    workers: int | None = None
    threads: int | None = None
    devices: tuple[str, ...] = ()
    runs_per_device: int = 1
    ray: str | None = None

    def pool(self) -> Pool:
        """The pool these settings describe."""
        if self.ray is None:
            from driftscope.executors.local import LocalPool

            return LocalPool(
                self.workers,
                threads=self.threads,
                devices=self.devices,
                runs_per_device=self.runs_per_device,
            )
        from driftscope.executors.ray import RayPool

        if self.devices not in ((), ("cpu",), ("cuda",)):
            raise ConfigError(
                f"with --ray, --device is cpu or cuda, not {' '.join(self.devices)}: "
                "which GPU a run gets is Ray's to say"
            )
        return RayPool(
            self.ray,
            threads=self.threads or 1,
            runs_per_gpu=self.runs_per_device,
            max_runs=self.workers,
            device="cpu" if self.devices == ("cpu",) else None,
        )


# ---------------------------------------------------------------- commands


@study_app.command("plan", epilog="Example: driftscope study plan mini-lr-sweep")
@plain_errors
def plan(
    study: StudyArgument,
    out: Annotated[Path | None, opt("The study's folder, with its finished runs.", "--out")] = None,
    only: Only = None,
    workers: Workers = None,
    calibrate: Annotated[
        bool, opt("Estimate the time from one short run of each kind.", "--calibrate")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show the matrix: how many runs it has, which exist, what would stop one, how long they take.

    The models and datasets that lie on this machine are opened, and every method is set up once.
    A run that would be refused ends the command with exit code 1, after the plan.
    """
    from driftscope.cli.study_views import plan_values, show_plan
    from driftscope.config import load_study_spec, run_id
    from driftscope.executors.local import LocalPool
    from driftscope.refusals import outlook
    from driftscope.study import StudyFolder, cells, expand, select
    from driftscope.study.plan import earlier_samples, estimate

    spec = load_study_spec(study)
    specs = expand(spec)
    _refuse_unknown_datasets(specs)
    if only:
        specs = select(specs, only)
    folder = StudyFolder(out) if out is not None else None
    if folder is not None:
        folder.refuse_foreign(spec)
    todo = folder.todo(specs, retry_failed=False) if folder is not None else specs
    samples = earlier_samples(folder, specs) if folder is not None else []
    pool = LocalPool(workers)
    found = outlook(todo)
    if calibrate and not found.refusals:
        samples = [*samples, *_calibrated(todo, pool)]
    values = plan_values(
        spec,
        cells(specs),
        folder.states(map(run_id, specs)) if folder is not None else {},
        estimate(todo, samples),
        pool.num_workers,
        found,
    )
    if as_json:
        typer.echo(json.dumps(values, indent=1))
    else:
        show_plan(values)
    if found.refusals:
        raise typer.Exit(1)


@study_app.command("run", epilog="Example: driftscope study run mini-lr-sweep --out lr-sweep")
@resumable
def run(
    study: StudyArgument,
    out: OutFolder,
    workers: Workers = None,
    threads: Annotated[
        int | None,
        opt("CPU threads of a run. By default cores / workers.", panel=MACHINE, min=1),
    ] = None,
    device: Annotated[list[str] | None, opt(_DEVICES, panel=MACHINE)] = None,
    runs_per_device: Annotated[
        int, opt("Runs on one GPU at the same time.", panel=MACHINE, min=1)
    ] = 1,
    ray: Annotated[str | None, opt(_RAY, panel=MACHINE)] = None,
    only: Only = None,
    retry_failed: Annotated[bool, opt("Run failed runs again, too.", "--retry-failed")] = False,
) -> None:
    """Run what a study still lacks, and write its report. Stop it and resume it when you like."""
    from driftscope.config import load_study_spec

    report = carry_out_study(
        load_study_spec(study),
        out,
        f"driftscope study run {shlex.quote(study)} --out {shlex.quote(str(out))}",
        RunPlace(workers, threads, tuple(device or ()), runs_per_device, ray),
        only=only or (),
        retry_failed=retry_failed,
    )
    say(f"\nReport: {report}")


@study_app.command("status", epilog="Example: driftscope study status rates")
@plain_errors
def status(
    folder: FolderArgument,
    watch: Annotated[bool, typer.Option("--watch", hidden=True)] = False,
    as_json: AsJson = False,
) -> None:
    """Show what is done, what runs and what failed, from any machine that sees the folder."""
    from driftscope.cli import terminal
    from driftscope.cli.study_views import status_view
    from driftscope.cli.watch import watch_study
    from driftscope.deprecation import renamed
    from driftscope.study import StudyFolder
    from driftscope.study.status import study_status

    study_folder = StudyFolder(folder)
    say_what_is_passed_over(folder, study_folder.undeclared(), study_folder.damaged())
    if watch:
        renamed("driftscope study status --watch", "driftscope watch")
        watch_study(study_folder)
        return
    current = study_status(study_folder, study_folder.runs())
    if as_json:
        typer.echo(json.dumps(current.to_dict(), indent=1))
    else:
        terminal.out.print(status_view(current))


@study_app.command("analyse", epilog="Example: driftscope study analyse rates --question frontier")
@plain_errors
def analyse(
    folder: FolderArgument,
    question: Annotated[list[str] | None, opt("The name of one question. May be repeated.")] = None,
    where: Annotated[list[str] | None, opt(_WHERE)] = None,
    wide: Annotated[bool, opt("Print every column and row.", "--wide", panel=PRINTED)] = False,
    as_json: AsJson = False,
) -> None:
    """Answer the study's questions, or say why these data can't."""
    from driftscope.analysis import QUESTIONS, answer
    from driftscope.cli import terminal
    from driftscope.cli.study_views import FEW_ROWS, MAX_ROWS, show_answer
    from driftscope.errors import did_you_mean
    from driftscope.opened_study import Study

    for name in question or ():
        if name not in QUESTIONS:
            raise ConfigError(f"unknown question {name!r}: {did_you_mean(name, QUESTIONS)}")
    study = Study(folder)
    say_what_a_study_lacks(study)
    tables = _narrowed(study.tables(), where)
    answers = [answer(name, tables) for name in question or QUESTIONS]
    if as_json:
        typer.echo(json.dumps([one.to_dict() for one in answers], indent=1))
        return
    for one in answers:
        show_answer(one, wide=wide, most=MAX_ROWS if question else FEW_ROWS)
    terminal.show_advice(advice for one in answers for advice in one.advice)


def _narrowed(tables: StudyTables, where: Sequence[str] | None) -> StudyTables:
    """The tables of the runs that fit; how many these are is said."""
    if not where:
        return tables
    narrowed = tables.where(where)
    say(f"{len(narrowed.runs)} of {len(tables.runs)} runs, {', '.join(where)}", err=True)
    return narrowed


@study_app.command("calibrate", epilog="Example: driftscope study calibrate rates --out rates.json")
@plain_errors
def calibrate(
    folder: FolderArgument,
    out: Annotated[Path, opt("The file to write.", "--out", panel=PRINTED)],
    first_epoch: Annotated[
        bool, opt("Take the signals of the first epoch: a forecast of the end.", "--first-epoch")
    ] = False,
    signal: Annotated[
        list[str] | None, opt("A signal to take instead of CKA and embedding drift.", "--signal")
    ] = None,
    where: Annotated[list[str] | None, opt(_WHERE)] = None,
    as_json: AsJson = False,
) -> None:
    """Fit a finished study's drift to its retention, for models whose retention is not measured.

    `compare`, `gate` and the monitor take the file with --calibration (calibration=…).
    """
    from driftscope.analysis.calibration import SIGNALS
    from driftscope.analysis.calibration import calibrate as fit
    from driftscope.cli import terminal
    from driftscope.cli.study_views import show_calibration_errors
    from driftscope.opened_study import Study

    study = Study(folder)
    say_what_a_study_lacks(study)
    at: Literal["end", "first epoch"] = "first epoch" if first_epoch else "end"
    found, errors = fit(_narrowed(study.tables(), where), signal or SIGNALS, at=at)
    text = found.model_dump_json(by_alias=True, indent=1)
    write_text(out, text, "--out")
    if as_json:
        typer.echo(text)
        return
    show_calibration_errors(errors)
    say(
        f"Each {found.left_out} left out in turn, the forecast of the others is off by "
        f"{found.mean_error_pct:.1f} points on average; its 90 % interval is "
        f"±{found.half_width_pct:.0f} points.\nCalibration: {terminal.path_text(out)}"
    )


@study_app.command("report", epilog="Example: driftscope study report rates --format html,csv")
@plain_errors
def report(
    folders: Annotated[
        list[Path],
        typer.Argument(help="One study's folder, or several to set side by side; or a run's."),
    ],
    out: Annotated[Path | None, opt(_REPORT_OUT, "--out", panel=PRINTED)] = None,
    form: Formats = HTML,
) -> None:
    """Write a report of finished runs: a page, tables, figures.

    Several studies stand side by side in it. Of two, it also tells the difference, seed by seed.
    A run that belongs to no study has a page alone.
    """
    if len(folders) == 1:
        write_report(folders[0], out or folders[0], form)
    else:
        write_side_by_side_report(folders, out or Path("driftscope-report"), form)


@study_app.command("export", epilog="Example: driftscope study export rates --format csv")
@plain_errors
def export(
    folder: FolderArgument,
    form: Annotated[
        Literal["parquet", "csv", "json"], opt("parquet, csv or json.", "--format", panel=PRINTED)
    ] = "parquet",
    out: Annotated[Path | None, opt(_EXPORT_OUT, "--out", panel=PRINTED)] = None,
) -> None:
    """Write a study's tables as files.

    The tables are runs, history, layers (a row a head), classes, rescues and damage.
    """
    from driftscope.opened_study import Study

    if out is not None:
        refuse_file(out)
    study = Study(folder)
    say_what_a_study_lacks(study)
    for path, shape in study.export(out, form).items():
        say(f"{path}: {shape[0]} rows × {shape[1]} columns")


# ---------------------------------------------------------------- shared with the demo


def _refuse_unknown_datasets(specs: Sequence[RunSpec]) -> None:
    """Raises `DataError` for a misspelt dataset before the first run.

    A missing folder is not refused: its runs fail, and the others go on.
    """
    from driftscope.data import is_here

    named = (
        (spec.dataset, *spec.transfer, *spec.retrieval, *([spec.pool] if spec.pool else []))
        for spec in specs
    )
    for name in dict.fromkeys(name for names in named for name in names):
        if "/" not in name:
            is_here(name)


def carry_out_study(
    study: StudySpec,
    out: Path,
    command: str,
    place: RunPlace,
    *,
    only: Sequence[str] = (),
    retry_failed: bool = False,
) -> str:
    """Runs what is missing, shows the table, writes the report and returns its path.

    Raises:
        typer.Exit: with code 1, where runs failed.
    """
    from driftscope.cli import terminal
    from driftscope.cli.progress import follow, show_failures
    from driftscope.config import run_id
    from driftscope.executors.schedule import execute
    from driftscope.opened_study import Study
    from driftscope.study import StudyFolder, expand, run_folder, select

    specs = expand(study)
    if place.ray is None:  # a cluster's nodes may see what is not here
        _refuse_unknown_datasets(specs)
    folder = StudyFolder(out)
    folder.declare(study)
    asked = select(specs, only) if only else specs
    todo = folder.todo(asked, retry_failed=retry_failed)
    told: dict[str, str] = {}
    if todo:
        updates = execute([(spec, run_folder(out, spec)) for spec in todo], place.pool())
        told = follow(updates, asked, len(asked) - len(todo))
    study_read = Study(out)
    records = study_read.records()
    say_what_a_study_lacks(study_read)
    # a failure may have been told and not been written down: a full disk, a moved folder
    failures = {**folder.failures(map(run_id, asked)), **told}
    if not records:
        show_failures(failures, asked)
        raise typer.Exit(1)
    from driftscope.analysis import answer
    from driftscope.report.html import write_study_report

    terminal.show_cells(records)
    tables = study_read.tables()
    terminal.show_advice(answer("frontier", tables).advice)
    report = write_study_report(
        tables,
        records,
        out / "report.html",
        title=study.title or study.name,
        command=command,
    )
    if failures:
        show_failures(failures, asked)
        raise typer.Exit(1)
    return terminal.path_text(report)


def _calibrated(todo: Sequence[RunSpec], pool: Pool) -> list[Sample]:
    """What one epoch of each kind of run takes on the study's own workers; nothing is kept.

    Raises:
        RecordError: such a run failed, as all of its kind would.
    """
    from driftscope.cli import terminal
    from driftscope.executors.schedule import execute
    from driftscope.study import run_folder
    from driftscope.study.plan import representatives, sample

    with TemporaryDirectory(prefix="driftscope-") as folder:
        tasks = [(spec, run_folder(Path(folder), spec)) for spec in representatives(todo)]
        with terminal.err.status(f"calibrating by {len(tasks)} short runs"):
            updates = list(execute(tasks, pool))
        for update in updates:
            if update.failure is not None:
                raise RecordError(f"a run of the calibration failed: {update.failure}")
        return [sample(spec, place) for spec, place in tasks]
