"""`driftscope compare`: two models on the same images."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from driftscope.cli.failures import plain_errors, say
from driftscope.cli.options import (
    After,
    AsJson,
    Before,
    Device,
    OutFolder,
    opt,
    refuse_missing,
    refuse_study_or_run,
    refuse_unfit,
)

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table as RichTable
    from rich.text import Text

READ = "What is read"
_TRANSFER = "A labeled dataset to score on, or a suite (vtab, clip-benchmark). May be repeated."
_TRANSFER_BY = "Score by zero_shot, knn or linear_probe (no text needed). May be repeated."
_RETRIEVAL = "A captioned dataset to retrieve in. May be repeated."
_CLASS_WORDS = "A file of the classes' names: lines 'CLASS: words', or one name per line."
_TEMPLATES = (
    "A prompt such as 'a photo of a {}', a set of them (imagenet80) or a file. May be repeated."
)
_CALIBRATION = "A file of `driftscope study calibrate`, which forecasts retention from drift."
_POOL = (
    "Unlabeled images of what the model should still tell apart: retention is estimated on them."
)
CLASSES = (
    "The classes that images of the pool may show: a file of names, 'general' or a labeled dataset."
)
_TRANSFER_IMAGES = (
    "How many images of each dataset are scored at most, evenly over classes; 0 for all."
)
FEW_CLASSES_CHANCE_PCT = 5.0
"""Where guessing scores so much, retention is shown above chance too."""


@plain_errors
def compare(
    pretrained: Before,
    adapted: After,
    images: Annotated[str, opt("A folder of images, or a dataset's name.", panel=READ)],
    transfer: Annotated[list[str] | None, opt(_TRANSFER, panel=READ)] = None,
    transfer_by: Annotated[list[str] | None, opt(_TRANSFER_BY, panel=READ)] = None,
    retrieval: Annotated[list[str] | None, opt(_RETRIEVAL, panel=READ)] = None,
    class_words: Annotated[Path | None, opt(_CLASS_WORDS, panel=READ)] = None,
    templates: Annotated[list[str] | None, opt(_TEMPLATES, panel=READ)] = None,
    pool: Annotated[str | None, opt(_POOL, panel=READ)] = None,
    classes: Annotated[str | None, opt(CLASSES, panel=READ)] = None,
    calibration: Annotated[Path | None, opt(_CALIBRATION, panel=READ)] = None,
    max_images: Annotated[int, opt("How many images are read at most.", panel=READ, min=4)] = 200,
    transfer_images: Annotated[int, opt(_TRANSFER_IMAGES, panel=READ, min=0)] = 1000,
    pool_images: Annotated[
        int, opt("How many images of the pool are read at most; 0 for all.", panel=READ, min=0)
    ] = 1000,
    maps: Annotated[
        bool, opt("Add rollout and patch-to-patch entropy (slower).", "--maps", panel=READ)
    ] = False,
    intruders: Annotated[
        bool,
        opt(
            "Count intruder dimensions: new directions in the weights (slow on a ViT-B).",
            "--intruders",
            panel=READ,
        ),
    ] = False,
    skip_bad_images: Annotated[
        bool, opt("Leave out unreadable images, and count them.", "--skip-bad-images", panel=READ)
    ] = False,
    out: OutFolder = Path("driftscope-compare"),
    as_json: AsJson = False,
    device: Device = None,
) -> None:
    """Compare two models on the same images: how far has the second drifted, what is left?"""
    from driftscope.cli import terminal

    refuse_study_or_run(out, "comparison")
    with terminal.err.status("reading both models"), warnings.catch_warnings():
        refuse_missing((), retrieval or ())
        refuse_unfit((pretrained, adapted), (images,), transfer or (), pool, classes)
        from driftscope.comparison import compare as compare_models
        from driftscope.errors import NoteWarning
        from driftscope.transfer.doubts import DoubtWarning

        for shown_beside_the_numbers in (DoubtWarning, NoteWarning):
            warnings.simplefilter("ignore", shown_beside_the_numbers)
        comparison = compare_models(
            pretrained,
            adapted,
            images,
            transfer=transfer or (),
            transfer_by=transfer_by or (),
            retrieval=retrieval or (),
            class_words=class_words,
            templates=templates,
            pool=pool,
            classes=classes,
            calibration=calibration,
            max_images=max_images,
            transfer_images=transfer_images or None,
            pool_images=pool_images or None,
            maps=maps,
            intruders=intruders,
            skip_bad_images=skip_bad_images,
            device=device,
        )
    for problem in comparison.skipped_images:
        terminal.err.print(f"skipped: {problem}")
    report = comparison.report(out)
    if as_json:
        typer.echo(report.with_suffix(".json").read_text(encoding="utf-8"))
        return
    show_comparison(comparison.to_dict(out))
    say(f"\nReport: {terminal.path_text(report)}")


def show_comparison(comparison: Mapping[str, Any]) -> None:
    """The verdict and what to do, then what is left, what changed, and how sure that is."""
    from rich.text import Text

    from driftscope.analysis.advice import advice_on_comparison, damage_sentence
    from driftscope.analysis.zero_shot import learned_sentence, unmeasured_sentences
    from driftscope.cli import terminal
    from driftscope.report.tables import comparison_layers, comparison_table

    advice = advice_on_comparison(comparison)
    terminal.out.print(Text(advice.verdict, style="bold"))
    terminal.show_steps(advice)
    if said := learned_sentence(str(comparison["images"]), comparison.get("own_classes")):
        terminal.out.print(Text(f"\n{said}"))
    terminal.out.print(Text("\nWhat is left", style="bold"))
    if (scores := _scores(comparison)).row_count:
        terminal.out.print(scores)
    _show_estimate(comparison)
    _show_forgotten(comparison["transfer"])
    terminal.out.print(Text("\nWhat changed", style="bold"))
    for part in _changes(comparison):
        terminal.out.print(part)
    terminal.out.print()
    terminal.show_table(comparison_table(comparison_layers(comparison)))
    if said := damage_sentence(comparison):
        terminal.out.print(Text(said))
    terminal.out.print(_fewer_images(comparison["stability"]))
    for sentence in unmeasured_sentences(comparison["unmeasured"]):
        terminal.out.print(Text(f"not measured: {sentence}", style="dim"))


def _rows() -> RichTable:
    from rich.table import Table

    return Table(box=None, show_header=False, pad_edge=False)


def _scores(comparison: Mapping[str, Any]) -> RichTable:
    """A row for every labeled, captioned set and suite, with its remarks below."""
    from rich.text import Text

    from driftscope.analysis.zero_shot import recall_sentences, suite_sentence
    from driftscope.protocols import scored_on

    rows = _rows()
    for name, score in comparison["transfer"].items():
        rows.add_row(scored_on(name), _score_text(score))
        if calibration := _calibration_text(score):
            rows.add_row("", calibration)
        for remark in _remarks(score):
            rows.add_row("", remark)
        if words := score["unknown_words"]:
            few = ", ".join(words[:3])
            rows.add_row("", f"{len(words)} words unknown to the tokenizer, such as {few}")
    for name, summary in (comparison.get("suites") or {}).items():
        rows.add_row("suite", suite_sentence(name, summary))
    for name, score in (comparison.get("retrieval") or {}).items():
        for heading, sentence in zip_longest([f"retrieval on {name}"], recall_sentences(score)):
            rows.add_row(heading or "", sentence)
        for remark in _remarks(score):
            rows.add_row("", remark)
    if not rows.row_count and not comparison.get("estimate"):
        rows.add_row(Text("neither measured nor estimated", style="dim"))
    return rows


def _remarks(score: Mapping[str, Any]) -> Iterator[Text]:
    from rich.text import Text

    for doubt in score["doubts"]:
        yield Text(f"doubtful: {doubt}", style="yellow")
    for note in score["notes"]:
        yield Text(note)


def _changes(comparison: Mapping[str, Any]) -> Iterator[RenderableType]:
    """The images that were read, and a row for every signal of the whole encoder, by group."""
    from rich.text import Text

    from driftscope.analysis.words import counted
    from driftscope.cli import terminal
    from driftscope.metrics import METRICS, drift_groups

    is_wide = terminal.out.width >= terminal.WIDE
    yield f"Read on {counted(comparison['num_images'], 'image')} of {comparison['images']}" + (
        f", {len(skipped)} skipped." if (skipped := comparison["skipped_images"]) else "."
    )
    for note in comparison.get("notes", ()):
        yield Text(note, style="yellow")
    for title, metrics in drift_groups(comparison["scalars"]).items():
        yield Text(title, style="underline")
        rows = _rows()
        for metric in metrics:
            told = Text(metric.definition, style="dim") if is_wide else ""
            number = metric.with_unit(comparison["scalars"][metric.key])
            rows.add_row(f"  {metric.label}", number, told)
        yield rows
    stability, spread = comparison["stability"], METRICS["entropy_subset_cv"]
    if stability[spread.key] is not None:
        value = spread.text(stability[spread.key])
        yield f"  {spread.label} {value}, over {stability['num_subsets']} subsets of the images"
    if not is_wide:
        yield Text("`driftscope metrics` says what each of these is.", style="dim")


def _fewer_images(stability: Mapping[str, Any]) -> RichTable:
    """What the main signals would have been on fewer images."""
    from rich.table import Table

    from driftscope.metrics import METRICS

    fewer = Table(title="With fewer images", title_justify="left", header_style="bold")
    shown = [METRICS[key] for key in stability["probe_sizes"][0]]
    for metric in shown:
        fewer.add_column(metric.heading, justify="right")
    for row in stability["probe_sizes"]:
        fewer.add_row(*(metric.text(row[metric.key]) for metric in shown))
    return fewer


def _show_forgotten(transfer: Mapping[str, Mapping[str, Any]]) -> None:
    from driftscope.analysis.zero_shot import forgotten_sentences
    from driftscope.cli import terminal

    for said in forgotten_sentences(transfer):
        terminal.out.print(said)


def _calibration_text(score: Mapping[str, Any]) -> str:
    from driftscope.analysis.zero_shot import is_number, written

    if not is_number(score["ece_change_points"]):
        return ""
    before, after = (written("ece_pct", score[key]) for key in ("pretrained_ece_pct", "ece_pct"))
    change = written("ece_change_points", score["ece_change_points"])
    return f"calibration error {before} → {after} ({change})"


def _show_estimate(comparison: Mapping[str, Any]) -> None:
    """What is told of retention without labels: the estimate, its doubts, the forecast."""
    from driftscope.cli import terminal

    for one in filter(None, map(comparison.get, ("estimate", "forecast"))):
        style = "none" if one["retention_pct"] is not None else "yellow"
        terminal.out.print(one["sentence"], style=style, markup=False)
        for doubt in one.get("doubts", ()):
            terminal.out.print(f"doubtful: {doubt}", style="yellow", markup=False)


def _score_text(score: Mapping[str, Any]) -> str:
    from driftscope.analysis.zero_shot import NO_RETENTION
    from driftscope.metrics import METRICS

    accuracy = METRICS["accuracy_pct"]
    before, after = (
        f"{accuracy.with_unit(side['accuracy_pct'])} "
        f"[{accuracy.text(side['wilson_low_pct'])}–{accuracy.text(side['wilson_high_pct'])}]"
        for side in (score["pretrained"], score["adapted"])
    )
    if score["retention_pct"] is None:
        kept = NO_RETENTION
    else:
        kept = f"retention {METRICS['retention_pct'].with_unit(score['retention_pct'])}"
        if score["chance_pct"] >= FEW_CLASSES_CHANCE_PCT:
            kept += f", {accuracy.with_unit(score['above_chance_pct'])} above chance"
    kept += f" (chance {accuracy.with_unit(score['chance_pct'])})"
    tower = "" if score["adapted_text_tower"] == "the pretrained one" else ", own text tower"
    return f"{before} → {after}, n = {score['adapted']['num_images']}: {kept}{tower}"
