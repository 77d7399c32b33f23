"""What one training shows in sentences, and what it cannot tell: a monitored one, or a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from driftscope.analysis.advice import (
    Advice,
    advice_on_look,
    found_by_run,
    kept_of,
)
from driftscope.analysis.summaries import (
    BUDGET_CAVEAT,
    ENTROPY_CAVEAT,
    PAPER_CAVEAT,
    PROTOCOL_WORDS,
    Caveat,
    Summary,
    drift_sentences,
    estimate_headline,
    found_sentences,
    needs_for_retention,
    unmeasured_caveat,
    unmeasured_headline,
)
from driftscope.analysis.words import counted, rate_text
from driftscope.analysis.zero_shot import is_number, written
from driftscope.metric import number_text
from driftscope.metrics import METRICS
from driftscope.protocols import ability_on
from driftscope.records import RunRecord
from driftscope.records.epochs import epochs_sentence

TO_STOP = "Training was to stop:"
"""What a sentence begins with that stands out, as `DOUBTFUL` does."""
_ONE_TRAINING = Caveat(
    "One training.",
    "What another seed or learning rate would do is not in here; a study of several runs tells.",
)

# ---------------------------------------------------------------- a monitored training


def monitor_summary(report: Mapping[str, Any]) -> Summary:
    """What a training did so far, from a monitor's `report.json`."""
    scalars, watched = report["scalars"], report["monitor"]
    seen = next(one for one in reversed(report["history"]) if one.get("cka") is not None)
    step = report["latest"]["step"]
    needs = needs_for_retention(seen, had_pool=bool(watched.get("pool")))
    headline, emphasised = _monitor_headline(
        watched["transfer"], scalars, step, seen.get("estimate"), needs
    )
    advice, kept = advice_on_look(seen, watched), kept_of(seen)
    if kept is not None and advice.outcome in ("kept", "lost", "unsure"):
        headline, emphasised = advice.verdict, (written(kept.key, kept.pct),)
    sentences = [
        *found_sentences({**seen, "suites": report.get("suites")}),
        *drift_sentences(seen),
    ]
    if "val_accuracy_pct" in scalars:
        accuracy = written("val_accuracy_pct", scalars["val_accuracy_pct"])
        sentences.append(f"Validation accuracy is {accuracy}.")
    if report["best"] is not None:
        sentences.append(_best_sentence(report))
    if report["stopped"]:
        sentences.append(f"{TO_STOP} {report['stopped']}")
    caveats = [ENTROPY_CAVEAT]
    if not watched["transfer"] and not watched.get("pool"):
        caveats.append(unmeasured_caveat("give the monitor a pool or a transfer set"))
    caveats.append(_ONE_TRAINING)
    studied = _what_was_monitored(report)
    return Summary(studied, headline, sentences, caveats, emphasised, (advice,))


def _monitor_headline(
    transfer: Sequence[Mapping[str, Any]],
    scalars: Mapping[str, float],
    step: int,
    estimate: Mapping[str, Any] | None,
    needs: str,
) -> tuple[str, tuple[str, ...]]:
    if transfer and "retention_pct" in scalars:
        kept = written("retention_pct", scalars["retention_pct"])
        return f"At step {step} {kept} of the {ability_on(transfer[0]['name'])} is left.", (kept,)
    if estimate and is_number(estimate["retention_pct"]):
        said, emphasised = estimate_headline(estimate)
        return f"At step {step}, a{said[1:]}", emphasised
    said, emphasised = unmeasured_headline(scalars.get("cka"), needs)
    return f"At step {step}: {said}", emphasised


def _what_was_monitored(report: Mapping[str, Any]) -> str:
    watched, count, share = report["monitor"], len(report["history"]), report["cost_share_pct"]
    times = "once" if count == 1 else f"{count} times"
    of_time = "" if share is None else f", {number_text(share, 1)} % of its time"
    return (
        f"A training of {watched['pretrained']} up to step {report['latest']['step']}, read "
        f"{times} on {watched['num_images']} probe images ({watched['probe_images']}) without "
        f"labels; that took {number_text(report['cost_seconds'], 1)} s{of_time}."
    )


def _best_sentence(report: Mapping[str, Any]) -> str:
    best, rule = report["best"], report["monitor"]["selection"]
    chosen = METRICS[rule["by"]]
    end = "least" if chosen.better == "lower" else "highest"
    reached, kept = (
        written(key, best["scalars"].get(key)) for key in ("val_accuracy_pct", chosen.key)
    )
    return (
        f"The best step is {best['step']}: of the observations within "
        f"{number_text(rule['within_points'], 1)} points of the highest accuracy it has "
        f"the {end} {chosen.label} ({kept}; accuracy {reached})."
    )


# ---------------------------------------------------------------- a run


def run_summary(record: RunRecord, advice: Advice) -> Summary:
    """What one run did.

    Args:
        record: the run's, with all it holds.
        advice: `advice_on_run` of it.
    """
    changed, found = record.drift, found_by_run(record)
    drift = changed.facts() if changed else {}
    headline, emphasised = unmeasured_headline(
        drift.get("cka"), needs_for_retention(found | drift), _another_epoch(record)
    )
    if (kept := kept_of(found)) is not None:
        headline, emphasised = advice.verdict, (written(kept.key, kept.pct),)
    if changed is None:
        headline, emphasised = "The run diverged before anything of it could be read.", ()
    return Summary(
        _what_was_run(record),
        headline,
        drift_sentences(drift),
        _run_caveats(record, found),
        emphasised,
        (advice,) if changed else (),
    )


def _another_epoch(record: RunRecord) -> str:
    """At which epoch drift was read, where that is not the selected one; else nothing."""
    point = record.structure_point
    if point is None or not epochs_sentence(record):
        return ""
    return f" at epoch {point.epoch}, the last one"


def _what_was_run(record: RunRecord) -> str:
    spec, selected = record.spec, record.result.selected
    epochs = counted(spec.epochs, "epoch")
    if selected is not None and selected.epoch is not None:
        epochs += f", of which epoch {selected.epoch} is selected"
    return (
        f"{spec.method.label} of {spec.model} on {spec.dataset} at rate "
        f"{rate_text(spec.learning_rate)}, seed {spec.seed}: {epochs}, protocol "
        f"“{spec.protocol}”{PROTOCOL_WORDS.get(spec.protocol, '')}."
    )


def _run_caveats(record: RunRecord, found: Mapping[str, Any]) -> list[Caveat]:
    is_known = kept_of(found) is not None
    unmeasured = unmeasured_caveat("name a pool or a transfer set in the spec")
    return [
        *([] if is_known else [unmeasured]),
        *([BUDGET_CAVEAT] if is_known and record.spec.budget is None else []),
        ENTROPY_CAVEAT,
        _ONE_TRAINING,
        *([PAPER_CAVEAT] if record.spec.protocol == "paper" else []),
    ]
