"""The section of a model card that says what fine-tuning has kept: a comparison as Markdown."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from driftscope.analysis.advice import advice_on_comparison
from driftscope.analysis.zero_shot import is_number, recall_sentences, score_sentences, written
from driftscope.errors import plain
from driftscope.protocols import BY_OPTION, protocol_of

_MARKS = re.compile(r"([\\`*_{}\[\]<>#|~&!$])")
"""What Markdown, or the HTML in it, gives a meaning."""


def model_card(comparison: Mapping[str, Any], version: str) -> str:
    """The section: verdict, retention and what it was found on, CKA, doubts, and the command.

    Args:
        comparison: the JSON values of a comparison.
        version: of driftscope.
    """
    verdict = advice_on_comparison(comparison).verdict
    lines = ["## What fine-tuning has kept", "", f"**{_text(verdict)}**", ""]
    lines += [f"- {_text(sentence)}" for sentence in _findings(comparison)]
    lines += [
        "",
        "Retention is 100 × accuracy after / accuracy before on the same images, in percent. "
        f"Written by driftscope {_text(version)}. This command compares so, with default counts "
        "of images and default prompts:",
    ]
    return "\n".join([*lines, "", f"    {_command(comparison)}", ""])


def _findings(comparison: Mapping[str, Any]) -> Iterator[str]:
    for name, score in comparison["transfer"].items():
        yield f"Measured: {next(score_sentences(name, score))}"
        yield from (f"Doubtful: {doubt}." for doubt in score.get("doubts") or ())
    for name, score in (comparison.get("retrieval") or {}).items():
        yield f"Measured on {name}: {next(iter(recall_sentences(score)))}"
    if estimate := comparison.get("estimate"):
        yield f"Estimated on {estimate.get('pool')}: {estimate['sentence']}"
        yield from (f"Doubtful: {doubt}." for doubt in estimate.get("doubts") or ())
    if forecast := comparison.get("forecast"):
        yield f"Forecast by a calibration: {forecast['sentence']}"
    if is_number(cka := comparison["scalars"].get("cka")):
        images = f"{comparison['num_images']} images of {comparison['images']}"
        yield f"CKA with the pretrained model is {written('cka', cka)}, on {images}."


def _command(comparison: Mapping[str, Any]) -> str:
    """What makes the comparison, but for options that a report does not hold."""
    words = ["driftscope", "compare", comparison["pretrained"], comparison["adapted"]]
    words += ["--images", comparison["images"]]
    protocols = {protocol_of(name): name for name in comparison["transfer"]}
    sets = [name.removesuffix(f" ({protocol_of(name)})") for name in comparison["transfer"]]
    words += [word for name in dict.fromkeys(sets) for word in ("--transfer", name)]
    options = [option for option, protocol in BY_OPTION.items() if protocol in protocols]
    if options != ["zero_shot"]:
        words += [word for option in options for word in ("--transfer-by", option)]
    words += [word for name in comparison.get("retrieval") or () for word in ("--retrieval", name)]
    for key in ("pool", "classes"):
        words += [f"--{key}", comparison[key]] if comparison.get(key) else []
    return " ".join(plain(shlex.join(words)).split("\n"))


def _text(sentence: str) -> str:
    """A sentence with no character that Markdown or HTML would take for a mark."""
    return _MARKS.sub(r"\\\1", " ".join(plain(sentence).split()))
