"""What a study or a comparison shows in sentences, and what it cannot tell."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from driftscope.analysis.advice import (
    Advice,
    advice_on_comparison,
    has_texts,
    kept_of,
)
from driftscope.analysis.chart import MOST_NAMED
from driftscope.analysis.words import (
    counted,
    doubt_sentences,
    few_words,
    join_words,
    rate_text,
    share_of_declared,
)
from driftscope.analysis.zero_shot import (
    doubts_of,
    interval_phrase,
    is_number,
    learned_sentence,
    recall_sentences,
    score_sentences,
    suite_sentence,
    written,
)
from driftscope.metric import number_text
from driftscope.metrics import ESTIMATED, KEPT_PCT, METRICS
from driftscope.protocols import ability_on, scored_on
from driftscope.records import RunRecord, retention_interval_pct
from driftscope.stats.groups import permutation_of_means


@dataclass(frozen=True)
class Caveat:
    """What numbers cannot tell: its name in a few words, and the rest."""

    title: str
    text: str


@dataclass(frozen=True)
class Summary:
    """What was studied, a headline, the sentences under it, and what the numbers cannot tell.

    `emphasised` are the parts of the headline that stand out; `advice` is what to do.
    """

    studied: str
    headline: str
    sentences: list[str]
    caveats: list[Caveat]
    emphasised: tuple[str, ...] = ()
    advice: tuple[Advice, ...] = ()


ENTROPY_CAVEAT = Caveat(
    "Entropy is a descriptor.",
    "Attention entropy says where and how much a model was adapted. The sign of its change differs "
    "between datasets, methods and backbones, so its direction is no measure of damage. The larger "
    "the change, the larger the damage tends to be; on the embedded model CKA follows the damage "
    "more closely. Retention, measured or estimated, "
    "says how much ability is left. CKA roughly orders models by damage; its value depends on the "
    "images; of two high embedding drifts the higher need not mean more damage.",
)
BUDGET_CAVEAT = Caveat(
    f"{KEPT_PCT:.0f} % is a convention.",
    "Where you name no other, that much of the pretrained accuracy counts as kept. `rescue --keep` "
    "and `gate --min-retention` take your own. More than 100 % is left where the adapted model is "
    "right more often than the pretrained one.",
)
PAPER_CAVEAT = Caveat(
    "Protocol “paper”.",
    "Validation is the test split and the best epoch on it is reported, as in the publication: "
    "accuracies are optimistic.",
)
PROTOCOL_WORDS = {"leakfree": " (the test images are read once, at the selected epoch)"}
_NOT_MEASURED = "What is left of the pretrained ability was not measured."


def unmeasured_caveat(way_out: str) -> Caveat:
    """That retention is not known, and what to do to know."""
    return Caveat(
        _NOT_MEASURED,
        "CKA tends to fall with it, but no value of CKA means “safe” on every model and every set "
        f"of images, and embedding drift saturates: {way_out} to know.",
    )


# ---------------------------------------------------------------- a study


def missing_text(num_there: int, missing: pd.DataFrame) -> str:
    """How many declared runs are in no table and why, such as "74 of 80 declared runs are in no
    table (1 failed, 73 waiting)".

    Args:
        num_there: the runs that are in the tables.
        missing: `StudyTables.missing`, of which there is a row.
    """
    states = missing["state"].value_counts(sort=False).sort_index()
    why = ", ".join(f"{count} {state}" for state, count in states.items())
    verb = "is" if len(missing) == 1 else "are"
    count = (
        counted(len(missing), "declared run")  # nobody knows how many of them a result will choose
        if "is_unsure" in missing
        else share_of_declared(len(missing), num_there)
    )
    return f"{count} {verb} in no table ({why})"


def missing_caveats(num_there: int, missing: pd.DataFrame) -> list[Caveat]:
    """That a study is not finished, as `missing_text` takes it; nothing where no run is missing."""
    if missing.empty:
        return []
    return [
        Caveat(
            "Not finished.",
            f"{missing_text(num_there, missing)}: what is best so far need not be best in the end. "
            "`driftscope study run` carries out what is missing, with --retry-failed also what "
            "failed.",
        )
    ]


def study_summary(cells: pd.DataFrame, runs: pd.DataFrame, setting: Mapping[str, str]) -> Summary:
    """What was studied in one place (one dataset, model, protocol), and what it cannot tell.

    The headline serves a study of which no question can be answered.
    """
    studied = _what_was_studied(cells, runs, setting)
    return Summary(studied, _study_headline(cells), [], _study_caveats(cells, setting))


def studied_together(studied: Sequence[tuple[str, str]]) -> list[str]:
    """What was studied on each dataset; told once where nothing but the dataset differs.

    Args:
        studied: a dataset and `Summary.studied` a place.
    """
    alike = {text.replace(f" on {dataset}:", " on {}:", 1) for dataset, text in studied}
    if len(studied) == 1 or len(alike) > 1:
        return [text for _, text in studied]
    [text] = alike
    names = join_words(dataset for dataset, _ in studied)
    return [text.replace(" on {}:", f" on each of {names}:", 1)]


def _study_headline(cells: pd.DataFrame) -> str:
    if not cells["num_runs"].any():
        return "Every run diverged."
    if "cka" in cells and cells["cka"].notna().any():
        lowest = cells.sort_values("cka", kind="stable").iloc[0]
        return (
            f"The representation moves most under {lowest['series']} at "
            f"{rate_text(lowest['learning_rate'])} (CKA {written('cka', lowest['cka'])})."
        )
    return "How much of the pretrained ability is left is not known of these runs."


def _what_was_studied(cells: pd.DataFrame, runs: pd.DataFrame, setting: Mapping[str, str]) -> str:
    rates = sorted(cells["learning_rate"].unique())
    span = " to ".join(dict.fromkeys(rate_text(end) for end in (rates[0], rates[-1])))
    num_runs = int(runs["num_runs"].fillna(1).sum()) if "num_runs" in runs else len(runs)
    text = (
        f"{counted(num_runs, 'fine-tuning run')} of {setting['model']} on {setting['dataset']}: "
        f"{_named(list(map(str, dict.fromkeys(cells['series']))))} at "
        f"{counted(len(rates), 'learning rate')} ({span}), {_seeds_phrase(cells)}, "
        f"protocol “{setting['protocol']}”{PROTOCOL_WORDS.get(setting['protocol'], '')}."
    )
    if diverged := int(cells["num_diverged"].sum()):
        text += f" {counted(diverged, 'run')} diverged and is left out of every mean."
    return text + _pretrained_sentence(runs, setting)


def _pretrained_sentence(runs: pd.DataFrame, setting: Mapping[str, str]) -> str:
    """What the pretrained model reaches on the transfer set; "" where that is not known."""
    key = "pretrained_zero_shot_pct"
    known = runs[runs[key].notna()] if key in runs else runs.iloc[:0]
    if known.empty:
        return ""
    ordered = known.sort_values(key, kind="stable")
    lowest, highest = (written("zero_shot_pct", ordered[key].iloc[end]) for end in (0, -1))
    on = f"on {setting['transfer']} without training"
    if lowest != highest:
        return (
            f" The pretrained model reaches {lowest} to {highest} {on}: runs differ in what they "
            "are measured with."
        )
    names = ("zero_shot_num_images", "pretrained_low_pct", "pretrained_high_pct")
    interval = interval_phrase(*map(known.iloc[0].get, names))
    return f" The pretrained model reaches {lowest} {on}{interval}."


def _named(methods: Sequence[str]) -> str:
    if len(methods) <= MOST_NAMED:
        return join_words(methods)
    few = methods[:3]
    return f"{len(methods)} methods, such as {join_words(few)},"


def _seeds_phrase(cells: pd.DataFrame) -> str:
    low, high = int(cells["num_runs"].min()), int(cells["num_runs"].max())
    return f"{counted(low, 'seed')} each" if low == high else f"{low} to {high} seeds each"


def _study_caveats(cells: pd.DataFrame, setting: Mapping[str, str]) -> list[Caveat]:
    caveats = [ENTROPY_CAVEAT]
    seeds = int(cells["num_runs"].max())
    floor = permutation_of_means(range(seeds), range(seeds, 2 * seeds)).p_floor
    if seeds == 1:
        caveats.append(
            Caveat(
                "1 seed a cell.",
                "There is no spread to judge by: another seed could change any of these numbers, "
                "and no difference between cells can be tested.",
            )
        )
    elif floor >= 0.05:
        caveats.append(
            Caveat(
                f"{seeds} seeds a cell.",
                "The spread is itself a rough guess. An exact two-sided test of "
                f"{seeds} against {seeds} runs cannot give p below {number_text(floor, 2)}, "
                "however large the difference: read differences between single cells as "
                "description, not as proof.",
            )
        )
    if not setting.get("transfer"):
        caveats.append(
            Caveat(
                _NOT_MEASURED,
                "The study names no transfer set, so nothing here says how much of the pretrained "
                "ability is left.",
            )
        )
    if setting["protocol"] == "paper":
        caveats.append(PAPER_CAVEAT)
    return caveats


def doubts_caveats(records: Sequence[RunRecord]) -> list[Caveat]:
    """What makes zero-shot numbers of runs doubtful, each once."""
    said = (doubt for one in records for doubt in doubts_of(one.scores()))
    return [
        *(Caveat("Doubtful.", doubt) for doubt in dict.fromkeys(said)),
        *(Caveat("Trained too little.", note) for note in training_notes(records)),
    ]


def training_notes(records: Iterable[RunRecord]) -> list[str]:
    """What is to be said of trainings: of each method, rate and dataset what its first run has."""
    told: dict[str, str] = {}
    for one in records:
        rate, dataset = rate_text(one.spec.learning_rate), one.spec.dataset
        place = f"{one.spec.method.label} at {rate} on {dataset}"
        for note in one.result.notes:
            told.setdefault(place, f"{place}: {note}.")
    return list(told.values())


def scope_caveat(settings: Sequence[Mapping[str, str]], further_sets: Sequence[str] = ()) -> Caveat:
    """How far the numbers reach: the models, targets and transfer sets that they come from.

    Args:
        settings: the places of a study.
        further_sets: transfer sets that were measured beside those of the places.
    """
    models, targets, transfers = (
        list(dict.fromkeys(one[key] for one in settings if one.get(key)))
        for key in ("model", "dataset", "transfer")
    )
    on = f", {join_words(map(scored_on, transfers))}" if transfers else ""
    further = [name for name in further_sets if name not in transfers]
    if further:
        on += f"; of {few_words(further)} the tables and the advice tell"
    elif transfers:
        on += " alone"
    return Caveat(
        f"{counted(len(models), 'model')}, {counted(len(targets), 'target')}.",
        f"Measured with {join_words(models)} on {join_words(targets)}{on}; another backbone or "
        "dataset can differ in size and in sign.",
    )


# ---------------------------------------------------------------- a comparison of two models


def comparison_summary(comparison: Mapping[str, Any]) -> Summary:
    """What separates two models, from a `compare` result."""
    drift, transfer = comparison["drift"], comparison.get("transfer") or {}
    advice, kept = advice_on_comparison(comparison), kept_of(comparison)
    needs = needs_for_retention(comparison)
    headline, emphasised = _comparison_headline(drift, transfer, comparison.get("estimate"), needs)
    if kept is not None and advice.outcome in ("kept", "lost", "unsure"):
        headline, emphasised = advice.verdict, (written(kept.key, kept.pct),)
    learned = learned_sentence(str(comparison["images"]), comparison.get("own_classes"))
    sentences = [
        *(doubt_sentences(comparison.get("doubts")) if kept is None else ()),
        *([learned] if learned else []),
        *found_sentences(comparison),
        *drift_sentences(drift),
    ]
    images = f"{counted(int(comparison['num_images']), 'image')} of {comparison['images']}"
    return Summary(
        f"{comparison['adapted']} against {comparison['pretrained']}, read on {images}"
        f"{'' if learned else ' without labels'}.",
        headline,
        sentences,
        _comparison_caveats(comparison, drift, transfer),
        emphasised,
        (advice,),
    )


def _comparison_headline(
    drift: Mapping[str, Any],
    transfer: Mapping[str, Any],
    estimate: Mapping[str, Any] | None,
    needs: str,
) -> tuple[str, tuple[str, ...]]:
    kept_all = all(one["retention_pct"] in (None, 100) for one in transfer.values())
    if drift.get("weight_drift") == 0 and kept_all:
        return "The image encoders are equal to the bit: is one of them the wrong model?", ()
    for name, scores in transfer.items():
        if is_number(scores["retention_pct"]):
            kept = written("retention_pct", scores["retention_pct"])
            sure = _interval_words("retention_pct", 95, retention_interval_pct(scores))
            return f"{kept} of the {ability_on(name)} is left{sure}.", (kept,)
    if estimate and is_number(estimate["retention_pct"]):
        return estimate_headline(estimate)
    return unmeasured_headline(drift["cka"], needs)


def unmeasured_headline(cka: Any, needs: str, at: str = "") -> tuple[str, tuple[str, ...]]:
    """The headline where no retention is known, and what of it stands out: CKA, which roughly
    orders models by damage.

    Args:
        cka: with the pretrained model; None where it was not read.
        needs: what to give so that retention is known; "" where all that helps was given.
        at: when it was read, such as " at epoch 3", where not at the end.
    """
    unknown = (
        f"To learn how much of the pretrained ability is left, give {needs}."
        if needs
        else "How much of the pretrained ability is left is not known."
    )
    if not is_number(cka):
        return unknown, ()
    told = written("cka", cka)
    return f"CKA with the pretrained model is {told}{at}. {unknown}", (told,)


def needs_for_retention(found: Mapping[str, Any], *, had_pool: bool = False) -> str:
    """What to give so that retention is known; "" where that was given, and told nothing.

    Args:
        found: with `transfer`, `estimate` and `unmeasured`, as JSON values hold them.
        had_pool: whether a pool was given of which no estimate is left.
    """
    if found.get("transfer") or found.get("estimate") or had_pool:
        return ""
    if not has_texts(found.get("unmeasured") or {}):
        return "a labeled transfer set"
    return "a pool of unlabeled images or a labeled transfer set"


def estimate_headline(estimate: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
    """How much is left as estimated, and the part of the headline that stands out."""
    kept = written(ESTIMATED, estimate["retention_pct"])
    sure = _interval_words(ESTIMATED, 90, (estimate["low_90_pct"], estimate["high_90_pct"]))
    return (
        f"About {kept} of the zero-shot ability is left: estimated without labels on "
        f"{estimate['pool']}{sure}."
    ), (kept,)


def _interval_words(key: str, level: int, ends: tuple[float, float] | None) -> str:
    if ends is None:
        return ""
    low, high = (METRICS[key].text(end) for end in ends)
    return f" ({level} % interval {low} to {high})"


def _estimate_sentences(found: Mapping[str, Any]) -> list[str]:
    """What is told of retention without labels: the estimate, its doubts, the forecast."""
    told = [one for one in (found.get("estimate"), found.get("forecast")) if one]
    return [" ".join([one["sentence"], *_remarks(one)]) for one in told]


def transfer_sentence(name: str, score: Mapping[str, Any]) -> str:
    """A zero-shot score with its chance, calibration, doubts and notes."""
    return " ".join([*score_sentences(name, score), *_remarks(score)])


def retrieval_sentence(name: str, score: Mapping[str, Any]) -> str:
    """Recall on a captioned set, with its chance, doubts and notes."""
    recalls = "; ".join(recall_sentences(score))
    return " ".join([f"Retrieval on {name}, {recalls}.", *_remarks(score)])


def found_sentences(found: Mapping[str, Any]) -> list[str]:
    """What is said of every pool, transfer set, suite and captioned set of a comparison or look."""
    kinds = ("transfer", "suites", "retrieval")
    transfer, suites, retrieval = (found.get(kind) or {} for kind in kinds)
    return [
        *(transfer_sentence(*one) for one in transfer.items()),
        *(f"{suite_sentence(*one)}." for one in suites.items()),
        *(retrieval_sentence(*one) for one in retrieval.items()),
        *_estimate_sentences(found),
    ]


def _remarks(score: Mapping[str, Any]) -> list[str]:
    doubts = doubt_sentences(score.get("doubts"))
    return [*doubts, *(f"Note: {note}." for note in score.get("notes") or ())]


def drift_sentences(drift: Mapping[str, Any]) -> list[str]:
    """What has changed in the representation, in attention and in the weights."""
    told = [*_representation_sentences(drift), *_attention_sentence(drift)]
    if is_number(drift.get("weight_drift")):
        told.append(
            f"Weight drift is {written('weight_drift', drift['weight_drift'])} (‖ΔW‖/‖W₀‖)."
        )
    return told


def _representation_sentences(drift: Mapping[str, Any]) -> list[str]:
    """CKA first, for it orders models by damage better than the embeddings' drift."""
    per_block = [value for value in drift.get("cka_per_block") or [] if is_number(value)]
    told = []
    if per_block:
        lowest = min(range(len(per_block)), key=per_block.__getitem__)
        told.append(
            f"Representation: mean CKA {written('cka', drift['cka'])} (debiased "
            f"{written('cka_debiased', drift.get('cka_debiased'))}), lowest at layer {lowest + 1} "
            f"({written('cka', per_block[lowest])})."
        )
    if is_number(drift.get("embedding_drift")):
        moved = written("embedding_drift", drift["embedding_drift"])
        told.append(f"Image embeddings moved by {moved} (1 − mean cosine), a drift that saturates.")
    return told


def _attention_sentence(drift: Mapping[str, Any]) -> list[str]:
    """The sentence; none where attention is not compared."""
    per_layer = drift.get("delta_entropy_pct_per_layer") or []
    change = drift.get("delta_entropy_pct")
    if change is None or not is_number(change):
        return []
    said = (
        f"Attention: entropy changed by {written('delta_entropy_pct', change)} "
        f"({'broader' if change > 0 else 'narrower'})"
    )
    if not per_layer:
        return [f"{said}."]
    if len(per_layer) < len(drift.get("cka_per_block") or []):
        return [f"{said} where the patches are pooled."]
    most = max(range(len(per_layer)), key=lambda index: abs(per_layer[index] or 0.0))
    return [f"{said}, most at layer {most + 1} ({written('delta_entropy_pct', per_layer[most])})."]


def _comparison_caveats(
    comparison: Mapping[str, Any], drift: Mapping[str, Any], transfer: Mapping[str, Any]
) -> list[Caveat]:
    caveats = [BUDGET_CAVEAT, ENTROPY_CAVEAT]
    if not transfer and not comparison.get("estimate"):
        caveats.append(
            unmeasured_caveat(
                "run again with --pool (unlabeled images) or --transfer (a labeled set)"
            )
        )
    gap = drift.get("cka_debiased")
    if is_number(gap) and abs(drift["cka"] - gap) > 0.02:
        caveats.append(
            Caveat(
                "Few images.",
                f"With {comparison['num_images']} images CKA is inflated "
                f"({written('cka', drift['cka'])} against {written('cka_debiased', gap)} "
                "debiased): trust the debiased one.",
            )
        )
    return caveats
