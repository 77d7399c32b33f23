"""`driftscope demo` and `driftscope run`: a small study, and a single run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from driftscope.cli.failures import resumable, say
from driftscope.cli.options import AsJson, Device, OutFolder, Workers, refuse_missing, refuse_unfit
from driftscope.cli.study import RunPlace, carry_out_study

if TYPE_CHECKING:
    from driftscope.analysis.advice import Advice
    from driftscope.config import RunSpec
    from driftscope.records.schema import SharedImages


@resumable
def demo(
    out: OutFolder = Path("driftscope-demo"),
    fast: Annotated[
        bool, typer.Option("--fast", help="One seed and two rates: takes a minute.")
    ] = False,
    workers: Workers = None,
) -> None:
    """Run a small study on the embedded model: full fine-tuning against LoRA, with a report."""
    from driftscope.study import DEMO, FAST_DEMO

    study = FAST_DEMO if fast else DEMO
    command = "driftscope demo --fast" if fast else "driftscope demo"
    report = carry_out_study(study, out, command, RunPlace(workers), retry_failed=True)
    say(f"\nReport: {report}")
    say(
        "Next: open it in a browser, then compare your own model: driftscope compare PRETRAINED "
        "ADAPTED --images FOLDER --transfer DATASET (without labels: --pool IMAGES --classes NAMES)"
    )


@resumable
def run(
    spec: Annotated[Path, typer.Argument(help="The run's YAML file.")],
    out: OutFolder,
    as_json: AsJson = False,
    device: Device = None,
) -> None:
    """Train one run: adapt, probe, evaluate, record. Its page is report.html in --out."""
    from driftscope.analysis.advice import advice_on_run
    from driftscope.cli import terminal
    from driftscope.config import load_run_spec
    from driftscope.records import (
        budget_sentence,
        epochs_sentence,
        intervention_sentences,
        is_done,
        refuse_foreign_folder,
        rescue_sentences,
        training_images_sentence,
    )

    parsed = load_run_spec(spec)
    refuse_missing((parsed.model,), (parsed.dataset, parsed.pool, *parsed.transfer))
    refuse_foreign_folder(out, parsed)
    if is_done(out):
        terminal.err.print("This run is done already; here is its record.")
    else:
        sets, classes = (parsed.dataset, *parsed.transfer), parsed.classes
        named = "NAMES" if isinstance(classes, tuple) else classes
        refuse_unfit((parsed.model,), (), sets, parsed.pool, named)
    with _progress(parsed) as on_step:
        from driftscope.run import run_one

        record = run_one(parsed, out, device=device, on_step=on_step)
    from driftscope.report.lone_run import write_run_page

    advice, page = advice_on_run(record, terminal.path_text(out)), write_run_page(record, out)
    if as_json:
        _print_json(out, advice, training_images_sentence(record))
        return
    terminal.show_cells([record])
    for tell in (epochs_sentence, training_images_sentence, budget_sentence):
        if sentence := tell(record):
            say(f"\n{sentence}")
    for told in (intervention_sentences(record), rescue_sentences(record)):
        if told:
            say("\n" + "\n".join(told))
    show_shared_images(record.result.duplicates)
    for note in record.result.splits.notes if record.result.splits else ():
        terminal.err.print(f"{parsed.dataset}: {note}")
    say(f"\nRecord: {terminal.path_text(out)}")
    terminal.show_advice([advice])
    say(f"\nReport: {terminal.path_text(page)}")


def _print_json(out: Path, advice: Advice, trained_on: str) -> None:
    """The run's result, on how many images it trained, the verdict and what to do, as JSON."""
    import json

    from driftscope.records import RESULT_FILE

    result = json.loads((out / RESULT_FILE).read_text(encoding="utf-8"))
    told = {"result": result, "trained_on": trained_on or None, "advice": advice.to_dict()}
    typer.echo(json.dumps(told, indent=1))


@contextmanager
def _progress(spec: RunSpec) -> Iterator[Callable[[int, int], None]]:
    """Shows how far a run is; what a process before this one did takes no time."""
    from driftscope.cli.progress import LogLines, progress_bars

    with progress_bars() as bars:
        name = f"{spec.method.label} at {spec.learning_rate:g}"
        task = bars.add_task(name, total=None, count="preparing")
        early: dict[str, int] = {}
        log = LogLines({name: spec.epochs})
        log.say(f"started {name}")

        def on_step(done: int, total: int) -> None:
            before = early.setdefault("before", done - 1)
            log.step(name, name, done, total)
            count = f"{done}/{total} steps"
            bars.update(task, completed=done, total=total, count=count, before=before)

        yield on_step


def show_shared_images(duplicates: Mapping[str, SharedImages]) -> None:
    """Says how many equal images are on two sides of a split: a leak that a score would hide."""
    from driftscope.cli import terminal

    across = [
        f"{found.num_pairs} in {' and '.join(sides.split('/'))}"
        for sides, found in duplicates.items()
        if "/" in sides
    ]
    if across:
        terminal.err.print(f"Equal images on two sides: {', '.join(across)} (see result.json)")
