"""`driftscope rescue`: the strongest model between two that keeps a retention budget."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from driftscope.cli.compare import CLASSES, READ
from driftscope.cli.failures import plain_errors, say
from driftscope.cli.options import (
    After,
    AsJson,
    Before,
    Device,
    OutFolder,
    opt,
    refuse_full_folder,
    refuse_unfit,
)

if TYPE_CHECKING:
    from driftscope.rescuing import Rescue


@plain_errors
def rescue(
    pretrained: Before,
    adapted: After,
    images: Annotated[
        str, opt("Images of your task. A labeled dataset gives accuracies, too.", panel=READ)
    ],
    pool: Annotated[
        str, opt("Unlabeled images of what the model should still tell apart.", panel=READ)
    ],
    out: OutFolder,
    classes: Annotated[str | None, opt(CLASSES, panel=READ)] = None,
    keep: Annotated[
        float, opt("The retention to keep, in percent, by the lower end of its 90 % interval.")
    ] = 95,
    by: Annotated[
        list[str] | None,
        opt(
            "How to blend: search (a strength for every row of weights), lines (strengths that "
            "rise with depth), wise (one strength), layers (groups whole). May be repeated. By "
            "default the first three."
        ),
    ] = None,
    transfer: Annotated[
        list[str] | None,
        opt("A labeled dataset to measure the result's retention on. May be repeated.", panel=READ),
    ] = None,
    max_images: Annotated[
        int,
        opt(
            "How many images of the task are read at most; with labels, up to twice this number "
            "from each split; without them, but with a classifier beside the adapted model, up to "
            "four times.",
            panel=READ,
            min=4,
        ),
    ] = 200,
    pool_images: Annotated[
        int | None,
        opt(
            "How many images of the pool are read at most; 0 for all. By default as many as the "
            "budget needs: 400 up to 95 %, 1,000 at 98 %, 2,000 at 99 %.",
            panel=READ,
            min=0,
        ),
    ] = None,
    as_json: AsJson = False,
    device: Device = None,
) -> None:
    """Undo damage: blend an adapted model with its pretrained one until enough ability is left.

    It writes the blended model as the adapted one was kept, a classifier where the images have
    labels, the page report.html, and rescue.json with all strengths that were tried.
    """
    from driftscope.cli import terminal

    refuse_full_folder(out)
    with terminal.err.status("blending both models"):
        refuse_unfit((pretrained, adapted), (images,), transfer or (), pool, classes)
        from driftscope.rescuing import RESCUE_FILE, USUAL
        from driftscope.rescuing import rescue as rescue_model

        found = rescue_model(
            pretrained,
            adapted,
            images,
            pool,
            classes,
            keep_pct=keep,
            by=by or USUAL,  # type: ignore[arg-type]
            transfer=transfer or (),
            max_images=max_images,
            pool_images="auto" if pool_images is None else pool_images or None,
            device=device,
        )
        written = found.save(out)
    if as_json:
        typer.echo((out / RESCUE_FILE).read_text(encoding="utf-8"))
        return
    first, *others = found.sentences()
    terminal.out.print(first, markup=False, style="bold")
    for sentence in others:
        terminal.out.print(f"- {sentence}", markup=False)
    for note in found.notes:
        terminal.out.print(f"Not measured: {note}.", markup=False)
    _show_frontier(found)
    say(f"Model: {terminal.path_text(out)} ({written})")
    say(f"Page: {terminal.path_text(out / 'report.html')}")
    for step in found.steps(out):
        say(f"- {step}")


_ACCURACIES = {
    "choosing_accuracy_pct": "Accuracy\nthat chose",
    "accuracy_pct": "Accuracy,\nnew\nclassifier",
    "kept_head_accuracy_pct": "Accuracy,\ntrained\nclassifier",
}
"""Columns of the frontier that only labels give."""


def _show_frontier(found: Rescue) -> None:
    """A row a point, the chosen one marked."""
    from driftscope.cli import terminal

    points = found.frontier()
    known = [key for key in _ACCURACIES if any(one[key] is not None for one in points)]
    table = terminal.close_table("Between both models, in percent", _explained(found, known))
    table.add_column("Way")
    for heading in ("Scale", "Retention,\nestimated", "90 %\nlow", "Likeness"):
        table.add_column(heading, justify="right")
    for key in known:
        heading = _ACCURACIES[key]
        if found.is_agreement:
            heading = heading.replace("Accuracy", "Agreeing")  # as wide, so that it is not cut
        table.add_column(heading, justify="right")
    for one in sorted(points, key=lambda point: (point["way"], point["scale"])):
        is_chosen = (one["way"], one["scale"]) == (found.chosen.way, found.chosen.scale)
        table.add_row(
            f"{'→' if is_chosen else ' '} {one['way']}",
            f"{one['scale']:.2f}",
            *(_percent(one[key]) for key in ("estimated_retention_pct", "low_90_pct")),
            f"{one['likeness']:.3f}",
            *(_percent(one[key]) for key in known),
            style="bold" if is_chosen else "",
        )
    terminal.out.print(table)


def _explained(found: Rescue, known: Sequence[str]) -> str:
    """What the columns are, and which row is chosen."""
    what = "agreement" if found.is_agreement else "accuracy"
    last = found.final.num_fitted if found.final else found.num_fitted
    above = "" if last == found.num_fitted else f"; the sentences above use {last:,}"
    accuracies = (
        f"New classifiers are fitted to {found.num_fitted:,} images here{above}. One half of the "
        f"test images chose: the highest {what} that keeps the budget. What stands after it is "
        "on the other half. "
    )
    trained = "The trained classifier is the one beside the adapted model. "
    likest = "The blend that is likest to the adapted model and keeps the budget is chosen. "
    return (
        "Retention is estimated; likeness is the mean cosine to the adapted model's embeddings. "
        f"{accuracies if known else likest}"
        f"{trained if 'kept_head_accuracy_pct' in known else ''}"
        "Scale 0 is the pretrained model, 1 the end of the way (by wise: the adapted one). "
        f"A blend keeps {found.keep_pct:g} % where the lower end of its 90 % interval does."
    )


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"
