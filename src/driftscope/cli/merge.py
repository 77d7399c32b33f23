"""`driftscope merge`: one model of several that were adapted from one base."""

from __future__ import annotations

from typing import Annotated

import typer

from driftscope.cli.compare import CLASSES, READ
from driftscope.cli.failures import plain_errors, say
from driftscope.cli.options import (
    AsJson,
    Device,
    OutFolder,
    opt,
    refuse_full_folder,
    refuse_unfit,
)


@plain_errors
def merge(
    models: Annotated[
        list[str], typer.Argument(help="Two or more adapted models: folders, adapters, runs.")
    ],
    base: Annotated[str, opt("The model that all were adapted from.")],
    out: OutFolder,
    by: Annotated[
        str,
        opt(
            "How: uniform or greedy (soups), stock (Model Stock), arithmetic (task vectors), ties."
        ),
    ] = "uniform",
    scale: Annotated[
        float | None, opt("The factor on the joint change: arithmetic (0.3) and ties (1).")
    ] = None,
    kept: Annotated[float, opt("The share of each change's entries that ties keeps.")] = 0.2,
    pool: Annotated[
        str | None, opt("Unlabeled images; retention is estimated from them.", panel=READ)
    ] = None,
    classes: Annotated[str | None, opt(CLASSES, panel=READ)] = None,
    images: Annotated[
        str | None,
        opt("A labeled dataset of the target; accuracy is measured on it.", panel=READ),
    ] = None,
    max_images: Annotated[
        int, opt("Twice as many images of either split are read at most.", panel=READ)
    ] = 200,
    pool_images: Annotated[
        int, opt("How many images of the pool are read at most.", panel=READ)
    ] = 400,
    as_json: AsJson = False,
    device: Device = None,
) -> None:
    """Merge models that were adapted from one base, and judge what comes out."""
    import json

    from driftscope.analysis.words import doubt_sentences
    from driftscope.cli import terminal

    refuse_full_folder(out)
    with terminal.err.status("merging"):
        refuse_unfit((base, *models), (images,), pool=pool, classes=classes)
        from driftscope.rescuing import merge as merge_models

        found = merge_models(
            models,
            base,
            by=by,  # type: ignore[arg-type]
            scale=scale,
            kept=kept,
            pool=pool,
            classes=classes,
            images=images,
            max_images=max_images,
            pool_images=pool_images,
            device=device,
        )
        found.save(out)
    told = found.to_dict()
    if as_json:
        typer.echo(json.dumps(told, indent=1))
        return
    say(f"Merged of {len(told['ingredients'])}: {', '.join(told['ingredients'])}")
    *given, merged = told["judged"]
    for one in (merged, *given):
        said = [one["name"]]
        if one["estimate"]:
            said += [one["estimate"]["sentence"], *doubt_sentences(one["estimate"]["doubts"])]
        if one["accuracy"]:
            refitted = one["accuracy"]["refitted"]
            said.append(
                f"Accuracy {refitted['accuracy_pct']:.1f} % with a new linear classifier, not one "
                f"that you trained ({refitted['num_images']} images)."
            )
        say(": ".join([said[0], " ".join(said[1:])]) if len(said) > 1 else said[0])
    say(f"Model: {terminal.path_text(out)}")
    if (page := out / "report.html").exists():
        say(f"Page: {terminal.path_text(page)}")
