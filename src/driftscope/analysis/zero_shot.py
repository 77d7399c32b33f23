"""What is said of a zero-shot score wherever one is shown, and why numbers are missing.

Sentences are plain text: a page escapes them, a terminal prints them as they are.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from numbers import Real
from typing import Any

from driftscope.analysis.words import capitalised, counted, join_words
from driftscope.metric import number_text
from driftscope.metrics import METRICS
from driftscope.protocols import protocol_of, scored_on
from driftscope.records import retention_interval_pct

_BEFORE = ("pretrained_accuracy_pct", "pretrained_low_pct", "pretrained_high_pct")
_AFTER = ("accuracy_pct", "wilson_low_pct", "wilson_high_pct")
NAMED_CLASSES = 3
"""How many forgotten classes a sentence names; tables have all."""
NO_RETENTION = "no retention, for the pretrained score is no better than chance"


def written(key: str, value: Any) -> str:
    """A metric's number as everywhere, with its unit."""
    return METRICS[key].with_unit(value)


def score_sentences(name: str, score: Mapping[str, Any]) -> Iterator[str]:
    """An adapted score against the pretrained one: what is left, what guessing gives, calibration.

    Args:
        name: of the transfer set.
        score: its record: what `TransferSet.change` gives, or as much of it as is known.
    """
    before, after = (
        written(accuracy, score.get(accuracy))
        + interval_phrase(score.get("num_images"), score.get(low), score.get(high))
        for accuracy, low, high in (_BEFORE, _AFTER)
    )
    kept = NO_RETENTION
    if is_number(score.get("retention_pct")):
        kept = f"retention {written('retention_pct', score['retention_pct'])}"
        kept += _retention_interval(score)
    what = capitalised(scored_on(name, "accuracy"))
    yield f"{what}: {before} before, {after} after; {kept}."
    yield from _chance(score)
    yield from _calibration(score)


def learned_sentence(images: str, told: Mapping[str, Any] | None) -> str:
    """How well images are told by their own classes, before and after; "" where it is not known.

    Args:
        images: what the user named.
        told: as `transfer.own_classes` gives it.
    """
    if not told:
        return ""
    before, after = (
        written("accuracy_pct", side["accuracy_pct"])
        + f" ({number_text(side['wilson_low_pct'], 1)}–{number_text(side['wilson_high_pct'], 1)} %)"
        for side in (told["pretrained"], told["adapted"])
    )
    worse = told["adapted"]["wilson_high_pct"] < told["pretrained"]["wilson_low_pct"]
    swapped = (
        " The second model tells them worse than the first: is the order right? The pretrained "
        "model comes first."
    )
    return (
        f"Learned: by its nearest neighbours {before} of {told['num_images']} images of {images} "
        f"get the right one of {told['num_classes']} classes before and {after} after. No "
        f"classifier was read. Images of the training may be among them.{swapped if worse else ''}"
    )


def forgotten_sentence(name: str, score: Mapping[str, Any]) -> str:
    """The classes that lost most, and what their images are now taken for; "" where none lost."""
    lost = [
        row
        for row in score.get("per_class") or ()
        if is_number(row.get("retention_pct")) and row["adapted_pct"] < row["pretrained_pct"]
    ]
    if not lost:
        return ""
    lost.sort(key=lambda row: row["num_images"] * (row["adapted_pct"] - row["pretrained_pct"]))
    flows = (score.get("flows") or {}).get("lost_to") or ()
    told = []
    for row in lost[:NAMED_CLASSES]:
        taken = [one["taken_for"] for one in flows if one["class"] == row["class"]]
        now = f", now taken for {taken[0]}" if taken else ""
        before, after = (written(key, row[key]) for key in ("pretrained_pct", "adapted_pct"))
        images = counted(row["num_images"], "image")
        told.append(f"{row['class']} ({before} → {after} of {images}{now})")
    return f"Most forgotten on {name} (classes that lost: {len(lost)}): {'; '.join(told)}."


def forgotten_sentences(transfer: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The same of every transfer set on which a class lost."""
    return [told for name, score in transfer.items() if (told := forgotten_sentence(name, score))]


def suite_sentence(name: str, summary: Mapping[str, Any]) -> str:
    """Means over the sets of a suite, with intervals over sets, and what of it is missing."""

    def told(key: str) -> str:
        value = summary[key]
        mean = written("retention_pct" if key == "retention_pct" else "accuracy_pct", value["mean"])
        if not is_number(value["low"]):
            return mean
        return f"{mean} [{number_text(value['low'], 1)}–{number_text(value['high'], 1)}]"

    missing, protocol = summary["missing"], protocol_of(name)
    return (
        f"{name.removesuffix(f' ({protocol})')}, mean over {len(summary['sets'])} sets: "
        f"{protocol} accuracy "
        f"{told('pretrained_accuracy_pct')} → {told('accuracy_pct')}, retention "
        f"{told('retention_pct')} (of {summary['retention_pct']['num_sets']} sets that have one); "
        "the intervals are over sets" + (f"; missing: {', '.join(missing)}" if missing else "")
    )


def recall_sentences(score: Mapping[str, Any]) -> Iterator[str]:
    """Recall both ways against the pretrained recall: what is left, what a random order gives."""
    for way in ("image_to_text", "text_to_image"):
        before, after = score["pretrained"][way], score[way]
        left = (score.get("retention_pct") or {}).get(way)
        kept = (
            f"retention {written('retention_pct', left)}"
            if is_number(left)
            else "no retention, for the pretrained recall is no better than a random order"
        )
        recalls = " → ".join(
            f"{written('recall_at_1_pct', one['recall_at_1_pct'])} "
            f"[{number_text(one['wilson_low_pct'], 1)}–{number_text(one['wilson_high_pct'], 1)}]"
            for one in (before, after)
        )
        at_5, at_10 = (
            f"{written(key, before[key])} → {written(key, after[key])}"
            for key in ("recall_at_5_pct", "recall_at_10_pct")
        )
        yield (
            f"{way.replace('_', ' ')}: recall@1 {recalls}, n = {after['num_queries']:,} among "
            f"{after['num_candidates']:,}: {kept} (chance "
            f"{written('recall_at_1_pct', after['chance_at_1_pct'])}); recall@5 {at_5}, recall@10 "
            f"{at_10}"
        )


def doubts_of(scores: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """What makes the numbers of transfer sets doubtful, a sentence each that names the set."""
    for name, score in scores.items():
        for doubt in score.get("doubts") or ():
            yield f"{name}: {doubt}."


def unmeasured_sentences(reasons: Mapping[str, str]) -> Iterator[str]:
    """Why numbers are missing, those of one reason together."""
    by_reason: dict[str, list[str]] = {}
    for key, reason in reasons.items():
        by_reason.setdefault(reason, []).append(METRICS[key].label if key in METRICS else key)
    for reason, labels in by_reason.items():
        yield f"{join_words(labels)}: {reason}."


def is_number(value: Any) -> bool:
    """Whether it is a finite number."""
    return isinstance(value, Real) and math.isfinite(value)


def interval_phrase(num_images: Any, low: Any, high: Any) -> str:
    """On how many images an accuracy was counted, with its interval, in brackets; "" unknown."""
    if not is_number(num_images):
        return ""
    if not (is_number(low) and is_number(high)):
        return f" ({num_images:,.0f} images)"
    ends = f"{number_text(low, 1)}–{number_text(high, 1)}"
    return f" ({num_images:,.0f} images, 95 % interval {ends} %)"


def _retention_interval(score: Mapping[str, Any]) -> str:
    interval = retention_interval_pct(score)
    if interval is None:
        return ""
    return f" (95 % interval {number_text(interval[0], 1)}–{number_text(interval[1], 1)} %)"


def _chance(score: Mapping[str, Any]) -> Iterable[str]:
    if not is_number(score.get("chance_pct")):
        return
    said = (
        f"Guessing scores {written('chance_pct', score['chance_pct'])}, and a model that gives "
        f"every image one answer at most {written('constant_pct', score.get('constant_pct'))}"
    )
    if is_number(score.get("above_chance_pct")):
        above = written("above_chance_pct", score["above_chance_pct"])
        said += f"; above chance, {above} is left"
    yield f"{said}."


def _calibration(score: Mapping[str, Any]) -> Iterable[str]:
    if not is_number(score.get("ece_change_points")):
        return
    before, after = (written("ece_pct", score[key]) for key in ("pretrained_ece_pct", "ece_pct"))
    change = written("ece_change_points", score["ece_change_points"])
    yield f"Its calibration error is {before} before and {after} after ({change})."
