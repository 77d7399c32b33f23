"""A comparison for publication: the section of a model card, and results as the hub keeps them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from driftscope.analysis.advice import advice_on_comparison
from driftscope.analysis.table import slug
from driftscope.analysis.words import doubt_sentences
from driftscope.analysis.zero_shot import is_number, recall_sentences, score_sentences, written
from driftscope.errors import ConfigError, plain
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
        f"Written by driftscope {_text(version)}. This command compares so, but for "
        "counts of images and prompts, where others were given:",
    ]
    return "\n".join([*lines, "", f"    {comparison_command(comparison)}", ""])


@dataclass(frozen=True)
class Benchmark:
    """Which benchmark of the hub a transfer set is.

    Attributes:
        transfer_set: its name in the comparison.
        dataset_id: of the hub, such as `cais/hle`; it must be registered as a benchmark there.
        task_id: as the dataset's `eval.yaml` names it.
    """

    transfer_set: str
    dataset_id: str
    task_id: str

    @classmethod
    def parse(cls, text: str) -> Benchmark:
        """From `SET=OWNER/DATASET:TASK`.

        Raises:
            ConfigError: it is not of that form.
        """
        found = re.fullmatch(r"(.+)=([\w.-]+/[\w.-]+):([\w.-]+)", text)
        if found is None:
            raise ConfigError(
                f"the benchmark {text!r} is not SET=OWNER/DATASET:TASK, such as "
                "pets=my-team/pets:default; TASK stands in the dataset's eval.yaml"
            )
        return cls(*found.groups())


def eval_results(
    comparison: Mapping[str, Any], benchmarks: Iterable[Benchmark], version: str
) -> dict[str, list[dict[str, Any]]]:
    """File -> what the hub keeps in it as YAML, in the folder `.eval_results` of a model.

    A leaderboard ranks by the benchmark's own metric. So the value is the accuracy after
    fine-tuning, in percent. Retention stands in the notes.

    Args:
        comparison: its JSON values.
        benchmarks: the transfer sets that are benchmarks of the hub.
        version: of driftscope.

    Raises:
        ConfigError: a set was not scored in this comparison, or not with success.
    """
    files = {}
    for one in benchmarks:
        score = comparison["transfer"].get(one.transfer_set)
        if score is None or not is_number(score.get("accuracy_pct")):
            known = ", ".join(comparison["transfer"]) or "none"
            raise ConfigError(
                f"the comparison has no accuracy on {one.transfer_set!r}; it was scored on: {known}"
            )
        told = [next(score_sentences(one.transfer_set, score))]
        for doubted in (comparison, score):
            told += doubt_sentences(doubted.get("doubts"))
        entry = {
            "dataset": {"id": one.dataset_id, "task_id": one.task_id},
            "value": round(float(score["accuracy_pct"]), 2),
            "notes": plain(f"{' '.join(told)} Measured by driftscope {version}."),
        }
        files[f"{EVAL_RESULTS}/{slug(f'driftscope {one.dataset_id} {one.task_id}')}.yaml"] = [entry]
    return files


EVAL_RESULTS = ".eval_results"
"""The folder of a model on the hub that holds its results, by the hub's documentation."""


def _findings(comparison: Mapping[str, Any]) -> Iterator[str]:
    yield from doubt_sentences(comparison.get("doubts"))
    for name, score in comparison["transfer"].items():
        yield f"Measured: {next(score_sentences(name, score))}"
        yield from doubt_sentences(score.get("doubts"))
    for name, score in (comparison.get("retrieval") or {}).items():
        yield f"Measured on {name}: {next(iter(recall_sentences(score)))}"
    if estimate := comparison.get("estimate"):
        yield str(estimate["sentence"])
        yield from doubt_sentences(estimate.get("doubts"))
    if forecast := comparison.get("forecast"):
        yield f"Forecast by a calibration: {forecast['sentence']}"
    if is_number(cka := comparison["scalars"].get("cka")):
        images = f"{comparison['num_images']} images of {comparison['images']}"
        yield f"CKA with the pretrained model is {written('cka', cka)}, on {images}."


def comparison_command(comparison: Mapping[str, Any]) -> str:
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
