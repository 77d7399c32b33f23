"""The page of a merge: its frontier, with the base, every model that was given, and the result."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from driftscope.analysis.table import Column, Table
from driftscope.analysis.words import doubt_sentences, join_words
from driftscope.metrics import ESTIMATED, METRICS
from driftscope.report.frontier import frontier, kept_of, reference, retention_of
from driftscope.report.page import legend, write_page
from driftscope.report.style import method_styles

_MERGED = "merged"


def write_merge_page(told: Mapping[str, Any], out: Path) -> Path | None:
    """Writes the page and returns its path; None where retention or accuracy was not judged.

    Args:
        told: what `merge.json` holds (`driftscope.rescuing`).
        out: the file, or a folder in which `report.html` is written.
    """
    base, *given, merged = told["judged"]
    if merged["estimate"] is None or merged["accuracy"] is None:
        return None
    used = told["ingredients"]
    models = [{**base, "way": "base"}]
    models += [{**one, "way": "ingredient" if one["name"] in used else "left out"} for one in given]
    chosen = {**merged, "way": _MERGED}
    ways = dict.fromkeys(one["way"] for one in models)
    return write_page(
        "merge.html",
        out,
        title=f"{len(used)} of {len(given)} models merged: {told['recipe']}",
        sentences=[
            f"The merged model: {_continued(merged['estimate']['sentence'])}",
            *doubt_sentences(merged["estimate"].get("doubts")),
        ],
        steps=_steps(base, given, merged),
        frontier=frontier(models, chosen, base, kind="dots", called=_MERGED),
        legend=legend(method_styles([*ways, _MERGED]), "ways", "dots"),
        reference=reference(chosen),
        table=_table([*models, chosen]),
        facts={
            "base": told["base"],
            "merged of": ", ".join(used),
            "pool": f"{merged['estimate']['pool']}, of which every other image judged "
            f"({merged['estimate']['num_images']})",
            "classes of the pool": merged["estimate"]["classes"],
            "images of each accuracy": merged["accuracy"]["refitted"]["num_images"],
        },
        version=version("driftscope"),
    )


def _continued(sentence: str) -> str:
    """The sentence as it goes on after a colon."""
    return sentence[:1].lower() + sentence[1:]


def _steps(
    base: Mapping[str, Any], given: Sequence[Mapping[str, Any]], merged: Mapping[str, Any]
) -> list[str]:
    """What to do with a merge, beside the base and the models that were given."""
    name = shlex.quote(base["name"])
    better = [one["name"] for one in given if _is_no_worse(one, merged)]
    told = []
    if _is_no_worse(base, merged):
        told.append(
            f"You may need no fine-tuning: a linear probe on the untouched {base['name']}, fitted "
            "to the same labeled images as the merged model's classifier, is as accurate on these "
            "images, and the untouched model keeps everything. A run by `linear_probe` trains one, "
            "at a learning rate such as 1e-1."
        )
    if better:
        told.append(
            f"You may need no merge: {join_words(better)} {'is' if len(better) == 1 else 'are'} "
            "estimated to keep as much as the merged model, or more, at no lower accuracy on these "
            "images. Look whether the intervals overlap before you prefer either."
        )
    return [
        *told,
        f"Check it: `driftscope compare {name} MERGED --images IMAGES --transfer DATASET` measures "
        "retention on labels that the merge has not seen. MERGED is this page's folder.",
        f"If it keeps too little: `driftscope rescue {name} MERGED --images IMAGES --pool IMAGES "
        "--out rescued` takes back what does damage, without training.",
    ]


def _is_no_worse(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether a model keeps as much as another, or more, at no lower accuracy."""
    if one["estimate"] is None or one["accuracy"] is None:
        return False
    numbers = [(retention_of(model), kept_of(model, "refitted")) for model in (one, other)]
    return all(a is not None and b is not None and a >= b for a, b in zip(*numbers, strict=True))


def _table(models: list[dict[str, Any]]) -> Table:
    rows = [
        {
            "name": one["name"],
            "way": one["way"],
            "retention": retention_of(one),
            "low": one["estimate"]["low_90_pct"],
            "high": one["estimate"]["high_90_pct"],
            "refitted": kept_of(one, "refitted"),
        }
        for one in models
    ]
    columns = (
        Column("name", "Model", kind="text"),
        Column("way", "Part", kind="text"),
        Column("retention", METRICS[ESTIMATED].heading),
        Column("low", "90 %, low"),
        Column("high", "90 %, high"),
        Column("refitted", "Accuracy, fitted anew, %"),
    )
    return Table("frontier", "Every model that was judged", "", columns, pd.DataFrame(rows))
