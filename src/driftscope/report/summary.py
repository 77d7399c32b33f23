"""What was studied, what two models differ in, and what the numbers cannot tell, in sentences.

Sentences are `Markup`: values are escaped on the way in, key numbers are emphasised.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from markupsafe import Markup

from driftscope.analysis.words import counted, join_words, rate_text
from driftscope.metrics import number_text
from driftscope.records import RunRecord
from driftscope.report.zero_shot import (
    doubts_of,
    interval_phrase,
    is_number,
    recall_sentences,
    score_sentences,
    written,
)
from driftscope.stats.groups import permutation_of_means


@dataclass(frozen=True)
class Summary:
    """What was studied, a headline, the sentences under it, and what the numbers cannot tell."""

    studied: Markup
    headline: Markup
    sentences: list[Markup]
    caveats: list[Markup]

    def without_breaks(self) -> Summary:
        """The same with no line break within a number."""
        return Summary(
            unbreakable(self.studied),
            unbreakable(self.headline),
            [unbreakable(sentence) for sentence in self.sentences],
            [unbreakable(caveat) for caveat in self.caveats],
        )


# ---------------------------------------------------------------- a study


def study_summary(cells: pd.DataFrame, runs: pd.DataFrame, setting: Mapping[str, str]) -> Summary:
    """What was studied in one place (one dataset, model, protocol), and what it cannot tell.

    The headline serves a study of which no question can be answered.
    """
    return Summary(
        _what_was_studied(cells, runs, setting),
        _study_headline(cells),
        [],
        _study_caveats(cells, setting),
    ).without_breaks()


def _study_headline(cells: pd.DataFrame) -> Markup:
    if not cells["num_runs"].any():
        return Markup("Every run diverged.")
    if _has(cells, "cka"):
        lowest = min(_rows(cells.dropna(subset=["cka"])), key=lambda cell: float(cell["cka"]))
        return Markup("The representation moves most under {} at {} (CKA {}).").format(
            lowest["series"], rate_text(lowest["learning_rate"]), written("cka", lowest["cka"])
        )
    return Markup("How much of the zero-shot ability is left is not known of these runs.")


def _what_was_studied(
    cells: pd.DataFrame, runs: pd.DataFrame, setting: Mapping[str, str]
) -> Markup:
    rates = sorted(cells["learning_rate"].unique())
    span = (
        rate_text(rates[0])
        if len(rates) == 1
        else f"{rate_text(rates[0])} to {rate_text(rates[-1])}"
    )
    start = Markup("{} of {}: {} at {} ({}), {}, protocol “{}”.").format(
        counted(
            int(runs["num_runs"].fillna(1).sum()) if "num_runs" in runs else len(runs),
            "fine-tuning run",
        ),
        f"{setting['model']} on {setting['dataset']}",
        join_words([str(series) for series in dict.fromkeys(cells["series"])]),
        counted(len(rates), "learning rate"),
        span,
        _seeds_phrase(cells),
        setting["protocol"],
    )
    diverged = int(cells["num_diverged"].sum())
    if diverged:
        verb = "run" if diverged == 1 else "runs"
        start += Markup(" {} {} diverged and is left out of every mean.").format(diverged, verb)
    before = runs.iloc[0]
    if "pretrained_zero_shot_pct" in runs and is_number(before["pretrained_zero_shot_pct"]):
        start += Markup(" The pretrained model reaches {} on {} without training{}.").format(
            written("zero_shot_pct", before["pretrained_zero_shot_pct"]),
            setting["transfer"],
            interval_phrase(
                before.get("zero_shot_num_images"),
                before.get("pretrained_low_pct"),
                before.get("pretrained_high_pct"),
            ),
        )
        if is_number(chance := before.get("chance_pct")):
            start += Markup(" Guessing reaches {}.").format(written("chance_pct", chance))
    return start


ENTROPY_CAVEAT = Markup(
    "<b>Entropy is a descriptor.</b> Attention entropy says where and how much a model was "
    "adapted. Its sign differs between datasets, methods and backbones, so it is no measure of "
    "damage; representation drift (CKA, embedding drift) is what tracks the loss of zero-shot "
    "ability."
)


def _study_caveats(cells: pd.DataFrame, setting: Mapping[str, str]) -> list[Markup]:
    caveats = [ENTROPY_CAVEAT]
    seeds = int(cells["num_runs"].max())
    floor = permutation_of_means(range(seeds), range(seeds, 2 * seeds)).p_floor
    if seeds == 1:
        caveats.append(
            Markup(
                "<b>1 seed a cell.</b> There is no spread to judge by: another seed could change "
                "any of these numbers, and no difference between cells can be tested."
            )
        )
    elif floor >= 0.05:
        caveats.append(
            Markup(
                "<b>{} seeds a cell.</b> The spread is itself a rough guess. An exact two-sided "
                "test of {} against {} runs cannot give p below {}, however large the difference: "
                "read differences between single cells as description, not as proof."
            ).format(seeds, seeds, seeds, number_text(floor, 2))
        )
    if not setting.get("transfer"):
        caveats.append(
            Markup(
                "<b>Zero-shot ability was not measured.</b> The study names no transfer set, so "
                "nothing here says how much of the pretrained ability is left."
            )
        )
    if setting["protocol"] == "paper":
        caveats.append(
            Markup(
                "<b>Protocol “paper”.</b> Validation is the test split and the best epoch on it is "
                "reported, as in the publication: accuracies are optimistic."
            )
        )
    return caveats


def doubts_caveats(records: Sequence[RunRecord]) -> list[Markup]:
    """What makes zero-shot numbers of runs doubtful, each once."""
    said = (doubt for one in records for doubt in doubts_of(one.scores()))
    return [
        unbreakable(Markup("<b>Doubtful.</b> {}").format(doubt)) for doubt in dict.fromkeys(said)
    ]


def scope_caveat(settings: Sequence[Mapping[str, str]]) -> Markup:
    """How far the numbers reach: the models, targets and transfer sets that they come from."""
    models, targets, transfers = (
        list(dict.fromkeys(one[key] for one in settings if one.get(key)))
        for key in ("model", "dataset", "transfer")
    )
    start = f"{counted(len(models), 'model')}, {counted(len(targets), 'target')}."
    return unbreakable(
        Markup(
            "<b>{}</b> Measured with {} on {}{}; another backbone or dataset can differ in size "
            "and in sign."
        ).format(
            start[:1].upper() + start[1:],
            join_words(models),
            join_words(targets),
            f", zero-shot on {join_words(transfers)} alone" if transfers else "",
        )
    )


# ---------------------------------------------------------------- a comparison of two models


def comparison_summary(comparison: Mapping[str, Any]) -> Summary:
    """What separates two models, from a `compare` result."""
    drift, transfer = comparison["drift"], comparison.get("transfer") or {}
    studied = Markup("{} against {}, read on {} of {} without labels.").format(
        comparison["adapted"],
        comparison["pretrained"],
        counted(int(comparison["num_images"]), "image"),
        comparison["images"],
    )
    sentences = [transfer_sentence(name, scores) for name, scores in transfer.items()]
    sentences += [retrieval_sentence(*one) for one in (comparison.get("retrieval") or {}).items()]
    representation = _representation_sentence(drift)
    if representation:
        sentences.append(representation)
    sentences.append(_attention_sentence(drift))
    if is_number(drift.get("weight_drift")):
        moved = written("weight_drift", drift["weight_drift"])
        sentences.append(Markup("Weight drift is {} (‖ΔW‖/‖W₀‖).").format(moved))
    return Summary(
        studied,
        _comparison_headline(drift, transfer),
        sentences,
        _comparison_caveats(comparison, drift, transfer),
    ).without_breaks()


def _comparison_headline(drift: Mapping[str, Any], transfer: Mapping[str, Any]) -> Markup:
    if drift.get("weight_drift") == 0:
        return Markup("The image encoders are equal to the bit: is one of them the wrong model?")
    for name, scores in transfer.items():
        if is_number(scores["retention_pct"]):
            return Markup("<strong>{}</strong> of the {} is left.").format(
                written("retention_pct", scores["retention_pct"]), name
            )
    if is_number(drift.get("embedding_drift")):
        return Markup(
            "The image embeddings moved by <strong>{}</strong> (1 − cosine), CKA is "
            "<strong>{}</strong>; how much zero-shot ability is left was not measured."
        ).format(written("embedding_drift", drift["embedding_drift"]), written("cka", drift["cka"]))
    return Markup("CKA with the pretrained model is <strong>{}</strong>.").format(
        written("cka", drift["cka"])
    )


def transfer_sentence(name: str, scores: Mapping[str, Any]) -> Markup:
    """A zero-shot score with its chance, calibration and doubts."""
    said = Markup("{}").format(" ".join(score_sentences(name, scores)))
    return Markup("").join([said, *_remarks(scores)])


def retrieval_sentence(name: str, scores: Mapping[str, Any]) -> Markup:
    """Recall on a captioned set, with its chance and doubts."""
    said = Markup("Retrieval on {}, {}.").format(name, "; ".join(recall_sentences(scores)))
    return Markup("").join([said, *_remarks(scores)])


def _remarks(scores: Mapping[str, Any]) -> Iterator[Markup]:
    for doubt in scores.get("doubts") or ():
        yield Markup(" <strong>Doubtful:</strong> {}.").format(doubt)
    for note in scores.get("notes") or ():
        yield Markup(" Note: {}.").format(note)


def _representation_sentence(drift: Mapping[str, Any]) -> Markup | None:
    per_block = [value for value in drift.get("cka_per_block") or [] if is_number(value)]
    if not per_block:
        return None
    lowest = min(range(len(per_block)), key=per_block.__getitem__)
    sentence = Markup("Representation: mean CKA {} (debiased {}), lowest at layer {} ({})").format(
        written("cka", drift["cka"]),
        written("cka_debiased", drift.get("cka_debiased")),
        lowest + 1,
        written("cka", per_block[lowest]),
    )
    if is_number(drift.get("embedding_drift")):
        sentence += Markup("; image embeddings moved by {} (1 − mean cosine)").format(
            written("embedding_drift", drift["embedding_drift"])
        )
    return sentence + Markup(".")


def _attention_sentence(drift: Mapping[str, Any]) -> Markup:
    per_layer = drift["delta_entropy_pct_per_layer"]
    said = Markup("Attention: entropy changed by {} ({})").format(
        written("delta_entropy_pct", drift["delta_entropy_pct"]),
        "broader" if drift["delta_entropy_pct"] > 0 else "narrower",
    )
    if len(per_layer) < len(drift.get("cka_per_block") or []):
        return said + Markup(" where the patches are pooled.")
    most = max(range(len(per_layer)), key=lambda index: abs(per_layer[index] or 0.0))
    return said + Markup(", most at layer {} ({}).").format(
        most + 1, written("delta_entropy_pct", per_layer[most])
    )


def _comparison_caveats(
    comparison: Mapping[str, Any], drift: Mapping[str, Any], transfer: Mapping[str, Any]
) -> list[Markup]:
    caveats = [ENTROPY_CAVEAT]
    if not transfer:
        caveats.append(
            Markup(
                "<b>Zero-shot ability was not measured.</b> CKA and embedding drift tend to track "
                "its loss, but no value of theirs means “safe” on every model: run again with "
                "<code>--transfer</code> to know."
            )
        )
    gap = drift.get("cka_debiased")
    if is_number(gap) and abs(drift["cka"] - gap) > 0.02:
        caveats.append(
            Markup(
                "<b>Few images.</b> With {} images CKA is inflated ({} against {} debiased): trust "
                "the debiased one."
            ).format(
                comparison["num_images"], written("cka", drift["cka"]), written("cka_debiased", gap)
            )
        )
    return caveats


# ---------------------------------------------------------------- words


def _has(cells: pd.DataFrame, name: str) -> bool:
    return name in cells and bool(cells[name].notna().any())


def unbreakable(text: Markup) -> Markup:
    """The text with no line break before a percent sign or within a learning rate."""
    kept = str(text).replace(" %", "\u00a0%")
    return Markup(re.sub(r"\b([\d.]+e-\d+)\b", r'<span class="unbroken">\1</span>', kept))


def _rows(cells: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(key): value for key, value in row.items()} for row in cells.to_dict("records")]


def _seeds_phrase(cells: pd.DataFrame) -> str:
    low, high = int(cells["num_runs"].min()), int(cells["num_runs"].max())
    if low == high:
        return f"{counted(low, 'seed')} each"
    return f"{low} to {high} seeds each"
